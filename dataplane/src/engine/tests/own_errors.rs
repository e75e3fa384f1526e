//! Errors that this machine itself is told, and what it says to a link-local
//! address: each once differed from the kernel (`seeds_that_once_differed` in
//! `control/tests/differential.rs` has the packets).

use super::*;
use crate::fib::RuleEntry;
use crate::packet::Family;
use crate::policy::target::{MarkTarget, RejectWith, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};

const OWN: [&str; 2] = ["198.18.1.1", "198.18.2.1"];
const OWN6: [&str; 2] = ["2001:db8:1::1", "2001:db8:2::1"];
/// "Port unreachable" of each family.
const REFUSAL: RejectWith = RejectWith::Icmp(3);
const REFUSAL6: RejectWith = RejectWith::Icmp6(4);

/// Refuses UDP to port 53 at one hook.
fn refuse_at(hook: Hook) -> Rig {
    let (mut v4, mut v6) = builders();
    let accept = ChainPolicy::Accept;
    let rules = vec![Spec::any(Target::Reject(REFUSAL)).udp_dport(53, 53)];
    v4.builtin(TableId::Filter, hook, accept, rules);
    let rules = vec![Spec::any(Target::Reject(REFUSAL6)).udp_dport(53, 53)];
    v6.builtin(TableId::Filter, hook, accept, rules);
    Rig::new(&topology(), join(v4, v6))
}

fn query(src: &str, dst: &str) -> Packet {
    Packet::udp(src, 5000, dst, 53)
}

/// Source and destination of the one frame that was delivered.
fn told(rig: &mut Rig) -> [IpAddr; 2] {
    assert_eq!(rig.seen.delivered.len(), 1, "{:?}", rig.seen.delivered);
    assert!(rig.seen.emitted.is_empty());
    let frame = rig.seen.delivered.remove(0);
    let v4 = |at: usize| IpAddr::from(*frame[at..].first_chunk::<4>().unwrap());
    let v6 = |at: usize| IpAddr::from(*frame[at..].first_chunk::<16>().unwrap());
    if frame[14] >> 4 == 4 { [v4(26), v4(30)] } else { [v6(22), v6(38)] }
}

#[test]
fn an_error_about_a_packet_between_own_addresses_comes_from_its_destination() {
    for hook in [Hook::Output, Hook::Input] {
        let mut rig = refuse_at(hook);
        for [near, far] in [OWN, OWN6] {
            let sent = rig.own(query(near, far));
            assert_eq!(sent.disposition, dropped(DropReason::Reject), "{hook:?} {far}");
            assert_eq!(told(&mut rig), [ip(far), ip(near)], "{hook:?}");
        }
    }
}

#[test]
fn an_error_about_a_packet_of_our_own_to_others_comes_from_its_source() {
    let mut rig = refuse_at(Hook::Output);
    for (near, far) in [(OWN[1], SERVER), (OWN6[1], SERVER6)] {
        assert_eq!(rig.own(query(near, far)).disposition, dropped(DropReason::Reject));
        assert_eq!(told(&mut rig), [ip(near), ip(near)]);
    }
}

/// Counts what a frame from the wire in our own name makes of OUTPUT and INPUT on
/// loopback; refuses UDP to port 53 in FORWARD and INPUT.
fn with_own_source(packet: Packet) -> (Rig, Sent, [Vec<u64>; 2]) {
    let (v4, mut v6) = builders();
    let (accept, lo) = (ChainPolicy::Accept, PortId::LOOPBACK.bit());
    let refuse = || vec![Spec::any(Target::Reject(REFUSAL6)).udp_dport(53, 53)];
    v6.builtin(TableId::Filter, Hook::Forward, accept, refuse());
    v6.builtin(TableId::Filter, Hook::Input, accept, refuse());
    let count = vec![Spec::any(Target::Count).output(lo)];
    let output = v6.builtin(TableId::Mangle, Hook::Output, accept, count);
    let count = vec![Spec::any(Target::Count).input(lo)];
    let input = v6.builtin(TableId::Mangle, Hook::Input, accept, count);
    let mut rig = Rig::new(&topology(), join(v4, v6));
    let sent = rig.up(packet);
    let hits = [output, input].map(|chain| rig.hits6(chain));
    (rig, sent, hits)
}

