//! iptables-save files: text to model and back.
//!
//! [`parse`] reads what `iptables-restore` reads and refuses what it refuses,
//! with all errors at once; [`print()`] writes what `iptables-save` writes.
//!
//! The road of a line: `restore` (tables, chains, COMMIT) -> `lexer` (words) ->
//! `getopt` (options) -> `command` with `matches` and `targets` (one rule) ->
//! `table` (where it goes); `verify` looks at whole tables at the end.
//!
//! Version 1.8.9 was observed, legacy and nft; `observed.tsv` holds what both
//! do. Where they differ, the one that accepts is followed if its meaning is
//! clear. On purpose we differ from both in this:
//! - CRLF line ends, blanks-only lines and a missing final newline are accepted.
//! - Host names are refused: an offline gateway must not depend on a resolver.
//! - Refused although nft takes them, because it ignores what was written: a
//!   policy on a user chain, a user chain declared twice, `--limit-burst 0`.
//! - Refused although both take them, because they do not do what they say: a
//!   port above 65535 in udp and conntrack (the tools keep 16 bits of it), an
//!   operand glued to `-i` or `-o` (`-ieth0` is read as an interface of that
//!   whole name), a quote that the line does not close, `-V`, `-h`; and blanks or
//!   quotes in names of chains and interfaces, which iptables-save prints unquoted;
//!   and what docs/compatibility.md lists under the targets of the nat and raw tables.
//! - A loop of jumps is refused even where no packet can get to it.
//! - An inverted full port range never matches and is printed, not dropped.
//! - A table that comes twice keeps the policies of the first, as legacy does.

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

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use dataplane::packet::Family;

use crate::diagnostics::{Code, Finding, Severity, has_errors};
use crate::model::{Ruleset, Span};

pub(crate) use matches::{DCCP_TYPES, HEADER_NAMES};
pub use names::{Names, TableNames};
pub use print::{CounterSource, print, rule_text};

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

/// Reads a policy file: at most one byte more than [`parse_bytes`] takes, so that
/// it can refuse.
///
/// # Errors
/// The file cannot be opened or read.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A finding about a file as a whole.
pub(crate) fn whole_file(file: &str, code: Code, message: impl Into<String>) -> Finding {
    let span = Span { line: 1, column: 1, len: 1 };
    Finding::new(Severity::Error, code, &Arc::from(file), span, message)
}
