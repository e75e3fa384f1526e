//! What happens to connections, told to whoever listens (`conntrack -E`).
//!
//! Each of a few listeners has a bounded queue of its own; what does not fit is
//! counted and lost. Workers push without waiting. While nobody listens, all that
//! a packet pays is one load.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;

use super::extra::Extras;
use super::record::Contents;
use super::status::{ASSURED, CONFIRMED, EVENTS_CHOSEN, EXPECTED, SEEN_REPLY};
use super::view::{ConnView, Details, Row};
use super::{ConnId, Conntrack};
use crate::clock::Nanos;

/// Listeners at once.
const LISTENERS: usize = 4;
/// Events that wait for one listener at most.
const WAITING: usize = 8192;

/// Kinds of change, in the kernel's numbering (`--ctevents`).
pub mod change {
    /// A connection began.
    pub const NEW: u32 = 1;
    /// An expected connection began.
    pub const RELATED: u32 = 1 << 1;
    /// It ended.
    pub const DESTROY: u32 = 1 << 2;
    /// Its first answer came.
    pub const REPLY: u32 = 1 << 3;
    /// It became ASSURED.
    pub const ASSURED: u32 = 1 << 4;
    /// Its protocol's state changed.
    pub const PROTOINFO: u32 = 1 << 5;
    /// It was given a helper.
    pub const HELPER: u32 = 1 << 6;
    /// Its mark changed.
    pub const MARK: u32 = 1 << 7;
    /// Its sequence numbers are shifted.
    pub const SEQADJ: u32 = 1 << 8;
    /// A label was set.
    pub const LABEL: u32 = 1 << 10;
    /// SYNPROXY took it over.
    pub const SYNPROXY: u32 = 1 << 11;
}

/// What `conntrack -E` calls an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `[NEW]`
    New,
    /// `[UPDATE]`
    Update,
    /// `[DESTROY]`
    Destroy,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is called.
    pub kind: EventKind,
    /// [`change`] bits.
    pub changes: u32,
    /// When, on the table's clock. The end of a connection may be told a sweep early.
    pub at: Nanos,
    /// The connection after it.
    pub row: Row,
}

/// Why nobody more can listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{LISTENERS} listeners watch the connection table already")]
pub struct TooManyListeners;

/// One listener's queue.
struct Queue {
    waiting: ArrayQueue<Event>,
    lost: AtomicU64,
}

/// The table's side of it.
pub(super) struct Events {
    /// Bit per listener that is there.
    listening: AtomicU32,
    /// `nf_conntrack_events`; chosen events are told all the same.
    enabled: AtomicBool,
    /// The latest time seen, for ends that nobody dates.
    clock: AtomicU64,
    queues: [OnceLock<Queue>; LISTENERS],
}

