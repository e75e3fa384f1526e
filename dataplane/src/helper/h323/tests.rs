//! H.323 on simulated time: what each message brings, and what strangers may write.

mod hostile;
mod messages;

use super::found::Found;
use super::per::{self, STEPS};
use super::types::{h225, h245};
use crate::conntrack::{CtState, status};
use crate::helper::tests::*;
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::build::Packet;
use messages::*;

const OUTSIDE: &str = "198.18.3.100";

fn at(host: &str, port: u16) -> At {
    (host.parse().unwrap(), port)
}

fn rig(helper: HelperKind, translated: bool) -> Rig {
    let mut rig = Rig::new(helper);
    let outside: std::net::Ipv4Addr = OUTSIDE.parse().unwrap();
    rig.outside = translated.then(|| u128::from(u32::from(outside)));
    // An address takes six bytes wherever it leads.
    rig.room = 0;
    rig
}

/// A datagram between terminal and gatekeeper.
fn ras(rig: &Rig, side: usize, text: &[u8]) -> Result<Passed, DropReason> {
    let hosts = [(CLIENT, 1719), (SERVER, 1719)];
    let ((src, sport), (dst, dport)) = (hosts[side], hosts[1 - side]);
    rig.send(&Packet::udp(src, sport, dst, dport).payload(text))
}

fn expects(rig: &Rig, wanted: &[(&str, &str, u16)]) {
    let line =
        |(src, dst, port): &(&str, &str, u16)| format!("src={src} dst={dst} sport=0 dport={port}");
    let (mut found, mut wanted) = (rig.expected(), wanted.iter().map(line).collect::<Vec<_>>());
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

/// The address and port at the end of a packet.
fn last_address(passed: &Passed) -> At {
    let tail: [u8; 6] = passed.frame[passed.frame.len() - 6..].try_into().unwrap();
    let [a, b, c, d, high, low] = tail;
    (std::net::IpAddr::from([a, b, c, d]), u16::from_be_bytes([high, low]))
}

#[test]
fn gatekeepers_are_found() {
    let rig = rig(HelperKind::Ras, false);
    ras(&rig, 0, &gatekeeper_request(at(CLIENT, 1719))).unwrap();
    ras(&rig, 1, &gatekeeper_confirm(at(SERVER, 1719))).unwrap();
    expects(&rig, &[]);
    ras(&rig, 1, &gatekeeper_confirm(at(THIRD, 1719))).unwrap();
    expects(&rig, &[(CLIENT, THIRD, 1719)]);
    let found = rig.send(&Packet::udp(CLIENT, 1719, THIRD, 1719)).unwrap().tracking;
    assert_eq!(found.state, CtState::Related);
    assert_eq!(rig.ct.helper(found.conn.unwrap()), Some(HelperKind::Ras));
    // Which does not send its terminals on.
    let confirm = gatekeeper_confirm(at(SERVER, 99));
    rig.send(&Packet::udp(THIRD, 1719, CLIENT, 1719).payload(&confirm)).unwrap();
    expects(&rig, &[]);
}

#[test]
fn calls_come_from_the_gatekeeper_alone() {
    let rig = rig(HelperKind::Ras, false);
    let call = [at("127.0.0.1", 1720), at(CLIENT, 1720), at(CLIENT, 1721)];
    ras(&rig, 0, &registration_request(&call, &[at(CLIENT, 1719)], Some(60))).unwrap();
    expects(&rig, &[(SERVER, CLIENT, 1720)]);
    let open = |from, port| Packet::tcp(from, port, CLIENT, 1720, SYN).seq(1, 0);
    assert_eq!(rig.state(&open(THIRD, 9)), CtState::New);
    for port in [9, 10] {
        let child = rig.send(&open(SERVER, port)).unwrap().tracking;
        assert_eq!(child.state, CtState::Related, "as many as come");
        assert_eq!(rig.ct.helper(child.conn.unwrap()), Some(HelperKind::Q931));
    }
    ras(&rig, 0, &unregistration_request(&[at(CLIENT, 1720)])).unwrap();
    expects(&rig, &[]);
    assert_eq!(rig.state(&open(SERVER, 11)), CtState::New);
}

#[test]
fn a_registration_lives_as_long_as_is_said() {
    let mut rig = rig(HelperKind::Ras, false);
    let call = [at(CLIENT, 1720)];
    let lives = |rig: &mut Rig, request: Option<u32>, confirm: Option<u32>, seconds: u64| {
        ras(rig, 0, &registration_request(&call, &call, request)).unwrap();
        let id = ras(rig, 1, &registration_confirm(&call, confirm)).unwrap().tracking.conn;
        let deadline = rig.ct.view(id.unwrap()).unwrap().deadline.unwrap();
        assert_eq!(deadline.saturating_sub(rig.now).as_secs(), seconds);
    };
    lives(&mut rig, None, None, 300);
    lives(&mut rig, Some(60), None, 60);
    lives(&mut rig, Some(60), Some(70_000), 70_000);
    let id = ras(&rig, 0, &unregistration_request(&call)).unwrap().tracking.conn.unwrap();
    assert_eq!(rig.ct.view(id).unwrap().deadline.unwrap().saturating_sub(rig.now).as_secs(), 30);
}

#[test]
fn a_lifetime_needs_room_behind_it() {
    let rig = rig(HelperKind::Ras, false);
    ras(&rig, 0, &short_registration_request(&[at(CLIENT, 1720)], 60)).unwrap();
    expects(&rig, &[]);
}

#[test]
fn gatekeepers_name_who_is_called() {
    let rig = rig(HelperKind::Ras, false);
    ras(&rig, 0, &admission_request(None, Some(at(CLIENT, 1720)))).unwrap();
    ras(&rig, 1, &admission_confirm(at(THIRD, 1720))).unwrap();
    expects(&rig, &[(CLIENT, THIRD, 1720)]);
    ras(&rig, 1, &admission_confirm(at(CLIENT, 1720))).unwrap();
    expects(&rig, &[(CLIENT, THIRD, 1720)]);
    ras(&rig, 0, &location_request(at(CLIENT, 1719))).unwrap();
    ras(&rig, 1, &location_confirm(at(THIRD, 1721), at(THIRD, 1719))).unwrap();
    expects(&rig, &[(CLIENT, THIRD, 1720), (CLIENT, THIRD, 1721)]);
    ras(&rig, 0, &info_response(at(CLIENT, 1719), &[at(CLIENT, 1720)])).unwrap();
}

#[test]
fn ras_addresses_are_translated() {
    let rig = rig(HelperKind::Ras, true);
    let passed = ras(&rig, 0, &location_request(at(CLIENT, 1719))).unwrap();
    assert_eq!(last_address(&passed), at(OUTSIDE, 1719));
    let passed = ras(&rig, 0, &location_request(at(CLIENT, 99))).unwrap();
    assert_eq!(last_address(&passed), at(CLIENT, 99), "another's port");
    let call = [at(CLIENT, 1720)];
    ras(&rig, 0, &registration_request(&call, &[at(CLIENT, 1719)], None)).unwrap();
    expects(&rig, &[(SERVER, OUTSIDE, 1720)]);
    let passed = ras(&rig, 0, &unregistration_request(&call)).unwrap();
    assert_eq!(last_address(&passed), at(OUTSIDE, 1720));
    assert_eq!(rig.ct.status(passed.tracking.conn.unwrap()).unwrap() & status::SEQ_ADJUST, 0);
}

/// A call with the helper, and what each side's message brings.
fn say(rig: &Rig, talk: &mut Talk, side: usize, text: &[u8]) {
    talk.say(rig, side, text).unwrap();
}

#[test]
fn every_message_of_a_call_may_bring_a_control_channel_and_media() {
    for body in Body::ALL {
        let rig = rig(HelperKind::Q931, false);
        let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 1720));
        let call = Call {
            h245: Some(at(CLIENT, 5000)),
            fast_start: vec![open(Some(at(CLIENT, 6001)), None).channel()],
            ..Call::default()
        };
        say(&rig, &mut talk, 0, &call.packet(body));
        let all = [(SERVER, CLIENT, 5000), (SERVER, CLIENT, 6000), (SERVER, CLIENT, 6001)];
        expects(&rig, if body == Body::ReleaseComplete { &[] } else { &all });
    }
}

