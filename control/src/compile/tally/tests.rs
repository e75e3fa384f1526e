//! What has a name outlives policies, and goes to the state file and back.

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::policy::tally::{RecentMatch, RecentTable, TallyMatch};

use super::Tallies;
use crate::compile::pieces::{Left, Piece};
use crate::iptables::{TableNames, parse};
use crate::model::{MatchBody, Ruleset, TallySpec};

fn rules(lines: &[&str]) -> Ruleset {
    let text = format!("*filter\n:INPUT ACCEPT [0:0]\n{}\nCOMMIT\n", lines.join("\n"));
    parse(&text, "test", Family::V4, &TableNames::well_known()).expect("it loads").ruleset
}

fn specs(rules: &Ruleset) -> Vec<TallySpec> {
    let bodies = rules.tables[0].chains[0].rules.iter().flat_map(|rule| &rule.matches);
    let tally = bodies.filter_map(|spec| match &spec.body {
        MatchBody::Tally(spec) => Some(spec.clone()),
        _ => None,
    });
    tally.collect()
}

fn made(lines: &[&str], previous: &Tallies) -> (Tallies, Vec<Match>) {
    let rules = rules(lines);
    let mut tallies = Tallies::default();
    tallies.survey(&rules);
    let made = specs(&rules)
        .into_iter()
        .map(|spec| tallies.resolve(&spec, Family::V4, previous, None).unwrap());
    let made = made.collect();
    (tallies, made)
}

fn table(made: &Match) -> &RecentTable {
    match made {
        Match::Tally(TallyMatch::Recent(RecentMatch { table, .. })) => table,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_list_outlives_its_policy_unless_it_must_keep_more() {
    let now = Nanos::from_secs(5);
    let set = "-A INPUT -m recent --set --name a";
    let (first, matches) =
        made(&[set, "-A INPUT -m recent --rcheck --name a"], &Tallies::default());
    table(&matches[0]).add(Family::V4, 7, now);
    assert_eq!(table(&matches[1]).len(), 1, "one list");
    let few = "-A INPUT -m recent --rcheck --hitcount 3 --name a";
    let (second, matches) = made(&[few, "-A INPUT -m recent --set --name b"], &first);
    assert_eq!((table(&matches[0]).len(), table(&matches[0]).times()), (1, 32));
    assert!(table(&matches[1]).is_empty());
    let many = "-A INPUT -m recent --rcheck --hitcount 33 --name a";
    let (third, matches) = made(&[set, many], &second);
    assert_eq!((table(&matches[0]).len(), table(&matches[1]).times()), (0, 64), "begun anew");
    table(&matches[0]).add(Family::V4, 7, now);
    let (_, matches) = made(&[set], &third);
    assert_eq!((table(&matches[0]).len(), table(&matches[0]).times()), (1, 64));
}

#[test]
fn a_list_comes_back_older() {
    let lines = ["-A INPUT -m recent --rcheck --hitcount 4 --name a"];
    let (before, matches) = made(&lines, &Tallies::default());
    for second in 1..7 {
        table(&matches[0]).add(Family::V4, 7, Nanos::from_secs(second));
        table(&matches[0]).add(Family::V6, 1 << 100, Nanos::from_secs(second));
    }
    let pieces = before.export(Nanos::from_secs(7));
    assert_eq!(pieces.len(), 1);
    let (after, matches) = made(&lines, &Tallies::default());
    let (elapsed, now) = (Nanos::from_secs(10), Nanos::from_secs(100));
    after.import(&pieces[0], elapsed, now).unwrap();
    let list = table(&matches[0]).list();
    let seconds: Vec<Vec<u64>> = list
        .iter()
        .map(|seen| {
            let mut times: Vec<u64> = seen.times.iter().map(|time| time / 250).collect();
            times.sort_unstable();
            times
        })
        .collect();
    assert_eq!(seconds, [[86, 87, 88, 89], [86, 87, 88, 89]]);
    assert_eq!(list.iter().map(|seen| seen.last() / 250).collect::<Vec<_>>(), [89, 89]);
    assert_eq!((list[0].address, list[1].family), (7, Family::V6));
    let whole = table(&matches[0]).list();
    for cut in 1..pieces[0].bytes.len() {
        let mut piece = pieces[0].clone();
        piece.bytes.truncate(cut);
        match after.import(&piece, elapsed, now) {
            // Between two entries.
            Ok(()) => after.import(&pieces[0], elapsed, now).unwrap(),
            Err(why) => assert_eq!(why, Left::Malformed),
        }
        assert_eq!(table(&matches[0]).list(), whole, "cut at {cut}: all or nothing");
    }
    let newer = Piece { version: 9, ..pieces[0].clone() };
    assert_eq!(after.import(&newer, elapsed, now), Err(Left::Version(9)));
    let other = Piece { name: "b".to_owned(), ..pieces[0].clone() };
    assert_eq!(after.import(&other, elapsed, now), Err(Left::Unclaimed));
}
