//! The file: strictly read, every fault with its place.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use dataplane::clock::Nanos;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expect::{Expectation, WantedLog, WantedNat, state};
use crate::config::Reader;
use crate::diagnostics::{Code, Finding, Severity};
use crate::explain::describe::KEYS;
use crate::explain::{DescribeError, Description};
use crate::model::Span;

/// Longest file.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Flows of a file at most.
const MAX_FLOWS: usize = 100_000;
/// Packets of a flow at most.
const MAX_STEPS: usize = 64;
/// Longest pause between two packets: longer than any timeout has to be.
const LONGEST_PAUSE_MS: u32 = 30 * 86_400 * 1_000;

const FILE_KEYS: [&str; 2] = ["topology", "flow"];
const ABOUT: [&str; 7] = ["name", "role", "owner", "purpose", "given", "answered", "step"];
const EXPECTATIONS: [&str; 6] = ["expect", "by", "comment", "nat", "log", "state"];
const STEP_KEYS: [&str; 6] = ["from", "after_ms", "flags", "length", "type", "code"];

/// A file of flows.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// As it is called in findings.
    pub file: Arc<str>,
    /// The network that the flows go through; absent: each through the smallest that it can.
    pub topology: Option<PathBuf>,
    /// In the order of the file.
    pub flows: Vec<Flow>,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its name, which no other has.
    pub name: String,
    /// Who takes part in it.
    pub role: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// Where it stands, from 1.
    pub line: u32,
    /// Its first packet, and where that comes from.
    pub first: Description,
    /// The packets in order; the first is that one.
    pub steps: Vec<Step>,
}

/// One packet of a flow.
#[derive(Clone, Debug)]
pub struct Step {
    /// From whom the first packet came, or the other way.
    pub from_client: bool,
    /// So long after the one before.
    pub after: Nanos,
    /// TCP flags.
    pub flags: Option<u8>,
    /// Bytes of payload.
    pub length: u16,
    /// ICMP type.
    pub kind: Option<u8>,
    /// ICMP code.
    pub code: u8,
    /// What is to come of it.
    pub expectation: Expectation,
    /// Where it stands, from 1.
    pub line: u32,
}

impl Step {
    /// The packet that a flow describes.
    pub(super) fn first(expectation: Expectation, line: u32) -> Self {
        Self {
            from_client: true,
            after: Nanos(0),
            flags: None,
            length: 0,
            kind: None,
            code: 0,
            expectation,
            line,
        }
    }
}

/// Reads a file.
///
/// # Errors
/// Everything that is wrong with it, and its text as far as it is one.
pub fn read_file(path: &Path) -> Result<(Matrix, String), (Vec<Finding>, String)> {
    let refuse = |code, message: String| {
        let file = path.display().to_string().into();
        vec![Finding::new(Severity::Error, code, &file, Span::default(), message)]
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let done = opened.and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = done {
        let found = refuse(Code::Unreadable, format!("cannot be read: {error}"));
        return Err((found, String::new()));
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let found = refuse(Code::TooLong, format!("is longer than {MAX_FILE_BYTES} bytes"));
        return Err((found, String::new()));
    }
    match String::from_utf8(bytes) {
        Ok(text) => match read(&text, path) {
            Ok(matrix) => Ok((matrix, text)),
            Err(findings) => Err((findings, text)),
        },
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let found = refuse(Code::BadEncoding, format!("is not UTF-8 from byte {at} on"));
            Err((found, String::new()))
        }
    }
}

/// Reads a text; relative paths in it begin at `file`'s directory.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(text: &str, file: &Path) -> Result<Matrix, Vec<Finding>> {
    let mut reader = Reader::over(text, file);
    let mut matrix =
        Matrix { file: file.display().to_string().into(), topology: None, flows: Vec::new() };
    if let Some(tree) = reader.tree() {
        let mut parser = Parser { reader: &mut reader, names: HashSet::new() };
        parser.file(tree.get_ref(), &mut matrix);
    }
    let findings = reader.finish();
    if findings.is_empty() { Ok(matrix) } else { Err(findings) }
}

