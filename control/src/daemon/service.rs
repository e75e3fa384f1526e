//! What the control socket can ask of the daemon. Called from many threads. Changes of the
//! policy are `change`'s.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::conntrack::{ConfigError, Conntrack};
use dataplane::fib::Network;
use dataplane::packet::Family;

use super::change::Ledger;
use super::connections::{Table, beside};
use super::fleet::WorkerSight;
use super::logwriter::{LogDesk, LogSettings};
use super::matrix::MatrixDesk;
use super::ports::PortBoard;
use super::reload::Desk;
use super::sets::SetDesk;
use super::taps::TapDesk;
use super::telemetry::Telemetry;
use super::watch::Events;
use super::{failure, records, status, talkers, tallies, views};
use crate::api::protocol::{
    ConntrackWatch, Explained, FailureInfo, PacketTrace, Stats, Status, VersionInfo,
};
use crate::api::{Code, Failure, Feed, Handler, Peer, Request, Response};
use crate::apply::PolicyStore;
use crate::config::Configured;
use crate::explain::{self, Description, ExplainError};
use crate::iptables::TableNames;
use crate::model::expiry::in_force;
use crate::state::{Keeper, Pace, Progress};

/// The network in force, and what of it was simplified.
#[derive(Clone, Debug)]
pub(super) struct NetworkInForce {
    pub(super) network: Arc<Network>,
    pub(super) notes: Vec<String>,
}

/// The daemon as the control socket sees it.
#[derive(Debug)]
pub(super) struct Service {
    store: Arc<PolicyStore>,
    conntrack: Arc<Conntrack>,
    sets: Arc<SetDesk>,
    ports: Vec<String>,
    network: Mutex<NetworkInForce>,
    taps: Arc<TapDesk>,
    workers: Vec<WorkerSight>,
    log: Arc<LogDesk>,
    logging: LogSettings,
    board: Arc<PortBoard>,
    program: super::ProgramSight,
    state: Option<StateSight>,
    desk: Desk,
    ledger: Ledger,
    matrix: MatrixDesk,
    telemetry: Telemetry,
    host_road: bool,
    failure: super::Failure,
    stop: Arc<AtomicBool>,
    started: Nanos,
}

/// What a [`Service`] is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) store: Arc<PolicyStore>,
    pub(super) conntrack: Arc<Conntrack>,
    pub(super) sets: Arc<SetDesk>,
    pub(super) ports: Vec<String>,
    pub(super) network: NetworkInForce,
    pub(super) taps: Arc<TapDesk>,
    pub(super) workers: Vec<WorkerSight>,
    pub(super) log: Arc<LogDesk>,
    pub(super) logging: LogSettings,
    pub(super) board: Arc<PortBoard>,
    pub(super) program: super::ProgramSight,
    pub(super) state: Option<StateSight>,
    pub(super) configured: Configured,
    pub(super) ledger: Ledger,
    pub(super) host_road: bool,
    pub(super) failure: super::Failure,
    pub(super) stop: Arc<AtomicBool>,
}

/// The state file, as others may see it.
pub(super) struct StateSight {
    path: String,
    pace: Pace,
    progress: Box<dyn Fn() -> Progress + Send + Sync>,
}

impl std::fmt::Debug for StateSight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateSight").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StateSight {
    pub(super) fn of(config: &super::Config, keeper: Option<&Keeper>) -> Option<Self> {
        let path = config.state.as_ref()?.display().to_string();
        let progress = Box::new(keeper?.sight());
        Some(Self { path, pace: keeper?.pace(), progress })
    }
}

impl Service {
    pub(super) fn stats(&self) -> Stats {
        let mut stats = views::stats(&self.workers, &self.conntrack, &self.log);
        (stats.uptime_ms, stats.generation) = (self.uptime_ms(), self.store.generation());
        stats.retired = self.store.retired();
        let ports = self.network().network.ports().len();
        stats.xdp = self.program.totals(ports);
        self.program.blocking().add_to_stats(&mut stats, ports);
        stats
    }

