//! RAS: what terminals and gatekeepers tell each other of registrations and calls.

use super::found::{Found, Place, Places};
use super::per::{self, STEPS};
use super::types::h225::{self, index};
use super::{Message, TRIES};
use crate::clock::Nanos;
use crate::conntrack::status;
use crate::helper::Visit;
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::proto;

type Outcome = Result<(), DropReason>;

const UDP_HEADER: usize = 8;
/// How long a registration lives, in seconds, if its request does not say.
const LIFETIME_S: u32 = 300;
/// For the answer to a farewell.
const FAREWELL: Nanos = Nanos::from_secs(30);
/// Some telephones put their loopback address first.
const LOOPBACK: u128 = 127;

/// Reads a datagram.
pub(in crate::helper) fn help(mut visit: Visit<'_, '_>) -> Outcome {
    if visit.parsed.proto != proto::UDP {
        return Ok(());
    }
    let at = usize::from(visit.parsed.l4) + UDP_HEADER;
    let Some(data) = visit.frame.get(at..visit.end()).filter(|data| !data.is_empty()) else {
        return Ok(());
    };
    let (mut found, mut steps) = (Found::default(), STEPS);
    if per::read(data, (0, data.len()), &h225::RAS, &mut found, &mut steps).is_err() {
        return Ok(());
    }
    Message { visit: &mut visit, by: HelperKind::Ras, at, tries: TRIES }.process_ras(&found)
}

