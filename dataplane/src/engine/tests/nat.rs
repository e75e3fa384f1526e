//! Translation from frame to frame: what leaves must be, byte for byte, the
//! packet that would have been built with the translated addresses.

use super::*;
use crate::fib::RouteKind;
use crate::nat::affinity::{Hashed, Spread};
use crate::policy::matches::{AddressMask, Range};
use crate::policy::target::{CtTarget, HelperKind, NatRange, NatTarget, RejectWith, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};
use crate::wire::build::address_bits;
use crate::wire::tcp::flags::ACK;

/// The router's own addresses.
const WAN: &str = "198.18.2.1";
const LAN: &str = "198.18.1.1";
const WAN6: &str = "2001:db8:2::1";

fn bits(text: &str) -> u128 {
    address_bits(ip(text))
}

fn to(address: &str) -> NatRange {
    NatRange {
        addresses: Some(Range { low: bits(address), high: bits(address) }),
        ..NatRange::default()
    }
}

fn ports(range: NatRange, low: u16, high: u16) -> NatRange {
    NatRange { ports: Some(Range { low, high }), ..range }
}

fn rule<A: classifier::Address>(target: NatTarget) -> Spec<A> {
    Spec::any(Target::Nat(target))
}

/// A router with these rules in one chain of each family's nat table.
fn router(hook: Hook, v4: Vec<Spec<u32>>, v6: Vec<Spec<u128>>) -> Rig {
    let (mut four, mut six) = builders();
    (four.needs_conntrack, six.needs_conntrack) = (true, true);
    four.builtin(TableId::Nat, hook, ChainPolicy::Accept, v4);
    six.builtin(TableId::Nat, hook, ChainPolicy::Accept, v6);
    Rig::new(&topology(), join(four, six))
}

fn masquerading() -> Rig {
    let out = |target| rule(target).output(OUTSIDE.bit());
    let six = rule(NatTarget::Masquerade(NatRange::default())).output(OUTSIDE.bit());
    router(Hook::Postrouting, vec![out(NatTarget::Masquerade(NatRange::default()))], vec![six])
}

/// As the router sends it on to the server or to the client.
fn out(packet: Packet) -> Vec<u8> {
    packet.ttl(63).macs(PORT_MACS[1], HOST_MACS[1]).build()
}

fn back(packet: Packet) -> Vec<u8> {
    packet.ttl(63).macs(PORT_MACS[0], HOST_MACS[0]).build()
}

#[track_caller]
fn forwarded(sent: &Sent, port: PortId, expected: &[u8]) {
    assert_eq!(sent.disposition, Disposition::Transmit(port));
    assert_eq!(sent.frame, expected);
}

#[test]
fn masquerade_and_back() {
    let mut rig = masquerading();
    let data = [7; 33];
    let sent = rig.up(Packet::tcp(CLIENT, 4000, SERVER, 80, SYN).payload(&data));
    forwarded(&sent, OUTSIDE, &out(Packet::tcp(WAN, 4000, SERVER, 80, SYN).payload(&data)));
    let sent = rig.down(Packet::tcp(SERVER, 80, WAN, 4000, SYN_ACK).seq(9, 1034));
    forwarded(&sent, INSIDE, &back(Packet::tcp(SERVER, 80, CLIENT, 4000, SYN_ACK).seq(9, 1034)));

    let sent = rig.up(Packet::udp(CLIENT6, 4000, SERVER6, 53).payload(&data));
    forwarded(&sent, OUTSIDE, &out(Packet::udp(WAN6, 4000, SERVER6, 53).payload(&data)));
    let sent = rig.down(Packet::udp(SERVER6, 53, WAN6, 4000).payload(&data));
    forwarded(&sent, INSIDE, &back(Packet::udp(SERVER6, 53, CLIENT6, 4000).payload(&data)));

    let sent = rig.up(Packet::udp(CLIENT, 4000, SERVER, 53).no_udp_checksum());
    forwarded(&sent, OUTSIDE, &out(Packet::udp(WAN, 4000, SERVER, 53).no_udp_checksum()));
}

