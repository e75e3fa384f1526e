//! Tests of the views, the parser and the builders.

mod plain;

use proptest::collection::vec;
use proptest::prelude::*;

use super::build::{self, L4, Packet, Tcp};
use super::ethernet::Tag;
use super::{Frame, checksum, ethertype, ipv4, ipv6, parse, proto, tcp};
use crate::packet::{Family, Fragment, L4Class, Mac, Parsed, PktType};
use crate::verdict::DropReason;

const A: &str = "198.18.0.1";
const B: &str = "198.18.0.2";
const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8::2";

fn parsed(frame: &[u8]) -> Parsed {
    match parse(frame, build::ETH_DST) {
        Ok(Frame::Ip(parsed)) => parsed,
        other => panic!("not IP: {other:?}"),
    }
}

fn refused(packet: Packet) -> DropReason {
    parse(&packet.build(), build::ETH_DST).expect_err("refused")
}

#[test]
fn tcp_over_ipv4() {
    let packet = Packet::tcp(A, 1024, B, 80, tcp::flags::SYN).tos(0x28).ttl(63).padding(6);
    let frame = packet.build();
    let p = parsed(&frame);
    assert_eq!((p.family, p.l3, p.l3_len, p.l4, p.l4_len), (Family::V4, 14, 40, 34, 20));
    assert_eq!((p.proto, p.ttl, p.tos, p.tcp_flags), (6, 63, 0x28, 2));
    assert_eq!((p.sport, p.dport, p.l4_class), (1024, 80, L4Class::Whole));
    assert_eq!((p.src, p.dst), (0xc612_0001, 0xc612_0002));
    assert_eq!((p.fragment, p.pkt_type), (Fragment::Whole, PktType::Host));
    assert!(checksum::transport_ok(&frame, &p));
    assert_eq!(p.l3_bytes(&frame).len(), 40);
}

#[test]
fn ipv6_chain_is_walked_to_the_upper_header() {
    let packet = Packet::udp(A6, 1, B6, 53)
        .extension(proto::HOP_BY_HOP, &[0, 0, 1, 4, 0, 0, 0, 0])
        .extension(proto::ROUTING, &[0, 0, 2, 0, 0, 0, 0, 0])
        .extension(proto::DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0])
        .extension(proto::AH, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])
        .payload(b"x");
    let frame = packet.build();
    let p = parsed(&frame);
    assert_eq!((p.proto, p.l4, p.l4_len, p.dport), (17, 14 + 40 + 24 + 12, 9, 53));
    assert!(checksum::transport_ok(&frame, &p) && !p.broken_chain());
}

#[test]
fn ipv6_oddities() {
    let later = Packet::udp(A6, 1, B6, 2).payload_len(64).fragment(8, 16, true);
    let p = parsed(&later.build());
    assert_eq!(p.l4_class, L4Class::LaterFragment);
    assert_eq!((p.proto, p.fragment), (17, Fragment::Later { offset: 8, more: true }));
    // A later fragment that claims to start with an extension header.
    let odd = Packet::udp(A6, 1, B6, 2).payload_len(64).fragment(8, 16, true);
    let mut frame = odd.build();
    frame[14 + 40] = proto::DESTINATION;
    assert!(parsed(&frame).broken_chain());
    // No next header stays 59.
    let none = parsed(&Packet::raw(A6, B6, proto::NONE, b"rest").build());
    assert_eq!((none.proto, none.l4_class), (59, L4Class::Whole));
    // A chain cut short in the second byte.
    let cut = parsed(&Packet::raw(A6, B6, proto::ROUTING, &[6]).build());
    assert!(cut.broken_chain() && cut.l4_class == L4Class::Odd);
    // A header that claims to reach beyond the packet: TCP without a byte of it.
    let long = parsed(&Packet::raw(A6, B6, proto::DESTINATION, &[6, 9]).build());
    assert_eq!((long.proto, long.l4_len, long.l4_class), (6, 0, L4Class::Odd));
    // Mobility and HIP headers are not walked.
    assert_eq!(parsed(&Packet::raw(A6, B6, 135, &[6, 0]).build()).proto, 135);
    // Payload length zero: what follows is padding.
    let empty = Packet::raw(A6, B6, proto::TCP, &[]).padding(20);
    assert_eq!(parsed(&empty.build()).l4_len, 0);
}

