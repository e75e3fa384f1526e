//! The budgets, each with what was measured for it.

use super::lines::{Line, Lines};
use crate::classify::goals::Judge;

/// Least, median and most of what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of single values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            min: *values.first()?,
            median: values[(values.len() - 1) / 2],
            max: *values.last()?,
        })
    }
    /// The same, judged by the most of them: where each one counts.
    pub(super) fn at_worst(self) -> Self {
        Self { median: self.max, ..self }
    }
    /// How many times the other, at least, by the medians, and at most.
    pub(super) fn over(self, other: Self) -> Self {
        Self {
            min: self.min / other.max,
            median: self.median / other.median,
            max: self.max / other.min,
        }
    }
    /// Of lines that each hold a spread under `name`.
    pub(super) fn under<'l>(
        lines: impl Iterator<Item = &'l Line>,
        [min, median, max]: [&str; 3],
    ) -> Option<Self> {
        let (mut least, mut middle, mut most) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            least.extend(line.number(min));
            middle.extend(line.number(median));
            most.extend(line.number(max));
        }
        let median = Self::of(middle)?.median;
        Some(Self { min: Self::of(least)?.min, median, max: Self::of(most)?.max })
    }
}

/// Which side of the limit is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// A row of the table of budgets.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// By which the notes know it.
    pub(super) id: String,
    pub(super) what: String,
    pub(super) limit: Limit,
    pub(super) unit: &'static str,
    pub(super) measured: Option<Spread>,
    pub(super) command: &'static str,
}

impl Row {
    /// Met, missed, or not measured.
    pub(super) fn verdict(&self) -> &'static str {
        match (self.measured, self.limit) {
            (None, _) => "not measured",
            (Some(it), Limit::AtMost(limit)) if it.median <= limit => "met",
            (Some(it), Limit::AtLeast(limit)) if it.median >= limit => "met",
            _ => "missed",
        }
    }
    /// Median and spread with the unit.
    pub(super) fn measured_text(&self) -> String {
        match self.measured {
            None => "-".to_owned(),
            Some(it) => {
                let [median, min, max] = [it.median, it.min, it.max].map(figure);
                format!("{median}{} ({min} to {max})", self.unit)
            }
        }
    }
    /// The limit as it is written.
    pub(super) fn limit_text(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("<= {limit}{}", self.unit),
            Limit::AtLeast(limit) => format!(">= {limit}{}", self.unit),
        }
    }
}

/// Three significant figures or so, without needless zeros.
pub(super) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        it if it >= 100.0 => 0,
        it if it >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

const PIPELINE: &str = "portcullis-bench pipeline";
const NS: [&str; 3] = ["ns.min", "ns.median", "ns.max"];

/// All budgets, measured or not, in the design's order; the classifier's goals after them.
pub(super) fn judge(lines: &Lines) -> Vec<Row> {
    let mut rows = Vec::new();
    pipeline(lines, &mut rows);
    swap(lines, &mut rows);
    sets(lines, &mut rows);
    conntrack(lines, &mut rows);
    ports(lines, &mut rows);
    classifier(lines, &mut rows);
    rows
}

fn row(
    id: &str,
    what: &str,
    limit: Limit,
    unit: &'static str,
    command: &'static str,
    measured: Option<Spread>,
) -> Row {
    Row { id: id.to_owned(), what: what.to_owned(), limit, unit, measured, command }
}

/// Timed points of one worker, 64-byte UDP over IPv4 as the budgets say, with the default switches.
fn points<'l>(lines: &'l Lines, scenario: &'l str) -> impl Iterator<Item = &'l Line> {
    lines.of("pipeline").filter(move |line| {
        line.has("scenario", scenario)
            && line.if_any("size", 64)
            && line.if_any("family", "v4")
            && line.if_any("proto", "udp")
            && line.if_any("workers", 1)
            && line.if_any("plans", true)
            && line.number("new_rate").unwrap_or(0.0) == 0.0
            && line.number("ns.median").is_some()
    })
}

