//! Watching a walk: what counted the packet, and what the rules have looked at.

use arrayvec::ArrayVec;
use classifier::{Address, Key, Masked, Rule};

use super::Unplannable;
use crate::effects::Step;
use crate::policy::constancy::Constancy;
use crate::policy::eval::PacketView;
use crate::policy::{Chain, CounterId, Match, Target};

/// Counters of one path at most.
const PATH_MAX: usize = 128;
/// Rules on TCP flags that one search looks at one by one.
const FLAGGED_MAX: usize = 32;

/// One counter of a path, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counted {
    /// The counter.
    pub counter: CounterId,
    /// Its rule, or policy.
    pub step: Step,
}

/// Who is told what a walk does.
pub trait Watch {
    /// The classifier was asked for the first rule at or after `from`.
    fn searched<A: Address>(
        &mut self,
        _chain: &Chain<A>,
        _key: &Key<A>,
        _from: u32,
        _found: Option<u32>,
    ) {
    }
    /// A match is about to be asked.
    fn asks(&mut self, _one: &Match, _packet: &PacketView<'_>) {}
    /// A target is about to act.
    fn acts(&mut self, _target: &Target, _packet: &PacketView<'_>) {}
    /// A rule or a policy has counted the packet.
    fn counted(&mut self, _counter: CounterId, _step: impl FnOnce() -> Step) {}
}

/// Nobody.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {}

/// Keeps what a plan is made of.
#[derive(Debug, Default)]
pub struct Recorder {
    on: bool,
    path: ArrayVec<Counted, PATH_MAX>,
    flags: u8,
    tos: u8,
    conn_mark: Option<u32>,
    refused: Option<Unplannable>,
}

impl Recorder {
    /// Begins with a packet.
    pub fn start(&mut self) {
        self.path.clear();
        (self.on, self.flags, self.tos) = (true, 0, 0);
        (self.conn_mark, self.refused) = (None, None);
    }
    /// Ends.
    pub fn stop(&mut self) {
        self.on = false;
    }
    /// Whether walks are to be watched.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on
    }
    /// What has counted the packet, in order.
    pub fn path(&self) -> &[Counted] {
        &self.path
    }
    /// TCP flags that were looked at.
    pub fn flags(&self) -> u8 {
        self.flags
    }
    /// Bits of the TOS byte that were looked at.
    pub fn tos(&self) -> u8 {
        self.tos
    }
    /// The connection's mark, if it was looked at.
    pub fn conn_mark(&self) -> Option<u32> {
        self.conn_mark
    }
    /// Why there can be no plan.
    pub fn refused(&self) -> Option<Unplannable> {
        self.refused
    }

    /// There can be no plan; the first reason stays.
    pub fn refuse(&mut self, why: Unplannable) {
        self.refused.get_or_insert(why);
    }

    fn note(&mut self, constancy: Constancy, varies: Unplannable, packet: &PacketView<'_>) {
        match constancy {
            Constancy::Constant => {}
            Constancy::Flags(mask) => self.flags |= mask,
            Constancy::Tos(mask) => self.tos |= mask,
            Constancy::ConnMark => self.note_mark(packet),
            Constancy::Varies => self.refuse(varies),
        }
    }

    /// Whoever looks must find what the first one found: a mark that changes on the way
    /// changes, and is reported, with every packet.
    fn note_mark(&mut self, packet: &PacketView<'_>) {
        let Some(conn) = packet.tracking.conn else { return };
        let mark = packet.conntrack.mark(conn);
        if *self.conn_mark.get_or_insert(mark) != mark {
            self.refuse(Unplannable::Mark);
        }
    }
}

impl Watch for Recorder {
    /// The answer depends on nothing but the key, and of the key only the flags differ
    /// between packets. It is the same for other flags as long as those bits are the same
    /// that a rule asks for which, by all its other fields, might have been the answer.
    fn searched<A: Address>(
        &mut self,
        chain: &Chain<A>,
        key: &Key<A>,
        from: u32,
        found: Option<u32>,
    ) {
        let flagged = &chain.flagged;
        let first = flagged.partition_point(|&rule| rule < from);
        let passed = |rule: &u32| found.is_none_or(|found| *rule <= found);
        for (nth, &rule) in flagged[first..].iter().take_while(|rule| passed(rule)).enumerate() {
            if nth == FLAGGED_MAX {
                self.flags = u8::MAX;
                return;
            }
            let indexed = &chain.rules[rule as usize].indexed;
            let others = Rule { flags: Masked::default(), ..*indexed };
            if others.matches(key) {
                self.flags |= indexed.flags.mask();
            }
        }
    }

    fn asks(&mut self, one: &Match, packet: &PacketView<'_>) {
        self.note(one.constancy(), Unplannable::Match, packet);
    }

    fn acts(&mut self, target: &Target, packet: &PacketView<'_>) {
        self.note(target.constancy(), Unplannable::Target, packet);
    }

    fn counted(&mut self, counter: CounterId, step: impl FnOnce() -> Step) {
        if self.path.try_push(Counted { counter, step: step() }).is_err() {
            self.refuse(Unplannable::Length);
        }
    }
}
