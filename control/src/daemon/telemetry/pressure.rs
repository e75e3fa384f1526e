//! The pressure thread: reads the daemon several times a second, and does what profiles say.
//!
//! What a profile does is remembered in this process only: after a restart the policy files and
//! the configuration are in force, and a pressure that lasts is found anew. What somebody has
//! changed meanwhile, by hand or by a reload, is not put back.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic, wall_us};

use crate::api::protocol::{PressureChange, PressureEvent, PressureInfo, PressureProfile};
use crate::api::{Code, Failure, Response};
use crate::daemon::change::press::Pressed;
use crate::daemon::policy::Texts;
use crate::daemon::service::Service;
use crate::history::stamp;
use crate::pressure::{Gauge, Hand, Load, Machine, Meter, Profile, Reading, Turn};

/// How often the daemon is read.
const READ_EVERY: Duration = Duration::from_millis(250);
/// What could not be done is tried again after this.
const AGAIN: Nanos = Nanos::from_secs(1);
/// Events that are remembered.
const REMEMBERED: usize = 100;

/// What a profile has done.
#[derive(Debug, Default)]
struct Done {
    /// Settings with what they were, and what they were made.
    settings: Vec<(String, u64, u64)>,
    pressed: Option<Pressed>,
}

#[derive(Debug)]
struct State {
    machine: Machine,
    load: Load,
    done: Vec<Done>,
    /// Their policies, read and tried out when the daemon started; why not, if so.
    texts: Vec<Result<Option<Texts>, String>>,
    why: Vec<String>,
    /// What is done, not merely decided.
    live: Vec<bool>,
    events: Vec<PressureEvent>,
    not_before: Nanos,
}

/// The profiles, and what has become of them.
#[derive(Debug)]
pub(super) struct Valve {
    state: Mutex<State>,
}

