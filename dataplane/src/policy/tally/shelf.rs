//! A hash table of fixed capacity whose entries also stand in a row, from the one that
//! was untouched longest to the one touched last.
//!
//! Limits: `capacity` entries. All memory is asked for at the start; pages of entries
//! that were never used are never touched.

use std::hash::{BuildHasher, Hash, RandomState};

/// No entry.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: V,
    /// Next in the bucket, or in the list of free nodes.
    next: u32,
    older: u32,
    newer: u32,
    /// Its turn in the row; zero once it is free.
    turn: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Shelf<K, V> {
    hasher: RandomState,
    /// First nodes.
    buckets: Box<[u32]>,
    nodes: Vec<Node<K, V>>,
    capacity: usize,
    free: u32,
    oldest: u32,
    newest: u32,
    /// The latest turn.
    turn: u64,
    len: usize,
}

impl<K: Hash + Eq + Copy, V> Shelf<K, V> {
    pub(super) fn new(capacity: usize, hasher: RandomState) -> Self {
        let buckets = capacity.next_power_of_two();
        Self {
            hasher,
            buckets: vec![NONE; buckets].into(),
            nodes: Vec::with_capacity(capacity),
            capacity,
            free: NONE,
            oldest: NONE,
            newest: NONE,
            turn: 0,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first entry of that key, in the order in which they came, that `suits`.
    pub(super) fn find(&self, key: &K, suits: impl Fn(&V) -> bool) -> Option<u32> {
        let mut at = self.buckets[self.bucket(key)];
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.key == *key && suits(&node.value) {
                return Some(at);
            }
            at = node.next;
        }
        None
    }

    /// Puts a new entry at the row's new end; `None` when there is no room.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<u32> {
        let node = Node { key, value, next: NONE, older: NONE, newer: NONE, turn: 0 };
        let at = match self.free {
            NONE if self.nodes.len() < self.capacity => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
            NONE => return None,
            free => {
                self.free = self.nodes[free as usize].next;
                self.nodes[free as usize] = node;
                free
            }
        };
        let bucket = self.bucket(&key);
        // At its bucket's end: among equal keys the first is found first.
        match self.last_of(bucket) {
            None => self.buckets[bucket] = at,
            Some(last) => self.nodes[last as usize].next = at,
        }
        self.link(at);
        self.len += 1;
        Some(at)
    }

    pub(super) fn remove(&mut self, at: u32) {
        let bucket = self.bucket(&self.nodes[at as usize].key);
        let next = self.nodes[at as usize].next;
        let mut before = self.buckets[bucket];
        if before == at {
            self.buckets[bucket] = next;
        } else {
            while self.nodes[before as usize].next != at {
                before = self.nodes[before as usize].next;
            }
            self.nodes[before as usize].next = next;
        }
        self.unlink(at);
        self.nodes[at as usize].next = self.free;
        self.nodes[at as usize].turn = 0;
        self.free = at;
        self.len -= 1;
    }

