//! Sets that were filled elsewhere take their places here.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::super::error::SetError;
use super::super::name::SetName;
use super::super::set::Set;
use super::{Registry, Slot};

impl Registry {
    /// The same places under another roof: what is put over one of them is not seen here.
    #[must_use]
    pub fn overlay(&self) -> Self {
        let slots = Mutex::new(self.slots().clone());
        Self { slots, retired: Mutex::default(), seed: self.seed }
    }

    /// Puts a place of its own over that of the name: what refers to that one stays with it.
    ///
    /// # Errors
    /// More sets than can be numbered.
    pub fn put_over(&self, name: SetName, set: Arc<Set>) -> Result<(), SetError> {
        let mut slots = self.slots();
        slots.insert(name, Arc::new(Slot::holding(name, set)))
    }

    /// Has the places of an overlay from now on.
    pub fn take_over(&self, overlay: &Self) {
        let theirs = overlay.slots().clone();
        let stay: HashSet<_> = theirs.all().map(Arc::as_ptr).collect();
        let replaced = std::mem::replace(&mut *self.slots(), theirs);
        let gone = |slot: &Arc<Slot>| !stay.contains(&Arc::as_ptr(slot));
        for slot in replaced.places.into_iter().flatten().filter(gone) {
            let set = slot.set();
            self.retire(Some(slot), set);
        }
    }

    /// Puts a set in the place of that name: whatever refers to the place sees it at once.
    /// Makes the place if there is none.
    ///
    /// # Errors
    /// More sets than can be numbered.
    pub fn put(&self, name: SetName, set: Arc<Set>) -> Result<(), SetError> {
        let mut slots = self.slots();
        if let Some(there) = slots.find(&name) {
            self.retire(None, there.put(set));
            return Ok(());
        }
        slots.insert(name, Arc::new(Slot::holding(name, set)))
    }
}
