//! CLASSIFY and its kin, with what they share by name.

use dataplane::policy::meta::MetaTarget;

use super::StateError;
use crate::model::MetaSpec;

/// What rules share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Metas {}

impl Metas {
    /// The target, with what it shares taken from `previous`, from what this policy has
    /// made already, or made now.
    pub(super) fn resolve(
        &mut self,
        spec: &MetaSpec,
        _previous: &Self,
    ) -> Result<MetaTarget, StateError> {
        match *spec {}
    }
}
