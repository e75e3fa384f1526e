//! When rules were hit first and last, and what outlives the process of what they counted.
//!
//! Packets leave no time behind: housekeeping samples the counters ([`PolicyStore::sample`]), so
//! that a hit is as late as a sample is, at most. What is kept belongs to a rule's identity, and
//! goes with it from policy to policy and from process to process.

use std::sync::{MutexGuard, PoisonError};

use super::identity::{self, Identity, RuleKey};
use super::{PolicyStore, PolicyView, sum};
use crate::audit::trend::Trend;
use crate::compile::Piece;

/// What pieces of a state file with this are called.
pub const KIND: &str = "rules";
/// The form of the rows.
const VERSION: u16 = 1;
/// Identity, packets, bytes, since, first, last: numbers of eight bytes.
const ROW: usize = 48;

/// A rule's life, in seconds since 1970; zero for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// When it was first in force.
    pub since_s: u64,
    /// Its first hit.
    pub first_s: u64,
    /// Its last.
    pub last_s: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    /// As the last sample saw it.
    packets: u64,
    track: Track,
}

/// The tracks of the policy of `generation`.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    generation: u64,
    identities: Vec<Identity>,
    rows: Vec<Row>,
    /// The counters were set by hand: what they show now is no hit.
    recount: bool,
}

impl Tracks {
    /// Goes on with another policy. `base` is what its counters began with.
    fn follow(
        &mut self,
        generation: u64,
        identities: Vec<Identity>,
        base: &[(u64, u64)],
        now: u64,
    ) {
        let continues = identity::continued(&self.identities, &identities);
        let fresh = Track { since_s: now, ..Track::default() };
        let row = |(at, old): (usize, &Option<dataplane::policy::CounterId>)| match old {
            Some(old) => self.rows[old.0 as usize],
            None => Row { packets: base[at].0, track: fresh },
        };
        self.rows = continues.iter().enumerate().map(row).collect();
        (self.generation, self.identities) = (generation, identities);
    }

    fn see(&mut self, counts: &[(u64, u64)], now: u64) {
        let recount = std::mem::take(&mut self.recount);
        for (row, (packets, _)) in self.rows.iter_mut().zip(counts) {
            if *packets != row.packets && !recount {
                row.track.last_s = now;
                if row.track.first_s == 0 {
                    row.track.first_s = now;
                }
            }
            row.packets = *packets;
        }
    }
}

impl PolicyView<'_> {
    /// What every rule is called for as long as it stays in the policy, by counter.
    pub fn keys(&self) -> Vec<RuleKey> {
        identity::keys(&self.running.identities)
    }
}

impl PolicyStore {
    fn tracks(&self) -> MutexGuard<'_, Tracks> {
        self.tracks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was denied, and when. It outlives policies, and with the state file the process.
    pub fn denials(&self) -> MutexGuard<'_, Trend> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters were set by hand.
    pub(super) fn recount(&self) {
        self.tracks().recount = true;
    }

    /// Looks which rules were hit since the last time; `now_s` is since 1970. Every second or so.
    pub fn sample(&self, now_s: u64) {
        let mut tracks = self.tracks();
        let known = tracks.generation;
        let (generation, identities, counts) = self.read(|view| {
            let generation = view.generation();
            let new = generation != known;
            (generation, new.then(|| view.running.identities.clone()), view.counts.clone())
        });
        if let Some(identities) = identities {
            let base = {
                let state = self.state();
                // Another change came in between: the next time, then.
                if state.running.snapshot.generation != generation {
                    return;
                }
                state.base.clone()
            };
            tracks.follow(generation, identities, &base, now_s);
        }
        tracks.see(&counts, now_s);
    }

    /// The tracks of the policy of `generation` by counter, as they were sampled last.
    pub fn tracks_of(&self, generation: u64) -> Vec<Track> {
        let tracks = self.tracks();
        match tracks.generation == generation {
            true => tracks.rows.iter().map(|row| row.track).collect(),
            false => Vec::new(),
        }
    }

    /// What the rules have counted, and when, for the state file.
    pub fn export_counts(&self, now_s: u64) -> Piece {
        self.sample(now_s);
        let tracks = self.tracks();
        let counts = self.read(|view| match view.generation() == tracks.generation {
            true => view.counts.clone(),
            false => Vec::new(),
        });
        let mut bytes = Vec::with_capacity(counts.len() * ROW);
        for ((identity, row), count) in tracks.identities.iter().zip(&tracks.rows).zip(counts) {
            let Track { since_s, first_s, last_s } = row.track;
            for number in [identity.number(), count.0, count.1, since_s, first_s, last_s] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        Piece { kind: KIND.to_owned(), name: identity::probe(), version: VERSION, bytes }
    }

    /// Goes on where an earlier process ended: before any packet. Counters that were taken from
    /// the policy's text stay as they are.
    pub fn import_counts(&self, piece: &Piece) -> bool {
        let foreign = piece.version != VERSION || piece.name != identity::probe();
        if foreign || !piece.bytes.len().is_multiple_of(ROW) {
            return false;
        }
        let saved: Vec<[u64; 6]> = piece.bytes.chunks_exact(ROW).map(row).collect();
        let old: Vec<Identity> = saved.iter().map(|row| Identity::of_number(row[0])).collect();
        let mut tracks = self.tracks();
        let mut state = self.state();
        let state = &mut *state;
        let running = &state.running;
        let continues = identity::continued(&old, &running.identities);
        let mut rows = Vec::with_capacity(continues.len());
        for (base, old) in state.base.iter_mut().zip(&continues) {
            let saved = old.map(|old| saved[old.0 as usize]);
            if let Some([_, packets, bytes, ..]) = saved
                && !self.written
            {
                *base = sum(*base, (packets, bytes));
            }
            let [_, _, _, since_s, first_s, last_s] = saved.unwrap_or_default();
            rows.push(Row { packets: base.0, track: Track { since_s, first_s, last_s } });
        }
        tracks.rows = rows;
        tracks.identities.clone_from(&running.identities);
        tracks.generation = running.snapshot.generation;
        true
    }
}

fn row(bytes: &[u8]) -> [u64; 6] {
    let mut numbers = bytes.chunks_exact(8).map(|number| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(number);
        u64::from_le_bytes(bytes)
    });
    std::array::from_fn(|_| numbers.next().unwrap_or_default())
}
