//! `compare`: subjects take turns on the same veths under the same generator.
//!
//! Every row is a policy; in every round of a row each subject is started, examined (the
//! flows pass, what meets a rule does not) and flooded. Ratios are made within a round.
//! Portcullis is compared with each: above 1 it forwards more, or takes less of its core.

use serde_json::json;

use crate::lab::{Outcome, median, pin, unpin};
use crate::peers::{Kind, Policy, Subject};
use crate::stand::{Run, Stand};
use crate::traffic::cli::Shape;

const EXAMPLES: &str = "Examples:
  portcullis-bench compare
  portcullis-bench compare --rules 1,100 --subjects portcullis,cross-connect,floor,testpmd

The generator and the sink have the first core, the subject the last: a kernel that forwards
is steered there (RPS). Rates are those of a generator at full speed, whatever is lost. Where
`lost' is 0 the generator was too slow for the subject: `cpu_s_per_mpkt' tells them apart.";

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: Shape,
    /// Who takes turns; `daemon` needs `--daemon`.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [
        Kind::Portcullis, Kind::CrossConnect, Kind::Floor, Kind::Testpmd,
        Kind::Kernel, Kind::Legacy, Kind::Nft, Kind::NftSets,
    ])]
    subjects: Vec<Kind>,
    /// The daemon's binary.
    #[arg(long)]
    daemon: Option<String>,
    /// Rules that the flows do not meet, one row each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100, 1000, 10_000])]
    rules: Vec<usize>,
    /// Rows with and without established connections accepted first.
    #[arg(long, value_delimiter = ',', default_values_t = [false, true], action = clap::ArgAction::Set)]
    conntrack: Vec<bool>,
    /// Rounds of every row.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// AF_XDP subjects never sleep.
    #[arg(long)]
    spin: bool,
    /// Frames that `floor` passes on together.
    #[arg(long, default_value_t = 64)]
    floor_batch: u32,
    /// Seed of the rules.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Prints a JSON object for each run and one for each row and subject.
///
/// # Errors
/// A subject that does not run or does not do what its policy says.
pub(crate) fn run(args: &Args) -> Outcome<()> {
    let mut stand = Stand::new(&args.shape)?;
    println!("{}", json!({ "bench": "compare", "what": "stand", "stand": stand.describe() }));
    let mut kinds = args.subjects.clone();
    let absent = |kind: &Kind| *kind == Kind::Testpmd && !installed("dpdk-testpmd");
    if kinds.iter().any(absent) {
        kinds.retain(|kind| !absent(kind));
        println!(
            "{}",
            json!({ "bench": "compare", "what": "skipped", "subject": "testpmd",
            "why": "no dpdk-testpmd (Debian: dpdk-dev)" })
        );
    }
    for &conntrack in &args.conntrack {
        for &rules in &args.rules {
            row(args, &mut stand, &kinds, Policy { rules, conntrack, seed: args.seed })?;
        }
    }
    Ok(())
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn row(args: &Args, stand: &mut Stand, kinds: &[Kind], policy: Policy) -> Outcome<()> {
    let mut runs: Vec<Vec<Run>> = kinds.iter().map(|_| Vec::new()).collect();
    for round in 0..args.rounds {
        for (kind, runs) in kinds.iter().zip(&mut runs) {
            let run = turn(args, stand, *kind, policy)?;
            let line = json!({
                "bench": "compare", "what": "run", "subject": kind.name(), "rules": policy.rules,
                "conntrack": policy.conntrack, "round": round, "result": run.report(),
            });
            println!("{line}");
            runs.push(run);
        }
    }
    let Some(own) = kinds
        .iter()
        .position(|kind| *kind == Kind::Portcullis)
        .or_else(|| kinds.iter().position(|kind| *kind == Kind::Daemon))
    else {
        return Ok(());
    };
    for (kind, others) in kinds.iter().zip(&runs) {
        let pairs = || runs[own].iter().zip(others);
        let rates = pairs().map(|(own, it)| own.sent.received_rate() / it.sent.received_rate());
        let cores = pairs().filter_map(|(own, it)| Some(it.core? / own.core?));
        let line = json!({
            "bench": "compare", "what": "row", "subject": kind.name(), "against": kinds[own].name(),
            "rules": policy.rules, "conntrack": policy.conntrack,
            "received_pps": median(others.iter().map(|it| it.sent.received_rate()).collect()).round(),
            "lost": others.iter().map(|it| it.sent.lost()).sum::<u64>(),
            "subject_core_s_per_mpkt": median(others.iter().filter_map(|it| it.core).collect()),
            "subject_threads_s_per_mpkt": median(others.iter().filter_map(|it| it.threads).collect()),
            "portcullis_rate_ratio": spread(rates.collect()),
            "portcullis_core_ratio": spread(cores.collect()),
        });
        println!("{line}");
    }
    Ok(())
}

/// Starts one, examines it, floods it.
fn turn(args: &Args, stand: &mut Stand, kind: Kind, policy: Policy) -> Outcome<Run> {
    // Whoever starts is not bound to the generator's core.
    unpin()?;
    let lab = stand.lab.clone();
    let settings = stand.settings(args.spin, args.floor_batch);
    let subject = Subject::start(&lab, kind, policy, settings, args.daemon.as_deref())?;
    pin(0)?;
    stand.examine(kind, &policy)?;
    stand.run(&subject, args.shape.load())
}

fn spread(values: Vec<f64>) -> serde_json::Value {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    json!({ "median": median(values), "least": least, "most": most })
}
