//! PPTP calls, the keys of their GRE flows, and how both end. (What the kernel makes
//! of each message: `control/tests/behaviours/helpers_pptp.rs`.)

use super::*;
use crate::conntrack::{ConnId, Direction};

/// A control message that begins with these bytes, as long as any kind is.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut text = vec![0, 220, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, kind, 0, 0];
    text.extend(body);
    text.resize(220, 0);
    text
}

/// A packet of enhanced GRE to a call.
fn data(from: &str, to: &str, call: u8) -> Packet {
    Packet::raw(from, to, 47, &[0x30, 1, 0x88, 0x0b, 0, 0, 0, call, 0, 0, 0, 1])
}

/// A session with a call: 7 of the client's, 9 of the server's.
fn call(rig: &Rig, port: u16) -> (Talk, ConnId) {
    let mut talk = Talk::open(rig, (CLIENT, port), (SERVER, 1723));
    talk.say(rig, 0, &message(1, &[1, 0])).unwrap();
    talk.say(rig, 1, &message(2, &[1, 0, 1])).unwrap();
    talk.say(rig, 0, &message(7, &[0, 7])).unwrap();
    let passed = talk.say(rig, 1, &message(8, &[0, 9, 0, 7, 1])).unwrap();
    (talk, passed.tracking.conn.unwrap())
}

fn state(rig: &Rig, packet: &Packet) -> (CtState, Option<ConnId>) {
    let tracking = rig.send(packet).unwrap().tracking;
    (tracking.state, tracking.conn)
}

#[test]
fn a_call_has_one_gre_connection() {
    let rig = Rig::new(HelperKind::Pptp);
    let (_, master) = call(&rig, 4000);
    let mut expected = rig.expected();
    expected.sort();
    let of = |src, dst, from, to| format!("src={src} dst={dst} srckey=0x{from} dstkey=0x{to}");
    assert_eq!(expected, [of(CLIENT, SERVER, 7, 9), of(SERVER, CLIENT, 9, 7)]);
    let (first, child) = state(&rig, &data(SERVER, CLIENT, 7));
    assert_eq!((first, rig.ct.master(child.unwrap())), (CtState::Related, Some(master)));
    assert_eq!(rig.expected().len(), 0, "neither is expected any more");
    assert_eq!(state(&rig, &data(CLIENT, SERVER, 9)), (CtState::Established, child));
    let view = rig.ct.view(child.unwrap()).unwrap();
    assert_eq!((view.original.sport, view.original.dport), (9, 7));
    assert_eq!(state(&rig, &data(CLIENT, SERVER, 8)).0, CtState::New, "another call");
}

/// The key of the sender of a packet of the client's, which opens a connection.
fn key_of_stranger(rig: &Rig) -> u16 {
    let (state, id) = state(rig, &data(CLIENT, SERVER, 9));
    assert_eq!(state, CtState::New);
    rig.ct.view(id.unwrap()).unwrap().original.sport
}

#[test]
fn the_end_of_either_ends_what_belongs_to_it() {
    // The call is over.
    let rig = Rig::new(HelperKind::Pptp);
    let (mut talk, _) = call(&rig, 4000);
    state(&rig, &data(CLIENT, SERVER, 9));
    talk.say(&rig, 1, &message(13, &[0, 9])).unwrap();
    assert_eq!(key_of_stranger(&rig), 0);
    // The control connection is over.
    let rig = Rig::new(HelperKind::Pptp);
    let (_, master) = call(&rig, 4000);
    state(&rig, &data(CLIENT, SERVER, 9));
    assert!(rig.ct.remove(master));
    assert_eq!(key_of_stranger(&rig), 0);
    // The GRE connection is over: its keys are not known any more.
    let rig = Rig::new(HelperKind::Pptp);
    call(&rig, 4000);
    let (_, child) = state(&rig, &data(CLIENT, SERVER, 9));
    assert!(rig.ct.remove(child.unwrap()));
    assert_eq!(key_of_stranger(&rig), 0);
}

#[test]
fn what_was_said_first_of_a_flow_holds() {
    let rig = Rig::new(HelperKind::Pptp);
    let flow = |sport| Tuple {
        src: 1,
        dst: 2,
        sport,
        dport: 9,
        proto: 47,
        family: crate::packet::Family::V4,
        zone: 0,
    };
    let (_, one) = call(&rig, 4000);
    let (_, two) = call(&rig, 4001);
    for (master, key) in [(one, 5), (two, 6)] {
        rig.ct.forget_flows(master);
        assert!(rig.ct.name_flow(master, Direction::Original, &flow(key)));
        assert!(rig.ct.name_flow(master, Direction::Original, &flow(99)), "said before");
        let other = Tuple { dport: 10, ..flow(key) };
        assert!(!rig.ct.name_flow(master, Direction::Original, &other), "another flow");
    }
    let packet = Packet::raw("0.0.0.1", "0.0.0.2", 47, &[0x30, 1, 0x88, 0x0b, 0, 0, 0, 9]).build();
    let key = |rig: &Rig| {
        let parsed = parsed(&packet);
        let tracking = rig.ct.track(&parsed, &packet, false, rig.now).unwrap();
        let id = tracking.conn.unwrap();
        let key = rig.ct.view(id).unwrap().original.sport;
        rig.ct.discard(tracking);
        key
    };
    assert_eq!(key(&rig), 5);
    rig.ct.remove(one);
    assert_eq!(key(&rig), 6);
    rig.ct.remove(two);
    assert_eq!(key(&rig), 0);
}

#[test]
fn a_call_outlives_a_restart() {
    let rig = Rig::new(HelperKind::Pptp);
    call(&rig, 4000);
    state(&rig, &data(CLIENT, SERVER, 9));
    let saved: Vec<_> = (0..rig.ct.places()).filter_map(|at| rig.ct.export(at, rig.now)).collect();
    assert_eq!(saved.len(), 2);
    let later = Rig::new(HelperKind::Pptp);
    for one in &saved {
        later.ct.import(one, Nanos(0), later.now).unwrap();
    }
    assert_eq!(state(&later, &data(SERVER, CLIENT, 7)).0, CtState::Established);
    assert_eq!(state(&later, &data(CLIENT, SERVER, 9)).0, CtState::Established);
}

#[test]
fn a_translated_call_is_known_by_the_port_outside() {
    let mut rig = Rig::new(HelperKind::Pptp);
    rig.outside = Some(0xc612_0364);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 1723));
    talk.say(&rig, 0, &message(1, &[1, 0])).unwrap();
    talk.say(&rig, 1, &message(2, &[1, 0, 1])).unwrap();
    let request = talk.say(&rig, 0, &message(7, &[0, 7])).unwrap();
    let at = 14 + 20 + 20 + 12;
    assert_eq!(request.frame[at..at + 2], 4000_u16.to_be_bytes());
    let [high, low] = 4000_u16.to_be_bytes();
    let reply = talk.say(&rig, 1, &message(8, &[0, 9, high, low, 1])).unwrap();
    assert_eq!(reply.frame[at..at + 4], [0, 9, 0, 7]);
    let mut expected = rig.expected();
    expected.sort();
    assert_eq!(
        expected,
        [
            format!("src={CLIENT} dst={SERVER} srckey=0x7 dstkey=0x9"),
            format!("src={SERVER} dst=198.18.3.100 srckey=0x9 dstkey=0xfa0"),
        ]
    );
}
