//! Arbitrary text as a rule file: the parser must not panic, must point inside
//! the text, and what it accepts must print and parse back to the same print.
#![no_main]

use dataplane::packet::Family;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for family in [Family::V4, Family::V6] {
        portcullis::iptables::fuzz_round_trip(text, family);
    }
});
