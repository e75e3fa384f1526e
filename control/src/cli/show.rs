//! `portcullis show`: the policy, ports, statistics and connections of the running daemon.

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis show rules
  portcullis show rules --save > rules.v4
  portcullis show ports
  portcullis --json show stats
  portcullis show conntrack --proto tcp --limit 50";

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which view.
    #[command(subcommand)]
    pub what: What,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// The views.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// The policy with its counters.
    Rules,
    /// Ports: the mode really in force, queues, link state, rings.
    Ports,
    /// Counters per worker, and drops by reason.
    Stats,
    /// The connection table.
    Conntrack,
}

/// Runs the command.
pub fn run(_args: Args, output: &Output) -> Exit {
    output.error("show: not linked in yet");
    Exit::Internal
}
