//! Where the daemon's state comes back from, and goes to.

use std::io;
use std::sync::Arc;

use dataplane::clock::wall_us;
use dataplane::conntrack::Conntrack;
use dataplane::fib::Network;

use super::Config;
use crate::apply::{PolicyStore, TRACKS};
use crate::audit::trend;
use crate::compile::Piece;
use crate::state::{self, Keeper, Place, Restored, Saving, Sources, StateError};

/// Takes up what an earlier process has saved.
pub(super) fn restore_state(
    place: &Place,
    conntrack: &Conntrack,
    network: &Network,
    store: &PolicyStore,
) -> Result<Restored, StateError> {
    let dynamic = |limits: &[_], pieces: &[Piece], elapsed, now| {
        let limits = store.import_limits(limits, elapsed, now);
        let (denied, pieces): (Vec<Piece>, Vec<Piece>) =
            pieces.iter().cloned().partition(|piece| piece.kind == trend::KIND);
        if denied.iter().any(|piece| !store.denials().import(piece)) {
            tracing::warn!("denials over time make no sense in the state file: they begin anew");
        }
        let (counts, pieces): (Vec<Piece>, Vec<Piece>) =
            pieces.into_iter().partition(|piece| piece.kind == TRACKS);
        let foreign = counts.iter().filter(|piece| !store.import_counts(piece)).count();
        if foreign > 0 {
            tracing::warn!("the rules' counters are another build's: they begin anew");
        }
        (limits, store.import_pieces(&pieces, elapsed, now))
    };
    state::restore(place, conntrack, network, dynamic)
}

/// What the operator should know of the state that was found.
pub(super) fn state_note(place: &Place, restored: &Restored) -> Option<String> {
    let path = place.path().display();
    if let Some((refusal, aside)) = &restored.refused {
        let aside = aside.display();
        return Some(format!(
            "state file {path} was refused: {refusal}; starting clean, it is now {aside}"
        ));
    }
    let refused = restored.pieces.refused;
    let (kind, name, why) = restored.pieces.first_refused.as_ref()?;
    Some(format!(
        "state file {path}: {refused} amounts of rules begin anew, the first of them {kind} {name}: {why}"
    ))
}

/// Starts saving.
pub(super) fn keep_state(
    place: Place,
    config: &Config,
    conntrack: &Arc<Conntrack>,
    store: &Arc<PolicyStore>,
    restored: Restored,
) -> io::Result<Keeper> {
    let (policy, shared) = (Arc::clone(store), Arc::clone(store));
    let sources = Sources {
        conntrack: Arc::clone(conntrack),
        limits: Box::new(move |now| policy.export_limits(now)),
        pieces: Box::new(move |now| {
            let mut pieces = shared.export_pieces(now);
            pieces.push(shared.export_counts(wall_us() / 1_000_000));
            pieces.push(shared.denials().export());
            pieces
        }),
        ports: config.ports.clone(),
    };
    Keeper::start(Saving { place, every: config.state_every }, sources, restored)
}
