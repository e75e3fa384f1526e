//! Calls: the messages of Q.931, which bring H.225.0 in their user-user element, and
//! those of H.245. A message that cannot be read ends what is read of its segment,
//! and passes.

use super::channels;
use super::found::Found;
use super::per::{self, STEPS};
use super::types::{h225, h245 as control};
use super::{Message, TRIES, tpkt};
use crate::conntrack::CtState;
use crate::helper::Visit;
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::{proto, tcp};

/// Reads a segment of a call.
pub(in crate::helper) fn q931(visit: Visit<'_, '_>) -> Result<(), DropReason> {
    segment(visit, HelperKind::Q931, |data, found, steps| {
        let user = user_information(data)?;
        per::read(data, user, &h225::USER, found, steps).ok()
    })
}

/// Reads a segment of a call's control channel.
pub(in crate::helper) fn h245(visit: Visit<'_, '_>) -> Result<(), DropReason> {
    segment(visit, HelperKind::H245, |data, found, steps| {
        per::read(data, (0, data.len()), &control::CONTROL, found, steps).ok()
    })
}

fn segment(
    mut visit: Visit<'_, '_>,
    by: HelperKind,
    read: impl Fn(&[u8], &mut Found, &mut u32) -> Option<()>,
) -> Result<(), DropReason> {
    if visit.state != CtState::Established || visit.parsed.proto != proto::TCP {
        return Ok(());
    }
    let Ok(segment) = tcp::Packet::new_checked(visit.parsed.l4_bytes(visit.frame)) else {
        return Ok(());
    };
    let at = usize::from(visit.parsed.l4) + segment.header_len();
    let (mut last, mut steps) = (None, STEPS);
    let mut message = Message { visit: &mut visit, by, at, tries: TRIES };
    while let Some((start, end)) = tpkt::next(&message, at, last) {
        let Some(data) = message.visit.frame.get(at + start..at + end) else { break };
        let mut found = Found::default();
        if read(data, &mut found, &mut steps).is_none() {
            break;
        }
        message.at = at + start;
        message.process(&found)?;
        last = Some((start, end));
    }
    Ok(())
}

/// Where the user information is in a Q.931 message.
fn user_information(data: &[u8]) -> Option<(usize, usize)> {
    const DISCRIMINATOR: u8 = 8;
    const USER_USER: u8 = 0x7e;
    const LOCKING: u8 = 0x80;
    if *data.first()? != DISCRIMINATOR {
        return None;
    }
    // Behind the call's reference there is at least the message's type and a byte.
    let reference = usize::from(*data.get(1)?);
    let mut at = 2 + reference + 1;
    if data.get(at)? & LOCKING != 0 {
        at += 1;
    }
    loop {
        if *data.get(at)? == USER_USER {
            let length = usize::from(u16::from_be_bytes([*data.get(at + 1)?, *data.get(at + 2)?]));
            let start = at + 3;
            // The first byte says whose protocol it is.
            let fits = length > 1 && start + length <= data.len();
            return fits.then_some((start + 1, start + length));
        }
        at += 2 + usize::from(*data.get(at + 1)?);
    }
}

impl Message<'_, '_, '_> {
    fn process(&mut self, found: &Found) -> Result<(), DropReason> {
        if found.forwarded {
            channels::expect_forwarded(self, found.alternative)?;
        } else {
            channels::expect_h245(self, found.h245)?;
            self.translate_ends(found)?;
            for channel in found.channels.iter().filter(|channel| !channel.in_h245) {
                channels::expect(self, channel)?;
            }
        }
        for channel in found.channels.iter().filter(|channel| channel.in_h245) {
            channels::expect(self, channel)?;
        }
        Ok(())
    }

    /// The called and the calling end of a Setup message.
    fn translate_ends(&mut self, found: &Found) -> Result<(), DropReason> {
        if !self.is_translated() {
            return Ok(());
        }
        let back = self.back();
        let ends =
            [(found.destination, (back.src, back.sport)), (found.source, (back.dst, back.dport))];
        for (place, known) in ends {
            if let (Some(place), Some((address, _))) = (place, self.address(place))
                && address != known.0
            {
                self.write(place, known)?;
            }
        }
        Ok(())
    }
}
