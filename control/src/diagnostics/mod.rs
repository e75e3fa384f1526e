//! Findings about an operator's file: what is wrong, exactly where, and what to do.
//!
//! Every reader of operator text (rules today, sets later) reports through
//! [`Finding`]. A reader collects all of them instead of stopping at the first.

mod code;
mod render;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Serialize;

use crate::model::Span;

pub use code::Code;
pub use render::{json_line, render, render_all};

/// How bad a finding is. Only errors refuse the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Loads, but probably does not say what was meant.
    Warning,
    /// The file does not load.
    Error,
}

/// One thing found in one place of one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Stable identifier, for filters and documentation.
    pub code: Code,
    /// The file as the caller named it.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// First column in characters, from 1.
    pub column: u32,
    /// Length in characters, at least 1.
    pub len: u32,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it, if we know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding at a place, without a remedy.
    pub fn new(
        severity: Severity,
        code: Code,
        file: &Arc<str>,
        span: Span,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            file: Arc::clone(file),
            line: span.line,
            column: span.column,
            len: span.len.max(1),
            message: message.into(),
            remedy: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

/// Whether any of them refuses the file.
pub fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}
