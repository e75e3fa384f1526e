//! Which tables see which packets, in which order, with which facts.

use super::*;
use crate::policy::matches::{ConntrackMatch, HopCompare, Match, Neg};
use crate::policy::target::{ConnmarkTarget, LogTarget, MarkTarget, RejectWith, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId, state_class};

fn log(prefix: &str) -> Spec<u32> {
    Spec::any(Target::Log(LogTarget {
        level: 4,
        prefix: prefix.into(),
        tcp_sequence: false,
        tcp_options: false,
        ip_options: false,
        uid: false,
        mac_decode: false,
    }))
}

fn state(bits: u64) -> Match {
    let state = Some(Neg::plain(bits));
    Match::Conntrack(ConntrackMatch { state, ..ConntrackMatch::default() })
}

fn syn(dport: u16) -> Packet {
    Packet::tcp(CLIENT, 40000, SERVER, dport, SYN)
}

/// A logging rule in every built-in chain there is.
fn log_everywhere(builder: &mut Builder<u32>) {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    use TableId::{Filter, Mangle, Nat, Raw, Security};
    for (table, hooks) in [
        (Raw, &[Prerouting, Output][..]),
        (Mangle, &[Prerouting, Input, Forward, Output, Postrouting]),
        (Nat, &[Prerouting, Input, Output, Postrouting]),
        (Filter, &[Input, Forward, Output]),
        (Security, &[Input, Forward, Output]),
    ] {
        for &hook in hooks {
            let name = format!("{} {}", table.name(), hook.chain_name());
            builder.builtin(table, hook, ChainPolicy::Accept, vec![log(&name)]);
        }
    }
    builder.needs_conntrack = true;
}

fn logged(rig: &mut Rig) -> Vec<String> {
    rig.seen.logged.drain(..).map(|log| log.0).collect()
}

#[test]
fn tables_run_in_netfilters_order() {
    let mut rig = Rig::v4(log_everywhere);
    assert_eq!(rig.up(syn(80)).disposition, Disposition::Transmit(OUTSIDE));
    let forwarded = [
        "raw PREROUTING",
        "mangle PREROUTING",
        "nat PREROUTING",
        "mangle FORWARD",
        "filter FORWARD",
        "security FORWARD",
        "mangle POSTROUTING",
        "nat POSTROUTING",
    ];
    assert_eq!(logged(&mut rig), forwarded);
    // The answer, and any later packet, does not see nat.
    rig.down(Packet::tcp(SERVER, 80, CLIENT, 40000, SYN_ACK));
    let seen = logged(&mut rig);
    let rest: Vec<_> = forwarded.iter().filter(|name| !name.starts_with("nat")).collect();
    assert_eq!(seen.iter().collect::<Vec<_>>(), rest);

    let local = Packet::udp(CLIENT, 5000, "198.18.1.1", 53);
    assert_eq!(rig.up(local.clone()).disposition, Disposition::Deliver);
    let delivered = [
        "raw PREROUTING",
        "mangle PREROUTING",
        "nat PREROUTING",
        "mangle INPUT",
        "filter INPUT",
        "security INPUT",
        "nat INPUT",
    ];
    assert_eq!(logged(&mut rig), delivered);
    // Still NEW, but no longer the first.
    rig.up(local);
    assert!(logged(&mut rig).iter().all(|name| !name.starts_with("nat")));

    let own = rig.own(Packet::udp("198.18.2.1", 5000, SERVER, 53));
    assert_eq!(own.disposition, Disposition::Transmit(OUTSIDE));
    let sent = [
        "raw OUTPUT",
        "mangle OUTPUT",
        "nat OUTPUT",
        "filter OUTPUT",
        "security OUTPUT",
        "mangle POSTROUTING",
        "nat POSTROUTING",
    ];
    assert_eq!(logged(&mut rig), sent);
}

#[test]
fn a_nat_table_that_comes_later_sees_what_is_undecided_until_it_is_answered() {
    let mut rig = Rig::v4(|builder| builder.needs_conntrack = true);
    let query = |port| Packet::udp(CLIENT, port, SERVER, 53);
    assert_eq!(rig.up(query(5000)).disposition, Disposition::Transmit(OUTSIDE));
    let (mut v4, v6) = builders();
    log_everywhere(&mut v4);
    rig.snapshot = Snapshot::new(2, join(v4, v6), 1);
    // NEW, because nobody has answered, though not the first of its connection.
    for _ in 0..2 {
        rig.up(query(5000));
        assert_eq!(logged(&mut rig).len(), 8);
    }
    rig.down(Packet::udp(SERVER, 53, CLIENT, 5000));
    rig.up(query(5000));
    assert_eq!(logged(&mut rig).len(), 12);
    rig.up(query(5001));
    assert_eq!(logged(&mut rig).len(), 8);
    rig.up(query(5001));
    assert_eq!(logged(&mut rig).len(), 6, "decided by its first packet");
}

