//! The walk and the matches, without a router around them.

use proptest::prelude::*;

use super::eval::{Outcome, PacketView};
use super::limit::LimitCell;
use super::matches::{
    ConntrackMatch, HopCompare, IcmpMatch, IpRangeMatch, Match, MultiportMatch, MultiportSide, Neg,
    Range, TcpMatch, UdpMatch,
};
use super::report::ReportTarget;
use super::scene::Scene;
use super::target::{CtTarget, LogTarget, MarkTarget, RejectWith, Target, ZoneId, ZoneScope};
use super::tee::Copies;
use super::testing::{Builder, Indexing, Recorder, Spec, nowhere};
use super::walk::{ReturnStack, Verdict, Walker};
use super::{ChainId, ChainPolicy, CounterId, FamilyPolicy, Hook, TableId, state_class};
use crate::clock::Nanos;
use crate::conntrack::{Config, Conntrack, Template, Tracking};
use crate::frame::FrameBuf;
use crate::packet::{Mac, Parsed, PktType, PortId};
use crate::stats::RuleCounters;
use crate::verdict::DropReason;
use crate::wire::build::Packet;
use crate::wire::{Frame, parse};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn tracker() -> Conntrack {
    let mut config = Config::new([7; 16]);
    config.set("max", 16).unwrap();
    Conntrack::new(config).unwrap()
}

fn parsed(frame: &[u8]) -> Parsed {
    match parse(frame, MAC).unwrap() {
        Frame::Ip(parsed) => parsed,
        other => panic!("{other:?}"),
    }
}

fn view<'a>(
    frame: &'a mut [u8],
    parsed: &'a mut Parsed,
    conntrack: &'a Conntrack,
) -> PacketView<'a> {
    PacketView {
        parsed,
        frame: FrameBuf::exact(frame),
        has_link_header: true,
        input: Some(PortId(0)),
        output: Some(PortId(1)),
        mark: 0,
        tracking: Tracking::NONE,
        template: Template::default(),
        conntrack,
        network: nowhere(),
        way_mtu: 1500,
        realms: crate::fib::Realms::default(),
        now: Nanos::from_secs(1000),
        hook: Hook::Forward,
        scene: Scene::still(),
        owner: None,
        sender: Default::default(),
        priority: 0,
        traced: false,
    }
}

/// What one walk did.
#[derive(Debug, PartialEq)]
struct Walked {
    verdict: Verdict,
    mark: u32,
    /// The state in the key, after the walk.
    state: u64,
    logs: Vec<String>,
    counters: Vec<(u64, u64)>,
}

fn walk_at(
    policy: &FamilyPolicy<u32>,
    counters: u32,
    entry: ChainId,
    frame: &[u8],
    now: Nanos,
) -> Walked {
    let (mut parsed, mut frame, conntrack) = (parsed(frame), frame.to_vec(), tracker());
    let mut view = PacketView { now, ..view(&mut frame, &mut parsed, &conntrack) };
    let mut key = view.key();
    let counters = RuleCounters::new(counters as usize);
    let mut effects = Recorder::default();
    let mut stack = ReturnStack::default();
    stack.fit(policy.max_depth);
    let mut walker = Walker {
        policy,
        counters: &counters,
        stack: &mut stack,
        copies: &mut Copies::default(),
        effects: &mut effects,
    };
    let verdict = walker.walk(TableId::Filter, Hook::Forward, entry, &mut view, &mut key);
    Walked {
        verdict,
        mark: view.mark,
        state: key.state,
        logs: effects.logged.into_iter().map(|log| log.0).collect(),
        counters: counters_of(policy).map(|id| counters.get(id)).collect(),
    }
}

fn counters_of(policy: &FamilyPolicy<u32>) -> impl Iterator<Item = CounterId> {
    policy.chains.iter().flat_map(|chain| {
        let policy = chain.policy.map(|policy| policy.1);
        policy.into_iter().chain(chain.rules.iter().map(|rule| rule.counter))
    })
}

