//! The compiled walk against the interpreter, and faults that the self-check must find.

use std::sync::Arc;

use classifier::Address;
use dataplane::conntrack::{Extensions, Template};
use dataplane::packet::{L4Class, PktType};
use dataplane::policy::Target;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;

use super::*;
use crate::compile::{Input, Limits};
use crate::interpret::generate::{self, PORTS};

/// The port's address in generated frames.
const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 0xbb]);

fn ports() -> Vec<String> {
    PORTS.iter().map(|&name| name.to_owned()).collect()
}

fn compile_one(rules: &Ruleset) -> Compiled {
    let other = Ruleset::empty(match rules.family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    });
    let (v4, v6) = if rules.family == Family::V4 { (rules, &other) } else { (&other, rules) };
    let ports = ports();
    let input = Input { v4, v6, ports: &ports, limits: Limits::default() };
    compile::compile(input, &DynamicState::default()).expect("generated rules compile")
}

/// How a generated packet meets tracking: by itself, or after others of its flow.
#[derive(Clone, Copy, Debug)]
enum Flow {
    /// Not tracked, in this state.
    Untracked(CtState),
    /// Tracked; confirmed when the flag is set.
    Tracked(bool),
}

fn flow() -> impl Strategy<Value = Flow> {
    let states = select(vec![CtState::Invalid, CtState::Untracked]);
    prop_oneof![
        1 => states.prop_map(Flow::Untracked),
        3 => any::<bool>().prop_map(Flow::Tracked),
    ]
}

#[derive(Clone, Debug)]
struct Step {
    frame: Vec<u8>,
    flow: Flow,
    input: Option<u8>,
    output: Option<u8>,
    mark: u32,
    pkt_type: PktType,
    gap_ms: u64,
}

fn step(family: Family) -> impl Strategy<Value = Step> {
    (
        generate::frame(family),
        flow(),
        (prop::option::weighted(0.9, 0_u8..4), prop::option::weighted(0.9, 0_u8..4)),
        select(vec![0_u32, 1, 3, 0x10]),
        select(vec![PktType::Host, PktType::Host, PktType::Broadcast]),
        select(vec![0_u64, 1, 100, 2000]),
    )
        .prop_map(|(frame, flow, (input, output), mark, pkt_type, gap_ms)| Step {
            frame,
            flow,
            input,
            output,
            mark,
            pkt_type,
            gap_ms,
        })
}

struct Both<'m, A> {
    policy: &'m FamilyPolicy<A>,
    interpreter: Interpreter<'m>,
    compiled: CompiledSide,
    conntrack: Conntrack,
    ports: Vec<String>,
    now: Nanos,
}

impl<A: Address> Both<'_, A> {
    fn step(&mut self, at: (TableId, Hook), step: &Step) {
        self.now = self.now + Nanos::from_millis(step.gap_ms);
        let Ok(Frame::Ip(mut parsed)) = wire::parse(&step.frame, LOCAL) else { return };
        parsed.pkt_type = step.pkt_type;
        let mut tracking = match step.flow {
            Flow::Untracked(state) => Tracking { state, ..Tracking::NONE },
            Flow::Tracked(_) => {
                let everything = Extensions { accounting: true, labels: true };
                let terms = Template::default().terms(step.mark, everything);
                let (table, frame) = (&self.conntrack, &step.frame);
                let subject = table.subject(&parsed, frame, 0);
                match table.track_subject(&subject, &parsed, frame, false, &terms, self.now) {
                    Ok(tracking) => tracking,
                    Err(_) => return,
                }
            }
        };
        let probe = Probe {
            frame: &step.frame,
            parsed: &parsed,
            input: step.input.map(dataplane::packet::PortId),
            output: step.output.map(dataplane::packet::PortId),
            mark: step.mark,
            tracking,
            now: self.now,
            utc_offset: Nanos(0),
        };
        let tracked = Tracked::of(&self.conntrack, tracking, self.now);
        let interpreted = walks::interpreted(
            &mut self.interpreter,
            at,
            &probe,
            &self.ports,
            (tracked, &self.conntrack),
        )
        .expect("what the data plane parses, the oracle reads")
        .0;
        let compiled = self.compiled.walk(self.policy, at, &probe, &self.conntrack).unwrap();
        assert_eq!(
            compiled, interpreted,
            "compiled left, interpreted right\n{step:#?}\n{parsed:?}"
        );
        match step.flow {
            Flow::Tracked(true) => {
                let _ = self.conntrack.confirm(&mut tracking, self.now);
            }
            _ => self.conntrack.discard(tracking),
        }
    }
}

