//! Changes: exact counters, surviving limits, failures that change nothing,
//! flat memory.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::policy::matches::Match;
use dataplane::policy::{ChainPolicy, TableId};
use proptest::prelude::*;

use super::*;
use crate::model::{
    Chain, Counters, LimitSpec, MatchBody, MatchSpec, Rule, Span, Table, TargetSpec,
};

/// A rule that is told apart by its protocol number.
fn rule(proto: u8) -> Rule {
    Rule {
        counters: None,
        src: None,
        dst: None,
        input: None,
        output: None,
        proto: Some(dataplane::policy::matches::Neg::plain(proto)),
        fragment: None,
        matches: Vec::new(),
        target: TargetSpec::Accept,
        target_span: Span::default(),
        span: Span::default(),
    }
}

fn limited(proto: u8, burst: u32) -> Rule {
    let body = MatchBody::Limit(LimitSpec { avg: 10_000, burst });
    Rule { matches: vec![MatchSpec { body, span: Span::default() }], ..rule(proto) }
}

fn counted(proto: u8, packets: u64) -> Rule {
    Rule { counters: Some(Counters { packets, bytes: packets * 100 }), ..rule(proto) }
}

/// A FORWARD chain of these rules.
fn policy(family: Family, rules: Vec<Rule>) -> Ruleset {
    let chain = |name: &str, rules| Chain {
        name: name.to_owned(),
        policy: Some((ChainPolicy::Drop, Counters::default())),
        rules,
        span: Span::default(),
    };
    let chains =
        vec![chain("INPUT", Vec::new()), chain("FORWARD", rules), chain("OUTPUT", Vec::new())];
    Ruleset { family, tables: vec![Table { id: TableId::Filter, chains }] }
}

fn v4(rules: Vec<Rule>) -> Change {
    Change { v4: Some(policy(Family::V4, rules)), ..Change::default() }
}

fn store(change: Change) -> PolicyStore {
    PolicyStore::open(change, vec!["p0".to_owned(), "p1".to_owned()], 2).unwrap()
}

/// Packets per rule of the FORWARD chain, then of its policy.
fn packets(store: &PolicyStore, family: Family) -> Vec<u64> {
    store.read(|view| {
        let entry = view.counters().chain(family, TableId::Filter, "FORWARD").unwrap();
        let rules = (0..entry.rules as usize).filter_map(|index| entry.rule(index));
        rules.chain(entry.policy).map(|id| view.count(id).0).collect()
    })
}

/// A worker's hit on rule `index` of the FORWARD chain.
fn hit(store: &PolicyStore, snapshot: &Snapshot, worker: usize, family: Family, index: usize) {
    let id = store.read(|view| {
        let entry = view.counters().chain(family, TableId::Filter, "FORWARD").unwrap();
        entry.rule(index).or(entry.policy).unwrap()
    });
    snapshot.counters(worker).bump(id, 100);
}

#[test]
fn unchanged_rules_keep_their_counts_wherever_they_move() {
    let store = store(v4(vec![rule(6), rule(17), rule(17), rule(1)]));
    let mut worker = store.subscribe();
    let first = Arc::clone(worker.refresh());
    for (rule, hits) in [3, 5, 7, 11, 13].into_iter().enumerate() {
        for _ in 0..hits {
            hit(&store, &first, rule % 2, Family::V4, rule);
        }
    }
    assert_eq!(packets(&store, Family::V4), [3, 5, 7, 11, 13]);
    drop((first, worker));

    // A new rule first, the first of two twins gone, the others moved.
    let installed = store.install(v4(vec![rule(47), rule(1), rule(17), rule(6)])).unwrap();
    assert_eq!((installed.generation, installed.rules_v4, installed.adopted), (2, 4, true));
    assert_eq!(packets(&store, Family::V4), [0, 11, 5, 3, 13]);

    // The other family's change leaves this one's counters alone.
    let v6 = Change { v6: Some(policy(Family::V6, vec![rule(58)])), ..Change::default() };
    store.install(v6).unwrap();
    assert_eq!(packets(&store, Family::V4), [0, 11, 5, 3, 13]);
    assert_eq!(packets(&store, Family::V6), [0, 0]);
}

