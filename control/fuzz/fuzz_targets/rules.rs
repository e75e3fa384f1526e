//! Arbitrary text as a rule file: the parser must not panic, every finding must
//! point into the text, and what loads must print to its own fixed point.
#![no_main]

use dataplane::packet::Family;
use libfuzzer_sys::fuzz_target;
use portcullis::iptables::{TableNames, parse, parse_bytes, print};

fuzz_target!(|data: &[u8]| {
    let names = TableNames::well_known();
    let lines = data.iter().filter(|&&byte| byte == b'\n').count() as u32 + 1;
    for family in [Family::V4, Family::V6] {
        match parse_bytes(data, "fuzz.rules", family, &names) {
            Ok(parsed) => {
                let text = print(&parsed.ruleset, &names, None);
                let again = match parse(&text, "printed.rules", family, &names) {
                    Ok(again) => again,
                    Err(findings) => panic!("printed text does not load: {findings:?}\n{text}"),
                };
                assert_eq!(text, print(&again.ruleset, &names, None));
            }
            Err(findings) => {
                assert!(!findings.is_empty());
                assert!(findings.iter().all(|finding| finding.line <= lines.max(1)));
            }
        }
    }
});
