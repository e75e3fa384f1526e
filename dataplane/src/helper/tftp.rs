//! TFTP: the answer to a request comes from a port of the server's choice.

use super::Visit;
use crate::clock::Nanos;
use crate::conntrack::{Direction, Follow, Limits};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::{be16, proto};

/// One transfer for each request port.
const LIMITS: Limits = Limits { most: 1, timeout: Nanos::from_secs(300), any_master: false };

const HEADER: usize = 8;
const READ: u16 = 1;
const WRITE: u16 = 2;

/// Reads a datagram.
pub(super) fn help(visit: Visit<'_, '_>) -> Result<(), DropReason> {
    if visit.parsed.proto != proto::UDP {
        return Ok(());
    }
    let l4 = visit.parsed.l4_bytes(visit.frame);
    let Some(opcode) = l4.get(HEADER..HEADER + 2) else { return Ok(()) };
    if !matches!(be16(opcode, 0), READ | WRITE) {
        return Ok(());
    }
    let answer = visit.tuple(Direction::Reply);
    let (from, to) = (answer.src, (answer.dst, answer.dport));
    let mut new = visit.expectation(HelperKind::Tftp, Some(from), to);
    if visit.is_translated() {
        let port = visit.tuple(Direction::Original).sport;
        new.follow = Some(Follow { direction: Direction::Reply, port, address: None });
    }
    visit.expect(&new, LIMITS).map(drop).map_err(|_| DropReason::Helper)
}
