//! Hostile frames. Three readings of the same bytes:
//!
//! as a frame, and behind a sound Ethernet header: the parser must not panic, and
//! every offset that it reports must lie inside the frame; and as a script of
//! packets for a gateway ([`gateway`]) that translates, helps, proxies, changes
//! headers and rejects.
#![no_main]

mod gateway;

use dataplane::packet::Mac;
use dataplane::wire::{self, Frame};
use libfuzzer_sys::fuzz_target;

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn check(frame: &[u8]) {
    if let Ok(Frame::Ip(parsed)) = wire::parse(frame, OURS) {
        let l3 = parsed.l3_bytes(frame);
        assert!(!l3.is_empty());
        assert!(parsed.l4_bytes(frame).len() <= l3.len());
    }
}

fuzz_target!(|data: &[u8]| {
    check(data);
    for ethertype in [[0x08, 0x00], [0x86, 0xdd]] {
        let header = [&OURS.0[..], &[2, 0, 0, 0, 0, 2], &ethertype];
        check(&[&header.concat(), data].concat());
    }
    gateway::play(data);
});
