//! Pressure profiles: what is done, by agreement made in quiet times, when the machine is pressed.
//!
//! A profile has levels to enter and to leave, and how long each must hold; what it does can be
//! undone, and is undone by itself. [`Machine`] says when: it reads no clock and does nothing.
//! The daemon's pressure thread does what it says (`daemon::telemetry`).

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use dataplane::clock::Nanos;
use dataplane::policy::matches::{ConntrackMatch, Match};
use dataplane::policy::{ChainPolicy, Hook, TableId, state_class};

use crate::alert::level::{Bounds, Level, Rate};
use crate::model::{MatchBody, Rule, Ruleset, TargetSpec};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gauge {
    /// Percent of the connection table.
    Conntrack,
    /// Connections that begin, a second.
    NewFlows,
    /// Percent of a core that the busiest worker takes.
    Cpu,
    /// Packets dropped a second.
    Drops,
}

impl Gauge {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Conntrack, Self::NewFlows, Self::Cpu, Self::Drops];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conntrack => "conntrack",
            Self::NewFlows => "new-flows",
            Self::Cpu => "cpu",
            Self::Drops => "drops",
        }
    }

    /// What it is counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Conntrack | Self::Cpu => "%",
            Self::NewFlows | Self::Drops => "/s",
        }
    }
}

/// When a profile is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// What is measured.
    pub gauge: Gauge,
    /// It begins at this or above.
    pub enter: f64,
    /// It ends below this.
    pub leave: f64,
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What people call it.
    pub name: String,
    /// Any of these is enough; it is over when none holds any more.
    pub when: Vec<Condition>,
    /// How long the pressure must last.
    pub hold: Nanos,
    /// And how long it must be gone.
    pub release: Nanos,
    /// Timeouts of what is not established that are shortened, in seconds, by the kernel's names.
    pub timeouts: Vec<(String, u64)>,
    /// A policy that takes the place of the one in force.
    pub rules: Option<PathBuf>,
    /// The same for IPv6.
    pub rules6: Option<PathBuf>,
}

/// Timeouts that may be shortened: no established flow depends on them.
pub const TIMEOUTS: [&str; 11] = [
    "tcp_timeout_syn_sent",
    "tcp_timeout_syn_recv",
    "tcp_timeout_fin_wait",
    "tcp_timeout_close_wait",
    "tcp_timeout_last_ack",
    "tcp_timeout_time_wait",
    "tcp_timeout_close",
    "udp_timeout",
    "icmp_timeout",
    "icmpv6_timeout",
    "generic_timeout",
];

/// Whether what is established stays accepted before anything is dropped: in every chain of the
/// table filter that packets of others pass.
pub fn keeps_established(rules: &Ruleset) -> bool {
    let Some(filter) = rules.tables.iter().find(|table| table.id == TableId::Filter) else {
        return true;
    };
    [Hook::Forward, Hook::Input].into_iter().all(|hook| {
        let Some(chain) = filter.chain(hook.chain_name()) else { return true };
        let accepts_all = chain.policy.is_none_or(|(policy, _)| policy == ChainPolicy::Accept);
        // Whatever comes before the rule could cut it.
        match chain.rules.iter().find(|rule| !matches!(rule.target, TargetSpec::None)) {
            None => accepts_all,
            Some(first) => accepts_established(first),
        }
    })
}

fn accepts_established(rule: &Rule) -> bool {
    let bare = Rule { matches: Vec::new(), ..rule.clone() };
    let only_states = rule.matches.iter().all(|it| match &it.body {
        MatchBody::Comment(_) | MatchBody::Empty(_) => true,
        MatchBody::Plain(Match::Conntrack(it)) | MatchBody::State(Match::Conntrack(it)) => {
            let state = it.state.as_ref();
            let only = *it == ConntrackMatch { state: it.state, ..ConntrackMatch::default() };
            only && state.is_some_and(|set| {
                (if set.negated { !set.value } else { set.value }) & state_class::ESTABLISHED != 0
            })
        }
        _ => false,
    });
    bare.is_bare() && only_states && matches!(rule.target, TargetSpec::Accept)
}

/// Counters of the daemon at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When.
    pub now: Nanos,
    /// Percent of the connection table.
    pub occupancy: f64,
    /// Connections that began, ever.
    pub begun: u64,
    /// Packets dropped, ever.
    pub dropped: u64,
    /// CPU time of each worker.
    pub cpu: Vec<Nanos>,
}