#[test]
fn a_control_channel_has_its_helper() {
    let rig = rig(HelperKind::Q931, false);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 1720));
    let call = Call { h245: Some(at(SERVER, 5000)), ..Call::default() };
    say(&rig, &mut talk, 1, &call.packet(Body::Connect));
    expects(&rig, &[(CLIENT, SERVER, 5000)]);
    let mut control = Talk::open(&rig, (CLIENT, 4001), (SERVER, 5000));
    let open = Open {
        carries: Carries::T120,
        stack: Some(at(CLIENT, 1503)),
        ..open(Some(at(CLIENT, 6000)), Some(at(CLIENT, 6001)))
    };
    for message in others() {
        say(&rig, &mut control, 0, &tpkt(&message));
    }
    say(&rig, &mut control, 0, &tpkt(&open.message()));
    let three = [(SERVER, CLIENT, 6000), (SERVER, CLIENT, 6001), (SERVER, CLIENT, 1503)];
    expects(&rig, &three);
    let ack = acknowledge(None, Some((Some(at(SERVER, 7000)), None)), None);
    say(&rig, &mut control, 1, &tpkt(&ack));
    expects(&rig, &[&three[..], &[(CLIENT, SERVER, 7000), (CLIENT, SERVER, 7001)]].concat());
    let data = |port| Packet::tcp(SERVER, port, CLIENT, 1503, SYN).seq(1, 0);
    assert_eq!([9, 10].map(|port| rig.state(&data(port))), [CtState::Related; 2]);
}

