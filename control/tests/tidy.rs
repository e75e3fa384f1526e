//! House rules that no compiler lint checks: file sizes, module docs, where
//! `unsafe` may live, and which way dependencies point.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest production file, in lines.
const MAX_FILE_LINES: usize = 500;

/// Production files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// The only files that may hold `unsafe`: rings, shared memory, large pages, raw sockets.
const UNSAFE_FILES: &[&str] = &[
    "classifier/src/cover/avx512.rs",
    "control/src/daemon/logwriter/ring.rs",
    "control/src/doctor/sys.rs",
    "control/src/state/mapped.rs",
    "dataplane/src/conntrack/hash.rs",
    "dataplane/src/conntrack/memory.rs",
    "dataplane/src/port/afxdp/beat.rs",
    "dataplane/src/port/afxdp/links.rs",
    "dataplane/src/port/afxdp/ring.rs",
    "dataplane/src/port/afxdp/socket.rs",
    "dataplane/src/port/afxdp/sys.rs",
    "dataplane/src/port/host/looped.rs",
    "dataplane/src/port/host/sys.rs",
    "dataplane/src/port/host/uring.rs",
    "dataplane/src/port/poll.rs",
    "dataplane/src/port/pool.rs",
    "dataplane/src/prefetch.rs",
    "dataplane/src/sets/memory.rs",
    "dataplane/src/zone.rs",
];

/// Each crate and the workspace crates it may depend on.
const TIERS: &[(&str, &[&str])] = &[
    ("classifier", &[]),
    ("dataplane", &["classifier"]),
    ("portcullis", &["classifier", "dataplane"]),
    ("portcullis-bench", &["classifier", "dataplane", "portcullis"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").into()
}

/// Tracked and new (not ignored) files, relative to the root.
fn files() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(output.status.success(), "git ls-files failed");
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    text.lines().filter(|name| root().join(name).is_file()).map(str::to_owned).collect()
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|name| name.ends_with(".rs")).map(|name| {
        let text = fs::read_to_string(root().join(&name)).expect("source files are UTF-8");
        (name, text)
    })
}

/// Tests and benches may be as long as their tables need.
fn is_production(name: &str) -> bool {
    let stem = name.rsplit('/').next().unwrap_or(name);
    let in_test_dir = name.split('/').any(|part| matches!(part, "tests" | "benches" | "fuzz"));
    !in_test_dir && stem != "tests.rs" && !stem.ends_with("_tests.rs")
}

/// Lines before an inline `mod tests` at the end of the file.
fn production_lines(text: &str) -> usize {
    let mut previous = "";
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("mod tests {") && previous.contains("cfg(") {
            return index;
        }
        previous = line;
    }
    text.lines().count()
}

#[test]
fn production_files_stay_short() {
    let long: Vec<_> = rust_files()
        .filter(|(name, _)| is_production(name))
        .filter(|(name, _)| !LONG_FILES.iter().any(|(allowed, _)| allowed == name))
        .map(|(name, text)| (name, production_lines(&text)))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .collect();
    assert!(long.is_empty(), "files over {MAX_FILE_LINES} lines: {long:#?}");
}

#[test]
fn the_list_of_long_files_is_true() {
    for (name, reason) in LONG_FILES {
        let text = fs::read_to_string(root().join(name)).unwrap_or_default();
        assert!(
            production_lines(&text) > MAX_FILE_LINES,
            "{name} is short enough to leave the list ({reason})"
        );
    }
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<_> =
        rust_files().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "files that do not open with `//!`: {silent:#?}");
}

/// The lint level that opens a file to unsafe code; spelt in two halves so
/// that this file does not name itself.
fn opens_unsafe(text: &str) -> bool {
    text.contains(concat!("allow(", "unsafe_code"))
}

#[test]
fn unsafe_code_lives_only_where_it_is_listed() {
    let open: Vec<_> = rust_files()
        .filter(|(name, _)| is_production(name))
        .filter(|(_, text)| opens_unsafe(text))
        .map(|(name, _)| name)
        .collect();
    for name in &open {
        assert!(UNSAFE_FILES.contains(&name.as_str()), "{name} is not on the list of unsafe files");
    }
    for name in UNSAFE_FILES {
        assert!(open.iter().any(|file| file == name), "{name} needs no unsafe any more");
    }
}

#[test]
fn dependencies_point_one_way() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo describes the workspace");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages is a list");
    assert_eq!(packages.len(), TIERS.len(), "a crate is missing from the tier table");
    for package in packages {
        let name = package["name"].as_str().expect("packages have names");
        let (_, allowed) =
            TIERS.iter().find(|(tier, _)| *tier == name).expect("a crate outside the tiers");
        for dependency in package["dependencies"].as_array().expect("dependencies is a list") {
            let dependency = dependency["name"].as_str().expect("dependencies have names");
            let internal = TIERS.iter().any(|(tier, _)| *tier == dependency);
            assert!(
                !internal || allowed.contains(&dependency),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn every_lint_exception_gives_its_reason() {
    let bare: Vec<_> = rust_files()
        .flat_map(|(name, text)| {
            text.lines()
                .enumerate()
                .filter(|(_, line)| {
                    line.contains(concat!("[", "allow(")) && !line.contains("reason")
                })
                .map(|(number, _)| format!("{name}:{}", number + 1))
                .collect::<Vec<_>>()
        })
        .filter(|place| !spans_lines(place))
        .collect();
    assert!(bare.is_empty(), "lint exceptions without a reason: {bare:#?}");
}

/// Whether the attribute at `file:line` continues on the following lines and
/// gives its reason there.
fn spans_lines(place: &str) -> bool {
    let (name, line) = place.rsplit_once(':').expect("a place is file:line");
    let line: usize = line.parse().expect("a place ends in a number");
    let text = fs::read_to_string(root().join(name)).unwrap_or_default();
    text.lines().skip(line).take(4).any(|line| line.contains("reason"))
}

#[test]
fn nothing_names_this_machine() {
    let hosts = [concat!("crates", ".io"), concat!("debian", ".org/debian"), concat!("/wo", "rk/")];
    let mut found = Vec::new();
    for name in files() {
        let lock = Path::new(&name).file_name().is_some_and(|file| file == "Cargo.lock");
        let Ok(text) = fs::read_to_string(root().join(&name)) else { continue };
        for host in hosts {
            // A Cargo.lock names the index by its registry URL: Cargo's own format.
            if !lock && text.contains(host) {
                found.push(format!("{name}: {host}"));
            }
        }
    }
    assert!(found.is_empty(), "registry hosts or machine paths: {found:#?}");
}