fn compare<A: Address>(rules: &Ruleset, policy: &FamilyPolicy<A>, counters: u32, steps: &[Step]) {
    let mut config = Config::new([7; 16]);
    config.set("max", 1000).unwrap();
    let mut both = Both {
        policy,
        interpreter: Interpreter::new(rules),
        compiled: CompiledSide::new(counters),
        conntrack: Conntrack::new(config).unwrap(),
        ports: ports(),
        now: Nanos::from_secs(1_700_000_000),
    };
    let at = (rules.tables[0].id, Hook::Forward);
    steps.iter().for_each(|step| both.step(at, step));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_compiled_walk_is_the_interpreted_walk_v4(
        rules in generate::ruleset(Family::V4),
        steps in prop::collection::vec(step(Family::V4), 24),
    ) {
        let compiled = compile_one(&rules);
        compare(&rules, &compiled.policy.v4, compiled.policy.counters, &steps);
    }

    #[test]
    fn the_compiled_walk_is_the_interpreted_walk_v6(
        rules in generate::ruleset(Family::V6),
        steps in prop::collection::vec(step(Family::V6), 24),
    ) {
        let compiled = compile_one(&rules);
        compare(&rules, &compiled.policy.v6, compiled.policy.counters, &steps);
    }

    #[test]
    fn generated_policies_pass_the_self_check(
        v4 in generate::ruleset(Family::V4),
        v6 in generate::ruleset(Family::V6),
    ) {
        let ports = ports();
        let input = Input { v4: &v4, v6: &v6, ports: &ports, limits: Limits::default() };
        let checked = compile_checked(input, &DynamicState::default(), Budget::default());
        let (_, report) = checked.unwrap();
        prop_assert!(report.packets > report.rules);
    }
}

#[test]
fn a_policy_is_checked_without_any_port() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..50 {
        let v4 = generate::ruleset(Family::V4).new_tree(&mut runner).unwrap().current();
        let v6 = generate::ruleset(Family::V6).new_tree(&mut runner).unwrap().current();
        let input = Input { v4: &v4, v6: &v6, ports: &[], limits: Limits::default() };
        let checked = compile_checked(input, &DynamicState::default(), Budget::default());
        assert!(checked.unwrap().1.packets > 0);
    }
}

#[test]
fn translated_prefixes_are_what_later_rules_see() {
    let text = "*mangle\n:PREROUTING DROP [0:0]\n\
        -A PREROUTING -d 2001:db8:1::/48 -j DNPT --src-pfx 2001:db8:1::/48 --dst-pfx 2001:db8:2::/48\n\
        -A PREROUTING -d 2001:db8:1::/48 -j DROP\n-A PREROUTING -d 2001:db8:2::/48 -j ACCEPT\n\
        -A INPUT -s 2001:db8:3::/48 -j SNPT --src-pfx 2001:db8:3::/48 --dst-pfx 2001:db8:4::/48\n\
        -A INPUT -s 2001:db8:3::/48 -j DROP\n-A INPUT -s 2001:db8:4::/48 -j MARK --set-mark 7\n\
        COMMIT\n";
    let names = crate::iptables::TableNames::well_known();
    let rules = crate::iptables::parse(text, "rules", Family::V6, &names).unwrap().ruleset;
    let compiled = compile_one(&rules);
    let (v4, ports) = (Ruleset::empty(Family::V4), ports());
    let input = Input { v4: &v4, v6: &rules, ports: &ports, limits: Limits::default() };
    let report = check(input, &compiled, Budget::default()).unwrap();
    assert_eq!(report.rules, 6);
}

/// A fault of the compiler, put into a compiled policy.
type Fault = fn(&mut dataplane::policy::CompiledRule<u32>) -> bool;

#[test]
fn faults_of_the_compiler_are_found() {
    let faults: [(&str, Fault); 6] = [
        ("source", |rule| {
            let found = rule.indexed.src.mask() != 0;
            rule.indexed.src = classifier::Masked::default();
            found && !rule.check_base && !rule.base.src.1
        }),
        ("destination port", |rule| {
            let range = &mut rule.indexed.dport;
            range.high = range.high.wrapping_sub(1);
            range.low < range.high && range.high < 60_000 && rule.residual.is_empty()
        }),
        ("flags", |rule| {
            let found = rule.indexed.flags.mask() != 0;
            rule.indexed.flags = classifier::Masked::default();
            found && rule.residual.is_empty()
        }),
        ("state", |rule| {
            let found = !rule.indexed.state.is_any();
            rule.indexed.state = classifier::ClassSet::ANY;
            found && rule.residual.is_empty()
        }),
        ("negated base", |rule| std::mem::replace(&mut rule.check_base, false)),
        ("residual", |rule| {
            let of_ports = |body: &dataplane::policy::Match| {
                matches!(body, dataplane::policy::Match::Multiport(_))
            };
            let found = rule.residual.iter().any(of_ports);
            rule.residual = rule.residual.iter().filter(|&body| !of_ports(body)).cloned().collect();
            found
        }),
    ];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for (name, fault) in faults {
        let (mut placed, mut found) = (0, 0);
        for _ in 0..2500 {
            let strategy = generate::rule(TableId::Filter, Family::V4, vec![]);
            let mut rule = strategy.new_tree(&mut runner).unwrap().current();
            rule.matches.retain(|spec| is_indexable(&spec.body));
            let rules = one_rule(rule);
            let ports = ports();
            let v6 = Ruleset::empty(Family::V6);
            let input = Input { v4: &rules, v6: &v6, ports: &ports, limits: Limits::default() };
            let mut compiled = compile::compile(input, &DynamicState::default()).unwrap();
            let chain = &mut compiled.policy.v4.chains[0];
            if matches!(chain.rules[0].target, Target::Count | Target::Accept | Target::Drop)
                && fault(&mut chain.rules[0])
            {
                chain.classifier = Arc::new(dataplane::policy::Chain::classifier_of(&chain.rules));
                chain.odd = Arc::new(dataplane::policy::OddIndex::build(&chain.rules));
                placed += 1;
                found += usize::from(check(input, &compiled, Budget::default()).is_err());
            }
        }
        assert!(placed >= 5, "{name}: the generator made only {placed} such rules");
        // Not all can be: a rule may be unable to match at all.
        assert!(found * 3 >= placed, "{name}: {found} of {placed} found");
    }
}

