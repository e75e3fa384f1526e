//! CLASSIFY, IDLETIMER and TEE.

use super::Subject;
use crate::model::MetaSpec;

pub(super) fn apply(target: &MetaSpec, subject: &mut Subject<'_>) {
    match target {
        MetaSpec::Classify(class) => subject.priority = *class,
        // Nothing that a later rule can see.
        MetaSpec::IdleTimer { .. } | MetaSpec::Tee { .. } => {}
        // The measures see it.
        MetaSpec::Rateest { .. } => {}
    }
}
