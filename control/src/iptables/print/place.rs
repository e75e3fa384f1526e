//! Matches on where a packet is and whose, in normal form.

use dataplane::packet::Family;
use dataplane::policy::place::PlaceMatch;

pub(super) fn body(_out: &mut String, found: &PlaceMatch, _family: Family) {
    match *found {}
}
