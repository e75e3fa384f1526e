//! `portcullis apply`: replaces the running policy, all or nothing.

use std::path::PathBuf;

use super::client::{ask_about, findings, unexpected};
use super::{Exit, Output};
use crate::api::protocol::{self, Applied, Source};
use crate::api::{Request, Response};
use crate::daemon::policy::Texts;

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
pub fn run(args: Args, output: &Output) -> Exit {
    let texts = Texts::read(args.rules.as_deref(), args.rules6.as_deref());
    let Texts { v4: rules, v6: rules6 } = match texts {
        Ok(texts) => texts,
        Err(findings) => {
            findings.iter().for_each(|finding| output.finding(finding, None));
            return Exit::Refused;
        }
    };
    let sources: Vec<Source> = [&rules, &rules6].into_iter().flatten().cloned().collect();
    let apply = protocol::Apply { rules, rules6, counters: args.counters };
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
