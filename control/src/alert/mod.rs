//! Alerts: what the operator is told of by webhook, once when it begins and once when it ends.
//!
//! `watch` turns readings of the daemon into notices: levels with hysteresis ([`level`]), each
//! told once, and resolved when it is over. `template` makes the body, `outbox` keeps what is to
//! be sent, bounded, and says when to try again. Nothing here reads a clock or sends anything:
//! the daemon's alert thread does both (`daemon::telemetry`).

pub mod level;
mod outbox;
mod template;
#[cfg(test)]
mod tests;
mod watch;

pub use outbox::{Counts, Letter, Outbox};
pub use template::{Body, DEFAULT_BODY, TemplateError};
pub use watch::{Expiring, Reading, Thresholds, Watch};

use dataplane::clock::Nanos;

macro_rules! events {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal, $severity:literal;)*) => {
        /// What can be told.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind { $($(#[doc = $doc])+ $variant,)* }

        impl EventKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// As it is written.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
            /// `critical`, `warning` or `info`.
            pub fn severity(self) -> &'static str {
                match self { $(Self::$variant => $severity,)* }
            }
        }
    };
}

events! {
    /// More packets are dropped a second than `drop-rate`.
    DropRate => "drop-rate", "warning";
    /// The connection table is fuller than `conntrack-warning`.
    ConntrackWarning => "conntrack-warning", "warning";
    /// And than `conntrack-critical`.
    ConntrackCritical => "conntrack-critical", "critical";
    /// Records of the log are lost.
    LogLoss => "log-loss", "warning";
    /// A change was undone: nobody confirmed it, or its health checks failed.
    Rollback => "rollback", "critical";
    /// A rule with `expires=` has less than `expiring` left.
    ExceptionExpiring => "exception-expiring", "info";
    /// A pressure profile is in force.
    Pressure => "pressure", "warning";
    /// The scheduled matrix fails against the live policy.
    MatrixFailure => "matrix-failure", "critical";
}

/// Where notices go.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// `http://` or `https://`.
    pub url: String,
    /// Which are told.
    pub events: Vec<EventKind>,
    /// What is sent.
    pub body: Body,
    /// When things are too high.
    pub thresholds: Thresholds,
    /// How long an answer may take.
    pub timeout: Nanos,
    /// How often one notice is tried.
    pub attempts: u32,
    /// How many may wait.
    pub queue: usize,
}

/// Something that has begun, or is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What.
    pub kind: EventKind,
    /// Which of its kind, as a rule's id; the same from its beginning to its end.
    pub key: String,
    /// Whether it begins.
    pub firing: bool,
    /// In a sentence.
    pub summary: String,
    /// What was measured.
    pub value: f64,
    /// What it is measured against.
    pub threshold: f64,
    /// Microseconds since 1970.
    pub at_us: u64,
}

impl Notice {
    /// `firing` or `resolved`.
    pub fn state(&self) -> &'static str {
        if self.firing { "firing" } else { "resolved" }
    }

    fn example(kind: EventKind, firing: bool, text: &str) -> Self {
        let (key, summary) = (text.to_owned(), text.to_owned());
        Self { kind, key, firing, summary, value: 1.5, threshold: 1.0, at_us: 0 }
    }
}
