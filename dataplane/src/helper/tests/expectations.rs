//! The table of expectations.

use super::*;
use crate::conntrack::{ConnId, Direction, ExpectError, Expectation, Limits, SourceMask, Tuple};
use crate::packet::Family;
use crate::wire::proto;

const LIMITS: Limits = Limits { most: 4, timeout: Nanos::from_secs(60), any_master: false };

/// A connection that may expect others.
fn master(rig: &Rig, port: u16) -> ConnId {
    rig.send(&Packet::udp(CLIENT, port, SERVER, 9)).unwrap().tracking.conn.unwrap()
}

fn to(master: ConnId, dport: u16) -> Expectation {
    let address = |text: &str| u128::from(u32::from(text.parse::<std::net::Ipv4Addr>().unwrap()));
    Expectation {
        tuple: Tuple {
            src: address(SERVER),
            dst: address(CLIENT),
            sport: 0,
            dport,
            proto: proto::UDP,
            family: Family::V4,
            zone: 0,
        },
        mask: SourceMask { address: u128::MAX, port: 0 },
        master,
        by: HelperKind::Tftp,
        class: 0,
        permanent: false,
        inactive: false,
        helper: None,
        follow: None,
    }
}

#[test]
fn what_could_be_confused_is_refused() {
    let rig = Rig::new(HelperKind::Tftp);
    let [one, two] = [1, 2].map(|port| master(&rig, port));
    let expect = |new: &Expectation| rig.ct.expect(new, LIMITS, rig.now).map(drop);
    let from_anywhere = |master| {
        let mut any = to(master, 7);
        any.mask.address = 0;
        any
    };
    expect(&to(one, 7)).unwrap();
    expect(&to(one, 7)).unwrap();
    assert_eq!(rig.expected().len(), 1, "the same again replaces it");
    assert_eq!(expect(&to(two, 7)), Err(ExpectError::Busy));
    assert_eq!(expect(&from_anywhere(one)), Err(ExpectError::Busy));
    assert_eq!(expect(&Expectation { class: 1, ..to(one, 7) }), Err(ExpectError::Already));
    let any_master = Limits { any_master: true, ..LIMITS };
    let shared = rig.ct.expect(&to(two, 7), any_master, rig.now).map(drop);
    assert_eq!(shared, Err(ExpectError::Already));
    let mut elsewhere = to(two, 7);
    elsewhere.tuple.src += 1;
    expect(&elsewhere).unwrap();
    expect(&to(two, 8)).unwrap();
    let mut tcp = to(two, 7);
    tcp.tuple.proto = proto::TCP;
    expect(&tcp).unwrap();
    rig.ct.remove(one);
    expect(&to(two, 7)).unwrap();
    assert_eq!(rig.expected().len(), 4, "nobody waits for the dead");
}

#[test]
fn the_oldest_of_a_master_and_class_makes_room() {
    let rig = Rig::new(HelperKind::Tftp);
    let [one, two] = [1, 2].map(|port| master(&rig, port));
    rig.ct.expect(&to(two, 100), LIMITS, rig.now).unwrap();
    rig.ct.expect(&Expectation { class: 1, ..to(one, 200) }, LIMITS, rig.now).unwrap();
    for port in 1..=6 {
        rig.ct.expect(&to(one, port), LIMITS, rig.now).unwrap();
    }
    let mut ports: Vec<u16> =
        rig.ct.expectations(rig.now).iter().map(|row| row.expectation.tuple.dport).collect();
    ports.sort_unstable();
    assert_eq!(ports, [3, 4, 5, 6, 100, 200]);
}

#[test]
fn the_table_is_bounded_and_collects_what_is_over_first() {
    let mut rig = Rig::new(HelperKind::Tftp);
    let loose = Limits { most: 1000, ..LIMITS };
    let one = master(&rig, 1);
    for port in 0..16 {
        rig.ct.expect(&to(one, port), loose, rig.now).unwrap();
    }
    assert_eq!(rig.ct.expect(&to(one, 16), loose, rig.now), Err(ExpectError::Full));
    let mut one_goes = to(one, 3);
    one_goes.class = 0;
    rig.ct.expect(&one_goes, loose, rig.now).unwrap();
    assert!(rig.ct.set("expect_max", 17).is_err(), "memory was taken at the start");
    rig.now = rig.now + Nanos::from_secs(60);
    let two = master(&rig, 2);
    rig.ct.expect(&to(two, 99), loose, rig.now).unwrap();
    assert_eq!(rig.expected().len(), 1);
}

#[test]
fn permanent_ones_stay_and_inactive_ones_wait() {
    let rig = Rig::new(HelperKind::Tftp);
    let one = master(&rig, 1);
    rig.ct.expect(&Expectation { permanent: true, ..to(one, 7) }, LIMITS, rig.now).unwrap();
    rig.ct.expect(&Expectation { inactive: true, ..to(one, 8) }, LIMITS, rig.now).unwrap();
    for port in [30, 31] {
        assert_eq!(rig.state(&Packet::udp(SERVER, port, CLIENT, 7)), CtState::Related);
    }
    assert_eq!(rig.state(&Packet::udp(SERVER, 30, CLIENT, 8)), CtState::New);
    assert_eq!(rig.state(&Packet::udp(THIRD, 30, CLIENT, 7)), CtState::New, "another source");
}

#[test]
fn an_unconfirmed_master_expects_nobody_yet() {
    let rig = Rig::new(HelperKind::Tftp);
    let frame = Packet::udp(CLIENT, 1, SERVER, 9).build();
    let mut tracking = rig.ct.track(&parsed(&frame), &frame, false, rig.now).unwrap();
    let id = rig.ct.expect(&to(tracking.conn.unwrap(), 7), LIMITS, rig.now).unwrap();
    assert_eq!(rig.state(&Packet::udp(SERVER, 30, CLIENT, 7)), CtState::New);
    rig.ct.confirm(&mut tracking, rig.now).unwrap();
    assert_eq!(rig.state(&Packet::udp(SERVER, 31, CLIENT, 7)), CtState::Related);
    assert!(!rig.ct.unexpect(id), "it has served");
}

#[test]
fn the_child_of_an_expectation_with_a_helper_has_one() {
    let rig = Rig::new(HelperKind::Tftp);
    let one = master(&rig, 1);
    let with = Expectation { helper: Some(HelperKind::Sip), ..to(one, 7) };
    rig.ct.expect(&with, LIMITS, rig.now).unwrap();
    let child = rig.send(&Packet::udp(SERVER, 30, CLIENT, 7)).unwrap().tracking;
    assert_eq!((child.state, child.direction), (CtState::Related, Direction::Original));
    assert_eq!(rig.ct.helper(child.conn.unwrap()), Some(HelperKind::Sip));
}

#[test]
fn the_listing_reads_as_the_tool_writes_it() {
    let rig = Rig::new(HelperKind::Tftp);
    rig.send(&Packet::udp(CLIENT, 50764, SERVER, 69).payload(b"\x00\x01x\x00")).unwrap();
    let rows = rig.ct.expectations(rig.now);
    assert_eq!(
        rows[0].to_string(),
        "300 proto=17 src=198.18.2.7 dst=198.18.1.5 sport=0 dport=50764 \
         mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 \
         master-src=198.18.1.5 master-dst=198.18.2.7 sport=50764 dport=69 class=0 helper=tftp"
    );
}
