//! One thing that `doctor` found, and the command that mends it.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::code::Code;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    /// Works, but not as well or as safely as it could.
    Warning,
    /// Does not work.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A command line, word by word. Its text can be pasted into a shell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Command(Vec<String>);

impl Command {
    /// From words that are separated by single spaces.
    pub fn new(words: &str) -> Self {
        Self(words.split(' ').map(str::to_owned).collect())
    }
    /// Adds a word as it is.
    #[must_use]
    pub fn arg(mut self, word: impl Into<String>) -> Self {
        self.0.push(word.into());
        self
    }
    /// Adds words that are separated by single spaces.
    #[must_use]
    pub fn args(mut self, words: &str) -> Self {
        self.0.extend(words.split(' ').map(str::to_owned));
        self
    }
    /// The same command begun by another one (`ip netns exec NAME`).
    #[must_use]
    pub fn behind(self, prefix: &[String]) -> Self {
        Self(prefix.iter().cloned().chain(self.0).collect())
    }
    /// Its words.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
        for (index, word) in self.0.iter().enumerate() {
            let gap = if index > 0 { " " } else { "" };
            if !word.is_empty() && word.chars().all(plain) {
                write!(out, "{gap}{word}")?;
            } else {
                write!(out, "{gap}'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// The port, file or setting; empty for the machine as a whole.
    pub subject: String,
    /// What is so, in one sentence without a full stop.
    pub found: String,
    /// What mends it.
    pub command: Option<Command>,
    /// Whether `--fix` may run it.
    pub safe: bool,
    /// What to do where no command does it.
    pub advice: Option<String>,
}

impl Finding {
    /// Without a remedy.
    pub fn new(
        severity: Severity,
        code: Code,
        subject: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self { code, severity, subject, found, command: None, safe: false, advice: None }
    }
    /// As it should be.
    pub fn ok(code: Code, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Severity::Ok, code, subject, found)
    }
    /// Worth knowing.
    pub fn note(code: Code, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, subject, found)
    }
    /// Works, but could be better or safer.
    pub fn warning(code: Code, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, subject, found)
    }
    /// Does not work.
    pub fn error(code: Code, subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, subject, found)
    }
    /// Doctor could not look.
    pub fn unseen(code: Code, subject: impl Into<String>, why: &impl fmt::Display) -> Self {
        let found = format!("{}: {why}", code.name());
        Self::new(Severity::Note, Code::NotSeen, subject, found)
    }
    /// The command that mends it, for the operator to run.
    #[must_use]
    pub fn mend(mut self, command: Command) -> Self {
        self.command = Some(command);
        self
    }
    /// The command that mends it, which `--fix` may run.
    #[must_use]
    pub fn fix(self, command: Command) -> Self {
        Self { safe: true, ..self.mend(command) }
    }
    /// The same, if `safe`; else for the operator to run.
    #[must_use]
    pub fn fix_if(self, safe: bool, command: Command) -> Self {
        Self { safe, ..self.mend(command) }
    }
    /// What to do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut object = to.serialize_struct("Finding", 9)?;
        object.serialize_field("severity", &self.severity)?;
        object.serialize_field("code", &self.code)?;
        object.serialize_field("group", &self.code.group())?;
        object.serialize_field("subject", &self.subject)?;
        object.serialize_field("message", &self.found)?;
        object.serialize_field("why", self.code.why())?;
        let command = self.command.as_ref().map(ToString::to_string);
        object.serialize_field("command", &command)?;
        object.serialize_field("fixable", &self.safe)?;
        object.serialize_field("advice", &self.advice)?;
        object.end()
    }
}
