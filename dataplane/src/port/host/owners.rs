//! Whose this machine's own packets are.
//!
//! The tcx program (`dataplane/bpf/host.h`) gives each user that sends a number, which
//! it writes into the frame. What a number means is in a BPF array and
//! never changes, so that each worker asks the kernel once for each.

use std::sync::Arc;

use aya::maps::{Array, MapData};

use crate::policy::scene::{Owner, Sender};

/// No socket.
const NOBODY: u16 = 0;
/// A socket without a file: one of the kernel's own.
const NO_FILE: u16 = 1;
/// The program has run out of numbers.
const UNTOLD: u16 = 8191;

/// The array: users by number.
pub(in crate::port) type OwnerMap = Arc<Array<MapData, u64>>;

/// What one worker knows of it.
pub(super) struct Owners {
    map: OwnerMap,
    known: Box<[Option<Sender>]>,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.known.iter().flatten().count();
        out.debug_struct("Owners").field("known", &known).finish_non_exhaustive()
    }
}

impl Owners {
    pub(super) fn new(map: OwnerMap) -> Self {
        Self { map, known: vec![None; usize::from(UNTOLD)].into() }
    }

    /// Who `number` is.
    pub(super) fn sender(&mut self, number: u16) -> Sender {
        match number {
            NOBODY => Sender::Nobody,
            NO_FILE => Sender::Kernel,
            UNTOLD.. => Sender::Untold,
            number => {
                let map = &self.map;
                let known = &mut self.known[usize::from(number)];
                *known.get_or_insert_with(|| match map.get(&u32::from(number), 0) {
                    Ok(user) => Sender::User(Owner { uid: user as u32, gid: None }),
                    Err(_) => Sender::Untold,
                })
            }
        }
    }
}
