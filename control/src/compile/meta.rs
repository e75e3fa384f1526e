//! CLASSIFY, IDLETIMER, TEE and HMARK, with what they share by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::PortId;
use dataplane::policy::Target;
use dataplane::policy::hmark::HmarkTarget;
use dataplane::policy::meta::{IdleTimer, MetaTarget};
use dataplane::policy::tee::TeeTarget;

use super::StateError;
use super::measure::Measures;
use super::pieces::{Left, Piece, Reading, Words};
use crate::model::{HmarkSpec, MetaSpec};

/// What rules share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Metas {
    /// Each with the time that the last rule gives it.
    timers: BTreeMap<Box<str>, (Arc<IdleTimer>, Nanos)>,
}

/// The kind of the pieces of IDLETIMER.
pub(super) const IDLE_TIMER: &str = "idletimer";
const VERSION: u16 = 1;

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
            MetaSpec::Hmark(spec) => Target::Meta(MetaTarget::Hmark(Box::new(hmark(spec)))),
            MetaSpec::IdleTimer { label, timeout_s, .. } => {
                let timeout = Nanos::from_secs(u64::from(*timeout_s));
                let kept = || previous.timers.get(label).cloned().unwrap_or_default();
                let (timer, last) = self.timers.entry(label.clone()).or_insert_with(kept);
                *last = timeout;
                let timer = Arc::clone(timer);
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

    /// Starts the timers that never ran, as loading their rules does.
    pub(super) fn begin(&self, now: Nanos) {
        self.timers.values().for_each(|(timer, timeout)| timer.begin(now, *timeout));
    }

    /// What there is to keep.
    pub(super) fn export(&self, now: Nanos) -> impl Iterator<Item = Piece> {
        self.timers.iter().map(move |(label, (timer, _))| {
            let mut words = Words::default();
            words.u64(timer.left(now).unwrap_or_default().0);
            let (kind, name) = (IDLE_TIMER.to_owned(), label.to_string());
            Piece { kind, name, version: VERSION, bytes: words.0 }
        })
    }

    /// Takes back what was kept, if a rule still names it.
    pub(super) fn import(&self, piece: &Piece, elapsed: Nanos, now: Nanos) -> Result<(), Left> {
        let (timer, timeout) = self.timers.get(piece.name.as_str()).ok_or(Left::Unclaimed)?;
        if piece.version != VERSION {
            return Err(Left::Version(piece.version));
        }
        let mut reading = Reading(&piece.bytes);
        let left = reading.u64().filter(|_| reading.is_done()).ok_or(Left::Malformed)?;
        timer.start(now, Nanos(left).min(*timeout).saturating_sub(elapsed));
        Ok(())
    }
}

fn hmark(spec: &HmarkSpec) -> HmarkTarget {
    let both = |one: Option<u16>, other: Option<u16>| {
        u32::from(one.unwrap_or(0)) << 16 | u32::from(other.unwrap_or(0))
    };
    HmarkTarget {
        connection: spec.connection,
        src_mask: spec.src_mask.unwrap_or(0),
        dst_mask: spec.dst_mask.unwrap_or(0),
        port_mask: spec.spi_mask.unwrap_or_else(|| both(spec.sport_mask, spec.dport_mask)),
        port_set: spec.spi.unwrap_or_else(|| both(spec.sport, spec.dport)),
        proto_mask: spec.proto_mask.unwrap_or(0),
        seed: spec.seed,
        modulus: spec.modulus,
        offset: spec.offset.unwrap_or(0),
    }
}
