//! `swap`: what it takes to check, compile and install a policy, by its length.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::packet::Family;
use portcullis::apply::{Change, PolicyStore};
use portcullis::iptables::{self, TableNames};
use serde_json::json;

use crate::clock::Stopwatch;
use crate::sets::Rng;

/// Arguments of `swap`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rules in the policy.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    rules: Vec<usize>,
    /// Swaps of each.
    #[arg(long, default_value_t = 3)]
    swaps: usize,
    /// Seed of the rules.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the measurement and prints one JSON object a swap.
///
/// # Errors
/// A generated policy that does not load: a fault of this program.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    for &rules in &args.rules {
        let texts = [text(rules, args.seed), text(rules, args.seed + 1)];
        measure(rules, &texts, args.swaps)?;
    }
    Ok(())
}

/// Swaps two policies under a worker that adopts them as fast as it can.
fn measure(rules: usize, texts: &[String], swaps: usize) -> Result<(), Box<dyn std::error::Error>> {
    let ports = vec!["eth0".to_owned(), "eth1".to_owned()];
    let store = PolicyStore::open(Change::default(), ports, 1)?;
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
        let outcome = (0..swaps).try_for_each(|number| {
            let watch = Stopwatch::start();
            let text = texts[number % texts.len()].as_str();
            let parsed = iptables::parse(text, "bench", Family::V4, &TableNames::well_known())
                .map_err(|findings| format!("{} findings", findings.len()))?;
            let parse_ms = milliseconds(watch.elapsed_ns());
            let change = Change { v4: Some(parsed.ruleset), ..Change::default() };
            let timing = store.install(change)?.timing;
            let line = json!({
                "rules": rules, "swap": number, "parse_ms": parse_ms,
                "compile_ms": milliseconds(timing.compile.0),
                "selfcheck_ms": milliseconds(timing.selfcheck.0),
                "publish_us": timing.publish.0 / 1000, "adopt_us": timing.adopt.0 / 1000,
                "total_ms": milliseconds(watch.elapsed_ns()),
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

/// A policy as gateways have them: one chain for each of many subnets, mostly
/// exact hosts and ports, some ranges, lists and states.
fn text(rules: usize, seed: u64) -> String {
    use std::fmt::Write;
    let mut rng = Rng(seed);
    let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n");
    text.push_str(":OUTPUT ACCEPT [0:0]\n");
    text.push_str("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
    for _ in 1..rules {
        let (source, target) = (rng.bits() as u16, rng.bits() as u16);
        let rule = format!("-s 10.{}.{}.0/24 -d 198.18.", source >> 8, source & 255);
        let port = rng.bits() as u16;
        let tail = match rng.below(8) {
            0 => format!("-p tcp -m multiport --dports 80,443,{port} -j ACCEPT"),
            1 => format!("-p udp -m udp --dport {}:{} -j ACCEPT", port / 2, port / 2 + 100),
            2 => "-i eth0 -o eth1 -j DROP".to_owned(),
            _ => format!("-p tcp -m tcp --dport {port} -j ACCEPT"),
        };
        let written = writeln!(text, "-A FORWARD {rule}{}.{}/32 {tail}", target >> 8, target & 255);
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text.push_str("COMMIT\n");
    text
}
