//! Tests of the compiler: the index against the interpreter, depth, bounds, counters, buckets.

use classifier::{Address, Key};
use dataplane::conntrack::CtState;
use dataplane::packet::{L4Class, Mac, Parsed, PktType, PortId};
use dataplane::policy::matches::{Neg, Range, TcpMatch};
use dataplane::policy::{ChainPolicy, NO_INTERFACE};
use dataplane::wire::{self, Frame};
use proptest::prelude::*;

use super::*;
use crate::interpret::generate::{self, PORTS};
use crate::interpret::{Interpreter, Outcome, Packet, Subject, Tracked};
use crate::iptables::{self, TableNames};
use crate::model::{Counters, Interface, LimitSpec, MatchSpec, Rule, Table};

fn ports() -> Vec<String> {
    PORTS.iter().map(|&name| name.to_owned()).collect()
}

fn rule(matches: Vec<MatchBody>, target: TargetSpec) -> Rule {
    let span = Span::default();
    Rule {
        counters: None,
        src: None,
        dst: None,
        input: None,
        output: None,
        proto: None,
        fragment: None,
        matches: matches.into_iter().map(|body| MatchSpec { body, span }).collect(),
        target,
        target_span: span,
        span,
    }
}

fn chain(name: &str, rules: Vec<Rule>) -> model::Chain {
    let policy = (name == "FORWARD").then(|| (ChainPolicy::Accept, Counters::default()));
    model::Chain { name: name.to_owned(), policy, rules, span: Span::default() }
}

fn ruleset(family: Family, chains: Vec<model::Chain>) -> Ruleset {
    Ruleset { family, tables: vec![Table { id: TableId::Filter, chains }] }
}

fn compile_v4(v4: &Ruleset) -> Result<Compiled, CompileError> {
    compile_with(v4, Limits::default(), &DynamicState::default())
}

fn compile_with(
    v4: &Ruleset,
    limits: Limits,
    previous: &DynamicState,
) -> Result<Compiled, CompileError> {
    let (ports, v6) = (ports(), Ruleset::empty(Family::V6));
    compile(Input { v4, v6: &v6, ports: &ports, limits }, previous)
}

fn parsed(frame: &[u8]) -> Option<Parsed> {
    match wire::parse(frame, Mac([2, 0, 0, 0, 0, 0xbb])) {
        Ok(Frame::Ip(parsed)) => Some(parsed),
        _ => None,
    }
}

fn key<A: Address>(parsed: &Parsed, state: CtState) -> Key<A> {
    Key {
        src: A::from_u128(parsed.src),
        dst: A::from_u128(parsed.dst),
        sport: parsed.sport,
        dport: parsed.dport,
        proto: parsed.proto,
        flags: parsed.tcp_flags,
        iif: PortId(0).bit(),
        oif: PortId(1).bit(),
        state: state.bit(),
        l4: parsed.l4_class.bit(),
    }
}

/// Whether interpreting the rule, alone, matches; the same for its matches up
/// to and including the first that has an effect.
fn interpreted(rule: &Rule, frame: &[u8], state: CtState) -> (bool, bool) {
    let mut prefix = rule.clone();
    let effect = rule.matches.iter().position(|spec| {
        matches!(
            spec.body,
            MatchBody::Limit(_) | MatchBody::Plain(Match::Tcp(TcpMatch { option: Some(_), .. }))
        )
    });
    if let Some(at) = effect {
        // Reached means: all ahead of it holds, and what it looks at before the options.
        prefix.matches.truncate(at + 1);
        match &mut prefix.matches[at].body {
            MatchBody::Plain(Match::Tcp(tcp)) => tcp.option = None,
            _ => prefix.matches.truncate(at),
        }
    }
    (matches_alone(rule, frame, state), effect.is_some() && matches_alone(&prefix, frame, state))
}

fn matches_alone(rule: &Rule, frame: &[u8], state: CtState) -> bool {
    let packet = Packet::read(frame).expect("the data plane parsed it");
    let family = packet.family;
    let mut rule = rule.clone();
    rule.target = TargetSpec::Accept;
    let rules = ruleset(family, vec![chain("FORWARD", vec![rule])]);
    let mut subject = Subject {
        packet: Packet { pkt_type: PktType::Host, ..packet },
        input: "eth0",
        output: "eth1",
        has_link_header: true,
        path_mtu: 1500,
        realms: Default::default(),
        mark: 0,
        tracked: Tracked { state, ..Tracked::NONE },
        template: None,
        now: dataplane::clock::Nanos::from_secs(9),
        utc_offset: dataplane::clock::Nanos(0),
        minutes_west: 0,
        dice: Default::default(),
        hook: dataplane::policy::Hook::Forward,
        cpu: 0,
        owner: None,
        priority: 0,
        network: None,
        conntrack: None,
    };
    let mut matched = false;
    let mut visit = |visit: crate::interpret::Visit<'_>| {
        matched |= visit.rule.is_some() && visit.outcome == Outcome::Matched;
    };
    let hook = dataplane::policy::Hook::Forward;
    let _ = Interpreter::new(&rules).table(TableId::Filter, hook, &mut subject, &mut visit);
    matched
}

