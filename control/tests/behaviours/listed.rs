//! The table in `docs/compatibility.md` says what is tested here, no more and no less.

use std::collections::BTreeSet;
use std::path::Path;

/// Lines of the list that are performed here; the others are the business of
/// `iptables_accepts.rs`, `differential.rs` and their like.
fn wanted() -> BTreeSet<u32> {
    (1..=50).chain([53, 59, 60, 61, 62, 64]).collect()
}

/// Name and body of every test called after a line.
fn tests() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviours");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of this file") {
        let path = entry.expect("a directory entry").path();
        let text = std::fs::read_to_string(path).expect("source files are UTF-8");
        for test in text.split("#[test]\nfn ").skip(1) {
            let (name, body) = test.split_once('(').expect("a function has parameters");
            if number(name).is_some() {
                found.push((name.to_owned(), body.to_owned()));
            }
        }
    }
    found
}

/// The line that a test is called after.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix('b')?.split('_').next()?.parse().ok()
}

/// One row: line, behaviour, the kernel, Portcullis, test.
fn rows() -> Vec<[String; 5]> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let text = std::fs::read_to_string(file).expect("docs/compatibility.md");
    let (_, section) = text.split_once("\n## Numbered behaviours\n").expect("the section");
    let section = section.split("\n#").next().unwrap_or_default();
    let cells = |line: &str| {
        let cells: Vec<String> =
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("not five cells: {cells:?}"))
    };
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines.map(cells).collect()
}

#[test]
fn every_line_has_its_row_and_every_row_its_test() {
    let (rows, tests) = (rows(), tests());
    let listed: BTreeSet<u32> =
        rows.iter().map(|row| row[0].parse().expect("a row starts with its line")).collect();
    assert_eq!(listed, wanted());
    let mut named = BTreeSet::new();
    for row in &rows {
        let name = row[4].trim_matches('`');
        assert_eq!(number(name), row[0].parse().ok(), "{name} is not called after its line");
        let test = tests.iter().find(|(test, _)| test == name);
        let (_, body) = test.unwrap_or_else(|| panic!("there is no test {name}"));
        let compared = ["both(", "both_v6(", "both_with(", "before_a_store("];
        assert!(compared.iter().any(|call| body.contains(call)), "{name} compares nothing");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{name}: an empty cell");
        named.insert(name.to_owned());
    }
    let unnamed: Vec<_> = tests.iter().filter(|(name, _)| !named.contains(name)).collect();
    assert!(unnamed.is_empty(), "tests without a row: {unnamed:?}");
}