impl Events {
    pub(super) fn new() -> Self {
        Self {
            listening: AtomicU32::new(0),
            enabled: AtomicBool::new(true),
            clock: AtomicU64::new(0),
            queues: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// Whether anybody listens.
    #[inline]
    pub(super) fn wanted(&self) -> bool {
        self.listening.load(Ordering::Relaxed) != 0
    }

    pub(super) fn enable(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    pub(super) fn set_clock(&self, now: Nanos) {
        self.clock.fetch_max(now.0, Ordering::Relaxed);
    }

    /// Tells of a change, if it is to be told.
    pub(super) fn tell(
        &self,
        id: ConnId,
        changes: u32,
        contents: &Contents,
        (status, extras): (u32, &Extras),
    ) {
        let chosen = match status & EVENTS_CHOSEN {
            0 if self.enabled.load(Ordering::Relaxed) => u32::MAX,
            0 => 0,
            _ => extras.events(),
        };
        let changes = changes & chosen;
        if changes == 0 {
            return;
        }
        let kind = match changes {
            changes if changes & change::DESTROY != 0 => EventKind::Destroy,
            changes if changes & (change::NEW | change::RELATED) != 0 => EventKind::New,
            _ => EventKind::Update,
        };
        let at = Nanos(self.clock.load(Ordering::Relaxed));
        let view = ConnView::new(id, contents);
        let details = Details::new(status, extras, at);
        let row = Row { timeout_s: view.expires_in(at).as_secs(), details, view };
        self.push(&Event { kind, changes, at, row });
    }

    fn push(&self, event: &Event) {
        let listening = self.listening.load(Ordering::Acquire);
        for (at, queue) in self.queues.iter().enumerate() {
            let Some(queue) = queue.get().filter(|_| listening >> at & 1 != 0) else { continue };
            if queue.waiting.push(*event).is_err() {
                queue.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes a free queue into use.
    fn join(&self) -> Option<usize> {
        (0..LISTENERS).find(|&at| {
            let queue = self.queues[at].get_or_init(|| Queue {
                waiting: ArrayQueue::new(WAITING),
                lost: AtomicU64::new(0),
            });
            let taken = self.listening.fetch_or(1 << at, Ordering::AcqRel) >> at & 1 != 0;
            if !taken {
                // What a worker pushed for the listener before.
                while queue.waiting.pop().is_some() {}
                queue.lost.store(0, Ordering::Relaxed);
            }
            !taken
        })
    }
}

/// A listener. Events wait here from its making on.
pub struct Watch {
    table: Arc<Conntrack>,
    at: usize,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl Watch {
    /// The next event, if one waits.
    pub fn take(&mut self) -> Option<Event> {
        self.queue()?.waiting.pop()
    }

    /// Events lost to this listener because too many waited.
    pub fn lost(&self) -> u64 {
        self.queue().map_or(0, |queue| queue.lost.load(Ordering::Relaxed))
    }

    fn queue(&self) -> Option<&Queue> {
        self.table.store.events.queues[self.at].get()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.table.store.events.listening.fetch_and(!(1 << self.at), Ordering::AcqRel);
    }
}

impl Conntrack {
    /// Listens to the table from now on.
    ///
    /// # Errors
    /// A few others listen already.
    pub fn watch(self: &Arc<Self>) -> Result<Watch, TooManyListeners> {
        let at = self.store.events.join().ok_or(TooManyListeners)?;
        Ok(Watch { table: Arc::clone(self), at })
    }

    /// Tells of changes to a connection, if anybody listens.
    #[inline]
    pub(super) fn tell(&self, id: ConnId, changes: u32) {
        if self.store.events.wanted() {
            self.tell_listeners(id, |_| changes);
        }
    }

    /// Tells of a confirmed connection.
    #[inline]
    pub(super) fn tell_new(&self, id: ConnId, now: Nanos) {
        if !self.store.events.wanted() {
            return;
        }
        self.store.events.set_clock(now);
        self.tell_listeners(id, |contents| match contents.status & EXPECTED {
            0 => change::NEW,
            _ => change::RELATED,
        });
    }

    /// Tells what a packet changed.
    pub(super) fn tell_changes(&self, id: ConnId, before: &Before, now: Nanos) {
        self.store.events.set_clock(now);
        self.tell_listeners(id, |contents| {
            let gained = contents.status & !before.status;
            let mut changes = 0;
            if gained & SEEN_REPLY != 0 {
                changes |= change::REPLY;
            }
            if gained & ASSURED != 0 {
                changes |= change::ASSURED;
            }
            if contents.state() != before.state {
                changes |= change::PROTOINFO;
            }
            changes
        });
    }

    fn tell_listeners(&self, id: ConnId, changes: impl FnOnce(&Contents) -> u32) {
        let Some(contents) = self.store.contents(id) else { return };
        let Some((status, extras)) = self.store.extras(id) else { return };
        let changes = changes(&contents);
        if contents.status & CONFIRMED != 0 && changes != 0 {
            self.store.events.tell(id, changes, &contents, (status, &extras));
        }
    }
}

/// A connection before a packet, as far as events tell the difference.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub(super) status: u32,
    /// The protocol's state.
    pub(super) state: u8,
}
