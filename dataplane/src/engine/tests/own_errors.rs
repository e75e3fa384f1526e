//! Errors that this machine itself is told or that are about its own answers, and
//! what it says to a link-local address: each once differed from the kernel
//! (`seeds_that_once_differed` in `control/tests/differential.rs` has the packets).

use super::*;
use crate::fib::{Realms, RuleEntry};
use crate::packet::Family;
use crate::policy::matches::Range;
use crate::policy::target::{MarkTarget, NatRange, NatTarget, RejectWith, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};
use crate::wire::{Frame, checksum, parse};

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
    addresses(&rig.seen.delivered.remove(0))
}

/// Source and destination of a frame.
fn addresses(frame: &[u8]) -> [IpAddr; 2] {
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

#[test]
fn what_is_redirected_to_loopback_is_refused_in_its_name() {
    let (v4, mut v6) = builders();
    let accept = ChainPolicy::Accept;
    let redirect = NatTarget::Redirect(NatRange::default());
    let rules = vec![Spec::any(Target::Nat(redirect))];
    v6.builtin(TableId::Nat, Hook::Output, accept, rules);
    let refuse = |with| Spec::any(Target::Reject(with));
    let rules =
        vec![refuse(RejectWith::TcpReset).tcp_dport(80, 80), refuse(REFUSAL6).udp_dport(53, 53)];
    v6.builtin(TableId::Filter, Hook::Output, accept, rules);
    v6.needs_conntrack = true;
    let mut rig = Rig::new(&topology(), join(v4, v6));
    let [_, ours] = OWN6;
    // Loopback is a link without this neighbour.
    assert_eq!(rig.own(query(LINK_LOCAL, SERVER6)).disposition, dropped(DropReason::Reject));
    assert!(rig.seen.delivered.is_empty() && rig.seen.wanted.is_empty());
    for packet in [query(ours, SERVER6), Packet::tcp(ours, 5000, SERVER6, 80, SYN)] {
        assert_eq!(rig.own(packet).disposition, dropped(DropReason::Reject));
        assert_eq!(told(&mut rig), [ip(SERVER6), ip(ours)]);
    }
}

#[test]
fn the_loopback_network_answers_nobody_beyond_it() {
    for localnet in [false, true] {
        let mut topology = topology();
        topology.ports[1].route_localnet = localnet;
        let (mut v4, v6) = builders();
        let accept = ChainPolicy::Accept;
        let nat = |target| vec![Spec::any(Target::Nat(target))];
        let redirect = nat(NatTarget::Redirect(NatRange::default()));
        v4.builtin(TableId::Nat, Hook::Output, accept, redirect);
        let server = u128::from(0xc612_0202_u32);
        let addresses = Some(Range { low: server, high: server });
        let source = nat(NatTarget::Snat(NatRange { addresses, ..NatRange::default() }));
        v4.builtin(TableId::Nat, Hook::Postrouting, accept, source);
        let refuse = |with| Spec::any(Target::Reject(with));
        let rules =
            vec![refuse(RejectWith::TcpReset).tcp_dport(80, 80), refuse(REFUSAL).udp_dport(53, 53)];
        v4.builtin(TableId::Filter, Hook::Input, accept, rules);
        v4.needs_conntrack = true;
        let mut rig = Rig::new(&topology, join(v4, v6));
        for packet in [query(OWN[1], SERVER), Packet::tcp(OWN[1], 5000, SERVER, 80, SYN)] {
            // It arrives from the server at 127.0.0.1: what answers it would leave.
            assert_eq!(rig.own(packet).disposition, dropped(DropReason::Reject));
            let answers = rig.seen.delivered.len() + rig.seen.emitted.len();
            assert_eq!(answers > 0, localnet, "{:?}", rig.seen.delivered);
            (rig.seen.delivered, rig.seen.emitted) = (Vec::new(), Vec::new());
        }
    }
}

#[test]
fn an_answer_in_the_name_of_a_group_is_not_received() {
    let (v4, mut v6) = builders();
    let accept = ChainPolicy::Accept;
    let ours = u128::from_be_bytes([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let addresses = Some(Range { low: ours, high: ours });
    let target = Target::Nat(NatTarget::Dnat(NatRange { addresses, ..NatRange::default() }));
    v6.builtin(TableId::Nat, Hook::Output, accept, vec![Spec::any(target)]);
    let refuse = vec![Spec::any(Target::Reject(REFUSAL6)).udp_dport(53, 53)];
    v6.builtin(TableId::Filter, Hook::Output, accept, refuse);
    let count = || vec![Spec::any(Target::Count)];
    let out = v6.builtin(TableId::Mangle, Hook::Postrouting, accept, count());
    let back = v6.builtin(TableId::Mangle, Hook::Prerouting, accept, count());
    v6.needs_conntrack = true;
    let mut rig = Rig::new(&topology(), join(v4, v6));
    assert_eq!(rig.own(query(OWN6[1], "ff05::1:3")).disposition, dropped(DropReason::Reject));
    assert_eq!((rig.hits6(out), rig.hits6(back)), (vec![1, 1], vec![0, 0]));
    assert!(rig.seen.delivered.is_empty());
}

#[test]
fn a_link_local_source_is_told_on_the_link_of_the_destination() {
    let mut rig = refuse_at(Hook::Output);
    let [near, far] = OWN6;
    for dst in [near, LINK_NEIGHBOUR] {
        assert_eq!(rig.own(query(LINK_LOCAL, dst)).disposition, dropped(DropReason::Reject));
        let source = if dst == near { near } else { LINK_LOCAL };
        assert_eq!(told(&mut rig), [ip(source), ip(LINK_LOCAL)]);
    }
    // On another link, the address is somebody else's.
    rig.own(query(LINK_LOCAL, far));
    let asked = rig.seen.wanted.iter().map(|&(port, address)| (port, IpAddr::V6(address.into())));
    assert_eq!(asked.collect::<Vec<_>>(), [(OUTSIDE, ip(LINK_LOCAL))]);
    assert!(rig.seen.delivered.is_empty() && rig.seen.emitted.is_empty());
}

/// Resets what is forwarded, and refuses the resets.
fn refuse_resets(builder: &mut Builder<u32>) {
    let refuse = |with| vec![Spec::any(Target::Reject(with)).proto(6)];
    let accept = ChainPolicy::Accept;
    builder.builtin(TableId::Filter, Hook::Forward, accept, refuse(RejectWith::TcpReset));
    builder.builtin(TableId::Filter, Hook::Output, accept, refuse(REFUSAL));
}

#[test]
fn an_error_about_a_reset_quotes_it_before_it_was_summed_up() {
    let mut rig = Rig::v4(refuse_resets);
    rig.up(Packet::tcp(CLIENT, 40000, SERVER, 80, SYN).seq(1, 0));
    let (port, frame) = rig.answer();
    assert_eq!(port, OUTSIDE, "to whom the reset would have come from");
    let reset = Packet::tcp(SERVER, 80, CLIENT, 40000, 0x14).seq(0, 2).window(0).df().id(0);
    let mut reset = reset.build_ip();
    // 198.18.2.2, 198.18.1.2, protocol 6, 20 bytes.
    reset[36..38].copy_from_slice(&[0x8f, 0x43]);
    assert_eq!(frame[14 + 28..], reset);
    let Ok(Frame::Ip(parsed)) = parse(&frame, HOST_MACS[1]) else { panic!("{frame:?}") };
    assert_eq!(checksum::internet(parsed.l4_bytes(&frame)), 0);
}

#[test]
fn an_error_about_a_packet_of_our_own_is_from_the_port_that_it_leaves_by() {
    let (v4, mut v6) = builders();
    let refuse = |with| vec![Spec::any(Target::Reject(with)).proto(6)];
    v6.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, refuse(RejectWith::TcpReset));
    v6.builtin(TableId::Filter, Hook::Output, ChainPolicy::Accept, refuse(REFUSAL6));
    let mut rig = Rig::new(&topology(), join(v4, v6));
    rig.up(Packet::tcp(CLIENT6, 40000, SERVER6, 80, SYN).seq(1, 0));
    // The reset would have left by the other.
    let (port, frame) = rig.answer();
    assert_eq!((port, addresses(&frame)), (OUTSIDE, [ip(OWN6[1]), ip(SERVER6)]));
    let reset = Packet::tcp(SERVER6, 80, CLIENT6, 40000, 0x14).seq(0, 2).window(0).build_ip();
    assert_eq!(frame[14 + 48..], reset, "summed up at once");
}

#[test]
fn an_error_about_a_reset_confirms_the_connection_that_was_reset() {
    let syn = || Packet::tcp(CLIENT, 40000, SERVER, 80, SYN);
    for (refused, expected) in [(true, 1), (false, 0)] {
        let mut rig = Rig::v4(|builder| {
            refuse_resets(builder);
            builder.needs_conntrack = true;
            let drop = vec![Spec::any(Target::Drop).proto(1)];
            if !refused {
                builder.builtin(TableId::Mangle, Hook::Postrouting, ChainPolicy::Accept, drop);
            }
        });
        assert_eq!(rig.up(syn()).disposition, dropped(DropReason::Reject));
        assert_eq!(rig.conntrack.len(), expected);
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
    // The port's own link-local address is ours too, another port's is not.
    let (mut rig, _, hits) = with_own_source(query(LINK_LOCAL, SERVER6));
    assert_eq!(told(&mut rig), [ip(LINK_LOCAL), ip(LINK_LOCAL)]);
    assert_eq!(hits, [[1, 1], [1, 1]]);
    let (rig, ..) = with_own_source(query(OTHER_LINK_LOCAL, SERVER6));
    assert!(rig.seen.delivered.is_empty());
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

/// The ports' own link-local addresses, and one behind the first.
const LINK_LOCAL: &str = "fe80::ff:fe00:101";
const OTHER_LINK_LOCAL: &str = "fe80::ff:fe00:201";
const LINK_NEIGHBOUR: &str = "fe80::99";
const LINK_NEIGHBOUR_MAC: Mac = Mac([2, 0, 0, 0, 1, 0x99]);

/// UDP to port 53 is marked, and marked packets have a gateway on `port`; the others'
/// default route is over the client.
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
        realms: Realms::default(),
    };
    topology.rules = vec![rule(0, None, 255), rule(9, Some((1, 1)), 100), rule(32766, None, 254)];
    let gateway = Some(ip(gateway));
    let default = route(("::", 0), RouteKind::Unicast(port));
    let main = route(("::", 0), RouteKind::Unicast(INSIDE));
    topology.routes = vec![
        RouteEntry { table: 100, via: gateway, ..default },
        RouteEntry { via: Some(ip(CLIENT6)), ..main },
    ];
    let (address, mac) = (ip(LINK_NEIGHBOUR), LINK_NEIGHBOUR_MAC);
    topology.neighbours.push(NeighbourEntry { port: INSIDE, address, mac });
    let (v4, mut v6) = builders();
    for hook in [Hook::Prerouting, Hook::Output] {
        let mark = Spec::any(Target::Mark(MarkTarget { clear: 1, toggle: 1 })).udp_dport(53, 53);
        v6.builtin(TableId::Mangle, hook, ChainPolicy::Accept, vec![mark]);
    }
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
    // So does one that is forwarded.
    let sent = rig.up(query(CLIENT6, LINK_NEIGHBOUR));
    let onward = query(CLIENT6, LINK_NEIGHBOUR).ttl(63);
    assert_eq!(sent.frame, onward.macs(PORT_MACS[0], HOST_MACS[0]).build());
    // A gateway elsewhere is none: the address means nothing there.
    let mut rig = marked_gateway(OUTSIDE, SERVER6);
    for sent in [rig.own(marked()), rig.handed(INSIDE, LINK_NEIGHBOUR_MAC, [0; 6], marked())] {
        assert_eq!(sent.disposition, Disposition::Transmit(INSIDE));
        assert_eq!(sent.frame, marked().macs(PORT_MACS[0], LINK_NEIGHBOUR_MAC).build());
    }
}
