//! Sets by name, for the rules that name them.

use std::sync::Arc;

use arrayvec::ArrayString;
use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::sets::{
    Bound, MapSet, PortNames, Reference, Registry, SetMatch, SetTarget, SetType, Slot,
};

use super::StateError;
use crate::model::sets::NamedSet;
use crate::model::{SetSpec, SetTargetSpec};

/// The sets, and what the rules of one policy refer to.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    registry: Arc<Registry>,
    names: Arc<PortNames>,
    /// One for each mention, as `ipset list` counts them.
    references: Vec<Reference>,
    /// What packets will add to, once the policy is in force.
    expecting: Vec<Arc<Slot>>,
}

impl Default for Sets {
    fn default() -> Self {
        Self::of(Arc::default())
    }
}

impl Sets {
    /// Those of `registry`.
    pub(super) fn of(registry: Arc<Registry>) -> Self {
        Self { registry, names: Arc::new([]), references: Vec::new(), expecting: Vec::new() }
    }

    /// Says how interfaces are called.
    pub(super) fn name_ports(&mut self, ports: &[String]) {
        let name = |name: &String| ArrayString::from(name).unwrap_or_default();
        self.names = ports.iter().map(name).collect();
    }

    /// Where the rules of the next policy find their sets.
    pub(super) fn settle(&mut self, registry: Arc<Registry>) {
        self.registry = registry;
    }

    /// Where rules find their sets.
    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Whether any rule names a set.
    pub(super) fn are_used(&self) -> bool {
        !self.references.is_empty()
    }

    fn bind(&mut self, wanted: &NamedSet, family: Family) -> Result<Bound, StateError> {
        let name = wanted.name;
        let slot = self.registry.get(&name).ok_or(StateError::NoSuchSet(name))?;
        let spec = *slot.load().spec();
        if spec.kind.has_addresses() && spec.family != family {
            return Err(StateError::SetFamily(name, spec.family));
        }
        self.references.push(Reference::new(&slot));
        Ok(Bound { slot, sides: wanted.sides })
    }

    /// The match.
    pub(super) fn resolve(&mut self, spec: &SetSpec, family: Family) -> Result<Match, StateError> {
        let Bound { slot, sides } = self.bind(&spec.set, family)?;
        if slot.load().spec().kind == SetType::BitmapIpMac {
            // Packets fill in link-layer addresses.
            self.expecting.push(Arc::clone(&slot));
        }
        Ok(Match::Set(SetMatch {
            slot,
            sides,
            negated: spec.negated,
            return_nomatch: spec.return_nomatch,
            update_counters: !spec.keep_counters,
            update_subcounters: !spec.keep_subcounters,
            packets: spec.packets,
            bytes: spec.bytes,
            names: Arc::clone(&self.names),
        }))
    }

    /// Makes room in sets for what packets will add: a policy that is refused needs none.
    pub(super) fn expect_packets(&self) {
        self.expecting.iter().for_each(|slot| slot.expect_packets());
    }

    /// The target.
    pub(super) fn target(
        &mut self,
        spec: &SetTargetSpec,
        family: Family,
    ) -> Result<SetTarget, StateError> {
        let mut bind = |set: &NamedSet| self.bind(set, family);
        let add = spec.add.as_ref().map(&mut bind).transpose()?;
        let del = spec.del.as_ref().map(&mut bind).transpose()?;
        let map = match &spec.map {
            None => None,
            Some(map) => {
                let (mark, priority) = (map.mark, map.priority);
                Some(MapSet { bound: bind(&map.set)?, mark, priority })
            }
        };
        if let Some(bound) = &add {
            self.expecting.push(Arc::clone(&bound.slot));
        }
        for bound in add.iter().chain(&del) {
            bound.slot.expect_changes();
        }
        let names = Arc::clone(&self.names);
        Ok(SetTarget { add, exist: spec.exist, timeout_s: spec.timeout_s, del, map, names })
    }
}
