//! `-m set` and `-j SET` in normal form.

use crate::model::{SetSpec, SetTargetSpec};

pub(super) fn spec(_out: &mut String, spec: &SetSpec) {
    match *spec {}
}

pub(super) fn target(_out: &mut String, spec: &SetTargetSpec) {
    match *spec {}
}
