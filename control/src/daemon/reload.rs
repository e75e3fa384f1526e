//! Reading the files again: what can change live changes as one checked step, what needs a
//! restart is told.
//!
//! Everything that can be refused is refused before anything is changed: the configuration
//! file, the policy's text, the settings, the new log file. What may still fail goes first,
//! the management list and then the policy; if the policy fails, the list goes back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use dataplane::clock::Nanos;
use dataplane::conntrack;
use dataplane::port::management::List;
use dataplane::sets::SetError;

use super::change::{How, Order, Refusal};
use super::logwriter;
use super::notify;
use super::policy::{self, Texts};
use super::service::Service;
use super::sets::FromFiles;
use crate::api::protocol::{ConfigChange, ConfigInfo, Reload, Reloaded};
use crate::api::{Code, Failure, Peer};
use crate::config::{self, Change, Configured, Plan, Refused, Settings};
use crate::diagnostics::{Code as Kind, Finding, Severity};
use crate::history::Action;

/// The configuration in force.
#[derive(Debug)]
pub(super) struct InForce {
    configured: Configured,
    /// What waits for a restart.
    pending: Vec<ConfigChange>,
}

/// The configuration in force, and whose turn it is to change it.
#[derive(Debug)]
pub(super) struct Desk {
    in_force: Mutex<InForce>,
    turn: Mutex<()>,
}

impl Desk {
    pub(super) fn new(configured: Configured) -> Self {
        let in_force = Mutex::new(InForce { configured, pending: Vec::new() });
        Self { in_force, turn: Mutex::new(()) }
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The matrix of flows, and how often it is run; 0: never.
    pub(super) fn matrix(&self) -> (Option<PathBuf>, Nanos) {
        let in_force = self.in_force();
        let settings = &in_force.configured.settings;
        let every = Nanos::from_secs(settings.matrix_interval.value.0);
        (settings.matrix.value.clone(), every)
    }

    /// What `show_config` tells.
    pub(super) fn info(&self) -> ConfigInfo {
        let in_force = self.in_force();
        in_force.configured.info(in_force.pending.clone())
    }
}

/// What is ready to be put in force.
struct Prepared {
    plan: Plan,
    configured: Configured,
    texts: Texts,
    settings: Vec<(String, u64)>,
    /// Another log file, open.
    log: Option<Option<(PathBuf, File)>>,
}

impl Service {
    /// The same as `portcullis reload`, for SIGHUP; the outcome is logged.
    pub(super) fn reload_in_background(self: &Arc<Self>) {
        let service = Arc::clone(self);
        let run = move || service.reload_and_tell();
        let spawned = std::thread::Builder::new().name("reload".to_owned()).spawn(run);
        if let Err(error) = spawned {
            tracing::error!("reload: {error}; everything stays as it was");
        }
    }

    fn reload_and_tell(&self) {
        let done = match self.reload(Reload::default(), Peer::default()) {
            Ok(done) => done,
            Err(failure) => {
                for it in &failure.findings {
                    let remedy = it.remedy.as_deref().unwrap_or_default();
                    let place = format!("{}:{}:{}", it.file, it.line, it.column);
                    tracing::error!("reload: {place}: {} {remedy}", it.message);
                }
                return tracing::error!("reload: {}", failure.message);
            }
        };
        for it in &done.changed {
            tracing::info!("reload: {} changed", it.key);
        }
        for it in &done.restart {
            let why = it.why.as_deref().unwrap_or("it needs a restart");
            tracing::warn!("reload: {} stays as it was: {why}", it.key);
        }
        match done.policy {
            Some(policy) => tracing::info!("reload: generation {}", policy.generation),
            None => tracing::info!("reload: done; there are no policy files"),
        }
    }

