//! The JSON lines of all commands: read, checked for their shape, asked.

use std::path::PathBuf;

use serde_json::Value;

use crate::classify::goals::Line as Classified;

/// What each command's lines have at least: a line must have all names of one alternative.
const SHAPES: &[(&str, &[&[&str]])] = &[
    ("blocklist", &[&["side", "load_ms"], &["side", "frames"], &["side", "memory_bytes"]]),
    ("classify", &[&["contender", "rounds_ns"], &["goal", "measured", "met"]]),
    (
        "compare",
        &[
            &["what", "stand"],
            &["what", "subject", "why"],
            &["what", "subject", "result"],
            &["what", "subject", "against", "received_pps", "portcullis_rate_ratio"],
        ],
    ),
    ("conntrack", &[&["op", "entries", "ns_per_op", "burst_ns"]]),
    (
        "e2e",
        &[
            &["what", "stand"],
            &["what", "subject", "result"],
            &["what", "subject", "loss_free_pps"],
        ],
    ),
    ("gen", &[&["result", "flows"]]),
    ("log", &[&["side"], &["flood"], &["lines"], &["ns"]]),
    ("pipeline", &[&["scenario", "flows", "ns"], &["scenario", "flows", "instructions"]]),
    ("sets", &[&["side", "type", "elements"]]),
    ("swap", &[&["rules", "total_ms"], &["rules", "side", "load_ms"]]),
    ("swap-under-load", &[&["rules", "swaps", "lost"]]),
];

/// A line with where it stands.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) bench: String,
    value: Value,
}

impl Line {
    /// A text of the line, or nothing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.value[name].as_str().unwrap_or_default()
    }
    /// A number of the line; `a.b` is `b` in the object `a`.
    pub(super) fn number(&self, path: &str) -> Option<f64> {
        path.split('.').try_fold(&self.value, |value, name| value.get(name))?.as_f64()
    }
    /// Whether a field has this value; what the line does not have, it has not.
    pub(super) fn has(&self, name: &str, value: impl Into<Value>) -> bool {
        self.value.get(name) == Some(&value.into())
    }
    /// Whether a field is absent, null, or has this value.
    pub(super) fn if_any(&self, name: &str, value: impl Into<Value>) -> bool {
        self.value.get(name).is_none_or(|it| it.is_null() || *it == value.into())
    }
}

/// All lines, in the order of files and lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(Vec<Line>);

impl Lines {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read; a line that is not JSON or not of a known shape.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut lines = Vec::new();
        for path in files {
            let text =
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let command = stem.split('-').next().unwrap_or_default();
            for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
                let line = parse(line, command)
                    .map_err(|e| format!("{}:{}: {e}", path.display(), index + 1))?;
                lines.push(line);
            }
        }
        Ok(Self(lines))
    }

    /// The lines of one command.
    pub(super) fn of(&self, bench: &str) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(move |line| line.bench == bench)
    }

    /// The classifier's lines, typed; its goals are judged anew.
    pub(super) fn classified(&self) -> Vec<Classified> {
        self.of("classify")
            .filter_map(|line| serde_json::from_value(line.value.clone()).ok())
            .collect()
    }

    #[cfg(test)]
    pub(super) fn parse(text: &str, command: &str) -> Self {
        Self(text.lines().map(|line| parse(line, command).expect(line)).collect())
    }
}

fn parse(text: &str, command: &str) -> Result<Line, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let bench = value["bench"].as_str().unwrap_or(command).to_owned();
    let (_, shapes) = SHAPES
        .iter()
        .find(|(name, _)| *name == bench)
        .ok_or_else(|| format!("no command is called `{bench}'"))?;
    let fits = |names: &&[&str]| names.iter().all(|name| value.get(name).is_some());
    if !shapes.iter().any(fits) {
        return Err(format!("`{bench}' prints no such line"));
    }
    if bench == "classify" && value.get("contender").is_some() {
        serde_json::from_value::<Classified>(value.clone()).map_err(|e| e.to_string())?;
    }
    Ok(Line { bench, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_lines_are_errors_with_file_and_line() {
        let path = std::env::temp_dir().join(format!("swap-{}.jsonl", std::process::id()));
        let said = |text: &str| {
            std::fs::write(&path, text).expect("a temporary file");
            let outcome = Lines::read(std::slice::from_ref(&path));
            std::fs::remove_file(&path).expect("it was written");
            outcome.map(|lines| lines.0.len()).map_err(|e| e.to_string())
        };
        assert_eq!(said("{\"rules\":1,\"total_ms\":2}\n"), Ok(1), "the file names the command");
        let error = said("{\"rules\":1,\"total_ms\":2}\n{\"rules\":1}\n").expect_err("unknown");
        assert!(error.ends_with(".jsonl:2: `swap' prints no such line"), "{error}");
        let error = said("{\"bench\":\"telepathy\"}\n").expect_err("unknown");
        assert!(error.ends_with(":1: no command is called `telepathy'"), "{error}");
        assert!(said("{").expect_err("no JSON").contains(".jsonl:1: "));
    }

    #[test]
    fn fields_are_found_by_path() {
        let lines = Lines::parse(
            r#"{"bench":"pipeline","scenario":"plain","flows":7,"nat":null,"ns":{"median":3.5}}"#,
            "",
        );
        let line = lines.of("pipeline").next().expect("one");
        assert_eq!((line.text("scenario"), line.number("ns.median")), ("plain", Some(3.5)));
        assert!(line.has("flows", 7) && !line.has("size", 64));
        assert!(line.if_any("nat", "snat") && line.if_any("size", 64) && !line.if_any("flows", 8));
    }
}
