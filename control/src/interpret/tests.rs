//! Tests of the interpreter: jumps, malformed packets, limits, reasons.

use dataplane::conntrack::CtState;
use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::policy::matches::{ConntrackMatch, Neg, Range, TcpMatch, UdpMatch};
use dataplane::policy::state_class;
use dataplane::wire::build::Packet as Frame;

use super::*;
use crate::model::{Counters, LimitSpec, MatchSpec, Rule, Span};

fn rule(target: TargetSpec) -> Rule {
    let span = Span::default();
    Rule {
        counters: None,
        src: None,
        dst: None,
        input: None,
        output: None,
        proto: None,
        fragment: None,
        matches: vec![],
        target,
        target_span: span,
        span,
    }
}

fn with(proto: u8, bodies: Vec<MatchBody>, target: TargetSpec) -> Rule {
    let span = Span::default();
    let matches = bodies.into_iter().map(|body| MatchSpec { body, span }).collect();
    Rule { proto: Some(Neg::plain(proto)), matches, ..rule(target) }
}

fn jump(name: &str) -> Rule {
    rule(TargetSpec::Jump(name.into()))
}

fn goto(name: &str) -> Rule {
    rule(TargetSpec::Goto(name.into()))
}

fn filter(chains: Vec<(&str, Vec<Rule>)>) -> Ruleset {
    let chain = |(name, rules): (&str, Vec<Rule>)| Chain {
        name: name.into(),
        policy: (name == "FORWARD").then(|| (ChainPolicy::Drop, Counters::default())),
        rules,
        span: Span::default(),
    };
    let chains = chains.into_iter().map(chain).collect();
    Ruleset { family: Family::V4, tables: vec![Table { id: TableId::Filter, chains }] }
}

fn subject(frame: &[u8]) -> Subject<'_> {
    Subject {
        packet: Packet::read(frame).expect("an IP packet"),
        input: "eth0",
        output: "eth1",
        has_link_header: true,
        path_mtu: 1500,
        realms: Default::default(),
        mark: 0,
        tracked: Tracked::NONE,
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
    }
}

/// The verdict, and the matched steps as `chain/rule`.
fn walk(rules: &Ruleset, frame: &[u8]) -> (Verdict, String) {
    let mut path = Vec::new();
    let mut visit = |visit: Visit<'_>| {
        if visit.outcome == Outcome::Matched {
            let rule = visit.rule.map_or("policy".to_owned(), |index| index.to_string());
            path.push(format!("{}/{rule}", visit.chain.name));
        }
    };
    let mut subject = subject(frame);
    let verdict =
        Interpreter::new(rules).table(TableId::Filter, Hook::Forward, &mut subject, &mut visit);
    (verdict, path.join(" "))
}

fn ping() -> Vec<u8> {
    Frame::ping("198.18.1.1", "198.18.2.1", 1, 1).build()
}