/// Builds a FORWARD chain after `users` and walks `frame` through it, under
/// both indexings, which must agree.
fn walk(
    users: &[Vec<Spec<u32>>],
    rules: &[Spec<u32>],
    policy: ChainPolicy,
    frame: &[u8],
) -> Walked {
    let run = |indexing| {
        let mut builder = Builder::new(indexing, 0);
        for user in users {
            builder.user(TableId::Filter, user.clone());
        }
        let entry = builder.builtin(TableId::Filter, Hook::Forward, policy, rules.to_vec());
        let (policy, counters) = builder.family();
        walk_at(&policy, counters, entry, frame, Nanos::from_secs(1000))
    };
    let walked = run(Indexing::Wide);
    assert_eq!(walked, run(Indexing::Exact));
    walked
}

fn tcp(dport: u16) -> Vec<u8> {
    Packet::tcp("198.18.1.2", 40000, "198.18.2.2", dport, 2).macs(Mac::default(), MAC).build()
}

#[test]
fn a_traced_packet_tells_of_every_rule_and_end_that_it_meets() {
    let bare = |target| Spec { bare: true, ..Spec::any(target) };
    let users = [
        vec![Spec::any(Target::Count)],
        vec![Spec::any(Target::Count), bare(Target::Return), Spec::any(Target::Drop)],
    ];
    let rules = [
        Spec::any(Target::Jump(ChainId(0))),
        Spec::any(Target::Report(ReportTarget::Trace)),
        Spec::any(Target::Jump(ChainId(0))),
        Spec::any(Target::Jump(ChainId(1))),
        Spec::any(Target::Goto(ChainId(0))),
    ];
    let walked = walk(&users, &rules, ChainPolicy::Accept, &tcp(80));
    let expected = [
        "chain2:rule:3",
        "chain0:rule:1",
        "chain0:return:2",
        "chain2:rule:4",
        "chain1:rule:1",
        "chain1:return:2",
        "chain2:rule:5",
        "chain0:rule:1",
        "chain0:return:2",
        "chain2:policy:6",
    ];
    assert_eq!(walked.logs, expected.map(|place| format!("TRACE: filter:{place} ")));
    let walked = walk(&[], &[rules[1].clone(), bare(Target::Drop)], ChainPolicy::Accept, &tcp(80));
    assert_eq!(walked.logs, ["TRACE: filter:chain0:policy:2 "]);
}

fn log(prefix: &str) -> Target {
    Target::Log(LogTarget {
        level: 4,
        prefix: prefix.into(),
        tcp_sequence: false,
        tcp_options: false,
        ip_options: false,
        uid: false,
        mac_decode: false,
    })
}

fn hits(walked: &Walked) -> Vec<u64> {
    walked.counters.iter().map(|pair| pair.0).collect()
}

#[test]
fn first_terminal_match_wins_and_counts_ip_bytes() {
    let rules = [
        Spec::any(Target::Count),
        Spec::any(Target::Drop).tcp_dport(23, 23),
        Spec::any(Target::Accept).tcp_dport(0, 79),
        Spec::any(Target::Reject(RejectWith::Icmp(3))),
    ];
    let walked = walk(&[], &rules, ChainPolicy::Accept, &tcp(23));
    assert_eq!(walked.verdict, Verdict::Drop(DropReason::Rule));
    assert_eq!(walked.counters, [(0, 0), (1, 40), (1, 40), (0, 0), (0, 0)]);
    assert_eq!(walk(&[], &rules, ChainPolicy::Accept, &tcp(22)).verdict, Verdict::Accept);
    let rejected = walk(&[], &rules, ChainPolicy::Accept, &tcp(80));
    assert_eq!(rejected.verdict, Verdict::Reject(RejectWith::Icmp(3)));
}

#[test]
fn a_policy_counts_only_packets_that_reach_it() {
    let rules = [Spec::any(Target::Accept).tcp_dport(1, 1)];
    let reached = walk(&[], &rules, ChainPolicy::Drop, &tcp(2));
    assert_eq!(reached.verdict, Verdict::Drop(DropReason::ChainPolicy));
    assert_eq!(hits(&reached), [1, 0]);
    assert_eq!(hits(&walk(&[], &rules, ChainPolicy::Drop, &tcp(1))), [0, 1]);
}