#[test]
fn a_dropped_first_packet_leaves_no_connection() {
    let mut chain = ChainId(0);
    let mut rig = Rig::v4(|builder| {
        let new = Spec::any(Target::Drop).tcp_dport(80, 80).with(state(state_class::NEW));
        let (forward, accept) = (Hook::Forward, ChainPolicy::Accept);
        chain = builder.builtin(TableId::Filter, forward, accept, vec![new]);
        builder.needs_conntrack = true;
    });
    for _ in 0..3 {
        assert_eq!(rig.up(syn(80)).disposition, dropped(DropReason::Rule));
        assert!(rig.conntrack.is_empty());
    }
    assert_eq!(rig.hits(chain), [3, 0]);
    assert_eq!(rig.up(syn(81)).disposition, Disposition::Transmit(OUTSIDE));
    assert_eq!(rig.conntrack.len(), 1);
}

#[test]
fn a_first_packet_whose_ttl_ends_leaves_no_connection() {
    let mut rig = Rig::v4(|builder| builder.needs_conntrack = true);
    assert_eq!(rig.up(syn(80).ttl(1)).disposition, dropped(DropReason::TtlExpired));
    assert!(rig.conntrack.is_empty());
    assert_eq!(rig.answer().0, INSIDE);
}

#[test]
fn established_follows_the_answer() {
    let mut chain = ChainId(0);
    let mut rig = Rig::v4(|builder| {
        let rules = [state_class::NEW, state_class::ESTABLISHED, state_class::INVALID];
        let rules = rules.map(|bits| Spec::any(Target::Accept).with(state(bits)));
        let (forward, drop) = (Hook::Forward, ChainPolicy::Drop);
        chain = builder.builtin(TableId::Filter, forward, drop, rules.into());
        builder.needs_conntrack = true;
    });
    rig.up(Packet::udp(CLIENT, 5000, SERVER, 53));
    rig.up(Packet::udp(CLIENT, 5000, SERVER, 53));
    rig.down(Packet::udp(SERVER, 53, CLIENT, 5000));
    rig.up(Packet::udp(CLIENT, 5000, SERVER, 53));
    rig.down(Packet::tcp(SERVER, 53, CLIENT, 5000, SYN_ACK));
    assert_eq!(rig.hits(chain), [2, 2, 1, 0]);
}

#[test]
fn without_a_rule_that_needs_it_nothing_is_tracked() {
    let mut rig = Rig::v4(|_| {});
    rig.up(syn(80));
    assert!(rig.conntrack.is_empty());
}

#[test]
fn forward_sees_the_ttl_already_lowered() {
    let mut chains = (ChainId(0), ChainId(0));
    let mut rig = Rig::v4(|builder| {
        let is = |ttl| Spec::any(Target::Count).with(Match::Hops(HopCompare::Equal(ttl)));
        let mut at =
            |hook| builder.builtin(TableId::Mangle, hook, ChainPolicy::Accept, vec![is(10), is(9)]);
        chains = (at(Hook::Prerouting), at(Hook::Forward));
    });
    rig.up(syn(80).ttl(10));
    assert_eq!((rig.hits(chains.0), rig.hits(chains.1)), (vec![1, 0, 1], vec![0, 1, 1]));
}

#[test]
fn interfaces_are_known_where_the_kernel_knows_them() {
    let mut chains = Vec::new();
    let mut rig = Rig::v4(|builder| {
        let specs = || {
            vec![
                Spec::any(Target::Count).input(INSIDE.bit()),
                Spec::any(Target::Count).output(OUTSIDE.bit()),
                Spec::any(Target::Count).input(!INSIDE.bit() & !(1 << 62)),
            ]
        };
        for hook in Hook::ALL {
            chains.push(builder.builtin(TableId::Mangle, hook, ChainPolicy::Accept, specs()));
        }
    });
    rig.up(syn(80));
    let hits: Vec<_> = chains.iter().map(|&chain| rig.hits(chain)).collect();
    assert_eq!(hits[Hook::Prerouting as usize], [1, 0, 0, 1]);
    assert_eq!(hits[Hook::Forward as usize], [1, 1, 0, 1]);
    assert_eq!(hits[Hook::Postrouting as usize], [1, 1, 0, 1], "the input is still known");
    rig.own(Packet::udp("198.18.2.1", 5000, SERVER, 53));
    assert_eq!(rig.hits(chains[Hook::Output as usize]), [0, 1, 1, 1]);
    assert_eq!(rig.hits(chains[Hook::Postrouting as usize]), [1, 2, 1, 2]);
}