#[test]
fn ipv6_hop_by_hop_is_judged_before_the_rules() {
    let with = |header: &[u8]| Packet::udp(A6, 1, B6, 2).extension(0, header).build_ip();
    let verdict = |header: &[u8]| ipv6::hop_by_hop(&with(header)).map(|_| ());
    let bad = Err(ipv6::Refused::Silently);
    let problem = |code, pointer| Err(ipv6::Refused::Reported { code, pointer });
    assert_eq!(verdict(&[0, 0, 5, 2, 0, 0, 1, 0]), Ok(()), "router alert");
    assert_eq!(verdict(&[0, 0, 5, 3, 0, 0, 0, 0]), bad, "router alert of three bytes");
    assert_eq!(verdict(&[0, 0, 0x1e, 4, 1, 2, 3, 4]), Ok(()), "unknown, to be skipped");
    assert_eq!(verdict(&[0, 0, 0x5e, 4, 1, 2, 3, 4]), bad, "unknown, to be dropped");
    assert_eq!(verdict(&[0, 0, 0x9e, 4, 1, 2, 3, 4]), problem(2, 42), "unknown, to be reported");
    assert_eq!(verdict(&[0, 0, 0xc2, 4, 0, 1, 0, 0]), problem(0, 42), "jumbo");
    assert_eq!(verdict(&[0, 0, 0xc2, 4, 0, 0, 1, 0]), problem(0, 44), "jumbo that is none");
    assert_eq!(verdict(&[0, 0, 1, 4, 0, 0, 0, 1]), bad, "padding that is not zero");
    assert_eq!(verdict(&[0, 0, 1, 5, 0, 0, 0, 0]), bad, "option beyond its header");
    assert_eq!(verdict(&[0, 9, 1, 4, 0, 0, 0, 0]), bad, "header beyond the packet");
    assert_eq!(verdict(&[0, 0, 0, 0, 0, 0, 0, 0]), Ok(()), "six Pad1");
    let eight = [0, 2, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x1e, 0, 1, 0, 0, 0, 0, 0x1e, 0, 1, 1, 0];
    assert_eq!(verdict(&eight), bad, "eight bytes of padding in a row");
}

#[test]
fn ipv6_addresses_that_no_wire_carries() {
    let verdict = |src, dst| parse(&Packet::udp(src, 1, dst, 2).build(), build::ETH_DST).err();
    assert_eq!(verdict("::1", B6), Some(DropReason::MartianSource));
    assert_eq!(verdict("ff02::1", B6), Some(DropReason::MartianSource));
    assert_eq!(verdict(A6, "::1"), Some(DropReason::MartianDestination));
    assert_eq!(verdict(A6, "ff01::1"), Some(DropReason::MartianDestination));
    assert_eq!(verdict(A6, "ff00::1"), Some(DropReason::MartianDestination));
    assert_eq!(verdict(A6, "ff02::1"), None);
    assert_eq!(verdict("::", B6), None, "the unspecified address is refused by routing");
}

#[test]
fn ipv4_header_checks() {
    let udp = || Packet::udp(A, 1, B, 2).payload(b"payload");
    assert_eq!(refused(udp().bad_ip_checksum()), DropReason::IpChecksum);
    assert_eq!(refused(udp().length(19)), DropReason::IpHeader);
    assert_eq!(refused(udp().length(36)), DropReason::IpHeader);
    assert_eq!(refused(Packet { version: Some(5), ..udp() }), DropReason::IpHeader);
    assert_eq!(refused(Packet { ihl: Some(4), ..udp() }), DropReason::IpHeader);
    assert_eq!(refused(udp().truncate(33)), DropReason::IpHeader);
    assert_eq!(refused(udp().truncate(13)), DropReason::FrameTruncated);
    let options = parsed(&udp().options(&[7, 7, 4, 0, 0, 0, 0]).build());
    assert_eq!((options.l4, options.dport), (14 + 28, 2));
}

