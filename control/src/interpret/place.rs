//! Matches on where a packet is and whose.

use dataplane::policy::place::PlaceMatch;

use super::Subject;
use super::matching::{At, Compared};

pub(super) fn compare(_at: At, wanted: &PlaceMatch, _subject: &Subject<'_>) -> Compared {
    match *wanted {}
}