#[test]
fn t120_must_be_on_the_lan() {
    let rig = rig(HelperKind::Q931, false);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 1720));
    let elsewhere = Open { stack: Some(at(CLIENT, 1503)), ..open(None, None) };
    let call = Call { tunnelled: vec![elsewhere.message()], ..Call::default() };
    say(&rig, &mut talk, 0, &call.packet(Body::Facility));
    expects(&rig, &[]);
}

#[test]
fn only_what_is_the_senders_own_is_expected() {
    let rig = rig(HelperKind::Q931, false);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 1720));
    for (host, port) in [(THIRD, 5000), (SERVER, 5000), (CLIENT, 0), (CLIENT6, 5000)] {
        let call = Call {
            h245: Some(at(host, port)),
            fast_start: vec![open(Some(at(host, port)), None).channel()],
            ..Call::default()
        };
        say(&rig, &mut talk, 0, &call.packet(Body::Setup));
    }
    expects(&rig, &[]);
}

#[test]
fn a_call_in_ipv6() {
    let rig = rig(HelperKind::Q931, false);
    let mut talk = Talk::open(&rig, (CLIENT6, 4000), (SERVER6, 1720));
    let call = Call {
        h245: Some(at(CLIENT6, 5000)),
        fast_start: vec![open(None, Some(at(CLIENT6, 6001))).channel()],
        ..Call::default()
    };
    say(&rig, &mut talk, 0, &call.packet(Body::Setup));
    expects(&rig, &[(SERVER6, CLIENT6, 5000), (SERVER6, CLIENT6, 6000), (SERVER6, CLIENT6, 6001)]);
}

#[test]
fn media_behind_one_address_have_their_own_ports() {
    let rig = rig(HelperKind::Q931, true);
    let call = |port| Call {
        fast_start: vec![open(Some(at(CLIENT, port)), None).channel()],
        ..Call::default()
    };
    let mut one = Talk::open(&rig, (CLIENT, 4000), (SERVER, 1720));
    let mut two = Talk::open(&rig, (CLIENT, 4001), (SERVER, 1720));
    say(&rig, &mut one, 0, &call(6000).packet(Body::Setup));
    let passed = two.say(&rig, 0, &call(6001).packet(Body::Setup)).unwrap();
    expects(&rig, &[6000, 6001, 6002, 6003].map(|port| (SERVER, OUTSIDE, port)));
    let told = [&[198, 18, 3, 100][..], &6003u16.to_be_bytes()].concat();
    assert!(passed.frame.windows(6).any(|part| part == told), "an odd port stays odd");
    // Four pairs a call.
    for port in [6000, 6100, 6200, 6300, 6400] {
        say(&rig, &mut one, 0, &call(port).packet(Body::Setup));
    }
    let ports: Vec<u16> =
        rig.ct.expectations(rig.now).iter().map(|row| row.expectation.tuple.dport).collect();
    assert!(ports.contains(&6300) && !ports.contains(&6400), "{ports:?}");
}

#[test]
fn headers_may_come_alone() {
    let rig = rig(HelperKind::Q931, false);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 1720));
    let call = Call { h245: Some(at(CLIENT, 5000)), ..Call::default() };
    let packet = call.packet(Body::Alerting);
    let (header, body) = packet.split_at(4);
    say(&rig, &mut talk, 0, body);
    expects(&rig, &[]);
    say(&rig, &mut talk, 0, header);
    // The other side's direction has its own.
    say(&rig, &mut talk, 1, body);
    expects(&rig, &[]);
    say(&rig, &mut talk, 0, body);
    expects(&rig, &[(SERVER, CLIENT, 5000)]);
}

#[test]
fn a_map_that_ends_with_its_fourth_byte_is_read_from_the_first_bit_of_that() {
    let read = |known| {
        let mut found = Found::default();
        let fast_start = vec![open(Some(at(CLIENT, 6000)), None).channel()];
        let call = Call { source: Some(at(CLIENT, 7)), fast_start, known, ..Call::default() };
        let user = call.user(Body::Setup);
        let read = per::read(&user, (0, user.len()), &h225::USER, &mut found, &mut STEPS.clone());
        read.map(|()| (found.channels.len(), found.source.is_some()))
    };
    let misread: Vec<usize> = (9..=32).filter(|known| read(*known) != Ok((1, true))).collect();
    assert_eq!(misread.len(), 1, "{misread:?}");
    assert!(read(33).is_err(), "and more than 32 not at all");
}

#[test]
fn a_message_of_h245_is_told_from_a_fast_start() {
    let message = open(Some(at(CLIENT, 6000)), None).message();
    let mut found = Found::default();
    per::read(&message, (0, message.len()), &h245::CONTROL, &mut found, &mut STEPS.clone())
        .unwrap();
    assert!(found.channels[0].in_h245 && found.channels[0].media[0][0].is_some());
}