#[test]
fn pings_of_two_hosts_with_one_identifier() {
    let mut rig = masquerading();
    for (client, server, wan) in [(CLIENT, SERVER, WAN), (CLIENT6, SERVER6, WAN6)] {
        let other = client.replace(".2", ".3").replace("::2", "::3");
        let sent = rig.up(Packet::ping(client, server, 5, 1));
        forwarded(&sent, OUTSIDE, &out(Packet::ping(wan, server, 5, 1)));
        let sent = rig.up(Packet::ping(&other, server, 5, 1));
        let at = if client == CLIENT { 14 + 20 + 4 } else { 14 + 40 + 4 };
        let id = u16::from_be_bytes([sent.frame[at], sent.frame[at + 1]]);
        assert_ne!(id, 5);
        forwarded(&sent, OUTSIDE, &out(Packet::ping(wan, server, id, 1)));
        let sent = rig.down(Packet::pong(server, wan, 5, 1));
        forwarded(&sent, INSIDE, &back(Packet::pong(server, client, 5, 1)));
        let sent = rig.down(Packet::pong(server, wan, id, 1));
        assert_eq!(sent.frame[14..], back(Packet::pong(server, &other, 5, 1))[14..]);
    }
}

#[test]
fn dnat_and_back() {
    let web = NatTarget::Dnat(ports(to(CLIENT), 8080, 8080));
    let six = NatTarget::Dnat(to(CLIENT6));
    let v4 = vec![rule(web).tcp_dport(80, 80)];
    let mut rig = router(Hook::Prerouting, v4, vec![rule(six).tcp_dport(80, 80)]);
    let sent = rig.down(Packet::tcp(SERVER, 999, WAN, 80, SYN));
    forwarded(&sent, INSIDE, &back(Packet::tcp(SERVER, 999, CLIENT, 8080, SYN)));
    let sent = rig.up(Packet::tcp(CLIENT, 8080, SERVER, 999, SYN_ACK).seq(4, 1001));
    forwarded(&sent, OUTSIDE, &out(Packet::tcp(WAN, 80, SERVER, 999, SYN_ACK).seq(4, 1001)));
    let sent = rig.down(Packet::tcp(SERVER6, 999, WAN6, 80, SYN));
    forwarded(&sent, INSIDE, &back(Packet::tcp(SERVER6, 999, CLIENT6, 80, SYN)));
}

#[test]
fn redirect_to_the_port_and_from_this_machine_to_itself() {
    let redirect = || NatTarget::Redirect(ports(NatRange::default(), 3128, 3128));
    let mut rig =
        router(Hook::Prerouting, vec![rule(redirect()).tcp_dport(80, 80)], vec![rule(redirect())]);
    let sent = rig.up(Packet::tcp(CLIENT, 4000, SERVER, 80, SYN));
    assert_eq!(sent.disposition, Disposition::Deliver);
    let delivered = Packet::tcp(CLIENT, 4000, LAN, 3128, SYN).macs(HOST_MACS[0], PORT_MACS[0]);
    assert_eq!(sent.frame, delivered.build());
    let sent = rig.up(Packet::udp(CLIENT6, 4000, SERVER6, 80));
    let delivered = Packet::udp(CLIENT6, 4000, "2001:db8:1::1", 3128);
    assert_eq!(sent.frame, delivered.macs(HOST_MACS[0], PORT_MACS[0]).build());

    let mut rig = router(Hook::Output, vec![rule(redirect()).tcp_dport(80, 80)], Vec::new());
    let sent = rig.own(Packet::tcp(WAN, 4000, SERVER, 80, SYN));
    assert_eq!(sent.disposition, Disposition::Deliver);
    let delivered = Packet::tcp(WAN, 4000, "127.0.0.1", 3128, SYN).build();
    assert_eq!(sent.frame[14..], delivered[14..]);
    // The answer passes the same interface, and is undone there.
    let sent = rig.own(Packet::tcp("127.0.0.1", 3128, WAN, 4000, SYN_ACK).seq(1, 1001));
    assert_eq!(sent.disposition, Disposition::Deliver);
    let delivered = Packet::tcp(SERVER, 80, WAN, 4000, SYN_ACK).seq(1, 1001).build();
    assert_eq!(sent.frame[14..], delivered[14..]);
}

