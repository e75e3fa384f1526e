//! From text to a [`Layer`]: every unknown key and every bad value is found, not just the
//! first, each with its place.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use crate::model::Span;

use super::{KEYS, Layer};
use crate::diagnostics::{Code, Finding, Severity};

/// Findings that are reported at most.
const MOST_FINDINGS: usize = 100;
/// How like two words must be (Jaro-Winkler) for one to be taken for the other.
const LIKENESS: f64 = 0.8;

/// A text that is being read.
#[derive(Debug)]
pub struct Reader<'t> {
    text: &'t str,
    file: Arc<str>,
    directory: PathBuf,
    findings: Vec<Finding>,
}

/// Reads a configuration file's text. Relative paths in it are relative to `file`'s directory.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(text: &str, file: &Path) -> Result<Layer, Vec<Finding>> {
    let directory = file.parent().unwrap_or(Path::new("")).to_owned();
    let name = Arc::from(file.display().to_string());
    let mut reader = Reader { text, file: name, directory, findings: Vec::new() };
    let (tree, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = reader.span(error.span().unwrap_or(0..0));
        reader.report(Code::BadSyntax, at, error.message().to_owned(), None);
    }
    let mut layer = Layer::default();
    // What a tree with holes says is not worth a word.
    if reader.findings.is_empty() {
        reader.table(tree.get_ref(), "", &mut layer);
    }
    match reader.findings.is_empty() {
        true => Ok(layer),
        false => Err(reader.sorted()),
    }
}

impl<'t> Reader<'t> {
    /// For another file of this kind: `text`, called `file` in findings.
    pub(crate) fn over(text: &'t str, file: &Path) -> Self {
        let directory = file.parent().unwrap_or(Path::new("")).to_owned();
        Self { text, file: Arc::from(file.display().to_string()), directory, findings: Vec::new() }
    }

    /// The text as a tree; `None` when it is not TOML, which is then said.
    pub(crate) fn tree(&mut self) -> Option<Spanned<DeTable<'t>>> {
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = self.span(error.span().unwrap_or(0..0));
            self.report(Code::BadSyntax, at, error.message().to_owned(), None);
        }
        self.findings.is_empty().then_some(tree)
    }

    /// A key that is none of these.
    pub(crate) fn stranger(&mut self, at: Span, key: &str, known: &[&str]) {
        let message = format!("there is no key `{key}` here");
        match nearest(key, known.iter().copied()) {
            Some(near) => self.unknown(at, message, near).unwrap_or(()),
            None => {
                let remedy = format!("the keys are {}", known.join(", "));
                self.report(Code::UnknownKey, at, message, Some(remedy));
            }
        }
    }

    /// Everything that was found, in the order of the file.
    pub(crate) fn finish(self) -> Vec<Finding> {
        self.sorted()
    }
}

