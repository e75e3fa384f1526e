//! A router's duties: TTL, routes, MTU, neighbours.

use super::*;
use crate::packet::Family;
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId, Target};
use crate::wire::{Frame, ipv4, parse};

fn udp(dst: &str) -> Packet {
    Packet::udp(CLIENT, 5000, dst, 53)
}

fn plain() -> Rig {
    Rig::v4(|_| {})
}

fn with(change: impl FnOnce(&mut Topology)) -> Rig {
    let mut topology = topology();
    change(&mut topology);
    let (v4, v6) = builders();
    Rig::new(&topology, join(v4, v6))
}

/// ICMP type, code and the second word of an answer, which must parse.
fn icmp(frame: &[u8]) -> (u8, u8, u32) {
    let Ok(Frame::Ip(parsed)) = parse(frame, HOST_MACS[0]) else { panic!("{frame:?}") };
    let message = parsed.l4_bytes(frame);
    let word = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    (message[0], message[1], word)
}

#[test]
fn a_forwarded_frame_changes_only_addresses_ttl_and_checksum() {
    let mut rig = plain();
    let packet = udp(SERVER).ttl(9).payload_len(30);
    let before = packet.clone().ttl(8).macs(PORT_MACS[1], HOST_MACS[1]).build();
    let sent = rig.up(packet);
    assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE));
    assert_eq!(sent.frame, before);
    let sent = rig.up(Packet::udp(CLIENT6, 5000, SERVER6, 53).ttl(9));
    let after = Packet::udp(CLIENT6, 5000, SERVER6, 53).ttl(8);
    assert_eq!(sent.frame, after.macs(PORT_MACS[1], HOST_MACS[1]).build());
}

#[test]
fn ttl_one_is_answered_before_forward_is_asked() {
    let mut chain = ChainId(0);
    let mut rig = Rig::v4(|builder| {
        let drop = Spec::any(Target::Drop);
        chain = builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![drop]);
    });
    assert_eq!(rig.up(udp(SERVER).ttl(1)).disposition, dropped(DropReason::TtlExpired));
    let (port, frame) = rig.answer();
    assert_eq!((port, icmp(&frame)), (INSIDE, (11, 0, 0)));
    assert_eq!(frame[14 + 12..14 + 16], [198, 18, 1, 1]);
    assert_eq!(frame[14 + 28 + 8], 1, "quoted with the TTL it came with");
    assert_eq!(rig.hits(chain), [0, 0]);
    assert_eq!(rig.up(udp(SERVER).ttl(2)).disposition, dropped(DropReason::Rule));
    let v6 = Packet::udp(CLIENT6, 5000, SERVER6, 53).ttl(1);
    assert_eq!(rig.up(v6).disposition, dropped(DropReason::TtlExpired));
    assert_eq!(icmp(&rig.answer().1), (3, 0, 0));
}

#[test]
fn refusing_routes_answer_as_the_kernel_does() {
    let mut rig = with(|topology| {
        topology.routes = vec![
            route(("203.0.113.0", 26), RouteKind::Unreachable),
            route(("203.0.113.64", 26), RouteKind::Prohibit),
            route(("203.0.113.128", 26), RouteKind::Blackhole),
            route(("203.0.113.192", 26), RouteKind::Foreign),
        ];
    });
    for (dst, reason, answer) in [
        ("192.0.2.1", DropReason::NoRoute, Some((3, 0))),
        ("203.0.113.1", DropReason::RouteRefused, Some((3, 1))),
        ("203.0.113.65", DropReason::RouteRefused, Some((3, 13))),
        ("203.0.113.129", DropReason::RouteRefused, None),
        ("203.0.113.193", DropReason::RouteForeign, None),
    ] {
        rig.now = rig.now + Nanos::from_secs(10);
        assert_eq!(rig.up(udp(dst)).disposition, dropped(reason), "{dst}");
        let answers: Vec<_> = rig.seen.emitted.drain(..).map(|(_, frame)| icmp(&frame)).collect();
        let expected: Vec<_> = answer.into_iter().map(|(kind, code)| (kind, code, 0)).collect();
        assert_eq!(answers, expected, "{dst}");
    }
}

