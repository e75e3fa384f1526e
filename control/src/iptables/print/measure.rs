//! Matches on time, chance and amounts, in normal form.

use dataplane::packet::Family;
use dataplane::policy::measure::MeasureMatch;

use crate::model::MeasureSpec;

pub(super) fn body(_out: &mut String, found: &MeasureMatch, _family: Family) {
    match *found {}
}

/// Those that come with state.
pub(super) fn spec(_out: &mut String, spec: &MeasureSpec, _family: Family) {
    match *spec {}
}