impl Reader<'_> {
    /// The directory that relative paths begin at.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A range of bytes as a place; one of several lines ends with its first.
    pub fn span(&self, bytes: Range<usize>) -> Span {
        let start = self.boundary(bytes.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let said = &self.text[start..self.boundary(bytes.end.max(start))];
        let said = said.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        Span {
            line: 1 + before.bytes().filter(|byte| *byte == b'\n').count() as u32,
            column: 1 + before[line_start..].chars().count() as u32,
            len: (said.chars().count() as u32).max(1),
        }
    }

    fn boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
    }

    /// Whether the value there begins on the next line, as texts over several lines may.
    pub fn begins_below(&self, bytes: Range<usize>) -> bool {
        let raw = self.text.get(bytes).unwrap_or_default();
        let inside = raw.strip_prefix("\"\"\"").or_else(|| raw.strip_prefix("'''"));
        inside.is_some_and(|text| text.starts_with('\n') || text.starts_with("\r\n"))
    }

    /// A value of the wrong type.
    pub fn mismatch<T>(&mut self, value: &DeValue<'_>, at: Span, wanted: &str) -> Option<T> {
        let message = format!("expected {wanted}, found {}", value.type_str());
        self.report(Code::WrongType, at, message, None);
        None
    }

    /// A value that cannot be.
    pub fn bad<T>(&mut self, at: Span, message: String, remedy: &str) -> Option<T> {
        self.report(Code::BadValue, at, message, Some(remedy.to_owned()));
        None
    }

    /// A key that is none, and the one that was probably meant.
    pub fn unknown<T>(&mut self, at: Span, message: String, near: &str) -> Option<T> {
        self.report(Code::UnknownKey, at, message, Some(format!("did you mean `{near}`?")));
        None
    }

    fn report(&mut self, code: Code, at: Span, message: String, remedy: Option<String>) {
        let mut finding = Finding::new(Severity::Error, code, &self.file, at, message);
        finding.remedy = remedy;
        self.findings.push(finding);
    }

    /// In the order of the file, and not without end.
    fn sorted(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|finding| (finding.line, finding.column));
        if self.findings.len() > MOST_FINDINGS {
            let more = self.findings.len() - MOST_FINDINGS;
            self.findings.truncate(MOST_FINDINGS);
            self.report(Code::TooMany, Span::default(), format!("and {more} more"), None);
        }
        self.findings
    }

    /// Walks one table; `above` is its path, with a dot at the end.
    fn table(&mut self, table: &DeTable<'_>, above: &str, layer: &mut Layer) {
        for (key, value) in table.iter() {
            let path = format!("{above}{}", key.get_ref());
            if let Some(known) = KEYS.iter().find(|known| known.name == path) {
                let at = self.span(value.span());
                (known.read)(value.get_ref(), at, self, layer);
                continue;
            }
            let inside = format!("{path}.");
            match value.get_ref() {
                _ if !KEYS.iter().any(|known| known.name.starts_with(&inside)) => {
                    self.no_such_key(key, &path, above);
                }
                DeValue::Table(table) => self.table(table, &inside, layer),
                other => {
                    let at = self.span(value.span());
                    let wanted = format!("table, as [{path}]");
                    self.mismatch::<()>(other, at, &wanted);
                }
            }
        }
    }

    fn no_such_key(&mut self, key: &Spanned<toml::de::DeString<'_>>, path: &str, above: &str) {
        let at = self.span(key.span());
        let message = format!("there is no key `{path}`");
        match meant_in(key.get_ref(), above) {
            Some(near) => self.unknown(at, message, &near).unwrap_or(()),
            None => {
                let remedy = "`portcullis config keys` lists them all".to_owned();
                self.report(Code::UnknownKey, at, message, Some(remedy));
            }
        }
    }
}

/// The key that `path` was probably to be.
pub fn meant(path: &str) -> Option<String> {
    match path.rsplit_once('.') {
        Some((above, word)) => meant_in(word, &format!("{above}.")),
        None => meant_in(path, ""),
    }
}

/// The key or table that `word` in the table `above` was probably to be.
fn meant_in(word: &str, above: &str) -> Option<String> {
    let flag = format!("--{}", word.replace('_', "-"));
    if let Some(key) = KEYS.iter().find(|key| key.flag == flag) {
        return Some(key.name.to_owned());
    }
    let here: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.name.strip_prefix(above))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    if let Some(near) = nearest(word, here.into_iter()) {
        return Some(format!("{above}{near}"));
    }
    let last = KEYS.iter().map(|key| key.place().1);
    let near = nearest(word, last)?;
    KEYS.iter().find(|key| key.place().1 == near).map(|key| key.name.to_owned())
}

/// The word that `word` is most like, if it is like one at all.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let word = word.to_lowercase().replace('_', "-");
    let likeness = |other: &str| strsim::jaro_winkler(&word, &other.replace('_', "-"));
    let best = known.map(|other| (likeness(other), other));
    let best = best.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= LIKENESS).then_some(best.1)
}
