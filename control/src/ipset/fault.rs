//! Something wrong in a line, before it is bound to its file.

use std::sync::Arc;

use super::lexer;
use crate::diagnostics::{Code, Finding, Severity};

/// What is wrong, and in which bytes of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: Code, start: usize, end: usize, message: impl Into<String>) -> Self {
        Self { code, start, end, message: message.into(), remedy: None }
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// In its place in its file.
    pub(crate) fn finding(
        self,
        severity: Severity,
        file: &Arc<str>,
        line: &str,
        number: u32,
    ) -> Finding {
        let span = lexer::span(line, number, self.start, self.end);
        let mut finding = Finding::new(severity, self.code, file, span, self.message);
        finding.remedy = self.remedy;
        finding
    }
}
