//! Looking ahead of tracking, and the words that plans keep.

use super::*;

fn subject(lab: &Lab, packet: &Packet) -> super::super::Subject {
    let frame = packet.build();
    lab.ct.subject(&parsed(&frame), &frame, 0)
}

#[test]
fn a_look_ahead_finds_what_tracking_finds_and_changes_nothing() {
    let mut lab = Lab::new(&[]);
    let (there, back) = (Packet::udp(A, 1, B, 2), Packet::udp(B, 2, A, 1));
    assert_eq!(lab.ct.flow(&subject(&lab, &there), lab.now), None);
    let conn = lab.pass(&there).unwrap().conn.unwrap();
    for (packet, direction) in [(&there, Direction::Original), (&back, Direction::Reply)] {
        let flow = lab.ct.flow(&subject(&lab, packet), lab.now).unwrap();
        assert_eq!((flow.conn(), flow.direction()), (conn, direction));
    }
    lab.wait(10_000);
    assert_eq!(lab.ct.flow(&subject(&lab, &there), lab.now), None, "its time is up");
    assert_eq!(lab.ct.len(), 1, "and yet nobody has ended it");
}

#[test]
fn tracking_a_flow_is_tracking_its_packet() {
    let lab = Lab::new(&[]);
    let packet = Packet::udp(B, 2, A, 1);
    lab.pass(&Packet::udp(A, 1, B, 2)).unwrap();
    let (frame, asked) = (packet.build(), subject(&lab, &packet));
    let flow = lab.ct.flow(&asked, lab.now).unwrap();
    let terms = Template::default().terms(0, Extensions::default());
    let track = || lab.ct.track_flow(&flow, &asked, &parsed(&frame), &frame, &terms, lab.now);
    let tracking = track().unwrap();
    assert_eq!((tracking.state, tracking.conn), (CtState::Established, Some(flow.conn())));
    lab.ct.remove(flow.conn());
    let tracking = track().unwrap();
    assert_eq!(tracking.state, CtState::New, "who ended meanwhile is not found");
    assert!(tracking.unconfirmed && tracking.conn != Some(flow.conn()));
}

#[test]
fn words_are_one_for_each_direction_and_end_with_their_connection() {
    // No spare records but a thousand: lives are used up quickly.
    let lab = Lab::new(&[]);
    let (there, back) = (Packet::udp(A, 1, B, 2), Packet::udp(B, 2, A, 1));
    let flow = |packet: &Packet| lab.ct.flow(&subject(&lab, packet), lab.now).unwrap();
    let mut records = std::collections::BTreeSet::new();
    for life in 1..5000 {
        let conn = lab.pass(&there).unwrap().conn.unwrap();
        assert_eq!([&there, &back].map(|packet| lab.ct.plan_word(&flow(packet))), [0, 0]);
        assert!(
            lab.ct.set_plan_word(&flow(&there), life) && lab.ct.set_plan_word(&flow(&back), !life)
        );
        assert_eq!([&there, &back].map(|packet| lab.ct.plan_word(&flow(packet))), [life, !life]);
        records.insert(conn.number() as u32);
        lab.ct.remove(conn);
    }
    assert!(records.len() < 4999, "records were used again");
}

/// A SYN of the side that answered reopens a closed connection, as its own opener.
#[test]
fn a_flow_that_is_opened_again_begins_in_its_own_direction() {
    use crate::wire::tcp::flags::{ACK, FIN, SYN};
    let closed = || {
        let lab = Lab::new(&[]);
        let up = |flags, seq, ack| Packet::tcp(A, 1, B, 2, flags).seq(seq, ack);
        let down = |flags, seq, ack| Packet::tcp(B, 2, A, 1, flags).seq(seq, ack);
        for packet in [
            up(ACK, 100, 500),
            up(FIN | ACK, 100, 500),
            down(FIN | ACK, 500, 101),
            up(ACK, 101, 501),
        ] {
            lab.pass(&packet).unwrap();
        }
        (lab, down(SYN, 90_000, 0))
    };
    let (plain, syn) = closed();
    let expected = plain.pass(&syn).unwrap();
    let (lab, syn) = closed();
    let (frame, asked) = (syn.build(), subject(&lab, &syn));
    let flow = lab.ct.flow(&asked, lab.now).unwrap();
    assert_eq!(flow.direction(), Direction::Reply);
    let terms = Template::default().terms(0, Extensions::default());
    let tracked = lab.ct.track_flow(&flow, &asked, &parsed(&frame), &frame, &terms, lab.now);
    let mut tracking = tracked.unwrap();
    lab.ct.confirm(&mut tracking, lab.now).unwrap();
    assert_eq!((tracking.state, tracking.direction), (expected.state, expected.direction));
    assert_eq!(lab.row().to_string(), plain.row().to_string());
}
