//! Every structure gives the linear scan's answers: on small dense rule lists
//! for all positions, on 100,000 generated rules, and on ClassBench sets.

#[path = "../../bench/src/sets.rs"]
mod sets;

use std::path::Path;
use std::process::Command;

use classifier::cover::{CoverTables, Level};
use classifier::reference::Linear;
use classifier::strategy::{MAX_CULPRITS, Reason, SCAN_LIMIT, Strategy as Chosen, Why};
use classifier::tuple_space::{MAX_TABLES, TupleSpace};
use classifier::{Address, ClassSet, Classifier, Key, Masked, NONE, PortRange, Rule};
use proptest::prelude::*;
use sets::Rng;

/// Values from small pools, so that rules overlap, nest and repeat.
fn small_rule<A: Address>() -> impl Strategy<Value = Rule<A>> {
    let address = || {
        let top = A::BITS - 8;
        // Contiguous masks of several lengths, and two with holes.
        let mask = prop::sample::select(vec![
            0,
            0xff_u128 << top,
            0xf0_u128 << top,
            0xf0_u128 << top | 1,
            0x55_u128 << top,
            u128::MAX,
        ]);
        (0..6_u128, 0..3_u128, mask).prop_map(move |(high, low, mask)| {
            Masked::new(A::from_u128(high << top | low), A::from_u128(mask))
        })
    };
    let range = || {
        prop_oneof![
            2 => Just(PortRange::ANY),
            4 => (0..4_u16).prop_map(|port| PortRange { low: 80 + port, high: 80 + port }),
            2 => (78..84_u16, 0..6_u16).prop_map(|(low, len)| PortRange { low, high: low + len }),
            1 => Just(PortRange { low: 1024, high: u16::MAX }),
            1 => Just(PortRange { low: 9, high: 8 }),
        ]
    };
    let class = || {
        prop_oneof![
            6 => Just(ClassSet::ANY),
            2 => (0..3_u32).prop_map(|bit| ClassSet(1 << bit)),
            1 => Just(ClassSet(0b101)),
            1 => Just(ClassSet::NONE),
        ]
    };
    let proto = prop_oneof![
        Just(Masked::default()),
        prop::sample::select(vec![6_u8, 17]).prop_map(|proto| Masked::new(proto, 255)),
    ];
    let flags = prop_oneof![3 => Just(Masked::default()), 1 => Just(Masked::new(2_u8, 0x17))];
    ((address(), address(), range(), range()), (proto, flags), (class(), class(), class(), class()))
        .prop_map(|((src, dst, sport, dport), (proto, flags), (iif, oif, state, l4))| Rule {
            src,
            dst,
            sport,
            dport,
            proto,
            flags,
            iif,
            oif,
            state,
            l4,
        })
}

/// Cover tables under every set of instructions that this machine has, with
/// signatures and without.
fn every_level<A: Address>(rules: &[Rule<A>], seed: u64) -> Vec<CoverTables<A>> {
    let build = |level, signed| {
        let mut tables = CoverTables::build(rules, seed);
        tables.set_level(level);
        tables.set_signed(signed);
        tables
    };
    let best = Level::detect();
    vec![
        build(Level::Scalar, false),
        build(Level::Scalar, true),
        build(best, false),
        build(best, true),
    ]
}

/// Batches of every length up to more than one burst say what single questions say.
fn batches_agree<A: Address>(rules: &[Rule<A>], keys: &[Key<A>], seed: u64) {
    let oracle = Linear::new(rules.to_vec());
    let chosen = Chosen::build_seeded(rules.to_vec(), seed);
    let expected: Vec<_> =
        keys.iter().map(|key| oracle.first_at_or_after(key, 0).unwrap_or(NONE)).collect();
    let levels = every_level(rules, seed);
    for len in [0, 1, 2, 15, 31, 32, 33, 64, keys.len()] {
        let len = len.min(keys.len());
        let mut found = vec![77; len + 1];
        for tables in &levels {
            tables.first_batch(&keys[..len], &mut found);
            assert_eq!(found[..len], expected[..len], "{:?}", tables.level());
        }
        chosen.first_batch(&keys[..len], &mut found);
        assert_eq!(found[..len], expected[..len]);
        assert_eq!(found[len], 77, "wrote past the keys");
    }
}

