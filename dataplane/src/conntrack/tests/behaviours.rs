//! The numbered behaviours that naive firewalls get wrong, as far as they
//! concern tracking alone. Each test name starts with its number.

use super::*;
use crate::wire::tcp::flags;

const SYN: u8 = flags::SYN;
const ACK: u8 = flags::ACK;

fn out(flags: u8, seq: u32, ack: u32) -> Packet {
    Packet::tcp(A, 1000, B, 80, flags).seq(seq, ack)
}
fn back(flags: u8, seq: u32, ack: u32) -> Packet {
    Packet::tcp(B, 80, A, 1000, flags).seq(seq, ack)
}

/// A handshake: 101 and 501 come next.
fn established(lab: &Lab) {
    assert_eq!(lab.state(&out(SYN, 100, 0)), CtState::New);
    assert_eq!(lab.entry(), "120 SYN_SENT [UNREPLIED]");
    assert_eq!(lab.state(&back(SYN | ACK, 500, 101)), CtState::Established);
    assert_eq!(lab.entry(), "60 SYN_RECV");
    assert_eq!(lab.state(&out(ACK, 101, 501)), CtState::Established);
    assert_eq!(lab.entry(), "432000 ESTABLISHED [ASSURED]");
}

#[test]
fn handshake() {
    established(&Lab::new(&[]));
}