#[test]
fn ipv4_fragments() {
    let class = |offset, more| {
        let p =
            parsed(&Packet::tcp(A, 1, B, 2, 2).payload_len(64).fragment(offset, 32, more).build());
        (p.l4_class, p.fragment, p.sport)
    };
    assert_eq!(class(0, true), (L4Class::Whole, Fragment::First, 1));
    assert_eq!(class(8, true), (L4Class::Odd, Fragment::Later { offset: 8, more: true }, 0));
    let last = Fragment::Later { offset: 16, more: false };
    assert_eq!(class(16, false), (L4Class::LaterFragment, last, 0));
    assert_eq!(class(0, false), (L4Class::Whole, Fragment::Whole, 1));
}

/// How many bytes of layer 4 make a packet whole, by family and protocol.
#[test]
fn shortest_whole_headers() {
    let table = [
        (A, proto::TCP, 20),
        (A6, proto::TCP, 20),
        (A, proto::UDP, 8),
        (A6, proto::UDP, 8),
        (A, proto::UDPLITE, 8),
        (A, proto::ICMP, 8),
        (A6, proto::ICMPV6, 8),
        (A, proto::SCTP, 12),
        (A, proto::DCCP, 12),
        (A, proto::GRE, 0),
        (A, proto::ICMPV6, 0),
        (A6, proto::ICMP, 0),
    ];
    for (from, number, need) in table {
        let to = if from == A { B } else { B6 };
        for len in 0..24 {
            let p = parsed(&Packet::raw(from, to, number, &vec![0x11; len]).build());
            let whole = p.l4_class == L4Class::Whole;
            assert_eq!(whole, len >= need, "{number} with {len} bytes");
            assert_eq!(usize::from(p.l4_len), len);
        }
    }
}

#[test]
fn icmp_type_and_code_stand_in_for_ports() {
    let p = parsed(&Packet::icmp(A, B, 3, 1, 0).build());
    assert_eq!((p.sport, p.dport), (3, 1));
    let p = parsed(&Packet::icmp(A6, B6, 1, 4, 0).build());
    assert_eq!((p.sport, p.dport), (1, 4));
}

#[test]
fn link_layer() {
    let local = build::ETH_DST;
    let to = |dst: [u8; 6]| parsed(&Packet::udp(A, 1, B, 2).macs(build::ETH_SRC, Mac(dst)).build());
    assert_eq!(to(local.0).pkt_type, PktType::Host);
    assert_eq!(to([0xff; 6]).pkt_type, PktType::Broadcast);
    assert_eq!(to([1, 0, 0x5e, 0, 0, 1]).pkt_type, PktType::Multicast);
    assert_eq!(to([2, 0, 0, 0, 0, 0xcc]).pkt_type, PktType::OtherHost);
    let arp = build::arp(1, (build::ETH_SRC, 1), (Mac::default(), 2));
    assert_eq!(parse(&arp, local), Ok(Frame::Arp));
    let view = super::arp::Packet::new_checked(&arp[14..]).expect("an ARP packet");
    assert_eq!((view.operation(), view.sender_ip(), view.target_ip()), (1, 1, 2));
    let mut llc = vec![0; 60];
    llc[13] = 38;
    assert_eq!(parse(&llc, local), Ok(Frame::Other { ethertype: 38 }));
}

#[test]
fn tags() {
    let qinq = Packet::udp(A, 1, B, 2).tag(ethertype::QINQ, 0x6005).tag(ethertype::VLAN, 7);
    let expected = Frame::Tagged {
        outer: Tag { tpid: ethertype::QINQ, tci: 0x6005 },
        inner: Some(Tag { tpid: ethertype::VLAN, tci: 7 }),
        ethertype: ethertype::IPV4,
        payload: 22,
    };
    assert_eq!(parse(&qinq.build(), build::ETH_DST), Ok(expected));
    let view = Tag { tpid: 0, tci: 0x6005 };
    assert_eq!((view.vid(), view.priority()), (5, 3));
    assert_eq!(refused(qinq.clone().truncate(17)), DropReason::FrameTruncated);
    assert_eq!(refused(qinq.truncate(21)), DropReason::FrameTruncated);
}

