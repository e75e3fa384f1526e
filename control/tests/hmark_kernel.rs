//! `HMARK` against netfilter: the mark of each packet by each form of the target, as LOG
//! prints it, at every hook, of both families: whole packets and cut ones, fragments,
//! errors about others, translated connections. Needs root.
//!
//! `PORTCULLIS_DIFF_RULESETS` and `PORTCULLIS_DIFF_SEED` make the run longer, or another.

#[allow(dead_code, reason = "shared with the differential test, which uses all of it")]
mod diff;
mod lab;

use diff::extra::{protocol, targets};
use diff::rng::Rng;
use diff::rules::{self, Place, RuleText, RulesetText};
use diff::{Case, compare, kernel, packets, replay};
use lab::Lab;

/// Forms of the target in each chain.
const FORMS: usize = 2;
/// Packets of one ruleset of each sort: all lines fit in the log.
const PACKETS: usize = 30;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn rule(target: String) -> RuleText {
    RuleText { parts: Vec::new(), target }
}

/// In every chain of raw and mangle some forms, each with a line for what it gave; with
/// tracking also templates in raw, and connections translated both ways.
fn marking(rng: &mut Rng, v6: bool, conntrack: bool) -> RulesetText {
    let mut ruleset = RulesetText::empty(v6);
    for table in &mut ruleset.tables {
        for chain in &mut table.chains {
            let place = Place { v6, table: table.name, chain: &chain.name, conntrack, below: &[] };
            if matches!(table.name, "raw" | "mangle") {
                if table.name == "raw" && conntrack {
                    let first = rng.pick(&["-j CT", "-j CT --zone 0", "-j NOTRACK", ""]);
                    let some = "-m statistic --mode nth --every 3 --packet 1".to_owned();
                    let parts = if first.ends_with("TRACK") { vec![some] } else { Vec::new() };
                    chain.rules.push(RuleText { parts, target: first.to_owned() });
                }
                for number in 0..FORMS {
                    let tag = rules::log_tag();
                    let line = format!("-j LOG --log-prefix {tag}{}{number}:", &chain.name[..2]);
                    chain.rules.extend([rule(targets::hmark(rng, &place)), rule(line)]);
                }
            }
            let (host, other) = (lab::address(v6, 0, 11), lab::address(v6, 2, 77));
            let to = match chain.name.as_str() {
                "PREROUTING" => format!("-p udp -j DNAT --to-destination {host}"),
                "POSTROUTING" => format!("-p tcp -j SNAT --to-source {other}"),
                _ => continue,
            };
            if table.name == "nat" && conntrack && rng.chance(60) {
                chain.rules.push(rule(to));
            }
        }
    }
    ruleset
}

#[test]
fn marks_are_those_of_the_kernel() {
    let mut lab = Lab::new();
    lab.join_links();
    let first = setting("PORTCULLIS_DIFF_SEED", 1);
    let mut marked = 0;
    for seed in first..first + setting("PORTCULLIS_DIFF_RULESETS", 8) {
        let mut rng = Rng(seed);
        let (v6, conntrack) = (seed % 2 == 0, seed % 4 < 2);
        let rules = marking(&mut rng, v6, conntrack);
        let about = packets::Rules { conntrack, rejects: false };
        let mut packets = packets::generate(&mut rng, v6, PACKETS, about);
        packets.extend((0..PACKETS).map(|_| protocol::packet(&mut rng, v6, !conntrack)));
        let case = Case { rules, packets, conntrack, default_routes: false };
        let (theirs, times) = kernel::run(&lab, &case).expect("the kernel takes the rules");
        let ours = replay::run(&case, &times).expect("so do we");
        let found = compare::differences(&case, &theirs, &ours);
        let first: Vec<_> = found.iter().take(8).collect();
        let text = case.rules.brief();
        assert!(found.is_empty(), "seed {seed}: {} differences: {first:#?}\n{text}", found.len());
        marked += theirs.logged.iter().filter(|line| line.contains("MARK=")).count();
    }
    assert!(marked > 1_000, "{marked} marks were compared in all");
}
