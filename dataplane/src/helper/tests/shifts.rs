//! Sequence numbers behind something that was put in.

use super::*;
use crate::conntrack::{Direction, status};
use crate::helper::seqadj;

/// NOP NOP SACK with one block.
fn sack(left: u32, right: u32) -> Vec<u8> {
    let mut option = vec![1, 1, 5, 10];
    option.extend(left.to_be_bytes());
    option.extend(right.to_be_bytes());
    option
}

fn blocks(passed: &Passed) -> Vec<(u32, u32)> {
    let parsed = parsed(&passed.frame);
    let segment = tcp::Packet::new_checked(parsed.l4_bytes(&passed.frame)).unwrap();
    let sacked = segment.options().find_map(|option| match option {
        tcp::TcpOption::Sack(blocks) => Some(blocks.iter().collect()),
        _ => None,
    });
    sacked.unwrap_or_default()
}

#[test]
fn a_whole_direction_is_shifted_from_the_beginning() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 21));
    let id = talk.say(&rig, 0, b"x").unwrap().tracking.conn.unwrap();
    assert!(seqadj::init(&rig.ct, id, Direction::Reply, 0));
    assert_eq!(rig.ct.status(id).unwrap() & status::SEQ_ADJUST, 0);
    assert!(seqadj::init(&rig.ct, id, Direction::Reply, -7000));
    let passed = talk.say(&rig, 1, b"hello").unwrap();
    assert_eq!(passed.numbers(), (5001_u32.wrapping_sub(7000), 1002));
    // The client acknowledges what it saw.
    talk.next[1] = 5006_u32.wrapping_sub(7000);
    let passed = talk.say(&rig, 0, b"y").unwrap();
    assert_eq!(passed.numbers(), (1002, 5006));
    assert_eq!(passed.tracking.state, CtState::Established, "and that is inside the window");
}

#[test]
fn what_lies_before_the_change_is_shifted_as_before() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 21));
    let id = talk.say(&rig, 0, b"0123456789").unwrap().tracking.conn.unwrap();
    // The segment at 1001 grew by 3; then the one at 1011 by 2.
    rig.ct.shift(id, Direction::Original, 1001, 3);
    rig.ct.shift(id, Direction::Original, 1001, 3);
    let at = |seq: u32| {
        let segment = Packet::tcp(CLIENT, 4000, SERVER, 21, ACK).seq(seq, 5001).payload(b"x");
        rig.send(&segment).unwrap().numbers().0
    };
    assert_eq!((at(1001), at(1002), at(1011)), (1001, 1005, 1014));
    rig.ct.shift(id, Direction::Original, 1011, 2);
    assert_eq!((at(1001), at(1011), at(1012)), (1004, 1014, 1017));
    // Going back, the server's view is undone: 1014 is our 1011, 1017 our 1012.
    let ack = |number: u32, left: u32, right: u32| {
        let segment = Packet::tcp(SERVER, 21, CLIENT, 4000, ACK).seq(5001, number);
        rig.send(&segment.tcp_options(&sack(left, right))).unwrap()
    };
    let passed = ack(1014, 1017, 1018);
    assert_eq!((passed.numbers().1, blocks(&passed)), (1011, vec![(1012, 1013)]));
    assert_eq!(ack(1017, 1017, 1018).numbers().1, 1012);
}

#[test]
fn blocks_need_not_be_aligned() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 21));
    let id = talk.say(&rig, 0, b"0123456789").unwrap().tracking.conn.unwrap();
    seqadj::init(&rig.ct, id, Direction::Original, 0x1234_5678);
    let acked = 1011 + 0x1234_5678_u32;
    let mut options = vec![1];
    options.extend(&sack(acked + 1, acked + 2)[2..]);
    options.push(0);
    let segment = Packet::tcp(SERVER, 21, CLIENT, 4000, ACK).seq(5001, acked);
    let passed = rig.send(&segment.tcp_options(&options)).unwrap();
    assert_eq!((passed.numbers().1, blocks(&passed)), (1011, vec![(1012, 1013)]));
}

#[test]
fn options_that_hide_what_follows_end_the_packet() {
    let rig = Rig::new(HelperKind::Ftp);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 21));
    let id = talk.say(&rig, 0, b"x").unwrap().tracking.conn.unwrap();
    seqadj::init(&rig.ct, id, Direction::Original, 5);
    for options in [[254, 1, 0, 0], [254, 5, 0, 0], [1, 1, 1, 254], [254, 0, 0, 0]] {
        let segment = Packet::tcp(SERVER, 21, CLIENT, 4000, ACK).seq(5001, 1007);
        let outcome = rig.send(&segment.tcp_options(&options)).map(drop);
        assert_eq!(outcome, Err(DropReason::SequenceAdjust), "{options:?}");
    }
}
