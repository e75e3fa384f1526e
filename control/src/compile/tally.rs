//! Tables of hashlimit, recent and connlimit: made once, kept over policy swaps.

use dataplane::policy::Match;

use super::StateError;
use crate::model::TallySpec;

/// What rules share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies {}

impl Tallies {
    /// The match. What it shares by name comes from `previous`, from what this policy has
    /// made already, or is made now; what it owns alone is `kept` from the same rule of
    /// the policy before, if that had it.
    pub(super) fn resolve(
        &mut self,
        spec: &TallySpec,
        _previous: &Self,
        _kept: Option<&Match>,
    ) -> Result<Match, StateError> {
        match *spec {}
    }
}