type Value<'v, 't> = &'v Spanned<DeValue<'t>>;

struct Parser<'r, 't> {
    reader: &'r mut Reader<'t>,
    names: HashSet<String>,
}

impl Parser<'_, '_> {
    fn file(&mut self, table: &DeTable<'_>, matrix: &mut Matrix) {
        self.only(table, &[&FILE_KEYS]);
        if let Some(value) = table.get("topology") {
            let directory = self.reader.directory().to_owned();
            matrix.topology = self.text(value).map(|path| directory.join(path));
        }
        let Some(value) = table.get("flow") else { return };
        let flows = self.tables(value, "tables, each as [[flow]]", MAX_FLOWS);
        matrix.flows = flows.into_iter().filter_map(|flow| self.flow(flow)).collect();
    }

    fn flow(&mut self, whole: Value<'_, '_>) -> Option<Flow> {
        let at = self.reader.span(whole.span());
        let table = whole.get_ref().as_table()?;
        let words = packet_keys();
        self.only(table, &[&ABOUT, &words, &EXPECTATIONS]);
        let name = match table.get("name") {
            Some(value) => {
                let name = self.text(value)?;
                if !self.names.insert(name.clone()) {
                    let at = self.reader.span(value.span());
                    let message = format!("there is a flow {name:?} already");
                    return self.reader.bad(at, message, "give each its own name");
                }
                name
            }
            None => {
                let remedy = "say what it is called: name = \"...\"";
                return self.reader.bad(at, "a flow without a name".to_owned(), remedy);
            }
        };
        let about = |parser: &mut Self, key| table.get(key).and_then(|value| parser.text(value));
        let (role, owner) = (about(self, "role"), about(self, "owner"));
        let purpose = about(self, "purpose");
        let first = self.packet(table, at)?;
        let steps = self.steps(table, at, &first)?;
        Some(Flow { name, role, owner, purpose, line: at.line, first, steps })
    }

