//! `portcullis-bench pipeline` at tiny sizes: every scenario runs, checks its frames
//! and prints its line. Nothing is said of speed.

use std::process::Command;

/// The lines that it prints, each a JSON object.
fn pipeline(args: &[&str]) -> Vec<serde_json::Value> {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_portcullis-bench"));
    bench.arg("pipeline").args(args);
    bench.args(["--flows", "70", "--rounds", "2", "--packets", "300", "--generate", "60"]);
    let run = bench.output().expect("the bench starts");
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{args:?}: {errors}");
    let text = String::from_utf8(run.stdout).expect("lines are UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn every_scenario_runs() {
    for args in [&["--family", "v4"][..], &["--family", "v6", "--proto", "tcp"]] {
        let lines = pipeline(args);
        let names: Vec<_> = lines.iter().map(|line| line["scenario"].as_str().unwrap()).collect();
        assert_eq!(names, ["plain", "established", "nat", "first", "stateless"]);
        for line in &lines {
            assert_eq!(line["rounds"], 2, "{line}");
            assert!(line["ns"]["median"].is_number() && line["copy_ns"]["min"].is_number());
        }
        assert_eq!(lines[1]["connections"], 70);
    }
}

#[test]
fn translations_workers_and_new_flows() {
    let dnat = pipeline(&["nat,first", "--nat", "dnat", "--shape", "tree"]);
    assert_eq!((dnat.len(), &dnat[0]["nat"]), (2, &"dnat".into()));
    let two = pipeline(&["established", "--workers", "2", "--asymmetric", "--sizes", "64,1518"]);
    assert_eq!(two.len(), 2);
    assert_eq!(two[0]["packets"], 600, "of both workers");
    let fresh = pipeline(&["established", "--new-rate", "0.1", "--proto", "tcp"]);
    assert_eq!(fresh[0]["connections"], 70, "new ones are gone before the next round");
}

#[test]
fn a_packet_that_goes_astray_is_an_error() {
    let rules = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
    std::fs::write(&rules, "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n").expect("a temporary file");
    let run = Command::new(env!("CARGO_BIN_EXE_portcullis-bench"))
        .args(["pipeline", "established", "--flows", "3", "--rules"])
        .arg(&rules)
        .output()
        .expect("the bench starts");
    std::fs::remove_file(&rules).expect("the temporary file is ours");
    assert!(!run.status.success());
    assert!(String::from_utf8_lossy(&run.stderr).contains("Drop(ChainPolicy)"));
}