#[test]
fn return_in_a_built_in_chain_applies_the_policy() {
    let rules = [Spec::any(Target::Return), Spec::any(Target::Drop)];
    let walked = walk(&[], &rules, ChainPolicy::Accept, &tcp(1));
    assert_eq!((walked.verdict, hits(&walked)), (Verdict::Accept, vec![1, 1, 0]));
}

#[test]
fn jumps_nest_and_return_behind_the_caller() {
    let users = [
        vec![Spec::any(log("inner")), Spec::any(Target::Return), Spec::any(Target::Drop)],
        vec![Spec::any(Target::Jump(ChainId(0))), Spec::any(log("outer"))],
    ];
    let rules = [Spec::any(Target::Jump(ChainId(1))), Spec::any(log("main"))];
    let walked = walk(&users, &rules, ChainPolicy::Drop, &tcp(1));
    assert_eq!(walked.logs, ["inner", "outer", "main"]);
    assert_eq!(hits(&walked), [1, 1, 0, 1, 1, 1, 1, 1]);
    assert_eq!(walked.verdict, Verdict::Drop(DropReason::ChainPolicy));
}

#[test]
fn goto_returns_to_the_callers_caller() {
    let users = [
        vec![Spec::any(log("target"))],
        vec![Spec::any(Target::Goto(ChainId(0))), Spec::any(log("skipped"))],
    ];
    let rules = [Spec::any(Target::Jump(ChainId(1))), Spec::any(log("main"))];
    let walked = walk(&users, &rules, ChainPolicy::Accept, &tcp(1));
    assert_eq!(walked.logs, ["target", "main"]);
    // From a built-in chain there is no caller: the policy applies.
    let rules = [Spec::any(Target::Goto(ChainId(0))), Spec::any(log("skipped"))];
    let walked = walk(&users, &rules, ChainPolicy::Drop, &tcp(1));
    assert_eq!(walked.logs, ["target"]);
    assert_eq!(walked.verdict, Verdict::Drop(DropReason::ChainPolicy));
}

#[test]
fn marks_are_seen_by_later_rules() {
    let set = Target::Mark(MarkTarget { clear: 0xff, toggle: 0x21 });
    let rules = [
        Spec::any(Target::Drop).with(Match::Mark(Neg::plain((0x21, 0xff)))),
        Spec::any(set),
        Spec::any(Target::Drop).with(Match::Mark(Neg { negated: true, value: (0x21, 0xff) })),
        Spec::any(Target::Accept).with(Match::Mark(Neg::plain((0x20, 0xf0)))),
    ];
    let walked = walk(&[], &rules, ChainPolicy::Drop, &tcp(1));
    assert_eq!((walked.verdict, walked.mark), (Verdict::Accept, 0x21));
    assert_eq!(hits(&walked), [0, 0, 1, 0, 1]);
}

fn per_second(burst: u32) -> Match {
    Match::Limit(LimitCell::new(10_000, burst).unwrap().into())
}

fn multiport(ports: &[u16]) -> Match {
    let ports = ports.iter().map(|&port| Range { low: port, high: port }).collect();
    Match::Multiport(MultiportMatch { side: MultiportSide::Destination, ports: Neg::plain(ports) })
}

/// `-m limit -m multiport` spends a token before it looks at the ports.
#[test]
fn a_limit_written_first_spends_its_token_on_other_ports_too() {
    for indexing in [Indexing::Wide, Indexing::Exact] {
        for (matches, granted) in
            [([per_second(1), multiport(&[80])], false), ([multiport(&[80]), per_second(1)], true)]
        {
            let mut builder = Builder::new(indexing, 0);
            let rule = Spec { matches: matches.into(), ..Spec::any(Target::Accept).proto(6) };
            let (forward, drop) = (Hook::Forward, ChainPolicy::Drop);
            let entry = builder.builtin(TableId::Filter, forward, drop, vec![rule]);
            let (policy, counters) = builder.family();
            let verdict =
                |dport| walk_at(&policy, counters, entry, &tcp(dport), Nanos::from_secs(5)).verdict;
            assert_eq!(verdict(81), Verdict::Drop(DropReason::ChainPolicy));
            assert_eq!(verdict(80) == Verdict::Accept, granted, "{indexing:?}");
        }
    }
}

