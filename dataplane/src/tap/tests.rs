//! Tests of filters over frames and of a tap's bounds. That taking changes nothing is shown
//! beside the engine (`engine/tests/tapped.rs`).

use super::*;
use crate::packet::Family;
use crate::wire::build::Packet;
use crate::wire::ethertype;

const PORT: PortId = PortId(3);

fn takes(what: What, frame: &[u8]) -> bool {
    let filter = |negated| Filter::new(vec![vec![Term { negated, what }]]);
    let yes = filter(false).matches(frame, Some(PORT));
    assert_ne!(yes, filter(true).matches(frame, Some(PORT)));
    yes
}

fn net(side: Side, address: u32, bits: u32) -> What {
    let mask = u128::from(u32::MAX << (32 - bits));
    What::Net { side, family: Family::V4, address: u128::from(address), mask }
}

#[test]
fn terms_ask_what_the_headers_say() {
    let ports = |side, low, high| What::Ports { side, low, high };
    let frame = Packet::tcp("198.18.1.2", 4000, "203.0.113.9", 443, 2).build();
    for what in [
        What::Any,
        What::Family(Family::V4),
        What::Proto(6),
        net(Side::Source, 0xc612_0100, 24),
        net(Side::Either, 0xcb00_7109, 32),
        ports(Side::Destination, 443, 443),
        ports(Side::Either, 3999, 4001),
        What::Input(PORT),
    ] {
        assert!(takes(what, &frame), "{what:?}");
    }
    for what in [
        What::Family(Family::V6),
        What::Arp,
        What::Proto(17),
        net(Side::Destination, 0xc612_0100, 24),
        ports(Side::Source, 443, 443),
        What::Input(PortId(4)),
        What::Own,
    ] {
        assert!(!takes(what, &frame), "{what:?}");
    }
    assert!(
        Filter::new(vec![vec![Term { negated: false, what: What::Own }]]).matches(&frame, None)
    );
    assert!(!Filter::default().matches(&frame, Some(PORT)), "nothing is asked, nothing taken");
    let both = [What::Proto(6), What::Proto(17)].map(|what| Term { negated: false, what });
    assert!(!Filter::new(vec![both.to_vec()]).matches(&frame, Some(PORT)));
    assert!(Filter::new(both.map(|term| vec![term]).to_vec()).matches(&frame, Some(PORT)));
}

#[test]
fn tags_fragments_and_extension_headers_are_looked_behind() {
    let tagged = Packet::udp("198.18.1.2", 1, "198.18.2.2", 53)
        .tag(ethertype::QINQ, 0x6005)
        .tag(ethertype::VLAN, 7)
        .build();
    let headers = Headers::read(&tagged);
    assert_eq!((headers.vlan, headers.kind), (Some(5), ethertype::IPV4));
    assert_eq!(headers.ip.unwrap().ports, Some((1, 53)));
    let later = Packet::udp("198.18.1.2", 1, "198.18.2.2", 53).fragment(8, 8, false).build();
    let ip = Headers::read(&later).ip.unwrap();
    assert!(ip.later && ip.ports.is_none());
    let six = Packet::udp("2001:db8::1", 9, "2001:db8::2", 53).build();
    let mut behind = six[..54].to_vec();
    behind[20] = 0;
    behind.extend([17, 0, 1, 4, 0, 0, 0, 0]);
    behind.extend(&six[54..]);
    let ip = Headers::read(&behind).ip.unwrap();
    assert_eq!((ip.proto, ip.ports), (17, Some((9, 53))));
}

#[test]
fn frames_of_any_length_are_read_without_harm() {
    let whole = Packet::tcp("2001:db8::1", 9, "2001:db8::2", 53, 2).build();
    for length in 0..whole.len() {
        let _ = Headers::read(&whole[..length]);
        let _ = Headers::read(&vec![0xff; length]);
    }
}

fn tap(count: u64, until: Nanos, rate: Option<Rate>) -> Tap {
    let filter = Filter::new(vec![vec![Term { negated: false, what: What::Any }]]);
    Tap::open(Terms { filter, count, until, rate, snaplen: 64, room: 4 })
}

#[test]
fn a_tap_ends_by_count_time_and_when_it_is_closed() {
    let frame = [0; 60];
    let take = |tap: &Tap, now| tap.admits(&frame, Some(PORT), Nanos(now));
    let counted = tap(2, Nanos(100), None);
    assert!(take(&counted, 1) && take(&counted, 2) && !take(&counted, 3));
    assert_eq!(counted.counts().taken, 2);
    assert!(!counted.is_on(Nanos(3)));
    let timed = tap(10, Nanos(100), None);
    assert!(take(&timed, 99) && !take(&timed, 100));
    timed.close();
    assert!(!take(&timed, 1));
    assert!(!Tap::closed().is_on(Nanos(0)) && !Tap::closed().may_be_on());
}

#[test]
fn what_is_beyond_the_rate_is_counted_and_not_taken() {
    let limited = tap(1000, Nanos(u64::MAX), Rate::new(10, 5));
    let now = Nanos::from_secs(1000);
    let taken = (0..100).filter(|_| limited.admits(&[0; 60], None, now)).count();
    assert_eq!(taken, 5);
    assert_eq!(limited.counts(), Counts { matched: 100, taken: 5, limited: 95, lost: 0 });
}