#[test]
fn an_ipv6_frame_in_our_own_name_is_answered_to_ourselves() {
    let [near, ours] = OWN6;
    for (packet, reason) in [
        (query(ours, SERVER6), DropReason::Reject),
        (Packet::udp(ours, 5000, SERVER6, 54).ttl(1), DropReason::TtlExpired),
        (query(ours, "2001:db8:dead::1"), DropReason::NoRoute),
    ] {
        let (mut rig, sent, hits) = with_own_source(packet);
        assert_eq!(sent.disposition, dropped(reason));
        assert_eq!(told(&mut rig), [ip(ours), ip(ours)], "{reason:?}");
        assert_eq!(hits, [[1, 1], [1, 1]], "{reason:?}: out and in again by loopback");
    }
    // One that is addressed to us is answered in the name of that address.
    let (mut rig, sent, hits) = with_own_source(query(ours, near));
    assert_eq!(sent.disposition, dropped(DropReason::Reject));
    assert_eq!(told(&mut rig), [ip(near), ip(ours)]);
    assert_eq!(hits, [vec![1, 1], vec![1, 2]], "the frame came by its port");
}

#[test]
fn an_ipv4_frame_in_our_own_name_is_martian() {
    let mut rig = refuse_at(Hook::Forward);
    assert_eq!(rig.up(query(OWN[1], SERVER)).disposition, dropped(DropReason::MartianSource));
    assert!(rig.seen.delivered.is_empty() && rig.seen.emitted.is_empty());
}

/// The first port's own link-local address, and one behind it.
const LINK_LOCAL: &str = "fe80::ff:fe00:101";
const LINK_NEIGHBOUR: &str = "fe80::99";
const LINK_NEIGHBOUR_MAC: Mac = Mac([2, 0, 0, 0, 1, 0x99]);

/// OUTPUT marks everything, and marked packets have a gateway on `port`.
fn marked_gateway(port: PortId, gateway: &str) -> Rig {
    let mut topology = topology();
    let rule = |priority, fwmark, table| RuleEntry {
        family: Family::V6,
        priority,
        fwmark,
        from: None,
        to: None,
        iif: None,
        table,
    };
    topology.rules = vec![rule(0, None, 255), rule(9, Some((1, 1)), 100), rule(32766, None, 254)];
    let gateway = Some(ip(gateway));
    let default = route(("::", 0), RouteKind::Unicast(port));
    topology.routes = vec![RouteEntry { table: 100, via: gateway, ..default }];
    let (address, mac) = (ip(LINK_NEIGHBOUR), LINK_NEIGHBOUR_MAC);
    topology.neighbours.push(NeighbourEntry { port: INSIDE, address, mac });
    let (v4, mut v6) = builders();
    let mark = Spec::any(Target::Mark(MarkTarget { clear: 1, toggle: 1 })).udp_dport(53, 53);
    v6.builtin(TableId::Mangle, Hook::Output, ChainPolicy::Accept, vec![mark]);
    Rig::new(&topology, join(v4, v6))
}

#[test]
fn a_marked_packet_to_a_link_local_address_follows_a_gateway_on_its_link() {
    let marked = || query(LINK_LOCAL, LINK_NEIGHBOUR);
    let plain = || Packet::udp(LINK_LOCAL, 5000, LINK_NEIGHBOUR, 54);
    let mut rig = marked_gateway(INSIDE, CLIENT6);
    for (packet, mac) in [(marked(), HOST_MACS[0]), (plain(), LINK_NEIGHBOUR_MAC)] {
        let sent = rig.own(packet.clone());
        assert_eq!(sent.disposition, Disposition::Transmit(INSIDE));
        assert_eq!(sent.frame, packet.macs(PORT_MACS[0], mac).build());
    }
    let sent = rig.handed(INSIDE, LINK_NEIGHBOUR_MAC, [0; 6], marked());
    assert_eq!(sent.frame, marked().macs(PORT_MACS[0], HOST_MACS[0]).build());
    // A gateway elsewhere is none: the address means nothing there.
    let mut rig = marked_gateway(OUTSIDE, SERVER6);
    for sent in [rig.own(marked()), rig.handed(INSIDE, LINK_NEIGHBOUR_MAC, [0; 6], marked())] {
        assert_eq!(sent.disposition, Disposition::Transmit(INSIDE));
        assert_eq!(sent.frame, marked().macs(PORT_MACS[0], LINK_NEIGHBOUR_MAC).build());
    }
}