impl Message<'_, '_, '_> {
    fn process_ras(&mut self, found: &Found) -> Outcome {
        let signal = found.signal.first().copied().flatten();
        match found.message {
            Some(index::GATEKEEPER_REQUEST | index::LOCATION_REQUEST) => {
                self.translate_ras(&found.ras)
            }
            Some(index::GATEKEEPER_CONFIRM) => self.discovered(&found.ras),
            Some(index::REGISTRATION_REQUEST) => self.register(found),
            Some(index::REGISTRATION_CONFIRM) => self.registered(found),
            Some(index::UNREGISTRATION_REQUEST) => self.unregister(found),
            Some(index::ADMISSION_REQUEST) => self.ask_admission(found),
            Some(index::ADMISSION_CONFIRM) => match self.address(signal) {
                Some((address, _)) if address == self.here().dst => {
                    self.translate_signal(&found.signal)
                }
                Some(to) => self.expect_call(to),
                None => Ok(()),
            },
            Some(index::LOCATION_CONFIRM) => match self.address(signal) {
                Some(to) => self.expect_call(to),
                None => Ok(()),
            },
            Some(index::INFO_RESPONSE) => {
                self.translate_ras(&found.ras)?;
                self.translate_signal(&found.signal)
            }
            _ => Ok(()),
        }
    }

    /// The sender's own address becomes the one that the other side knows.
    fn translate_ras(&mut self, places: &Places) -> Outcome {
        if !self.is_translated() {
            return Ok(());
        }
        let (here, back) = (self.here(), self.back());
        let own = |place: &&Place| self.address(Some(**place)) == Some((here.src, here.sport));
        match places.iter().flatten().find(own) {
            Some(&place) => self.write(place, (back.dst, back.dport)),
            None => Ok(()),
        }
    }

    /// The first of some signalling addresses that is an end of this connection
    /// becomes what the other side calls it.
    fn translate_signal(&mut self, places: &Places) -> Outcome {
        if !self.is_translated() {
            return Ok(());
        }
        let (here, back) = (self.here(), self.back());
        let (own, outside) = self.signal_ports();
        for &place in places.iter().flatten() {
            let found = self.address(Some(place));
            if found == Some((here.src, own)) {
                let place = self.loopback(places).unwrap_or(place);
                return self.write(place, (back.dst, outside));
            }
            if found == Some((here.dst, own)) {
                return self.write(place, (back.src, outside));
            }
        }
        Ok(())
    }

    /// The first address, if it is a loopback address.
    fn loopback(&self, places: &Places) -> Option<Place> {
        let first = places.first().copied().flatten()?;
        self.address(Some(first)).filter(|found| found.0 >> 24 == LOOPBACK)?;
        Some(first)
    }

    /// A gatekeeper says where registrations go.
    fn discovered(&mut self, places: &Places) -> Outcome {
        let here = self.here();
        let Some(to) = self.address(places.first().copied().flatten()) else { return Ok(()) };
        let expected = self.visit.conn.status & status::EXPECTED != 0;
        if to == (here.src, here.sport) || expected {
            return Ok(());
        }
        let new = self.expectation(proto::UDP, to, Some(HelperKind::Ras));
        self.expect(&new).map(drop)
    }

    /// A terminal says where it is to be called.
    fn register(&mut self, found: &Found) -> Outcome {
        let own = |place: &&Place| self.own_port(Some(**place)).is_some();
        if let Some(&place) = found.signal.iter().flatten().find(own) {
            self.expect_signal(place, &found.signal)?;
        }
        self.translate_ras(&found.ras)?;
        self.remember_lifetime(found.time_to_live.unwrap_or(LIFETIME_S));
        Ok(())
    }

    /// Expects calls from the gatekeeper, as many as come.
    fn expect_signal(&mut self, place: Place, places: &Places) -> Outcome {
        let Some(port) = self.own_port(Some(place)) else { return Ok(()) };
        let to = (self.back().dst, port);
        let mut new = self.expectation(proto::TCP, to, Some(HelperKind::Q931));
        new.permanent = true;
        if !self.is_translated() {
            self.expect(&new)?;
            self.remember_signal_port(port);
            return Ok(());
        }
        new.follow = self.follow(port, None);
        let (known, outside) = self.signal_ports();
        if known == port {
            new.tuple.dport = outside;
        }
        let Some(outside) = self.expect_outside(new, place)? else { return Ok(()) };
        self.remember_signal_ports(port, outside);
        match self.loopback(places) {
            Some(first) => self.write(first, (self.back().dst, outside)),
            None => Ok(()),
        }
    }

    /// A gatekeeper has accepted a registration. (What is expected does not live longer
    /// for it: the kernel looks for calls from anywhere, and expects them from the
    /// gatekeeper alone.)
    fn registered(&mut self, found: &Found) -> Outcome {
        self.translate_signal(&found.signal)?;
        if let Some(seconds) = found.time_to_live {
            self.remember_lifetime(seconds);
        }
        let seconds = self.lifetime();
        if seconds > 0 {
            self.refresh(Nanos::from_secs(seconds.into()));
        }
        Ok(())
    }

    fn refresh(&self, timeout: Nanos) {
        self.visit.conntrack.refresh(self.visit.conn.id, timeout, self.visit.now);
    }

    /// Somebody ends a registration.
    fn unregister(&mut self, found: &Found) -> Outcome {
        self.translate_signal(&found.signal)?;
        let id = self.visit.conn.id;
        self.visit.conntrack.change_expected(id, self.visit.now, |_, _| None);
        self.remember_signal_ports(0, 0);
        self.refresh(FAREWELL);
        Ok(())
    }

    /// Somebody asks whether he may answer, or make, a call.
    fn ask_admission(&mut self, found: &Found) -> Outcome {
        if !self.is_translated() {
            return Ok(());
        }
        let (here, outside) = (self.here(), self.back().dst);
        let (own, known) = self.signal_ports();
        if let Some(place) = found.destination
            && self.address(Some(place)) == Some((here.src, own))
        {
            return self.write(place, (outside, known));
        }
        match (found.source, self.address(found.source)) {
            (Some(place), Some((address, port))) if address == here.src => {
                self.write(place, (outside, port))
            }
            _ => Ok(()),
        }
    }

    /// Expects calls to somebody whom the gatekeeper has named.
    fn expect_call(&mut self, to: (u128, u16)) -> Outcome {
        let mut new = self.expectation(proto::TCP, to, Some(HelperKind::Q931));
        new.permanent = true;
        self.expect(&new).map(drop)
    }
}
