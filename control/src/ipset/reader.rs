//! Files line by line onto a stage, with everything that is wrong with them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::sets::{SetError, SetName};

use super::command::{self, Author, Context, Options, Verb};
use super::extras::Act;
use super::fault::Fault;
use super::lexer::{self, Word};
use super::stage::{Done, Stage};
use crate::diagnostics::{Code, Finding, Severity};
use crate::iptables::Names;
use crate::model::Span;
use crate::objects;

/// Largest file.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most findings reported for one file.
const MAX_FINDINGS: usize = 1_000;

/// Reads a file's bytes: at most one more than [`read`] takes, so that it can refuse.
///
/// # Errors
/// The file cannot be opened or read.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files that a path stands for: itself, or those of a directory, by name; hidden ones
/// and those that editors and packagers leave behind are passed over.
///
/// # Errors
/// The path cannot be read.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let left = [".dpkg-old", ".dpkg-new", ".dpkg-dist", ".bak", ".orig", ".swp"];
        let passed = name.starts_with('.')
            || name.ends_with('~')
            || left.iter().any(|end| name.ends_with(end));
        if path.is_file() && !passed {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Tries a file out on the stage. What it says is only as good as its findings: with an
/// error among them, the stage is of no more use.
pub fn read(stage: &mut Stage<'_>, source: &[u8], file: &str, names: &dyn Names) -> Vec<Finding> {
    let file: Arc<str> = Arc::from(file);
    let whole = Span { line: 1, column: 1, len: 1 };
    if source.len() as u64 > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return vec![Finding::new(Severity::Error, Code::TooLong, &file, whole, message)];
    }
    match std::str::from_utf8(source) {
        Ok(text) => {
            let author = Author::Operator;
            let lines = Lines { stage, file, names, author, findings: Vec::new() };
            match objects::name_of(&lines.file) {
                Some(_) => lines.object(text),
                None => lines.read(text),
            }
        }
        Err(error) => {
            let valid = String::from_utf8_lossy(&source[..error.valid_up_to()]);
            let last = valid.rsplit('\n').next().unwrap_or_default();
            let line = u32::try_from(valid.matches('\n').count() + 1).unwrap_or(u32::MAX);
            let span = Span { line, column: last.chars().count() as u32 + 1, len: 1 };
            let message = "bytes that are not UTF-8";
            let finding = Finding::new(Severity::Error, Code::BadEncoding, &file, span, message);
            vec![finding.with_remedy("convert the file, or the comment that holds them")]
        }
    }
}

/// What a saved text holds that could not be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// How many lines.
    pub(crate) lines: usize,
    /// What is wrong with the first.
    pub(crate) first: Option<Finding>,
}

/// Reads what the daemon itself has saved: a line that cannot be taken is left out, for what
/// packets can do must not cost all the rest.
pub(crate) fn read_saved(stage: &mut Stage<'_>, text: &str, names: &dyn Names) -> LeftOut {
    let (mut left, mut words) = (LeftOut::default(), Vec::new());
    let file: Arc<str> = Arc::from("");
    let mut lines = Lines {
        stage,
        file: Arc::clone(&file),
        names,
        author: Author::Daemon,
        findings: Vec::new(),
    };
    for (index, line) in text.split('\n').enumerate() {
        if let Err(fault) = lines.line(line, &mut words, &mut Vec::new()) {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            left.lines += 1;
            left.first.get_or_insert_with(|| fault.finding(Severity::Warning, &file, line, number));
        }
    }
    left
}

struct Lines<'l, 'b, 'n> {
    stage: &'l mut Stage<'b>,
    file: Arc<str>,
    names: &'n dyn Names,
    author: Author,
    findings: Vec<Finding>,
}

