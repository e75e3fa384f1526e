//! Sets by name, for the rules that name them.

use std::sync::Arc;

use dataplane::policy::Match;
use dataplane::sets::{Registry, SetTarget};

use super::StateError;
use crate::model::{SetSpec, SetTargetSpec};

/// What rules share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    registry: Arc<Registry>,
}

impl Sets {
    /// Those of `registry`.
    pub(super) fn of(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    /// Where rules find their sets.
    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

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
