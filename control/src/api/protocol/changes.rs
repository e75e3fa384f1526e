//! Changes that leave evidence: who and why, confirmation, history, rollback, live flows.

use serde::{Deserialize, Serialize};

use super::{SessionInfo, Source, TupleInfo};
use crate::history::{Record, Who};

/// Whether there is nothing to say.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Who says that a change is made, and why. The daemon adds the user of the connection.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    /// Where that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The caller's user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Who became that user by sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
}

/// How a change is to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// By whom and why.
    #[serde(default, skip_serializing_if = "is_default")]
    pub why: Why,
    /// Undo it after so many milliseconds, unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_ms: Option<u64>,
    /// End the live flows that the new policy would not admit as new.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rematch: bool,
    /// Say what would come of it, and change nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// With a minimum of ceremony; to be reconciled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
}

/// Back to what was in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Its name; absent: `@1`, or what a change that waits for its confirmation has replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The session that this comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionInfo>,
    /// Cut it, if that is what the policy does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// How it is to be done.
    #[serde(default, skip_serializing_if = "is_default")]
    pub terms: Terms,
}

/// The change that waits stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// By whom and why.
    #[serde(default, skip_serializing_if = "is_default")]
    pub why: Why,
}

/// An emergency change was looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// Its record.
    pub record: u64,
    /// By whom and why.
    #[serde(default, skip_serializing_if = "is_default")]
    pub why: Why,
}

/// A change that waits for its confirmation.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PendingInfo {
    /// Who made it.
    pub who: Who,
    /// Id of the policy that waits.
    pub policy: String,
    /// Id of what comes back.
    pub previous: String,
    /// When, UTC.
    pub until: String,
    /// In so many milliseconds.
    pub left_ms: u64,
}

/// The history.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct HistoryInfo {
    /// Where it is.
    pub directory: String,
    /// The records asked for, the newest first.
    pub records: Vec<Record>,
    /// What is not as it was written.
    pub damage: Vec<String>,
    /// Numbers of emergency changes that nobody has reconciled.
    pub open: Vec<u64>,
    /// What waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingInfo>,
}

/// One policy of the history.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct StoredPolicy {
    /// What is known of it.
    pub record: Record,
    /// IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Source>,
    /// IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules6: Option<Source>,
    /// Sets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Source>,
}

/// What a policy means for the flows that are alive.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Effect {
    /// Flows that were tried, as if they began now.
    pub judged: u64,
    /// Flows that could not be tried: their first packet cannot be made up, or comes by no port.
    pub unjudged: u64,
    /// Flows that the policy would not admit, or would translate otherwise.
    pub refused: u64,
    /// Flows that were ended.
    pub ended: u64,
    /// The first of those that it would not admit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<FlowInfo>,
}

/// A flow that a policy would not admit.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct FlowInfo {
    /// Protocol number.
    pub proto: u8,
    /// Its original direction.
    pub original: TupleInfo,
    /// What ends it: a rule, a policy, another translation.
    pub by: String,
    /// Line of the rule in its file, from 1; 0 when it is no rule's doing.
    pub line: u32,
}
