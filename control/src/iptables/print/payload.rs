//! Matches on any byte, in normal form.

use dataplane::packet::Family;
use dataplane::policy::payload::PayloadMatch;

pub(super) fn body(_out: &mut String, found: &PayloadMatch, _family: Family) {
    match *found {}
}
