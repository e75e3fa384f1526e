//! The machine's own packets.

use super::*;
use crate::fib::{Realms, RuleEntry};
use crate::packet::Family;
use crate::policy::matches::{Match, Neg};
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

/// A next hop that only the kernel knows.
const FAR: Mac = Mac([2, 9, 9, 9, 9, 9]);

#[test]
fn the_kernels_own_decision_stays() {
    let ports =
        || [INSIDE, OUTSIDE].map(|port| Spec::any(Target::Count).output(port.bit())).to_vec();
    let (mut output, mut postrouting) = (ChainId(0), ChainId(0));
    let mut rig = Rig::v4(|builder| {
        let accept = ChainPolicy::Accept;
        output = builder.builtin(TableId::Filter, Hook::Output, accept, ports());
        postrouting = builder.builtin(TableId::Mangle, Hook::Postrouting, accept, ports());
    });
    for (number, dst) in [SERVER, "192.0.2.1", "224.0.0.5", "169.254.1.1"].into_iter().enumerate() {
        // Nobody knows a neighbour there, and the table would send some elsewhere.
        let sent = rig.handed(INSIDE, FAR, [0; 6], query(dst));
        assert_eq!(sent.disposition, Disposition::Transmit(INSIDE), "{dst}");
        assert_eq!(sent.frame, query(dst).macs(PORT_MACS[0], FAR).build());
        let hits = number as u64 + 1;
        assert_eq!(rig.hits(output), [hits, 0, hits], "OUTPUT sees the kernel's port");
        assert_eq!(rig.hits(postrouting), [hits, 0, hits]);
    }
    assert!(rig.seen.wanted.is_empty());
}

/// A rule that sends packets with mark 1 to the inside, by way of the client.
fn detour() -> Topology {
    let mut topology = topology();
    let rule = |priority, fwmark, table| RuleEntry {
        family: Family::V4,
        priority,
        fwmark,
        from: None,
        to: None,
        iif: None,
        table,
        realms: Realms::default(),
    };
    topology.rules = vec![rule(0, None, 255), rule(9, Some((1, 1)), 100), rule(32766, None, 254)];
    let detour = RouteEntry {
        table: 100,
        via: Some(ip(CLIENT)),
        ..route(("0.0.0.0", 0), RouteKind::Unicast(INSIDE))
    };
    topology.routes = vec![detour];
    topology
}

/// What the tcx program says of a packet with that mark.
fn said(flags: u8, mark: u32) -> [u8; 6] {
    let [a, b, c, d] = mark.to_ne_bytes();
    [flags, 0, a, b, c, d]
}

#[test]
fn a_sockets_mark_is_seen_and_is_no_change() {
    let (mut v4, v6) = builders();
    let marked = |value| Match::Mark(Neg { value: (value, u32::MAX), negated: false });
    let rules =
        vec![Spec::any(Target::Count).with(marked(1)), Spec::any(Target::Drop).with(marked(7))];
    let chain = v4.builtin(TableId::Mangle, Hook::Output, ChainPolicy::Accept, rules);
    let mut rig = Rig::new(&detour(), join(v4, v6));
    let sent = rig.handed(OUTSIDE, FAR, said(0, 1), query(SERVER));
    assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE), "as the kernel has it");
    assert_eq!(rig.hits(chain), [1, 0, 1]);
    assert_eq!(
        rig.handed(OUTSIDE, FAR, said(0, 7), query(SERVER)).disposition,
        dropped(DropReason::Rule)
    );
    assert_eq!(rig.own(query(SERVER)).disposition, Disposition::Transmit(OUTSIDE));
}

#[test]
fn a_changed_mark_routes_anew_what_no_socket_has_bound() {
    let (mut v4, v6) = builders();
    let mark = Spec::any(Target::Mark(MarkTarget { clear: 1, toggle: 1 }));
    v4.builtin(TableId::Mangle, Hook::Output, ChainPolicy::Accept, vec![mark]);
    let mut rig = Rig::new(&detour(), join(v4, v6));
    let sent = rig.handed(OUTSIDE, FAR, said(0, 0), query(SERVER));
    assert_eq!(sent.disposition, Disposition::Transmit(INSIDE));
    assert_eq!(sent.frame, query(SERVER).macs(PORT_MACS[0], HOST_MACS[0]).build());
    let sent = rig.handed(OUTSIDE, FAR, said(1, 0), query(SERVER));
    assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE), "its socket is bound there");
    assert_eq!(sent.frame, query(SERVER).macs(PORT_MACS[1], FAR).build());
    // On the port that it is bound to anyway, the new way holds.
    let sent = rig.handed(INSIDE, FAR, said(1, 0), query(SERVER));
    assert_eq!(sent.frame, query(SERVER).macs(PORT_MACS[0], HOST_MACS[0]).build());
}

#[test]
fn groups_and_everybody_leave_by_their_senders_port() {
    let mut rig = Rig::v4(|_| {});
    for (dst, mac) in [
        ("224.129.2.3", [1, 0, 0x5e, 1, 2, 3]),
        ("255.255.255.255", [0xff; 6]),
        ("198.18.2.255", [0xff; 6]),
    ] {
        let sent = rig.own(query(dst));
        assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE), "{dst}");
        assert_eq!(sent.frame, query(dst).macs(PORT_MACS[1], Mac(mac)).build());
    }
}

#[test]
fn a_mark_in_mangle_output_routes_again() {
    let (mut v4, v6) = builders();
    let mark = Spec::any(Target::Mark(MarkTarget { clear: 1, toggle: 1 }));
    v4.builtin(TableId::Mangle, Hook::Output, ChainPolicy::Accept, vec![mark]);
    let ports =
        || [INSIDE, OUTSIDE].map(|port| Spec::any(Target::Count).output(port.bit())).to_vec();
    let filter = v4.builtin(TableId::Filter, Hook::Output, ChainPolicy::Accept, ports());
    let (mangle, postrouting) = (TableId::Mangle, Hook::Postrouting);
    let after = v4.builtin(mangle, postrouting, ChainPolicy::Accept, ports());
    let mut rig = Rig::new(&detour(), join(v4, v6));
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

#[test]
fn what_loopback_sends_is_the_kernels_unless_it_answers_a_translated_connection() {
    let mut chain = ChainId(0);
    let mut rig = Rig::v4(|builder| {
        let count = vec![Spec::any(Target::Count)];
        chain = builder.builtin(TableId::Filter, Hook::Output, ChainPolicy::Drop, count);
        builder.needs_conntrack = true;
    });
    let answer = || Packet::udp("127.0.0.1", 8083, "198.18.2.1", 4000);
    let looped = rig.handed(PortId::LOOPBACK, Mac::default(), said(3, 0), answer());
    assert_eq!(looped.disposition, Disposition::Deliver);
    assert_eq!(looped.frame[14..], answer().build()[14..]);
    assert_eq!(rig.hits(chain), [0, 0]);
    // One that a replay sends by loopback is a packet of our own as any other.
    assert!(matches!(rig.own(answer()).disposition, Disposition::Drop(_)));
    assert_eq!(rig.hits(chain), [1, 1]);
}
