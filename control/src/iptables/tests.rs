//! The parser against what iptables 1.8.9 was seen to do, and on whole files.

use dataplane::packet::Family;

use super::*;
use crate::model::Counters;

mod files;
mod properties;
mod tally;
mod targets;

/// Parses with the built-in names.
pub(super) fn load(text: &str, family: Family) -> Result<Parsed, Vec<Finding>> {
    parse(text, "test", family, &TableNames::well_known())
}

/// Parses with the built-in names and prints back; `None` if refused.
pub(super) fn reprint(text: &str, family: Family) -> Option<String> {
    let names = TableNames::well_known();
    let parsed = parse(text, "test", family, &names).ok()?;
    Some(print(&parsed.ruleset, &names, None))
}

/// A table with a user chain U and the lines of a row of `observed.tsv`.
fn file(table: &str, lines: &str) -> String {
    format!("*{table}\n:U - [0:0]\n{}\nCOMMIT\n", lines.replace(" | ", "\n"))
}

/// What becomes of lines in a table with a user chain U, in the words of `observed.tsv`.
fn outcome(table: &str, line: &str, family: Family) -> String {
    match reprint(&file(table, line), family) {
        None => "-".to_string(),
        Some(printed) => {
            let rules: Vec<&str> = printed.lines().filter(|line| line.starts_with("-A")).collect();
            format!("ok {}", rules.join(" | ")).trim().to_string()
        }
    }
}

/// Every row of what was observed.
fn observed() -> impl Iterator<Item = &'static str> {
    let files = [include_str!("observed.tsv"), include_str!("observed_measure.tsv")];
    files.into_iter().flat_map(str::lines).filter(|row| !row.starts_with('#'))
}

