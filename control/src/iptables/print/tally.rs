//! hashlimit, recent and connlimit in normal form.

use dataplane::packet::Family;

use crate::model::TallySpec;

pub(super) fn spec(_out: &mut String, spec: &TallySpec, _family: Family) {
    match *spec {}
}
