//! Matches on time, chance and amounts, with the oracle's own amounts.

use dataplane::policy::measure::MeasureMatch;

use super::Subject;
use super::buckets::Place;
use super::matching::{At, Compared};
use crate::model::MeasureSpec;

/// Every amount that was met so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Measures {}

impl Measures {
    pub(super) fn compare(
        &mut self,
        _at: At,
        _place: Place,
        wanted: &MeasureSpec,
        _subject: &mut Subject<'_>,
    ) -> Compared {
        match *wanted {}
    }
}

/// Those without state.
pub(super) fn compare(_at: At, wanted: &MeasureMatch, _subject: &Subject<'_>) -> Compared {
    match *wanted {}
}