    /// Reads the files again.
    pub(super) fn reload(&self, order: Reload, peer: Peer) -> Result<Reloaded, Failure> {
        let _turn = match self.desk().turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(Code::Busy, "another reload is in progress"));
            }
        };
        if order.dry_run {
            return self.reload_in_turn(order, peer);
        }
        notify::reloading();
        let outcome = self.reload_in_turn(order, peer);
        notify::ready(&self.status_line());
        outcome
    }

    fn reload_in_turn(&self, order: Reload, peer: Peer) -> Result<Reloaded, Failure> {
        let Reload { dry_run, session, force, terms } = order;
        let prepared = self.prepare(dry_run)?;
        let wire = |changes: &[Change]| changes.iter().map(on_the_wire).collect::<Vec<_>>();
        let (changed, restart) = (wire(&prepared.plan.live), wire(&prepared.plan.restart));
        let file = prepared.configured.source.file.as_ref();
        let mut reloaded = Reloaded {
            dry_run,
            file: file.map(|file| file.display().to_string()),
            changed,
            restart,
            policy: None,
            findings: Vec::new(),
        };
        if dry_run {
            let matrix = prepared.plan.next.matrix.value.as_deref();
            reloaded.findings = self.rehearse(&prepared.texts, matrix)?;
            return Ok(reloaded);
        }
        let management = self.put_management(&prepared)?;
        if management.is_some() {
            let guarded = self.guard_list(session.as_ref(), force, &prepared.texts);
            guarded.inspect_err(|_| self.restore_management(management.clone()))?;
        }
        let Texts { v4, v6, sets } = &prepared.texts;
        if v4.is_some() || v6.is_some() || !sets.is_empty() {
            let how = How::default();
            let texts = &prepared.texts;
            let order = Order {
                how,
                session,
                force,
                matrix: prepared.plan.next.matrix.value.clone(),
                ..Order::of(Action::Reload, texts, terms, peer)
            };
            let done = self.change(order).inspect_err(|_| {
                self.restore_management(management);
            })?;
            reloaded.policy = Some(done);
        }
        self.commit(prepared, reloaded.restart.clone());
        Ok(reloaded)
    }

    /// Reads everything and finds what stands in the way.
    fn prepare(&self, dry_run: bool) -> Result<Prepared, Failure> {
        let (source, old) = {
            let in_force = self.desk().in_force();
            (in_force.configured.source.clone(), in_force.configured.settings.clone())
        };
        let configured = source.load().map_err(|error| refused(&error))?;
        if let Err(conflict) = configured.clone().resolve() {
            let finding = source.file.as_deref().and_then(|file| conflict.finding(file));
            return Err(match finding {
                Some(finding) => refusal(&[finding]),
                None => Failure::new(Code::Refused, conflict.to_string()),
            });
        }
        let new = &configured.settings;
        let plan = config::plan(&old, new, |change| self.hindrance(change));
        let settings = targets(&old, &plan.next);
        let (v4, v6) = (plan.next.rules.value.as_deref(), plan.next.rules6.value.as_deref());
        let texts =
            Texts::read(v4, v6, &plan.next.sets()).map_err(|findings| refusal(&findings))?;
        let log = match plan.next.log.value != old.log.value {
            true => Some(self.other_log(&plan.next, &source.file, dry_run)?),
            false => None,
        };
        Ok(Prepared { plan, configured, texts, settings, log })
    }

    /// Why a key that is live cannot change live this time.
    fn hindrance(&self, change: &Change) -> Option<String> {
        match change.key.as_str() {
            "policy.rules" | "policy.rules6" if change.new.is_none() => {
                Some("a family keeps its policy; `apply` an empty one to be without".to_owned())
            }
            key => {
                let name = match key {
                    "conntrack.max" => "max",
                    _ => key.strip_prefix("conntrack.settings.")?,
                };
                let value = change.new.as_ref().and_then(toml::Value::as_integer);
                let value = value.and_then(|value| u64::try_from(value).ok());
                let value = value.or_else(|| default(name))?;
                self.conntrack().accepts(name, value).err().map(|error| error.to_string())
            }
        }
    }

    /// The new log file, open; standard error without one.
    fn other_log(
        &self,
        next: &Settings,
        file: &Option<PathBuf>,
        dry_run: bool,
    ) -> Result<Option<(PathBuf, File)>, Failure> {
        let Some(path) = next.log.value.clone() else { return Ok(None) };
        // Asking must not make a file.
        let opened = match dry_run {
            true => logwriter::can_open(&path).map(|()| None),
            false => logwriter::open(&path).map(|file| Some((path.clone(), file))),
        };
        opened.map_err(|error| {
            let message = format!("log file {} cannot be opened: {error}", path.display());
            match (next.log.origin, file) {
                (config::Origin::File(at), Some(file)) => {
                    let file = file.display().to_string().into();
                    refusal(&[Finding::new(Severity::Error, Kind::Unreadable, &file, at, message)])
                }
                _ => Failure::new(Code::Refused, message),
            }
        })
    }

    /// Texts as a change that can be honoured here.
    pub(super) fn parse(
        &self,
        texts: &Texts,
        written_counters: bool,
    ) -> Result<policy::Parsed, Vec<Finding>> {
        let network = self.network().network;
        let parsed = policy::parse(texts, written_counters, self.conntrack(), network.mode())?;
        self.allow_owners(&parsed.change, texts)?;
        Ok(parsed)
    }

    /// Whether the policy would be accepted.
    fn rehearse(
        &self,
        texts: &Texts,
        matrix: Option<&Path>,
    ) -> Result<Vec<crate::api::protocol::Finding>, Failure> {
        let mut parsed = self.parse(texts, false).map_err(|findings| refusal(&findings))?;
        let files = FromFiles::read(&texts.sets).map_err(|findings| refusal(&findings))?;
        parsed.findings.extend(files.findings.iter().cloned());
        let _turn = self.sets().turn();
        let tried = self.sets().try_out(files, false);
        let impossible = |error: SetError| Failure::new(Code::Refused, error.to_string());
        let tried = tried.map_err(impossible)?;
        parsed.change.sets = Some(tried.overlay());
        if matrix.is_some() {
            let sets = tried.foreseen().map_err(impossible)?;
            self.pass_gate(matrix, &parsed.change, &sets, false)?;
        }
        self.store().rehearse(parsed.change).map_err(|error| {
            match policy::compile_finding(&error, texts) {
                Some(finding) => refusal(&[finding]),
                None => Failure::from(Refusal::Apply(error)),
            }
        })?;
        Ok(policy::on_the_wire(&parsed.findings))
    }

    /// Puts the management list in force if it is another, and returns the one before.
    fn put_management(&self, prepared: &Prepared) -> Result<Option<List>, Failure> {
        let refuse = |error: &dyn std::fmt::Display| {
            let message = format!("the management list: {error}; everything stays as it was");
            Failure::new(Code::Internal, message)
        };
        let list = |settings: &Settings| settings.management_list().map_err(|error| refuse(&error));
        let before = list(&self.desk().in_force().configured.settings)?;
        let next = list(&prepared.plan.next)?;
        if before == next {
            return Ok(None);
        }
        self.program().set_management(&next).map_err(|error| {
            self.restore_management(Some(before.clone()));
            refuse(&error)
        })?;
        Ok(Some(before))
    }

    fn restore_management(&self, before: Option<List>) {
        let Some(before) = before else { return };
        if let Err(error) = self.program().set_management(&before) {
            tracing::error!("the management list cannot be put back: {error}");
        }
    }

    /// Puts in force what cannot fail any more.
    fn commit(&self, prepared: Prepared, pending: Vec<ConfigChange>) {
        let Prepared { plan, mut configured, settings, log, .. } = prepared;
        let in_force = |name: &str| self.conntrack().get(name);
        for (name, value) in settings.into_iter().filter(|(name, to)| in_force(name) != Some(*to)) {
            match self.conntrack().set(&name, value) {
                Ok(()) => tracing::info!("{name} = {value}"),
                Err(error) => tracing::error!("reload: {error}"),
            }
        }
        match log {
            Some(target) => self.log().turn_to(target),
            None => self.log().reopen(),
        }
        if let Some(pace) = self.pace() {
            pace.set(Nanos::from_secs(plan.next.state_interval.value.0));
        }
        configured.settings = plan.next;
        *self.desk().in_force() = InForce { configured, pending };
    }
}

/// Connection tracking's own default.
fn default(name: &str) -> Option<u64> {
    conntrack::Config::new([0; 16]).get(name)
}

/// What the settings that either names are to be. What only `portcullis sysctl` has changed
/// is left alone.
fn targets(old: &Settings, next: &Settings) -> Vec<(String, u64)> {
    let mut targets = next.conntrack();
    for (name, _) in old.conntrack() {
        if !targets.iter().any(|(known, _)| *known == name) {
            targets.extend(default(&name).map(|value| (name, value)));
        }
    }
    targets
}

fn on_the_wire(change: &Change) -> ConfigChange {
    let json = |value: &Option<toml::Value>| {
        value.as_ref().and_then(|value| serde_json::to_value(value).ok())
    };
    ConfigChange {
        key: change.key.clone(),
        old: json(&change.old),
        new: json(&change.new),
        why: change.why.clone(),
    }
}

fn refused(error: &Refused) -> Failure {
    refusal(&error.findings)
}

fn refusal(findings: &[Finding]) -> Failure {
    let errors = findings.iter().filter(|it| it.severity == Severity::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    let message = format!("refused: {errors} error{plural}; everything stays as it was");
    Failure { code: Code::Refused, message, findings: policy::on_the_wire(findings) }
}
