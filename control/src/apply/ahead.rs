//! Who carries out some of a policy's rules before any worker sees the packets.

use std::fmt::Debug;
use std::sync::Arc;

use dataplane::snapshot::Snapshot;

use super::PolicyStore;

/// It counts in the block of snapshots that is for it ([`Snapshot::elsewhere`]), between
/// [`Ahead::enter`] and [`Ahead::leave`], which come in turns.
pub trait Ahead: Debug + Send + Sync {
    /// Counts what was not counted yet.
    fn fold(&self);
    /// Stops: when this returns, everything is counted, and the snapshot let go of.
    fn leave(&self);
    /// Goes on with the policy that is in force now.
    fn enter(&self, snapshot: &Arc<Snapshot>);
}

impl PolicyStore {
    /// Has `ahead` follow the policy from now on; once, before any change.
    pub fn go_ahead(&self, ahead: Arc<dyn Ahead>) {
        let ahead = self.ahead.get_or_init(|| ahead);
        ahead.enter(&self.current());
    }

    pub(super) fn ahead(&self, act: impl FnOnce(&dyn Ahead)) {
        if let Some(ahead) = self.ahead.get() {
            act(&**ahead);
        }
    }

    /// The running snapshot.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state().running.snapshot)
    }
}
