//! The daemon: one process that owns ports, workers, the network mirror, the
//! running policy and the control socket.
//!
//! Life cycle: everything that can be refused is refused before anything is
//! touched (policy, machine, control socket, ports, network); then the state of an
//! earlier process comes back, the ports are taken, workers start, and the control
//! socket answers. What is not needed any more is given up on the way (`sandbox`). A
//! stop, a signal, a fallen or a stuck worker ends it: workers first, then the process.
//! On failure open that detaches the BPF programs, and the kernel carries on by itself;
//! closed, they stay, and drop (`failure`). `kill -9` is the same without the farewell.
//!
//! Threads: one worker for each queue, the control thread and its connections,
//! the log thread, the state thread, and housekeeping on the main thread.

mod blocklist;
mod change;
mod connections;
mod error;
pub(crate) mod failure;
mod fleet;
mod forget;
mod guard;
mod health;
mod housekeeping;
mod keeping;
mod logwriter;
mod matrix;
mod notify;
mod owners;
pub mod policy;
mod ports;
pub mod preflight;
mod records;
mod reload;
pub mod sandbox;
mod service;
mod sets;
mod sight;
mod status;
mod talkers;
mod tallies;
mod taps;
mod telemetry;
mod timeouts;
mod views;
mod watch;
mod watchdog;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::clock::{Nanos, monotonic};
use dataplane::conntrack::{self, Conntrack};
use dataplane::engine::Switches;
use dataplane::fib::{Mode, Network};
use dataplane::port::afxdp::{self, AttachChoice, CopyMode, LinkInfo, Pins};
use dataplane::port::host::HostChoice;
use dataplane::port::management::List;
use dataplane::publish::Publisher;
use dataplane::worker::Outlets;

use crate::alert::Webhook;
use crate::api::Server;
use crate::apply::PolicyStore;
use crate::config::Configured;
use crate::diagnostics::Finding;
use crate::guard::Session;
use crate::history::Moment;
use crate::net::Mirror;
use crate::pressure::Profile;
use crate::state::{Keeper, Place, Restored};
use blocklist::Blocking;
pub use change::ChangeSettings;
use change::Ledger;
use change::begin::{self, Beginning};
pub use error::DaemonError;
use error::system;
pub use failure::{Failure, FailureError};
pub use fleet::Injection;
use fleet::{Fleet, Terms};
use housekeeping::{NetworkSide, Signals};
use keeping::{keep_state, restore_state, state_note};
use logwriter::LogThread;
pub use logwriter::{CaptureSettings, LogSettings, Rotation};
use notify::Duties;
use owners::Questions;
use policy::Texts;
use ports::{KeptPorts, PortBoard, PortKeeper};
use preflight::Holds;
use sandbox::Sandbox;
use service::{NetworkInForce, Parts, Service, StateSight};
use sets::lasting::SetKeeper;
use sets::{FromFiles, SetDesk};
use sight::ProgramSight;
pub use telemetry::MetricsSettings;
pub use timeouts::NamedTimeouts;