fn at<'l>(lines: &'l Lines, scenario: &'l str, flows: u32) -> Option<Spread> {
    Spread::under(points(lines, scenario).filter(|line| line.has("flows", flows)), NS)
}

fn pipeline(lines: &Lines, rows: &mut Vec<Row>) {
    use Limit::AtMost;
    rows.push(row(
        "plain",
        "plain forwarding through empty tables, 1k flows",
        AtMost(25.0),
        " ns",
        PIPELINE,
        at(lines, "plain", 1_000),
    ));
    for (flows, name, limit) in
        [(1_000, "1k", 40.0), (100_000, "100k", 60.0), (1_000_000, "1M", 80.0)]
    {
        let known = at(lines, "established", flows);
        rows.push(row(
            &format!("established-{name}"),
            &format!("established packet, {name} flows"),
            AtMost(limit),
            " ns",
            PIPELINE,
            known,
        ));
        let more = at(lines, "nat", flows).zip(known).map(|(nat, known)| Spread {
            min: nat.min - known.max,
            median: nat.median - known.median,
            max: nat.max - known.min,
        });
        rows.push(row(
            &format!("nat-{name}"),
            &format!("SNAT beside that, {name} flows"),
            AtMost(10.0),
            " ns",
            PIPELINE,
            more,
        ));
    }
    let first = |translated: bool| {
        let wanted = |line: &&Line| {
            line.if_any("nat", "") != translated
                && line.number("rules").is_some_and(|n| n >= 9_000.0)
        };
        Spread::under(points(lines, "first").filter(wanted), NS)
    };
    rows.push(row(
        "first",
        "first packet of a flow, 10k rules",
        AtMost(250.0),
        " ns",
        PIPELINE,
        first(false),
    ));
    rows.push(row("first-snat", "the same with SNAT", AtMost(350.0), " ns", PIPELINE, first(true)));
    for set in ["acl1_10k", "fw1_10k"] {
        let of = points(lines, "stateless").filter(|line| line.text("set").starts_with(set));
        rows.push(row(
            &format!("stateless-{set}"),
            &format!("stateless walk of ClassBench {set}"),
            AtMost(80.0),
            " ns",
            "portcullis-bench pipeline stateless --classbench FILE",
            Spread::under(of, NS),
        ));
    }
}

fn swap(lines: &Lines, rows: &mut Vec<Row>) {
    for (rules, name, limit) in [(1e4, "10k", 50.0), (1e5, "100k", 500.0)] {
        let near = |count: f64| (count / rules - 1.0).abs() < 0.02;
        let total = lines.of("swap").filter(|line| line.number("rules").is_some_and(near));
        rows.push(row(
            &format!("swap-{name}"),
            &format!("read, check, compile and swap {name} rules"),
            Limit::AtMost(limit),
            " ms",
            "portcullis-bench swap",
            Spread::of(total.filter_map(|line| line.number("total_ms"))),
        ));
    }
    let swapping = || {
        lines.of("e2e").filter(|line| {
            line.has("what", "latency") && line.number("rules").is_some_and(|n| n >= 10_000.0)
        })
    };
    let lost = swapping()
        .filter(|line| !line.if_any("swapping", false))
        .filter_map(|line| line.number("result.lost"));
    let in_memory = lines.of("swap-under-load").filter(|line| line.number("swaps") > Some(0.0));
    let lost = lost.chain(in_memory.filter_map(|line| line.number("lost")));
    rows.push(row(
        "swap-loss",
        "packets lost while 10k rules are swapped every 100 ms",
        Limit::AtMost(0.0),
        "",
        "portcullis-bench e2e --swap-every-ms 100",
        Spread::of(lost).map(Spread::at_worst),
    ));
}

