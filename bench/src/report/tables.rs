//! The page: budgets, tables of each command, plots, what is written by hand.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::budgets::{Row, Spread, figure};
use super::lines::{Line, Lines};
use super::machine::Machine;
use super::notes::Notes;
use super::plots::Plot;
use crate::classify::goals::{Line as Classified, geometric_mean};

/// The whole page.
///
/// # Errors
/// None: a `String` takes everything.
pub(super) fn page(
    lines: &Lines,
    rows: &[Row],
    notes: &Notes,
    plots: &[Plot],
    machine: &Machine,
) -> Result<String, fmt::Error> {
    let mut page = String::new();
    head(&mut page, machine)?;
    budgets(&mut page, rows, notes)?;
    for plot in plots {
        write!(page, "\n![{}](performance/{}.svg)\n", plot.title, plot.name)?;
    }
    classifier(&mut page, &lines.classified())?;
    pipeline(&mut page, lines)?;
    connections(&mut page, lines)?;
    comparison(&mut page, lines)?;
    latency(&mut page, lines)?;
    for section in &notes.section {
        write!(page, "\n## {}\n\n{}\n", section.title, section.text.trim())?;
    }
    Ok(page)
}

fn head(page: &mut String, machine: &Machine) -> fmt::Result {
    writeln!(
        page,
        "# Performance\n\n\
         Written by `portcullis-bench report` from what the other commands of `portcullis-bench` measured; `scripts/bench` runs\n\
         them all. Not to be edited: texts and reasons come from [performance/notes.toml](performance/notes.toml).\n\n\
         Measured on: {}, {} cores, {} GiB, Linux {}, {}.\n\
         On a shared machine trust ratios within one run, in which subjects took turns. Figures are medians, in brackets the least and the greatest of all rounds.",
        machine.cpu,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.simd.join(" ")
    )
}

fn budgets(page: &mut String, rows: &[Row], notes: &Notes) -> fmt::Result {
    let count = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
    writeln!(
        page,
        "\n## Budgets\n\n{} met, {} missed, {} not measured.\n\n\
         | what | budget | measured | | command |\n|---|---|---|---|---|",
        count("met"),
        count("missed"),
        count("not measured")
    )?;
    for row in rows {
        let note = notes.budgets.get(&row.id).map(|note| format!(": {}", note.trim()));
        writeln!(
            page,
            "| {} | {} | {} | {}{} | `{}` |",
            row.what,
            row.limit_text(),
            row.measured_text(),
            row.verdict(),
            note.unwrap_or_default(),
            row.command
        )?;
    }
    Ok(())
}

/// Lines of one set, size, family and trace stand beside each other, a column a contender.
fn classifier(page: &mut String, lines: &[Classified]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    let mut contenders: Vec<&str> = lines.iter().map(|line| line.contender.as_str()).collect();
    contenders.sort_unstable();
    contenders.dedup();
    let mut table: BTreeMap<_, BTreeMap<&str, Vec<&Classified>>> = BTreeMap::new();
    for line in lines {
        let key = (&line.family, &line.trace, line.size(), &line.kind, line.rules);
        table.entry(key).or_default().entry(&line.contender).or_default().push(line);
    }
    writeln!(
        page,
        "\n## The classifier\n\nNanoseconds a packet; in brackets build time in ms and memory in MiB. Every answer of Portcullis' was\n\
         checked against a linear search first.\n\n| set | rules | family | trace | {} |\n|---|---|---|---|{}",
        contenders.join(" | "),
        "---|".repeat(contenders.len())
    )?;
    for ((family, trace, _, kind, rules), by) in &table {
        write!(page, "| {kind} | {rules} | {family} | {trace} |")?;
        for contender in &contenders {
            let of = by.get(contender).map_or(&[][..], |lines| lines);
            let rounds = of.iter().flat_map(|line| line.rounds_ns.iter().copied());
            match (Spread::of(rounds), of.first()) {
                (Some(ns), Some(line)) => {
                    let [ns, build, memory] =
                        [ns.median, line.build_ms, line.memory_mib].map(figure);
                    write!(page, " {ns} ({build}, {memory}) |")?;
                }
                _ => write!(page, " |")?,
            }
        }
        writeln!(page)?;
    }
    means(page, &table, &contenders)
}