#[test]
fn errors_are_rate_limited_and_counted() {
    let mut rig = plain();
    for _ in 0..20 {
        rig.up(udp(SERVER).ttl(1));
    }
    assert_eq!(rig.seen.emitted.len(), 6);
    assert_eq!((rig.stats.replies.get(), rig.stats.replies_limited.get()), (6, 14));
    rig.now = rig.now + Nanos::from_secs(1);
    rig.up(udp(SERVER).ttl(1));
    assert_eq!(rig.seen.emitted.len(), 7);
}

#[test]
fn an_icmp_error_is_never_answered_with_one() {
    let mut rig = plain();
    let quoted = udp(SERVER).build_ip();
    rig.up(Packet::error(CLIENT, SERVER, 3, 1, 0, &quoted).ttl(1));
    assert!(rig.seen.emitted.is_empty());
}

#[test]
fn too_long_with_df_is_refused_before_forward_and_without_is_cut() {
    let narrow = |topology: &mut Topology| topology.ports[1].mtu = 600;
    let mut rig = with(narrow);
    let long = |df: bool| {
        let packet = udp(SERVER).payload_len(1372).ttl(9);
        if df { packet.df() } else { packet }
    };
    assert_eq!(rig.up(long(true)).disposition, dropped(DropReason::TooBig));
    let (port, frame) = rig.answer();
    assert_eq!((port, icmp(&frame)), (INSIDE, (3, 4, 600)));
    assert_eq!(frame[14 + 28 + 8], 9);

    assert_eq!(rig.up(long(false)).disposition, Disposition::Fragmented);
    let pieces = std::mem::take(&mut rig.seen.emitted);
    let mut payload = Vec::new();
    for (port, frame) in &pieces {
        assert_eq!(*port, OUTSIDE);
        assert_eq!(frame[..12], [HOST_MACS[1].0, PORT_MACS[1].0].concat());
        let ip = ipv4::Packet::new_checked(&frame[14..]).unwrap();
        assert!(ip.checksum_ok() && ip.total_len() <= 600 && ip.ttl() == 8);
        payload.extend_from_slice(ip.payload());
    }
    assert_eq!(pieces.len(), 3);
    let whole = long(false).ttl(8).build_ip();
    assert_eq!(payload, whole[20..]);
    let v6 = Packet::udp(CLIENT6, 5000, SERVER6, 53).payload_len(1400);
    let mut rig = with(|topology| topology.ports[1].mtu = 1400);
    assert_eq!(rig.up(v6).disposition, dropped(DropReason::TooBig));
    assert_eq!(icmp(&rig.answer().1), (2, 0, 1400));
}

#[test]
fn an_unknown_neighbour_is_asked_for_while_the_frame_waits() {
    let mut rig = plain();
    let next_hop = u128::from(0xc612_0209u32);
    let sent = rig.up(udp("198.18.2.9"));
    let waits = Disposition::AwaitNeighbour { port: OUTSIDE, next_hop: (Family::V4, next_hop) };
    assert_eq!(sent.disposition, waits);
    assert_eq!(rig.seen.wanted, [(OUTSIDE, next_hop)]);
    assert_eq!(sent.frame[6..12], PORT_MACS[1].0);
    // Nobody answered.
    let mut frame = sent.frame;
    let world = World {
        snapshot: &rig.snapshot,
        worker: 0,
        network: &rig.network,
        conntrack: &rig.conntrack,
        stats: &rig.stats,
        now: rig.now,
    };
    rig.engine.unresolved(&world, OUTSIDE, &mut frame, &mut rig.seen);
    assert_eq!(icmp(&rig.answer().1), (3, 1, 0));
}

/// The client's link-layer address is not known.
fn without_the_client() -> Rig {
    with(|topology| topology.neighbours.retain(|neighbour| neighbour.address != ip(CLIENT)))
}

