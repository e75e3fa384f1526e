//! `classify`: what finding the first matching rule costs, beside DPDK's
//! rte_acl and the study's prototype on the same filter sets and traces.
//!
//! Every answer of ours is checked against a linear search before anything is
//! timed; contenders then alternate, round by round, in one run.

mod contest;
mod files;
mod filters;
pub(crate) mod goals;
mod peers;
mod traces;

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::sets;
use contest::{Built, Contest};
use files::Text;
use filters::FilterSet;
use goals::{Judge, Line};
use peers::Peers;
use traces::{Kind, Trace};

/// Rules of the base that is generated when no file is given.
const GENERATED_BASE: usize = 10_000;

/// Expectations of a trace that the oracle itself looks at again.
const ORACLE_SAMPLES: usize = 200;

/// Arguments of `classify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// ClassBench files, plain or `.xz`; without any, a set is generated.
    files: Vec<PathBuf>,
    /// Measure each set grown or shrunk to these sizes instead of as it is.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Address families.
    #[arg(long, value_delimiter = ',', default_values_t = ["v4".to_owned(), "v6".to_owned()])]
    families: Vec<String>,
    /// Traces.
    #[arg(long, value_delimiter = ',', value_enum,
        default_values_t = [Kind::Corners, Kind::Zipf, Kind::Flood])]
    traces: Vec<Kind>,
    /// Packets in a trace.
    #[arg(long, default_value_t = 65_536)]
    packets: usize,
    /// Rounds in which contenders alternate; rte_acl builds anew in each.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Milliseconds that a contender is timed in a round.
    #[arg(long, default_value_t = 200)]
    slice_ms: u64,
    /// Seed of sets and traces.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where `scripts/peers` built the peers.
    #[arg(long, default_value = "target/peers")]
    peers: PathBuf,
    /// Only Portcullis.
    #[arg(long)]
    alone: bool,
    /// Measure nothing: judge the lines in these files by the goals.
    #[arg(long, num_args = 1.., conflicts_with = "files")]
    judge: Vec<PathBuf>,
}

/// Runs the measurement and prints one JSON object a line, the goals last.
///
/// # Errors
/// A file that cannot be read or is not a ClassBench file; a wrong answer.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    if !args.judge.is_empty() {
        let lines = read_lines(&args.judge)?;
        goals::print(&Judge::new(&lines).goals());
        return Ok(());
    }
    let (peers, missing) = if args.alone { Default::default() } else { Peers::find(&args.peers) };
    if !missing.is_empty() {
        eprintln!("classify: without {} (scripts/peers builds them)", missing.join(" and "));
    }
    let directory = Scratch::new()?;
    let mut lines = Vec::new();
    for set in bases(args)? {
        let sizes = if args.sizes.is_empty() { vec![set.rules.len()] } else { args.sizes.clone() };
        for size in sizes {
            let set =
                if size == set.rules.len() { set.clone() } else { set.resized(size, args.seed) };
            lines.extend(measure_set(&set, &peers, &directory.0, args)?);
        }
    }
    goals::print(&Judge::new(&lines).goals());
    Ok(())
}

fn bases(args: &Args) -> Result<Vec<FilterSet>, Box<dyn std::error::Error>> {
    if args.files.is_empty() {
        return Ok(vec![FilterSet::generated(GENERATED_BASE, args.seed)]);
    }
    args.files.iter().map(|path| FilterSet::read(path)).collect()
}

fn measure_set(
    set: &FilterSet,
    peers: &Peers,
    directory: &Path,
    args: &Args,
) -> Result<Vec<Line>, Box<dyn std::error::Error>> {
    let traces: Vec<(Kind, Trace<u32>)> = args
        .traces
        .iter()
        .map(|&kind| (kind, traces::make(kind, &set.rules, args.packets, args.seed)))
        .collect();
    let mut lines = Vec::new();
    for family in &args.families {
        match family.as_str() {
            "v4" => lines.extend(measure(set, &set.rules, &traces, peers, directory, args)?),
            "v6" => {
                let rules = sets::widen(&set.rules);
                let wide: Vec<_> = traces
                    .iter()
                    .map(|(kind, trace)| (*kind, traces::widen(trace, args.seed)))
                    .collect();
                lines.extend(measure(set, &rules, &wide, peers, directory, args)?);
            }
            other => return Err(format!("{other}: families are v4 and v6").into()),
        }
    }
    Ok(lines)
}

fn measure<A: Text>(
    set: &FilterSet,
    rules: &[classifier::Rule<A>],
    traces: &[(Kind, Trace<A>)],
    peers: &Peers,
    directory: &Path,
    args: &Args,
) -> Result<Vec<Line>, Box<dyn std::error::Error>> {
    let built = Built::new(rules, args.seed, if rules.len() > 20_000 { 3 } else { 7 });
    eprintln!("{} {}: {}", set.name, A::FAMILY, built.explanation);
    let contest = Contest {
        set: &set.name,
        kind: set.kind(),
        rules,
        built: &built,
        peers,
        directory,
        rounds: args.rounds,
        seconds: args.slice_ms as f64 / 1e3,
    };
    let mut lines = Vec::new();
    for (kind, trace) in traces {
        if let Some(at) = traces::disputed(trace, rules, ORACLE_SAMPLES) {
            return Err(format!("{}: the expectation of key {at} is wrong", set.name).into());
        }
        let measured = contest.run(kind.name(), trace)?;
        for line in &measured {
            println!("{}", json!(line));
        }
        lines.extend(measured);
    }
    Ok(lines)
}

/// Reads measured lines back; goals among them are passed over.
fn read_lines(paths: &[PathBuf]) -> Result<Vec<Line>, Box<dyn std::error::Error>> {
    let mut lines = Vec::new();
    for path in paths {
        for (number, text) in std::fs::read_to_string(path)?.lines().enumerate() {
            let at = |e: serde_json::Error| format!("{}:{}: {e}", path.display(), number + 1);
            let value: serde_json::Value = serde_json::from_str(text).map_err(at)?;
            if value.get("goal").is_none() {
                lines.push(serde_json::from_value(value).map_err(at)?);
            }
        }
    }
    Ok(lines)
}

/// A directory of our own, gone afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let name = format!("portcullis-classify-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