type Key<'l> = (&'l String, &'l String, usize, &'l String, usize);

/// Geometric means over sets, where every contender ran.
fn means(
    page: &mut String,
    table: &BTreeMap<Key<'_>, BTreeMap<&str, Vec<&Classified>>>,
    contenders: &[&str],
) -> fmt::Result {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((family, trace, size, ..), by) in table {
        groups.entry((family, trace, size)).or_default().push(by);
    }
    writeln!(
        page,
        "\nGeometric means over the sets of one size:\n\n| rules | sets | family | trace | {} |\n|---|---|---|---|{}",
        contenders.join(" | "),
        "---|".repeat(contenders.len())
    )?;
    for ((family, trace, size), sets) in &groups {
        write!(page, "| {size} | {} | {family} | {trace} |", sets.len())?;
        for contender in contenders {
            let medians: Vec<f64> = sets
                .iter()
                .filter_map(|by| by.get(contender))
                .filter_map(|lines| {
                    Spread::of(lines.iter().flat_map(|line| line.rounds_ns.iter().copied()))
                })
                .map(|spread| spread.median)
                .collect();
            if medians.len() == sets.len() {
                write!(page, " {} |", figure(geometric_mean(medians.into_iter())))?;
            } else {
                write!(page, " |")?;
            }
        }
        writeln!(page)?;
    }
    Ok(())
}

fn pipeline(page: &mut String, lines: &Lines) -> fmt::Result {
    if lines.of("pipeline").next().is_none() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## From bytes to bytes\n\nPorts in memory. Time of a round with the engine less that of the same round without.\n\n\
         | scenario | family | size | flows | rules | nat | plans | workers | ns | instructions |\n|---|---|---|---|---|---|---|---|---|---|"
    )?;
    for line in lines.of("pipeline") {
        let number =
            |name: &str| line.number(name).map_or("-".to_owned(), |value| format!("{value}"));
        let scenario = match line.text("set") {
            "" => line.text("scenario").to_owned(),
            set => format!("{} {}", line.text("scenario"), set.trim_end_matches(".xz")),
        };
        writeln!(
            page,
            "| {scenario} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            line.text("family"),
            number("size"),
            number("flows"),
            number("rules"),
            line.text("nat"),
            if line.if_any("plans", true) { "" } else { "off" },
            number("workers"),
            spread(line, "ns", ["min", "median", "max"]),
            number("instructions"),
        )?;
    }
    Ok(())
}

/// `median (min to max)` of an object in the line.
fn spread(line: &Line, name: &str, [min, median, max]: [&str; 3]) -> String {
    let at = |part: &str| line.number(&format!("{name}.{part}")).map(figure);
    match (at(median), at(min), at(max)) {
        (Some(median), Some(min), Some(max)) => format!("{median} ({min} to {max})"),
        _ => "-".to_owned(),
    }
}

fn connections(page: &mut String, lines: &Lines) -> fmt::Result {
    if lines.of("conntrack").next().is_none() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## Connections\n\n| operation | traffic | entries | threads | ns | times the smallest | burst p50, p99.9, ns |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for line in lines.of("conntrack") {
        let number =
            |name: &str| line.number(name).map_or("-".to_owned(), |value| format!("{value}"));
        writeln!(
            page,
            "| {} | {} | {} | {} | {} ({} to {}) | {} | {}, {} |",
            line.text("op"),
            line.text("traffic"),
            number("entries"),
            number("threads"),
            number("ns_per_op"),
            number("ns_min"),
            number("ns_max"),
            number("times_smallest"),
            number("burst_ns.p50"),
            number("burst_ns.p999"),
        )?;
    }
    Ok(())
}

