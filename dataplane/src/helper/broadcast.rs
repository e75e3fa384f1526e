//! What this machine asks everybody on a network: everybody there may answer.

use super::{Own, Visit};
use crate::clock::Nanos;
use crate::conntrack::{Direction, Limits, SourceMask};
use crate::packet::Family;
use crate::policy::target::HelperKind;
use crate::wire::proto;

/// Such a helper.
struct Question {
    by: HelperKind,
    /// Where whoever answers is asked.
    port: u16,
    /// How long answers are expected: `timeout`.
    timeout: Nanos,
}

/// NetBIOS names.
pub(super) fn names(visit: &Visit<'_, '_>) {
    let by = HelperKind::NetbiosNs;
    ask(visit, &Question { by, port: 137, timeout: Nanos::from_secs(3) });
}

/// SNMP.
pub(super) fn snmp(visit: &Visit<'_, '_>) {
    let by = HelperKind::Snmp;
    ask(visit, &Question { by, port: 161, timeout: Nanos::from_secs(30) });
}

fn ask(visit: &Visit<'_, '_>, question: &Question) {
    let Some(mask) = visit.own.and_then(|own| network_of(own, visit.parsed.dst)) else { return };
    let outgoing = visit.direction == Direction::Original;
    if !outgoing || visit.parsed.family != Family::V4 || visit.parsed.proto != proto::UDP {
        return;
    }
    let answer = *visit.tuple(Direction::Reply);
    let mut new = visit.expectation(question.by, Some(answer.src), (answer.dst, answer.dport));
    new.tuple.sport = question.port;
    new.mask = SourceMask { address: mask, port: u16::MAX };
    new.permanent = true;
    let limits = Limits { most: 1, timeout: question.timeout, any_master: false };
    // Who cannot be expected is let go all the same.
    let _ = visit.expect(&new, limits);
    visit.conntrack.refresh(visit.conn.id, question.timeout, visit.now);
}

/// The mask of the network on the packet's way whose broadcast address is `to`.
fn network_of(own: Own<'_>, to: u128) -> Option<u128> {
    own.addresses.iter().find_map(|&(address, len)| {
        let std::net::IpAddr::V4(address) = address else { return None };
        let host = u32::MAX.checked_shr(len.into()).unwrap_or(0);
        // A point-to-point network has none.
        let last = u128::from(address.to_bits() | host);
        (host > 1 && last == to).then_some(u128::from(!host))
    })
}