impl Valve {
    /// Nothing is in force. The profiles' policies are read and tried out.
    pub(super) fn new(profiles: &[Profile], service: &Service) -> Self {
        let texts = profiles.iter().map(|profile| policy(profile, service)).collect();
        let state = State {
            machine: Machine::new(profiles.to_vec()),
            load: Load::default(),
            done: profiles.iter().map(|_| Done::default()).collect(),
            texts,
            why: vec![String::new(); profiles.len()],
            live: vec![false; profiles.len()],
            events: Vec::new(),
            not_before: Nanos(0),
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Profiles in force, and why.
    pub(super) fn active(&self) -> Vec<(String, String)> {
        let state = self.state();
        let profiles = state.machine.profiles().iter().enumerate();
        let active = profiles.filter(|(index, _)| state.live[*index]);
        active.map(|(index, it)| (it.name.clone(), state.why[index].clone())).collect()
    }

    /// Every profile, and whether it is in force.
    pub(super) fn states(&self) -> Vec<(String, bool)> {
        let state = self.state();
        let profiles = state.machine.profiles().iter().enumerate();
        profiles.map(|(index, it)| (it.name.clone(), state.live[index])).collect()
    }

    fn tick(&self, service: &Service, meter: &mut Meter) {
        let now = monotonic();
        let stats = service.stats();
        let (entries, capacity) = (stats.conntrack.entries, stats.conntrack.capacity);
        let load = meter.see(&Reading {
            now,
            occupancy: if capacity == 0 { 0.0 } else { entries as f64 * 100.0 / capacity as f64 },
            begun: stats.conntrack.counters.get("insert").copied().unwrap_or_default(),
            dropped: stats.drops.values().sum(),
            cpu: service.workers().iter().filter_map(|worker| worker.cpu()).collect(),
        });
        let turns = {
            let mut state = self.state();
            state.load = load;
            let turns = state.machine.see(&load, now);
            if now < state.not_before {
                turns.iter().for_each(|turn| state.machine.undone(turn));
                return;
            }
            turns
        };
        for turn in turns {
            self.carry_out(service, &turn, now);
        }
    }

    fn carry_out(&self, service: &Service, turn: &Turn, now: Nanos) {
        let (profile, texts, done) = {
            let mut state = self.state();
            let done = std::mem::take(&mut state.done[turn.profile]);
            let profile = state.machine.profiles()[turn.profile].clone();
            (profile, state.texts[turn.profile].clone(), done)
        };
        let mut said = Vec::new();
        let outcome = match turn.on {
            true => begin(service, &profile, texts, &turn.why, &mut said),
            false => end(service, &profile, done, &turn.why, &mut said),
        };
        let mut state = self.state();
        let name = &profile.name;
        let event = match outcome {
            Ok(done) => {
                state.done[turn.profile] = done;
                state.live[turn.profile] = turn.on;
                state.why[turn.profile].clone_from(&turn.why);
                if turn.on { "on" } else { "off" }
            }
            Err(left) => {
                let (done, trouble) = *left;
                state.done[turn.profile] = done;
                state.machine.undone(turn);
                state.not_before = now + AGAIN;
                said.push(format!("not done, tried again: {trouble}"));
                "failed"
            }
        };
        tracing::warn!("pressure profile {name} {event}: {}; {}", turn.why, said.join("; "));
        state.events.push(PressureEvent {
            at: stamp(wall_us()),
            profile: name.clone(),
            event: event.to_owned(),
            why: turn.why.clone(),
            done: said,
        });
        let more = state.events.len().saturating_sub(REMEMBERED);
        state.events.drain(..more);
    }

    fn info(&self) -> PressureInfo {
        let state = self.state();
        let profile = |(index, it): (usize, &Profile)| {
            let (active, (_, hand)) = (state.live[index], state.machine.state(index));
            PressureProfile {
                name: it.name.clone(),
                active,
                by: match hand {
                    Hand::Auto => "conditions",
                    Hand::On | Hand::Off => "hand",
                }
                .to_owned(),
                why: active.then(|| state.why[index].clone()),
                trouble: state.texts[index].as_ref().err().cloned(),
            }
        };
        let gauge = |gauge: &Gauge| Some((gauge.name().to_owned(), state.load.of(*gauge)?));
        PressureInfo {
            paused: state.machine.is_paused(),
            load: Gauge::ALL.iter().filter_map(gauge).collect(),
            profiles: state.machine.profiles().iter().enumerate().map(profile).collect(),
            events: state.events.clone(),
        }
    }
}

/// A profile's policy as it will be put in force.
fn policy(profile: &Profile, service: &Service) -> Result<Option<Texts>, String> {
    if profile.rules.is_none() && profile.rules6.is_none() {
        return Ok(None);
    }
    let none: [&std::path::Path; 0] = [];
    let read = Texts::read(profile.rules.as_deref(), profile.rules6.as_deref(), &none);
    let first = |findings: Vec<crate::diagnostics::Finding>| {
        let finding = findings.into_iter().next();
        finding.map_or_else(String::new, |it| format!("{}:{}: {}", it.file, it.line, it.message))
    };
    let tried = read.map_err(first).and_then(|texts| {
        let parsed = service.parse(&texts, false).map_err(first)?;
        for rules in [&parsed.change.v4, &parsed.change.v6].into_iter().flatten() {
            if !crate::pressure::keeps_established(rules) {
                let what = "its policy has no rule in filter FORWARD or INPUT that accepts what is \
                            established";
                return Err(what.to_owned());
            }
        }
        service.store().rehearse(parsed.change).map_err(|error| error.to_string())?;
        Ok(Some(texts))
    });
    tried.inspect_err(|trouble| {
        tracing::error!("pressure profile {} cannot be used: {trouble}", profile.name);
    })
}

/// What was done; or what is still, and why not more.
type Outcome = Result<Done, Box<(Done, String)>>;

fn begin(
    service: &Service,
    profile: &Profile,
    texts: Result<Option<Texts>, String>,
    why: &str,
    said: &mut Vec<String>,
) -> Outcome {
    let mut done = Done::default();
    // What may be refused goes first.
    let reason = format!("pressure profile {}: {why}", profile.name);
    match texts {
        Err(trouble) => return Err(Box::new((done, trouble))),
        Ok(None) => {}
        Ok(Some(texts)) => match service.press(&texts, &reason) {
            Ok(pressed) => {
                said.push("its policy is in force".to_owned());
                done.pressed = Some(pressed);
            }
            Err(failure) => return Err(Box::new((done, failure.message))),
        },
    }
    for (name, value) in &profile.timeouts {
        let Some(before) = service.conntrack().get(name).filter(|before| before > value) else {
            continue;
        };
        match service.conntrack().set(name, *value) {
            Ok(()) => {
                said.push(format!("{name} {before} -> {value}"));
                done.settings.push((name.clone(), before, *value));
            }
            Err(error) => said.push(error.to_string()),
        }
    }
    Ok(done)
}

fn end(
    service: &Service,
    profile: &Profile,
    mut done: Done,
    why: &str,
    said: &mut Vec<String>,
) -> Outcome {
    if let Some(pressed) = &done.pressed {
        let reason = format!("pressure profile {}: {why}", profile.name);
        match service.relieve(pressed, &reason) {
            Ok(true) => said.push("the policy before it is back".to_owned()),
            Ok(false) => said.push("the policy was changed meanwhile and stays".to_owned()),
            Err(failure) => return Err(Box::new((done, failure.message))),
        }
        done.pressed = None;
    }
    for (name, before, ours) in done.settings.drain(..) {
        if service.conntrack().get(&name) != Some(ours) {
            said.push(format!("{name} was changed meanwhile and stays"));
        } else if let Err(error) = service.conntrack().set(&name, before) {
            said.push(error.to_string());
        } else {
            said.push(format!("{name} {ours} -> {before}"));
        }
    }
    Ok(done)
}

/// Starts the thread, where there are profiles.
pub(super) fn start(
    service: &Arc<Service>,
    profiles: &[Profile],
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    let valve = Arc::new(Valve::new(profiles, service));
    if profiles.is_empty() {
        return Ok(());
    }
    let valve = Arc::clone(service.telemetry().valve.get_or_init(|| valve));
    let (service, stop): (Weak<Service>, _) = (Arc::downgrade(service), Arc::clone(stop));
    let run = move || {
        let mut meter = Meter::default();
        while !stop.load(Ordering::Relaxed) {
            let Some(service) = service.upgrade() else { return };
            valve.tick(&service, &mut meter);
            drop(service);
            std::thread::sleep(READ_EVERY);
        }
    };
    std::thread::Builder::new().name("pressure".to_owned()).spawn(run).map(drop)
}

impl Service {
    /// What `show_pressure` and `change_pressure` answer.
    pub(in crate::daemon) fn pressure(
        &self,
        change: Option<PressureChange>,
    ) -> Result<Response, Failure> {
        let Some(valve) = self.telemetry().valve.get() else {
            let none = PressureInfo::default();
            return match change {
                None => Ok(Response::Pressure(none)),
                Some(_) => Err(Failure::new(Code::Refused, "there are no [[pressure]] profiles")),
            };
        };
        let mut state = valve.state();
        let known = match &change {
            None => true,
            Some(PressureChange::Pause) => {
                state.machine.pause(true);
                true
            }
            Some(PressureChange::Resume) => {
                state.machine.pause(false);
                true
            }
            Some(PressureChange::On(name)) => state.machine.set_hand(name, Hand::On),
            Some(PressureChange::Off(name)) => state.machine.set_hand(name, Hand::Off),
            Some(PressureChange::Auto(name)) => state.machine.set_hand(name, Hand::Auto),
        };
        drop(state);
        if !known {
            return Err(Failure::new(Code::Refused, "there is no pressure profile of that name"));
        }
        if let Some(change) = change {
            tracing::warn!("pressure: {change:?} by hand");
        }
        Ok(Response::Pressure(valve.info()))
    }
}
