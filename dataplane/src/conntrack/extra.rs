//! What only some connections have: accounting, labels, a helper, a master,
//! shifted sequence numbers, what a translation must remember. Two cache lines beside
//! the record, which packets of plain connections do not touch: what was never
//! written in a connection's life is not read either ([`super::record`]).
//!
//! Written under the record's lock and read as the record is.

use super::ConnId;
use super::sync::{AtomicU64, Ordering};
use super::tuple::Direction;
use crate::policy::target::HelperKind;

/// How the sequence numbers of one direction are shifted, as the kernel keeps it:
/// at `position` the shift changed from `before` to `after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqShift {
    /// Sequence number of the last change.
    pub position: u32,
    /// Shift of what lies before it, in bytes.
    pub before: i32,
    /// Shift of what lies behind it, in bytes.
    pub after: i32,
}

/// What went one way of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets, headers included.
    pub bytes: u64,
}

impl SeqShift {
    /// How far the byte with this number, as its sender counts, is shifted.
    pub(crate) fn at(&self, seq: u32) -> i32 {
        if behind(seq, self.position) { self.after } else { self.before }
    }

    /// How far the byte that the receiver calls `seq` was shifted.
    pub(crate) fn at_shifted(&self, seq: u32) -> i32 {
        self.at(seq.wrapping_sub(self.before as u32))
    }

    /// What follows the packet that starts at `seq` is shifted by `by` more. For a
    /// packet that was changed before, this changes nothing.
    pub(super) fn grow(&mut self, seq: u32, by: i32) {
        if self.before == self.after || behind(seq, self.position) {
            self.position = seq;
            self.before = self.after;
            self.after = self.after.wrapping_add(by);
        }
    }
}

/// Whether `a` lies behind `b` in the circle of sequence numbers.
const fn behind(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// What a helper remembers of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Two numbers a direction.
    pub(crate) numbers: [[u32; 2]; 2],
    /// Whatever else.
    pub(crate) flags: u32,
    /// More, for helpers that never shift a stream ([`HelperKind::keeps_lengths`]).
    pub(crate) unshifted: [u32; 2],
}

/// Words of an [`Extra`].
pub(super) const WORDS: usize = 16;

/// The words, by what they hold.
mod word {
    /// Packets and bytes by direction: four words.
    pub(super) const ACCOUNT: usize = 0;
    /// 128 label bits: two words.
    pub(super) const LABELS: usize = 4;
    /// Number of the master connection plus one; zero for none.
    pub(super) const MASTER: usize = 6;
    /// Bits 0-3 helper, 4-7 the master's helper, 8-15 timeout policy plus one, 16-31
    /// translation's port plus one, 32-63 event mask.
    pub(super) const SMALL: usize = 7;
    /// Sequence shifts: per direction `position` (with what the helper remembers of the
    /// direction above it) and then both shifts. A helper that never shifts has two numbers
    /// more instead of the positions: with one shift for all, nobody asks for those.
    pub(super) const SHIFTS: usize = 8;
    /// SYNPROXY: our cookie and the timestamp that we showed; then the clocks' difference, with the
    /// helper's flags above it.
    pub(super) const SYNPROXY: usize = 12;
    /// When it was confirmed, in nanoseconds.
    pub(super) const START: usize = 14;
    /// What a helper remembers of each direction besides: 32 bits each.
    pub(super) const HELPER: usize = 15;
}

/// Part of a record.
pub(super) struct Extra([AtomicU64; WORDS]);

/// A copy of an [`Extra`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extras(pub(super) [u64; WORDS]);

impl Extra {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(super) fn load(&self) -> Extras {
        Extras(std::array::from_fn(|at| self.get(at)))
    }

    /// Only under the record's lock.
    pub(super) fn store(&self, extras: &Extras) {
        for (at, &value) in extras.0.iter().enumerate() {
            self.set(at, value);
        }
    }

    fn get(&self, at: usize) -> u64 {
        self.0[at].load(Ordering::Relaxed)
    }

    fn set(&self, at: usize, value: u64) {
        self.0[at].store(value, Ordering::Relaxed);
    }

    /// As [`Extras::masquerade_port`], of what it holds now.
    pub(super) fn masquerade_port(&self) -> Option<u8> {
        bits(self.get(word::SMALL), 16, 16).checked_sub(1).map(|port| port as u8)
    }

    /// Counts a packet. Only under the record's lock.
    pub(super) fn account(&self, direction: Direction, bytes: u64) {
        let at = word::ACCOUNT + 2 * direction.index();
        self.set(at, self.get(at).wrapping_add(1));
        self.set(at + 1, self.get(at + 1).wrapping_add(bytes));
    }
}

/// Bits `shift..shift + width` of `word`.
const fn bits(word: u64, shift: u32, width: u32) -> u64 {
    word >> shift & ((1 << width) - 1)
}