#[test]
fn netmap_keeps_the_host() {
    let mask = 0xffff_ff00;
    let network = |text| AddressMask { address: bits(text), mask };
    let mut rig =
        router(Hook::Prerouting, vec![rule(NatTarget::Netmap(network("198.18.1.0")))], Vec::new());
    let sent = rig.down(Packet::udp(SERVER, 9, "203.0.113.2", 7));
    forwarded(&sent, INSIDE, &back(Packet::udp(SERVER, 9, CLIENT, 7)));
    let mut rig = router(
        Hook::Postrouting,
        vec![rule(NatTarget::Netmap(network("203.0.113.0")))],
        Vec::new(),
    );
    let sent = rig.up(Packet::udp(CLIENT, 9, SERVER, 7));
    forwarded(&sent, OUTSIDE, &out(Packet::udp("203.0.113.2", 9, SERVER, 7)));
}

#[test]
fn a_changed_destination_of_our_own_is_routed_again() {
    let mut rig = router(Hook::Output, vec![rule(NatTarget::Dnat(to(CLIENT)))], Vec::new());
    let sent = rig.own(Packet::udp(LAN, 4000, SERVER, 53));
    let expected = Packet::udp(LAN, 4000, CLIENT, 53).macs(PORT_MACS[0], HOST_MACS[0]).build();
    forwarded(&sent, INSIDE, &expected);
}

#[test]
fn errors_are_translated_both_ways() {
    let mut rig = masquerading();
    for (client, server, wan, error) in
        [(CLIENT, SERVER, WAN, (3, 1)), (CLIENT6, SERVER6, WAN6, (1, 3))]
    {
        let hop = if client == CLIENT { "198.18.2.9" } else { "2001:db8:2::9" };
        let inside = if client == CLIENT { "198.18.1.9" } else { "2001:db8:1::9" };
        let query = || Packet::udp(client, 4000, server, 53).payload(b"quoted");
        rig.up(query());
        let outer = Packet::udp(wan, 4000, server, 53).payload(b"quoted").ttl(1).build();
        let (kind, code) = error;
        let told = rig.down(Packet::error(hop, wan, kind, code, 0, &outer));
        let inner = query().ttl(1).build();
        let expected = Packet::error(hop, client, kind, code, 0, &inner);
        forwarded(&told, INSIDE, &back(expected));

        rig.down(Packet::udp(server, 53, wan, 4000).payload(b"answer"));
        let inner = Packet::udp(server, 53, client, 4000).payload(b"answer").build();
        let told = rig.up(Packet::error(inside, server, kind, code, 0, &inner));
        let outer = Packet::udp(server, 53, wan, 4000).payload(b"answer").build();
        forwarded(&told, OUTSIDE, &out(Packet::error(wan, server, kind, code, 0, &outer)));
    }
    let outer = Packet::udp(WAN, 4000, SERVER, 53).build();
    let redirect = rig.down(Packet::error("198.18.2.9", WAN, 5, 1, 0, &outer));
    assert_eq!(redirect.disposition, dropped(DropReason::NatRedirect));
}

