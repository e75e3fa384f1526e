//! `portcullis replay`: captures in, captures out, through the whole engine, offline.

use std::path::PathBuf;

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis replay --topology topo.toml --rules rules.v4 --in eth0=a.pcap --in eth1=b.pcap --out out
  portcullis replay --topology topo.toml --rules rules.v4 --in eth0=a.pcap --out out --events ev.jsonl";

/// Inputs and outputs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Ports, addresses, routes and neighbours.
    #[arg(long, value_name = "FILE")]
    pub topology: PathBuf,
    /// The IPv4 policy, an iptables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// The IPv6 policy, an ip6tables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// What arrives on a port (`host` for what the machine itself sends).
    #[arg(long = "in", value_name = "PORT=PCAP", required = true)]
    pub inputs: Vec<String>,
    /// Directory for the outputs; created if missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// One JSON object per input packet.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Seed of everything that is random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// Runs the command.
pub fn run(_args: Args, output: &Output) -> Exit {
    output.error("replay: not linked in yet");
    Exit::Internal
}
