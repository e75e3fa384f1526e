//! Tests of what the router makes; `tests/replies_kernel.rs` compares the same
//! functions with the live kernel.

use proptest::collection::vec;
use proptest::prelude::*;

use super::limit::{Limiter, Settings};
use super::*;
use crate::clock::Nanos;
use crate::packet::Mac;
use crate::wire::build::{self, Packet};
use crate::wire::tcp::flags;
use crate::wire::{Frame, ipv4, parse};

const A: &str = "198.18.1.5";
const B: &str = "198.18.2.7";

fn parsed(frame: &[u8]) -> Parsed {
    match parse(frame, build::ETH_DST) {
        Ok(Frame::Ip(parsed)) => parsed,
        other => panic!("not IP: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn answer(frame: &[u8], with: RejectWith, group: bool) -> Option<Vec<u8>> {
    let p = parsed(frame);
    let origin = Origin { source: 0xc612_0101, id: 0, mtu: 1500 };
    let mut out = [0xa5; 2000];
    let about = About { frame, parsed: &p, group, summed: false, half_summed: false, options: &[] };
    reject(&mut out, &about, with, &origin).map(|length| out[..length].to_vec())
}

/// Captured from Linux 6.18 (identification zeroed).
#[test]
fn port_unreachable_is_the_kernels() {
    let frame = Packet::raw(A, B, 200, &[]).ttl(63).build();
    let expected = "45c00030000000004001ebe2c6120101c61201050303fcfc00000000\
                    45000014123400003fc8d9bdc6120105c6120207";
    assert_eq!(answer(&frame, RejectWith::Icmp(3), false).map(|b| hex(&b)), Some(expected.into()));
}

/// Captured from Linux 6.18.
#[test]
fn reset_is_the_kernels() {
    let syn = Packet::tcp(A, 1000, B, 80, flags::SYN).tcp_options(&[2, 4, 5, 0xb4]);
    let expected = "45000028000040004006ab9fc6120207c6120105\
                    005003e800000000000003e950140000187f0000";
    let got = answer(&syn.build(), RejectWith::TcpReset, false);
    assert_eq!(got.map(|b| hex(&b)), Some(expected.into()));
}

#[test]
fn nothing_answers_what_must_not_be_answered() {
    let silent = |packet: Packet| {
        let frame = packet.build();
        let icmp = answer(&frame, RejectWith::Icmp(3), false);
        assert_eq!(icmp, None, "{packet:?}");
        assert_eq!(answer(&frame, RejectWith::TcpReset, false), None, "{packet:?}");
    };
    let syn = || Packet::tcp(A, 1, B, 2, flags::SYN);
    silent(syn().bad_l4_checksum());
    silent(syn().payload_len(64).fragment(32, 32, false));
    silent(Packet::icmp(A, B, 3, 1, 0));
    silent(Packet::tcp("0.0.0.0", 1, B, 2, flags::SYN | flags::RST));
    silent(Packet::udp(A, 1, "224.0.0.1", 2));
    silent(Packet::udp(A, 1, B, 2).macs(build::ETH_SRC, Mac([0xff; 6])));
    assert_eq!(answer(&syn().build(), RejectWith::Icmp(3), true), None, "broadcast by routing");
    assert!(answer(&syn().build(), RejectWith::Icmp(3), false).is_some());
    assert_eq!(answer(&syn().build(), RejectWith::Icmp6(4), false), None, "wrong family");
}

#[test]
fn too_short_a_buffer_is_no_answer() {
    let frame = Packet::udp(A, 1, B, 2).build();
    let p = parsed(&frame);
    let about = About {
        frame: &frame,
        parsed: &p,
        group: false,
        summed: false,
        half_summed: false,
        options: &[],
    };
    let origin = Origin { source: 1, id: 0, mtu: 1500 };
    let message = Message::time_exceeded(Family::V4);
    for room in 0..56 {
        assert_eq!(icmp::error(&mut vec![0; room], &about, message, &origin), None);
    }
    assert_eq!(icmp::error(&mut [0; 56], &about, message, &origin), Some(56));
    let tiny = Origin { mtu: 48, ..origin };
    assert_eq!(icmp::error(&mut [0; 99], &about, message, &tiny), None, "no room to quote");
    let small = Origin { mtu: 49, ..origin };
    assert_eq!(icmp::error(&mut [0; 99], &about, message, &small), Some(49));
}

const UNREACHABLE: Message = Message::unreachable(Family::V4, 1);

#[test]
fn a_destination_may_save_up_six_messages() {
    let mut limiter = Limiter::new(Settings::default(), 64);
    let mut allowed = |at_ms: u64, to| {
        limiter.allow(Nanos::from_millis(3_600_000 + at_ms), Family::V4, UNREACHABLE, to, 24)
    };
    assert_eq!((0..20).filter(|_| allowed(0, 7)).count(), 6);
    assert!(allowed(0, 8), "another destination has its own");
    assert!(!allowed(996, 7));
    assert!(allowed(1000, 7));
    assert!(!allowed(1004, 7));
    assert_eq!((0..20).filter(|_| allowed(100_000, 7)).count(), 6);
}

#[test]
fn all_destinations_share_fifty_and_a_thousand_a_second() {
    let mut limiter = Limiter::new(Settings::default(), 4096);
    let mut next = 0;
    let mut burst = |at_ms: u64| {
        let now = Nanos::from_millis(3_600_000 + at_ms);
        (0..200)
            .filter(|_| {
                next += 1;
                limiter.allow(now, Family::V4, UNREACHABLE, next, 24)
            })
            .count()
    };
    assert_eq!(burst(0), 50 + 50, "the bucket, and one refill of an old one");
    assert_eq!(burst(16), 0, "less than a fiftieth of a second");
    assert_eq!(burst(20), 20);
    assert_eq!(burst(40), 20);
    assert_eq!(burst(140), 50);
}

#[test]
fn path_mtu_messages_and_unmasked_types_are_free() {
    let mut limiter = Limiter::new(Settings::default(), 4);
    let now = Nanos::from_secs(3600);
    let mut count =
        |family, message| (0..100).filter(|_| limiter.allow(now, family, message, 1, 0)).count();
    assert_eq!(count(Family::V4, Message::too_big(Family::V4, 1400)), 100);
    assert_eq!(count(Family::V6, Message::too_big(Family::V6, 1400)), 100);
    assert_eq!(count(Family::V4, Message { kind: 5, code: 1, word: 0 }), 100);
    assert_eq!(count(Family::V4, UNREACHABLE), 6);
    assert_eq!(count(Family::V6, Message::unreachable(Family::V6, 0)), 6);
}

#[test]
fn ipv6_routes_of_wider_prefixes_get_more() {
    let rate = |prefix_len| {
        let mut limiter = Limiter::new(Settings { icmp_msgs_per_sec: 0, ..Settings::default() }, 4);
        let message = Message::unreachable(Family::V6, 0);
        let ms = (0..10_000).step_by(4).map(|ms| Nanos::from_millis(3_600_000 + ms));
        ms.filter(|&now| limiter.allow(now, Family::V6, message, 1, prefix_len)).count()
    };
    // 25, 12, 6, 3 and 1 ticks a message over 2500 ticks, and the burst.
    assert_eq!([rate(128), rate(96), rate(64), rate(32), rate(0)], [105, 214, 422, 839, 2500]);
}

#[test]
fn route_errors_pay_twice() {
    let mut limiter = Limiter::new(Settings::default(), 4);
    let now = Nanos::from_secs(3600);
    let sent = (0..20).filter(|_| limiter.allow_route_error(now, UNREACHABLE, 1)).count();
    // Five seconds' worth at most, two for each.
    assert_eq!(sent, 2);
}

#[test]
fn limits_can_be_off() {
    let mut limiter = Limiter::new(Settings::off(), 1);
    let now = Nanos::from_secs(1);
    assert!((0..1000).all(|_| limiter.allow(now, Family::V4, UNREACHABLE, 1, 0)));
    assert!((0..1000).all(|_| limiter.allow_route_error(now, UNREACHABLE, 1)));
    let v6 = Message::unreachable(Family::V6, 0);
    assert!((0..1000).all(|_| limiter.allow(now, Family::V6, v6, 1, 0)));
}

proptest! {
    #[test]
    fn fragments_carry_the_payload_once_and_in_order(
        payload in 0usize..3000,
        mtu in 28u32..1500,
        options in vec(any::<u8>(), 0..40),
        place in proptest::option::of((0u16..100, any::<bool>())),
    ) {
        let packet = Packet::udp(A, 1, B, 2).payload_len(payload).options(&options);
        let fragment = place.map(|(offset, more)| (offset * 8, more));
        let frame = Packet { fragment, fragment_len: usize::MAX, ..packet }.build();
        let p = parsed(&frame);
        let whole = ipv4::Packet::new_checked(p.l3_bytes(&frame)).expect("IPv4");
        let (mut scratch, mut joined) = (vec![0; 1600], Vec::<u8>::new());
        let mut words = Vec::new();
        let count = fragment::fragment(&frame, &p, mtu, &mut scratch, |piece| {
            let view = ipv4::Packet::new_checked(&piece[14..]).expect("IPv4");
            assert!(view.checksum_ok() && view.total_len() <= mtu as usize);
            assert_eq!(&piece[..14], &frame[..14]);
            words.push((view.fragment_word(), joined.len()));
            joined.extend(view.payload());
        });
        if (mtu as usize) < whole.header_len() + 8 {
            prop_assert_eq!(count, 0);
            return Ok(());
        }
        prop_assert_eq!(&joined[..], whole.payload());
        let start = usize::from(whole.fragment_word() & ipv4::OFFSET_MASK) * 8;
        for (index, &(word, at)) in words.iter().enumerate() {
            prop_assert_eq!(usize::from(word & ipv4::OFFSET_MASK) * 8, start + at);
            let last = index + 1 == count;
            let more = !last || whole.fragment_word() & ipv4::MF != 0;
            prop_assert_eq!(word & ipv4::MF != 0, more);
        }
    }

    #[test]
    fn answers_to_anything_are_valid_or_none(
        bytes in vec(any::<u8>(), 0..120),
        v6 in any::<bool>(),
        number in any::<u8>(),
        code in 0..16u8,
    ) {
        let (a, b) = if v6 { ("2001:db8::5", "2001:db8::7") } else { (A, B) };
        let frame = Packet::raw(a, b, number, &bytes).build();
        // What a raw number makes of random bytes may be refused before any rule.
        let Ok(Frame::Ip(_)) = parse(&frame, build::ETH_DST) else { return Ok(()) };
        for with in [RejectWith::TcpReset, RejectWith::Icmp(code), RejectWith::Icmp6(code)] {
            if let Some(ip) = answer(&frame, with, false) {
                let made = framed(&ip);
                let p = parsed(&made);
                prop_assert!(checksum::transport_ok(&made, &p));
                prop_assert_eq!(usize::from(p.l3_len), ip.len());
            }
        }
    }
}

fn framed(ip: &[u8]) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&build::ETH_DST.0[..], &build::ETH_SRC.0[..], &ethertype[..], ip].concat()
}