fn agree_everywhere<A: Address>(rules: &[Rule<A>], seed: u64) -> Result<(), TestCaseError> {
    let oracle = Linear::new(rules.to_vec());
    let space = TupleSpace::build(rules, seed);
    let chosen = Chosen::build_seeded(rules.to_vec(), seed);
    let levels = every_level(rules, seed);
    let mut rng = Rng(seed);
    let mut keys = Vec::new();
    for _ in 0..48 {
        let near = *rng.pick(rules);
        let key = if rng.one_in(3) {
            sets::corner_key(&mut rng, &near)
        } else {
            sets::near_key(&mut rng, &near)
        };
        for from in (0..=rules.len() as u32 + 1).chain([u32::MAX]) {
            let expected = oracle.first_at_or_after(&key, from);
            prop_assert_eq!(space.first_at_or_after(&key, from), expected, "{:?} {}", key, from);
            prop_assert_eq!(chosen.first_at_or_after(&key, from), expected);
            for tables in &levels {
                let found = tables.first_at_or_after(&key, from);
                prop_assert_eq!(found, expected, "{:?} {:?} {}", tables.level(), key, from);
            }
        }
        keys.push(key);
    }
    batches_agree(rules, &keys, seed);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn tuple_space_equals_linear_v4(
        rules in prop::collection::vec(small_rule::<u32>(), 1..90), seed: u64,
    ) {
        agree_everywhere(&rules, seed)?;
    }

    #[test]
    fn tuple_space_equals_linear_v6(
        rules in prop::collection::vec(small_rule::<u128>(), 1..90), seed: u64,
    ) {
        agree_everywhere(&rules, seed)?;
    }
}

/// Compares on corner and near keys of rules spread over the list, resuming
/// after each match as a walk over non-terminal rules does.
fn agree_on_samples<A: Address>(rules: &[Rule<A>], keys: usize, seed: u64) -> TupleSpace<A> {
    let oracle = Linear::new(rules.to_vec());
    let space = TupleSpace::build(rules, seed);
    let levels = every_level(rules, seed);
    let check = |key: &Key<A>, from: u32, expected: Option<u32>| {
        assert_eq!(space.first_at_or_after(key, from), expected, "{key:?} from {from}");
        for tables in &levels {
            let found = tables.first_at_or_after(key, from);
            assert_eq!(found, expected, "{:?} {key:?} from {from}", tables.level());
        }
    };
    let mut rng = Rng(seed);
    let (mut hits, mut batch) = (0, Vec::new());
    for n in 0..keys {
        let rule = *rng.pick(rules);
        let key = if n % 2 == 0 {
            sets::corner_key(&mut rng, &rule)
        } else {
            sets::near_key(&mut rng, &rule)
        };
        let mut from = 0;
        for _ in 0..4 {
            let found = oracle.first_at_or_after(&key, from);
            check(&key, from, found);
            let Some(position) = found else { break };
            hits += 1;
            from = position + 1;
        }
        let from = rng.below(rules.len()) as u32;
        let found = oracle.first_at_or_after(&key, from);
        check(&key, from, found);
        batch.push(key);
    }
    batch.truncate(400);
    batches_agree(rules, &batch, seed);
    let shape = levels[0].shape();
    assert!(shape.tail <= 512 && shape.largest_slot <= 16, "not flat: {shape:?}");
    assert!(hits > keys / 3, "too few of the keys hit anything: {hits} of {keys}");
    space
}

fn assert_flat<A: Address>(space: &TupleSpace<A>) {
    let shape = space.shape();
    assert!(shape.tables <= MAX_TABLES, "{shape:?}");
    assert!(shape.remainder <= 256 && shape.largest_slot <= 160, "not flat: {shape:?}");
}