#[test]
fn limit_follows_simulated_time() {
    let rule = Spec::any(Target::Accept).with(per_second(2));
    let mut builder = Builder::new(Indexing::Exact, 0);
    let entry = builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Drop, vec![rule]);
    let (policy, counters) = builder.family();
    let at = |ms: u64| {
        let now = Nanos::from_millis(50_000 + ms);
        walk_at(&policy, counters, entry, &tcp(1), now).verdict == Verdict::Accept
    };
    let granted: Vec<bool> = [0, 0, 0, 996, 1000, 1001, 4000, 4000, 4000].map(at).into();
    assert_eq!(granted, [true, true, false, false, true, false, true, true, false]);
}

#[test]
fn an_unreadable_packet_is_dropped_only_by_a_rule_that_reads_it() {
    let short = Packet::tcp("198.18.1.2", 1, "198.18.2.2", 80, 2).truncate(14 + 20 + 12).length(32);
    let short = short.macs(Mac::default(), MAC).build();
    let other = Spec::any(Target::Count).src(0x0a00_0000, 0xff00_0000, false).tcp_dport(80, 80);
    let reads = Spec::any(Target::Count).tcp_dport(443, 443);
    let accept = Spec::any(Target::Accept);
    let passed = walk(&[], &[other.clone(), accept.clone()], ChainPolicy::Drop, &short);
    assert_eq!(passed.verdict, Verdict::Accept, "its source does not match");
    let shielded = walk(&[], &[accept.clone(), reads.clone()], ChainPolicy::Drop, &short);
    assert_eq!(shielded.verdict, Verdict::Accept, "not reached");
    let dropped = walk(&[], &[other, reads, accept], ChainPolicy::Accept, &short);
    assert_eq!(dropped.verdict, Verdict::Drop(DropReason::Hotdrop));
    assert_eq!(hits(&dropped), [0, 0, 0, 0]);
}

#[test]
fn multiport_reads_four_bytes_where_tcp_reads_twenty() {
    let short = Packet::tcp("198.18.1.2", 1, "198.18.2.2", 80, 2).truncate(14 + 20 + 12).length(32);
    let short = short.macs(Mac::default(), MAC).build();
    let rule = Spec::any(Target::Drop).proto(6).with(multiport(&[80]));
    let walked = walk(&[], &[rule], ChainPolicy::Accept, &short);
    assert_eq!(walked.verdict, Verdict::Drop(DropReason::Rule));
}

#[test]
fn fragments_have_no_ports_and_one_at_offset_eight_is_evil() {
    let at = |offset| {
        let packet = Packet::tcp("198.18.1.2", 1, "198.18.2.2", 80, 2).payload_len(100);
        packet.fragment(offset, 40, true).macs(Mac::default(), MAC).build()
    };
    let by_port = [Spec::any(Target::Drop).tcp_dport(80, 80)];
    assert_eq!(walk(&[], &by_port, ChainPolicy::Accept, &at(16)).verdict, Verdict::Accept);
    let evil = walk(&[], &by_port, ChainPolicy::Accept, &at(8)).verdict;
    assert_eq!(evil, Verdict::Drop(DropReason::Hotdrop));
    let mut tail = Spec::any(Target::Drop);
    tail.base.fragment = Some(true);
    let dropped = Verdict::Drop(DropReason::Rule);
    assert_eq!(walk(&[], &[tail.clone()], ChainPolicy::Accept, &at(16)).verdict, dropped);
    assert_eq!(walk(&[], &[tail.clone()], ChainPolicy::Accept, &tcp(80)).verdict, Verdict::Accept);
    tail.base.fragment = Some(false);
    assert_eq!(walk(&[], &[tail.clone()], ChainPolicy::Accept, &at(16)).verdict, Verdict::Accept);
    assert_eq!(walk(&[], &[tail], ChainPolicy::Accept, &tcp(80)).verdict, dropped);
}