fn check_index<A: Address>(family: Family, rule: &Rule, frame: &[u8], state: CtState) {
    let Some(parsed) = parsed(frame) else { return };
    if parsed.l4_class == L4Class::Odd {
        return;
    }
    let base = indexed::base::<A>(rule, &ports());
    let mut previous = State {
        ports: &ports(),
        limits: Limits::default(),
        counters: CounterMap::default(),
        previous: &DynamicState::default(),
        dynamic: DynamicState::default(),
        built: Default::default(),
    };
    let matches = previous.matches(family, TableId::Filter, "FORWARD", rule).expect("small");
    let parts = indexed::split(family, &base, &matches);
    let found = parts.indexed.matches(&key(&parsed, state));
    let (matched, reached) = interpreted(rule, frame, state);
    if matched {
        assert!(found, "the index hides a match: {rule:?}\n{:?}", parts.indexed);
    }
    if reached {
        assert!(found, "the index keeps a packet from an effect: {rule:?}\n{:?}", parts.indexed);
    }
    if parts.residual.is_empty() && !parts.check_base {
        assert_eq!(found, matched, "nothing left to check: {rule:?}\n{:?}", parts.indexed);
    }
}

fn states() -> impl proptest::strategy::Strategy<Value = CtState> {
    use CtState::{Established, Invalid, New, Related, Untracked};
    proptest::sample::select(vec![New, Established, Related, Invalid, Untracked])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_index_is_never_narrower_than_the_rule_v4(
        rule in generate::rule(TableId::Filter, Family::V4, vec![]),
        frames in prop::collection::vec(generate::frame(Family::V4), 8),
        state in states(),
    ) {
        frames.iter().for_each(|frame| check_index::<u32>(Family::V4, &rule, frame, state));
    }

    #[test]
    fn the_index_is_never_narrower_than_the_rule_v6(
        rule in generate::rule(TableId::Filter, Family::V6, vec![]),
        frames in prop::collection::vec(generate::frame(Family::V6), 8),
        state in states(),
    ) {
        frames.iter().for_each(|frame| check_index::<u128>(Family::V6, &rule, frame, state));
    }
}

#[test]
fn a_match_behind_a_limit_is_not_indexed() {
    let limit = MatchBody::Limit(LimitSpec { avg: 10_000, burst: 1 });
    let port = Neg::plain(Range { low: 80, high: 80 });
    let tcp = MatchBody::Plain(Match::Tcp(TcpMatch { dport: Some(port), ..TcpMatch::default() }));
    for (matches, indexed) in [
        (vec![limit.clone(), tcp.clone()], classifier::PortRange::ANY),
        (vec![tcp, limit], classifier::PortRange { low: 80, high: 80 }),
    ] {
        let mut written = rule(matches, TargetSpec::Accept);
        written.proto = Some(Neg::plain(6));
        let compiled =
            compile_v4(&ruleset(Family::V4, vec![chain("FORWARD", vec![written])])).unwrap();
        let rule = &compiled.policy.v4.chains[0].rules[0];
        assert_eq!(rule.indexed.dport, indexed);
        assert_eq!(rule.indexed.proto, classifier::Masked::new(6, 0xff), "-p is always first");
    }
}

#[test]
fn interface_names_become_port_sets() {
    let (eth0, eth1, eth10, wan0) =
        (PortId(0).bit(), PortId(1).bit(), PortId(2).bit(), PortId(3).bit());
    let lo = PortId::LOOPBACK.bit();
    let cases = [
        ("eth0", false, false, eth0),
        ("eth1", true, false, eth1 | eth10),
        ("eth0", false, true, eth1 | eth10 | wan0 | lo | NO_INTERFACE),
        ("", true, false, u64::MAX),
        ("", true, true, 0),
        ("lo", false, false, lo),
        ("lo", false, true, eth0 | eth1 | eth10 | wan0 | NO_INTERFACE),
        ("eth2", false, true, u64::MAX),
        ("eth", true, true, wan0 | lo | NO_INTERFACE),
    ];
    for (name, prefix, negated, set) in cases {
        let mut written = rule(vec![], TargetSpec::None);
        written.input = Some((Interface { name: name.to_owned(), prefix }, negated));
        let compiled =
            compile_v4(&ruleset(Family::V4, vec![chain("FORWARD", vec![written])])).unwrap();
        let rule = &compiled.policy.v4.chains[0].rules[0];
        assert_eq!(rule.indexed.iif.0, set, "{name} {prefix} {negated}");
    }
}

