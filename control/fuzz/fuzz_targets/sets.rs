//! Arbitrary text as a file of sets: the reader must not panic, every finding must point into
//! the text, and what loads must print to its own fixed point.
#![no_main]

use dataplane::clock::Nanos;
use libfuzzer_sys::fuzz_target;
use portcullis::diagnostics::has_errors;
use portcullis::ipset::{self, Stage, print};
use portcullis::iptables::TableNames;

const NOW: Nanos = Nanos::from_secs(1_000);

fn printed(stage: &Stage<'_>, names: &TableNames) -> Vec<String> {
    let (mut creates, mut elements) = (String::new(), Vec::new());
    for slot in stage.registry().list() {
        let written = print::save(&slot.name(), &slot.set(), names, NOW, |piece| {
            match piece.strip_prefix("create ") {
                Some(_) => creates.push_str(piece),
                None => elements.extend(piece.lines().map(str::to_owned)),
            }
            Ok::<(), ()>(())
        });
        assert!(written.is_ok());
    }
    let mut lines: Vec<String> = creates.lines().map(str::to_owned).collect();
    lines.append(&mut elements);
    lines
}

fuzz_target!(|data: &[u8]| {
    let names = TableNames::well_known();
    let lines = data.iter().filter(|&&byte| byte == b'\n').count() as u32 + 1;
    let mut stage = Stage::empty(1, NOW);
    let findings = ipset::read(&mut stage, data, "fuzz.sets", &names);
    assert!(findings.iter().all(|finding| finding.line <= lines && finding.column >= 1));
    if has_errors(&findings) {
        return;
    }
    let once = printed(&stage, &names);
    let mut again = Stage::empty(2, NOW);
    let text = once.join("\n");
    let findings = ipset::read(&mut again, text.as_bytes(), "printed.sets", &names);
    assert!(!has_errors(&findings), "printed text does not load: {findings:?}\n{text}");
    let (mut first, mut second) = (once, printed(&again, &names));
    first.sort();
    second.sort();
    assert_eq!(first, second);
});
