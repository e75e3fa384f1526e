//! One record: what was put in force, by whom and why.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{FIELD_MAX, HistoryError};
use crate::api::protocol::Source;
use crate::daemon::policy::Texts;

/// A SHA-256 in hexadecimal.
pub(super) fn sum_of(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A stored text: its name when it was applied, and its sum.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TextRef {
    /// Usually the path that it was read from.
    pub name: String,
    /// SHA-256 of the text: what it is stored as.
    pub sha256: String,
}

impl TextRef {
    fn of(source: &Source) -> Self {
        Self { name: source.name.clone(), sha256: sum_of(source.text.as_bytes()) }
    }
}

/// A whole policy: what is in force of both families, and the files of sets that came with it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct PolicyRef {
    /// Sum of the sums of its texts; names do not count.
    pub id: String,
    /// IPv4; absent: empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<TextRef>,
    /// IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<TextRef>,
    /// Sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<TextRef>,
}

impl PolicyRef {
    /// Of these texts.
    pub fn of(texts: &Texts) -> Self {
        let one = |source: &Option<Source>| source.as_ref().map(TextRef::of);
        let (v4, v6) = (one(&texts.v4), one(&texts.v6));
        let sets: Vec<_> = texts.sets.iter().map(TextRef::of).collect();
        let sum = |text: &Option<TextRef>| match text {
            Some(text) => text.sha256.clone(),
            None => "-".to_owned(),
        };
        let mut all = format!("v4 {}\nv6 {}\n", sum(&v4), sum(&v6));
        sets.iter().for_each(|set| all += &format!("sets {}\n", set.sha256));
        Self { id: sum_of(all.as_bytes()), v4, v6, sets }
    }

    /// Its texts.
    pub fn texts(&self) -> impl Iterator<Item = &TextRef> {
        self.v4.iter().chain(&self.v6).chain(&self.sets)
    }

    /// The first characters of its id, as people are shown it.
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The daemon began with this policy.
    Start,
    /// `apply`.
    Apply,
    /// `reload`.
    Reload,
    /// `rollback`.
    Rollback,
    /// Nobody confirmed a change in time, or its health checks failed.
    Undo,
    /// `confirm`.
    Confirm,
    /// `reconcile`.
    Reconcile,
    /// A pressure profile's policy came into force, or went.
    Pressure,
}

impl Action {
    /// Whether a policy was put in force by it.
    pub fn installs(self) -> bool {
        !matches!(self, Self::Confirm | Self::Reconcile)
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Apply => "apply",
            Self::Reload => "reload",
            Self::Rollback => "rollback",
            Self::Undo => "undo",
            Self::Confirm => "confirm",
            Self::Reconcile => "reconcile",
            Self::Pressure => "pressure",
        }
    }
}

/// Who did it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The user of the process at the control socket, as the kernel says; absent for the
    /// daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The user's name, as the command said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Who became that user by sudo, as the command said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.sudo_user, &self.user, self.uid) {
            (Some(sudo), Some(user), _) => write!(f, "{sudo} (as {user})"),
            (Some(sudo), None, Some(uid)) => write!(f, "{sudo} (as user {uid})"),
            (None, Some(user), _) => write!(f, "{user}"),
            (_, None, Some(uid)) => write!(f, "user {uid}"),
            (_, None, None) => write!(f, "the daemon"),
        }
    }
}

/// What is said of a change before it is part of the chain.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What is done.
    pub action: Action,
    /// When: microseconds since 1970.
    pub at_us: u64,
    /// By whom.
    pub who: Who,
    /// `--reason`.
    pub reason: Option<String>,
    /// `--approver`.
    pub approver: Option<String>,
    /// `--ticket`.
    pub ticket: Option<String>,
    /// Without the usual ceremony: to be reconciled.
    pub emergency: bool,
    /// The record that it is about, for confirmations and their like.
    pub about: Option<u64>,
    /// What came of it.
    pub result: String,
    /// The generation that it is in the running daemon.
    pub generation: u64,
}

impl Draft {
    /// Without anything that is optional.
    pub fn new(action: Action, who: Who, at_us: u64) -> Self {
        Self {
            action,
            at_us,
            who,
            reason: None,
            approver: None,
            ticket: None,
            emergency: false,
            about: None,
            result: "in force".to_owned(),
            generation: 0,
        }
    }

    pub(super) fn check(&self) -> Result<(), HistoryError> {
        let fits = |text: &Option<String>| {
            text.as_ref()
                .is_none_or(|text| text.len() <= FIELD_MAX && !text.contains(char::is_control))
        };
        let named = [
            ("the reason", &self.reason),
            ("the approver", &self.approver),
            ("the ticket", &self.ticket),
            ("the user's name", &self.who.user),
            ("the name of sudo's user", &self.who.sudo_user),
        ];
        match named.into_iter().find(|(_, text)| !fits(text)) {
            Some((field, _)) => Err(HistoryError::Field { field }),
            None => Ok(()),
        }
    }
}

/// One record of the chain.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its place in the chain, from 1.
    pub number: u64,
    /// When, UTC.
    pub time: String,
    /// The same in microseconds since 1970.
    pub at_us: u64,
    /// What was done.
    pub action: Action,
    /// By whom.
    pub who: Who,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    /// Where that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Without the usual ceremony.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
    /// The record that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<u64>,
    /// What came of it.
    pub result: String,
    /// The daemon's generation.
    pub generation: u64,
    /// What is in force from then on.
    pub policy: PolicyRef,
    /// Sum of the record before.
    pub previous: String,
    /// SHA-256 of this record as JSON with an empty sum.
    pub sum: String,
}

impl Record {
    pub(super) fn seal(draft: &Draft, policy: PolicyRef, number: u64, previous: &str) -> Self {
        let mut record = Self {
            number,
            time: super::stamp(draft.at_us),
            at_us: draft.at_us,
            action: draft.action,
            who: draft.who.clone(),
            reason: draft.reason.clone(),
            approver: draft.approver.clone(),
            ticket: draft.ticket.clone(),
            emergency: draft.emergency,
            about: draft.about,
            result: draft.result.clone(),
            generation: draft.generation,
            policy,
            previous: previous.to_owned(),
            sum: String::new(),
        };
        record.sum = record.computed();
        record
    }

    /// What its sum should be.
    pub(super) fn computed(&self) -> String {
        let bare = Self { sum: String::new(), ..self.clone() };
        sum_of(&bare.bytes())
    }

    /// As it is written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        // Structures of strings and numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