#[test]
fn what_the_router_says_about_a_translated_packet_speaks_of_the_original() {
    let web = || NatTarget::Dnat(ports(to(CLIENT), 8080, 8080));
    let mut rig = router(Hook::Prerouting, vec![rule(web()).tcp_dport(80, 80)], Vec::new());
    let syn = || Packet::tcp(SERVER, 999, WAN, 80, SYN);
    let sent = rig.down(syn().ttl(1));
    assert_eq!(sent.disposition, dropped(DropReason::TtlExpired));
    let (port, answer) = rig.answer();
    assert_eq!(port, OUTSIDE);
    let quoted = syn().ttl(1).build();
    let expected = Packet::error(WAN, SERVER, 11, 0, 0, &quoted).build();
    assert_eq!(answer[26..34], expected[26..34], "addresses");
    assert_eq!(answer[34..], expected[34..]);
    assert!(rig.conntrack.is_empty());

    let (mut four, six) = builders();
    four.needs_conntrack = true;
    four.builtin(TableId::Nat, Hook::Prerouting, ChainPolicy::Accept, vec![rule(web())]);
    let reset = vec![Spec::any(Target::Reject(RejectWith::TcpReset)).proto(6)];
    four.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, reset);
    let mut rig = Rig::new(&topology(), join(four, six));
    rig.down(syn().seq(77, 0));
    let (_, answer) = rig.answer();
    let expected = Packet::tcp(WAN, 80, SERVER, 999, 0x14).seq(0, 78).window(0).df().id(0);
    assert_eq!(answer[14..], expected.build()[14..]);
}

#[test]
fn clashes_give_another_port_within_the_class_and_keep_it() {
    let mut rig = masquerading();
    for (port, low, high) in [(300, 1, 511), (700, 600, 1023), (4000, 1024, 65535)] {
        rig.up(Packet::udp(CLIENT, port, SERVER, 53));
        let sent = rig.up(Packet::udp("198.18.1.3", port, SERVER, 53));
        let chosen = u16::from_be_bytes([sent.frame[34], sent.frame[35]]);
        assert!((low..=high).contains(&chosen) && chosen != port, "{chosen}");
        // Another destination: the mapping stays.
        let sent = rig.up(Packet::udp("198.18.1.3", port, SERVER, 54));
        assert_eq!(sent.frame[34..36], chosen.to_be_bytes());
        // And who does not clash keeps the port.
        let sent = rig.up(Packet::udp("198.18.1.4", port, SERVER, 55));
        assert_eq!(sent.frame[34..36], port.to_be_bytes());
    }
}

#[test]
fn a_pool_of_two_ports_has_no_third() {
    let snat = NatTarget::Snat(ports(to(WAN), 5000, 5001));
    let mut rig = router(Hook::Postrouting, vec![rule(snat).proto(17)], Vec::new());
    let mut seen = Vec::new();
    for client in 2..4 {
        let sent = rig.up(Packet::udp(&format!("198.18.1.{client}"), 4000, SERVER, 53));
        assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE));
        seen.push(u16::from_be_bytes([sent.frame[34], sent.frame[35]]));
    }
    seen.sort_unstable();
    assert_eq!(seen, [5000, 5001]);
    let sent = rig.up(Packet::udp("198.18.1.4", 4000, SERVER, 53));
    assert_eq!(sent.disposition, dropped(DropReason::ConntrackClash));
    assert_eq!(rig.conntrack.len(), 2);
}

#[test]
fn a_null_binding_gives_way_to_a_translated_flow() {
    let dnat = NatTarget::Dnat(to(SERVER));
    let mut v4 = vec![rule(dnat)];
    v4[0] = v4[0].clone().src(bits(CLIENT) as u32, u32::MAX, false);
    let to_wan = Spec::src(Spec::any(Target::Accept), 0, 0, false).udp_dport(54, 54);
    v4.insert(0, to_wan);
    let mut rig = router(Hook::Prerouting, v4, Vec::new());
    rig.up(Packet::udp(CLIENT, 4000, "203.0.113.9", 53));
    // 54 is exempt; 53 to the server itself would have the same reply tuple.
    let sent = rig.up(Packet::udp(CLIENT, 4000, SERVER, 53));
    assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE));
    assert_ne!(sent.frame[34..36], 4000u16.to_be_bytes());
}