#[test]
fn lines_fare_as_observed() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in observed() {
        let cells: Vec<&str> = row.split('\t').collect();
        let family = if cells[0] == "4" { Family::V4 } else { Family::V6 };
        let ours = outcome(cells[1], cells[2], family);
        let expected = match cells.get(5) {
            Some(on_purpose) => ours == *on_purpose,
            None => cells[3..5]
                .iter()
                .any(|tool| *tool == ours && (ours != "-" || cells[3] == cells[4])),
        };
        if !expected {
            wrong.push(format!("{row}\n  ours: {ours}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count} lines:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 1_700);
}

#[test]
fn what_is_printed_parses_to_the_same_print() {
    for row in observed() {
        let cells: Vec<&str> = row.split('\t').collect();
        let family = if cells[0] == "4" { Family::V4 } else { Family::V6 };
        let text = file(cells[1], cells[2]);
        if let Some(printed) = reprint(&text, family) {
            assert_eq!(reprint(&printed, family).as_ref(), Some(&printed), "{row}");
        }
    }
}

#[test]
fn counters_are_read_and_live_ones_printed() {
    let text =
        "*filter\n:INPUT DROP [7:700]\n[3:180] -A INPUT -j ACCEPT\n-A INPUT -c 5 6\nCOMMIT\n";
    let parsed = load(text, Family::V4).unwrap();
    let input = &parsed.ruleset.tables[0].chains[0];
    assert_eq!(input.policy.unwrap().1, Counters { packets: 7, bytes: 700 });
    assert_eq!(input.rules[0].counters, Some(Counters { packets: 3, bytes: 180 }));
    assert_eq!(input.rules[1].counters, Some(Counters { packets: 5, bytes: 6 }));
    let live = |table: dataplane::policy::TableId, chain: &str, rule: Option<usize>| {
        assert_eq!(table, dataplane::policy::TableId::Filter);
        let packets = if chain == "INPUT" { rule.map_or(100, |rule| rule as u64 + 1) } else { 0 };
        Counters { packets, bytes: packets * 10 }
    };
    let printed = print(&parsed.ruleset, &TableNames::well_known(), Some(&live));
    let expected = "*filter\n:INPUT DROP [100:1000]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                    [1:10] -A INPUT -j ACCEPT\n[2:20] -A INPUT\nCOMMIT\n";
    assert_eq!(printed, expected);
}

#[test]
fn names_follow_the_hosts_files() {
    let names = TableNames::from_texts(
        "# x\nfoo 77 FOO # c\ntcp 6 TCP\nodd\nbad x\n",
        "web 8080/tcp www\nweb 9090/udp\nbroken\nfar 99999/tcp\nnone x/tcp\n",
    );
    assert_eq!(names.protocol_number("foo"), Some(77));
    assert_eq!(names.protocol_number("FOO"), Some(77));
    assert_eq!(names.protocol_number("all"), Some(0));
    assert_eq!(names.protocol_number("bad"), None);
    assert_eq!(names.protocol_name(77), Some("foo"));
    assert_eq!(names.protocol_name(17), None);
    assert_eq!(names.service_port("web", Some("tcp")), Some(8080));
    assert_eq!(names.service_port("www", Some("tcp")), Some(8080));
    assert_eq!(names.service_port("web", Some("udp")), Some(9090));
    assert_eq!(names.service_port("web", None), Some(8080));
    assert_eq!(names.service_port("far", None), None);
    assert_eq!(names.service_port("none", None), None);
    // An empty file falls back to the built-in table, each on its own.
    let names = TableNames::from_texts("", "web 8080/tcp\n");
    assert_eq!(names.protocol_name(17), Some("udp"));
    assert_eq!(names.service_port("ssh", None), None);
}

#[test]
fn labels_have_names() {
    // As the tools read such a file.
    let names = TableNames::well_known().with_labels(
        "# c\n0 zero\n1\teth0-in\n 2 indented\n3 three words\n5 five\n7  seven # c\n128 over\n9 five\n\
         11 12\n13 \"q\"\nx y\n14\n0x0f hex\n020 oct\n17 a_b\n18 9num\n",
    );
    let printed = |label: &str| {
        let text = format!("*filter\n-A INPUT -m connlabel --label {label}\nCOMMIT\n");
        let parsed = parse(&text, "test", Family::V4, &names).ok()?;
        let printed = print(&parsed.ruleset, &names, None);
        let line = printed.lines().find(|line| line.starts_with("-A"))?;
        Some(line.trim_start_matches("-A INPUT -m connlabel --label ").to_string())
    };
    for (label, expected) in [
        ("zero", "\"zero\""),
        ("0", "\"zero\""),
        ("eth0-in", "\"eth0-in\""),
        ("indented", "\"indented\""),
        ("\"three words\"", "\"three words\""),
        ("9", "\"9\""),
        ("7", "\"7\""),
        ("11", "\"12\""),
        ("12", "\"12\""),
        ("13", "\"13\""),
        ("15", "\"hex\""),
        ("16", "\"oct\""),
        ("17", "\"17\""),
        ("9num", "\"9num\""),
    ] {
        assert_eq!(printed(label).as_deref(), Some(expected), "{label}");
    }
    for label in ["seven", "over", "a_b", "Zero", "128"] {
        assert_eq!(printed(label), None, "{label}");
    }
    assert_eq!((names.label("five"), names.label("12")), (Some(5), Some(11)));
}

#[test]
fn timeout_policies_are_known_by_name() {
    let names = TableNames::well_known().with_timeout_policies([("brief", 17)]);
    let loads = |rule: &str| {
        let text = format!("*raw\n-A OUTPUT {rule} -j CT --timeout brief\nCOMMIT\n");
        parse(&text, "test", Family::V4, &names).map(|parsed| print(&parsed.ruleset, &names, None))
    };
    assert!(loads("-p udp").unwrap().contains("-A OUTPUT -p udp -j CT --timeout brief\n"));
    for rule in ["", "-p tcp", "! -p udp"] {
        assert_eq!(loads(rule).unwrap_err()[0].code, Code::NeedsProtocol, "{rule}");
    }
}

#[test]
fn services_depend_on_the_protocol_in_tcp_but_not_in_udp() {
    // The tcp match asks for tcp services, udp and conntrack for any.
    assert_eq!(outcome("filter", "-A U -p tcp --dport ntp", Family::V4), "-");
    let ok = outcome("filter", "-A U -p udp --dport smtp", Family::V4);
    assert_eq!(ok, "ok -A U -p udp -m udp --dport 25");
}
