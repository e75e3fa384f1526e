//! `portcullis apply`: replaces the running policy, all or nothing.

use std::path::PathBuf;

use super::client::{ask_about, findings, unexpected};
use super::{Exit, Output};
use crate::api::protocol::{self, Applied, SessionOutcome, Source};
use crate::api::{Request, Response};
use crate::daemon::policy::Texts;
use crate::guard::find::Place;
use crate::guard::{Session, SessionError};

const EXAMPLES: &str = "Examples:
  portcullis apply --rules rules.v4
  portcullis apply --rules rules.v4 --rules6 rules.v6 --counters
  portcullis apply --rules rules.v4 --sets sets.save
  portcullis apply --rules rules.v4 --session '198.51.100.7 50000 192.0.2.1 22'

A family without a file keeps its policy. On any error the old policy keeps running; so it
does when the new one would cut the SSH session that this is typed in, unless --force.";

/// What to apply.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The new IPv4 policy, an iptables-save file.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["rules6", "sets"])]
    pub rules: Option<PathBuf>,
    /// The new IPv6 policy, an ip6tables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Sets, an `ipset save` file or a directory of them; may be given more than once. Each
    /// set that they make takes the place of the one of that name, along with the rules.
    #[arg(long, value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// Take over the counters written in the files (as iptables-restore -c does).
    #[arg(short = 'c', long)]
    pub counters: bool,
    /// The session to keep.
    #[command(flatten)]
    pub keep: Keep,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// The session that a change of the policy must not cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Keep {
    /// Apply it even if it cuts the session that this is typed in.
    #[arg(long)]
    pub force: bool,
    /// The session to keep, as SSH_CONNECTION has it, or "none" [default: the SSH session
    /// that this is typed in, if it can be found].
    #[arg(long, value_name = "CLIENT CPORT SERVER SPORT", value_parser = session)]
    pub session: Option<Chosen>,
}

/// `--session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Nothing is to be kept.
    Nothing,
    /// This one.
    This(Session),
}

fn session(text: &str) -> Result<Chosen, SessionError> {
    match text {
        "none" => Ok(Chosen::Nothing),
        text => text.parse().map(Chosen::This),
    }
}

impl Keep {
    /// The one that was named, or that this is typed in.
    pub(super) fn session(&self) -> Option<protocol::SessionInfo> {
        let session = match &self.session {
            Some(Chosen::Nothing) => None,
            Some(Chosen::This(session)) => Some(session.clone()),
            None => Place::here().session(),
        };
        session.map(protocol::SessionInfo::from)
    }
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let texts = Texts::read(args.rules.as_deref(), args.rules6.as_deref(), &args.sets);
    let Texts { v4: rules, v6: rules6, sets } = match texts {
        Ok(texts) => texts,
        Err(findings) => {
            findings.iter().for_each(|finding| output.finding(finding, None));
            return Exit::Refused;
        }
    };
    let sources: Vec<Source> =
        [&rules, &rules6].into_iter().flatten().chain(&sets).cloned().collect();
    let session = args.keep.session();
    let (counters, force) = (args.counters, args.keep.force);
    let apply = protocol::Apply { rules, rules6, sets, counters, session, force };
    match ask_about(&args.socket, Request::Apply(apply), &sources, output) {
        Ok(Response::Applied(applied)) => {
            print(&applied, &sources, output);
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

fn print(applied: &Applied, sources: &[Source], output: &Output) {
    if output.json() {
        return output.object(applied);
    }
    findings(&applied.findings, sources, output);
    if applied.session.outcome == SessionOutcome::Cut {
        output.warning(&applied.session.text);
    }
    let Applied { generation, rules_v4, rules_v6, adopted, stages, .. } = applied;
    output.line(format_args!(
        "generation {generation}: {rules_v4} IPv4 and {rules_v6} IPv6 rules{}",
        if *adopted { "" } else { ", not yet adopted by every worker" }
    ));
    output.line(format_args!(
        "parse {} us, compile {} us, self-check {} us, publish {} us, adopted after {} us",
        stages.parse_us, stages.compile_us, stages.selfcheck_us, stages.publish_us, stages.adopt_us
    ));
}