fn comparison(page: &mut String, lines: &Lines) -> fmt::Result {
    let rows = || lines.of("compare").filter(|line| line.has("what", "row"));
    if rows().next().is_none() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## Beside others, on veths\n\nThe same generator for all, by turns. The ratio is Portcullis' rate over the subject's.\n\n\
         | rules | established first | subject | packets a second | core seconds a million packets | Portcullis' rate / its |\n\
         |---|---|---|---|---|---|"
    )?;
    for line in rows() {
        let number = |name: &str| line.number(name);
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            number("rules").unwrap_or(0.0),
            if line.has("conntrack", true) { "yes" } else { "no" },
            line.text("subject"),
            number("received_pps").map_or("-".to_owned(), |pps| format!("{pps:.0}")),
            number("subject_core_s_per_mpkt").map_or("-".to_owned(), figure),
            spread(line, "portcullis_rate_ratio", ["least", "median", "most"]),
        )?;
    }
    Ok(())
}

fn latency(page: &mut String, lines: &Lines) -> fmt::Result {
    let rows = || lines.of("e2e").filter(|line| line.has("what", "latency"));
    if rows().next().is_none() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## Latency on veths\n\n| subject | rules | fraction of the loss-free rate | swaps | lost | p50, p99, p99.9, most, us |\n\
         |---|---|---|---|---|---|"
    )?;
    for line in rows() {
        let us = |name: &str| {
            line.number(&format!("result.latency_us.{name}")).map_or("-".to_owned(), figure)
        };
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {}, {}, {}, {} |",
            line.text("subject"),
            line.number("rules").unwrap_or(0.0),
            line.number("fraction").unwrap_or(0.0),
            if line.if_any("swapping", false) { "no" } else { "yes" },
            line.number("result.lost").unwrap_or(0.0),
            us("p50"),
            us("p99"),
            us("p999"),
            us("max"),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{budgets, plots};
    use super::*;

    const TEXT: &str = r#"{"bench":"pipeline","scenario":"plain","flows":1000,"size":64,"family":"v4","rules":0,"ns":{"min":20,"median":24,"max":30}}
{"bench":"classify","set":"acl1_10k","kind":"acl1","family":"v4","rules":9774,"trace":"corners","contender":"portcullis","rounds_ns":[10,12,11],"best_ns":9,"build_ms":4.5,"memory_mib":1,"checked":5,"wrong":0}
{"bench":"classify","set":"acl1_10k","kind":"acl1","family":"v4","rules":9774,"trace":"corners","contender":"rte_acl-x32","rounds_ns":[20,24,22],"best_ns":9,"build_ms":400,"memory_mib":19,"checked":5,"wrong":0}
{"bench":"compare","what":"row","subject":"legacy","against":"portcullis","rules":10,"conntrack":true,"received_pps":300000,"portcullis_rate_ratio":{"least":2,"median":2.5,"most":3}}"#;

    fn page_of(text: &str) -> String {
        let lines = Lines::parse(text, "");
        let notes = Notes::parse(
            "[budgets]\nplain = \"why\"\n[[section]]\ntitle = \"More\"\ntext = \"Words.\"\n",
        );
        let (rows, plots) = (budgets::judge(&lines), plots::all(&lines));
        page(&lines, &rows, &notes.expect("notes"), &plots, &Machine::default()).expect("a page")
    }

    #[test]
    fn every_part_has_its_place_and_the_same_lines_give_the_same_page() {
        let page = page_of(TEXT);
        for part in [
            "| plain forwarding through empty tables, 1k flows | <= 25 ns | 24.0 ns (20.0 to 30.0) | met: why |",
            "| acl1 | 9774 | v4 | corners | 11.0 (4.50, 1.00) | 22.0 (400, 19.0) |",
            "| 10000 | 1 | v4 | corners | 11.0 | 22.0 |",
            "| classifier, 10k: rte_acl x32 / ours, geometric mean | >= 2 | 2.00 (2.00 to 2.00) | met |",
            "| 10 | yes | legacy | 300000 | - | 2.50 (2.00 to 3.00) |",
            "| plain | v4 | 64 | 1000 | 0 |  |  | - | 24.0 (20.0 to 30.0) | - |",
            "\n## More\n\nWords.\n",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert_eq!(page, page_of(TEXT));
    }

    #[test]
    fn unknown_notes_are_errors() {
        assert!(Notes::parse("[budget]\nplain = \"x\"\n").is_err());
    }
}
