//! The protocol matches against netfilter: generated rules of each over packets
//! that nearly or just hit them, many of them cut short.
//!
//! `PORTCULLIS_PROTOCOL_CASES` makes a longer run, `PORTCULLIS_PROTOCOL_SEED` another one.

#[allow(dead_code, reason = "the differential test uses the rest")]
mod diff;
mod lab;

use diff::extra::protocol;
use diff::rng::Rng;
use diff::rules::{Place, RuleText, RulesetText};
use diff::{Case, compare, kernel, replay, shrink};
use lab::Lab;

/// Packets a case.
const PACKETS: usize = 200;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Rules of the group alone, counting what they match.
fn ruleset(rng: &mut Rng, v6: bool) -> RulesetText {
    let mut ruleset = RulesetText::empty(v6);
    for (table, chain, count) in [
        ("raw", "PREROUTING", 6),
        ("mangle", "PREROUTING", 6),
        ("mangle", "POSTROUTING", 4),
        ("filter", "FORWARD", 8),
        ("filter", "INPUT", 8),
    ] {
        let place = Place { v6, table, chain, conntrack: false, below: &[] };
        let table = ruleset.tables.iter_mut().find(|one| one.name == table).expect("a table");
        let chain = table.chains.iter_mut().find(|one| one.name == chain).expect("a chain");
        for _ in 0..1 + rng.below(count) {
            let part = match v6 && rng.chance(60) {
                true => protocol::extension(rng, &place),
                false => protocol::with_protocol(rng, v6),
            };
            let target = rng.weighted(&[(85, ""), (8, "-j DROP"), (7, "-j ACCEPT")]);
            chain.rules.push(RuleText { parts: vec![part], target: target.to_owned() });
        }
    }
    ruleset
}

fn case(seed: u64) -> Case {
    let mut rng = Rng(seed);
    let v6 = rng.chance(65);
    let rules = ruleset(&mut rng, v6);
    let packets = (0..PACKETS).map(|_| protocol::packet(&mut rng, v6, true)).collect();
    Case { rules, packets, conntrack: false, default_routes: false }
}

fn differences(lab: &Lab, case: &Case) -> Result<(u64, Vec<String>), String> {
    let (theirs, times) = kernel::run(lab, case)?;
    let hits = theirs.counters.iter().filter(|(key, _)| key.2.is_some());
    let hits = hits.map(|(_, (packets, _))| packets).sum();
    let found = match replay::run(case, &times) {
        Ok(ours) => compare::differences(case, &theirs, &ours),
        Err(complaint) => vec![complaint],
    };
    Ok((hits, found))
}

#[test]
fn rules_of_each_match_over_packets_that_nearly_hit_them() {
    let cases = setting("PORTCULLIS_PROTOCOL_CASES", 14);
    let seed = setting("PORTCULLIS_PROTOCOL_SEED", 1);
    let mut lab = Lab::new();
    lab.join_links();
    let (mut hits, mut failures) = (0, Vec::new());
    for seed in seed..seed + cases {
        let case = case(seed);
        let (matched, found) = differences(&lab, &case)
            .unwrap_or_else(|complaint| panic!("{complaint}\n{}", case.rules.brief()));
        hits += matched;
        if found.is_empty() {
            continue;
        }
        let small = shrink::shrink(&case, |candidate| {
            differences(&lab, candidate).is_ok_and(|(_, found)| !found.is_empty())
        });
        let found = differences(&lab, &small).map(|(_, found)| found).unwrap_or_default();
        for packet in &small.packets {
            eprintln!("{}\n    {}", packet.note, compare::hex(&packet.bytes));
        }
        eprintln!("seed {seed}\n{}\n{}", small.rules.brief(), found.join("\n"));
        failures.push(seed);
        assert!(failures.len() < 8, "seeds {failures:?}");
    }
    println!("{} packets, {hits} matched, {} mismatches", cases * PACKETS as u64, failures.len());
    assert_eq!(failures, Vec::<u64>::new());
    assert!(hits > cases * PACKETS as u64 / 2, "the rules hit almost nothing: {hits}");
}