#[test]
fn hits_in_the_old_snapshot_count_until_the_last_worker_leaves_it() {
    let store = store(v4(vec![rule(6)]));
    let mut late = store.subscribe();
    let old = Arc::clone(late.refresh());
    hit(&store, &old, 1, Family::V4, 0);

    let installed = store.install_within(v4(vec![rule(17), rule(6)]), Nanos(0)).unwrap();
    assert!(!installed.adopted);
    assert_eq!(store.retired(), 1);
    // Between publication and adoption: both snapshots count, nothing is lost.
    let old_id = old.policy.v4.chains[1].rules[0].counter;
    old.counters(1).bump(old_id, 100);
    assert_eq!(packets(&store, Family::V4), [0, 2, 0]);
    let refused = store.install_within(v4(vec![rule(6)]), Nanos(0)).unwrap_err();
    assert!(matches!(refused, ApplyError::Draining { generation: 2 }), "{refused}");

    old.counters(1).bump(old_id, 100);
    drop(old);
    let new = Arc::clone(late.refresh());
    hit(&store, &new, 0, Family::V4, 1);
    assert!(store.settle());
    assert_eq!(packets(&store, Family::V4), [0, 4, 0]);
    drop((new, late));
    assert_eq!(store.install(v4(vec![rule(6)])).unwrap().generation, 3);
    assert_eq!(packets(&store, Family::V4), [4, 0]);
}

#[test]
fn written_counters_are_taken_only_when_asked_for() {
    let store = store(v4(vec![counted(6, 40)]));
    assert_eq!(packets(&store, Family::V4), [0, 0]);
    let written = Change { written_counters: true, ..v4(vec![counted(6, 40), rule(17)]) };
    store.install(written).unwrap();
    assert_eq!(packets(&store, Family::V4), [40, 0, 0]);
    store.install(v4(vec![counted(6, 999)])).unwrap();
    assert_eq!(packets(&store, Family::V4), [40, 0]);
    let saved = store.read(|view| view.counted(Family::V4));
    let counters = saved.tables[0].chains[1].rules[0].counters;
    assert_eq!(counters, Some(Counters { packets: 40, bytes: 4000 }));
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let store = store(v4(vec![rule(6)]));
    let before = store.read(|view| Arc::as_ptr(view.snapshot()));
    let looping = Rule { target: TargetSpec::Jump("NOWHERE".to_owned()), ..rule(1) };
    let error = store.install(v4(vec![rule(17), looping])).unwrap_err();
    assert!(matches!(error, ApplyError::Check(_)), "{error}");
    assert_eq!(store.generation(), 1);
    assert_eq!(store.read(|view| Arc::as_ptr(view.snapshot())), before);
    assert_eq!(store.read(|view| view.rules(Family::V4).rule_count()), 1);
}

#[test]
fn a_spent_limit_stays_spent() {
    let cell = |store: &PolicyStore, index: usize| {
        store.read(|view| {
            let rule = &view.snapshot().policy.v4.chains[1].rules[index];
            match &rule.matches[0] {
                Match::Limit(cell) => Arc::as_ptr(cell),
                other => panic!("{other:?}"),
            }
        })
    };
    let store = store(v4(vec![limited(6, 5)]));
    let spent = cell(&store, 0);
    store.install(v4(vec![rule(1), limited(6, 5), limited(6, 6)])).unwrap();
    assert_eq!(cell(&store, 1), spent);
    assert_ne!(cell(&store, 2), spent);
}

#[test]
fn one_change_at_a_time() {
    let store = store(v4(vec![rule(6)]));
    let turn = store.change.lock().unwrap();
    assert!(matches!(store.install(v4(Vec::new())), Err(ApplyError::Busy)));
    drop(turn);
    assert!(store.install(v4(Vec::new())).is_ok());
}

