//! Golden directories: topology, rules and captures in, every output compared
//! byte for byte.
//!
//! `tests/golden/NAME` holds `topo.toml`, `rules.v4` and `rules.v6`, the inputs
//! as `in/PORT.pcap`, and the expected outputs in `out`. The inputs are written
//! by `golden/inputs.rs`. After an intended change, run the test with
//! `PORTCULLIS_BLESS=1` and read the difference before committing it.

#[path = "golden/inputs.rs"]
mod inputs;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dataplane::clock::Nanos;
use portcullis::replay::capture::{self, Writer};
use portcullis::replay::files::{self, Job};

/// The first packet of each capture arrives here: 2023-11-14 22:13:20 UTC.
const START: Nanos = Nanos::from_secs(1_700_000_000);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn scratch(name: &str) -> PathBuf {
    let path =
        std::env::temp_dir().join(format!("portcullis-golden-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).expect("a scratch directory");
    path
}

/// One capture per source, from the described inputs.
fn captures(inputs: &[inputs::Input]) -> BTreeMap<&'static str, Vec<u8>> {
    let mut writers = BTreeMap::new();
    for (at_ms, source, frame) in inputs {
        let writer = writers
            .entry(*source)
            .or_insert_with(|| Writer::new(Vec::new()).expect("memory takes bytes"));
        writer.write(START + Nanos::from_millis(*at_ms), frame).expect("memory takes bytes");
    }
    let finished = writers.into_iter();
    finished.map(|(source, writer)| (source, writer.finish().expect("memory"))).collect()
}

fn job(directory: &Path, sources: &[&str], out: &Path, plans: bool) -> Job {
    let present = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
    let input =
        |source: &&str| ((*source).to_owned(), directory.join("in").join(format!("{source}.pcap")));
    Job {
        topology: directory.join("topo.toml"),
        rules: present("rules.v4"),
        rules6: present("rules.v6"),
        sets: Vec::new(),
        inputs: sources.iter().map(input).collect(),
        out: out.to_owned(),
        events: Some(out.join("events.jsonl")),
        seed: 0,
        plans,
    }
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries
        .map(|entry| {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(&path).expect("a readable file"))
        })
        .collect()
}

/// Text as it is; captures packet by packet.
fn readable(name: &str, bytes: &[u8]) -> String {
    if !name.ends_with(".pcap") {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let frames = capture::parse(Path::new(name), bytes).expect("a capture");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    frames.iter().map(|frame| format!("{} {}\n", frame.at.0, hex(&frame.bytes))).collect()
}

/// The first line in which two outputs differ.
fn difference(case: &str, name: &str, expected: &[u8], got: &[u8]) -> Option<String> {
    if expected == got {
        return None;
    }
    let (expected, got) = (readable(name, expected), readable(name, got));
    let (mut left, mut right) = (expected.lines(), got.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (left.next(), right.next()) {
            (None, None) => return Some(format!("{case}/{name}: the bytes differ")),
            (left, right) if left == right => {}
            (left, right) => {
                return Some(format!(
                    "{case}/{name}:{number}\n  expected {}\n  got      {}",
                    left.unwrap_or("the end"),
                    right.unwrap_or("the end")
                ));
            }
        }
    }
}

fn bless(directory: &Path, captures: &BTreeMap<&str, Vec<u8>>, out: &BTreeMap<String, Vec<u8>>) {
    let write = |sub: &str, name: String, bytes: &[u8]| {
        fs::create_dir_all(directory.join(sub)).expect("a directory");
        fs::write(directory.join(sub).join(name), bytes).expect("a writable file");
    };
    for (source, bytes) in captures {
        write("in", format!("{source}.pcap"), bytes);
    }
    for (name, bytes) in out.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        write("out", name.clone(), bytes);
    }
}

/// An output that is empty need not be kept.
fn without_empty(files: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    files.into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect()
}

#[test]
fn golden_directories() {
    let blessing = std::env::var_os("PORTCULLIS_BLESS").is_some();
    let mut differences = Vec::new();
    for (case, inputs) in inputs::cases() {
        let directory = root().join(case);
        let captures = captures(&inputs);
        let sources: Vec<&str> = captures.keys().copied().collect();
        if blessing {
            bless(&directory, &captures, &BTreeMap::new());
        }
        let kept = contents(&directory.join("in"));
        for (source, bytes) in &captures {
            let name = format!("{source}.pcap");
            assert_eq!(kept.get(&name), Some(bytes), "{case}/in/{name} is not what inputs.rs says");
        }
        let out = scratch(case);
        let run = |plans| {
            files::run(&job(&directory, &sources, &out, plans))
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            without_empty(contents(&out))
        };
        let first = run(true);
        assert!(first == run(true), "{case}: two runs differ");
        assert!(first == run(false), "{case}: plans change something");
        if blessing {
            bless(&directory, &BTreeMap::new(), &first);
        }
        let expected = contents(&directory.join("out"));
        let names = expected.keys().chain(first.keys());
        let empty = Vec::new();
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let pair = [&expected, &first].map(|files| files.get(name).unwrap_or(&empty));
            differences.extend(difference(case, name, pair[0], pair[1]));
        }
        fs::remove_dir_all(&out).expect("the scratch directory goes away");
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_directory_is_a_case() {
    let known: Vec<&str> = inputs::cases().into_iter().map(|(name, _)| name).collect();
    let entries = fs::read_dir(root()).expect("the golden directories");
    for entry in entries.map(|entry| entry.expect("a directory entry")) {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name == "inputs.rs" || known.contains(&name.as_str()), "{name}: no such case");
    }
}
