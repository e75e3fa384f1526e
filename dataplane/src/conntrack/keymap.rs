//! Keys of announced GRE flows.
//!
//! A packet of enhanced GRE names the call of its receiver only. The call of its
//! sender, which tells flows between the same hosts apart, is what the PPTP control
//! connection said of it, kept here from there on: for each direction of a control
//! connection one flow, until that connection or its GRE connection ends.

use std::cell::Cell;

use super::ConnId;
use super::expect::{Expectation, Expectations, SourceMask};
use super::slots::{BY_MASTER, BY_TUPLE};
use super::tuple::{Direction, Tuple};
use crate::clock::Nanos;
use crate::policy::target::HelperKind;

const FOREVER: Nanos = Nanos(u64::MAX);

/// The flows, bounded as expectations are.
#[derive(Debug)]
pub(super) struct Keymap(Expectations);

impl Keymap {
    /// Room for `capacity` directions.
    pub(super) fn new(capacity: usize, hash_key: [u8; 16]) -> Self {
        Self(Expectations::new(capacity, hash_key))
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sender's key of a packet between the addresses of `tuple` to its key: what
    /// was said first; zero if nothing was. Zones make no difference. Takes no lock.
    pub(super) fn sender(&self, tuple: &Tuple) -> u16 {
        if self.is_empty() {
            return 0;
        }
        let tuple = Tuple { zone: 0, ..*tuple };
        let oldest = Cell::new(None::<(u64, u16)>);
        self.0.slots().find(BY_TUPLE, self.0.home_of_tuple(&tuple), |found| {
            let known = &found.expectation.tuple;
            let older = oldest.get().is_none_or(|(born, _)| found.born() < born);
            if older && same_receiver(known, &tuple) {
                oldest.set(Some((found.born(), known.sport)));
            }
            false
        });
        oldest.get().map_or(0, |(_, key)| key)
    }

    /// `master` says what packets of `tuple` are, in one of its directions. It may
    /// repeat that, but not say another thing. False: it did, or there is no room.
    pub(super) fn add(&self, master: ConnId, direction: Direction, tuple: &Tuple) -> bool {
        let tuple = Tuple { zone: 0, ..*tuple };
        let homes = [self.0.home_of_tuple(&tuple), self.0.home_of_master(master)];
        let class = direction as u8;
        let writer = self.0.slots().write();
        let said = writer
            .chain(BY_MASTER, homes[BY_MASTER])
            .find(|found| (found.expectation.master, found.expectation.class) == (master, class));
        if let Some(said) = said {
            return same_receiver(&said.expectation.tuple, &tuple);
        }
        let mask = SourceMask { address: u128::MAX, port: u16::MAX };
        let new = Expectation {
            tuple,
            mask,
            master,
            by: HelperKind::Pptp,
            class,
            permanent: true,
            inactive: false,
            helper: None,
            follow: None,
        };
        writer.add(&new, FOREVER, homes).is_some()
    }

    /// Forgets what `master` said.
    pub(super) fn forget(&self, master: ConnId) {
        self.0.change(master, Nanos(0), |_, _| None);
    }

    /// Forgets what was said by those that are not alive.
    pub(super) fn collect(&self, alive: impl Fn(ConnId) -> bool) {
        self.0.collect(Nanos(0), alive);
    }
}

fn same_receiver(one: &Tuple, other: &Tuple) -> bool {
    let receiver = |tuple: &Tuple| (tuple.src, tuple.dst, tuple.dport, tuple.proto, tuple.family);
    receiver(one) == receiver(other)
}