    pub(super) fn new(parts: Parts) -> Self {
        let rules = parts.configured.settings.metrics_rules.value.0 as usize;
        let telemetry = Telemetry::new(rules);
        Self {
            store: parts.store,
            conntrack: parts.conntrack,
            sets: parts.sets,
            ports: parts.ports,
            network: Mutex::new(parts.network),
            taps: parts.taps,
            workers: parts.workers,
            log: parts.log,
            logging: parts.logging,
            board: parts.board,
            program: parts.program,
            state: parts.state,
            desk: Desk::new(parts.configured),
            ledger: parts.ledger,
            matrix: MatrixDesk::default(),
            telemetry,
            host_road: parts.host_road,
            failure: parts.failure,
            stop: parts.stop,
            started: monotonic(),
        }
    }

    pub(super) fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    pub(super) fn sets(&self) -> &SetDesk {
        &self.sets
    }

    pub(super) fn program(&self) -> &super::ProgramSight {
        &self.program
    }

    pub(super) fn taps(&self) -> &TapDesk {
        &self.taps
    }

    pub(super) fn has_host_road(&self) -> bool {
        self.host_road
    }

    fn log_report(&self) -> Response {
        let report = records::report(&self.workers, &self.log, &self.logging);
        Response::Log(Box::new(report))
    }

    /// Looks how much was denied since the last time. Every second or so.
    pub(super) fn sample_denied(&self, now_s: u64) {
        let mut stats = views::stats(&self.workers, &self.conntrack, &self.log);
        self.program.blocking().add_to_stats(&mut stats, self.ports.len());
        self.store.denials().see(views::denied(&stats), now_s);
    }

    /// The running policy.
    pub(super) fn store(&self) -> &PolicyStore {
        &self.store
    }

    pub(super) fn set_network(&self, in_force: NetworkInForce) {
        *self.network.lock().unwrap_or_else(PoisonError::into_inner) = in_force;
    }

    /// Adds a note in the place of one that it follows up.
    pub(super) fn replace_note(&self, old: &str, note: String) {
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        network.notes.retain(|known| known != old);
        network.notes.push(note);
    }

