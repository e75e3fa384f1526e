//! What the running kernel did with the rulesets of a corpus, when they were loaded into
//! it (`scripts/corpus --live`): for each file and tool what was printed back, or why it
//! was refused.

use std::path::Path;

use super::corpus::{RoundTrip, Row, coverage_of};

/// What came of one file.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// What the tools printed back, of those that loaded it.
    pub saved: Vec<String>,
    /// Which did, and what the others said.
    pub said: Vec<(&'static str, Result<(), String>)>,
}

impl Live {
    /// Reads it; `None` if the file was not tried.
    pub(super) fn read(results: &Path, file: &str) -> Option<Self> {
        let mut live = Self::default();
        for tool in ["legacy", "nft"] {
            let text = |end: &str| std::fs::read_to_string(results.join(format!("{file}.{end}")));
            if let Ok(saved) = text(tool) {
                live.saved.push(saved);
                live.said.push((tool, Ok(())));
            } else if let Ok(error) = text(&format!("{tool}.error")) {
                live.said.push((tool, Err(error.trim().to_owned())));
            }
        }
        (!live.said.is_empty()).then_some(live)
    }

    /// Whether the kernel took it, by either tool.
    pub fn loads(&self) -> bool {
        !self.saved.is_empty()
    }

    /// Which tools loaded it, in a word.
    pub(super) fn word(&self) -> &'static str {
        let loaded: Vec<_> = self.said.iter().filter(|(_, outcome)| outcome.is_ok()).collect();
        match loaded[..] {
            [] => "neither",
            [(tool, _)] => tool,
            _ => "both",
        }
    }

    /// What was said against it.
    fn complaint(&self) -> &str {
        let mut errors = self.said.iter().filter_map(|(_, outcome)| outcome.as_ref().err());
        errors.next().map_or("", String::as_str)
    }
}

/// The sum and the lists below the table.
pub(super) fn render(rows: &[Row]) -> Vec<String> {
    let tried: Vec<(&Row, &Live)> =
        rows.iter().filter_map(|row| Some((row, row.live.as_ref()?))).collect();
    if tried.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![coverage_of(rows, "this kernel loads", &|row| {
        row.live.as_ref().is_some_and(Live::loads)
    })];
    let loaded = || tried.iter().filter(|(_, live)| live.loads());
    for (row, _) in loaded() {
        if let Some(finding) = &row.refused {
            let place = format!("{}:{}", finding.line, finding.column);
            lines.push(format!(
                "refused here, loaded there: {} ({} rules) {place} {}",
                row.file, row.rules, finding.message
            ));
        }
    }
    for (row, live) in &tried {
        if row.refused.is_none() && !live.loads() {
            lines.push(format!("loaded here, refused there: {}: {}", row.file, live.complaint()));
        }
        if let RoundTrip::Differs(ours, theirs) = &row.live_round_trip {
            lines.push(format!("printed otherwise there: {}", row.file));
            lines.push(format!("  ours   {ours}\n  kernel {theirs}"));
        }
    }
    let same = rows.iter().filter(|row| row.live_round_trip == RoundTrip::Same).count();
    let both = loaded().filter(|(row, _)| row.refused.is_none()).count();
    lines.push(format!("{same} of the {both} files that load here and there print alike"));
    lines
}
