//! `portcullis apply`: replaces the running policy, all or nothing.

use std::path::PathBuf;

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis apply --rules rules.v4
  portcullis apply --rules rules.v4 --rules6 rules.v6 --counters

A family without a file keeps its policy. On any error the old policy keeps running.";

/// What to apply.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The new IPv4 policy, an iptables-save file.
    #[arg(long, value_name = "FILE", required_unless_present = "rules6")]
    pub rules: Option<PathBuf>,
    /// The new IPv6 policy, an ip6tables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Take over the counters written in the files (as iptables-restore -c does).
    #[arg(short = 'c', long)]
    pub counters: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// Runs the command.
pub fn run(_args: Args, output: &Output) -> Exit {
    output.error("apply: not linked in yet");
    Exit::Internal
}