    pub(super) fn network(&self) -> NetworkInForce {
        self.network.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The daemon in a line.
    pub(super) fn status_line(&self) -> String {
        let (workers, ports) = (self.workers.len(), self.ports.join(", "));
        let (policy, connections) = (self.store.generation(), self.conntrack.len());
        format!("{workers} worker(s) on {ports}; policy {policy}; {connections} connections")
    }

    /// What there is to say of the ports and the network.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = self.board.notes();
        notes.extend(self.network().notes);
        notes
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(super) fn matrix_desk(&self) -> &MatrixDesk {
        &self.matrix
    }

    pub(super) fn workers(&self) -> &[WorkerSight] {
        &self.workers
    }

    pub(super) fn board(&self) -> &PortBoard {
        &self.board
    }

    pub(super) fn logging(&self) -> &LogSettings {
        &self.logging
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// How saving the state goes, where it is kept.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.state.as_ref().map(|state| (state.progress)())
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    pub(super) fn log(&self) -> &LogDesk {
        &self.log
    }

    /// How often the state is saved, where it is.
    pub(super) fn pace(&self) -> Option<&Pace> {
        self.state.as_ref().map(|state| &state.pace)
    }

    fn explain(&self, words: &[String]) -> Result<Response, Failure> {
        let refused = |error: ExplainError| {
            let code = match error {
                ExplainError::Disagree { .. } => Code::Internal,
                _ => Code::Refused,
            };
            Failure::new(code, error.to_string())
        };
        let packet = Description::parse(words).map_err(|error| refused(error.into()))?;
        let (v4, v6) = self
            .store
            .read(|policy| (policy.rules(Family::V4).clone(), policy.rules(Family::V6).clone()));
        let now_s = wall_us() / 1_000_000;
        let v4 = in_force(&v4, now_s).unwrap_or(v4);
        let v6 = in_force(&v6, now_s).unwrap_or(v6);
        let network = Some(self.network().network);
        let names = TableNames::of_host();
        let sets = crate::ipset::twin(self.sets.registry(), monotonic(), explain::NOW);
        let sets = sets.map_err(|error| refused(error.into()))?;
        let explanation =
            explain::explain(&v4, &v6, &sets, network, beside(&self.conntrack), &packet, &names)
                .map_err(refused)?;
        let manager = self.manager_of(&packet).map(|entry| entry.to_string());
        let past = manager.as_ref().map_or_else(String::new, |entry| {
            format!("management: \"{entry}\" lets it past every rule; they would say:\n")
        });
        Ok(Response::Explained(Explained {
            text: past + &explain::render(&explanation),
            management: manager,
            explanation: serde_json::to_value(&explanation)
                .map_err(|error| Failure::new(Code::Internal, error.to_string()))?,
        }))
    }

    fn rules(&self, wanted: &views::Wanted) -> Result<Response, Failure> {
        self.store.sample(wall_us() / 1_000_000);
        let tracks = self.store.tracks_of(self.store.generation());
        let rules = self.store.read(|view| views::rules(view, &tracks, wanted, self.host_road));
        match wanted.absence() {
            Some(message) if rules.chains.is_empty() => Err(Failure::new(Code::Refused, message)),
            _ => Ok(Response::Rules(rules)),
        }
    }

    pub(super) fn version(&self) -> VersionInfo {
        VersionInfo {
            portcullis: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            pid: std::process::id(),
            generation: self.store.generation(),
            uptime_ms: self.uptime_ms(),
        }
    }

    fn table(&self) -> Table<'_> {
        Table { conntrack: &self.conntrack, ports: &self.ports }
    }

    fn failure(&self) -> FailureInfo {
        failure::info(&self.failure, &self.ports, &self.program, &self.workers)
    }

    fn status(&self) -> Status {
        let state = self.state.as_ref();
        Status {
            version: self.version(),
            connections: self.conntrack.len() as u64,
            host_road: views::host_road(&self.workers),
            failure: self.failure(),
            state: state.map(|it| status::state(&it.path, (it.progress)())),
            log: status::log(&self.log),
            changes: self.nags(),
        }
    }

    fn settings(&self) -> Response {
        let named = self.conntrack.entries().map(|(name, value)| (name.to_owned(), value));
        Response::Settings { values: named.collect() }
    }

    fn set_settings(&self, values: &BTreeMap<String, u64>) -> Result<Response, Failure> {
        let refused = |error: ConfigError| Failure::new(Code::Refused, error.to_string());
        for (name, &value) in values {
            self.conntrack.accepts(name, value).map_err(refused)?;
        }
        for (name, &value) in values {
            self.conntrack.set(name, value).map_err(refused)?;
            tracing::info!("{name} = {value}");
        }
        Ok(self.settings())
    }

    /// What is asked of the sets.
    fn on_sets(&self, request: Request) -> Result<Response, Failure> {
        match request {
            Request::ShowSets { name } => {
                Ok(Response::Sets { sets: self.sets.show(name.as_deref())? })
            }
            Request::ShowSetEntries { name, cursor, limit } => {
                Ok(Response::SetEntries(self.sets.entries(&name, cursor, limit)?))
            }
            Request::ShowSetUses { name } => {
                let uses = self.store.read(|policy| self.sets.uses(&name, policy))?;
                Ok(Response::SetUses { uses })
            }
            Request::ChangeSet { line, exist } => {
                self.spare_objects(&line)?;
                Ok(Response::SetChanged(self.sets.command(&line, exist)?))
            }
            Request::RestoreSets { file, exist } => {
                self.spare_objects(&file.text)?;
                Ok(Response::SetChanged(self.sets.restore(&file, exist)?))
            }
            _ => Err(Failure::new(Code::BadRequest, "this is not about sets")),
        }
    }

    fn stop(&self) -> Response {
        self.stop.store(true, Ordering::Relaxed);
        Response::Stopping {}
    }

    fn uptime_ms(&self) -> u64 {
        (monotonic() - self.started).0 / Nanos::MILLISECOND.0
    }
}

impl Handler for Service {
    fn watch(&self, wanted: ConntrackWatch) -> Result<Box<dyn Feed>, Failure> {
        Ok(Box::new(Events::begin(&self.conntrack, &self.ports, wanted)?))
    }

