//! `portcullis run`: the daemon in the foreground.

use std::path::PathBuf;

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis run --port eth0 --port eth1 --rules rules.v4
  portcullis run --port eth0 --port eth1 --mode bridge --rules rules.v4 --rules6 rules.v6
  portcullis run --port eth0 --port eth1 --workers 4 --xdp native --conntrack-max 1000000

SIGTERM and SIGINT stop cleanly, SIGHUP reloads the rule files as one transaction.";

/// What to run on.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A network interface to take over; give it once per port.
    #[arg(long = "port", value_name = "DEV", required = true)]
    pub ports: Vec<String>,
    /// The IPv4 policy, an iptables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// The IPv6 policy, an ip6tables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Where to listen for commands.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// Runs the command.
pub fn run(_args: Args, output: &Output) -> Exit {
    output.error("run: not linked in yet");
    Exit::Internal
}
