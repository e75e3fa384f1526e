//! Instructions for each packet, by running this program again under callgrind: once
//! counting a pass with the engine, once the same pass without.

use std::process::Command;

use serde_json::Value;

use super::report::head;
use super::{Args, Error, Point};

/// Options that the counted run is given other values of.
const FIXED: [&str; 4] = ["--flows", "--sizes", "--classbench", "--packets"];

/// Counts for one point.
pub(super) fn measure(args: &Args, point: &Point) -> Result<Value, Error> {
    let (work, packets) = count(args, point, "work")?;
    let (copy, _) = count(args, point, "copy")?;
    let each = |count: u64| (count as f64 / packets as f64 * 10.0).round() / 10.0;
    let mut line = head(args, point);
    line["packets"] = packets.into();
    line["instructions"] = each(work.saturating_sub(copy)).into();
    line["copy_instructions"] = each(copy).into();
    Ok(line)
}

/// Instructions of all counted packets, and how many these were.
fn count(args: &Args, point: &Point, what: &str) -> Result<(u64, u64), Error> {
    let out = std::env::temp_dir().join(format!("portcullis-bench-{}", std::process::id()));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--toggle-collect=*measured_{what}*"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(arguments(args, point))
        .args(["--counted", what])
        .output()?;
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into_owned().into());
    }
    let counted = std::fs::read_to_string(&out)?;
    std::fs::remove_file(&out)?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")?.parse().ok());
    let total = total.ok_or("callgrind wrote no total")?;
    let printed: Value = serde_json::from_slice(&run.stdout)?;
    let packets = printed["packets"].as_u64().filter(|&packets| packets > 0);
    Ok((total, packets.ok_or("no packets were counted")?))
}

/// This run's own arguments, for one point.
fn arguments(args: &Args, point: &Point) -> Vec<String> {
    let mut kept = vec!["pipeline".to_owned(), format!("{:?}", point.scenario).to_lowercase()];
    let given: Vec<String> = std::env::args().skip(2).collect();
    let mut rest = given.iter().peekable();
    while let Some(word) = rest.next() {
        let name = word.split('=').next().unwrap_or_default();
        if FIXED.contains(&name) {
            if !word.contains('=') {
                rest.next();
            }
        } else if word.starts_with("--") && word != "--instructions" {
            kept.push(word.clone());
            let bare = ["--asymmetric", "--no-plans"].contains(&word.as_str());
            let valued = !bare && !word.contains('=');
            kept.extend(rest.next_if(|_| valued).cloned());
        }
    }
    kept.extend(["--flows".to_owned(), point.flows.to_string()]);
    kept.extend(["--sizes".to_owned(), point.size.to_string()]);
    // Callgrind is some fifty times slower.
    kept.extend(["--packets".to_owned(), args.packets.min(20_000).to_string()]);
    if let Some(path) = &point.classbench {
        kept.extend(["--classbench".to_owned(), path.display().to_string()]);
    }
    kept
}
