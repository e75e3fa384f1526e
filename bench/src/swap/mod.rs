//! `swap`: what it takes to read, compile, check and install a policy, by its length; the
//! same text through the kernel's tools; and what workers notice of it.

mod histogram;
mod kernel;
mod load;
mod texts;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use portcullis::apply::{Change, PolicyStore};
use portcullis::ipset::{self, Stage};
use portcullis::iptables::{self, TableNames};
use serde_json::json;

use crate::clock::Stopwatch;
use texts::Shape;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Arguments of `swap`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rules in the policy.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 10_000, 100_000])]
    rules: Vec<usize>,
    /// How they hang together.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["flat", "chains"])]
    shapes: Vec<Shape>,
    /// Only one version of IP: 4 or 6.
    #[arg(long)]
    family: Option<u8>,
    /// Swaps of each.
    #[arg(long, default_value_t = 3)]
    swaps: usize,
    /// Seed of the rules.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Swap policies that differ in one rule, not in all.
    #[arg(long)]
    edit: bool,
    /// Also load each text with the kernel's tools, into a namespace (needs root).
    #[arg(long)]
    kernel: bool,
    /// Instead: swap the first number of rules while workers decide packets.
    #[arg(long)]
    under_load: bool,
    /// With --under-load: milliseconds from one swap to the next.
    #[arg(long, default_value_t = 100)]
    every_ms: u64,
    /// With --under-load: seconds of each phase. There are four, without and with swaps.
    #[arg(long, default_value_t = 15)]
    secs: u64,
    /// With --under-load: workers.
    #[arg(long, default_value_t = 1)]
    workers: usize,
}

/// Runs the measurement and prints JSON objects.
///
/// # Errors
/// A generated policy that does not load: a fault of this program.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    measure_all(args).map_err(|error| error as Box<dyn std::error::Error>)
}

fn measure_all(args: &Args) -> Result<(), Error> {
    if args.under_load {
        return load::run(&load::Plan {
            rules: args.rules.first().copied().unwrap_or(10_000),
            every: Duration::from_millis(args.every_ms),
            lasts: Duration::from_secs(args.secs),
            workers: args.workers,
            seed: args.seed,
        });
    }
    let kernel = args.kernel.then(kernel::Place::new).transpose()?;
    for &rules in &args.rules {
        for family in [Family::V4, Family::V6] {
            let number = if family == Family::V4 { 4 } else { 6 };
            if args.family.is_some_and(|only| only != number) {
                continue;
            }
            for &shape in &args.shapes {
                let text = |seed| texts::text(shape, family, rules, seed);
                let first = text(args.seed);
                let second = match args.edit {
                    true => texts::edited(&first),
                    false => text(args.seed + 1),
                };
                let texts = [first, second];
                measure(shape, family, &texts, args)?;
                if let Some(kernel) = &kernel {
                    kernel.measure(family, rules, texts::sets(family), &texts[0])?;
                }
            }
        }
    }
    Ok(())
}

/// Swaps two policies under a worker that adopts them as fast as it can.
fn measure(shape: Shape, family: Family, texts: &[String], args: &Args) -> Result<(), Error> {
    let Args { swaps, edit, .. } = *args;
    let ports = vec!["eth0".to_owned(), "eth1".to_owned()];
    let mut stage = Stage::empty(1, Nanos(0));
    let names = TableNames::well_known();
    let _ = ipset::read(&mut stage, texts::sets(family).as_bytes(), "sets", &names);
    let sets = Arc::new(stage.into_registry());
    let store = PolicyStore::open_with(Change::default(), ports, 1, sets)?;
    let mut worker = store.subscribe();
    let stop = Arc::new(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let seen = Arc::clone(&stop);
        scope.spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                worker.refresh();
                std::thread::yield_now();
            }
        });
        let outcome = (0..swaps).try_for_each(|number| -> Result<(), Error> {
            forget_peak();
            let before_kib = memory_kib("VmRSS:");
            let watch = Stopwatch::start();
            let text = texts[number % texts.len()].as_str();
            let parsed = iptables::parse(text, "bench", family, &names)
                .map_err(|findings| format!("{:?}", findings.first()))?;
            let parse_ms = milliseconds(watch.elapsed_ns());
            let (v4, v6) = match family {
                Family::V4 => (Some(parsed.ruleset), None),
                Family::V6 => (None, Some(parsed.ruleset)),
            };
            let installed = store.install(Change { v4, v6, ..Change::default() })?;
            let total_ms = milliseconds(watch.elapsed_ns());
            let timing = installed.timing;
            let [compile_ms, check_ms] =
                [timing.compile, timing.selfcheck].map(|t| milliseconds(t.0));
            let line = json!({
                "bench": "swap", "side": "portcullis", "shape": format!("{shape:?}"),
                "family": format!("{family:?}"), "swap": number, "edit": edit,
                "rules": installed.rules_v4 + installed.rules_v6, "parse_ms": parse_ms,
                "compile_ms": compile_ms, "selfcheck_ms": check_ms,
                "publish_us": timing.publish.0 / 1000, "adopt_us": timing.adopt.0 / 1000,
                "total_ms": total_ms, "before_kib": before_kib,
                "peak_kib": memory_kib("VmHWM:"),
            });
            println!("{line}");
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

fn milliseconds(ns: u64) -> f64 {
    (ns as f64 / 1e4).round() / 100.0
}

/// What this process holds, or held at most, in KiB.
fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Lets the peak begin anew.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
