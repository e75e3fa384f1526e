//! Sets that were filled elsewhere take their places here.

use std::sync::Arc;

use super::super::error::SetError;
use super::super::name::SetName;
use super::super::set::Set;
use super::{MAX_SETS, Registry, Slot, find};

impl Registry {
    /// Puts a set in the place of that name: whatever refers to the place sees it at once.
    /// Makes the place if there is none.
    ///
    /// # Errors
    /// More sets than can be numbered.
    pub fn put(&self, name: SetName, set: Arc<Set>) -> Result<(), SetError> {
        let mut slots = self.slots();
        if let Some(there) = find(&slots, &name) {
            there.put(set);
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
