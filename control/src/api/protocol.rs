//! What the messages mean. Every type here is part of the documented protocol:
//! fields may be added, never renamed or removed within a version.

mod accounts;
mod applied;
mod blocklist;
mod changes;
mod config;
mod connections;
mod failure;
mod log;
mod management;
mod matrix;
mod ports;
mod pressure;
mod rules;
mod session;
mod sets;
mod stats;
mod status;
mod tally;
mod trace;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::trend::Trend;

pub use accounts::AccountEntry;
pub use applied::{Applied, Stages, VersionInfo};
pub use blocklist::{BlockRuleInfo, BlocklistInfo};
pub use changes::{
    Confirm, Effect, FlowInfo, HistoryInfo, PendingInfo, Reconcile, Rollback, StoredPolicy, Terms,
    Why,
};
pub use config::{ConfigChange, ConfigEntry, ConfigInfo, Reload, Reloaded};
pub use connections::{
    AddressFilter, ConntrackDelete, ConntrackFilter, ConntrackPage, ConntrackQuery, ConntrackRow,
    ConntrackWatch, CountedInfo, Deleted, EventInfo, EventKindName, ExpectInfo, MarkFilter, NatEnd,
    NatFilter, StatusName, TupleInfo,
};
pub use failure::{Code, Failure};
pub use log::{HeavyInfo, LogReport, OutletInfo};
pub use management::ManagementEntry;
pub use matrix::{MatrixInfo, MatrixRun, RunMatrix};
pub use ports::{PortStatus, Ports, QueueStatus};
pub use pressure::{PressureChange, PressureEvent, PressureInfo, PressureProfile};
pub use rules::{ChainInfo, RuleInfo, Rules};
pub use session::{SessionInfo, SessionOutcome, SessionReport};
pub use sets::{SetChanged, SetEntry, SetInfo, SetPage, SetUse};
pub use stats::{
    ConntrackStats, OffenderInfo, Stats, TalkerInfo, Talkers, TalkersAsked, WorkerInfo,
};
pub use status::{
    FailureInfo, LastSave, LogInfo, PinInfo, RestoredInfo, StateInfo, Status, StuckInfo,
};

pub use trace::{PacketTrace, Traced, TracedConnection, TracedPacket, TracedStep};

pub use tally::{HashInfo, HashRow, LimitInfo, RecentAddress, RecentChange, RecentList};

/// The one version this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// What a client sends.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RequestEnvelope {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The request.
    pub request: Request,
}

/// What the daemon sends back: `response` or `error`, never both.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ResponseEnvelope {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The answer.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The body of an answer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Response(Box<Response>),
    /// It was not.
    Error(Failure),
}

