//! Whose this machine's own packets are.
//!
//! The tcx program (`dataplane/bpf/host.h`) gives each set of credentials that sends a
//! number, which it writes into the frame. What a number means is in a BPF array and
//! never changes, so that each worker asks the kernel once for each.

use std::sync::Arc;

use aya::maps::{Array, MapData};

use crate::policy::scene::{Owner, Sender};

/// No socket.
const NOBODY: u16 = 0;
/// A socket without a file: one of the kernel's own.
const NO_FILE: u16 = 1;
/// The program has run out of numbers, or cannot tell.
const UNTOLD: u16 = 8191;
/// Of a group, or how many groups: it is not told.
const NOT_TOLD: u32 = u32::MAX;
/// Supplementary groups that are told at most.
const GROUPS_MAX: usize = 32;

/// What the program writes of an owner: the user, the group, how many supplementary
/// groups, and these.
type Credentials = [u32; 3 + GROUPS_MAX];

/// The array: owners by number.
pub(in crate::port) type OwnerMap = Arc<Array<MapData, Credentials>>;

/// What one worker knows of it.
pub(super) struct Owners {
    map: OwnerMap,
    known: Box<[Option<Sender>]>,
    /// Lists of groups that were seen.
    lists: Vec<&'static [u32]>,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.known.iter().flatten().count();
        out.debug_struct("Owners").field("known", &known).finish_non_exhaustive()
    }
}

impl Owners {
    pub(super) fn new(map: OwnerMap) -> Self {
        Self { map, known: vec![None; usize::from(UNTOLD)].into(), lists: Vec::new() }
    }

    /// Who `number` is.
    pub(super) fn sender(&mut self, number: u16) -> Sender {
        match number {
            NOBODY => Sender::Nobody,
            NO_FILE => Sender::Kernel,
            UNTOLD.. => Sender::Untold,
            number => {
                let at = usize::from(number);
                if let Some(known) = self.known[at] {
                    return known;
                }
                let Ok(credentials) = self.map.get(&u32::from(number), 0) else {
                    return Sender::Untold;
                };
                let sender = Sender::User(owner(&credentials, &mut self.lists));
                self.known[at] = Some(sender);
                sender
            }
        }
    }
}

fn owner(credentials: &Credentials, lists: &mut Vec<&'static [u32]>) -> Owner {
    let [uid, group, count, groups @ ..] = credentials;
    let groups = groups.get(..*count as usize).map(|groups| kept(groups, lists));
    Owner { uid: *uid, gid: (*group != NOT_TOLD).then_some(*group), groups }
}

/// The same list for good. There are no more of them than numbers.
fn kept(groups: &[u32], lists: &mut Vec<&'static [u32]>) -> &'static [u32] {
    if let Some(known) = lists.iter().find(|known| **known == groups) {
        return known;
    }
    let list: &'static [u32] = Box::leak(groups.into());
    lists.push(list);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_not_taken_for_a_group() {
        let mut lists = Vec::new();
        let credentials = |uid, gid, count| {
            let mut all = [0; 3 + GROUPS_MAX];
            all[..5].copy_from_slice(&[uid, gid, count, 4, 27]);
            all
        };
        let expected = Owner { uid: 1000, gid: Some(100), groups: Some(&[4, 27]) };
        assert_eq!(owner(&credentials(1000, 100, 2), &mut lists), expected);
        let other = Owner { uid: 7, ..expected };
        assert_eq!(owner(&credentials(7, 100, 2), &mut lists), other);
        assert_eq!(lists.len(), 1, "the same list again");
        let many = Owner { groups: None, ..expected };
        assert_eq!(owner(&credentials(1000, 100, NOT_TOLD), &mut lists), many);
        let closed = Owner { gid: None, ..many };
        assert_eq!(owner(&credentials(1000, NOT_TOLD, NOT_TOLD), &mut lists), closed);
        let none = Owner { groups: Some(&[]), ..expected };
        assert_eq!(owner(&credentials(1000, 100, 0), &mut lists), none);
    }
}