type Chains = Vec<(&'static str, Vec<Rule>)>;

#[test]
fn jumps_returns_and_gotos() {
    use TargetSpec::{Accept, None, Return};
    let drop = Verdict::Drop(DropCause::Policy);
    let cases: [(Chains, Verdict, &str); 6] = [
        (vec![("FORWARD", vec![rule(Return), rule(Accept)])], drop, "FORWARD/0 FORWARD/policy"),
        (
            vec![("FORWARD", vec![jump("a"), rule(Accept)]), ("a", vec![rule(None)])],
            Verdict::Accept,
            "FORWARD/0 a/0 FORWARD/1",
        ),
        (
            vec![("FORWARD", vec![jump("a"), rule(Accept)]), ("a", vec![rule(Return), rule(None)])],
            Verdict::Accept,
            "FORWARD/0 a/0 FORWARD/1",
        ),
        (
            vec![("FORWARD", vec![goto("a"), rule(Accept)]), ("a", vec![rule(None)])],
            drop,
            "FORWARD/0 a/0 FORWARD/policy",
        ),
        (
            vec![
                ("FORWARD", vec![jump("a"), rule(Accept)]),
                ("a", vec![goto("b"), rule(TargetSpec::Drop)]),
                ("b", vec![rule(None)]),
            ],
            Verdict::Accept,
            "FORWARD/0 a/0 b/0 FORWARD/1",
        ),
        (vec![("FORWARD", vec![jump("a")]), ("a", vec![])], drop, "FORWARD/0 FORWARD/policy"),
    ];
    for (chains, verdict, path) in cases {
        assert_eq!(walk(&filter(chains), &ping()), (verdict, path.to_owned()));
    }
}

#[test]
fn a_cut_off_header_drops_the_packet_only_where_a_match_reads_it() {
    let tcp = || MatchBody::Plain(Match::Tcp(TcpMatch::default()));
    let udp = || MatchBody::Plain(Match::Udp(UdpMatch::default()));
    let short = Frame::raw("198.18.1.1", "198.18.2.1", 6, &[0; 12]).build();
    let accept = TargetSpec::Accept;
    let read = filter(vec![("FORWARD", vec![with(6, vec![tcp()], accept.clone())])]);
    assert_eq!(walk(&read, &short), (Verdict::Drop(DropCause::Hotdrop), String::new()));
    let not_read = filter(vec![(
        "FORWARD",
        vec![with(17, vec![udp()], TargetSpec::Drop), with(6, vec![], accept)],
    )]);
    assert_eq!(walk(&not_read, &short), (Verdict::Accept, "FORWARD/1".into()));
}

#[test]
fn later_fragments_have_no_ports_and_offset_8_is_dropped() {
    let tcp = with(6, vec![MatchBody::Plain(Match::Tcp(TcpMatch::default()))], TargetSpec::Accept);
    let rules = filter(vec![("FORWARD", vec![tcp])]);
    let fragment = |offset| {
        Frame::tcp("198.18.1.1", 1, "198.18.2.1", 2, 2).payload_len(64).fragment(offset, 16, true)
    };
    assert_eq!(walk(&rules, &fragment(0).build()).1, "", "16 bytes are no TCP header");
    assert_eq!(walk(&rules, &fragment(8).build()).0, Verdict::Drop(DropCause::Hotdrop));
    assert_eq!(walk(&rules, &fragment(16).build()).1, "FORWARD/policy");
}

#[test]
fn limits_spend_before_later_matches_look() {
    let limit = MatchBody::Limit(LimitSpec { avg: 10_000, burst: 1 });
    let port = Some(Neg::plain(Range { low: 80, high: 80 }));
    let tcp = MatchBody::Plain(Match::Tcp(TcpMatch { dport: port, ..TcpMatch::default() }));
    let rules = filter(vec![("FORWARD", vec![with(6, vec![limit, tcp], TargetSpec::Accept)])]);
    let mut interpreter = Interpreter::new(&rules);
    let mut walk = |dport| {
        let frame = Frame::tcp("198.18.1.1", 5, "198.18.2.1", dport, 2).build();
        let mut subject = subject(&frame);
        interpreter.table(TableId::Filter, Hook::Forward, &mut subject, &mut |_| {})
    };
    assert_eq!(walk(81), Verdict::Drop(DropCause::Policy));
    assert_eq!(walk(80), Verdict::Drop(DropCause::Policy), "port 81 has spent the token");
}

#[test]
fn reasons_name_the_first_comparison_that_failed() {
    let port = Some(Neg::plain(Range { low: 22, high: 22 }));
    let tcp = MatchBody::Plain(Match::Tcp(TcpMatch { dport: port, ..TcpMatch::default() }));
    let state = MatchBody::State(Match::Conntrack(ConntrackMatch {
        state: Some(Neg::plain(state_class::ESTABLISHED)),
        ..ConntrackMatch::default()
    }));
    let rules = filter(vec![("FORWARD", vec![with(6, vec![state, tcp], TargetSpec::Accept)])]);
    let frame = Frame::tcp("198.18.1.1", 5, "198.18.2.1", 443, 2).build();
    let first = |state| {
        let mut found = None;
        let mut subject = subject(&frame);
        subject.tracked.state = state;
        let mut visit = |visit: Visit<'_>| {
            if let Outcome::Failed(mismatch) = visit.outcome {
                found = Some((mismatch.selector, mismatch.option, mismatch.actual));
            }
        };
        let mut interpreter = Interpreter::new(&rules);
        let _ = interpreter.table(TableId::Filter, Hook::Forward, &mut subject, &mut visit);
        found
    };
    assert_eq!(first(CtState::New), Some((Selector::Match(0), "--ctstate", Actual::State("NEW"))));
    assert_eq!(
        first(CtState::Established),
        Some((Selector::Match(1), "--dport", Actual::Number(443)))
    );
}

#[test]
fn ipv6_extension_headers_are_walked_and_a_cut_chain_drops() {
    let accept = with(6, vec![], TargetSpec::Accept);
    let mut rules = filter(vec![("FORWARD", vec![accept])]);
    rules.family = Family::V6;
    let tcp = Frame::tcp("2001:db8::1", 5, "2001:db8::2", 80, 2);
    let options = tcp.clone().extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]).build();
    assert_eq!(walk(&rules, &options).0, Verdict::Accept);
    let beyond = tcp.extension(60, &[0, 9, 1, 4, 0, 0, 0, 0]).build();
    assert_eq!(Packet::read(&beyond).map(|packet| packet.proto), Some(Proto::Known(6)));
    let cut = Frame::raw("2001:db8::1", "2001:db8::2", 60, &[6]).build();
    assert_eq!(Packet::read(&cut).map(|packet| packet.proto), Some(Proto::CutOff));
    assert_eq!(walk(&rules, &cut).0, Verdict::Drop(DropCause::Hotdrop));
}