    /// Moves an entry to the row's new end.
    pub(super) fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
    }

    /// The entry that was untouched longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub(super) fn key(&self, at: u32) -> K {
        self.nodes[at as usize].key
    }

    pub(super) fn value(&self, at: u32) -> &V {
        &self.nodes[at as usize].value
    }

    pub(super) fn value_mut(&mut self, at: u32) -> &mut V {
        &mut self.nodes[at as usize].value
    }

    /// Entries in `most` places from `from` on, each with its turn in the row; `None` where
    /// there are no more places. What stays is in one page and keeps its place, so that a
    /// listing need not hold a lock for all of them.
    pub(super) fn page(
        &self,
        from: usize,
        most: usize,
    ) -> Option<impl Iterator<Item = (u64, u32)> + '_> {
        let nodes = self.nodes.get(from..self.nodes.len().min(from.saturating_add(most)))?;
        let places = nodes.iter().zip(from as u32..).map(|(node, at)| (node.turn, at));
        (!nodes.is_empty()).then(|| places.filter(|(turn, _)| *turn > 0))
    }

    /// All entries along the row, oldest first.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.oldest(), |&at| {
            let newer = self.nodes[at as usize].newer;
            (newer != NONE).then_some(newer)
        })
    }

    pub(super) fn clear(&mut self) {
        self.buckets.fill(NONE);
        self.nodes.clear();
        (self.free, self.oldest, self.newest, self.len) = (NONE, NONE, NONE, 0);
    }

    fn bucket(&self, key: &K) -> usize {
        self.hasher.hash_one(key) as usize & (self.buckets.len() - 1)
    }

    fn last_of(&self, bucket: usize) -> Option<u32> {
        let mut at = self.buckets[bucket];
        let mut last = None;
        while at != NONE {
            (last, at) = (Some(at), self.nodes[at as usize].next);
        }
        last
    }

    fn link(&mut self, at: u32) {
        let newest = std::mem::replace(&mut self.newest, at);
        self.turn += 1;
        let node = &mut self.nodes[at as usize];
        node.turn = self.turn;
        (node.older, node.newer) = (newest, NONE);
        match newest {
            NONE => self.oldest = at,
            newest => self.nodes[newest as usize].newer = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let (older, newer) = (self.nodes[at as usize].older, self.nodes[at as usize].newer);
        match older {
            NONE => self.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(shelf: &Shelf<u32, u32>) -> Vec<(u32, u32)> {
        let row: Vec<(u32, u32)> =
            shelf.iter().map(|at| (shelf.key(at), *shelf.value(at))).collect();
        // Pages and turns tell the same.
        let (mut paged, mut from) = (Vec::new(), 0);
        while let Some(page) = shelf.page(from, 3) {
            paged.extend(page.map(|(turn, at)| (turn, (shelf.key(at), *shelf.value(at)))));
            from += 3;
        }
        paged.sort_unstable();
        assert!(paged.iter().map(|(_, entry)| entry).eq(&row), "{paged:?} {row:?}");
        row
    }

    #[test]
    fn entries_stand_in_the_order_of_their_last_touch() {
        let mut shelf = Shelf::new(4, RandomState::new());
        let ids: Vec<u32> = (0..4).map(|key| shelf.insert(key, key * 10).unwrap()).collect();
        assert_eq!(shelf.insert(9, 9), None, "no room");
        shelf.touch(ids[1]);
        shelf.touch(ids[3]);
        assert_eq!(row(&shelf), [(0, 0), (2, 20), (1, 10), (3, 30)]);
        shelf.remove(ids[2]);
        shelf.remove(shelf.oldest().unwrap());
        assert_eq!(row(&shelf), [(1, 10), (3, 30)]);
        assert!(shelf.insert(7, 70).is_some() && shelf.insert(8, 80).is_some());
        assert_eq!(shelf.len(), 4);
        assert_eq!(shelf.find(&2, |_| true), None);
        assert_eq!(shelf.find(&7, |_| true).map(|at| *shelf.value(at)), Some(70));
        shelf.clear();
        assert_eq!((shelf.len(), row(&shelf)), (0, vec![]));
    }

    #[test]
    fn equal_keys_are_found_in_the_order_in_which_they_came() {
        let mut shelf = Shelf::new(8, RandomState::new());
        let first = shelf.insert(5, 1).unwrap();
        shelf.insert(5, 2);
        shelf.insert(5, 3);
        let found = |shelf: &Shelf<u32, u32>, least| {
            shelf.find(&5, |&value| value >= least).map(|at| *shelf.value(at))
        };
        assert_eq!(
            (found(&shelf, 0), found(&shelf, 2), found(&shelf, 4)),
            (Some(1), Some(2), None)
        );
        shelf.remove(first);
        shelf.insert(5, 1);
        assert_eq!(found(&shelf, 0), Some(2));
    }

    /// Against a plain list.
    #[test]
    fn behaves_like_a_list() {
        let dice = crate::policy::scene::Dice::new(7);
        let mut shelf: Shelf<u32, u32> = Shelf::new(16, RandomState::new());
        let mut list: Vec<(u32, u32)> = Vec::new();
        for step in 0..20_000 {
            let key = dice.throw() % 24;
            let known = shelf.find(&key, |_| true);
            assert_eq!(known.is_some(), list.iter().any(|entry| entry.0 == key));
            match (dice.throw() % 3, known) {
                (0, Some(at)) => {
                    shelf.remove(at);
                    list.retain(|entry| entry.0 != key);
                }
                (_, Some(at)) => {
                    shelf.touch(at);
                    *shelf.value_mut(at) = step;
                    list.retain(|entry| entry.0 != key);
                    list.push((key, step));
                }
                (_, None) => {
                    if list.len() < 16 {
                        list.push((key, step));
                    }
                    assert_eq!(
                        shelf.insert(key, step).is_some(),
                        list.last() == Some(&(key, step))
                    );
                }
            }
            assert_eq!(row(&shelf), list);
        }
    }
}
