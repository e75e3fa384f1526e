//! Differences of rulesets that people wrote, against packets at the edges of their rules.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dataplane::policy::{Hook, TableId};
use dataplane::sets::Registry;

use super::*;
use crate::check::Sets;
use crate::iptables;
use crate::region::Point;

/// Longer files are left to those who have more time.
const LONGEST: usize = 600;
/// Packets for each rule.
const PICKS: u64 = 3;

/// The rulesets of the shared corpus that load, and compile by themselves.
fn rulesets() -> Vec<(String, Ruleset)> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let mut found = Vec::new();
    let mut todo = vec![corpus];
    while let Some(path) = todo.pop() {
        if let Ok(entries) = std::fs::read_dir(&path) {
            todo.extend(entries.flatten().map(|entry| entry.path()));
            continue;
        }
        if path.extension().is_none_or(|it| it != "rules") {
            continue;
        }
        let Ok(bytes) = iptables::read_file(&path) else { continue };
        let name = path.to_string_lossy().into_owned();
        let names = TableNames::well_known();
        let Ok(parsed) = iptables::parse_bytes(&bytes, &name, Family::V4, &names) else { continue };
        let count = parsed.ruleset.rule_count();
        if (2..LONGEST).contains(&count) {
            found.push((name, parsed.ruleset));
        }
    }
    found.sort_by(|one, two| one.0.cmp(&two.0));
    found
}

/// The rule in the middle of the longest chain is gone, and two others have changed places.
fn edited(rules: &Ruleset) -> Ruleset {
    let mut rules = rules.clone();
    let chains = rules.tables.iter_mut().flat_map(|table| &mut table.chains);
    if let Some(chain) = chains.max_by_key(|chain| chain.rules.len()) {
        let list = &mut chain.rules;
        list.remove(list.len() / 2);
        if list.len() > 3 {
            let third = list.len() / 3;
            list.swap(third, third + 1);
        }
    }
    rules
}

/// Packets at the edges of the rules of a policy, as a table meets them.
fn points(
    policy: Policy<'_>,
    ports: &[String],
    space: &Space,
    place: (TableId, Hook),
) -> Vec<Point> {
    let Ok(compiled) = compiled(policy, ports) else { return Vec::new() };
    let texts = texts(policy.rules);
    let mut atoms = Atoms::default();
    let side = Side::read(&compiled.policy.v4, policy.rules, &texts, space, &mut atoms, &|_| None);
    let given = at_table(place.0, place.1, space);
    let chains = written(policy.rules).zip(&side.chains);
    let rules = chains.filter(|((table, _), _)| *table == place.0).flat_map(|(_, rules)| rules);
    let real = real(space);
    let mut found = Vec::new();
    for region in rules.flat_map(|rule| &rule.regions) {
        let there = region.and(&given);
        let kinds = real.iter().filter_map(|it| there.as_ref()?.and(it));
        for kind in kinds {
            found.extend((0..PICKS).filter_map(|nth| kind.pick(nth)));
        }
    }
    found
}

#[test]
fn sampled_packets_meet_what_the_difference_says() {
    let (mut files, mut packets, mut changed, mut unfinished) = (0, 0, 0, 0);
    for (name, old) in rulesets() {
        let new = edited(&old);
        let sets = Sets { registry: Arc::new(Registry::default()), assume: true };
        sets.complete(&old, "");
        sets.complete(&new, "");
        let (one, two) = (
            Policy { rules: &old, sets: &sets.registry },
            Policy { rules: &new, sets: &sets.registry },
        );
        let bounds = Bounds { effort: 2_000_000, tries: 2 };
        let Ok(report) = compare(one, two, &BTreeSet::new(), bounds, &mut |_| {}) else { continue };
        files += 1;
        unfinished += usize::from(!report.complete);
        let Some(ports) = ports([&old, &new]) else { continue };
        let space = space(Family::V4, ports.len());
        for place in [(TableId::Filter, Hook::Forward), (TableId::Filter, Hook::Input)] {
            let given = at_table(place.0, place.1, &space);
            let speaker = Speaker { space: &space, ports: &ports, given: &given };
            let here = |it: &&Change| it.table == "filter" && it.hook == place.1.chain_name();
            let changes: Vec<&Change> = report.changes.iter().filter(here).collect();
            for point in points(one, &ports, &space, place).into_iter().take(400) {
                let walked = [one, two].map(|it| witness::walk(it, place, &point, &speaker));
                let [Some(before), Some(after)] = walked else { continue };
                packets += 1;
                let holds =
                    |it: &Region| Region { atoms: Vec::new(), ..it.clone() }.contains(&point);
                let told = changes.iter().any(|it| it.raw.iter().any(holds));
                if before != after {
                    changed += 1;
                    assert!(
                        told || !report.complete,
                        "{name}: {before:?} becomes {after:?} for {point:?}, which is not said"
                    );
                }
                let plain = Point { atoms: Vec::new(), ..point.clone() };
                let sure = |it: &Region| it.atoms.is_empty() && it.contains(&plain);
                for change in changes.iter().filter(|it| it.raw.iter().any(sure)) {
                    let said = [change.before.verdict, change.after.verdict];
                    let met = [&before, &after].map(|fate| Said::of(fate).verdict);
                    assert_eq!(said, met, "{name}: {point:?} against {change:#?}");
                }
            }
        }
    }
    println!("{files} files, {unfinished} not finished, {packets} packets, {changed} changed");
    // The corpus is not part of this repository.
    assert!(files == 0 || files > 100 && changed > 100, "{files} files, {changed} changed");
}
