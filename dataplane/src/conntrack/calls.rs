//! PPTP calls: what a control connection has agreed on, and the GRE connections
//! that stand and fall with it.

use super::expect::{Expectation, Follow};
use super::extra::Memory;
use super::record::Locked;
use super::status::{DST_NAT, EXPECTED, HELPER, SRC_NAT};
use super::store::Store;
use super::tuple::{Direction, Tuple};
use super::{ConnId, Conntrack};
use crate::clock::Nanos;
use crate::policy::target::HelperKind;
use crate::wire::proto;

/// What a control connection has agreed on, as its helper remembers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// How far the session is.
    pub(crate) session: u8,
    /// How far the call is.
    pub(crate) call: u8,
    /// The client's call, as the server knows it.
    pub(crate) client: u16,
    /// The server's call.
    pub(crate) server: u16,
    /// Both, as the client knows them where that is translated.
    pub(crate) inside: [u16; 2],
}

/// Bits of each state in [`Memory::flags`].
const BITS: u32 = 4;

impl Calls {
    pub(crate) fn of(memory: &Memory) -> Self {
        let halves = |word: u32| [word as u16, (word >> 16) as u16];
        let [client, server] = halves(memory.numbers[0][0]);
        let state = |at: u32| (memory.flags >> (BITS * at)) as u8 & 15;
        let inside = halves(memory.numbers[1][0]);
        Self { session: state(0), call: state(1), client, server, inside }
    }

    pub(crate) fn store(&self, memory: &mut Memory) {
        let joined = |[low, high]: [u16; 2]| u32::from(high) << 16 | u32::from(low);
        memory.numbers[0][0] = joined([self.client, self.server]);
        memory.numbers[1][0] = joined(self.inside);
        memory.flags = u32::from(self.call) << BITS | u32::from(self.session);
    }

    /// The flows that are expected of a control connection with these tuples: what each
    /// end sends. Where the connection is translated, as it comes in here.
    pub(crate) fn data(&self, translated: bool, [original, reply]: [&Tuple; 2]) -> [Tuple; 2] {
        let Self { client, server, inside, .. } = *self;
        let [from_client, from_server] = if translated { inside } else { [client, server] };
        [flow(original, from_client, server), flow(reply, from_server, client)]
    }

    /// The same by what the server calls both.
    pub(super) fn flows(&self, [original, reply]: [&Tuple; 2]) -> [Tuple; 2] {
        let Self { client, server, .. } = *self;
        [flow(original, client, server), flow(reply, server, client)]
    }
}

fn flow(between: &Tuple, sport: u16, dport: u16) -> Tuple {
    Tuple { sport, dport, proto: proto::GRE, ..*between }
}

impl Store {
    /// The control connection whose PPTP calls end with `id`, and, if it is that itself,
    /// their flows.
    pub(super) fn calls_of(
        &self,
        id: ConnId,
        locked: &Locked<'_>,
    ) -> Option<(ConnId, Option<[Tuple; 2]>)> {
        if locked.status() & (EXPECTED | HELPER) == 0 {
            return None;
        }
        let extras = locked.extras();
        let [original, reply] =
            [Direction::Original, Direction::Reply].map(|way| locked.tuple(way));
        if original.proto == proto::GRE {
            return extras.master().map(|master| (master, None));
        }
        let calls = || Calls::of(&extras.memory()).flows([&original, &reply]);
        (extras.helper() == Some(HelperKind::Pptp)).then(|| (id, Some(calls())))
    }

    pub(super) fn end_calls(&self, master: ConnId, flows: Option<[Tuple; 2]>) {
        self.keymap.forget(master);
        for flow in flows.into_iter().flatten() {
            // Whether its time is up makes no difference.
            if let Some(hit) = self.find(&flow.key(self.hash_key()), Nanos(0)) {
                self.kill(hit.id);
            }
        }
    }
}

impl Conntrack {
    /// What a control connection has agreed on.
    pub(crate) fn calls(&self, id: ConnId) -> Calls {
        self.memory(id).as_ref().map(Calls::of).unwrap_or_default()
    }

    pub(crate) fn set_calls(&self, id: ConnId, calls: &Calls) {
        self.change_memory(id, |memory| calls.store(memory));
    }

    /// Whose GRE packets those of `tuple` are. False: `master` has said otherwise, or
    /// there is no room.
    pub(crate) fn name_flow(&self, master: ConnId, direction: Direction, tuple: &Tuple) -> bool {
        self.store.keymap.add(master, direction, tuple)
    }

    /// After a restart: a control connection with calls names their flows again.
    pub(super) fn name_again(&self, id: ConnId) {
        let Some(view) = self.view(id) else { return };
        let calls = self.calls(id);
        if self.helper(id) != Some(HelperKind::Pptp) || calls.server == 0 && calls.client == 0 {
            return;
        }
        let translated = view.status & (SRC_NAT | DST_NAT) != 0;
        let flows = calls.data(translated, [&view.original, &view.reply]);
        for (way, flow) in [Direction::Original, Direction::Reply].into_iter().zip(flows) {
            self.name_flow(id, way, &flow);
        }
    }

    /// Forgets whose packets `master` named.
    pub(crate) fn forget_flows(&self, master: ConnId) {
        self.store.keymap.forget(master);
    }

    /// A control connection's calls are over.
    pub(crate) fn end_calls(&self, master: ConnId, now: Nanos) {
        self.store.keymap.forget(master);
        let Some(view) = self.view(master) else { return };
        for flow in self.calls(master).flows([&view.original, &view.reply]) {
            let key = flow.key(self.store.hash_key());
            match self.store.find(&key, now) {
                Some(hit) => drop(self.store.kill(hit.id)),
                None => drop(self.expectations.remove_met(&flow, now)),
            }
        }
    }

    /// A GRE connection came as expected: the other end's first packet is not
    /// expected any more. (Under translation the kernel misses the client's.)
    pub(super) fn call_met(&self, expected: &Expectation, now: Nanos) {
        let other = match expected.follow {
            None => expected.tuple.inverted(),
            Some(Follow { direction: Direction::Reply, .. }) => None,
            Some(_) => self.view(expected.master).map(|master| {
                let calls = self.calls(expected.master);
                calls.flows([&master.original, &master.reply])[1]
            }),
        };
        if let Some(other) = other {
            self.expectations.remove_met(&other, now);
        }
    }
}