#[test]
fn an_answer_to_an_unknown_neighbour_waits_for_it() {
    let mut rig = without_the_client();
    let client = u128::from(0xc612_0102u32);
    assert_eq!(rig.up(udp(SERVER).ttl(1)).disposition, dropped(DropReason::TtlExpired));
    assert!(rig.seen.emitted.is_empty());
    assert_eq!(rig.seen.wanted, [(INSIDE, client)]);
    let (port, next_hop, frame) = rig.seen.held.remove(0);
    assert_eq!((port, next_hop, icmp(&frame)), (INSIDE, client, (11, 0, 0)));
    assert_eq!(frame[6..12], PORT_MACS[0].0);
    assert_eq!((rig.stats.replies.get(), rig.stats.drops(DropReason::NeighbourUnresolved)), (1, 0));
}

#[test]
fn fragments_for_an_unknown_neighbour_wait_for_it() {
    let mut rig = with(|topology| topology.ports[1].mtu = 600);
    let next_hop = u128::from(0xc612_0209u32);
    let sent = rig.up(udp("198.18.2.9").payload_len(1000));
    assert_eq!(sent.disposition, Disposition::Fragmented);
    assert_eq!(rig.seen.wanted, [(OUTSIDE, next_hop)]);
    assert!(rig.seen.emitted.is_empty());
    let held: Vec<_> = rig.seen.held.iter().map(|(port, hop, f)| (*port, *hop, f.len())).collect();
    assert_eq!(held, [(OUTSIDE, next_hop, 14 + 596), (OUTSIDE, next_hop, 14 + 452)]);
}

#[test]
fn what_a_router_must_not_forward() {
    let mut rig = plain();
    let other = udp(SERVER).macs(HOST_MACS[0], Mac([2, 9, 9, 9, 9, 9])).build();
    assert_eq!(rig.arrive(INSIDE, &other).disposition, dropped(DropReason::NotForUs));
    let broadcast = udp(SERVER).macs(HOST_MACS[0], Mac([0xff; 6])).build();
    assert_eq!(rig.arrive(INSIDE, &broadcast).disposition, dropped(DropReason::NotForwarded));
    let ours = Packet::udp("198.18.2.1", 5000, SERVER, 53);
    assert_eq!(rig.up(ours).disposition, dropped(DropReason::MartianSource));
    assert_eq!(rig.up(udp("239.1.1.1")).disposition, dropped(DropReason::NotForwarded));
    let tagged = udp(SERVER).tag(0x8100, 5).macs(HOST_MACS[0], PORT_MACS[0]).build();
    assert_eq!(rig.arrive(INSIDE, &tagged).disposition, dropped(DropReason::UnknownEtherType));
    assert_eq!(rig.arrive(INSIDE, &[0; 9]).disposition, dropped(DropReason::FrameTruncated));
    assert!(rig.seen.emitted.is_empty());
}

#[test]
fn a_priority_tag_is_as_good_as_none() {
    let mut rig = plain();
    let plain = udp(SERVER).ttl(9).macs(HOST_MACS[0], PORT_MACS[0]);
    let expected = plain.clone().ttl(8).macs(PORT_MACS[1], HOST_MACS[1]).build();
    for tags in [&[(0x8100, 0)][..], &[(0x8100, 0xe000)], &[(0x88a8, 0), (0x8100, 0x1000)]] {
        let tagged = tags.iter().fold(plain.clone(), |packet, &(kind, tci)| packet.tag(kind, tci));
        let sent = rig.arrive(INSIDE, &tagged.build());
        assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE), "{tags:?}");
        assert_eq!(sent.frame, expected, "{tags:?}");
    }
    let hidden = plain.clone().tag(0x8100, 0).tag(0x8100, 5).build();
    assert_eq!(rig.arrive(INSIDE, &hidden).disposition, dropped(DropReason::UnknownEtherType));
    let cut = &plain.tag(0x8100, 0).build()[..17];
    assert_eq!(rig.arrive(INSIDE, cut).disposition, dropped(DropReason::FrameTruncated));
}

#[test]
fn host_mode_delivers_and_never_forwards() {
    let mut rig = with(|topology| topology.mode = Mode::Host);
    assert_eq!(rig.up(udp("198.18.1.1")).disposition, Disposition::Deliver);
    assert_eq!(rig.up(udp(SERVER)).disposition, dropped(DropReason::NotForwarded));
    assert!(rig.seen.emitted.is_empty());
}

