//! `portcullis check`: do these policy files load, and if not, why and where?

use std::path::PathBuf;

use super::{Exit, Output};

const EXAMPLES: &str = "Examples:
  portcullis check --rules rules.v4
  portcullis check --rules rules.v4 --rules6 rules.v6 --json

Exits 0 when everything loads, 1 when anything is refused.";

/// What to check.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An iptables-save file; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub rules: Vec<PathBuf>,
    /// An ip6tables-save file; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub rules6: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(_args: Args, output: &Output) -> Exit {
    output.error("check: the parser is not linked in yet");
    Exit::Internal
}
