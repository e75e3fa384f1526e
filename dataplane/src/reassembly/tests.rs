//! Tables under simulated time: every outcome, and no memory lost.

use proptest::prelude::*;

use super::table::PIECES_MAX;
use super::{CHUNK, Collected, Piece, Settings, Table, User, Whole};
use crate::clock::Nanos;
use crate::packet::{Family, Mac};
use crate::verdict::DropReason;
use crate::wire::build::Packet;
use crate::wire::{Frame, parse};

const A: &str = "198.18.1.2";
const B: &str = "198.18.2.2";
const A6: &str = "2001:db8:1::2";
const B6: &str = "2001:db8:2::2";

struct Rig {
    table: Table,
    whole: Whole,
    now: Nanos,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        Self { table: Table::new(settings), whole: Whole::default(), now: Nanos::from_secs(5) }
    }
    fn v4() -> Self {
        Self::new(Settings::new(Family::V4))
    }
    fn add(&mut self, packet: &Packet) -> Collected {
        let frame = packet.build();
        let Ok(Frame::Ip(parsed)) = parse(&frame, Mac::default()) else { panic!("not IP") };
        let piece = Piece::read(&parsed, &frame, User::Prerouting, None).unwrap().unwrap();
        let collected = self.table.add(&piece, self.now, &mut self.whole);
        self.table.check();
        collected
    }
}

fn datagram(id: u32, len: usize) -> Packet {
    Packet::udp(A, 5000, B, 53).payload_len(len - 8).id(id)
}

fn refused(reason: DropReason, others: u32) -> Collected {
    Collected::Refused { reason, others }
}

#[test]
fn a_datagram_is_whole_again_with_jumbo_fragments_in_any_order() {
    let mut rig = Rig::v4();
    let whole = datagram(1, 20_000);
    let pieces = [(16_000, 4000, false), (0, 8000, true), (8000, 8000, true)];
    for (offset, len, more) in pieces {
        assert!(len > CHUNK);
        let last = rig.add(&whole.clone().fragment(offset, len, more));
        assert_eq!(last == Collected::Complete, offset == 8000, "{last:?}");
    }
    assert_eq!(rig.whole.parts().0[14..], whole.build_ip());
    assert!(rig.table.is_empty());
}

#[test]
fn what_is_not_finished_in_time_ends_oldest_first() {
    let mut rig = Rig::v4();
    let (start, second) = (rig.now, Nanos::from_secs(1));
    rig.add(&datagram(1, 100).fragment(0, 48, true));
    rig.now = start + second;
    rig.add(&datagram(2, 100).fragment(48, 24, true));
    // Later fragments buy no time.
    rig.now = start + Nanos::from_secs(20);
    rig.add(&datagram(1, 100).fragment(48, 24, true));
    let deadline = start + Nanos::from_secs(30);
    assert_eq!(rig.table.expire(Nanos(deadline.0 - 1), &mut rig.whole), None);
    let first = rig.table.expire(deadline, &mut rig.whole).unwrap();
    assert_eq!((first.pieces, first.first), (2, true));
    assert_eq!(rig.whole.parts().0[..], datagram(1, 100).fragment(0, 48, true).build());
    assert_eq!(rig.table.expire(deadline, &mut rig.whole), None);
    let second = rig.table.expire(deadline + second, &mut rig.whole).unwrap();
    assert_eq!((second.pieces, second.first), (1, false));
    rig.table.check();
    assert!(rig.table.is_empty());
}

#[test]
fn memory_is_bounded_and_comes_back() {
    let mut rig = Rig::new(Settings { high_thresh: 4 * CHUNK, ..Settings::new(Family::V4) });
    for id in 0..4 {
        assert_eq!(rig.add(&datagram(id, 100).fragment(0, 48, true)), Collected::Kept);
    }
    let full = refused(DropReason::ReassemblyFull, 0);
    assert_eq!(rig.add(&datagram(4, 100).fragment(0, 48, true)), full);
    assert_eq!(rig.add(&datagram(3, 100).fragment(48, 52, false)), full);
    rig.now = rig.now + Nanos::from_secs(30);
    while rig.table.expire(rig.now, &mut rig.whole).is_some() {}
    assert_eq!(rig.add(&datagram(4, 5000).fragment(0, 4096, true)), Collected::Kept);
    assert_eq!(rig.add(&datagram(5, 5000).fragment(0, 4096, true)), full);
    assert_eq!(rig.add(&datagram(4, 5000).fragment(4096, 904, false)), Collected::Complete);
    assert!(rig.table.is_empty());
    let mut none = Rig::new(Settings { high_thresh: 0, ..Settings::new(Family::V4) });
    assert_eq!(none.add(&datagram(1, 100).fragment(0, 48, true)), full);
}