/// An address family.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FamilyName {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who are you?
    Version {},
    /// How is the daemon, and what of its state lasts?
    ShowStatus {},
    /// Replace the policy of one or both families, all or nothing.
    Apply(Apply),
    /// Put back in force what was.
    Rollback(Rollback),
    /// A change that waits for it is to stay.
    Confirm(Confirm),
    /// An emergency change was looked at.
    Reconcile(Reconcile),
    /// What was in force, when, by whom and why.
    ShowHistory {
        /// So many records at most, the newest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last: Option<u64>,
        /// Look at every record and text again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        verify: bool,
    },
    /// The texts of one policy of the history.
    ShowStored {
        /// What it is called: `@1`, `@3fa9c1`, `@r17`.
        name: String,
    },
    /// How the matrix of flows was when it was last run against the policy in force.
    ShowMatrix {},
    /// Run a matrix against the policy in force.
    RunMatrix(RunMatrix),
    /// The policy with its counters.
    ShowRules {
        /// Only this family.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        family: Option<FamilyName>,
        /// Only this table.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
        /// Only this chain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        chain: Option<String>,
    },
    /// The policy as an iptables-save file.
    SaveRules {
        /// Which family.
        family: FamilyName,
        /// With `[packets:bytes]` before every rule.
        counters: bool,
    },
    /// Ports.
    ShowPorts {},
    /// Statistics.
    ShowStats {},
    /// The sources with the most connections.
    ShowTalkers(TalkersAsked),
    /// The metrics, as Prometheus would scrape them.
    ShowMetrics {},
    /// Pressure profiles.
    ShowPressure {},
    /// Decide about them by hand.
    ChangePressure {
        /// What to do.
        change: PressureChange,
    },
    /// What became of records (LOG, NFLOG, AUDIT, TRACE), and who causes the most.
    ShowLog {},
    /// What was denied by hour and by day.
    ShowDenied {},
    /// Lines about traced packets.
    ShowTrace {
        /// From this number on; absent: only from now on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// So many at most; absent: as many as are sent at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    },
    /// Follow packets on their way from now on, until there were enough or the client goes away.
    TracePackets(PacketTrace),
    /// The management list.
    ShowManagement {},
    /// Which rules the XDP program carries out.
    ShowBlocklist {},
    /// What `-m nfacct` counts, by name.
    ShowAccounts {
        /// Begin again from zero.
        #[serde(default)]
        reset: bool,
    },
    /// Connection tracking and reassembly settings, by the kernel's short names.
    ShowSettings {},
    /// Changes some of them, all or none.
    SetSettings {
        /// By any of the kernel's names for them.
        values: BTreeMap<String, u64>,
    },
    /// The connection table, page by page.
    ShowConntrack(ConntrackQuery),
    /// End connections, page by page.
    DeleteConntrack(ConntrackDelete),
    /// End all connections.
    FlushConntrack {},
    /// Tell what happens to connections from now on, until the client goes away.
    WatchConntrack(ConntrackWatch),
    /// What helpers expect.
    ShowExpect {},
    /// End all expectations.
    FlushExpect {},
    /// Follow a described packet through the running policy.
    Explain {
        /// `key=value` words.
        packet: Vec<String>,
    },
    /// All sets, or one, without their elements.
    ShowSets {
        /// Only this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The elements of a set, page by page.
    ShowSetEntries {
        /// Which set.
        name: String,
        /// Where to go on: `next` of the previous page, 0 to begin.
        #[serde(default)]
        cursor: u64,
        /// At most this many; the daemon sends no more than 4,096.
        limit: u32,
    },
    /// What refers to a set.
    ShowSetUses {
        /// Which set.
        name: String,
    },
    /// One command of `ipset` that changes or tests something.
    ChangeSet {
        /// The command.
        line: String,
        /// As `ipset -exist`.
        #[serde(default)]
        exist: bool,
    },
    /// The commands of a file, all of them or none.
    RestoreSets {
        /// The file.
        file: Source,
        /// As `ipset -exist restore`.
        #[serde(default)]
        exist: bool,
    },
    /// Every limit in force, and how far it is used up.
    ShowLimits {
        /// With the entries of the tables of `-m hashlimit` of that name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<String>,
    },
    /// The lists of `-m recent`.
    ShowRecent {
        /// Only this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<String>,
    },
    /// Change a list of `-m recent` by hand.
    ChangeRecent {
        /// Its name.
        list: String,
        /// What to do.
        change: RecentChange,
    },
    /// The configuration in force.
    ShowConfig {},
    /// Read the configuration and policy files again.
    Reload(Reload),
    /// Stop the daemon cleanly.
    Stop {},
}

/// New policy texts.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// IPv4; a family that is absent keeps its policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Source>,
    /// IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules6: Option<Source>,
    /// Files of sets, put in force along with the rules: each set that they make takes the
    /// place of the one of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<Source>,
    /// Take over the counters written in the texts.
    #[serde(default)]
    pub counters: bool,
    /// The session that this comes from: a policy that would cut it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionInfo>,
    /// Cut it, if that is what the policy does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// How it is to be done.
    #[serde(default, skip_serializing_if = "changes::is_default")]
    pub terms: Terms,
}