#[test]
fn a_header_that_cannot_be_read_and_a_negation_count_and_drop() {
    use super::protocol::{ChunkScope, ProtocolMatch, SctpChunks, SctpMatch};
    let chunks = |negated| {
        let value = SctpChunks { scope: ChunkScope::Any, types: [2, 0, 0, 0], flags: [].into() };
        let chunks = Some(Neg { negated, value });
        let sctp = SctpMatch { chunks, ..SctpMatch::default() };
        Match::Protocol(ProtocolMatch::Sctp(Box::new(sctp)))
    };
    let rule = |negated| Spec::any(Target::Accept).proto(132).with(chunks(negated));
    let packet = |chunks: &[u8]| {
        let bytes = [&[0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0], chunks].concat();
        Packet::raw("198.18.1.2", "198.18.2.2", 132, &bytes).macs(Mac::default(), MAC).build()
    };
    let walked = |rules: &[Spec<u32>], chunks: &[u8]| {
        let walked = walk(&[], rules, ChainPolicy::Drop, &packet(chunks));
        (walked.verdict, walked.counters[1].0)
    };
    let hotdrop = Verdict::Drop(DropReason::Hotdrop);
    let (init, data) = ([1, 0, 0, 4], [0, 0, 0, 4]);
    assert_eq!(walked(&[rule(false)], &init), (Verdict::Accept, 1));
    assert_eq!(walked(&[rule(true)], &init), (Verdict::Drop(DropReason::ChainPolicy), 0));
    assert_eq!(walked(&[rule(true)], &data), (Verdict::Accept, 1));
    assert_eq!(walked(&[rule(false)], &[]), (hotdrop, 0));
    assert_eq!(walked(&[rule(true)], &[]), (hotdrop, 1), "counted, and not accepted");
    let never = Match::Length(Neg::plain(Range { low: 1, high: 0 }));
    assert_eq!(walked(&[rule(true).with(never)], &[]), (hotdrop, 0), "the rest did not hold");
    assert_eq!(walked(&[rule(false)], &[0, 0, 0, 0]), (hotdrop, 0), "a chunk without length");
}

fn outcome(one: Match, frame: &[u8]) -> Outcome {
    let (mut parsed, mut frame, conntrack) = (parsed(frame), frame.to_vec(), tracker());
    one.evaluate(&view(&mut frame, &mut parsed, &conntrack))
}

#[test]
fn tcp_options_are_searched_as_the_kernel_does() {
    let with = |options: &[u8]| {
        let packet = Packet::tcp("198.18.1.2", 1, "198.18.2.2", 80, 2).tcp_options(options);
        packet.macs(Mac::default(), MAC).build()
    };
    let find = |kind, negated| {
        let option = Some(Neg { negated, value: kind });
        Match::Tcp(TcpMatch { option, ..TcpMatch::default() })
    };
    let syn = with(&[2, 4, 5, 180, 1, 3, 3, 7]);
    for (kind, found) in [(2, true), (3, true), (8, false), (5, false), (7, false)] {
        assert_eq!(outcome(find(kind, false), &syn), found.into(), "{kind}");
        assert_eq!(outcome(find(kind, true), &syn), (!found).into(), "! {kind}");
    }
    // A zero length steps by one byte, an overlong one ends the list.
    assert_eq!(outcome(find(8, false), &with(&[9, 0, 8, 0])), Outcome::Yes);
    assert_eq!(outcome(find(8, false), &with(&[9, 200, 8, 0])), Outcome::No);
    assert_eq!(outcome(find(8, false), &with(&[])), Outcome::No);
    // A header length that the packet does not have.
    let mut lying = with(&[]);
    lying[14 + 20 + 12] = 0xf0;
    assert_eq!(outcome(find(8, false), &lying), Outcome::Hotdrop);
    lying[14 + 20 + 12] = 0x40;
    assert_eq!(outcome(find(8, false), &lying), Outcome::Hotdrop);
    // The other fields are judged first.
    let dport = Some(Neg::plain(Range { low: 1, high: 1 }));
    let option = Some(Neg::plain(8));
    let elsewhere = Match::Tcp(TcpMatch { dport, option, ..TcpMatch::default() });
    assert_eq!(outcome(elsewhere, &lying), Outcome::No);
}