    /// The first packet, in the words of `explain`.
    fn packet(&mut self, table: &DeTable<'_>, at: Span) -> Option<Description> {
        let mut words = Vec::new();
        for key in packet_keys() {
            let Some(value) = table.get(key) else { continue };
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
                other => {
                    let at = self.reader.span(value.span());
                    return self.reader.mismatch(other, at, "word or number");
                }
            };
            words.push(format!("{key}={text}"));
        }
        if let Some(value) = table.get("given") {
            let state = self.parsed(value, state)?;
            words.push(format!("state={}", state.name()));
        }
        match Description::parse(&words) {
            Ok(description) => Some(description),
            Err(error) => {
                let key = match &error {
                    DescribeError::Value { key: "state", .. } => Some("given"),
                    DescribeError::Value { key, .. } | DescribeError::WithHex(key) => Some(*key),
                    DescribeError::Families => Some("dst"),
                    _ => None,
                };
                let place = key.and_then(|key| table.get(key));
                let at = place.map_or(at, |value| self.reader.span(value.span()));
                let remedy = "the packet is described in the words of `portcullis explain`";
                self.reader.bad(at, error.to_string(), remedy)
            }
        }
    }

    fn steps(&mut self, table: &DeTable<'_>, at: Span, first: &Description) -> Option<Vec<Step>> {
        let lone = |expectation| Step::first(expectation, at.line);
        let answered = match table.get("answered") {
            Some(value) => match value.get_ref().as_bool() {
                Some(answered) => answered,
                None => {
                    let at = self.reader.span(value.span());
                    return self.reader.mismatch(value.get_ref(), at, "true or false");
                }
            },
            None => false,
        };
        let follows = answered || table.get("step").is_some();
        if follows && let Some(given) = table.get("given") {
            let at = self.reader.span(given.span());
            let remedy = "leave out `given`: the packets before bring a state about";
            return self.reader.bad(at, "a state is given, and more packets".to_owned(), remedy);
        }
        let Some(value) = table.get("step") else {
            let expectation = self.expectation(table, at)?;
            let mut steps = vec![lone(expectation)];
            if answered {
                steps.extend(super::talk::answers(first).into_iter().map(
                    |(from_client, flags)| {
                        let step = lone(Expectation::accepted());
                        Step { from_client, flags, ..step }
                    },
                ));
            }
            return Some(steps);
        };
        for key in EXPECTATIONS.into_iter().chain(["answered"]) {
            if let Some(value) = table.get(key) {
                let at = self.reader.span(value.span());
                let message = format!("`{key}` of a flow that has steps");
                let remedy = "each [[flow.step]] says what is to come of it";
                return self.reader.bad(at, message, remedy);
            }
        }
        let all = self.tables(value, "tables, each as [[flow.step]]", MAX_STEPS);
        let mut steps: Vec<Step> = Vec::new();
        for step in all {
            steps.push(self.step(step, steps.is_empty())?);
        }
        if steps.is_empty() {
            return self.reader.bad(
                at,
                "a flow without a packet".to_owned(),
                "add a [[flow.step]]",
            );
        }
        Some(steps)
    }

    fn step(&mut self, whole: Value<'_, '_>, is_first: bool) -> Option<Step> {
        let at = self.reader.span(whole.span());
        let table = whole.get_ref().as_table()?;
        self.only(table, &[&STEP_KEYS, &EXPECTATIONS]);
        let from_client = match table.get("from") {
            None => true,
            Some(value) => self.parsed(value, |text| match text {
                "client" => Ok(true),
                "server" => Ok(false),
                _ => Err(format!("{text:?} is neither client nor server")),
            })?,
        };
        if is_first {
            if !from_client {
                let remedy = "begin with the client's packet, which the flow describes";
                return self.reader.bad(at, "the first packet is an answer".to_owned(), remedy);
            }
            let described = STEP_KEYS.into_iter().skip(1).find_map(|key| table.get(key));
            if let Some(value) = described {
                let at = self.reader.span(value.span());
                let remedy = "the first packet is the one that the flow describes";
                return self.reader.bad(at, "the first step is described".to_owned(), remedy);
            }
        }
        let after_ms = self.number(table, "after_ms", LONGEST_PAUSE_MS)?.unwrap_or(0);
        let flags = match table.get("flags") {
            Some(value) => Some(self.parsed(value, |text| {
                let flags = crate::explain::describe::tcp_flags(text);
                flags.ok_or_else(|| format!("{text:?} are no TCP flags, as \"SYN,ACK\""))
            })?),
            None => None,
        };
        Some(Step {
            from_client,
            after: Nanos::from_millis(u64::from(after_ms)),
            flags,
            length: self.number(table, "length", 1_400)?.unwrap_or(0) as u16,
            kind: self.number(table, "type", 255)?.map(|it| it as u8),
            code: self.number(table, "code", 255)?.unwrap_or(0) as u8,
            expectation: self.expectation(table, at)?,
            line: at.line,
        })
    }

    fn expectation(&mut self, table: &DeTable<'_>, at: Span) -> Option<Expectation> {
        let Some(verdict) = table.get("expect") else {
            // Said already.
            if table.iter().any(|(key, _)| key.get_ref().starts_with("ex")) {
                return None;
            }
            let message = "nothing is expected of this packet".to_owned();
            return self.reader.bad(at, message, "add expect = \"accept\" or \"deny\"");
        };
        let verdict = self.parsed(verdict, FromStr::from_str)?;
        let by = self.optional(table, "by", FromStr::from_str)?;
        let comment = self.optional(table, "comment", |text| Ok(text.to_owned()))?;
        let state = self.optional(table, "state", state)?;
        let nat = match table.get("nat") {
            Some(value) => Some(self.nat(value)?),
            None => None,
        };
        let log = match table.get("log") {
            None => None,
            Some(value) => Some(match value.get_ref() {
                DeValue::Boolean(true) => WantedLog::Yes,
                DeValue::Boolean(false) => WantedLog::No,
                DeValue::String(prefix) => WantedLog::Prefix(prefix.to_string()),
                other => {
                    let at = self.reader.span(value.span());
                    return self.reader.mismatch(other, at, "true, false or the line's prefix");
                }
            }),
        };
        Some(Expectation { verdict, by, comment, nat, log, state })
    }

    fn nat(&mut self, value: Value<'_, '_>) -> Option<WantedNat> {
        const SHAPE: &str = "\"none\", or what changes, as { dst = \"192.0.2.1\", dport = 8080 }";
        let at = self.reader.span(value.span());
        let table = match value.get_ref() {
            DeValue::String(word) if word == "none" => return Some(WantedNat::default()),
            DeValue::Table(table) => table,
            other => return self.reader.mismatch(other, at, SHAPE),
        };
        self.only(table, &[&["src", "sport", "dst", "dport"]]);
        Some(WantedNat {
            src: self.optional(table, "src", FromStr::from_str)?,
            sport: self.optional(table, "sport", FromStr::from_str)?,
            dst: self.optional(table, "dst", FromStr::from_str)?,
            dport: self.optional(table, "dport", FromStr::from_str)?,
        })
    }

    /// Says which keys have no business here.
    fn only(&mut self, table: &DeTable<'_>, known: &[&[&str]]) {
        let known = known.concat();
        for (key, _) in table.iter() {
            if !known.contains(&&**key.get_ref()) {
                let at = self.reader.span(key.span());
                self.reader.stranger(at, key.get_ref(), &known);
            }
        }
    }

    /// The tables of an array.
    fn tables<'v, 't>(
        &mut self,
        value: Value<'v, 't>,
        wanted: &str,
        most: usize,
    ) -> Vec<Value<'v, 't>> {
        let at = self.reader.span(value.span());
        let Some(list) = value.get_ref().as_array() else {
            self.reader.mismatch::<()>(value.get_ref(), at, wanted);
            return Vec::new();
        };
        if list.len() > most {
            let message = format!("{} of them, and {most} are possible", list.len());
            self.reader.bad::<()>(at, message, "part the file");
            return Vec::new();
        }
        let mut tables = Vec::new();
        for one in list.iter() {
            match one.get_ref() {
                DeValue::Table(_) => tables.push(one),
                other => {
                    let at = self.reader.span(one.span());
                    self.reader.mismatch::<()>(other, at, wanted);
                }
            }
        }
        tables
    }

    fn text(&mut self, value: Value<'_, '_>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            other => {
                let at = self.reader.span(value.span());
                self.reader.mismatch(other, at, "text")
            }
        }
    }

    fn parsed<T>(
        &mut self,
        value: Value<'_, '_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            other => {
                let at = self.reader.span(value.span());
                return self.reader.mismatch(other, at, "text");
            }
        };
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let at = self.reader.span(value.span());
                self.reader.bad(at, error, "docs/operations.md has the words")
            }
        }
    }

    /// What an absent key means is nothing; a bad one is `None`.
    fn optional<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match table.get(key) {
            None => Some(None),
            Some(value) => self.parsed(value, parse).map(Some),
        }
    }

    fn number(&mut self, table: &DeTable<'_>, key: &str, most: u32) -> Option<Option<u32>> {
        self.optional(table, key, |text| match text.parse::<u32>() {
            Ok(number) if number <= most => Ok(number),
            _ => Err(format!("{text:?} is no number from 0 to {most}")),
        })
    }
}

/// The words of `explain` that describe a packet and where it comes from. What it is to be in
/// has another name here: `given`.
fn packet_keys() -> Vec<&'static str> {
    KEYS.into_iter().filter(|key| !["state", "dir"].contains(key)).collect()
}
