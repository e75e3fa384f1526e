//! Who follows what is in a set, and whether packets change it.
//!
//! A follower is told by control threads, after every change and before the command that
//! made it is done. What packets change (SET), and what expires, it is not told.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};

use super::element::Element;
use super::set::Set;

/// Is told what becomes of sets.
pub trait Follower: Debug + Send + Sync {
    /// An element is there, as an exception or not.
    fn added(&self, set: &Set, element: &Element, nomatch: bool);
    /// An element is gone.
    fn removed(&self, set: &Set, element: &Element);
    /// Nothing that was known of the set needs to hold any more: it was emptied, has left
    /// its place to another, or is changed by packets from now on.
    fn cleared(&self, set: &Set);
}

/// A set's side of it.
#[derive(Debug, Default)]
pub(super) struct Followed {
    follower: OnceLock<Arc<dyn Follower>>,
    by_packets: AtomicBool,
}

impl Followed {
    pub(super) fn tell(&self, what: impl FnOnce(&dyn Follower)) {
        if let Some(follower) = self.follower.get() {
            what(&**follower);
        }
    }
}

impl Set {
    /// Has `follower` told of every change from now on. There is one, for good: all later
    /// ones are to be the same.
    pub fn follow(&self, follower: &Arc<dyn Follower>) {
        let _same = self.followed.follower.set(Arc::clone(follower));
        // Whoever changes a place looks for a follower afterwards, who looks at places
        // after this: one of them sees the other.
        fence(Ordering::SeqCst);
    }

    /// Whether rules let packets change what is in it.
    pub fn is_changed_by_packets(&self) -> bool {
        self.followed.by_packets.load(Ordering::SeqCst)
    }

    /// Says that they do.
    pub(super) fn note_packets(&self) {
        self.followed.by_packets.store(true, Ordering::SeqCst);
        self.followed.tell(|follower| follower.cleared(self));
    }

    /// Says that it has left its place.
    pub(super) fn note_replaced(&self) {
        fence(Ordering::SeqCst);
        self.followed.tell(|follower| follower.cleared(self));
    }
}
