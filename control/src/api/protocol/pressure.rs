//! Pressure profiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What to do by hand.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum PressureChange {
    /// Put this profile in force, and keep it there.
    On(String),
    /// Take it out of force, and keep it out.
    Off(String),
    /// Let its conditions decide again.
    Auto(String),
    /// Conditions change nothing.
    Pause,
    /// They do again.
    Resume,
}

/// The profiles, and what has become of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct PressureInfo {
    /// Whether conditions change nothing.
    pub paused: bool,
    /// What is measured: `conntrack` and `cpu` in percent, `new-flows` and `drops` a second.
    pub load: BTreeMap<String, f64>,
    /// In the configuration's order.
    pub profiles: Vec<PressureProfile>,
    /// What happened, the oldest first.
    pub events: Vec<PressureEvent>,
}

/// One profile.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct PressureProfile {
    /// What it is called.
    pub name: String,
    /// Whether it is in force.
    pub active: bool,
    /// Who decides: `conditions` or `hand`.
    pub by: String,
    /// Why it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct PressureEvent {
    /// When, UTC.
    pub at: String,
    /// To which profile.
    pub profile: String,
    /// `on`, `off`, or `failed`.
    pub event: String,
    /// Why.
    pub why: String,
    /// What was done.
    pub done: Vec<String>,
}
