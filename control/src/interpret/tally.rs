//! hashlimit, recent and connlimit, with the oracle's own tables.

use super::Subject;
use super::buckets::Place;
use super::matching::{At, Compared};
use crate::model::TallySpec;

/// Every table that was met so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies {}

impl Tallies {
    pub(super) fn compare(
        &mut self,
        _at: At,
        _place: Place,
        wanted: &TallySpec,
        _subject: &mut Subject<'_>,
    ) -> Compared {
        match *wanted {}
    }
}
