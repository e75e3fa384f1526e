//! Amanda, SANE, NetBIOS names and SNMP.

use std::net::IpAddr;

use super::*;
use crate::helper::Own;

const OUTSIDE: u128 = 0xc612_0364;

/// A datagram and its answer.
fn asked(rig: &Rig, port: u16, answer: &[u8]) -> Result<Passed, DropReason> {
    rig.send(&Packet::udp(CLIENT, 850, SERVER, port).payload(b"REQ")).unwrap();
    rig.send(&Packet::udp(SERVER, port, CLIENT, 850).payload(answer))
}

#[test]
fn amanda_ports_are_fetched_by_whoever_asked() {
    let rig = Rig::new(HelperKind::Amanda);
    asked(&rig, 10_080, b"CONNECT DATA 5001 MESG 5002\n").unwrap();
    let of = |port| format!("src={CLIENT} dst={SERVER} sport=0 dport={port}");
    let mut expected = rig.expected();
    expected.sort();
    assert_eq!(expected, [of(5001), of(5002)]);
    assert_eq!(rig.state(&Packet::tcp(CLIENT, 9, SERVER, 5001, SYN)), CtState::Related);
    assert_eq!(rig.state(&Packet::tcp(CLIENT, 10, SERVER, 5001, SYN)), CtState::New);
    asked(&rig, 10_080, b"CONNECT DATA 6001 MESG 6002 INDEX 6003 STATE 6004\n").unwrap();
    assert_eq!(rig.expected().len(), 4, "the oldest goes");
    // In the other direction it says nothing.
    let rig = Rig::new(HelperKind::Amanda);
    rig.send(&Packet::udp(CLIENT, 850, SERVER, 10_080).payload(b"CONNECT DATA 1\n")).unwrap();
    assert!(rig.expected().is_empty());
}

#[test]
fn amanda_keeps_its_connection_for_five_minutes() {
    let mut rig = Rig::new(HelperKind::Amanda);
    let id = asked(&rig, 10_080, b"wait").unwrap().tracking.conn.unwrap();
    rig.now = rig.now + Nanos::from_secs(299);
    assert!(rig.ct.view(id).unwrap().expires_in(rig.now) > Nanos(0));
}

#[test]
fn a_moved_amanda_port_may_be_longer() {
    let mut rig = Rig::new(HelperKind::Amanda);
    rig.outside = Some(OUTSIDE);
    let answered = |rig: &Rig, port: u16, answer: &[u8]| {
        rig.send(&Packet::udp(CLIENT, port, SERVER, 10_080)).unwrap();
        rig.send(&Packet::udp(SERVER, 10_080, CLIENT, port).payload(answer))
    };
    let text = b"CONNECT DATA 9 MESG 0\n";
    assert!(answered(&rig, 850, text).unwrap().frame.ends_with(text));
    let moved = answered(&rig, 851, text).unwrap().frame;
    let moved = String::from_utf8_lossy(&moved[42..]).into_owned();
    let port = moved.strip_prefix("CONNECT DATA ").unwrap().split(' ').next().unwrap();
    assert!(port.parse::<u16>().unwrap() > 9, "{moved}");
    assert_eq!(rig.expected().len(), 2);
    // What does not fit is dropped, and not expected.
    rig.room = 0;
    assert_eq!(answered(&rig, 852, text).map(drop), Err(DropReason::NoRoom));
    assert_eq!(rig.expected().len(), 2);
}

#[test]
fn a_scan_comes_from_whoever_started_it() {
    let rig = Rig::new(HelperKind::Sane);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 6566));
    let answer = [0, 0, 0, 0, 0, 0, 0x20, 1];
    talk.say(&rig, 1, &answer).unwrap();
    assert!(rig.expected().is_empty(), "nobody asked");
    for request in [&[0, 0, 0, 7, 0, 0, 0, 1][..], &[0, 0, 0, 7, 0, 0, 0]] {
        talk.say(&rig, 0, request).unwrap();
    }
    talk.say(&rig, 1, &answer).unwrap();
    assert_eq!(rig.expected(), [format!("src={CLIENT} dst={SERVER} sport=0 dport=8193")]);
    let data = |sport| Packet::tcp(CLIENT, sport, SERVER, 0x2001, SYN);
    assert_eq!((rig.state(&data(1)), rig.state(&data(2))), (CtState::Related, CtState::New));
}

