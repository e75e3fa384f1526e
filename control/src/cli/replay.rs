//! `portcullis replay`: captures in, captures out, through the whole engine, offline.

use std::path::PathBuf;

use super::{Exit, Output};
use crate::diagnostics::render_all;
use crate::replay::ReplayError;
use crate::replay::files::{self, Job, JobError};
use crate::selfcheck::SelfCheckError;

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
    /// Sets that the policies name: an `ipset save` file, or a directory of them; may be
    /// given more than once.
    #[arg(long, alias = "ipset", value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// What arrives on a port (`host` for what the machine itself sends).
    #[arg(long = "in", value_name = "PORT=PCAP", required = true, value_parser = port_and_file)]
    pub inputs: Vec<(String, PathBuf)>,
    /// Directory for the outputs; created if missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// One JSON object per input packet.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Seed of everything that is random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Whether packets of established connections follow what an earlier one's walk has
    /// said. Nothing may tell the difference: for tests.
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = true)]
    pub plans: bool,
}

pub(super) fn port_and_file(text: &str) -> Result<(String, PathBuf), &'static str> {
    match text.split_once('=') {
        Some((port, file)) if !port.is_empty() && !file.is_empty() => {
            Ok((port.to_owned(), file.into()))
        }
        _ => Err("expected PORT=PCAP"),
    }
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let job = Job {
        topology: args.topology,
        rules: args.rules,
        rules6: args.rules6,
        sets: args.sets,
        inputs: args.inputs,
        out: args.out,
        events: args.events,
        seed: args.seed,
        plans: args.plans,
    };
    match files::run(&job) {
        Ok(summary) => {
            if output.json() {
                output.object(&summary);
            } else {
                output.line(format!(
                    "{} packets in, {} frames sent, {} delivered, {} log lines",
                    summary.packets, summary.sent, summary.delivered, summary.logged
                ));
            }
            Exit::Ok
        }
        Err(error) => refuse(&error, output),
    }
}

/// Says what is wrong, with every finding of a policy file.
pub(super) fn refuse(error: &JobError, output: &Output) -> Exit {
    match error {
        JobError::Rules { findings, .. } if output.json() => {
            findings.iter().for_each(|finding| output.object(finding));
        }
        JobError::Rules { text, findings, .. } => {
            let text = std::str::from_utf8(text).ok();
            output.error(format!("{error}\n{}", render_all(findings, text)));
        }
        other => output.error(other),
    }
    match error {
        JobError::Write { .. } => Exit::Environment,
        JobError::Replay(ReplayError::Policy(SelfCheckError::Differs(_))) => Exit::Internal,
        _ => Exit::Refused,
    }
}
