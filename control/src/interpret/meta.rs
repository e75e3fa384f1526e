//! CLASSIFY and its kin.

use super::Subject;
use crate::model::MetaSpec;

/// What they share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Metas {}

impl Metas {
    pub(super) fn apply(&mut self, target: &MetaSpec, _subject: &mut Subject<'_>) {
        match *target {}
    }
}