fn sets(lines: &Lines, rows: &mut Vec<Row>) {
    let of = |kind: &'static str, least: f64, most: f64| {
        lines.of("sets").filter(move |line| {
            let elements = line.number("elements").unwrap_or(0.0);
            line.has("side", "portcullis")
                && line.has("type", kind)
                && (least..=most).contains(&elements)
        })
    };
    let million = || of("hash:ip", 9e5, f64::INFINITY);
    let command = "portcullis-bench sets";
    let load = Spread::of(million().filter_map(|line| line.number("load_ms")));
    rows.push(row("set-load", "set of 1M: loads", Limit::AtMost(1000.0), " ms", command, load));
    let add = Spread::of(million().filter_map(|line| line.number("add_ns.p999")));
    rows.push(row(
        "set-add",
        "set of 1M: one addition, p99.9",
        Limit::AtMost(10_000.0),
        " ns",
        command,
        add,
    ));
    let hit = |lines: &mut dyn Iterator<Item = &Line>| {
        Spread::of(lines.filter_map(|line| line.number("hit_ns")))
    };
    let flat = hit(&mut million()).zip(hit(&mut of("hash:ip", 0.0, 2_000.0)));
    let flat = flat.map(|(large, small)| large.over(small));
    rows.push(row(
        "set-flat",
        "set lookup, 1M / 1k elements",
        Limit::AtMost(2.0),
        "",
        command,
        flat,
    ));
}

fn conntrack(lines: &Lines, rows: &mut Vec<Row>) {
    let of = |op: &'static str, entries: u32| {
        lines.of("conntrack").filter(move |line| {
            line.has("op", op) && line.has("entries", entries) && line.if_any("threads", 1)
        })
    };
    let command = "portcullis-bench conntrack";
    for (entries, name) in [(1_000_000, "1M"), (10_000_000, "10M")] {
        let times = of("hit", entries).filter_map(|line| line.number("times_smallest"));
        rows.push(row(
            &format!("conntrack-hit-{name}"),
            &format!("connection found among {name}, times the cost in the smallest table"),
            Limit::AtMost(2.0),
            "",
            command,
            Spread::of(times).map(Spread::at_worst),
        ));
    }
    let inserts = of("insert", 1_000_000).filter_map(|line| line.number("mops_per_core"));
    rows.push(row(
        "conntrack-insert",
        "insertions a second and core, millions (1M entries)",
        Limit::AtLeast(3.0),
        "",
        command,
        Spread::of(inserts),
    ));
}

fn ports(lines: &Lines, rows: &mut Vec<Row>) {
    const RATIO: [&str; 3] = [
        "portcullis_rate_ratio.least",
        "portcullis_rate_ratio.median",
        "portcullis_rate_ratio.most",
    ];
    let of = |subject: &'static str| {
        lines.of("compare").filter(move |line| {
            line.has("what", "row") && line.has("subject", subject) && line.has("rules", 1)
        })
    };
    let command = "portcullis-bench compare";
    rows.push(row(
        "afxdp-floor",
        "AF_XDP end to end, rate / raw forwarder's",
        Limit::AtLeast(0.95),
        "",
        command,
        Spread::under(of("floor"), RATIO),
    ));
    let rate = |subject| Spread::of(of(subject).filter_map(|line| line.number("received_pps")));
    let testpmd = rate("floor").zip(rate("testpmd")).map(|(floor, testpmd)| floor.over(testpmd));
    rows.push(row(
        "afxdp-testpmd",
        "raw forwarder's rate / DPDK testpmd's on af_xdp",
        Limit::AtLeast(1.0),
        "",
        command,
        testpmd,
    ));
}