/// What to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Interfaces; positions become port ids.
    pub ports: Vec<String>,
    /// IPv4 policy.
    pub rules: Option<PathBuf>,
    /// IPv6 policy.
    pub rules6: Option<PathBuf>,
    /// Files and directories of sets.
    pub sets: Vec<PathBuf>,
    /// Whether the counters written in the files are taken, as by
    /// `iptables-restore -c`.
    pub counters: bool,
    /// What to do with frames.
    pub mode: Mode,
    /// Whether this machine's own packets go through the policy too.
    pub host: HostChoice,
    /// Who reaches which service of this machine whatever the policy says.
    pub management: List,
    /// The session that starts it, to be told if it is cut.
    pub session: Option<Session>,
    /// Workers; by default as many as the ports have queues.
    pub workers: Option<usize>,
    /// How the XDP program may be attached.
    pub attach: AttachChoice,
    /// Whether frames may cross without a copy.
    pub copy: CopyMode,
    /// Most addresses, of each family, that the XDP program drops by itself.
    pub blocklist: u32,
    /// Roads of the engine beside the plain one.
    pub switches: Switches,
    /// What holds when the daemon fails.
    pub failure: Failure,
    /// The control socket.
    pub socket: PathBuf,
    /// A group whose members may use it, besides root.
    pub socket_group: Option<u32>,
    /// Whom to become and what to give up.
    pub sandbox: Sandbox,
    /// Where LOG lines go; standard error by default.
    pub log: Option<PathBuf>,
    /// How records are limited, and where else they go.
    pub logging: LogSettings,
    /// Where connections and limits outlive the process, if anywhere.
    pub state: Option<PathBuf>,
    /// How often they are saved.
    pub state_every: Nanos,
    /// Where policies are recorded, and what changes need.
    pub changes: ChangeSettings,
    /// What is done under pressure.
    pub pressure: Vec<Profile>,
    /// Who is told what happens.
    pub alerts: Vec<Webhook>,
    /// What is told to whoever scrapes.
    pub metrics: MetricsSettings,
    /// Connection tracking and reassembly settings by the kernel's names.
    pub conntrack: Vec<(String, u64)>,
    /// Faults on every wire, for tests.
    pub faults: Option<Injection>,
    /// Named timeouts.
    pub timeouts: Vec<NamedTimeouts>,
    /// What all this was made from.
    pub configured: Configured,
}

/// Workers at most: there are so many beats.
const WORKERS_MAX: u32 = 256;
/// How long the log thread may take to write what is left at the end.
const LOG_FAREWELL: Nanos = Nanos::SECOND;

/// A daemon that has its ports.
#[derive(Debug)]
struct Daemon {
    config: Config,
    service: Arc<Service>,
    network: NetworkSide,
    conntrack: Arc<Conntrack>,
    outlets: Outlets,
    fleet: Fleet,
    log: LogThread,
    keeper: Option<Keeper>,
    set_keeper: Option<SetKeeper>,
    ports: PortKeeper,
}

/// Runs the daemon until it is told to stop. `ready` is called once frames flow and the
/// control socket answers, with the remarks on the policy and the network.
pub fn run(config: Config, ready: impl FnOnce(&Ready<'_>)) -> Result<(), DaemonError> {
    let signals = listen()?;
    // First, while nothing of root is given up.
    let (pins, mounted) = failure::survey(&config.failure)?;
    sandbox::enter(&config.sandbox, &sandbox::places(&config), config.socket_group)?;
    let texts = Texts::read(config.rules.as_deref(), config.rules6.as_deref(), &config.sets)
        .map_err(|findings| refused(findings, Texts::default()))?;
    let beginning = begin::begin(&config.changes, texts, &Moment::now());
    let texts = beginning.texts.clone();
    let conntrack = Arc::new(conntrack_table(&config)?);
    let parsed = policy::parse(&texts, config.counters, &conntrack, &config.mode)
        .map_err(|findings| refused(findings, texts.clone()))?;
    let files =
        FromFiles::read(&texts.sets).map_err(|findings| refused(findings, texts.clone()))?;
    preflight::mode(&config.mode, config.ports.len())?;
    preflight::machine()?;
    let server = Server::bind(&config.socket, config.socket_group)?;
    let endpoint = telemetry::bind(&config.metrics)?;
    let place = config.state.as_deref().map(Place::take).transpose()?;
    let mirror = Mirror::open(config.mode.clone(), config.ports.clone())?;
    let links = preflight::ports(mirror.view(), &config.ports)?;
    failure::no_strays(&pins, &links, mirror.view())?;
    let holds = preflight::hold(&links, &pins)?;
    let workers = worker_count(&config)?;
    let (sets, remarks) =
        sets::lasting::open(config.state.as_deref(), files).map_err(system("sets"))?;
    let registry = Arc::clone(sets.registry());
    let owners = Questions::of(&parsed.change);
    let opened = PolicyStore::open_with(parsed.change, config.ports.clone(), workers, registry);
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            return Err(match policy::compile_finding(&error, &texts) {
                Some(finding) => refused(vec![finding], texts),
                None => error.into(),
            });
        }
    };
    let equipment =
        Equipment { store, workers, conntrack, sets, mirror, place, holds, pins, beginning };
    let (mut daemon, restored) =
        Daemon::start(config, equipment, &signals).map_err(|error| owners.blame(error, &texts))?;
    let mut notes = daemon.service.notes();
    notes.extend(remarks.into_iter().chain(restored).chain(mounted));
    notes.extend(preflight::takeover_notes(&daemon.config));
    let mut health = daemon.fleet.health();
    let rounds = server.rounds();
    health.watch("the control thread", monotonic(), move || rounds.load(Ordering::Relaxed));
    let control = serve(server, &daemon.service, &signals)?;
    telemetry::start(&daemon.service, endpoint, &daemon.config, &signals.stop)?;
    sandbox::seal(daemon.config.sandbox.seccomp)?;
    ready(&Ready { workers, findings: &parsed.findings, texts: &texts, notes: &notes });
    notify::ready(&daemon.service.status_line());
    let outcome = daemon.keep_house(&signals, Duties::new(health, monotonic()));
    notify::stopping();
    signals.stop.store(true, Ordering::Relaxed);
    if !daemon.fleet.stop() {
        // It may hold what others would wait for: the last save counts.
        std::mem::forget(daemon.keeper.take());
        std::mem::forget(daemon.set_keeper.take());
        daemon.log.finish(LOG_FAREWELL);
        return outcome.and(Err(DaemonError::NeverStopped));
    }
    // Saved last, when no packet changes anything any more.
    if let Some(keeper) = daemon.keeper.take() {
        keeper.finish();
    }
    if let Some(keeper) = daemon.set_keeper.take() {
        keeper.finish();
    }
    daemon.log.finish(LOG_FAREWELL);
    let _ = control.join();
    outcome
}

