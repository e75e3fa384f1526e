//! Rules on sets: the compiled walk against the interpreter, over sets that are filled
//! and change meanwhile; and their text, there and back.

use std::sync::Arc;

use arrayvec::ArrayString;
use dataplane::conntrack::CtState;
use dataplane::packet::PortId;
use dataplane::sets::{
    CountTest, CreateSpec, Cursor, Element, Extras, Iface, Part, Registry, SetName, SetType, Sides,
    SkbInfo,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::compile::{Input, Limits};
use crate::interpret::generate::{self, PORTS};
use crate::iptables::{TableNames, parse, print};
use crate::model::sets::{MapSpec, NamedSet, SetSpec, SetTargetSpec};
use crate::model::{Counters, MatchBody, MatchSpec, Rule, TargetSpec};

const NAMES: [&str; 3] = ["one", "two", "list"];

fn name(text: &str) -> SetName {
    SetName::new(text).unwrap()
}

fn named() -> impl Strategy<Value = NamedSet> {
    (select(&NAMES[..]), prop::collection::vec(any::<bool>(), 1..=4))
        .prop_map(|(set, sides)| NamedSet { name: name(set), sides: Sides::new(&sides).unwrap() })
}

fn count() -> impl Strategy<Value = Option<CountTest>> {
    let test = (0..4_u8, 0..200_u64).prop_map(|(how, value)| match how {
        0 => CountTest::Equal(value),
        1 => CountTest::NotEqual(value),
        2 => CountTest::Less(value),
        _ => CountTest::Greater(value % 5),
    });
    prop::option::weighted(0.2, test)
}

fn wanted() -> impl Strategy<Value = SetSpec> {
    (named(), any::<bool>(), any::<[bool; 3]>(), count(), count()).prop_map(
        |(set, negated, flags, packets, bytes)| SetSpec {
            set,
            negated,
            return_nomatch: flags[0],
            keep_counters: flags[1],
            keep_subcounters: flags[2],
            packets,
            bytes,
        },
    )
}

fn target() -> impl Strategy<Value = SetTargetSpec> {
    let add = prop::option::weighted(0.6, named());
    let timeout = prop::option::of(select(vec![0_u32, 1, 3, 500]));
    let map = (named(), any::<[bool; 2]>()).prop_map(|(set, [priority, queue])| MapSpec {
        set,
        mark: true,
        priority,
        queue,
    });
    let (del, map) = (prop::option::weighted(0.3, named()), prop::option::weighted(0.3, map));
    (add, any::<bool>(), timeout, del, map)
        .prop_filter("says nothing", |(add, _, _, del, map)| {
            add.is_some() || del.is_some() || map.is_some()
        })
        .prop_map(|(add, exist, timeout_s, del, map)| SetTargetSpec {
            exist: exist && add.is_some(),
            timeout_s: timeout_s.filter(|_| add.is_some()),
            add,
            del,
            map,
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let target = prop_oneof![
        2 => Just(TargetSpec::None),
        2 => target().prop_map(TargetSpec::Set),
    ];
    (prop::collection::vec(wanted(), 0..3), target).prop_map(|(matches, target)| Rule {
        counters: None,
        src: None,
        dst: None,
        input: None,
        output: None,
        proto: None,
        fragment: None,
        matches: matches
            .into_iter()
            .map(|spec| MatchSpec { body: MatchBody::Set(spec), span: Span::default() })
            .collect(),
        target,
        target_span: Span::default(),
        span: Span::default(),
    })
}

fn ruleset(family: Family) -> impl Strategy<Value = Ruleset> {
    prop::collection::vec(rule(), 1..12).prop_map(move |rules| {
        let policy = Some((dataplane::policy::ChainPolicy::Accept, Counters::default()));
        let chain = |hook: Hook| Chain {
            name: hook.chain_name().to_owned(),
            policy,
            rules: Vec::new(),
            span: Span::default(),
        };
        let mut chains: Vec<Chain> = Hook::ALL.into_iter().map(chain).collect();
        chains[Hook::Forward as usize].rules = rules;
        Ruleset { family, tables: vec![Table { id: TableId::Mangle, chains }] }
    })
}

/// A set's type and extensions, and seeds of its elements.
#[derive(Clone, Debug)]
struct Plan {
    spec: CreateSpec,
    elements: Vec<(u128, u128, u64)>,
}

fn plan(family: Family) -> impl Strategy<Value = Plan> {
    let kinds = SetType::ALL.into_iter().filter(move |kind| {
        let v4_only = matches!(kind, SetType::BitmapIp | SetType::BitmapIpMac);
        *kind != SetType::ListSet && !(v4_only && family == Family::V6)
    });
    let kind = select(kinds.collect::<Vec<_>>());
    let element = (generate::host(family), generate::host(family), any::<u64>());
    let timeout = prop::option::of(select(vec![0_u32, 2, 100]));
    let more = (any::<[bool; 3]>(), select(vec![3_u32, 65_536]));
    (kind, timeout, more, prop::collection::vec(element, 0..10)).prop_map(
        move |(kind, timeout, ([counters, skbinfo, masked], maxelem), elements)| {
            let mut spec = CreateSpec { timeout, counters, skbinfo, ..CreateSpec::new(kind) };
            if kind.is_hash() {
                spec.maxelem = maxelem;
                spec.family = if kind.has_addresses() { family } else { Family::V4 };
            }
            if masked && kind == SetType::HashIp {
                spec.netmask = Some(if family == Family::V4 { 25 } else { 121 });
            }
            spec.range = match kind {
                SetType::BitmapPort => Some((20, 500)),
                SetType::BitmapIp | SetType::BitmapIpMac => Some((0xc612_0100, 0xc612_01ff)),
                _ => None,
            };
            Plan { spec, elements }
        },
    )
}

fn element(kind: SetType, (ip, ip2, bits): (u128, u128, u64), family: Family) -> Element {
    let longest = if family == Family::V4 { 32 } else { 128 };
    let pick = |at: u32, from: &[u16]| from[(bits >> at) as usize % from.len()];
    let mut element = Element::default();
    let mut second = false;
    for part in kind.parts() {
        match part {
            Part::Ip | Part::Net => {
                let cidr = longest - pick(if second { 8 } else { 0 }, &[0, 0, 1, 7, 8, 16]) as u8;
                let cidr = (*part == Part::Net).then_some(cidr);
                match second {
                    false => (element.ip, element.cidr) = (ip, cidr),
                    true => (element.ip2, element.cidr2) = (ip2, cidr),
                }
                second = true;
            }
            Part::Port => {
                element.port = pick(16, &[21, 22, 80, 443, 0x800]);
                element.proto = pick(24, &[6, 17, 1, 58, 132, 47]) as u8;
            }
            Part::Mac => element.mac = (pick(32, &[0, 1]) == 1).then_some([2, 0, 0, 0, 0, 0xaa]),
            Part::Mark => element.mark = u32::from(pick(36, &[0, 1, 3])),
            Part::Iface => {
                let iface = ["eth0", "eth1", "eth", "wan0"][(bits >> 40) as usize % 4];
                element.iface = Some(Iface {
                    name: ArrayString::from(iface).unwrap(),
                    physdev: bits >> 44 & 7 == 0,
                    wildcard: bits >> 48 & 1 == 0,
                });
            }
        }
    }
    if kind == SetType::BitmapPort {
        element.proto = 0;
    }
    element
}

fn filled(plans: &[Plan], family: Family, now: Nanos) -> Registry {
    let registry = Registry::new(3);
    for (plan, set) in plans.iter().zip(NAMES) {
        registry.create(name(set), plan.spec, false).unwrap();
        let slot = registry.get(&name(set)).unwrap();
        for seeds in &plan.elements {
            let bits = seeds.2;
            let extras = Extras {
                timeout_s: plan.spec.timeout.and((bits >> 52 & 1 == 0).then_some(1)),
                skb: plan.spec.skbinfo.then_some(SkbInfo {
                    mark: Some((bits as u32, 0xff)),
                    priority: Some(7),
                    queue: None,
                }),
                nomatch: plan.spec.kind.networks() > 0 && bits >> 56 & 3 == 0,
                ..Extras::default()
            };
            // Some are not possible: those are left out on both sides.
            let _ =
                registry.add(&slot, &element(plan.spec.kind, *seeds, family), &extras, false, now);
        }
    }
    let list = CreateSpec { counters: true, ..CreateSpec::new(SetType::ListSet) };
    registry.create(name("list"), list, false).unwrap();
    let slot = registry.get(&name("list")).unwrap();
    for member in ["one", "two"] {
        let element = Element { set: Some(name(member)), ..Element::default() };
        registry.add(&slot, &element, &Extras::default(), false, now).unwrap();
    }
    registry
}

fn texts(registry: &Registry, now: Nanos) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for slot in registry.list() {
        let (entries, _) = slot.set().entries(Cursor::default(), usize::MAX, now);
        all.extend(entries.into_iter().map(|entry| format!("{} {entry:?}", slot.name())));
    }
    all.sort();
    all
}

fn compare(
    rules: &Ruleset,
    plans: &[Plan],
    frames: &[(Vec<u8>, u8, u64)],
) -> Result<(), TestCaseError> {
    let mut now = Nanos::from_secs(1000);
    let registry = Arc::new(filled(plans, rules.family, now));
    let before = registry.list().iter().map(|slot| slot.references()).sum::<u32>();
    let other = Ruleset::empty(if rules.family == Family::V4 { Family::V6 } else { Family::V4 });
    let (v4, v6) = if rules.family == Family::V4 { (rules, &other) } else { (&other, rules) };
    let ports: Vec<String> = PORTS.iter().map(|&port| port.to_owned()).collect();
    let input = Input { v4, v6, ports: &ports, limits: Limits::default() };
    let previous = DynamicState::with_sets(Arc::clone(&registry));
    let compiled = compile::compile(input, &previous).unwrap();
    prop_assert!(check_before_service(input, &compiled, Budget::default()).is_ok());
    let mut interpreter = Interpreter::new(rules).with_sets(&registry, now);
    let mut side = CompiledSide::new(compiled.policy.counters);
    let conntrack = Conntrack::new(Config::new([7; 16])).unwrap();
    for (frame, port, gap_ms) in frames {
        now = now + Nanos::from_millis(*gap_ms);
        let Ok(Frame::Ip(parsed)) = wire::parse(frame, Mac::default()) else { continue };
        let probe = Probe {
            frame,
            parsed: &parsed,
            input: Some(PortId(*port)),
            output: Some(PortId(3 - *port)),
            mark: u32::from(*port),
            tracking: Tracking { state: CtState::Untracked, ..Tracking::NONE },
            now,
            utc_offset: Nanos(0),
        };
        let at = (TableId::Mangle, Hook::Forward);
        let tracked = Tracked { state: CtState::Untracked, ..Tracked::NONE };
        let theirs =
            walks::interpreted(&mut interpreter, at, &probe, &ports, (tracked, &conntrack));
        let ours = match rules.family {
            Family::V4 => side.walk(&compiled.policy.v4, at, &probe, &conntrack),
            Family::V6 => side.walk(&compiled.policy.v6, at, &probe, &conntrack),
        };
        prop_assert_eq!(ours, theirs.map(|(walked, _)| walked));
    }
    prop_assert_eq!(texts(&registry, now), interpreter.listed_sets(now));
    drop(compiled);
    let after = registry.list().iter().map(|slot| slot.references()).sum::<u32>();
    prop_assert_eq!(before, after, "references go with the policy");
    Ok(())
}

fn frames(family: Family) -> impl Strategy<Value = Vec<(Vec<u8>, u8, u64)>> {
    let gap_ms = select(vec![0_u64, 1, 400, 1100]);
    prop::collection::vec((generate::frame(family), 0..4_u8, gap_ms), 24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn compiled_and_interpreted_sets_agree_v4(
        rules in ruleset(Family::V4),
        plans in prop::collection::vec(plan(Family::V4), 2),
        frames in frames(Family::V4),
    ) {
        compare(&rules, &plans, &frames)?;
    }

    #[test]
    fn compiled_and_interpreted_sets_agree_v6(
        rules in ruleset(Family::V6),
        plans in prop::collection::vec(plan(Family::V6), 2),
        frames in frames(Family::V6),
    ) {
        compare(&rules, &plans, &frames)?;
    }

    #[test]
    fn rules_on_sets_are_printed_as_they_are_read(rules in ruleset(Family::V4)) {
        let names = TableNames::well_known();
        let text = print(&rules, &names, None);
        let read = parse(&text, "rules", Family::V4, &names).map_err(|findings| {
            TestCaseError::fail(format!("{findings:?}\n{text}"))
        })?;
        let again = print(&read.ruleset, &names, None);
        prop_assert_eq!(&text, &again);
        let bodies = |rules: &Ruleset| {
            let rules = &rules.tables[0].chains[Hook::Forward as usize].rules;
            rules.iter().map(|rule| {
                let mut words = String::new();
                compile::write_words(rule, &mut words).unwrap();
                words
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(bodies(&rules), bodies(&read.ruleset));
    }
}

#[test]
fn a_rule_that_names_no_set_is_refused_where_it_stands() {
    let text =
        "*filter\n-A INPUT -j ACCEPT\n-A INPUT -m set --match-set nobody src -j DROP\nCOMMIT\n";
    let names = TableNames::well_known();
    let parsed = parse(text, "rules", Family::V4, &names).unwrap();
    let empty = Ruleset::empty(Family::V6);
    let input = Input { v4: &parsed.ruleset, v6: &empty, ports: &[], limits: Limits::default() };
    let refused = compile::compile(input, &DynamicState::default()).unwrap_err();
    assert_eq!(refused.span().map(|span| span.line), Some(3), "{refused}");
    assert!(refused.to_string().contains("nobody"), "{refused}");
    let registry = Registry::new(0);
    registry.create(name("nobody"), CreateSpec::new(SetType::HashIp), false).unwrap();
    let previous = DynamicState::with_sets(Arc::new(registry));
    let compiled = compile::compile(input, &previous).unwrap();
    let sets = previous.sets();
    assert_eq!(sets.get(&name("nobody")).unwrap().references(), 1);
    assert!(sets.destroy(&name("nobody")).is_err());
    drop(compiled);
    assert!(sets.destroy(&name("nobody")).is_ok());
    let v6 = Ruleset { family: Family::V6, ..parsed.ruleset };
    let registry = Registry::new(0);
    registry.create(name("nobody"), CreateSpec::new(SetType::HashIp), false).unwrap();
    let empty = Ruleset::empty(Family::V4);
    let input = Input { v4: &empty, v6: &v6, ports: &[], limits: Limits::default() };
    assert!(compile::compile(input, &DynamicState::with_sets(Arc::new(registry))).is_err());
}
