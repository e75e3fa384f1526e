//! Sets by name, for the rules that name them.

use dataplane::policy::Match;
use dataplane::sets::SetTarget;

use super::StateError;
use crate::model::{SetSpec, SetTargetSpec};

/// What rules share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {}

impl Sets {
    /// The match, with what it shares taken from `previous`, from what this policy has
    /// made already, or made now.
    pub(super) fn resolve(
        &mut self,
        spec: &SetSpec,
        _previous: &Self,
    ) -> Result<Match, StateError> {
        match *spec {}
    }

    /// The target, likewise.
    pub(super) fn target(&self, spec: &SetTargetSpec) -> Result<SetTarget, StateError> {
        match *spec {}
    }
}
