//! What the survey says, against the interpreter and random packets.

use std::collections::HashSet;

use dataplane::clock::Nanos;
use dataplane::conntrack::CtState;
use dataplane::packet::{Family, L4Class, Mac};
use dataplane::policy::{Hook, TableId};
use dataplane::wire::{self, Frame};
use proptest::prelude::*;

use super::*;
use crate::compile::{self, Compiled, DynamicState, Input, Limits};
use crate::interpret::generate::{self, PORTS};
use crate::interpret::{Interpreter, Outcome, Packet, Subject, Tracked};
use crate::iptables::{self, TableNames};
use crate::model::Ruleset;

const STATES: [CtState; 5] =
    [CtState::Invalid, CtState::New, CtState::Established, CtState::Related, CtState::Untracked];

fn compiled(rules: &Ruleset) -> Option<Compiled> {
    let ports: Vec<String> = PORTS.iter().map(|&name| name.to_owned()).collect();
    let (none_v4, none_v6) = (Ruleset::empty(Family::V4), Ruleset::empty(Family::V6));
    let (v4, v6) = match rules.family {
        Family::V4 => (rules, &none_v6),
        Family::V6 => (&none_v4, rules),
    };
    let input = Input { v4, v6, ports: &ports, limits: Limits::default() };
    compile::compile(input, &DynamicState::default()).ok()
}

fn surveyed(rules: &Ruleset, compiled: &Compiled) -> Survey {
    let (family, bounds) = (rules.family, Bounds::default());
    match family {
        Family::V4 => {
            survey(family, &compiled.policy.v4, PORTS.len(), bounds, &|_| Vec::new(), &mut |_| {})
        }
        Family::V6 => {
            survey(family, &compiled.policy.v6, PORTS.len(), bounds, &|_| Vec::new(), &mut |_| {})
        }
    }
}

/// Chain names by id.
fn names(rules: &Ruleset, compiled: &Compiled) -> Vec<String> {
    match rules.family {
        Family::V4 => compiled.policy.v4.chains.iter().map(|it| it.name.to_string()).collect(),
        Family::V6 => compiled.policy.v6.chains.iter().map(|it| it.name.to_string()).collect(),
    }
}

/// A packet at FORWARD.
#[derive(Clone, Debug)]
struct Probe {
    frame: Vec<u8>,
    ports: [usize; 2],
    state: CtState,
}

fn probes(family: Family) -> impl Strategy<Value = Vec<Probe>> {
    let one = (generate::frame(family), 0..PORTS.len(), 0..PORTS.len(), 0..STATES.len());
    let one = one.prop_map(|(frame, input, output, state)| Probe {
        frame,
        ports: [input, output],
        state: STATES[state],
    });
    prop::collection::vec(one, 60..80)
}

/// Rules matched, by chain name and index, and the verdict; `None` for packets that
/// are beyond what regions tell.
fn walked(rules: &Ruleset, probe: &Probe) -> Option<(HashSet<(String, u32)>, String)> {
    let Ok(Frame::Ip(parsed)) = wire::parse(&probe.frame, Mac::default()) else { return None };
    if parsed.l4_class == L4Class::Odd {
        return None;
    }
    let mut subject = Subject {
        packet: Packet::read(&probe.frame)?,
        input: PORTS[probe.ports[0]],
        output: PORTS[probe.ports[1]],
        has_link_header: true,
        path_mtu: 1500,
        realms: Default::default(),
        mark: 0,
        tracked: Tracked { state: probe.state, original: true, connection: None },
        template: None,
        now: Nanos::from_secs(100),
        utc_offset: Nanos(0),
        minutes_west: 0,
        dice: Default::default(),
        hook: Hook::Forward,
        cpu: 0,
        owner: None,
        priority: 0,
        network: None,
        conntrack: None,
    };
    let mut met = HashSet::new();
    let table: TableId = rules.tables[0].id;
    let verdict = Interpreter::new(rules).table(table, Hook::Forward, &mut subject, &mut |visit| {
        if let (Outcome::Matched, Some(rule)) = (visit.outcome, visit.rule) {
            met.insert((visit.chain.name.clone(), rule as u32));
        }
    });
    // Who drops it is not the question.
    let verdict = format!("{verdict:?}").replace("Drop(Policy)", "Drop(Rule)");
    Some((met, format!("{verdict} {:x}", subject.mark)))
}