#[test]
fn an_invalid_packet_leaves_as_it_came() {
    let mut rig = masquerading();
    let stray = || Packet::tcp(CLIENT, 4000, SERVER, 80, SYN_ACK);
    forwarded(&rig.up(stray()), OUTSIDE, &out(stray()));
}

#[test]
fn live_mappings_outlive_the_table() {
    let mut rig = masquerading();
    rig.up(Packet::udp(CLIENT, 4000, SERVER, 53));
    let (mut four, six) = builders();
    four.needs_conntrack = true;
    rig.snapshot = Snapshot::new(2, join(four, six), 1);
    let sent = rig.down(Packet::udp(SERVER, 53, WAN, 4000));
    forwarded(&sent, INSIDE, &back(Packet::udp(SERVER, 53, CLIENT, 4000)));
    let sent = rig.up(Packet::udp(CLIENT, 4000, SERVER, 53));
    forwarded(&sent, OUTSIDE, &out(Packet::udp(WAN, 4000, SERVER, 53)));
}

#[test]
fn a_masqueraded_flow_ends_with_its_way_out() {
    let mut topology = topology();
    topology.routes = vec![route(("203.0.113.0", 24), RouteKind::Unicast(OUTSIDE))];
    let mut rig = masquerading();
    rig.network = Network::build(&topology).unwrap();
    let query = || Packet::udp(CLIENT, 4000, "203.0.113.1", 53);
    rig.up(query());
    assert_eq!(rig.conntrack.len(), 1);
    topology.routes = vec![route(("203.0.113.0", 24), RouteKind::Unicast(INSIDE))];
    rig.network = Network::build(&topology).unwrap();
    assert_eq!(rig.up(query()).disposition, dropped(DropReason::NatPortChanged));
    assert!(rig.conntrack.is_empty());
}

#[test]
fn masqueraded_flows_are_forgotten_by_port_and_address() {
    let mut rig = masquerading();
    rig.up(Packet::udp(CLIENT, 4000, SERVER, 53));
    rig.up(Packet::udp(CLIENT6, 4000, SERVER6, 53));
    let forget = |rig: &Rig, port, address| {
        let mut from = Some(0);
        while let Some(at) = from {
            from = rig.conntrack.forget_masqueraded(port, address, at, 100);
        }
        rig.conntrack.len()
    };
    let lost = |text: &str| Some((crate::packet::Family::V4, bits(text)));
    assert_eq!(forget(&rig, INSIDE, None), 2);
    assert_eq!(forget(&rig, OUTSIDE, lost(LAN)), 2);
    assert_eq!(forget(&rig, OUTSIDE, lost(WAN)), 1);
    assert_eq!(forget(&rig, OUTSIDE, None), 0);
}

#[test]
fn who_waits_for_a_silent_next_hop_is_told_in_its_own_terms() {
    let mut rig = masquerading();
    let query = || Packet::udp(CLIENT, 4000, SERVER, 53).payload(b"quoted");
    let mut sent = rig.up(query());
    let world = World {
        snapshot: &rig.snapshot,
        worker: 0,
        network: &rig.network,
        conntrack: &rig.conntrack,
        stats: &rig.stats,
        now: rig.now,
    };
    rig.engine.unresolved(&world, OUTSIDE, &mut sent.frame, &mut rig.seen);
    let (port, answer) = rig.answer();
    assert_eq!(port, INSIDE);
    let expected = Packet::error(WAN, CLIENT, 3, 1, 0, &query().ttl(63).build()).build();
    assert_eq!(answer[26..], expected[26..]);
}