/// What is measured, as values; what is not known yet is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load([Option<f64>; 4]);

impl Load {
    /// The value of one of them.
    pub fn of(&self, gauge: Gauge) -> Option<f64> {
        self.0[gauge as usize]
    }
}

/// From counters to values.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    begun: Rate,
    dropped: Rate,
    cpu: Vec<Rate>,
}

impl Meter {
    /// Takes in a reading.
    pub fn see(&mut self, reading: &Reading) -> Load {
        self.cpu.resize(reading.cpu.len(), Rate::default());
        let cpu = self.cpu.iter_mut().zip(&reading.cpu);
        // Nanoseconds a second, in percent.
        let busy = cpu.filter_map(|(rate, time)| rate.see(time.0, reading.now)).map(|it| it / 1e7);
        Load([
            Some(reading.occupancy),
            self.begun.see(reading.begun, reading.now),
            busy.fold(None, |most, it| Some(most.map_or(it, |most: f64| most.max(it)))),
            self.dropped.see(reading.dropped, reading.now),
        ])
    }
}

/// Who decides whether a profile is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hand {
    /// Its conditions.
    #[default]
    Auto,
    /// Somebody has put it in force.
    On,
    /// Somebody has taken it out of force.
    Off,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Number of the profile.
    pub profile: usize,
    /// Whether it comes into force.
    pub on: bool,
    /// Why, in words.
    pub why: String,
}

#[derive(Clone, Debug)]
struct State {
    levels: Vec<Level>,
    hand: Hand,
    active: bool,
}

/// Says which profiles are to be in force.
#[derive(Clone, Debug)]
pub struct Machine {
    profiles: Vec<Profile>,
    states: Vec<State>,
    paused: bool,
}

impl Machine {
    /// None is in force.
    pub fn new(profiles: Vec<Profile>) -> Self {
        let state = |profile: &Profile| State {
            levels: vec![Level::default(); profile.when.len()],
            hand: Hand::Auto,
            active: false,
        };
        let states = profiles.iter().map(state).collect();
        Self { profiles, states, paused: false }
    }

    /// The profiles.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// Whether a profile is in force, and who decides.
    pub fn state(&self, profile: usize) -> (bool, Hand) {
        (self.states[profile].active, self.states[profile].hand)
    }

    /// Whether conditions change nothing.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Lets conditions change nothing, or something again.
    pub fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Somebody decides; false when there is no such profile.
    pub fn set_hand(&mut self, name: &str, hand: Hand) -> bool {
        let Some(at) = self.profiles.iter().position(|it| it.name == name) else { return false };
        self.states[at].hand = hand;
        true
    }

    /// It could not be done: it is tried again.
    pub fn undone(&mut self, turn: &Turn) {
        self.states[turn.profile].active = !turn.on;
    }

    /// Takes in what is measured; what there is to do, ends first.
    pub fn see(&mut self, load: &Load, now: Nanos) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (index, (profile, state)) in self.profiles.iter().zip(&mut self.states).enumerate() {
            let mut why = Vec::new();
            for (condition, level) in profile.when.iter().zip(&mut state.levels) {
                let Some(value) = load.of(condition.gauge) else { continue };
                let bounds = Bounds {
                    enter: condition.enter,
                    leave: condition.leave,
                    hold_in: profile.hold,
                    hold_out: profile.release,
                };
                level.see(value, &bounds, now);
                if level.is_active() {
                    let (name, unit) = (condition.gauge.name(), condition.gauge.unit());
                    why.push(format!("{name} {value:.0} {unit} (from {:.0})", condition.enter));
                }
            }
            let wanted = match state.hand {
                Hand::On => true,
                Hand::Off => false,
                Hand::Auto if self.paused => state.active,
                Hand::Auto => !why.is_empty(),
            };
            if wanted == state.active {
                continue;
            }
            state.active = wanted;
            let why = match (state.hand, wanted) {
                (Hand::On, _) => "put in force by hand".to_owned(),
                (Hand::Off, _) => "taken out of force by hand".to_owned(),
                (Hand::Auto, true) => why.join(", "),
                (Hand::Auto, false) => "the pressure is gone".to_owned(),
            };
            turns.push(Turn { profile: index, on: wanted, why });
        }
        turns.sort_by_key(|turn| turn.on);
        turns
    }
}