impl Lines<'_, '_, '_> {
    fn read(mut self, text: &str) -> Vec<Finding> {
        let mut words = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let line = line.strip_suffix('\r').unwrap_or(line);
            let mut warnings = Vec::new();
            let outcome = self.line(line, &mut words, &mut warnings);
            for warning in warnings {
                self.report(Severity::Warning, warning, line, number);
            }
            match outcome {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => self.report(Severity::Error, fault, line, number),
            }
            if self.findings.len() > MAX_FINDINGS {
                break;
            }
        }
        self.findings
    }

    /// An object's file: what it stands for, told at the places of what it says.
    fn object(mut self, text: &str) -> Vec<Finding> {
        let object = match objects::read(text, &self.file) {
            Ok(object) => object,
            Err(findings) => return findings,
        };
        for (number, line, shift) in object.commands() {
            let (mut warnings, before) = (Vec::new(), self.findings.len());
            let outcome = self.line(&line, &mut Vec::new(), &mut warnings).map(|_| ());
            for warning in warnings {
                self.report(Severity::Warning, warning, &line, number);
            }
            if let Err(fault) = outcome {
                self.report(Severity::Error, fault, &line, number);
            }
            for finding in &mut self.findings[before..] {
                finding.column = finding.column.saturating_sub(shift).max(1);
            }
            if self.findings.len() > MAX_FINDINGS {
                break;
            }
        }
        self.findings
    }

    fn report(&mut self, severity: Severity, fault: Fault, line: &str, number: u32) {
        let finding = fault.finding(severity, &self.file, line, number);
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else if self.findings.len() == MAX_FINDINGS {
            let message = format!("more than {MAX_FINDINGS} findings; reading stops here");
            let span = Span { line: number, column: 1, len: 1 };
            let code = Code::TooMany;
            self.findings.push(Finding::new(Severity::Error, code, &self.file, span, message));
        }
    }

    /// One line; `false` if nothing after it is read.
    fn line<'t>(
        &mut self,
        line: &'t str,
        words: &mut Vec<Word<'t>>,
        warnings: &mut Vec<Fault>,
    ) -> Result<bool, Fault> {
        if line.len() > lexer::MAX_LINE_BYTES {
            let message = format!("this line is longer than {} bytes", lexer::MAX_LINE_BYTES);
            return Err(Fault::new(Code::TooLong, 0, line.len(), message));
        }
        let text = line.trim_start_matches([' ', '\t']);
        if text.is_empty() || text.starts_with('#') || text.trim_end() == "COMMIT" {
            return Ok(true);
        }
        if let Some(at) = line.find('\0') {
            return Err(Fault::new(Code::BadEncoding, at, at + 1, "a NUL byte"));
        }
        lexer::split(line, words)?;
        let options = Options::take(words)?;
        if words.is_empty() {
            let fault = Fault::new(Code::BadCommand, 0, line.len(), "options without a command");
            return Err(fault);
        }
        let verb = {
            let stage = std::cell::RefCell::new(&mut *self.stage);
            let lookup = |name: &SetName| stage.borrow_mut().spec(name);
            let context = Context { names: self.names, lookup: &lookup, author: self.author };
            command::read(words, context, warnings)?
        };
        match verb {
            Verb::Quit => return Ok(false),
            Verb::List(_) | Verb::Save(_) => {
                let fault = words[0].fault(Code::NoEffect, "nothing is printed from here");
                warnings.push(fault.remedy("leave the line out"));
                return Ok(true);
            }
            Verb::Restore => {
                return Err(words[0].fault(Code::BadCommand, "a file cannot restore another"));
            }
            _ => {}
        }
        match self.stage.run(&verb, options.exist || self.author == Author::Daemon, line) {
            Ok(Done::Tested(false)) => {
                let fault = words[2].fault(Code::MissingElement, "the element is not in the set");
                Err(fault.remedy("leave the test out, or add the element first"))
            }
            Ok(_) => Ok(true),
            Err(error) => Err(refused(&verb, &error, words)),
        }
    }
}

/// What the sets say against a command, in its place.
pub(crate) fn refused(verb: &Verb, error: &SetError, words: &[Word<'_>]) -> Fault {
    let word = |index: usize| words.get(index).unwrap_or(&words[0]);
    let (code, at, remedy) = match error {
        SetError::Name(_) => (Code::BadValue, 1, None),
        SetError::NoSuchSet(name) => {
            let at = words.iter().position(|word| *word.text == *name.as_str());
            (Code::MissingSet, at.unwrap_or(1), Some("create it first, or mend its name"))
        }
        SetError::SetExists(_) if matches!(verb, Verb::Rename(..)) => {
            (Code::DuplicateSet, 2, Some("choose another name, or swap the two"))
        }
        SetError::SetExists(_) => (
            Code::DuplicateSet,
            1,
            Some("leave the line out, or add -exist if it is the same kind of set"),
        ),
        SetError::TooManySets(_) => (Code::SetFull, 1, None),
        SetError::InUse(_) => (
            Code::SetInUse,
            1,
            Some("portcullis set where-used tells which rules and lists refer to it"),
        ),
        SetError::TypeMismatch(..) => {
            (Code::SetMismatch, 2, Some("swap sets of one type and family"))
        }
        SetError::Parameter(_) | SetError::NoSuchParameter(_) => (Code::BadValue, 2, None),
        SetError::RangeSize => {
            (Code::BadValue, 2, Some("a bitmap holds 65536 elements; take a hash"))
        }
        SetError::NoExtension(_) => (Code::NoExtension, 2, None),
        SetError::Exists => (
            Code::DuplicateElement,
            2,
            Some("leave the line out, or add -exist to change what is there"),
        ),
        SetError::NotThere => (Code::MissingElement, 2, Some("leave the line out, or add -exist")),
        SetError::Full | SetError::NoRoom => {
            (Code::SetFull, 2, Some("raise maxelem in its create line"))
        }
        SetError::Nested => (Code::BadElement, 2, None),
        SetError::Before | SetError::NoReference => (Code::MissingElement, words.len() - 1, None),
        _ => (Code::BadElement, 2, None),
    };
    let fault = word(at).fault(code, error.to_string());
    match remedy {
        Some(remedy) => fault.remedy(remedy),
        None if *error == SetError::Cidr => fault.remedy("write /1 to the length of an address"),
        None => fault,
    }
}

/// Whether a command changes anything.
pub(crate) fn changes(verb: &Verb) -> bool {
    !matches!(
        verb,
        Verb::List(_) | Verb::Save(_) | Verb::Quit | Verb::Element { act: Act::Test, .. }
    )
}