#[test]
fn depth_counts_jumps_but_not_gotos() {
    let jump = |name: &str| rule(vec![], TargetSpec::Jump(name.to_owned()));
    let goto = |name: &str| rule(vec![], TargetSpec::Goto(name.to_owned()));
    let rules = ruleset(
        Family::V4,
        vec![
            chain("FORWARD", vec![jump("c"), jump("a")]),
            chain("a", vec![goto("b")]),
            chain("b", vec![jump("c")]),
            chain("c", vec![]),
        ],
    );
    assert_eq!(compile_v4(&rules).unwrap().policy.v4.max_depth, 2);
    let limits = Limits { depth: 1, ..Limits::default() };
    let refused = compile_with(&rules, limits, &DynamicState::default());
    assert!(
        matches!(refused, Err(CompileError::TooDeep { depth: 2, limit: 1, .. })),
        "{refused:?}"
    );
}

#[test]
fn chains_that_double_the_way_are_refused() {
    let ladder = |steps: usize| {
        let name = |n: usize| format!("c{n}");
        let twice = |n| vec![rule(vec![], TargetSpec::Jump(name(n))); 2];
        let mut chains = vec![chain("FORWARD", twice(0))];
        chains.extend((0..steps).map(|n| chain(&name(n), twice(n + 1))));
        chains.push(chain(&name(steps), vec![]));
        compile_v4(&ruleset(Family::V4, chains)).map(|_| ())
    };
    assert_eq!(ladder(10), Ok(()));
    let refused = ladder(400).unwrap_err();
    assert!(matches!(refused, CompileError::TooManyJumps { .. }), "{refused}");
    assert!(refused.span().is_some() && refused.family() == Some(Family::V4));
}

#[test]
fn long_chains_of_jumps_need_no_stack() {
    let name = |n: usize| format!("c{n}");
    let mut chains = vec![chain("FORWARD", vec![rule(vec![], TargetSpec::Jump(name(0)))])];
    for n in 0..100_000 {
        chains.push(chain(&name(n), vec![rule(vec![], TargetSpec::Jump(name(n + 1)))]));
    }
    chains.push(chain(&name(100_000), vec![]));
    let refused = compile_v4(&ruleset(Family::V4, chains));
    assert!(matches!(refused, Err(CompileError::TooDeep { depth: 100_001, .. })), "{refused:?}");
}

#[test]
fn loops_and_missing_chains_are_refused() {
    let jump = |name: &str| rule(vec![], TargetSpec::Jump(name.to_owned()));
    let looping =
        ruleset(Family::V4, vec![chain("a", vec![jump("b")]), chain("b", vec![jump("a")])]);
    assert!(matches!(compile_v4(&looping), Err(CompileError::Loop { .. })));
    let missing = ruleset(Family::V4, vec![chain("FORWARD", vec![jump("nowhere")])]);
    assert!(matches!(compile_v4(&missing), Err(CompileError::NoSuchChain { .. })));
}

#[test]
fn totals_are_bounded() {
    let rules = ruleset(
        Family::V4,
        vec![
            chain("FORWARD", vec![rule(vec![], TargetSpec::None); 3]),
            chain("a", vec![rule(vec![], TargetSpec::None); 2]),
        ],
    );
    let with = |limits| compile_with(&rules, limits, &DynamicState::default());
    let limits = Limits::default();
    assert!(with(Limits { rules: 5, chains: 2, ..limits }).is_ok());
    assert!(matches!(with(Limits { rules: 4, ..limits }), Err(CompileError::TooManyRules { .. })));
    assert!(matches!(
        with(Limits { chains: 1, ..limits }),
        Err(CompileError::TooManyChains { .. })
    ));
}

