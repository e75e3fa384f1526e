//! Objects: named groups of addresses or ports, each a plain file that somebody answers for.
//!
//! A file `NAME.object` is read wherever files of sets are, and becomes the sets that policies
//! use by `-m set --match-set NAME src`: addresses are `NAME` (`hash:net family inet`) and, for
//! IPv6, `NAME6` (`hash:net family inet6`), ports are `NAME` (`bitmap:port range 0-65535`). Its
//! head says what it is and who answers for it, then comes an entry a line; entries below
//! `[STAGE]` are members only while `exposed` has come to that stage.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use crate::diagnostics::{Code, Finding, Severity};
use crate::model::Span;
use crate::model::expiry;

/// What the name of an object's file ends with.
pub const ENDING: &str = ".object";
/// Longest name: that of an IPv6 twin has one character more, and ipset allows 31.
const LONGEST_NAME: usize = 30;
const KEYS: [&str; 7] = ["type", "owner", "ticket", "review", "description", "stages", "exposed"];

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Addresses and networks of both families.
    Addresses,
    /// Ports and ranges of them.
    Ports,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// As it is written.
    pub text: String,
    /// Line, from 1.
    pub line: u32,
    /// The stage that it stands under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Whether it is a member at present.
    pub enabled: bool,
    #[serde(skip)]
    v6: bool,
    #[serde(skip)]
    column: u32,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Object {
    /// Its name: that of its file.
    pub name: String,
    /// Its file.
    pub file: String,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Who answers for it.
    pub owner: String,
    /// Where that was agreed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// When it is to be looked at again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub review: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Stages of exposure, from the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<String>,
    /// How far it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed: Option<String>,
    /// Its members, and those to be.
    pub entries: Vec<Entry>,
    #[serde(skip)]
    created: [u32; 2],
}

impl Object {
    /// The sets that it becomes.
    pub fn sets(&self) -> Vec<String> {
        match self.kind {
            Kind::Addresses => vec![self.name.clone(), format!("{}6", self.name)],
            Kind::Ports => vec![self.name.clone()],
        }
    }

    /// As `ipset save` would have it, command by command, each with its line and how many
    /// characters further right it stands than in the object's file.
    pub(crate) fn commands(&self) -> Vec<(u32, String, u32)> {
        let name = &self.name;
        let mut commands = match self.kind {
            Kind::Addresses => {
                let most = self.entries.len().max(64);
                let create = |name: &str, family: &str| {
                    format!("create {name} hash:net family {family} maxelem {most}")
                };
                let [one, other] = self.created;
                vec![
                    (one, create(name, "inet"), 0),
                    (other, create(&format!("{name}6"), "inet6"), 0),
                ]
            }
            Kind::Ports => {
                vec![(self.created[0], format!("create {name} bitmap:port range 0-65535"), 0)]
            }
        };
        for entry in self.entries.iter().filter(|entry| entry.enabled) {
            let twin = if entry.v6 { "6" } else { "" };
            let head = format!("add {name}{twin} ");
            let shift = (head.chars().count() as u32 + 1).saturating_sub(entry.column);
            commands.push((entry.line, head + &entry.text, shift));
        }
        commands
    }
}

/// The name of the object that a file is, if it is one.
pub fn name_of(file: &str) -> Option<&str> {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(ENDING)
}

struct Reader {
    file: Arc<str>,
    findings: Vec<Finding>,
    object: Object,
    seen: Vec<&'static str>,
    stage: Option<String>,
}

/// Reads an object's file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(text: &str, file: &str) -> Result<Object, Vec<Finding>> {
    let name = name_of(file).unwrap_or(file).to_owned();
    let mut reader = Reader {
        file: Arc::from(file),
        findings: Vec::new(),
        object: Object {
            name,
            file: file.to_owned(),
            kind: Kind::Addresses,
            owner: String::new(),
            ticket: None,
            review: None,
            description: None,
            stages: Vec::new(),
            exposed: None,
            entries: Vec::new(),
            created: [1, 1],
        },
        seen: Vec::new(),
        stage: None,
    };
    reader.check_name();
    let mut in_head = true;
    for (number, line) in (1..).zip(text.lines()) {
        let said = line.split('#').next().unwrap_or_default();
        let column = said.chars().take_while(|c| c.is_whitespace()).count() as u32 + 1;
        let said = said.trim();
        let at = Span { line: number, column, len: said.chars().count() as u32 };
        if said.is_empty() {
            continue;
        }
        let head = said.split_once(':').filter(|(key, _)| KEYS.contains(&key.trim()));
        match (in_head, head) {
            (true, Some((key, value))) => reader.head(key.trim(), value.trim(), at),
            _ => {
                in_head = false;
                reader.line(said, at);
            }
        }
    }
    reader.finish()
}