#[test]
fn tcp_options_are_listed_up_to_the_first_malformed_one() {
    use tcp::TcpOption as O;
    let bytes = [
        2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 5, 10, 0, 0, 0, 1, 0, 0, 0,
        9, 30, 3, 0xee, 9, 1, 0,
    ];
    let frame = Packet::tcp(A, 1, B, 2, 2).tcp_options(&bytes).payload(b"data").build();
    let segment = tcp::Packet::new_checked(&frame[34..]).expect("a segment");
    let options: Vec<_> = segment.options().collect();
    let [mss, nop, scale, sack_ok, times, sack, other] = options[..] else { panic!("{options:?}") };
    assert_eq!((mss, nop, scale), (O::MaxSegment(1460), O::NoOperation, O::WindowScale(7)));
    assert_eq!((sack_ok, times), (O::SackPermitted, O::Timestamps(1, 2)));
    assert_eq!(other, O::Other(30, &[0xee]));
    let O::Sack(blocks) = sack else { panic!("{sack:?}") };
    assert_eq!(blocks.iter().collect::<Vec<_>>(), [(1, 9)]);
    assert_eq!(segment.payload(), b"data");
}

#[test]
fn rewriting_keeps_the_ipv4_checksum_right() {
    let mut ip = Packet::udp(A, 1, B, 2).build_ip();
    let mut view = ipv4::Packet::new_checked(&mut ip[..]).expect("a packet");
    view.decrement_ttl();
    view.set_tos(0x10);
    view.set_src(0xcb00_7101);
    view.set_dst(0xcb00_7102);
    assert!(view.checksum_ok());
    assert_eq!(
        (view.ttl(), view.tos(), view.src(), view.dst()),
        (63, 16, 0xcb00_7101, 0xcb00_7102)
    );
}

#[test]
fn rewriting_ipv6_touches_only_its_fields() {
    let mut ip = Packet { flow_label: 0xabcde, ..Packet::udp(A6, 1, B6, 2) }.build_ip();
    let mut view = ipv6::Packet::new_checked(&mut ip[..]).expect("a packet");
    view.set_traffic_class(0xb8);
    view.set_hop_limit(9);
    assert_eq!((view.traffic_class(), view.flow_label(), view.hop_limit()), (0xb8, 0xabcde, 9));
}

#[test]
fn sctp_checksum_is_castagnoli() {
    // RFC 3720 appendix B.4: CRC32c of 32 zero bytes is 0x8a9136aa.
    assert_eq!(checksum::sctp(&[0; 32]), 0x8a91_36aa);
    let chunks = [3, 0, 0, 16, 0, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 0, 10, 0, 0, 4];
    let packet = Packet::new(A, B, L4::Sctp { sport: 5, dport: 6, tag: 7 }).payload(&chunks);
    let frame = packet.build();
    let view = super::sctp::Packet::new_checked(&frame[34..]).expect("a packet");
    assert!(view.checksum_ok());
    assert_eq!((view.sport(), view.dport(), view.tag()), (5, 6, 7));
    assert_eq!(
        view.chunks().map(|c| (c.kind, c.value.len())).collect::<Vec<_>>(),
        [(3, 12), (10, 0)]
    );
    let spoiled = packet.bad_l4_checksum().build();
    assert!(!checksum::transport_ok(&spoiled, &parsed(&spoiled)));
}

#[test]
fn gre_esp_and_ah_headers() {
    let gre = [0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0xff];
    let view = super::gre::Packet::new_checked(&gre[..]).expect("PPTP");
    assert_eq!((view.call_id(), view.header_len(), view.payload()), (Some(9), 16, &[0xff][..]));
    assert!(super::gre::Packet::new_checked(&gre[..15]).is_err());
    let esp = super::esp::Packet::new_checked(&[0, 0, 0, 1, 0, 0, 0, 2][..]).expect("ESP");
    assert_eq!((esp.spi(), esp.seq()), (1, 2));
    let ah = [6, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 9];
    let view = super::ah::Packet::new_checked(&ah[..]).expect("AH");
    assert_eq!((view.next_header(), view.spi(), view.seq(), view.payload()), (6, 3, 4, &[9][..]));
}

