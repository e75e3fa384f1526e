//! What a call expects: its control channel, its media, T.120, and another call that
//! it is forwarded to.

use super::found::{Channel, Place};
use super::{Message, limits};
use crate::conntrack::{ExpectError, Expectation};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::proto;

type Outcome = Result<(), DropReason>;

/// Expects the control channel of a call.
pub(super) fn expect_h245(message: &mut Message<'_, '_, '_>, place: Option<Place>) -> Outcome {
    let (Some(place), Some(port)) = (place, message.own_port(place)) else { return Ok(()) };
    let to = (message.back().dst, port);
    let mut new = message.expectation(proto::TCP, to, Some(HelperKind::H245));
    if !message.is_hidden() {
        return message.expect(&new).map(drop);
    }
    new.follow = message.follow(port, None);
    let (known, outside) = message.signal_ports();
    if known == port {
        new.tuple.dport = outside;
    }
    if let Some(outside) = message.expect_outside(new, place)? {
        message.remember_signal_ports(port, outside);
    }
    Ok(())
}

/// Expects what a channel brings.
pub(super) fn expect(message: &mut Message<'_, '_, '_>, channel: &Channel) -> Outcome {
    for place in channel.media.iter().flatten() {
        expect_media(message, *place)?;
    }
    expect_t120(message, channel.t120())
}

/// Expects a stream on an even port and its control on the next, whichever of both
/// is announced.
fn expect_media(message: &mut Message<'_, '_, '_>, place: Option<Place>) -> Outcome {
    let (Some(place), Some(port)) = (place, message.own_port(place)) else { return Ok(()) };
    let to = message.back().dst;
    let pair = [port & !1, port | 1].map(|port| message.expectation(proto::UDP, (to, port), None));
    if message.is_hidden() {
        return expect_media_outside(message, place, port, pair);
    }
    let first = message.expect(&pair[0])?;
    match message.expect(&pair[1]) {
        Ok(_) => Ok(()),
        Err(reason) => {
            message.visit.conntrack.unexpect(first);
            Err(reason)
        }
    }
}

/// The same on a free pair of ports of the outside address. Without one, the message
/// goes on as it is.
fn expect_media_outside(
    message: &mut Message<'_, '_, '_>,
    place: Place,
    port: u16,
    mut pair: [Expectation; 2],
) -> Outcome {
    let own = pair[0].tuple.dport;
    let Some(slot) = message.media_place(own) else { return Ok(()) };
    for one in &mut pair {
        one.follow = message.follow(one.tuple.dport, None);
    }
    let limits = limits(message.by);
    let mut outside = own;
    let ids = loop {
        if outside == 0 || message.tries == 0 {
            return Ok(());
        }
        message.tries -= 1;
        (pair[0].tuple.dport, pair[1].tuple.dport) = (outside, outside | 1);
        match message.visit.expect(&pair[0], limits) {
            Ok(first) => match message.visit.expect(&pair[1], limits) {
                Ok(second) => break [first, second],
                Err(error) => {
                    message.visit.conntrack.unexpect(first);
                    if error != ExpectError::Busy {
                        return Ok(());
                    }
                }
            },
            Err(ExpectError::Busy) => {}
            Err(_) => return Ok(()),
        }
        outside = outside.wrapping_add(2);
    };
    let written = message.write(place, (message.back().dst, outside | port & 1));
    if written.is_ok() {
        message.remember_media(slot, own, outside);
    } else {
        for id in ids {
            message.visit.conntrack.unexpect(id);
        }
    }
    written
}

/// Expects data channels, of which there may be several.
fn expect_t120(message: &mut Message<'_, '_, '_>, place: Option<Place>) -> Outcome {
    let (Some(place), Some(port)) = (place, message.own_port(place)) else { return Ok(()) };
    let mut new = message.expectation(proto::TCP, (message.back().dst, port), None);
    new.permanent = true;
    if !message.is_hidden() {
        return message.expect(&new).map(drop);
    }
    new.follow = message.follow(port, None);
    message.expect_outside(new, place).map(drop)
}

/// Expects the call that takes this one's place, unless the way there is the way to
/// who is told: then it need not pass here.
pub(super) fn expect_forwarded(message: &mut Message<'_, '_, '_>, place: Option<Place>) -> Outcome {
    let (Some(place), Some(to)) = (place, message.address(place).filter(|to| to.1 != 0)) else {
        return Ok(());
    };
    let back = message.back();
    if (message.visit.same_way)(back.family, [to.0, back.src]) {
        return Ok(());
    }
    let mut new = message.expectation(proto::TCP, to, Some(HelperKind::Q931));
    if !message.is_hidden() {
        return message.expect(&new).map(drop);
    }
    new.follow = message.follow(to.1, Some(to.0));
    new.tuple.dst = back.dst;
    message.expect_outside(new, place).map(drop)
}
