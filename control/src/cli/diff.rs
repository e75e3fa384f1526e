//! `portcullis diff A B`: what changes between two policies, in text and for packets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dataplane::clock::{Nanos, monotonic};
use dataplane::packet::Family;

use super::policies;
use super::stored::Place;
use super::timeouts::CtTimeouts;
use super::{Exit, Output};
use crate::compile::CompileError;
use crate::diff::{self, Bounds, Policy, PolicyFiles, Report, changed_sets, render, textual};
use crate::iptables::TableNames;

const EXAMPLES: &str = "Examples:
  portcullis diff rules.v4 new.v4
  portcullis diff /etc/portcullis /tmp/candidate --no-text
  portcullis diff @1 rules.v4
  portcullis diff rules.v4 new.v4 --sets sets.save --json

A and B are files of rules (IPv6 if the name ends in v6 or 6), directories with rules.v4,
rules.v6 and sets/, or policies of the history (@1). Exits 0 when every packet has the same fate and the texts say the same,
6 when something differs, 1 when a policy is refused.";

/// Slow work says how far it is after this long, and so often.
const PATIENCE: Nanos = Nanos::from_secs(1);

/// What to compare.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The old policy.
    #[arg(value_name = "A")]
    pub old: PathBuf,
    /// The new one.
    #[arg(value_name = "B")]
    pub new: PathBuf,
    /// Sets that both name: an `ipset save` file, or a directory of them. Sets that are in none
    /// are taken for empty ones.
    #[arg(long, alias = "ipset", value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// Leave out how the texts differ.
    #[arg(long)]
    pub no_text: bool,
    /// Leave out what becomes of packets.
    #[arg(long)]
    pub no_packets: bool,
    /// Pairs of regions that are compared at most.
    #[arg(long, value_name = "N", default_value_t = Bounds::default().effort)]
    pub effort: u64,
    /// Where policies of the history are.
    #[command(flatten)]
    pub place: Place,
    /// Named timeouts.
    #[command(flatten)]
    pub timeouts: CtTimeouts,
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    let names = match args.timeouts.names() {
        Ok(names) => names,
        Err(error) => {
            output.error(format_args!("--ct-timeout: {error}"));
            return Exit::Usage;
        }
    };
    let read = |path: &Path| policies::read(path, &args.sets, &args.place, &names);
    match (read(&args.old), read(&args.new)) {
        (Ok(old), Ok(new)) => compared(args, [&old, &new], &names, output),
        (Err(error), _) | (_, Err(error)) => error.tell(output),
    }
}

/// Says how two policies differ.
fn compared(
    args: &Args,
    [old, new]: [&PolicyFiles; 2],
    names: &TableNames,
    output: &Output,
) -> Exit {
    let mut same = true;
    if !args.no_text {
        for table in textual(old, new, names) {
            same = false;
            match output.json() {
                true => output.object(&serde_json::json!({"text": table})),
                false => output.line(&table.text),
            }
        }
    }
    if args.no_packets {
        return if same { Exit::Ok } else { Exit::Warnings };
    }
    let sets = changed_sets(&old.sets, &new.sets, names);
    if !sets.is_empty() && !output.json() {
        let names: Vec<&str> = sets.iter().map(String::as_str).collect();
        output.line(format_args!("sets that differ: {}", names.join(", ")));
    }
    for family in [Family::V4, Family::V6] {
        let report = match packets(args, [old, new], family, &sets, output) {
            Ok(report) => report,
            Err(error) => {
                output.error(error);
                return Exit::Refused;
            }
        };
        same &= report.changes.is_empty() && report.complete;
        match output.json() {
            true => output.object(&report),
            false => output.raw(&render(&report)),
        }
    }
    if same { Exit::Ok } else { Exit::Warnings }
}

fn packets(
    args: &Args,
    [old, new]: [&PolicyFiles; 2],
    family: Family,
    sets: &BTreeSet<String>,
    output: &Output,
) -> Result<Report, CompileError> {
    let of = |files: &'_ PolicyFiles| match family {
        Family::V4 => files.v4.clone(),
        Family::V6 => files.v6.clone(),
    };
    let (one, two) = (of(old), of(new));
    let bounds = Bounds { effort: args.effort, ..Bounds::default() };
    let mut next = monotonic().0 + PATIENCE.0;
    let mut told = |percent: u64| {
        if monotonic().0 >= next {
            next = monotonic().0 + PATIENCE.0;
            output.complaint(format_args!("comparing: {percent}% of the effort is spent"));
        }
    };
    let (one, two) =
        (Policy { rules: &one, sets: &old.sets }, Policy { rules: &two, sets: &new.sets });
    diff::compare(one, two, sets, bounds, &mut told)
}