    fn trace(&self, wanted: &PacketTrace) -> Result<Box<dyn Feed>, Failure> {
        Ok(Box::new(self.taps.begin(wanted, &self.ports, &self.store)?))
    }

    fn handle(&self, request: Request, peer: Peer) -> Result<Response, Failure> {
        match request {
            Request::Version {} => Ok(Response::Version(self.version())),
            Request::ShowStatus {} => Ok(Response::Status(Box::new(self.status()))),
            request @ (Request::Apply(_)
            | Request::Rollback(_)
            | Request::Confirm(_)
            | Request::Reconcile(_)
            | Request::Reload(_)
            | Request::ShowHistory { .. }
            | Request::ShowStored { .. }) => self.on_changes(request, peer),
            Request::ShowRules { family, table, chain } => {
                self.rules(&views::Wanted { family, table, chain })
            }
            Request::SaveRules { family, counters } => {
                let text = self.store.read(|view| views::save(view, family, counters));
                Ok(Response::Saved { family, text })
            }
            Request::ShowPorts {} => {
                let counters = |port| self.program.counters(port);
                let mut ports = views::ports(&self.network(), &self.workers, &self.board, counters);
                self.program.blocking().add_to_ports(&mut ports);
                ports.notes = self.notes();
                ports.failure = Some(self.failure());
                Ok(Response::Ports(ports))
            }
            Request::ShowBlocklist {} => Ok(Response::Blocklist(self.program.blocking().info())),
            Request::ShowMatrix {} => Ok(self.show_matrix()),
            Request::RunMatrix(wanted) => self.run_live(wanted),
            Request::ShowManagement {} => Ok(self.management()),
            Request::ShowAccounts { reset } => {
                Ok(Response::Accounts { entries: self.store.accounts(reset) })
            }
            Request::ShowLimits { table } => tallies::limits(&self.store, table.as_deref()),
            Request::ShowRecent { list } => tallies::recent(&self.store, list.as_deref()),
            Request::ChangeRecent { list, change } => {
                tallies::change_recent(&self.store, &list, &change)
            }
            request @ (Request::ShowMetrics {}
            | Request::ShowPressure {}
            | Request::ChangePressure { .. }) => self.on_telemetry(request),
            Request::ShowStats {} => Ok(Response::Stats(self.stats())),
            Request::ShowTalkers(asked) => Ok(talkers::talkers(&self.conntrack, asked.limit)),
            Request::ShowDenied {} => Ok(Response::Denied(self.store.denials().clone())),
            Request::ShowLog {} => Ok(self.log_report()),
            Request::ShowTrace { from, limit } => Ok(records::traces(&self.log, from, limit)),
            Request::ShowSettings {} => Ok(self.settings()),
            Request::SetSettings { values } => self.set_settings(&values),
            Request::ShowConntrack(query) => Ok(Response::Conntrack(self.table().list(query))),
            Request::DeleteConntrack(wanted) => Ok(Response::Deleted(self.table().delete(&wanted))),
            Request::WatchConntrack(_) | Request::TracePackets(_) => {
                Err(Failure::new(Code::BadRequest, "to be asked for through a connection"))
            }
            Request::ShowExpect {} => {
                Ok(Response::Expectations { rows: self.table().expectations() })
            }
            Request::FlushExpect {} => {
                Ok(Response::Flushed { flushed: self.conntrack.flush_expectations() as u64 })
            }
            Request::FlushConntrack {} => Ok(Response::Flushed { flushed: self.table().flush() }),
            Request::Explain { packet } => self.explain(&packet),
            request @ (Request::ShowSets { .. }
            | Request::ShowSetEntries { .. }
            | Request::ShowSetUses { .. }
            | Request::ChangeSet { .. }
            | Request::RestoreSets { .. }) => self.on_sets(request),
            Request::ShowConfig {} => Ok(Response::Config(self.desk.info())),
            Request::Stop {} => Ok(self.stop()),
        }
    }
}