#[test]
fn static_matches_compare_what_they_name() {
    let frame = Packet::tcp("198.18.1.2", 1, "198.18.2.2", 80, 0x12).ttl(9).tos(0xb9);
    let frame = frame.macs(Mac([9; 6]), MAC).build();
    let neg = |negated| Neg { negated, value: () };
    for (yes, negated) in [(true, false), (false, true)] {
        let not = |_: ()| neg(negated).negated;
        let expect = |one: Match| assert_eq!(outcome(one.clone(), &frame), yes.into(), "{one:?}");
        let range = |low, high| Neg { negated, value: Range { low, high } };
        expect(Match::Length(range(40, 40)));
        expect(Match::Dscp(Neg { negated, value: 0x2e }));
        expect(Match::Tos(Neg { negated, value: (0xb0, 0xf0) }));
        expect(Match::MacSource(Neg { negated, value: [9; 6] }));
        expect(Match::PktType(Neg { negated, value: PktType::Host }));
        let src = Some(Neg { negated, value: Range { low: 0xc612_0101, high: 0xc612_0102 } });
        expect(Match::IpRange(IpRangeMatch { src, dst: None }));
        let flags = Some(Neg { negated: not(()), value: (0x17, 0x12) });
        expect(Match::Tcp(TcpMatch { flags, ..TcpMatch::default() }));
    }
    assert_eq!(outcome(Match::Hops(HopCompare::Equal(9)), &frame), Outcome::Yes);
    assert_eq!(outcome(Match::Hops(HopCompare::NotEqual(9)), &frame), Outcome::No);
    assert_eq!(outcome(Match::Hops(HopCompare::Less(9)), &frame), Outcome::No);
    assert_eq!(outcome(Match::Hops(HopCompare::Greater(8)), &frame), Outcome::Yes);
}

#[test]
fn icmp_any_is_ipv4_only() {
    let ping = Packet::ping("198.18.1.2", "198.18.2.2", 1, 1).macs(Mac::default(), MAC).build();
    let icmp = |v6, kind, low, high| {
        Match::Icmp(IcmpMatch { v6, kind: Neg::plain((kind, Range { low, high })) })
    };
    assert_eq!(outcome(icmp(false, 8, 0, 255), &ping), Outcome::Yes);
    assert_eq!(outcome(icmp(false, 8, 1, 255), &ping), Outcome::No);
    assert_eq!(outcome(icmp(false, 255, 0, 255), &ping), Outcome::Yes);
    assert_eq!(outcome(icmp(true, 255, 0, 255), &ping), Outcome::No);
}

#[test]
fn without_a_connection_only_the_state_decides() {
    use super::state_class::{INVALID, NEW, UNTRACKED};
    let frame = tcp(80);
    let state = |negated, value| ConntrackMatch {
        state: Some(Neg { negated, value }),
        ..ConntrackMatch::default()
    };
    let expect = |one: ConntrackMatch, yes: bool| {
        assert_eq!(outcome(Match::Conntrack(one.clone()), &frame), yes.into(), "{one:?}");
    };
    expect(state(false, INVALID), true);
    expect(state(false, NEW | UNTRACKED), false);
    expect(state(true, NEW), true);
    let proto = Some(Neg::plain(17));
    expect(ConntrackMatch { proto, ..state(false, INVALID) }, true);
    expect(ConntrackMatch { proto, ..ConntrackMatch::default() }, false);
    let connmark = Match::Connmark(Neg { negated: true, value: (1, 1) });
    assert_eq!(outcome(connmark, &frame), Outcome::No);
}

#[test]
fn our_own_packets_have_no_mac_source() {
    let mut frame = tcp(80);
    let (mut parsed, conntrack) = (parsed(&frame), tracker());
    let own = PacketView { has_link_header: false, ..view(&mut frame, &mut parsed, &conntrack) };
    let not = Match::MacSource(Neg { negated: true, value: [7; 6] });
    assert_eq!(not.evaluate(&own), Outcome::No);
}

