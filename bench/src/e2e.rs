//! `e2e`: one subject between two veths: the rate that it forwards without loss (a search
//! as in RFC 2544), latency at fractions of it, and what swaps of the policy do to both.

use std::time::Duration;

use serde_json::json;

use crate::lab::{Outcome, pin};
use crate::peers::{Kind, Policy, Subject};
use crate::stand::{Run, Stand};
use crate::traffic::cli::Shape;

const EXAMPLES: &str = "Examples:
  portcullis-bench e2e --subject portcullis --rules 1000 --conntrack
  portcullis-bench e2e --fractions 0.5 --secs 60 --swap-every-ms 100 --swap-rules 10000

The generator and the sink have the first core, the subject the last. veth runs the receiver's
XDP program on the sender's core.";

/// Arguments of `e2e`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: Shape,
    /// Who forwards.
    #[arg(long, value_enum, default_value = "portcullis")]
    subject: Kind,
    /// The daemon's binary, for `--subject daemon`.
    #[arg(long)]
    daemon: Option<String>,
    /// Rules that the flows do not meet.
    #[arg(long, default_value_t = 100)]
    rules: usize,
    /// Accepts what is established before them.
    #[arg(long)]
    conntrack: bool,
    /// Trials of the search at most.
    #[arg(long, default_value_t = 10)]
    trials: usize,
    /// Seconds of a trial.
    #[arg(long, default_value_t = 1.0)]
    trial_secs: f64,
    /// Frames out of a million that a trial may lose.
    #[arg(long, default_value_t = 0)]
    tolerance: u64,
    /// Fractions of the rate at which latency is measured, for `--secs` each.
    #[arg(long, value_delimiter = ',', default_values_t = [0.1, 0.5, 0.9])]
    fractions: Vec<f64>,
    /// This rate in the place of a search, in packets a second.
    #[arg(long)]
    rate: Option<f64>,
    /// The subject never sleeps.
    #[arg(long)]
    spin: bool,
    /// Swaps the policy so often, in milliseconds; each fraction is then measured without
    /// and with swaps.
    #[arg(long)]
    swap_every_ms: Option<u64>,
    /// Rules of the policies that are swapped.
    #[arg(long, default_value_t = 10_000)]
    swap_rules: usize,
    /// Seed of the rules.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Prints a JSON object for each trial and each measurement.
///
/// # Errors
/// A subject that does not run or does not do what its policy says.
pub(crate) fn run(args: &Args) -> Outcome<()> {
    let mut stand = Stand::new(&args.shape)?;
    let rules = if args.swap_every_ms.is_some() { args.swap_rules } else { args.rules };
    let policy = Policy { rules, conntrack: args.conntrack, seed: args.seed };
    println!("{}", json!({ "bench": "e2e", "what": "stand", "stand": stand.describe() }));
    // The namespaces outlive the subject in them.
    let lab = stand.lab.clone();
    let settings = stand.settings(args.spin, 64);
    let subject = Subject::start(&lab, args.subject, policy, settings, args.daemon.as_deref())?;
    pin(0)?;
    stand.examine(args.subject, &policy)?;
    let rate = match args.rate {
        Some(rate) => rate,
        None => search(args, &mut stand, &subject)?,
    };
    for fraction in &args.fractions {
        let every = args.swap_every_ms.map(Duration::from_millis);
        for swapped in [false, true] {
            if swapped && every.is_none() {
                continue;
            }
            let swaps = every.filter(|_| swapped).map(|it| subject.swap(it, args.swap_rules));
            let swaps = swaps.transpose()?;
            let mut load = args.shape.load().at(rate * fraction);
            if every.is_some() {
                // Who swaps shares the generator's core.
                load = load.polite();
            }
            let run = stand.run(&subject, load)?;
            let line = json!({
                "bench": "e2e", "what": "latency", "subject": args.subject.name(), "rules": rules,
                "conntrack": args.conntrack, "fraction": fraction,
                "swapping": swaps.map(|swaps| swaps.report()), "result": run.report(),
            });
            println!("{line}");
        }
    }
    Ok(())
}

/// The highest rate without loss, as far as the trials tell.
fn search(args: &Args, stand: &mut Stand, subject: &Subject<'_>) -> Outcome<f64> {
    let load = Shape { secs: args.trial_secs, ..args.shape.clone() }.load();
    let said = |trial: usize, asked: Option<f64>, run: &Run, passed: bool| {
        let line = json!({
            "bench": "e2e", "what": "trial", "subject": args.subject.name(), "trial": trial,
            "asked_pps": asked.map(f64::round), "passed": passed, "result": run.report(),
        });
        println!("{line}");
    };
    let passes =
        |run: &Run| run.sent.lost().saturating_mul(1_000_000) <= args.tolerance * run.sent.sent;
    let full = stand.run(subject, load)?;
    said(0, None, &full, passes(&full));
    // The subject takes what the generator has: that is all there is to find out.
    let (mut good, mut bad) = (0.0, full.sent.sent_rate());
    if passes(&full) {
        (good, bad) = (full.sent.received_rate(), full.sent.received_rate());
    }
    let mut asked = full.sent.received_rate() * 0.98;
    for trial in 1..args.trials {
        if bad - good <= 0.01 * bad {
            break;
        }
        let run = stand.run(subject, load.at(asked))?;
        let reached = run.sent.sent_rate() >= 0.98 * asked;
        said(trial, Some(asked), &run, passes(&run));
        match passes(&run) {
            true => good = run.sent.sent_rate(),
            false => bad = asked,
        }
        if passes(&run) && !reached {
            break;
        }
        asked = (good + bad) / 2.0;
    }
    let line = json!({
        "bench": "e2e", "what": "throughput", "subject": args.subject.name(),
        "loss_free_pps": f64::round(good), "full_speed_pps": full.sent.received_rate().round(),
        "generator_bound": passes(&full),
    });
    println!("{line}");
    match good > 0.0 {
        true => Ok(good),
        false => Err("every trial lost something".into()),
    }
}