#[test]
fn marks_route_and_do_not_leak_between_packets() {
    let mut topology = topology();
    topology.rules =
        vec![rule(100, Some((0x20, 0xff)), 100), rule(0, None, 255), rule(32766, None, 254)];
    let refuse = RouteEntry { table: 100, ..super::route(("0.0.0.0", 0), RouteKind::Blackhole) };
    topology.routes = vec![refuse];
    let (mut v4, v6) = builders();
    let set = Target::Mark(MarkTarget { clear: 0xff, toggle: 0x20 });
    let rules = vec![Spec::any(set).tcp_dport(80, 80)];
    v4.builtin(TableId::Mangle, Hook::Prerouting, ChainPolicy::Accept, rules);
    let marked =
        Spec::any(Target::Count).with(Match::Mark(Neg { negated: true, value: (0, u32::MAX) }));
    let chain = v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![marked]);
    let mut rig = Rig::new(&topology, join(v4, v6));
    for _ in 0..2 {
        assert_eq!(rig.up(syn(80)).disposition, dropped(DropReason::RouteRefused));
        assert_eq!(rig.up(syn(81)).disposition, Disposition::Transmit(OUTSIDE));
    }
    assert_eq!(rig.hits(chain), [0, 2]);
    assert_eq!(rig.seen.outcomes.iter().map(|o| o.mark).collect::<Vec<_>>(), [0x20, 0, 0x20, 0]);
}

fn rule(priority: u32, fwmark: Option<(u32, u32)>, table: u32) -> crate::fib::RuleEntry {
    let family = crate::packet::Family::V4;
    let realms = Default::default();
    crate::fib::RuleEntry {
        family,
        priority,
        fwmark,
        from: None,
        to: None,
        iif: None,
        table,
        realms,
    }
}

#[test]
fn connmark_saves_and_restores_under_masks() {
    let mut chain = ChainId(0);
    let mut rig = Rig::v4(|builder| {
        let restore = ConnmarkTarget::Restore { nfmask: 0xff, ctmask: 0xff };
        let save = ConnmarkTarget::Save { nfmask: 0x0f, ctmask: 0xff };
        let mark = Match::Mark(Neg::plain((0x05, u32::MAX)));
        let rules = vec![
            Spec::any(Target::Connmark(restore)),
            Spec::any(Target::Return).with(mark),
            Spec::any(Target::Mark(MarkTarget { clear: u32::MAX, toggle: 0x35 })),
            Spec::any(Target::Connmark(save)),
        ];
        let (prerouting, accept) = (Hook::Prerouting, ChainPolicy::Accept);
        chain = builder.builtin(TableId::Mangle, prerouting, accept, rules);
        builder.needs_conntrack = true;
    });
    rig.up(Packet::udp(CLIENT, 5000, SERVER, 53));
    rig.down(Packet::udp(SERVER, 53, CLIENT, 5000));
    assert_eq!(rig.hits(chain), [2, 1, 1, 1, 2]);
    let marks: Vec<u32> = rig.seen.outcomes.iter().map(|outcome| outcome.mark).collect();
    assert_eq!(marks, [0x35, 0x05]);
}

