//! Where results go: text or JSON on standard output, complaints on standard error.

use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

use crate::diagnostics::{Finding, json_line, render};

/// The result printer handed to every subcommand.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Text, or JSON when `json`.
    pub fn new(json: bool) -> Self {
        Self { json }
    }
    /// Whether `--json` was given.
    pub fn json(&self) -> bool {
        self.json
    }
    /// Prints one line (or block) of text. A reader that went away is not an error.
    pub fn line(&self, text: impl Display) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }
    /// Prints text that carries its own line ends.
    pub fn raw(&self, text: &str) {
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
    /// Prints one JSON object on a line of its own.
    pub fn object(&self, value: &impl Serialize) {
        let mut out = std::io::stdout().lock();
        if serde_json::to_writer(&mut out, value).is_ok() {
            let _ = out.write_all(b"\n");
        }
    }
    /// Prints a remark on a policy text: on standard error with its line and a
    /// caret, or with `--json` as an object on standard output.
    pub fn finding(&self, finding: &Finding, source: Option<&str>) {
        if self.json {
            self.line(json_line(finding));
        } else {
            self.complaint(render(finding, source));
        }
    }
    /// Prints a line of text on standard error.
    pub fn complaint(&self, text: impl Display) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
    /// Prints a complaint: `portcullis: ...` on standard error, or with
    /// `--json` an object with `severity` and `message` on standard output.
    pub fn error(&self, message: impl Display) {
        if self.json {
            self.object(&serde_json::json!({"severity": "error", "message": message.to_string()}));
        } else {
            let _ = writeln!(std::io::stderr().lock(), "portcullis: {message}");
        }
    }
    /// Prints a warning, in the same way as [`Output::error`].
    pub fn warning(&self, message: impl Display) {
        if self.json {
            self.object(
                &serde_json::json!({"severity": "warning", "message": message.to_string()}),
            );
        } else {
            let _ = writeln!(std::io::stderr().lock(), "portcullis: warning: {message}");
        }
    }
}