/// `word` with those bits changed.
const fn with_bits(word: u64, shift: u32, width: u32, value: u64) -> u64 {
    let mask = ((1 << width) - 1) << shift;
    word & !mask | value << shift & mask
}

fn helper_kind(number: u64) -> Option<HelperKind> {
    HelperKind::ALL.into_iter().find(|&kind| kind as u64 == number)
}

impl Extras {
    /// What went in a direction.
    pub(super) fn accounted(&self, direction: Direction) -> Account {
        let at = word::ACCOUNT + 2 * direction.index();
        Account { packets: self.0[at], bytes: self.0[at + 1] }
    }
    /// Label bits.
    pub(super) fn labels(&self) -> u128 {
        u128::from(self.0[word::LABELS + 1]) << 64 | u128::from(self.0[word::LABELS])
    }
    pub(super) fn set_labels(&mut self, labels: u128) {
        self.0[word::LABELS] = labels as u64;
        self.0[word::LABELS + 1] = (labels >> 64) as u64;
    }
    /// The connection that this one was expected from.
    pub(super) fn master(&self) -> Option<ConnId> {
        self.0[word::MASTER].checked_sub(1).map(ConnId)
    }
    pub(super) fn set_master(&mut self, master: Option<ConnId>) {
        self.0[word::MASTER] = master.map_or(0, |id| id.0.wrapping_add(1));
    }
    /// The connection's helper.
    pub(super) fn helper(&self) -> Option<HelperKind> {
        helper_kind(bits(self.0[word::SMALL], 0, 4))
    }
    pub(super) fn set_helper(&mut self, helper: Option<HelperKind>) {
        let value = helper.map_or(0, |kind| kind as u64);
        self.0[word::SMALL] = with_bits(self.0[word::SMALL], 0, 4, value);
    }
    /// The helper that expected the connection, kept here because the master may end first.
    pub(super) fn master_helper(&self) -> Option<HelperKind> {
        helper_kind(bits(self.0[word::SMALL], 4, 4))
    }
    pub(super) fn set_master_helper(&mut self, helper: Option<HelperKind>) {
        let value = helper.map_or(0, |kind| kind as u64);
        self.0[word::SMALL] = with_bits(self.0[word::SMALL], 4, 4, value);
    }
    /// Index of the named timeout policy.
    pub(super) fn timeouts(&self) -> Option<u8> {
        (bits(self.0[word::SMALL], 8, 8) as u8).checked_sub(1)
    }
    pub(super) fn set_timeouts(&mut self, index: Option<u8>) {
        let value = index.map_or(0, |index| u64::from(index) + 1);
        self.0[word::SMALL] = with_bits(self.0[word::SMALL], 8, 8, value);
    }
    /// The port whose address a MASQUERADE took.
    pub(super) fn masquerade_port(&self) -> Option<u8> {
        (bits(self.0[word::SMALL], 16, 16)).checked_sub(1).map(|port| port as u8)
    }
    pub(super) fn set_masquerade_port(&mut self, port: Option<u8>) {
        let value = port.map_or(0, |port| u64::from(port) + 1);
        self.0[word::SMALL] = with_bits(self.0[word::SMALL], 16, 16, value);
    }
    /// `--ctevents` bits.
    pub(super) fn events(&self) -> u32 {
        (self.0[word::SMALL] >> 32) as u32
    }
    pub(super) fn set_events(&mut self, events: u32) {
        self.0[word::SMALL] = with_bits(self.0[word::SMALL], 32, 32, u64::from(events));
    }
    /// How a direction's sequence numbers are shifted.
    pub(super) fn shift(&self, direction: Direction) -> SeqShift {
        let at = word::SHIFTS + 2 * direction.index();
        let [before, after] = [self.0[at + 1] as u32, (self.0[at + 1] >> 32) as u32];
        SeqShift { position: self.0[at] as u32, before: before as i32, after: after as i32 }
    }
    pub(super) fn set_shift(&mut self, direction: Direction, shift: SeqShift) {
        let at = word::SHIFTS + 2 * direction.index();
        self.0[at] = with_bits(self.0[at], 0, 32, u64::from(shift.position));
        self.0[at + 1] = u64::from(shift.after as u32) << 32 | u64::from(shift.before as u32);
    }
    /// SYNPROXY's cookie, the timestamp that it showed, and the clocks' difference.
    pub(super) fn synproxy(&self) -> (u32, u32, u32) {
        let numbers = self.0[word::SYNPROXY];
        (numbers as u32, (numbers >> 32) as u32, self.0[word::SYNPROXY + 1] as u32)
    }
    pub(super) fn set_synproxy(&mut self, (ours, theirs, timestamp): (u32, u32, u32)) {
        self.0[word::SYNPROXY] = u64::from(theirs) << 32 | u64::from(ours);
        let at = word::SYNPROXY + 1;
        self.0[at] = with_bits(self.0[at], 0, 32, u64::from(timestamp));
    }
    /// When it was confirmed, in nanoseconds.
    pub(super) fn start(&self) -> u64 {
        self.0[word::START]
    }
    /// The same, or `otherwise` if it is not kept yet.
    pub(super) fn start_or(&self, otherwise: u64) -> u64 {
        match self.start() {
            0 => otherwise,
            start => start,
        }
    }
    pub(super) fn set_start(&mut self, nanos: u64) {
        self.0[word::START] = nanos;
    }
    /// What the helper remembers.
    pub(super) fn memory(&self) -> Memory {
        let way = |at: usize| {
            let high = (self.0[word::SHIFTS + 2 * at] >> 32) as u32;
            [high, (self.0[word::HELPER] >> (32 * at)) as u32]
        };
        let unshifted = match self.keeps_lengths() {
            true => [0, 1].map(|at| self.0[word::SHIFTS + 2 * at] as u32),
            false => [0; 2],
        };
        let flags = (self.0[word::SYNPROXY + 1] >> 32) as u32;
        Memory { numbers: [way(0), way(1)], flags, unshifted }
    }
    fn keeps_lengths(&self) -> bool {
        self.helper().is_some_and(HelperKind::keeps_lengths)
    }
    pub(super) fn set_memory(&mut self, memory: &Memory) {
        for (at, [high, other]) in memory.numbers.into_iter().enumerate() {
            let word = word::SHIFTS + 2 * at;
            self.0[word] = with_bits(self.0[word], 32, 32, u64::from(high));
            let shift = 32 * at as u32;
            self.0[word::HELPER] = with_bits(self.0[word::HELPER], shift, 32, u64::from(other));
        }
        let at = word::SYNPROXY + 1;
        self.0[at] = with_bits(self.0[at], 32, 32, u64::from(memory.flags));
        for (at, number) in memory.unshifted.into_iter().enumerate() {
            if self.keeps_lengths() {
                let word = word::SHIFTS + 2 * at;
                self.0[word] = with_bits(self.0[word], 0, 32, u64::from(number));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_keeps_to_itself() {
        let mut extras = Extras::default();
        extras.set_labels(u128::MAX);
        extras.set_master(Some(ConnId(7)));
        extras.set_helper(Some(HelperKind::Sip));
        extras.set_master_helper(Some(HelperKind::Ftp));
        extras.set_timeouts(Some(254));
        extras.set_masquerade_port(Some(61));
        extras.set_events(u32::MAX);
        let there = SeqShift { position: 1, before: -2, after: 3 };
        let back = SeqShift { position: u32::MAX, before: i32::MIN, after: -1 };
        extras.set_shift(Direction::Original, there);
        extras.set_shift(Direction::Reply, back);
        extras.set_synproxy((1, 2, 3));
        extras.set_start(9);
        extras.set_memory(&Memory { numbers: [[u32::MAX; 2]; 2], ..Memory::default() });
        let memory =
            Memory { numbers: [[4, 5], [6, u32::MAX]], flags: u32::MAX - 1, unshifted: [0; 2] };
        extras.set_memory(&memory);
        assert_eq!(extras.labels(), u128::MAX);
        assert_eq!(extras.master(), Some(ConnId(7)));
        assert_eq!((extras.helper(), extras.timeouts()), (Some(HelperKind::Sip), Some(254)));
        assert_eq!((extras.masquerade_port(), extras.events()), (Some(61), u32::MAX));
        assert_eq!(extras.shift(Direction::Original), there);
        assert_eq!(extras.shift(Direction::Reply), back);
        assert_eq!((extras.synproxy(), extras.start()), ((1, 2, 3), 9));
        assert_eq!(extras.accounted(Direction::Original), Account::default());
        assert_eq!(extras.master_helper(), Some(HelperKind::Ftp));
        assert_eq!(extras.memory(), memory);
        extras.set_master(None);
        extras.set_timeouts(None);
        extras.set_masquerade_port(None);
        assert_eq!((extras.master(), extras.timeouts()), (None, None));
        assert_eq!((extras.masquerade_port(), extras.helper()), (None, Some(HelperKind::Sip)));
    }

    #[test]
    fn a_helper_that_never_shifts_has_two_numbers_more() {
        let mut extras = Extras::default();
        let shift = SeqShift { position: 0, before: 7, after: 7 };
        extras.set_shift(Direction::Reply, shift);
        extras.set_helper(Some(HelperKind::Q931));
        let memory = Memory { numbers: [[1, 2], [3, 4]], flags: 5, unshifted: [6, u32::MAX] };
        extras.set_memory(&memory);
        assert_eq!(extras.memory(), memory);
        let kept = extras.shift(Direction::Reply);
        assert_eq!((kept.before, kept.after, kept.at(99)), (7, 7, 7));
    }
}