#[test]
fn hundred_thousand_rules_v4() {
    let rules = sets::generate(100_000, 4);
    assert_flat(&agree_on_samples(&rules, 3_000, 11));
}

#[test]
fn hundred_thousand_rules_v6() {
    let rules = sets::widen(&sets::generate(100_000, 6));
    assert_flat(&agree_on_samples(&rules, 2_000, 13));
}

#[test]
fn classbench_sets() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/classbench");
    let Ok(files) = std::fs::read_dir(&folder) else { return };
    let mut seen = 0;
    for file in files.map(|file| file.expect("folder entry").path()) {
        if file.extension().is_none_or(|extension| extension != "xz") {
            continue;
        }
        let unpacked = Command::new("xz").arg("-dc").arg(&file).output().expect("xz runs");
        assert!(unpacked.status.success(), "xz -dc {}", file.display());
        let text = String::from_utf8(unpacked.stdout).expect("ClassBench files are ASCII");
        let rules = sets::parse_classbench(&text).expect("a ClassBench file");
        assert_flat(&agree_on_samples(&rules, 1_500, 17));
        assert_flat(&agree_on_samples(&sets::widen(&rules), 500, 19));
        seen += 1;
    }
    assert!(seen > 0, "no *.xz in {}", folder.display());
}

#[test]
fn every_copy_of_a_rule_is_found() {
    let one = Rule { src: Masked::new(7_u32, u32::MAX), ..Rule::default() };
    let two = Rule { sport: PortRange { low: 3, high: 9 }, ..one };
    let rules: Vec<_> = (0..1_000).map(|n| if n % 3 == 0 { one } else { two }).collect();
    let space = TupleSpace::build(&rules, 1);
    assert_eq!(space.shape().distinct, 2);
    let levels = every_level(&rules, 1);
    let key = Key { src: 7, sport: 10, ..Key::zero() };
    let mut from = 0;
    for expected in (0..1_000).step_by(3) {
        assert_eq!(space.first_at_or_after(&key, from), Some(expected));
        for tables in &levels {
            assert_eq!(tables.first_at_or_after(&key, from), Some(expected));
        }
        from = expected + 1;
    }
    assert!(levels.iter().all(|tables| tables.first_at_or_after(&key, from).is_none()));
    assert_eq!(space.first_at_or_after(&key, from), None);
}

#[test]
fn the_strategy_says_why() {
    let hosts = |count: u32| -> Vec<Rule<u32>> {
        (0..count).map(|n| Rule { src: Masked::new(n, u32::MAX), ..Rule::default() }).collect()
    };
    let explain = |rules| Chosen::build_seeded(rules, 5).explain();
    let short = explain(hosts(SCAN_LIMIT as u32));
    assert_eq!((short.reason, short.scanned), (Reason::Short, SCAN_LIMIT));
    let long = explain(hosts(5_000));
    assert_eq!((long.reason, long.max_probes, long.scanned), (Reason::Hashes, 1, 0));
    let ranges = (0..400).map(|n| Rule {
        dport: PortRange { low: n, high: u16::MAX - n },
        ..Rule::<u32>::default()
    });
    let flat = explain(ranges.collect());
    assert_eq!((flat.reason, flat.scanned), (Reason::Unhashable, 400));
    assert_eq!((flat.worst.len(), flat.worst[0].why), (MAX_CULPRITS, Why::Unhashable));
    assert!(short.worst.is_empty() && long.worst.is_empty() && !long.exploded);
}

#[test]
fn an_empty_list_matches_nothing() {
    let space = TupleSpace::<u32>::build(&[], 0);
    assert!(space.is_empty());
    assert_eq!(space.first_at_or_after(&Key::zero(), 0), None);
    assert_eq!(space.first_at_or_after(&Key::zero(), u32::MAX), None);
}