#[test]
fn a_datagram_has_a_limit_of_fragments() {
    let mut rig = Rig::v4();
    for index in 0..PIECES_MAX as u16 {
        let piece = datagram(1, 5000).fragment(index * 16, 8, true);
        assert_eq!(rig.add(&piece), Collected::Kept);
    }
    let more = datagram(1, 4000).fragment(8, 8, true);
    assert_eq!(rig.add(&more), refused(DropReason::ReassemblyFull, 0));
}

#[test]
fn overlap_ends_all_and_a_duplicate_only_itself() {
    let mut rig = Rig::v4();
    let piece = |offset, len| datagram(1, 400).fragment(offset, len, true);
    rig.add(&piece(0, 80));
    rig.add(&piece(80, 80));
    assert_eq!(rig.add(&piece(40, 80)), refused(DropReason::ReassemblyDuplicate, 0));
    assert_eq!(rig.add(&piece(152, 80)), refused(DropReason::ReassemblyOverlap, 2));
    assert!(rig.table.is_empty());
    // Two runs: what lies across them is no duplicate.
    rig.add(&piece(80, 80));
    rig.add(&piece(0, 80));
    assert_eq!(rig.add(&piece(40, 80)), refused(DropReason::ReassemblyOverlap, 2));
}

#[test]
fn users_and_protocols_do_not_meet() {
    let mut rig = Rig::v4();
    rig.add(&datagram(1, 100).fragment(0, 48, true));
    rig.add(&datagram(2, 100).fragment(48, 52, false));
    rig.add(&Packet::tcp(A, 5000, B, 53, 2).payload_len(80).id(1).fragment(48, 52, false));
    rig.add(&Packet::udp(B, 5000, A, 53).payload_len(92).id(1).fragment(48, 52, false));
    assert_eq!(rig.table.len(), 4);
}

#[test]
fn a_busy_source_starts_its_old_datagrams_anew() {
    for (passing, restarted) in [(63, false), (64, true)] {
        let mut rig = Rig::v4();
        rig.add(&datagram(1, 100).fragment(0, 48, true));
        for id in 0..passing {
            rig.add(&datagram(100 + id, 100).fragment(0, 48, true));
        }
        let last = rig.add(&datagram(1, 100).fragment(48, 52, false));
        assert_eq!(last == Collected::Kept, restarted, "{passing}: {last:?}");
    }
}

#[test]
fn a_datagram_longer_than_a_packet_ends() {
    let mut rig = Rig::v4();
    let long = Packet::udp(A, 5000, B, 53).payload_len(65_500 + 40).id(1);
    let mut at = 0;
    while at < 65_520 {
        assert_eq!(rig.add(&long.clone().fragment(at, 1456, true)), Collected::Kept);
        at += 1456;
    }
    let last = rig.add(&long.fragment(at, 16, false));
    assert_eq!(last, refused(DropReason::ReassemblyOversize, 45));
    assert!(rig.table.is_empty());
}

#[test]
fn odd_ipv6_fragments_pass_and_end_their_datagram() {
    let mut rig = Rig::new(Settings::new(Family::V6));
    let whole = Packet::udp(A6, 5000, B6, 53).payload_len(400).id(1);
    rig.add(&whole.clone().fragment(0, 80, true));
    assert_eq!(rig.add(&whole.fragment(80, 81, true)), Collected::Passed(1));
    assert!(rig.table.is_empty());
}

/// Shuffled pieces, some of them again.
fn shuffled() -> impl Strategy<Value = (usize, Vec<(usize, usize)>)> {
    (2_usize..20, 1_usize..8).prop_flat_map(|(units, tail)| {
        let cuts = prop::collection::btree_set(1..units, 1..units.min(8));
        cuts.prop_flat_map(move |cuts| {
            let mut edges: Vec<usize> = cuts.into_iter().map(|unit| unit * 8).collect();
            edges.push(units * 8 + tail);
            let starts = std::iter::once(0).chain(edges.clone());
            let pieces: Vec<_> = starts.zip(edges).collect();
            let total = units * 8 + tail;
            (Just(total), Just(pieces).prop_shuffle())
        })
    })
}

proptest! {
    /// Whatever the order: whole at the last piece and not before, byte for byte.
    #[test]
    fn any_order_makes_the_same_datagram((total, pieces) in shuffled(), v6: bool) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let mut rig = Rig::new(Settings::new(family));
        let (a, b) = if v6 { (A6, B6) } else { (A, B) };
        let whole = Packet::udp(a, 5000, b, 53).payload_len(total - 8).id(9);
        for (index, &(start, end)) in pieces.iter().enumerate() {
            let (len, more) = (end - start, end < total);
            let collected = rig.add(&whole.clone().fragment(start as u16, len, more));
            let last = index + 1 == pieces.len();
            prop_assert_eq!(collected == Collected::Complete, last, "{:?}", collected);
        }
        prop_assert_eq!(&rig.whole.parts().0[14..], &whole.build_ip()[..]);
        prop_assert!(rig.table.is_empty());
    }
}
