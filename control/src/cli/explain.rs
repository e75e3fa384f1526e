//! `portcullis explain`: every chain step that a described packet takes, and why.

use std::path::PathBuf;

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis explain in=eth0 src=198.18.1.2 dst=198.18.2.2 proto=tcp dport=443 flags=SYN
  portcullis explain --rules rules.v4 in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=icmp

Without --rules or --rules6 the running daemon is asked.";

/// The packet, and the policy to follow it through.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The packet, as key=value words.
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub packet: Vec<String>,
    /// Explain against this iptables-save file instead of the running policy.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Explain against this ip6tables-save file instead of the running policy.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// Runs the command.
pub fn run(_args: Args, output: &Output) -> Exit {
    output.error("explain: not linked in yet");
    Exit::Internal
}
