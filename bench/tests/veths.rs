//! Tiny runs of what drives AF_XDP over veths. They fail, never skip, without root.

use std::process::Command;

use serde_json::Value;

/// The lines that a command prints.
fn lines(words: &str) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis-bench"))
        .args(words.split_whitespace())
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
}

/// Namespaces that runs left behind which are over.
fn left() -> Vec<String> {
    let spaces = std::fs::read_dir("/run/netns").expect("namespaces have names");
    let names = spaces.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let over = |name: &String| {
        let run = name.strip_prefix("ptl-gen-").and_then(|rest| rest.split('-').next());
        run.is_some_and(|run| !std::path::Path::new("/proc").join(run).exists())
    };
    names.filter(over).collect()
}

#[test]
fn generator_compare_and_search_run() {
    let gen_lines = lines("gen --rate 20000 --secs 0.2 --rounds 1 --size imix --flows 24");
    let result = &gen_lines[0]["result"];
    assert!(result["sent"].as_u64() > Some(1000), "{result}");
    // One thread over one pair: nothing can get lost.
    assert_eq!([&result["lost"], &result["duplicates"], &result["reordered"]], [0, 0, 0]);

    let subjects = ["portcullis", "cross-connect", "floor", "legacy", "nft", "nft-sets"];
    let rows = lines(&format!(
        "compare --secs 0.1 --rounds 1 --rules 10 --flows 100 --subjects {}",
        subjects.join(",")
    ));
    let rows: Vec<_> = rows.iter().filter(|line| line["what"] == "row").collect();
    assert_eq!(rows.len(), 2 * subjects.len(), "with and without established traffic");
    assert!(rows.iter().all(|row| row["received_pps"].as_f64() > Some(0.0)), "{rows:?}");

    let swapped = lines(
        "e2e --rate 2000 --fractions 1 --secs 0.5 --flows 50 --swap-every-ms 100 --swap-rules 20",
    );
    let last = swapped.last().expect("lines");
    assert!(last["swapping"]["swaps"].as_u64() > Some(1), "{last}");
    assert!(last["result"]["received"].as_u64() > Some(0), "{last}");

    let wrong = Command::new(env!("CARGO_BIN_EXE_portcullis-bench"))
        .args(["e2e", "--subject", "daemon"])
        .output()
        .expect("the binary starts");
    assert!(!wrong.status.success());
    assert_eq!(left(), [""; 0], "also after a failure");
}
