//! CLASSIFY, IDLETIMER and TEE, with what they share by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::PortId;
use dataplane::policy::Target;
use dataplane::policy::meta::{IdleTimer, MetaTarget};
use dataplane::policy::tee::TeeTarget;

use super::StateError;
use super::measure::Measures;
use crate::model::MetaSpec;

/// What rules share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Metas {
    timers: BTreeMap<Box<str>, Arc<IdleTimer>>,
}

impl Metas {
    /// The target, with what it shares taken from `previous`, from what this policy has
    /// made already, or made now. `ports`: interface names by port.
    pub(super) fn resolve(
        &mut self,
        spec: &MetaSpec,
        ports: &[String],
        measures: &Measures,
        previous: &Self,
    ) -> Result<Target, StateError> {
        Ok(match spec {
            MetaSpec::Rateest { name, .. } => {
                Target::Meta(MetaTarget::Rateest(measures.estimator_named(name)?))
            }
            MetaSpec::Classify(class) => Target::Meta(MetaTarget::Classify(*class)),
            MetaSpec::IdleTimer { label, timeout_s, .. } => {
                let kept = || previous.timers.get(label).cloned().unwrap_or_default();
                let timer = Arc::clone(self.timers.entry(label.clone()).or_insert_with(kept));
                let timeout = Nanos::from_secs(u64::from(*timeout_s));
                Target::Meta(MetaTarget::IdleTimer { timer, timeout })
            }
            MetaSpec::Tee { gateway, output } => {
                let port = |name: &str| {
                    let at = ports.iter().position(|port| port == name);
                    at.map(|at| PortId(at as u8)).ok_or_else(|| StateError::NoPort(name.to_owned()))
                };
                let output = output.as_deref().map(port).transpose()?;
                Target::Tee(TeeTarget { gateway: *gateway, output })
            }
        })
    }

    /// Every idle timer with its label.
    pub(super) fn timers(&self) -> impl Iterator<Item = (&str, &Arc<IdleTimer>)> {
        self.timers.iter().map(|(label, timer)| (&**label, timer))
    }
}
