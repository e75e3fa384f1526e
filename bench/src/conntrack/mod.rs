//! The connection table: what a packet costs there, by the number of connections.
//!
//! Packets come in bursts of 64, as workers have them. Only the table's part is timed:
//! working out what is asked, prefetching, tracking and confirming.

mod cases;
mod churn;
mod flows;
mod table;

use std::collections::HashMap;

use clap::ValueEnum;
use serde_json::{Value, json};

use self::flows::Traffic;
use self::table::{Error, Samples, Setup};

/// Options of `portcullis-bench conntrack`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Connections in the table.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    entries: Vec<usize>,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "insert,hit,miss,full,churn")]
    ops: Vec<Op>,
    /// What the flows speak.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "udp4,tcp4")]
    traffic: Vec<Traffic>,
    /// Threads that use one table.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Prefetching: 0 none, 1 buckets, 2 buckets and then records.
    #[arg(long, value_delimiter = ',', default_value = "2")]
    stages: Vec<u8>,
    /// Rounds of each measurement.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Lookups a round and thread, at least.
    #[arg(long, default_value_t = 400_000)]
    lookups: usize,
    /// Seed of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Op {
    /// First packets, accepted; and their expiry.
    Insert,
    /// Packets of established flows, both ways.
    Hit,
    /// Packets of no flow: the lookup alone, and with a refusal.
    Miss,
    /// A flood at a table full of established flows.
    Full,
    /// Flows that come and go beside established ones, and the sweep.
    Churn,
}

/// Cost at the smallest table, by what else tells lines apart.
#[derive(Debug, Default)]
struct Report {
    first: HashMap<String, f64>,
}

impl Report {
    /// One line: what was measured, and `samples` of it.
    fn line(&mut self, what: &Value, samples: &mut Samples) {
        let [low, median, high] = samples.ns_per_op();
        // The same, but for its entries; what else is told of a table differs with them.
        let identity = ["op", "traffic", "threads", "flows"].map(|key| what[key].to_string());
        let first = *self.first.entry(identity.join(" ")).or_insert(median);
        let burst = |share: f64| samples.bursts.value_at_quantile(share);
        let mut line = json!({
            "bench": "conntrack",
            "ns_per_op": round(median), "ns_min": round(low), "ns_max": round(high),
            "mops_per_core": round(1e3 / median),
            "times_smallest": round(median / first),
            "burst_ns": {
                "p50": burst(0.5), "p99": burst(0.99), "p999": burst(0.999),
                "max": samples.bursts.max(), "count": samples.bursts.len(),
            },
        });
        merge(&mut line, what);
        println!("{line}");
    }
}

fn merge(line: &mut Value, more: &Value) {
    if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
        line.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Measures, one line each.
///
/// # Errors
/// A table that cannot be had, or an answer that is wrong.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let mut report = Report::default();
    for &traffic in &args.traffic {
        for &threads in &args.threads {
            for &stages in &args.stages {
                for &entries in &args.entries {
                    let Args { rounds, lookups, seed, .. } = *args;
                    let setup = Setup { traffic, threads, stages, entries, rounds, lookups, seed };
                    for &op in &args.ops {
                        match op {
                            Op::Insert => cases::insert(&setup, &mut report)?,
                            Op::Hit => cases::hit(&setup, &mut report)?,
                            Op::Miss => cases::miss(&setup, &mut report)?,
                            Op::Full => cases::full(&setup, &mut report)?,
                            Op::Churn => churn::run(&setup, &mut report)?,
                        }
                    }
                }
            }
        }
    }
    Ok(())
}
