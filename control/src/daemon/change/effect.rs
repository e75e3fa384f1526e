//! What a policy means for the flows that are alive, and cutting those that it would not admit.

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::packet::Family;
use dataplane::sets::Registry;

use crate::api::protocol::{Effect, FlowInfo};
use crate::apply::Change;
use crate::conntrack::tuple;
use crate::daemon::service::Service;
use crate::guard::flows::{Judged, Scene, judge_flows};
use crate::model::Ruleset;
use crate::model::expiry::in_force;

/// Flows that are named in an answer at most.
const NAMED: usize = 10_000;

impl Service {
    /// What a change would mean; nothing when it does not compile, or no family changes.
    pub(super) fn foresee(&self, change: &Change, families: &[Family]) -> Option<Effect> {
        let current = |family| self.store().read(|view| view.rules(family).clone());
        let v4 = change.v4.clone().unwrap_or_else(|| current(Family::V4));
        let v6 = change.v6.clone().unwrap_or_else(|| current(Family::V6));
        let sets = change.sets.as_deref().unwrap_or(self.sets().registry());
        self.judged(&v4, &v6, families, sets).map(|judged| answer(&judged, 0))
    }

    /// Ends the flows that the policy in force would not admit as new.
    pub(super) fn cut(&self, families: &[Family]) -> Effect {
        let (v4, v6) = self
            .store()
            .read(|view| (view.rules(Family::V4).clone(), view.rules(Family::V6).clone()));
        let judged = self.judged(&v4, &v6, families, self.sets().registry()).unwrap_or_default();
        let cut = |flow: &&crate::guard::flows::Refused| self.conntrack().remove(flow.id);
        let ended = judged.refused.iter().filter(cut).count() as u64;
        tracing::info!("{ended} live flows ended that the new policy does not admit");
        answer(&judged, ended)
    }

    fn judged(
        &self,
        v4: &Ruleset,
        v6: &Ruleset,
        families: &[Family],
        sets: &Registry,
    ) -> Option<Judged> {
        let now = monotonic();
        let wall = Nanos(wall_us().saturating_mul(1_000));
        let sets = crate::ipset::twin(sets, now, wall).ok()?;
        let (now4, now6) = (in_force(v4, wall.as_secs()), in_force(v6, wall.as_secs()));
        let (v4, v6) = (now4.as_ref().unwrap_or(v4), now6.as_ref().unwrap_or(v6));
        let network = self.network().network;
        let scene = Scene { network: &network, conntrack: self.conntrack(), sets, wall, now };
        judge_flows(v4, v6, families, &scene)
    }
}

fn answer(judged: &Judged, ended: u64) -> Effect {
    let flows = judged.refused.iter().take(NAMED).map(|flow| FlowInfo {
        proto: flow.original.proto,
        original: tuple(&flow.original, None),
        by: flow.by.clone(),
        line: flow.line,
    });
    Effect {
        judged: judged.judged,
        unjudged: judged.unjudged,
        refused: judged.refused.len() as u64,
        ended,
        flows: flows.collect(),
    }
}