impl Reader {
    fn report(&mut self, code: Code, at: Span, message: String, remedy: &str) {
        let finding = Finding::new(Severity::Error, code, &self.file, at, message);
        self.findings.push(finding.with_remedy(remedy));
    }

    fn check_name(&mut self) {
        let name = &self.object.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
            let message = format!("{name:?} cannot be the name of a set");
            let remedy = "call the file by letters, digits, - and _, 30 at most";
            self.report(Code::BadValue, Span::default(), message, remedy);
        }
    }

    fn head(&mut self, key: &str, value: &str, at: Span) {
        let Some(key) = KEYS.into_iter().find(|known| *known == key) else { return };
        if self.seen.contains(&key) {
            let message = format!("`{key}` is said twice");
            return self.report(Code::RepeatedOption, at, message, "leave one");
        }
        self.seen.push(key);
        if value.is_empty() {
            let message = format!("`{key}` says nothing");
            return self.report(Code::BadValue, at, message, "say it, or leave the line out");
        }
        let text = Some(value.to_owned());
        let object = &mut self.object;
        match key {
            "type" => {
                object.created[0] = at.line;
                match value {
                    "addresses" => object.kind = Kind::Addresses,
                    "ports" => object.kind = Kind::Ports,
                    other => {
                        let message = format!("there is no type {other:?}");
                        self.report(Code::BadValue, at, message, "it is addresses or ports");
                    }
                }
            }
            "owner" => {
                object.created[1] = at.line;
                value.clone_into(&mut object.owner);
            }
            "ticket" => object.ticket = text,
            "description" => object.description = text,
            "exposed" => object.exposed = text,
            "stages" => {
                object.stages = value.split(',').map(|stage| stage.trim().to_owned()).collect();
            }
            _ => {
                object.review = text;
                if expiry::parse(value).is_none() {
                    let message = format!("{value:?} is no date");
                    self.report(Code::BadDate, at, message, "write 2027-01-31");
                }
            }
        }
    }

    fn line(&mut self, said: &str, at: Span) {
        if let Some(stage) = said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let stage = stage.trim();
            if !self.object.stages.iter().any(|known| known == stage) {
                let message = format!("{stage:?} is none of the stages");
                self.report(Code::BadValue, at, message, "name them in order: stages: a, b, c");
            }
            self.stage = Some(stage.to_owned());
            return;
        }
        if let Some((key, _)) = said.split_once(": ") {
            let message = format!("there is no key `{}` here", key.trim());
            let remedy = format!("the keys are {}; they come before the entries", KEYS.join(", "));
            return self.report(Code::UnknownKey, at, message, &remedy);
        }
        let v6 = match self.object.kind {
            Kind::Addresses => network(said),
            Kind::Ports => ports(said).then_some(false),
        };
        let Some(v6) = v6 else {
            let (message, remedy) = match self.object.kind {
                Kind::Addresses => {
                    (format!("{said:?} is no address or network"), "as 192.0.2.7 or 2001:db8::/32")
                }
                Kind::Ports => (format!("{said:?} is no port"), "as 443 or 8000-8099"),
            };
            return self.report(Code::BadElement, at, message, remedy);
        };
        let text = said.to_owned();
        let (line, column, stage) = (at.line, at.column, self.stage.clone());
        self.object.entries.push(Entry { text, line, stage, enabled: true, v6, column });
    }

    fn finish(mut self) -> Result<Object, Vec<Finding>> {
        for key in ["type", "owner"] {
            if !self.seen.contains(&key) {
                let message = format!("the head does not say `{key}`");
                let remedy = "begin with lines as: type: addresses, owner: anna";
                self.report(Code::MissingOption, Span::default(), message, remedy);
            }
        }
        let Object { stages, exposed, .. } = &self.object;
        let reached = match exposed {
            Some(exposed) => stages.iter().position(|stage| stage == exposed).map(|at| at + 1),
            None => (stages.is_empty()).then_some(0),
        };
        match reached {
            Some(reached) => {
                let enabled = &self.object.stages[..reached];
                for entry in &mut self.object.entries {
                    entry.enabled = entry.stage.as_ref().is_none_or(|it| enabled.contains(it));
                }
            }
            None => {
                let message = "it has stages, and how far it is exposed is none of them".to_owned();
                let remedy = "say exposed: and one of the stages";
                self.report(Code::BadValue, Span::default(), message, remedy);
            }
        }
        match self.findings.is_empty() {
            true => Ok(self.object),
            false => Err(self.findings),
        }
    }
}

/// Whether a network is one of IPv6; `None`: it is no network.
fn network(text: &str) -> Option<bool> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let v6 = address.parse::<IpAddr>().ok()?.is_ipv6();
    let longest = if v6 { 128 } else { 32 };
    prefix.is_none_or(|prefix| (1..=longest).contains(&prefix)).then_some(v6)
}

fn ports(text: &str) -> bool {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
    matches!((first, last), (Ok(first), Ok(last)) if first <= last)
}