/// What a question of this machine's to `to` makes us expect.
fn asked_of_all(kind: HelperKind, to: &str, own: Option<&[(IpAddr, u8)]>) -> Vec<String> {
    let rig = Rig::new(kind);
    let mut frame = Packet::udp(CLIENT, 137, to, 137).payload(b"who?").build();
    let mut parsed = parsed(&frame);
    let mut tracking = rig.ct.track(&parsed, &frame, true, rig.now).unwrap();
    rig.ct.set_helper(tracking.conn.unwrap(), Some(kind));
    let len = frame.len();
    let mut buf = FrameBuf::new(&mut frame, len);
    let own = own.map(|addresses| Own { addresses });
    assist(&rig.ct, &tracking, &mut buf, &mut parsed, own, rig.now, &|_, _| false).unwrap();
    rig.ct.confirm(&mut tracking, rig.now).unwrap();
    rig.ct.expectations(rig.now).iter().map(ToString::to_string).collect()
}

#[test]
fn everybody_on_a_network_may_answer_what_all_were_asked() {
    let own: [(IpAddr, u8); 3] = [
        ("198.18.9.1".parse().unwrap(), 24),
        ("198.18.1.70".parse().unwrap(), 31),
        (CLIENT.parse().unwrap(), 26),
    ];
    for (kind, port, seconds) in [(HelperKind::NetbiosNs, 137, 3), (HelperKind::Snmp, 161, 30)] {
        for to in ["198.18.1.255", "255.255.255.255", "198.18.1.71", "198.18.1.62"] {
            assert!(asked_of_all(kind, to, Some(&own)).is_empty(), "{to}");
        }
        assert!(asked_of_all(kind, "198.18.1.63", None).is_empty(), "another's question");
        let name = kind.name();
        let expected = format!(
            "{seconds} proto=17 src=198.18.1.63 dst={CLIENT} sport={port} dport=137 \
             mask-src=255.255.255.192 mask-dst=255.255.255.255 sport=65535 dport=65535 \
             master-src={CLIENT} master-dst=198.18.1.63 sport=137 dport=137 \
             PERMANENT class=0 helper={name}"
        );
        assert_eq!(asked_of_all(kind, "198.18.1.63", Some(&own)), [expected]);
    }
}

/// An SNMP answer with this address as its value.
fn answer(value: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = value;
    let binding = [0x30, 10, 6, 2, 43, 1, 0x40, 4, a, b, c, d];
    let mut unit = vec![0xa2, 23, 2, 1, 1, 2, 1, 0, 2, 1, 0, 0x30, 12];
    unit.extend(binding);
    let mut all = vec![0x30, 6 + unit.len() as u8, 2, 1, 1, 4, 1, b'p'];
    all.extend(unit);
    all
}

#[test]
fn snmp_addresses_are_those_of_the_outside() {
    let mut rig = Rig::new(HelperKind::Snmp);
    let inside = [198, 18, 1, 5];
    let untouched = asked(&rig, 161, &answer(inside)).unwrap();
    assert!(untouched.frame.ends_with(&inside));
    rig.outside = Some(OUTSIDE);
    rig.now = rig.now + Nanos::from_secs(400);
    let question = Packet::udp(CLIENT, 850, SERVER, 161);
    rig.send(&question.clone().payload(&answer(inside))).unwrap();
    let back = Packet::udp(SERVER, 161, CLIENT, 850);
    let changed = rig.send(&back.clone().payload(&answer(inside))).unwrap();
    assert!(changed.frame.ends_with(&[198, 18, 3, 100]));
    let other = rig.send(&back.clone().payload(&answer([1, 2, 3, 4]))).unwrap();
    assert!(other.frame.ends_with(&[1, 2, 3, 4]));
    for len in 0..answer(inside).len() {
        let cut = rig.send(&back.clone().payload(&answer(inside)[..len]));
        assert_eq!(cut.map(drop), Err(DropReason::Helper), "{len} bytes");
    }
}