fn without(rules: &Ruleset, chain: &str, rule: u32) -> Ruleset {
    let mut rules = rules.clone();
    let found = rules.tables[0].chains.iter_mut().find(|it| it.name == chain);
    found.expect("the chain is there").rules.remove(rule as usize);
    rules
}

fn check(rules: &Ruleset, probes: &[Probe]) -> Result<(), TestCaseError> {
    let Some(compiled) = compiled(rules) else { return Ok(()) };
    let (found, names) = (surveyed(rules, &compiled), names(rules, &compiled));
    let walks: Vec<_> = probes.iter().map(|probe| (probe, walked(rules, probe))).collect();
    for (chain, Doubt { rule, why }) in &found.doubts {
        let name = &names[chain.0 as usize];
        let lesser = matches!(why, Why::Redundant { .. } | Why::Idle { .. })
            .then(|| without(rules, name, *rule));
        for (probe, walk) in &walks {
            let Some((met, verdict)) = walk else { continue };
            match &lesser {
                None => prop_assert!(
                    !met.contains(&(name.clone(), *rule)),
                    "{name}/{rule} is {why:?}, but is met by {probe:?}"
                ),
                Some(lesser) => {
                    let other = walked(lesser, probe).expect("the same packet").1;
                    // A match that finds its header malformed drops it, wherever it stands.
                    let malformed = |verdict: &str| verdict.contains("Hotdrop");
                    prop_assert!(
                        other == *verdict || malformed(&other) || malformed(verdict),
                        "{name}/{rule} is {why:?}, but {probe:?} goes elsewhere without it"
                    );
                }
            }
        }
    }
    for chain in &found.unused {
        let name = &names[chain.0 as usize];
        let met = |walk: &Option<(HashSet<(String, u32)>, String)>| {
            walk.as_ref().is_some_and(|(met, _)| met.iter().any(|(chain, _)| chain == name))
        };
        prop_assert!(!walks.iter().any(|(_, walk)| met(walk)), "{name} is in use");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_in_doubt_does_nothing_v4(
        rules in generate::ruleset(Family::V4), probes in probes(Family::V4),
    ) {
        check(&rules, &probes)?;
    }

    #[test]
    fn what_is_in_doubt_does_nothing_v6(
        rules in generate::ruleset(Family::V6), probes in probes(Family::V6),
    ) {
        check(&rules, &probes)?;
    }
}

fn found(rules: &str) -> Vec<(String, u32, Why)> {
    let text = format!("*filter\n:FORWARD DROP [0:0]\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n");
    let parsed = iptables::parse(&text, "test", Family::V4, &TableNames::well_known());
    let rules = parsed.expect("the rules load").ruleset;
    let compiled = compiled(&rules).expect("the rules compile");
    let survey = surveyed(&rules, &compiled);
    let names = names(&rules, &compiled);
    assert_eq!(survey.undecided, 0);
    let doubts = survey.doubts.into_iter();
    doubts.map(|(id, doubt)| (names[id.0 as usize].clone(), doubt.rule, doubt.why)).collect()
}

fn shadowed(chain: &str, rule: u32, by: &[u32], same: bool) -> (String, u32, Why) {
    (chain.to_owned(), rule, Why::Shadowed { by: by.to_vec(), same })
}

#[test]
fn one_rule_and_several_together_shadow_others() {
    let two_halves =
        "-A FORWARD -s 198.18.0.0/25 -j ACCEPT\n-A FORWARD -s 198.18.0.128/25 -j DROP\n";
    assert_eq!(
        found(&format!("{two_halves}-A FORWARD -s 198.18.0.0/24 -p tcp --dport 22 -j ACCEPT\n")),
        [shadowed("FORWARD", 2, &[0, 1], false)]
    );
    assert_eq!(found(&format!("{two_halves}-A FORWARD -s 198.18.0.0/23 -j REJECT\n")), []);
    assert_eq!(
        found(
            "-A FORWARD -p tcp -m multiport --dports 22,80 -j DROP\n-A FORWARD -p tcp --dport 80 -j DROP\n"
        )[1],
        shadowed("FORWARD", 1, &[0], true)
    );
}

#[test]
fn a_limit_shadows_nothing_and_the_same_question_has_one_answer() {
    let limited = "-A FORWARD -m limit --limit 1/s -j ACCEPT\n-A FORWARD -p tcp -j ACCEPT\n";
    assert_eq!(found(limited), []);
    let marked =
        "-A FORWARD -m mark --mark 1 -j ACCEPT\n-A FORWARD -p tcp -m mark --mark 1 -j REJECT\n";
    assert_eq!(found(marked), [shadowed("FORWARD", 1, &[0], false)]);
}

#[test]
fn chains_end_what_they_end_and_are_entered_by_what_enters_them() {
    let chains =
        ":logdrop - [0:0]\n:tcp - [0:0]\n:nobody - [0:0]\n-A logdrop -j LOG\n-A logdrop -j DROP\n";
    let rules = "-A FORWARD -s 198.18.0.0/24 -j logdrop\n-A FORWARD -s 198.18.0.1/32 -j ACCEPT\n\
                 -A FORWARD -p tcp -j tcp\n-A tcp -p udp -j ACCEPT\n-A tcp -p tcp --dport 1 -j ACCEPT\n";
    assert_eq!(
        found(&format!("{chains}{rules}")),
        [shadowed("FORWARD", 1, &[0], false), ("tcp".to_owned(), 0, Why::NeverEnters),]
    );
}

#[test]
fn redundant_is_what_the_next_or_the_policy_does_too() {
    assert_eq!(
        found(
            "-A FORWARD -s 198.18.0.1/32 -j ACCEPT\n-A FORWARD -p udp -j LOG\n-A FORWARD -s 198.18.0.0/24 -j ACCEPT\n"
        ),
        [],
        "LOG would hear of it"
    );
    let wider = "-A FORWARD -s 198.18.0.1/32 -j ACCEPT\n-A FORWARD -d 10.0.0.0/8 -s 10.0.0.1/32 -j LOG\n-A FORWARD -s 198.18.0.0/24 -j ACCEPT\n";
    let redundant = |rule, with| ("FORWARD".to_owned(), rule, Why::Redundant { with });
    assert_eq!(found(wider), [redundant(0, Some(2))]);
    assert_eq!(found("-A FORWARD -s 198.18.0.1/32 -j DROP\n"), [redundant(0, None)]);
}

#[test]
fn impossible_rules_are_told() {
    let input = "-A INPUT -p tcp -m conntrack --ctstate NEW -m state --state ESTABLISHED -j DROP\n";
    assert_eq!(found(input), [("INPUT".to_owned(), 0, Why::Impossible)]);
}

/// Rules in another order, and what that saves.
fn moved(rules: &Ruleset, hits: &[u64]) -> Vec<Ruleset> {
    let Some(compiled) = compiled(rules) else { return Vec::new() };
    let bounds = Bounds::default();
    let of = |id: dataplane::policy::ChainId| {
        let chain = rules.tables[0].chains.get(id.0 as usize);
        chain.map_or(Vec::new(), |chain| {
            (0..chain.rules.len()).map(|at| hits[at % hits.len()]).collect()
        })
    };
    let survey = match rules.family {
        Family::V4 => {
            survey(rules.family, &compiled.policy.v4, PORTS.len(), bounds, &of, &mut |_| {})
        }
        Family::V6 => {
            survey(rules.family, &compiled.policy.v6, PORTS.len(), bounds, &of, &mut |_| {})
        }
    };
    let made = survey.moves.iter().map(|(chain, Move { rule, before, .. })| {
        let mut rules = rules.clone();
        let list = &mut rules.tables[0].chains[chain.0 as usize].rules;
        let one = list.remove(*rule as usize);
        list.insert(*before as usize, one);
        rules
    });
    made.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_move_of_a_hot_rule_changes_nothing(
        rules in generate::ruleset(Family::V4),
        hits in prop::collection::vec(0_u64..1000, 1..12),
        probes in probes(Family::V4),
    ) {
        for other in moved(&rules, &hits) {
            for probe in &probes {
                let (one, two) = (walked(&rules, probe), walked(&other, probe));
                // A match that finds its header malformed drops it, wherever it stands.
                let malformed = |it: &Option<(_, String)>| {
                    it.as_ref().is_some_and(|it| it.1.contains("Hotdrop"))
                };
                if malformed(&one) || malformed(&two) {
                    continue;
                }
                prop_assert_eq!(one.map(|it| it.1), two.map(|it| it.1), "{:?}", probe);
            }
        }
    }
}