#[test]
fn a_port_that_is_down_has_no_routes() {
    let mut rig = with(|topology| topology.ports[1].up = false);
    assert_eq!(rig.up(udp(SERVER)).disposition, dropped(DropReason::NoRoute));
}

#[test]
fn ip_options_are_refused_answered_or_filled_in() {
    let mut rig = plain();
    let with = |options: &[u8]| udp(SERVER).ttl(9).options(options);
    let recorded = rig.up(with(&[7, 7, 4, 0, 0, 0, 0, 0]));
    let expected = with(&[7, 7, 8, 198, 18, 2, 1, 0]).ttl(8).macs(PORT_MACS[1], HOST_MACS[1]);
    assert_eq!(recorded.disposition, Disposition::Transmit(OUTSIDE));
    assert_eq!(recorded.frame, expected.build());
    let source_route = rig.up(with(&[131, 7, 4, 198, 18, 2, 2, 0]));
    assert_eq!(source_route.disposition, dropped(DropReason::IpOptions));
    assert!(rig.seen.emitted.is_empty());
    let malformed = rig.up(with(&[7, 7, 6, 0, 0, 0, 0, 0]));
    assert_eq!(malformed.disposition, dropped(DropReason::IpOptions));
    assert_eq!(icmp(&rig.answer().1), (12, 0, 22 << 24));
}

#[test]
fn an_ip_timestamp_is_milliseconds_of_the_day() {
    let mut rig = plain();
    rig.engine.set_utc_offset(Nanos::from_secs(3600));
    rig.now = Nanos::from_millis(86_400_000 + 5);
    let sent = rig.up(udp(SERVER).options(&[0x44, 8, 5, 0, 0, 0, 0, 0]));
    assert_eq!(sent.frame[34..42], [0x44, 8, 9, 0, 0, 0x36, 0xee, 0x85]);
    assert!(ipv4::Packet::new_checked(&sent.frame[14..]).unwrap().checksum_ok());
}

#[test]
fn the_local_stack_is_handed_the_options_that_arrived() {
    let mut rig = plain();
    let packet = udp("198.18.1.1").options(&[7, 7, 4, 0, 0, 0, 0, 1]);
    let arrived = packet.clone().macs(HOST_MACS[0], PORT_MACS[0]).build();
    let sent = rig.up(packet);
    assert_eq!((sent.disposition, sent.frame), (Disposition::Deliver, arrived));
}

#[test]
fn a_silent_next_hop_is_reported_with_the_options_read_once_more() {
    let mut rig = plain();
    let sent = rig.up(udp("198.18.2.9").options(&[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(sent.frame[34..46], [7, 11, 8, 198, 18, 2, 1, 0, 0, 0, 0, 1]);
    let mut frame = sent.frame;
    let world = World {
        snapshot: &rig.snapshot,
        worker: 0,
        network: &rig.network,
        conntrack: &rig.conntrack,
        stats: &rig.stats,
        now: rig.now,
    };
    rig.engine.unresolved(&world, OUTSIDE, &mut frame, &mut rig.seen);
    let (_, answer) = rig.answer();
    assert_eq!(answer[34..46], [7, 11, 12, 198, 18, 2, 1, 198, 18, 1, 1, 0]);
    assert_eq!(icmp(&answer), (3, 1, 0));
}

#[test]
fn hop_by_hop_options_are_judged_before_the_rules() {
    let mut rig = plain();
    let with = |kind: u8| {
        Packet::udp(CLIENT6, 5000, SERVER6, 53).extension(0, &[0, 0, kind, 4, 1, 2, 3, 4])
    };
    assert_eq!(rig.up(with(0x1e)).disposition, Disposition::Transmit(OUTSIDE));
    assert_eq!(rig.up(with(0x5e)).disposition, dropped(DropReason::ExtensionHeader));
    assert!(rig.seen.emitted.is_empty());
    assert_eq!(rig.up(with(0x9e)).disposition, dropped(DropReason::ExtensionHeader));
    assert_eq!(icmp(&rig.answer().1), (4, 2, 42));
}
