//! `portcullis rollback`, `confirm` and `reconcile`: how changes end.

use super::apply::{Conditions, Keep, print};
use super::client::{ask, unexpected};
use super::evidence::Because;
use super::{Exit, Output, Socket};
use crate::api::protocol::{Confirm, Reconcile, Rollback};
use crate::api::{Request, Response};

const EXAMPLES: &str = "Examples:
  portcullis rollback
  portcullis rollback 2 --reason 'the proxy is cut off'
  portcullis rollback r17
  portcullis rollback 3fa9c1 --confirm 60s

Puts back in force, at once, what was: the policy before this one, the second before it (2),
that of record 17 (r17), or the one whose id begins so. While a change waits for its
confirmation, `rollback` ends it. The policy is checked as by `apply`, and counters go on.";

/// Where to.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What it is called (`portcullis history`) [default: the one before].
    #[arg(value_name = "N|ID")]
    pub to: Option<String>,
    /// How it is to be done.
    #[command(flatten)]
    pub conditions: Conditions,
    /// The session to keep.
    #[command(flatten)]
    pub keep: Keep,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let (session, force) = (args.keep.session(), args.keep.force);
    let rollback = Rollback { to: args.to, session, force, terms: args.conditions.terms() };
    match ask(&args.socket, Request::Rollback(rollback), output) {
        Ok(Response::Applied(applied)) => {
            print(&applied, &[], output);
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

/// The change that waits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis confirm
  portcullis confirm --approver anna --reason 'the proxy answers'

Keeps the change that `apply --confirm` has made. Exits 1 when none waits: it was undone.")]
pub struct ConfirmArgs {
    /// Why.
    #[command(flatten)]
    pub because: Because,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

/// Runs `confirm`.
pub fn confirm(args: ConfirmArgs, output: &Output) -> Exit {
    let confirm = Confirm { why: args.because.why() };
    match ask(&args.socket, Request::Confirm(confirm), output) {
        Ok(response @ Response::Confirmed { .. }) => {
            match output.json() {
                true => output.object(&response),
                false => output.line("confirmed: the change stays"),
            }
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

/// The emergency that was looked at.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis reconcile 17 --reason 'reviewed: kept until the 30th' --ticket NET-1234

Closes the record that `apply --emergency` has opened; `portcullis history` tells its number.")]
pub struct ReconcileArgs {
    /// The number of its record.
    pub record: u64,
    /// What was found.
    #[command(flatten)]
    pub because: Because,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

/// Runs `reconcile`.
pub fn reconcile(args: ReconcileArgs, output: &Output) -> Exit {
    let reconcile = Reconcile { record: args.record, why: args.because.why() };
    match ask(&args.socket, Request::Reconcile(reconcile), output) {
        Ok(response @ Response::Reconciled { record }) => {
            match output.json() {
                true => output.object(&response),
                false => output.line(format_args!(
                    "emergency change {} is reconciled (record {record})",
                    args.record
                )),
            }
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}