/// Others would keep most probes of a rule from matching it.
fn is_indexable(body: &crate::model::MatchBody) -> bool {
    use dataplane::policy::Match::{Conntrack, Icmp, Multiport, Tcp, Udp};
    let crate::model::MatchBody::Plain(body) = body else { return false };
    match body {
        Tcp(_) | Udp(_) | Icmp(_) | Multiport(_) => true,
        Conntrack(conntrack) => conntrack.state.is_some(),
        _ => false,
    }
}

fn one_rule(rule: crate::model::Rule) -> Ruleset {
    let policy = dataplane::policy::ChainPolicy::Accept;
    let chain = Chain {
        name: "FORWARD".into(),
        policy: Some((policy, crate::model::Counters::default())),
        rules: vec![rule],
        span: Span::default(),
    };
    Ruleset { family: Family::V4, tables: vec![Table { id: TableId::Filter, chains: vec![chain] }] }
}

#[test]
fn generated_frames_cover_every_class() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for family in [Family::V4, Family::V6] {
        let mut classes = [0; 3];
        for _ in 0..500 {
            let frame = generate::frame(family).new_tree(&mut runner).unwrap().current();
            if let Ok(Frame::Ip(parsed)) = wire::parse(&frame, LOCAL) {
                classes[match parsed.l4_class {
                    L4Class::Whole => 0,
                    L4Class::LaterFragment => 1,
                    L4Class::Odd => 2,
                }] += 1;
            }
        }
        assert!(classes.iter().all(|&count| count > 10), "{family:?}: {classes:?}");
    }
}

/// Which side of a packet a rule asks a set about shows only where sets hold something.
#[test]
fn a_rule_that_asks_a_set_about_the_wrong_side_is_found() {
    use dataplane::sets::{CreateSpec, Registry, SetName, SetType, Sides};
    let named = |text: &str| SetName::new(text).unwrap();
    for (kind, sides) in [
        (SetType::HashIp, "src"),
        (SetType::HashNet, "dst"),
        (SetType::HashIpPort, "src,dst"),
        (SetType::HashNetIface, "src,src"),
        (SetType::HashNetNet, "src,dst"),
    ] {
        let sets = Registry::new(1);
        sets.create(named("s"), CreateSpec::new(kind), false).unwrap();
        let state = DynamicState::with_sets(std::sync::Arc::new(sets));
        let text = format!(
            "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set s {sides} -j DROP\nCOMMIT\n"
        );
        let names = crate::iptables::TableNames::well_known();
        let parsed = crate::iptables::parse(&text, "t", Family::V4, &names).unwrap();
        let (v6, ports) = (Ruleset::empty(Family::V6), vec!["eth0".to_owned()]);
        let limits = compile::Limits::default();
        let input = compile::Input { v4: &parsed.ruleset, v6: &v6, ports: &ports, limits };
        let compiled = compile::compile(input, &state).unwrap();
        check_before_service(input, &compiled, Budget::default()).unwrap();
        let twin = compiled.dynamic.twin();
        probe_elements::fill(twin.sets(), &ports);
        let mut wrong = compile::compile(input, &twin).unwrap();
        let mut turned = 0;
        let chains = wrong.policy.v4.chains.iter_mut();
        for rule in chains.flat_map(|chain| chain.rules.iter_mut()) {
            for body in rule.matches.iter_mut().chain(rule.residual.iter_mut()) {
                if let dataplane::policy::Match::Set(set) = body {
                    let sides: Vec<bool> =
                        (0..set.sides.len()).map(|at| !set.sides.is_source(at)).collect();
                    set.sides = Sides::new(&sides).unwrap();
                    turned += 1;
                }
            }
        }
        assert!(turned > 0);
        assert!(check(input, &wrong, Budget::default()).is_err(), "{}", kind.name());
    }
}