/// The oracle: every rule in order, every match in order, recursively.
fn naive(
    policy: &FamilyPolicy<u32>,
    chain: ChainId,
    packet: &mut PacketView<'_>,
    hits: &mut Vec<CounterId>,
) -> Option<Verdict> {
    let rules = &policy.chains[chain.0 as usize].rules;
    for rule in rules {
        let mut all = rule.base.evaluate(&packet.key(), packet.parsed);
        for one in &rule.matches {
            if all == Outcome::Yes {
                all = one.evaluate(packet);
            }
        }
        match all {
            Outcome::No => continue,
            Outcome::Hotdrop | Outcome::YesHotdrop => {
                return Some(Verdict::Drop(DropReason::Hotdrop));
            }
            Outcome::Yes => hits.push(rule.counter),
        }
        match &rule.target {
            Target::Accept => return Some(Verdict::Accept),
            Target::Drop => return Some(Verdict::Drop(DropReason::Rule)),
            Target::Reject(with) => return Some(Verdict::Reject(*with)),
            Target::Return => return None,
            Target::Goto(callee) => return naive(policy, *callee, packet, hits),
            Target::Jump(callee) => {
                if let Some(verdict) = naive(policy, *callee, packet, hits) {
                    return Some(verdict);
                }
            }
            Target::Mark(mark) => packet.mark = packet.mark & !mark.clear ^ mark.toggle,
            Target::Nat(_) | Target::Synproxy(_) => return Some(Verdict::Accept),
            Target::Count
            | Target::Log(_)
            | Target::Connmark(_)
            | Target::Header(_)
            | Target::Ct(_)
            | Target::Report(_)
            | Target::Tee(_)
            | Target::Meta(_)
            | Target::Set(_) => {}
        }
    }
    None
}

const USERS: u32 = 3;

fn any_target(chain: u32) -> impl Strategy<Value = Target> {
    let callee = (0..chain.max(1)).prop_map(ChainId);
    prop_oneof![
        2 => Just(Target::Count),
        2 => Just(Target::Accept),
        2 => Just(Target::Drop),
        1 => Just(Target::Return),
        1 => Just(Target::Reject(RejectWith::TcpReset)),
        1 => (0u32..4).prop_map(|toggle| Target::Mark(MarkTarget { clear: 3, toggle })),
        if chain == 0 { 0 } else { 4 } => callee.clone().prop_map(Target::Jump),
        if chain == 0 { 0 } else { 2 } => callee.prop_map(Target::Goto),
    ]
}

fn any_port_range() -> impl Strategy<Value = Neg<Range<u16>>> {
    (prop::sample::select(vec![0u16, 21, 22, 23, 80]), 0u16..3, any::<bool>())
        .prop_map(|(low, width, negated)| Neg { negated, value: Range { low, high: low + width } })
}

fn any_match() -> impl Strategy<Value = Match> {
    prop_oneof![
        any_port_range().prop_map(|ports| Match::Multiport(MultiportMatch {
            side: MultiportSide::Either,
            ports: Neg { negated: ports.negated, value: vec![ports.value].into() },
        })),
        (0u32..4, any::<bool>())
            .prop_map(|(value, negated)| Match::Mark(Neg { negated, value: (value, 3) })),
        (39u16..45).prop_map(|low| Match::Length(Neg::plain(Range { low, high: 1500 }))),
    ]
}