#[test]
fn a_thousand_swaps_under_workers_lose_no_count_and_keep_no_snapshot() {
    let store = store(v4(vec![rule(6), rule(17)]));
    let stop = AtomicBool::new(false);
    let mut seen: Vec<Weak<Snapshot>> = Vec::new();
    let mut total = 0;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    let mut view = store.subscribe();
                    let mut hits = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        let snapshot = view.refresh();
                        // The rule for protocol 6 is in every policy, at either end.
                        let rules = &snapshot.policy.v4.chains[1].rules;
                        let six = |rule: &&dataplane::policy::CompiledRule<u32>| {
                            rule.base.proto == Some((6, false))
                        };
                        let id = rules.iter().find(six).unwrap().counter;
                        snapshot.counters(worker).bump(id, 1);
                        hits += 1;
                    }
                    hits
                })
            })
            .collect();
        for round in 0..1000 {
            let rules = match round % 2 {
                0 => vec![rule(17), rule(6)],
                _ => vec![rule(6), rule(17), rule(1)],
            };
            let installed = store.install(v4(rules)).unwrap();
            assert!(installed.adopted);
            seen.push(store.read(|view| Arc::downgrade(view.snapshot())));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            total += worker.join().unwrap();
        }
    });
    assert!(store.settle());
    assert_eq!(store.generation(), 1001);
    assert_eq!(packets(&store, Family::V4), [total, 0, 0, 0]);
    let alive = seen.iter().filter(|snapshot| snapshot.strong_count() > 0).count();
    assert_eq!(alive, 1, "only the running snapshot is alive");
}

proptest! {
    #[test]
    fn every_counter_continues_at_most_once_and_only_its_own_kind(
        old in prop::collection::vec(0u8..6, 0..12),
        new in prop::collection::vec(0u8..6, 0..12),
    ) {
        let store = store(v4(old.iter().map(|proto| rule(*proto)).collect()));
        let mut worker = store.subscribe();
        let snapshot = Arc::clone(worker.refresh());
        for index in 0..old.len() {
            for _ in 0..=index {
                hit(&store, &snapshot, 0, Family::V4, index);
            }
        }
        drop((snapshot, worker));
        store.install(v4(new.iter().map(|proto| rule(*proto)).collect())).unwrap();
        let mut left: Vec<(u8, u64)> = old.iter().copied().zip(1..).collect();
        let now = packets(&store, Family::V4);
        for (proto, packets) in new.iter().zip(&now) {
            match left.iter().position(|(kind, _)| kind == proto) {
                Some(at) => prop_assert_eq!(left.remove(at).1, *packets),
                None => prop_assert_eq!(0, *packets),
            }
        }
    }
}

#[test]
fn a_rule_expires_at_its_time_and_keeps_its_counts() {
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::model::{MatchBody, MatchSpec, Span};
    static NOW_S: AtomicU64 = AtomicU64::new(500);
    let mut expiring = rule(6);
    let body = MatchBody::Comment("owner=net expires=1970-01-01T00:10Z".to_owned());
    expiring.matches.push(MatchSpec { body, span: Span::default() });
    let mut store = store(Change::default());
    store.clock = || NOW_S.load(Ordering::Relaxed);
    store.install(v4(vec![expiring, rule(17)])).unwrap();
    assert_eq!(store.next_expiry(), Some(600));
    let never = |store: &PolicyStore| {
        store.read(|view| view.snapshot().policy.v4.chains[1].rules[0].base.iif.0 == 0)
    };
    assert!(!never(&store));
    let snapshot = store.read(|view| Arc::clone(view.snapshot()));
    hit(&store, &snapshot, 0, Family::V4, 0);
    drop(snapshot);
    let before = packets(&store, Family::V4);
    NOW_S.store(600, Ordering::Relaxed);
    store.install(Change::default()).unwrap();
    assert!(never(&store) && store.next_expiry().is_none());
    assert_eq!(packets(&store, Family::V4), before);
    // It is the rule that was written, still.
    let shown = store.read(|view| view.rules(Family::V4).rule_count());
    assert_eq!(shown, 2);
}
