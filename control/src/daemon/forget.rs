//! Ends masqueraded connections whose address or port is gone, a stretch of the
//! connection table in each round.

use std::collections::VecDeque;
use std::net::IpAddr;

use dataplane::conntrack::Conntrack;
use dataplane::packet::{Family, PortId};

use crate::net::Loss;

/// Records looked at in one round.
const BUDGET: usize = 1 << 14;

/// Losses to be carried out. A worker may still take an address in the moment in
/// which it goes: every loss is carried out twice.
#[derive(Debug, Default)]
pub(super) struct Forgetter {
    waiting: VecDeque<Errand>,
}

#[derive(Clone, Copy, Debug)]
struct Errand {
    port: PortId,
    address: Option<(Family, u128)>,
    from: usize,
    again: bool,
}

impl Forgetter {
    /// Notes what was lost.
    pub(super) fn note(&mut self, losses: Vec<Loss>) {
        let errand = |loss: Loss| Errand {
            port: loss.port,
            address: loss.address.map(common_form),
            from: 0,
            again: true,
        };
        for errand in losses.into_iter().map(errand) {
            let same =
                |other: &Errand| (other.port, other.address) == (errand.port, errand.address);
            self.waiting.retain(|other| !same(other));
            self.waiting.push_back(errand);
        }
    }

    /// One round.
    pub(super) fn work(&mut self, conntrack: &Conntrack) {
        let Some(errand) = self.waiting.pop_front() else { return };
        let Errand { port, address, from, again } = errand;
        match conntrack.forget_masqueraded(port, address, from, BUDGET) {
            Some(from) => self.waiting.push_front(Errand { from, ..errand }),
            None if again => self.waiting.push_back(Errand { from: 0, again: false, ..errand }),
            None => {}
        }
    }
}

fn common_form(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
    }
}
