//! Sets that were filled elsewhere take their places here.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::super::error::SetError;
use super::super::name::SetName;
use super::super::set::Set;
use super::{MAX_SETS, Registry, Slot, find, is_called};

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
        let slot = Some(Arc::new(Slot::holding(name, set)));
        let there = slots.iter().position(|slot| is_called(slot, &name));
        match there.or_else(|| slots.iter().position(Option::is_none)) {
            Some(at) => slots[at] = slot,
            None if slots.len() < MAX_SETS => slots.push(slot),
            None => return Err(SetError::TooManySets(MAX_SETS)),
        }
        Ok(())
    }

    /// Has the places of an overlay from now on.
    pub fn take_over(&self, overlay: &Self) {
        let theirs = overlay.slots().clone();
        let stay: HashSet<_> = theirs.iter().flatten().map(Arc::as_ptr).collect();
        let replaced = std::mem::replace(&mut *self.slots(), theirs);
        for slot in replaced.into_iter().flatten().filter(|slot| !stay.contains(&Arc::as_ptr(slot)))
        {
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
        if let Some(there) = find(&slots, &name) {
            self.retire(None, there.put(set));
            return Ok(());
        }
        let slot = Some(Arc::new(Slot::holding(name, set)));
        match slots.iter().position(Option::is_none) {
            Some(free) => slots[free] = slot,
            None if slots.len() < MAX_SETS => slots.push(slot),
            None => return Err(SetError::TooManySets(MAX_SETS)),
        }
        Ok(())
    }
}
