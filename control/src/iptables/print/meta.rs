//! CLASSIFY and its kin in normal form.

use dataplane::packet::Family;

use crate::model::MetaSpec;

pub(super) fn target(_out: &mut String, spec: &MetaSpec, _family: Family) {
    match *spec {}
}