#[test]
fn layer4_checksums_are_judged() {
    let verdict = |packet: Packet| {
        let frame = packet.build();
        checksum::transport_ok(&frame, &parsed(&frame))
    };
    assert!(verdict(Packet::udp(A, 1, B, 2).no_udp_checksum()), "none over IPv4");
    assert!(!verdict(Packet::udp(A6, 1, B6, 2).no_udp_checksum()), "none over IPv6");
    for (a, b) in [(A, B), (A6, B6)] {
        for good in [
            Packet::tcp(a, 1, b, 2, 2).payload_len(3),
            Packet::udp(a, 1, b, 2).payload_len(5),
            Packet::ping(a, b, 1, 2).payload_len(7),
            Packet::new(a, b, L4::Udp { sport: 1, dport: 2, length: None, lite: true }),
        ] {
            assert!(verdict(good.clone()), "{good:?}");
            assert!(!verdict(good.clone().bad_l4_checksum()), "{good:?}");
        }
    }
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let l4 = prop_oneof![
        (any::<[u16; 4]>(), any::<[u32; 2]>(), any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(
            |(w, n, flags, options)| L4::Tcp(Tcp {
                seq: n[0],
                ack: n[1],
                window: w[2],
                urgent: w[3],
                options,
                ..Tcp::new(w[0], w[1], flags)
            })
        ),
        (any::<[u16; 2]>(), any::<bool>()).prop_map(|(p, lite)| L4::Udp {
            sport: p[0],
            dport: p[1],
            length: None,
            lite
        }),
        any::<(u8, u8, u32)>().prop_map(|(kind, code, word)| L4::Icmp { kind, code, word }),
        any::<(u16, u16, u32)>().prop_map(|(sport, dport, tag)| L4::Sctp { sport, dport, tag }),
        any::<u8>().prop_map(L4::Raw),
    ];
    let extension = prop_oneof![
        Just((proto::ROUTING, vec![0, 0, 2, 0, 0, 0, 0, 0])),
        Just((proto::DESTINATION, vec![0, 0, 1, 4, 0, 0, 0, 0])),
        Just((proto::AH, vec![0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])),
    ];
    (
        l4,
        any::<bool>(),
        (vec(any::<u8>(), 0..100), vec(any::<u8>(), 0..40)),
        vec(extension, 0..4),
        proptest::option::of((0u16..80, any::<bool>())),
        (any::<u8>(), any::<u8>(), 0usize..20),
    )
        .prop_map(|(l4, v6, (payload, options), extensions, fragment, (ttl, tos, padding))| {
            let (src, dst) = if v6 { (A6, B6) } else { (A, B) };
            let packet = Packet::new(src, dst, l4).payload(&payload).ttl(ttl).tos(tos);
            Packet {
                options: if v6 { Vec::new() } else { options },
                extensions: if v6 { extensions } else { Vec::new() },
                fragment: fragment.map(|(offset, more)| (offset * 8, more)),
                padding,
                ..packet
            }
        })
}

fn check_bounds(frame: &[u8], p: &Parsed) {
    assert!(usize::from(p.l3) + usize::from(p.l3_len) <= frame.len());
    assert!(p.l4 >= p.l3);
    let end = usize::from(p.l3) + usize::from(p.l3_len);
    assert_eq!(usize::from(p.l4) + usize::from(p.l4_len), end);
    let _ = (p.l3_bytes(frame), p.l4_bytes(frame), checksum::transport_ok(frame, p));
}

fn exercise(frame: &[u8]) {
    if let Ok(Frame::Ip(p)) = parse(frame, build::ETH_DST) {
        check_bounds(frame, &p);
    }
    // Every view over every tail: construction decides, accessors must then hold.
    for at in [0, 14, 34, 54] {
        let Some(bytes) = frame.get(at..) else { continue };
        let _ = super::ethernet::Packet::new_checked(bytes)
            .map(|v| (v.tags().count(), v.ethertype(), v.payload().len(), v.src(), v.dst()));
        let _ = super::arp::Packet::new_checked(bytes).map(|v| (v.target_ip(), v.target_mac()));
        let _ = ipv4::Packet::new_header(bytes)
            .map(|v| (v.options().len(), v.payload().len(), v.checksum_ok(), v.fragment()));
        let _ = ipv6::Packet::new_header(bytes).map(|v| {
            let _ = (ipv6::upper(v.next_header(), v.payload()), ipv6::hop_by_hop(bytes));
        });
        let _ = tcp::Packet::new_checked(bytes).map(|v| (v.options().count(), v.payload().len()));
        let _ = super::udp::Packet::new_checked(bytes).map(|v| (v.length_ok(), v.payload().len()));
        let _ =
            super::icmp::Packet::new_checked(bytes).map(|v| (v.id(), v.seq(), v.payload().len()));
        let _ = super::icmpv6::Packet::new_checked(bytes).map(|v| (v.word(), v.payload().len()));
        let _ =
            super::sctp::Packet::new_checked(bytes).map(|v| (v.checksum_ok(), v.chunks().count()));
        let _ = super::gre::Packet::new_checked(bytes).map(|v| (v.key(), v.payload().len()));
        let _ = super::esp::Packet::new_checked(bytes).map(|v| (v.spi(), v.seq()));
        let _ = super::ah::Packet::new_checked(bytes).map(|v| v.payload().len());
    }
}

proptest! {
    #[test]
    fn round_trip(packet in any_packet()) {
        let frame = packet.build();
        let p = parsed(&frame);
        check_bounds(&frame, &p);
        prop_assert_eq!((p.ttl, p.tos, p.family), (packet.ttl, packet.tos, packet.family()));
        prop_assert_eq!((p.src, p.dst), (build::address_bits(packet.src), build::address_bits(packet.dst)));
        prop_assert_eq!(usize::from(p.l3_len), frame.len() - 14 - packet.padding);
        let (offset, more) = packet.fragment.unwrap_or((0, false));
        let fragment = match (offset, more) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            (offset, more) => Fragment::Later { offset, more },
        };
        // A raw protocol number may itself be an extension header's.
        if matches!(packet.l4, L4::Raw(_)) {
            return Ok(());
        }
        prop_assert_eq!(p.fragment, fragment);
        if offset == 0 {
            match &packet.l4 {
                L4::Tcp(tcp) => prop_assert_eq!((p.sport, p.dport, p.tcp_flags), (tcp.sport, tcp.dport, tcp.flags)),
                L4::Udp { sport, dport, .. } | L4::Sctp { sport, dport, .. } => prop_assert_eq!((p.sport, p.dport), (*sport, *dport)),
                L4::Icmp { kind, code, .. } => prop_assert_eq!((p.sport, p.dport), ((*kind).into(), (*code).into())),
                L4::Raw(_) => {}
            }
            prop_assert_eq!(p.l4_class, L4Class::Whole);
            prop_assert!(checksum::transport_ok(&frame, &p));
        } else {
            prop_assert_ne!(p.l4_class, L4Class::Whole);
        }
    }

    #[test]
    fn mutated_and_truncated_frames_never_panic(
        packet in any_packet(),
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        fix_checksum in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut frame = packet.build();
        for (at, value) in edits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if fix_checksum && let Ok(mut ip) = ipv4::Packet::new_header(&mut frame[14..]) {
            ip.fill_checksum();
        }
        if !whole {
            frame.truncate(cut.index(frame.len() + 1));
        }
        exercise(&frame);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..200), kind in 0..4u8) {
        let ethertypes = [[0x08, 0x00], [0x86, 0xdd], [0x08, 0x06], [0x81, 0x00]];
        if bytes.len() > 14 {
            bytes[12..14].copy_from_slice(&ethertypes[usize::from(kind)]);
            bytes[14] = [0x45, 0x60, 0, 0][usize::from(kind)] | bytes[14] & 0xf;
        }
        exercise(&bytes);
    }

    #[test]
    fn incremental_checksum_equals_recomputation(
        mut bytes in vec(any::<u8>(), 20..60),
        at in 0usize..2,
        value in any::<u128>(),
        width in 0..3u8,
    ) {
        let at = at * 2;
        bytes.truncate(bytes.len() & !1);
        // Only all-zero data has two checksums; headers never are.
        bytes[19] = 1;
        let before = checksum::internet(&bytes);
        let after = match width {
            0 => {
                let old = super::be16(&bytes, at);
                bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
                checksum::update16(before, old, value as u16)
            }
            1 => {
                let old = super::be32(&bytes, at);
                bytes[at..at + 4].copy_from_slice(&(value as u32).to_be_bytes());
                checksum::update32(before, old, value as u32)
            }
            _ => {
                let old = super::be128(&bytes, at);
                bytes[at..at + 16].copy_from_slice(&value.to_be_bytes());
                checksum::update128(before, old, value)
            }
        };
        prop_assume!(bytes.iter().any(|&byte| byte != 0));
        prop_assert_eq!(after, checksum::internet(&bytes));
    }
}
