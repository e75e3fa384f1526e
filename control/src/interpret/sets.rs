//! Sets as the oracle sees them: plain lists, searched from end to end.

use super::Subject;
use super::matching::{At, Compared};
use crate::model::{SetSpec, SetTargetSpec};

/// Every set.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {}

impl Sets {
    pub(super) fn compare(
        &mut self,
        _at: At,
        wanted: &SetSpec,
        _subject: &mut Subject<'_>,
    ) -> Compared {
        match *wanted {}
    }

    pub(super) fn apply(&mut self, target: &SetTargetSpec, _subject: &mut Subject<'_>) {
        match *target {}
    }
}