fn any_spec(chain: u32) -> impl Strategy<Value = Spec<u32>> {
    let address = prop::sample::select(vec![
        (0xc612_0102u32, u32::MAX),
        (0xc612_0100, 0xffff_ff00),
        (0xc612_0103, 0xffff_ff03),
        (0, 0),
    ]);
    let proto = prop::option::of(prop::sample::select(vec![6u8, 17]));
    let ports = prop::option::of(any_port_range());
    let base = (address, any::<bool>(), proto, ports, 1u64..4);
    (base, prop::collection::vec(any_match(), 0..2), any_target(chain)).prop_map(
        |((src, negated, proto, ports, ifaces), matches, target)| {
            let mut spec = Spec::any(target).src(src.0, src.1, negated && src.1 != 0);
            spec = spec.input(if ifaces == 3 { u64::MAX } else { ifaces });
            if let Some(proto) = proto {
                spec = spec.proto(proto);
                match proto {
                    6 => {
                        spec =
                            spec.with(Match::Tcp(TcpMatch { dport: ports, ..Default::default() }))
                    }
                    _ => {
                        spec =
                            spec.with(Match::Udp(UdpMatch { dport: ports, ..Default::default() }))
                    }
                }
                // Modules that read ports are loaded with `-p` only.
                matches.iter().for_each(|one| spec.matches.push(one.clone()));
            }
            spec
        },
    )
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let ends = (0xc612_0100u32..0xc612_0105, prop::sample::select(vec![20u16, 21, 22, 24, 80, 83]));
    let shape = prop_oneof![4 => Just(0), 1 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4)];
    (ends, any::<bool>(), shape, 0usize..8).prop_map(|((src, dport), is_tcp, shape, payload)| {
        let src = std::net::Ipv4Addr::from(src).to_string();
        let packet = match is_tcp {
            true => Packet::tcp(&src, 1000, "198.18.2.2", dport, 2),
            false => Packet::udp(&src, 22, "198.18.2.2", dport),
        };
        let packet = packet.macs(Mac::default(), MAC);
        match shape {
            1 => packet.payload_len(64).fragment(16, 32, false).build(),
            2 => packet.payload_len(64).fragment(8, 32, true).build(),
            3 => packet.length(26).truncate(14 + 26).build(),
            4 => packet.length(22).truncate(14 + 22).build(),
            _ => packet.payload_len(payload).build(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The walk through the classifier does what a walk rule by rule does.
    #[test]
    fn the_walk_equals_the_naive_walk(
        users in (
            prop::collection::vec(any_spec(0), 0..6),
            prop::collection::vec(any_spec(1), 0..6),
            prop::collection::vec(any_spec(2), 0..6),
        ),
        rules in prop::collection::vec(any_spec(USERS), 0..12),
        frames in prop::collection::vec(any_frame(), 1..20),
    ) {
        for indexing in [Indexing::Wide, Indexing::Exact] {
            let mut builder = Builder::new(indexing, 0);
            for user in [&users.0, &users.1, &users.2] {
                builder.user(TableId::Filter, user.clone());
            }
            let (forward, drop) = (Hook::Forward, ChainPolicy::Drop);
            let entry = builder.builtin(TableId::Filter, forward, drop, rules.clone());
            let (policy, counters) = builder.family();
            for frame in &frames {
                let walked = walk_at(&policy, counters, entry, frame, Nanos::from_secs(9));
                let (mut facts, mut frame) = (parsed(frame), frame.clone());
                let (parsed, conntrack) = (facts, tracker());
                let mut packet = view(&mut frame, &mut facts, &conntrack);
                let mut hits = Vec::new();
                let verdict = naive(&policy, entry, &mut packet, &mut hits).unwrap_or_else(|| {
                    hits.push(policy.chains[entry.0 as usize].policy.unwrap().1);
                    Verdict::Drop(DropReason::ChainPolicy)
                });
                prop_assert_eq!(walked.verdict, verdict);
                prop_assert_eq!(walked.mark, packet.mark);
                let mut expected = vec![(0, 0); counters as usize];
                for hit in hits {
                    let pair: &mut (u64, u64) = &mut expected[hit.0 as usize];
                    *pair = (pair.0 + 1, pair.1 + u64::from(parsed.l3_len));
                }
                let by_id: Vec<_> = counters_of(&policy).zip(walked.counters).collect();
                for (id, pair) in by_id {
                    prop_assert_eq!(pair, expected[id.0 as usize]);
                }
            }
        }
    }
}

#[test]
fn ct_is_heard_once_and_later_rules_see_it() {
    let state = |bits| {
        let state = Some(Neg::plain(bits));
        Match::Conntrack(ConntrackMatch { state, ..ConntrackMatch::default() })
    };
    let notrack = Target::Ct(CtTarget { notrack: true, ..CtTarget::default() });
    let zone = Some((ZoneScope::Both, ZoneId::Fixed(7)));
    let zone = Target::Ct(CtTarget { zone, ..CtTarget::default() });
    for (first, second, seen) in
        [(&notrack, &zone, state_class::UNTRACKED), (&zone, &notrack, state_class::NEW)]
    {
        let rules = [
            Spec::any(Target::Drop).with(state(seen)),
            Spec::any(first.clone()),
            Spec::any(second.clone()),
            Spec::any(Target::Drop).with(state(seen)),
        ];
        let walked = walk(&[], &rules, ChainPolicy::Accept, &tcp(80));
        assert_eq!((walked.verdict, walked.state), (Verdict::Drop(DropReason::Rule), seen));
        assert_eq!(hits(&walked), [0, 0, 1, 1, 1]);
    }
}
