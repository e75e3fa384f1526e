//! Arbitrary bytes as a frame: the parser must not panic, every offset it
//! reports must lie inside the frame, and every view must survive reading.
#![no_main]

use dataplane::packet::{Mac, PktType};
use dataplane::wire::{self, Frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Frame::Ip(parsed)) = wire::parse(data, Mac([2, 0, 0, 0, 0, 1])) {
        let l3 = parsed.l3_bytes(data);
        assert!(!l3.is_empty());
        assert!(parsed.l4_bytes(data).len() <= l3.len());
    }
    // The same bytes straight behind the link layer reach deeper, faster.
    for parse in [wire::parse_ipv4, wire::parse_ipv6] {
        if let Ok(parsed) = parse(data, 0, PktType::Host) {
            assert!(parsed.l4_bytes(data).len() <= parsed.l3_bytes(data).len());
        }
    }
});