/// What there is to say once the daemon runs.
#[derive(Debug)]
pub struct Ready<'a> {
    /// Workers.
    pub workers: usize,
    /// Warnings about the policy.
    pub findings: &'a [Finding],
    /// The texts they speak of.
    pub texts: &'a Texts,
    /// What of the kernel's routing was simplified.
    pub notes: &'a [String],
}

fn refused(findings: Vec<Finding>, texts: Texts) -> DaemonError {
    DaemonError::Policy { findings, texts: Box::new(texts) }
}

/// SIGTERM and SIGINT stop, the second time at once; SIGHUP reloads; SIGUSR1 opens the
/// log anew, and nothing else.
fn listen() -> Result<Signals, DaemonError> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::flag;
    let signals = Signals {
        stop: Arc::new(AtomicBool::new(false)),
        reload: Arc::new(AtomicBool::new(false)),
        rotate: Arc::new(AtomicBool::new(false)),
    };
    let failed = || system("signal handler");
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&signals.stop))
            .map_err(failed())?;
        flag::register(signal, Arc::clone(&signals.stop)).map_err(failed())?;
    }
    flag::register(SIGHUP, Arc::clone(&signals.reload)).map_err(failed())?;
    flag::register(SIGUSR1, Arc::clone(&signals.rotate)).map_err(failed())?;
    Ok(signals)
}

fn conntrack_table(config: &Config) -> Result<Conntrack, DaemonError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| system("random numbers")(io::Error::other(error)))?;
    let mut settings = conntrack::Config::new(key);
    for (name, value) in &config.conntrack {
        settings.set(name, *value)?;
    }
    config.timeouts.iter().try_for_each(|named| named.add_to(&mut settings))?;
    Ok(Conntrack::new(settings)?)
}

/// As many workers as asked for, or as the first port has queues.
fn worker_count(config: &Config) -> Result<usize, DaemonError> {
    if let Some(workers) = config.workers {
        return Ok(workers);
    }
    let Some(port) = config.ports.first() else { return Ok(1) };
    let link = LinkInfo::of(port).map_err(system("asking for queues"))?;
    // More are refused, with the remedy, as more queues than workers.
    Ok(link.queues.clamp(1, WORKERS_MAX) as usize)
}

/// Starts the control thread.
fn serve(
    server: Server,
    service: &Arc<Service>,
    signals: &Signals,
) -> Result<std::thread::JoinHandle<()>, DaemonError> {
    let (service, stop) = (Arc::clone(service), Arc::clone(&signals.stop));
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || server.serve(&service, &stop))
        .map_err(system("control thread"))
}

