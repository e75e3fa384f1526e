//! Matches on other transports and extension headers.

use dataplane::policy::protocol::ProtocolMatch;

use super::Subject;
use super::matching::{At, Compared};

pub(super) fn compare(_at: At, wanted: &ProtocolMatch, _subject: &Subject<'_>) -> Compared {
    match *wanted {}
}
