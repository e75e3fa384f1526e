//! H.323: gatekeepers (RAS), calls (Q.931 with H.225.0 in it) and their media (H.245).
//!
//! A RAS rule and a Q.931 rule start it; what they expect has the helper that it
//! needs: signalling has [`q931`], its control channels have [`h245`]. Addresses are
//! written in a fixed number of bytes, so nothing that is rewritten changes its length.
//!
//! The kernel's defaults: calls are expected from the gatekeeper alone
//! (`gkrouted_only`), registrations live 300 s if nobody says otherwise
//! (`default_rrq_ttl`), and a call that is forwarded to where its caller is reached
//! as well is left alone (`callforward_filter`).

mod channels;
mod found;
mod per;
mod ras;
mod signalling;
mod state;
#[cfg(test)]
mod tests;
mod tpkt;
mod types;

pub(super) use ras::help as ras;
pub(super) use signalling::{h245, q931};

use super::{Visit, rewrite};
use crate::clock::Nanos;
use crate::conntrack::{ExpectId, Expectation, Follow, Limits, Tuple};
use crate::packet::Family;
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::be16;
use found::Place;

/// What each helper is allowed.
const fn limits(by: HelperKind) -> Limits {
    let most = match by {
        HelperKind::Ras => 32,
        HelperKind::Q931 => 20,
        _ => 18,
    };
    Limits { most, timeout: Nanos::from_secs(240), any_master: false }
}

/// A message in its packet.
struct Message<'m, 'a, 'f> {
    visit: &'m mut Visit<'a, 'f>,
    /// The helper that reads it.
    by: HelperKind,
    /// Where it starts in the frame.
    at: usize,
    /// Pairs of ports that may still be tried for this packet.
    tries: u32,
}

/// Pairs of ports that are tried for one packet: more than there are expectations.
const TRIES: u32 = 4096;

impl Message<'_, '_, '_> {
    /// The connection's tuple this packet's way.
    fn here(&self) -> Tuple {
        *self.visit.tuple(self.visit.direction)
    }

    /// The tuple of what comes back.
    fn back(&self) -> Tuple {
        *self.visit.tuple(self.visit.direction.opposite())
    }

    /// Whether addresses are to be rewritten. The kernel does so in IPv4 only.
    fn is_translated(&self) -> bool {
        self.visit.parsed.family == Family::V4 && self.visit.is_translated()
    }

    /// Whether they are, and the other side knows this packet's sender by another.
    fn is_hidden(&self) -> bool {
        self.is_translated() && self.here().src != self.back().dst
    }

    /// The address and port that now stand there, if they are of the packet's family.
    fn address(&self, place: Option<Place>) -> Option<(u128, u16)> {
        let place = place?;
        let (at, v6) = (self.at + usize::from(place.at), self.visit.parsed.family == Family::V6);
        let len = if v6 { 16 } else { 4 };
        let bytes = self.visit.frame.get(at..at + len + 2).filter(|_| place.v6 == v6)?;
        let address = bytes[..len].iter().fold(0, |all, &byte| all << 8 | u128::from(byte));
        Some((address, be16(bytes, len)))
    }

    /// The port there, if the address is the sender's own.
    fn own_port(&self, place: Option<Place>) -> Option<u16> {
        let (address, port) = self.address(place)?;
        (address == self.here().src && port != 0).then_some(port)
    }

    /// Puts another address and port there.
    fn write(&mut self, place: Place, (address, port): (u128, u16)) -> Result<(), DropReason> {
        let mut text = [0; 6];
        text[..4].copy_from_slice(&(address as u32).to_be_bytes());
        text[4..].copy_from_slice(&port.to_be_bytes());
        let cut = rewrite::Cut { at: self.at + usize::from(place.at), len: text.len() };
        rewrite::exchange(self.visit.frame, self.visit.parsed, cut, &text)?;
        rewrite::settle(self.visit.frame, self.visit.parsed);
        Ok(())
    }

    /// A connection from this packet's receiver.
    fn expectation(
        &self,
        protocol: u8,
        to: (u128, u16),
        helper: Option<HelperKind>,
    ) -> Expectation {
        let mut new = self.visit.expectation(self.by, Some(self.back().src), to);
        new.tuple.proto = protocol;
        new.helper = helper;
        new
    }

    fn expect(&self, new: &Expectation) -> Result<ExpectId, DropReason> {
        self.visit.expect(new, limits(self.by)).map_err(|_| DropReason::Helper)
    }

    /// How what is expected on behalf of this packet's sender is translated.
    fn follow(&self, port: u16, address: Option<u128>) -> Option<Follow> {
        Some(Follow { direction: self.visit.direction.opposite(), port, address })
    }

    /// Expects `new` on a free port of the outside address, and writes that there. The
    /// port; `None` when all are taken: then the message goes on as it is.
    fn expect_outside(
        &mut self,
        mut new: Expectation,
        place: Place,
    ) -> Result<Option<u16>, DropReason> {
        let limits = limits(self.by);
        let Some((port, id)) = self.visit.expect_on_free_port(&mut new, limits) else {
            return Ok(None);
        };
        match self.write(place, (self.back().dst, port)) {
            Ok(()) => Ok(Some(port)),
            Err(reason) => {
                self.visit.conntrack.unexpect(id);
                Err(reason)
            }
        }
    }
}