#[test]
fn random_ports_are_those_whose_answers_come_to_this_worker() {
    let key: Vec<u8> = (0..40).map(|byte: u8| byte.wrapping_mul(37).wrapping_add(11)).collect();
    let hashed = Hashed { tcp4: true, ..Hashed::default() };
    let spread = Spread::new(&key, &[0, 1, 2, 3], hashed).unwrap();
    let at_home = |informed: bool| {
        let snat = NatTarget::Snat(NatRange { random_fully: true, ..to(WAN) });
        let mut rig = router(Hook::Postrouting, vec![rule(snat)], Vec::new());
        if informed {
            rig.engine.set_spreads([None, Some(spread.clone())].into(), 2);
        }
        for port in 0..200 {
            rig.up(Packet::tcp(CLIENT, 2000 + port, SERVER, 80, SYN));
        }
        let rows: Vec<_> = rig.conntrack.rows(rig.now).collect();
        assert_eq!(rows.len(), 200);
        rows.iter().filter(|row| spread.queue(&row.view.reply) == Some(2)).count()
    };
    let (lucky, informed) = (at_home(false), at_home(true));
    assert!(lucky < 80 && informed > 190, "{lucky} {informed}");
}

#[test]
fn a_masquerade_rule_that_comes_late_takes_no_connection_with_it() {
    let (mut four, six) = builders();
    four.needs_conntrack = true;
    let mut rig = Rig::new(&topology(), join(four, six));
    let query = || Packet::udp(CLIENT, 4000, SERVER, 53);
    rig.up(query());
    rig.snapshot = masquerading().snapshot;
    forwarded(&rig.up(query()), OUTSIDE, &out(query()));
    assert_eq!(rig.conntrack.forget_masqueraded(OUTSIDE, None, 0, usize::MAX), None);
    assert_eq!(rig.conntrack.len(), 1, "it never took the address");
}

#[test]
fn who_sent_what_a_helper_made_too_long_is_told() {
    let (mut four, six) = builders();
    four.needs_conntrack = true;
    let helped = CtTarget { helper: Some(HelperKind::Ftp), ..CtTarget::default() };
    let helped = vec![Spec::any(Target::Ct(helped)).tcp_dport(21, 21)];
    four.builtin(TableId::Raw, Hook::Prerouting, ChainPolicy::Accept, helped);
    let masquerade = rule(NatTarget::Masquerade(NatRange::default())).output(OUTSIDE.bit());
    four.builtin(TableId::Nat, Hook::Postrouting, ChainPolicy::Accept, vec![masquerade]);
    let mut rig = Rig::new(&topology(), join(four, six));
    rig.up(Packet::tcp(CLIENT, 4000, SERVER, 21, SYN).seq(1000, 0));
    rig.down(Packet::tcp(SERVER, 21, WAN, 4000, SYN_ACK).seq(5000, 1001));
    rig.up(Packet::tcp(CLIENT, 4000, SERVER, 21, ACK).seq(1001, 5001));
    rig.up(Packet::tcp(CLIENT, 4000, SERVER, 21, ACK).seq(1001, 5001).payload(b"USER x\r\n"));
    // A port as one number is spelt longer afterwards.
    let mut command = b"PORT 198,18,1,2,,5000\r\n".to_vec();
    let segment = |payload: &[u8]| {
        Packet::tcp(CLIENT, 4000, SERVER, 21, ACK).seq(1009, 5001).payload(payload).df()
    };
    let fits = rig.up(segment(&command));
    assert!(fits.frame.ends_with(b"PORT 198,18,2,1,19,136\r\n"));
    command.resize(1460, b'x');
    let sent = rig.up(segment(&command));
    assert_eq!(sent.disposition, dropped(DropReason::TooBig));
    let (port, answer) = rig.answer();
    assert_eq!(port, INSIDE);
    let quoted = segment(&command).build();
    let expected = Packet::error(WAN, CLIENT, 3, 4, 1500, &quoted).build();
    assert_eq!(answer[26..34], expected[26..34], "addresses");
    assert_eq!((&answer[34..36], &answer[38..42]), (&expected[34..36], &expected[38..42]));
}
