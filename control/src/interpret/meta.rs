//! CLASSIFY, IDLETIMER, TEE and HMARK.

use super::{Subject, hmark};
use crate::model::MetaSpec;

pub(super) fn apply(target: &MetaSpec, subject: &mut Subject<'_>) {
    match target {
        MetaSpec::Classify(class) => subject.priority = *class,
        // Nothing that a later rule can see.
        MetaSpec::IdleTimer { .. } | MetaSpec::Tee { .. } => {}
        MetaSpec::Hmark(spec) => hmark::apply(spec, subject),
        // The measures see it.
        MetaSpec::Rateest { .. } => {}
    }
}
