//! The machine's own packets.

use super::*;
use crate::fib::RuleEntry;
use crate::packet::Family;
use crate::policy::target::{MarkTarget, RejectWith, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};

fn query(dst: &str) -> Packet {
    Packet::udp("198.18.2.1", 5000, dst, 53)
}

#[test]
fn leaves_with_its_ttl_and_fresh_addresses() {
    let mut rig = Rig::v4(|_| {});
    let sent = rig.own(query(SERVER).ttl(1));
    assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE));
    assert_eq!(sent.frame, query(SERVER).ttl(1).macs(PORT_MACS[1], HOST_MACS[1]).build());
}

#[test]
fn output_drops_and_without_a_route_nothing_is_asked() {
    let mut chain = ChainId(0);
    let mut rig = Rig::v4(|builder| {
        let drop = Spec::any(Target::Drop).udp_dport(53, 53);
        chain = builder.builtin(TableId::Filter, Hook::Output, ChainPolicy::Accept, vec![drop]);
        builder.needs_conntrack = true;
    });
    assert_eq!(rig.own(query(SERVER)).disposition, dropped(DropReason::Rule));
    assert!(rig.conntrack.is_empty());
    assert_eq!(rig.own(query("192.0.2.1")).disposition, dropped(DropReason::NoRoute));
    assert_eq!(rig.hits(chain), [1, 0]);
}

#[test]
fn a_mark_in_mangle_output_routes_again() {
    let mut topology = topology();
    let rule = |priority, fwmark, table| RuleEntry {
        family: Family::V4,
        priority,
        fwmark,
        from: None,
        to: None,
        iif: None,
        table,
    };
    topology.rules = vec![rule(0, None, 255), rule(9, Some((1, 1)), 100), rule(32766, None, 254)];
    let detour = RouteEntry {
        table: 100,
        via: Some(ip(CLIENT)),
        ..route(("0.0.0.0", 0), RouteKind::Unicast(INSIDE))
    };
    topology.routes = vec![detour];
    let (mut v4, v6) = builders();
    let mark = Spec::any(Target::Mark(MarkTarget { clear: 1, toggle: 1 }));
    v4.builtin(TableId::Mangle, Hook::Output, ChainPolicy::Accept, vec![mark]);
    let ports =
        || [INSIDE, OUTSIDE].map(|port| Spec::any(Target::Count).output(port.bit())).to_vec();
    let filter = v4.builtin(TableId::Filter, Hook::Output, ChainPolicy::Accept, ports());
    let (mangle, postrouting) = (TableId::Mangle, Hook::Postrouting);
    let after = v4.builtin(mangle, postrouting, ChainPolicy::Accept, ports());
    let mut rig = Rig::new(&topology, join(v4, v6));
    let sent = rig.own(query(SERVER));
    assert_eq!(sent.disposition, Disposition::Transmit(INSIDE));
    assert_eq!(sent.frame[..6], HOST_MACS[0].0);
    assert_eq!(rig.hits(filter), [0, 1, 1], "OUTPUT keeps its first decision");
    assert_eq!(rig.hits(after), [1, 0, 1]);
}

#[test]
fn a_rejected_own_packet_is_told_to_this_machine() {
    let (mut chain, mut input) = (ChainId(0), ChainId(0));
    let lo = PortId::LOOPBACK.bit();
    let mut rig = Rig::v4(|builder| {
        let reject = Spec::any(Target::Reject(RejectWith::Icmp(3))).udp_dport(53, 53);
        let rules = vec![reject, Spec::any(Target::Count).output(lo)];
        chain = builder.builtin(TableId::Filter, Hook::Output, ChainPolicy::Accept, rules);
        let rules = vec![Spec::any(Target::Accept).input(lo)];
        input = builder.builtin(TableId::Filter, Hook::Input, ChainPolicy::Drop, rules);
        builder.needs_conntrack = true;
    });
    assert_eq!(rig.own(query(SERVER)).disposition, dropped(DropReason::Reject));
    assert!(rig.seen.emitted.is_empty());
    assert_eq!(rig.seen.delivered.len(), 1);
    assert_eq!(rig.hits(chain), [1, 1, 1], "the answer passed OUTPUT too");
    assert_eq!(rig.hits(input), [1, 0], "and came in again");
}

#[test]
fn answers_to_answers_are_bounded() {
    let mut rig = Rig::v4(|builder| {
        let reject = |with| vec![Spec::any(Target::Reject(with)).proto(6)];
        let accept = ChainPolicy::Accept;
        let reset = reject(RejectWith::TcpReset);
        builder.builtin(TableId::Filter, Hook::Forward, accept, reset);
        let any = vec![Spec::any(Target::Reject(RejectWith::Icmp(3)))];
        builder.builtin(TableId::Filter, Hook::Output, accept, any);
        builder.needs_conntrack = true;
    });
    let syn = Packet::tcp(CLIENT, 40000, SERVER, 80, SYN);
    assert_eq!(rig.up(syn).disposition, dropped(DropReason::Reject));
    assert!(rig.seen.emitted.is_empty());
    assert_eq!(rig.stats.drops(DropReason::Reject), 2, "the reset, and the error about it");
}