/// A policy text.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The name to use in messages, usually a path.
    pub name: String,
    /// The text.
    pub text: String,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Response {
    /// To `version`.
    Version(VersionInfo),
    /// To `show_status`.
    Status(Box<Status>),
    /// To `apply` and `rollback`.
    Applied(Applied),
    /// To `confirm`: the number of its record, if there is a history.
    Confirmed {
        /// The record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<u64>,
    },
    /// To `reconcile`.
    Reconciled {
        /// The record that says so.
        record: u64,
    },
    /// To `show_history`.
    History(HistoryInfo),
    /// To `show_stored`.
    Stored(Box<StoredPolicy>),
    /// To `show_matrix`.
    Matrix(Box<MatrixInfo>),
    /// To `run_matrix`.
    MatrixReport(Box<crate::matrix::Report>),
    /// To `show_rules`.
    Rules(Rules),
    /// To `save_rules`.
    Saved {
        /// Which family.
        family: FamilyName,
        /// The file.
        text: String,
    },
    /// To `show_ports`.
    Ports(Ports),
    /// To `show_settings` and `set_settings`: all settings, as they are now.
    Settings {
        /// By short name.
        values: BTreeMap<String, u64>,
    },
    /// To `show_accounts`: what was counted until now.
    Accounts {
        /// By name.
        entries: Vec<AccountEntry>,
    },
    /// To `show_blocklist`.
    Blocklist(BlocklistInfo),
    /// To `show_management`.
    Management {
        /// In the list's order.
        entries: Vec<ManagementEntry>,
    },
    /// To `show_log`.
    Log(Box<LogReport>),
    /// To `show_denied`.
    Denied(Trend),
    /// To `show_trace`.
    Traces {
        /// In order, as the kernel would have logged them.
        lines: Vec<String>,
        /// The number to ask from next.
        next: u64,
        /// Lines that are gone since `from`: nobody asked in time.
        missed: u64,
    },
    /// To `trace_packets`, again and again; the first at once.
    Traced(Traced),
    /// To `show_stats`.
    Stats(Stats),
    /// To `show_pressure` and `change_pressure`.
    Pressure(PressureInfo),
    /// To `show_metrics`.
    Metrics {
        /// In Prometheus' text format.
        text: String,
    },
    /// To `show_talkers`.
    Talkers(Talkers),
    /// To `show_conntrack`.
    Conntrack(ConntrackPage),
    /// To `delete_conntrack`.
    Deleted(Deleted),
    /// To `watch_conntrack`, again and again; the first at once.
    Events {
        /// What happened, in order.
        events: Vec<EventInfo>,
        /// Events lost since the beginning, because too many waited.
        lost: u64,
    },
    /// To `show_expect`.
    Expectations {
        /// The rows.
        rows: Vec<ExpectInfo>,
    },
    /// To `flush_conntrack` and `flush_expect`.
    Flushed {
        /// How many there were.
        flushed: u64,
    },
    /// To `show_limits`.
    Limits {
        /// In the order of the rules.
        limits: Vec<LimitInfo>,
        /// The tables that were asked for.
        tables: Vec<HashInfo>,
    },
    /// To `show_recent`.
    Recent {
        /// By name.
        lists: Vec<RecentList>,
    },
    /// To `change_recent`.
    RecentChanged {
        /// Addresses that were entered, refreshed or taken off.
        changed: u64,
    },
    /// To `explain`.
    Explained(Explained),
    /// To `show_sets`.
    Sets {
        /// In the order in which they were made.
        sets: Vec<SetInfo>,
    },
    /// To `show_set_entries`.
    SetEntries(SetPage),
    /// To `show_set_uses`.
    SetUses {
        /// Rules first.
        uses: Vec<SetUse>,
    },
    /// To `change_set` and `restore_sets`.
    SetChanged(SetChanged),
    /// To `show_config`.
    Config(ConfigInfo),
    /// To `reload`.
    Reloaded(Reloaded),
    /// To `stop`: the daemon is on its way down.
    Stopping {},
}

/// A remark about a policy text.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Finding {
    /// `error`, `warning` or `note`.
    pub severity: String,
    /// Stable identifier of the kind of remark.
    pub code: String,
    /// The text's name.
    pub file: String,
    /// Line, from 1; 0 when it concerns the whole text.
    pub line: u32,
    /// Column, from 1; 0 when it concerns the whole line.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// An explanation.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Explained {
    /// The same as text for people.
    pub text: String,
    /// The entry of the management list that lets the packet past every rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<String>,
    /// The explanation as `portcullis explain --json` prints it.
    pub explanation: serde_json::Value,
}
