//! iptables-save files: text to model and back.
//!
//! [`parse`] reads what `iptables-restore` reads and refuses what it refuses,
//! with all errors at once; [`print()`] writes what `iptables-save` writes.

mod address;
mod command;
mod extension;
mod getopt;
mod known;
mod lexer;
mod matches;
pub mod names;
pub mod print;
mod restore;
mod table;
mod targets;
#[cfg(test)]
mod tests;
mod value;
mod verify;

use std::sync::Arc;

use dataplane::packet::Family;

use crate::diagnostics::{Code, Finding, Severity, has_errors};
use crate::model::{Ruleset, Span};

pub use names::{Names, TableNames};
pub use print::{CounterSource, print};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 64 << 20;

/// A file that loads.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub ruleset: Ruleset,
    /// Warnings and notes, in file order.
    pub findings: Vec<Finding>,
}

/// Parses a whole file. `file` is the name used in findings.
///
/// # Errors
/// All findings, warnings included, if any of them is an error.
pub fn parse(
    source: &str,
    file: &str,
    family: Family,
    names: &dyn Names,
) -> Result<Parsed, Vec<Finding>> {
    if source.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(vec![whole_file(file, Code::TooLong, message)]);
    }
    let (ruleset, findings) = restore::FileReader::new(file, family, names).read(source);
    if has_errors(&findings) { Err(findings) } else { Ok(Parsed { ruleset, findings }) }
}

/// Like [`parse`], for bytes that may not be text.
///
/// # Errors
/// As [`parse`]; bytes that are not UTF-8 are refused with their place.
pub fn parse_bytes(
    source: &[u8],
    file: &str,
    family: Family,
    names: &dyn Names,
) -> Result<Parsed, Vec<Finding>> {
    match std::str::from_utf8(source) {
        Ok(text) => parse(text, file, family, names),
        Err(error) => {
            let valid = String::from_utf8_lossy(&source[..error.valid_up_to()]);
            let last = valid.rsplit('\n').next().unwrap_or_default();
            let span = lexer::span(
                u32::try_from(valid.matches('\n').count() + 1).unwrap_or(u32::MAX),
                last.chars().count(),
                1,
            );
            let message = "bytes that are not UTF-8";
            let finding =
                Finding::new(Severity::Error, Code::BadEncoding, &Arc::from(file), span, message);
            Err(vec![finding.with_remedy("convert the file, or the comment that holds them")])
        }
    }
}

/// A finding about a file as a whole.
pub(crate) fn whole_file(file: &str, code: Code, message: impl Into<String>) -> Finding {
    let span = Span { line: 1, column: 1, len: 1 };
    Finding::new(Severity::Error, code, &Arc::from(file), span, message)
}
