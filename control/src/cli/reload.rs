//! `portcullis reload`: the daemon reads its files again.

use super::apply::Keep;
use super::client::{ask, findings, unexpected};
use super::config::one_line;
use super::evidence::Because;
use super::{Exit, Output};
use crate::api::protocol::{Reload, Reloaded, SessionOutcome, Terms};
use crate::api::{Request, Response};

const EXAMPLES: &str = "Examples:
  portcullis reload
  portcullis reload --dry-run
  portcullis --json reload

The configuration file and the policy files are read again; SIGHUP does the same, but comes from
no session. What can change live changes as one checked step (a policy that cuts the SSH session
that this is typed in is refused, unless --force), and the log file is opened anew. What needs a
restart is listed and stays as it is. Any error leaves everything as it was.

Exits 0 when all of it is in force, 8 when some of it waits for a restart, 1 when it was refused.";

/// What to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The session to keep.
    #[command(flatten)]
    pub keep: Keep,
    /// Why.
    #[command(flatten)]
    pub because: Because,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let Args { dry_run, keep, because, socket } = args;
    let terms = Terms { why: because.why(), ..Terms::default() };
    let reload = Reload { dry_run, session: keep.session(), force: keep.force, terms };
    match ask(&socket, Request::Reload(reload), output) {
        Ok(Response::Reloaded(reloaded)) => {
            print(&reloaded, output);
            if reloaded.restart.is_empty() { Exit::Ok } else { Exit::Restart }
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

fn print(reloaded: &Reloaded, output: &Output) {
    if output.json() {
        return output.object(reloaded);
    }
    findings(&reloaded.findings, &[], output);
    let (changed, kept) = match reloaded.dry_run {
        true => ("would change", "would need a restart"),
        false => ("changed", "needs a restart"),
    };
    for change in &reloaded.changed {
        output.line(format_args!("{changed}: {}", one_line(change)));
    }
    for change in &reloaded.restart {
        output.line(format_args!("{kept}: {}", one_line(change)));
    }
    match &reloaded.policy {
        Some(policy) if policy.session.outcome == SessionOutcome::Cut => {
            output.warning(&policy.session.text);
        }
        _ => {}
    }
    match &reloaded.policy {
        Some(policy) => output.line(format_args!(
            "generation {}: {} IPv4 and {} IPv6 rules",
            policy.generation, policy.rules_v4, policy.rules_v6
        )),
        None if reloaded.changed.is_empty() && reloaded.restart.is_empty() => {
            output.line("no setting is another");
        }
        None => {}
    }
}