#[test]
fn every_rule_and_policy_has_its_own_counter() {
    let rules = ruleset(
        Family::V4,
        vec![
            chain("FORWARD", vec![rule(vec![], TargetSpec::None); 2]),
            chain("a", vec![rule(vec![], TargetSpec::None)]),
        ],
    );
    let compiled = compile_v4(&rules).unwrap();
    assert_eq!(compiled.policy.counters, 4);
    let forward = compiled.counters.chain(Family::V4, TableId::Filter, "FORWARD").unwrap();
    assert_eq!((forward.rule(1), forward.rule(2)), (Some(CounterId(1)), None));
    assert_eq!(forward.policy, Some(CounterId(2)));
    let mut printed = rules.clone();
    printed.tables[0].chains[1].rules[0].counters = Some(Counters { packets: 10, bytes: 100 });
    compiled.counters.apply(&mut printed, |counter| (u64::from(counter.0), 1));
    let chains = &printed.tables[0].chains;
    assert_eq!(chains[0].rules[1].counters, Some(Counters { packets: 1, bytes: 1 }));
    assert_eq!(chains[0].policy.unwrap().1, Counters { packets: 2, bytes: 1 });
    assert_eq!(chains[1].rules[0].counters, Some(Counters { packets: 13, bytes: 101 }));
}

#[test]
fn a_reload_keeps_the_buckets_of_rules_that_stay() {
    let limit = |avg| rule(vec![MatchBody::Limit(LimitSpec { avg, burst: 5 })], TargetSpec::None);
    let compile = |rules: Vec<Rule>, previous: &DynamicState| {
        let rules = ruleset(Family::V4, vec![chain("FORWARD", rules)]);
        compile_with(&rules, Limits::default(), previous).unwrap()
    };
    let cell =
        |compiled: &Compiled, at: usize| match &compiled.policy.v4.chains[0].rules[at].matches[0] {
            Match::Limit(cell) => std::sync::Arc::as_ptr(cell),
            other => panic!("{other:?}"),
        };
    let first = compile(vec![limit(100), limit(100), limit(200)], &DynamicState::default());
    assert_eq!(first.dynamic.len(), 3);
    assert_ne!(cell(&first, 0), cell(&first, 1), "identical rules have a bucket each");
    let second = compile(vec![limit(200), limit(100), limit(300)], &first.dynamic);
    assert_eq!(cell(&second, 0), cell(&first, 2));
    assert_eq!(cell(&second, 1), cell(&first, 0));
    assert_eq!(second.dynamic.len(), 3);
}

#[test]
fn tracking_is_needed_even_by_unreachable_rules() {
    let state = MatchBody::State(Match::Conntrack(dataplane::policy::matches::ConntrackMatch {
        state: Some(Neg::plain(2)),
        ..Default::default()
    }));
    let unreachable = ruleset(
        Family::V4,
        vec![chain("FORWARD", vec![]), chain("a", vec![rule(vec![state], TargetSpec::None)])],
    );
    let compiled = compile_v4(&unreachable).unwrap();
    assert!(compiled.policy.v4.needs_conntrack && !compiled.policy.v6.needs_conntrack);
    let nat = Ruleset {
        family: Family::V4,
        tables: vec![Table { id: TableId::Nat, chains: vec![chain("POSTROUTING", vec![])] }],
    };
    assert!(!compile_v4(&nat).unwrap().policy.v4.needs_conntrack, "as tried on the kernel");
    let names = TableNames::well_known();
    let tracks = |text: &str| {
        let parsed = iptables::parse(text, "rules", Family::V4, &names).expect(text);
        compile_v4(&parsed.ruleset).unwrap().policy.v4.needs_conntrack
    };
    for (rule, expected) in [
        ("*raw\n-A OUTPUT -p udp -j NOTRACK", false),
        ("*raw\n-A OUTPUT -p udp -j CT --notrack", false),
        ("*raw\n-A OUTPUT -p udp -j CT", true),
        ("*raw\n-A OUTPUT -p udp -j CT --zone 3", true),
        ("*filter\n-A INPUT -m helper --helper ftp", true),
        ("*filter\n-A INPUT -m connlabel --label 3", true),
        (
            "*filter\n-A INPUT -m connbytes --connbytes 3 --connbytes-dir both --connbytes-mode bytes",
            true,
        ),
        ("*filter\n-A INPUT -p tcp -j SYNPROXY", true),
        ("*nat\n-A INPUT -j SNAT --to-source 192.0.2.1", true),
        ("*nat\n-A POSTROUTING -j MASQUERADE", true),
        ("*nat\n-A PREROUTING -j REDIRECT", true),
        ("*nat\n-A PREROUTING -j NETMAP --to 192.0.2.1", true),
    ] {
        assert_eq!(tracks(&format!("{rule}\nCOMMIT\n")), expected, "{rule}");
    }
}