fn classifier(lines: &Lines, rows: &mut Vec<Row>) {
    let lines = lines.classified();
    for goal in Judge::new(&lines).goals() {
        let limit: Option<f64> = goal.target[2..].trim().parse().ok();
        let Some(limit) = limit else { continue };
        let words: Vec<&str> = goal
            .goal
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| !w.is_empty())
            .collect();
        rows.push(Row {
            id: format!("classify-{}", words.join("-").to_lowercase()),
            what: format!("classifier, {}", goal.goal),
            limit: if goal.target.starts_with('<') {
                Limit::AtMost(limit)
            } else {
                Limit::AtLeast(limit)
            },
            unit: "",
            measured: Some(Spread {
                min: goal.spread.0,
                median: goal.measured,
                max: goal.spread.1,
            }),
            command: "portcullis-bench classify FILES",
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'r>(rows: &'r [Row], id: &str) -> &'r Row {
        rows.iter().find(|row| row.id == id).expect(id)
    }

    #[test]
    fn without_lines_nothing_is_met() {
        let rows = judge(&Lines::default());
        assert!(rows.len() > 15);
        assert!(
            rows.iter().all(|row| row.verdict() == "not measured" && row.measured_text() == "-")
        );
    }

    #[test]
    fn pipeline_points_find_their_budgets() {
        let text = r#"{"bench":"pipeline","scenario":"established","flows":1000,"size":64,"ns":{"min":30,"median":41,"max":50}}
{"bench":"pipeline","scenario":"nat","flows":1000,"size":64,"nat":"snat","ns":{"min":38,"median":45,"max":60}}
{"bench":"pipeline","scenario":"established","flows":1000,"size":1518,"ns":{"min":1,"median":1,"max":1}}
{"bench":"pipeline","scenario":"first","flows":1000,"nat":null,"rules":10000,"ns":{"min":1,"median":250,"max":300}}
{"bench":"pipeline","scenario":"first","flows":1000,"nat":"snat","rules":10000,"ns":{"min":1,"median":360,"max":370}}
{"bench":"pipeline","scenario":"stateless","flows":1000,"set":"fw1_10k.xz","ns":{"min":1,"median":79,"max":90}}"#;
        let rows = judge(&Lines::parse(text, ""));
        let said = |id: &str| (find(&rows, id).verdict(), find(&rows, id).measured_text());
        assert_eq!(said("established-1k"), ("missed", "41.0 ns (30.0 to 50.0)".to_owned()));
        assert_eq!(said("nat-1k"), ("met", "4.00 ns (-12.0 to 30.0)".to_owned()));
        assert_eq!(said("first").0, "met");
        assert_eq!(said("first-snat").0, "missed");
        assert_eq!(said("stateless-fw1_10k").0, "met");
        assert_eq!(said("stateless-acl1_10k").0, "not measured");
    }

    #[test]
    fn swaps_sets_connections_and_ports() {
        let text = r#"{"bench":"swap","rules":10000,"total_ms":60}
{"bench":"swap","rules":10000,"total_ms":40}
{"bench":"sets","side":"portcullis","type":"hash:ip","elements":1000000,"load_ms":300,"hit_ns":20,"add_ns":{"p999":900}}
{"bench":"sets","side":"portcullis","type":"hash:ip","elements":1000,"load_ms":1,"hit_ns":10}
{"bench":"conntrack","op":"hit","entries":1000000,"threads":1,"ns_per_op":40,"times_smallest":2.5,"burst_ns":{}}
{"bench":"compare","what":"row","subject":"floor","against":"portcullis","rules":1,"received_pps":1000,"portcullis_rate_ratio":{"least":0.9,"median":0.96,"most":1}}
{"bench":"compare","what":"row","subject":"testpmd","against":"portcullis","rules":1,"received_pps":800,"portcullis_rate_ratio":{"least":1,"median":1,"most":1}}
{"bench":"e2e","what":"latency","subject":"portcullis","rules":10000,"swapping":null,"result":{"lost":5}}
{"bench":"e2e","what":"latency","subject":"portcullis","rules":10000,"swapping":{"swaps":3},"result":{"lost":0}}"#;
        let rows = judge(&Lines::parse(text, ""));
        let said = |id: &str| (find(&rows, id).verdict(), find(&rows, id).measured_text());
        assert_eq!(said("swap-10k"), ("met", "40.0 ms (40.0 to 60.0)".to_owned()));
        assert_eq!(said("set-flat"), ("met", "2.00 (2.00 to 2.00)".to_owned()));
        assert_eq!(said("conntrack-hit-1M").0, "missed");
        assert_eq!(said("afxdp-floor").0, "met");
        assert_eq!(said("afxdp-testpmd"), ("met", "1.25 (1.25 to 1.25)".to_owned()));
        assert_eq!(said("swap-loss"), ("met", "0.00 (0.00 to 0.00)".to_owned()));
    }
}
