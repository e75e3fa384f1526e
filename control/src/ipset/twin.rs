//! The same sets once more, for a look at what packets would do to them.

use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::sets::{Cursor, Registry, SetError, SetType};

use super::print::PAGE;
use super::stage::put_list;

/// Copies every set as it is at `now`; the copies' timeouts run from `at`.
///
/// # Errors
/// None that making the sets did not have.
pub fn twin(sets: &Registry, now: Nanos, at: Nanos) -> Result<Arc<Registry>, SetError> {
    let twin = sets.emptied()?;
    let (lists, others): (Vec<_>, Vec<_>) =
        sets.list().into_iter().partition(|slot| slot.load().spec().kind == SetType::ListSet);
    for slot in others {
        let copy = twin.find(&slot.name())?;
        let mut from = Some(Cursor::default());
        while let Some(cursor) = from {
            let (entries, next) = slot.set().entries(cursor, PAGE, now);
            for entry in entries {
                twin.add(&copy, &entry.element, &entry.extras, true, at)?;
            }
            from = next;
        }
    }
    for list in lists {
        put_list(&twin, list.name(), &list.set(), at)?;
    }
    Ok(Arc::new(twin))
}