/// What was made ready before anything was touched.
struct Equipment {
    store: PolicyStore,
    workers: usize,
    conntrack: Arc<Conntrack>,
    sets: Arc<SetDesk>,
    mirror: Mirror,
    place: Option<Place>,
    holds: Holds,
    pins: Pins,
    beginning: Beginning,
}

impl Daemon {
    /// Takes the ports, brings back what an earlier process saved, and starts the
    /// threads that forward. Also returns what there is to say of the state file.
    fn start(
        config: Config,
        equipment: Equipment,
        signals: &Signals,
    ) -> Result<(Self, Vec<String>), DaemonError> {
        let Equipment { store, workers, conntrack, sets, mirror, place, holds, pins, beginning } =
            equipment;
        let update = mirror.current()?;
        let network = Arc::new(Network::build(&update.topology)?);
        let notes = update.notes.iter().map(ToString::to_string).collect();
        let networks = Publisher::new(Arc::clone(&network));

        // Before the ports: what they receive is to meet workers soon.
        let restored = match &place {
            Some(place) => restore_state(place, &conntrack, &network, &store)?,
            None => Restored::default(),
        };
        let note = place.as_ref().and_then(|place| state_note(place, &restored));
        guard::tell_at_start(&config, &store, &network, &conntrack);
        let wanted = ports::wanted(&config, workers, &store, update.broadcasts);
        let mut opened = afxdp::open_pinned(&wanted, update.local, Some(pins))?;
        let board = Arc::new(PortBoard::at_start(&config, &opened));
        let maps = opened.program.take_blocklist();
        // All BPF is loaded, and no thread runs yet.
        sandbox::narrow()?;
        let program = ProgramSight::new(opened.program, Blocking::start(maps, &config));
        let outlets = records::outlets(&config.logging);
        let log = start_log(&config, &outlets, &store)?;
        let terms = Terms::of(&config);
        let fleet = Fleet::start(opened.workers, &store, &networks, &conntrack, &outlets, &terms)
            .map_err(system("worker thread"))?;
        program.settle().map_err(FailureError::from)?;
        program.blocking().follow(&store, &network);
        let store = Arc::new(store);
        let keeper = place
            .map(|place| keep_state(place, &config, &conntrack, &store, restored))
            .transpose()
            .map_err(system("state thread"))?;
        let (book, more) = beginning.record(store.generation());
        let ledger = Ledger::new(config.changes.clone(), book);
        let service = Arc::new(Service::new(Parts {
            store,
            conntrack: Arc::clone(&conntrack),
            sets: Arc::clone(&sets),
            ports: config.ports.clone(),
            network: NetworkInForce { network, notes },
            taps: terms.taps,
            workers: fleet.sights().to_vec(),
            board: Arc::clone(&board),
            log: Arc::clone(log.desk()),
            logging: config.logging.clone(),
            program: program.clone(),
            state: StateSight::of(&config, keeper.as_ref()),
            configured: config.configured.clone(),
            ledger,
            host_road: opened.host_road,
            failure: config.failure.clone(),
            stop: Arc::clone(&signals.stop),
        }));
        let set_keeper = SetKeeper::start(&config, sets).map_err(system("set thread"))?;
        let workers = fleet.sights().to_vec();
        let kept = KeptPorts::new(&config, opened.opener, program.clone(), workers, board);
        let ports =
            PortKeeper::start(kept, &opened.links, holds).map_err(system("ports thread"))?;
        let network = NetworkSide::new(mirror, networks, program);
        let daemon = Self {
            config,
            service,
            network,
            conntrack,
            outlets,
            fleet,
            log,
            keeper,
            set_keeper,
            ports,
        };
        Ok((daemon, note.into_iter().chain(more).collect()))
    }
}

/// The log thread, which knows from the beginning which rules report.
fn start_log(
    config: &Config,
    outlets: &Outlets,
    store: &PolicyStore,
) -> Result<LogThread, DaemonError> {
    let (file, ports) = (config.log.as_deref(), config.ports.clone());
    let log =
        LogThread::start(file, &config.logging, outlets, ports).map_err(system("log thread"))?;
    log.desk().open_book(store.log_book());
    Ok(log)
}
