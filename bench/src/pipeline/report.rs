//! Rounds to figures, as one JSON object.

use serde_json::{Value, json};

use super::drive::Took;
use super::world::Bed;
use super::{Args, Point};

/// One round over all workers, in nanoseconds for each packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    copy: f64,
    work: f64,
    /// Packets of all workers.
    packets: usize,
    /// The slowest worker's time.
    longest_ns: u64,
}

impl Round {
    /// From each worker's part: without the engine, and with it.
    pub(super) fn of(took: &[(Took, Took)]) -> Self {
        let each = |part: fn(&(Took, Took)) -> Took| {
            let sum: f64 = took.iter().map(part).map(|it| it.ns as f64 / it.packets as f64).sum();
            sum / took.len() as f64
        };
        Self {
            copy: each(|it| it.0),
            work: each(|it| it.1),
            packets: took.iter().map(|it| it.1.packets).sum(),
            longest_ns: took.iter().map(|it| it.1.ns).max().unwrap_or(1),
        }
    }
}

/// Least, median and greatest.
fn spread(mut figures: Vec<f64>) -> Value {
    figures.sort_by(f64::total_cmp);
    let at = |index: usize| figures.get(index).map(|it| (it * 10.0).round() / 10.0);
    json!({
        "min": at(0), "median": at(figures.len() / 2), "max": at(figures.len().saturating_sub(1)),
    })
}

/// What was measured, whatever the figure.
pub(super) fn head(args: &Args, point: &Point) -> Value {
    let name = |it: &dyn std::fmt::Debug| format!("{it:?}").to_lowercase();
    json!({
        "bench": "pipeline", "scenario": name(&point.scenario), "family": name(&args.family),
        "proto": name(&args.proto), "size": point.size, "flows": point.flows,
        "nat": point.nat.map(|nat| name(&nat)),
        "set": point.classbench.as_ref().and_then(|it| it.file_name()).map(|it| it.to_string_lossy().into_owned()),
        "routes": args.routes, "workers": args.workers, "asymmetric": args.asymmetric,
        "plans": !args.no_plans,
        "new_rate": args.new_rate, "hit_ratio": args.hit_ratio, "seed": args.seed,
    })
}

/// The line of a timed point.
pub(super) fn line(
    args: &Args,
    point: &Point,
    (rules, _): (usize, usize),
    rounds: &[Round],
    bed: &Bed,
) -> Value {
    let of = |figure: fn(&Round) -> f64| spread(rounds.iter().map(figure).collect());
    let mut line = head(args, point);
    line["rules"] = rules.into();
    line["rounds"] = rounds.len().into();
    line["packets"] = rounds.first().map_or(0, |round| round.packets).into();
    line["connections"] = bed.conntrack.len().into();
    line["ns"] = of(|round| round.work - round.copy);
    line["copy_ns"] = of(|round| round.copy);
    line["with_copy_ns"] = of(|round| round.work);
    line["mpps"] = of(|round| round.packets as f64 * 1e3 / round.longest_ns as f64);
    line
}