#[test]
fn a_rejected_packet_is_answered_through_output_as_related() {
    let mut chains = (ChainId(0), ChainId(0));
    let mut rig = Rig::v4(|builder| {
        let reject = Spec::any(Target::Reject(RejectWith::Icmp(3))).udp_dport(53, 53);
        builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![reject]);
        let is = |bits| Spec::any(Target::Count).with(state(bits));
        let rules = vec![is(state_class::RELATED), is(state_class::NEW)];
        chains.0 = builder.builtin(TableId::Filter, Hook::Output, ChainPolicy::Accept, rules);
        let (nat, postrouting) = (TableId::Nat, Hook::Postrouting);
        chains.1 = builder.builtin(nat, postrouting, ChainPolicy::Accept, vec![]);
        builder.needs_conntrack = true;
    });
    let sent = rig.up(Packet::udp(CLIENT, 5000, SERVER, 53));
    assert_eq!(sent.disposition, dropped(DropReason::Reject));
    assert!(rig.seen.outcomes[0].rejected);
    assert!(rig.conntrack.is_empty());
    let (port, frame) = rig.answer();
    assert_eq!(port, INSIDE);
    assert_eq!(&frame[..12], [HOST_MACS[0].0, PORT_MACS[0].0].concat());
    assert_eq!(frame[14 + 20..14 + 22], [3, 3]);
    assert_eq!(frame[14 + 20 + 8 + 8], 63, "quoted as FORWARD saw it");
    assert_eq!(rig.hits(chains.0), [1, 0, 1]);
    assert_eq!(rig.hits(chains.1), [0], "an ICMP error never sees nat");
}

#[test]
fn a_reset_for_a_first_packet_sees_nat_postrouting_once() {
    let mut chains = (ChainId(0), ChainId(0));
    let mut rig = Rig::v4(|builder| {
        let reject = Spec::any(Target::Reject(RejectWith::TcpReset)).tcp_dport(80, 80);
        builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![reject]);
        let mut nat = |hook| builder.builtin(TableId::Nat, hook, ChainPolicy::Accept, vec![]);
        chains = (nat(Hook::Output), nat(Hook::Postrouting));
        builder.needs_conntrack = true;
    });
    rig.up(syn(80));
    let (port, frame) = rig.answer();
    assert_eq!((port, frame[14 + 20 + 13]), (INSIDE, 0x14));
    assert_eq!(rig.counts(chains.0), [(0, 0)], "its destination was decided before");
    assert_eq!(rig.counts(chains.1), [(1, 40)]);
    assert!(rig.conntrack.is_empty());
}

#[test]
fn a_reset_closes_an_established_connection() {
    use crate::conntrack::TcpState;
    let mut rig = Rig::v4(|builder| {
        let reject = Spec::any(Target::Reject(RejectWith::TcpReset))
            .tcp_dport(80, 80)
            .with(Match::Length(Neg::plain(crate::policy::matches::Range { low: 50, high: 99 })));
        builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![reject]);
        builder.needs_conntrack = true;
    });
    rig.up(syn(80).seq(100, 0));
    rig.down(Packet::tcp(SERVER, 80, CLIENT, 40000, SYN_ACK).seq(500, 101));
    rig.up(Packet::tcp(CLIENT, 40000, SERVER, 80, 0x10).seq(101, 501));
    let state = |rig: &Rig| rig.conntrack.rows(rig.now).next().unwrap().view.tcp;
    assert_eq!(state(&rig), Some(TcpState::Established));
    rig.up(Packet::tcp(CLIENT, 40000, SERVER, 80, 0x18).seq(101, 501).payload_len(20));
    assert_eq!(state(&rig), Some(TcpState::Close));
}

#[test]
fn with_tracking_on_fragments_wait_and_without_it_they_pass() {
    let fragment =
        || Packet::udp(CLIENT, 5000, SERVER, 53).payload_len(100).fragment(24, 40, false);
    let mut rig = Rig::v4(|_| {});
    assert_eq!(rig.up(fragment()).disposition, Disposition::Transmit(OUTSIDE));
    let mut rig = Rig::v4(|builder| builder.needs_conntrack = true);
    assert_eq!(rig.up(fragment()).disposition, Disposition::Collected);
}

/// As the kernel's rules were seen to: `what_rules_see_in_the_kernel`.
#[test]
fn rules_see_options_as_far_as_they_are_filled_in() {
    let mut rig = Rig::v4(log_everywhere);
    let packet = |to| Packet::udp(CLIENT, 5000, to, 53).options(&[7, 7, 4, 0, 0, 0, 0, 1]);
    for (to, times) in [(SERVER, 8), ("198.18.1.1", 7)] {
        rig.up(packet(to));
        let logged: Vec<_> = rig.seen.logged.drain(..).collect();
        assert_eq!(logged.len(), times);
        for (name, _, _, frame) in logged {
            let expected = match name.split_once(' ').unwrap().1 {
                "PREROUTING" => [7, 7, 4, 0, 0, 0, 0],
                "POSTROUTING" => [7, 7, 8, 198, 18, 2, 1],
                _ => [7, 7, 8, 198, 18, 1, 1],
            };
            assert_eq!(frame[34..41], expected, "{name}");
        }
    }
}
