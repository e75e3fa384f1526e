//! Matches on other transports and extension headers, in normal form.

use dataplane::packet::Family;
use dataplane::policy::protocol::ProtocolMatch;

pub(super) fn body(_out: &mut String, found: &ProtocolMatch, _family: Family) {
    match *found {}
}
