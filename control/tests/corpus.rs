//! Every ruleset of the shared corpus, if it is there: no panic, nothing that
//! the kernel's tools refuse loads, what loads prints back as the kernel prints it.

use std::path::Path;

use portcullis::check::corpus::{self, RoundTrip};
use portcullis::iptables::TableNames;

#[test]
fn corpus_loads_as_the_kernels_tools_load_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    if !directory.join("MANIFEST.tsv").exists() {
        // Not part of this repository.
        return;
    }
    let rows = corpus::check(&directory, None, &TableNames::of_host()).unwrap();
    let table = corpus::render(&rows);
    println!("{table}");
    let failures: Vec<_> = rows.iter().filter(|row| row.failure().is_some()).collect();
    assert!(failures.is_empty(), "{} files fail\n{table}", failures.len());
    assert!(rows.len() > 500, "only {} rulesets found", rows.len());
    let same = rows.iter().filter(|row| row.round_trip == RoundTrip::Same).count();
    assert!(same > 150, "only {same} rulesets round-trip");
}
