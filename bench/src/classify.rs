//! `classify`: what a lookup costs, by structure and rule set.

use std::hint::black_box;
use std::path::PathBuf;

use classifier::reference::Linear;
use classifier::strategy::Strategy;
use classifier::tuple_space::TupleSpace;
use classifier::{Address, Classifier, Key, Rule};
use serde_json::json;

use crate::clock::Stopwatch;
use crate::sets::{self, Rng};

/// Arguments of `classify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// ClassBench files (plain text); without any, sets are generated.
    files: Vec<PathBuf>,
    /// Sizes of the generated sets.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000, 100_000])]
    rules: Vec<usize>,
    /// Keys in a trace; each structure sees the same ones.
    #[arg(long, default_value_t = 20_000)]
    keys: usize,
    /// Seed of rules and keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Measure the plain scan too where it has at most this many rules.
    #[arg(long, default_value_t = 10_000)]
    scan_at_most: usize,
}

/// Runs the measurement and prints one JSON object a line.
///
/// # Errors
/// A file that cannot be read or is not a ClassBench file.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    for path in &args.files {
        let text = std::fs::read_to_string(path)?;
        let rules =
            sets::parse_classbench(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        measure_families(&name, &rules, args);
    }
    if args.files.is_empty() {
        for &count in &args.rules {
            measure_families("generated", &sets::generate(count, args.seed), args);
        }
    }
    Ok(())
}

fn measure_families(name: &str, rules: &[Rule<u32>], args: &Args) {
    measure(name, rules, args);
    measure(name, &sets::widen(rules), args);
}

fn measure<A: Address>(name: &str, rules: &[Rule<A>], args: &Args) {
    let mut rng = Rng(args.seed);
    let targets: Vec<Rule<A>> = (0..args.keys).map(|_| *rng.pick(rules)).collect();
    let corners: Vec<Key<A>> =
        targets.iter().map(|rule| sets::corner_key(&mut rng, rule)).collect();
    let near: Vec<Key<A>> = targets.iter().map(|rule| sets::near_key(&mut rng, rule)).collect();
    let flood: Vec<Key<A>> = corners
        .iter()
        .map(|key| {
            let src = A::from_u128(u128::from(rng.bits()) << 64 | u128::from(rng.bits()));
            Key { src, sport: rng.bits() as u16, ..*key }
        })
        .collect();
    let report = |structure: &str,
                  build_ms: f64,
                  detail: serde_json::Value,
                  classify: &dyn Classifier<A>| {
        for (trace, keys) in [("corners", &corners), ("near", &near), ("flood", &flood)] {
            let ns = ns_per_lookup(classify, keys);
            let line = json!({
                "set": name, "family": if A::BITS == 32 { "v4" } else { "v6" },
                "rules": rules.len(), "structure": structure, "trace": trace,
                "ns_per_lookup": (ns * 10.0).round() / 10.0,
                "build_ms": (build_ms * 100.0).round() / 100.0, "detail": detail,
            });
            println!("{line}");
        }
    };
    if rules.len() <= args.scan_at_most {
        let linear = Linear::new(rules.to_vec());
        let bytes = size_of_val(rules);
        report("linear", 0.0, json!({ "bytes": bytes }), &linear);
    }
    let watch = Stopwatch::start();
    let space = TupleSpace::build(rules, args.seed);
    let build_ms = watch.elapsed_ns() as f64 / 1e6;
    let shape = space.shape();
    let detail = json!({
        "tables": shape.tables, "largest_slot": shape.largest_slot,
        "remainder": shape.remainder, "bytes": shape.bytes,
    });
    report("tuple_space", build_ms, detail, &space);
    let chosen = Strategy::build_seeded(rules.to_vec(), args.seed).explain();
    eprintln!("{name}: {chosen}");
}

/// The best of three passes: noise only ever adds.
fn ns_per_lookup<A: Address>(classify: &dyn Classifier<A>, keys: &[Key<A>]) -> f64 {
    let pass = || {
        let watch = Stopwatch::start();
        for key in keys {
            black_box(classify.first_at_or_after(black_box(key), 0));
        }
        watch.elapsed_ns() as f64 / keys.len() as f64
    };
    (0..3).map(|_| pass()).fold(f64::INFINITY, f64::min)
}
