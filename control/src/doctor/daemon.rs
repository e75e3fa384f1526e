//! The running daemon: whether it answers, what is really in force, and what it
//! has lost.

use std::io;
use std::path::Path;

use dataplane::fib::Mode;
use dataplane::packet::PortId;

use super::{Code, Command, Finding, Wanted};
use crate::api::protocol::{PortStatus, Ports, Rules, Stats, Status};
use crate::api::{Client, ClientError, Request, Response};

/// What was seen.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// Nobody listens.
    Absent {
        /// There is a socket, left by a process that is gone.
        stale: bool,
    },
    /// It is there but this process may not ask it, or it does not answer.
    Silent(String),
    /// Its answers.
    Running(Box<Running>),
}

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) status: Status,
    pub(super) ports: Ports,
    pub(super) stats: Stats,
    /// INPUT and OUTPUT, and what they hold.
    pub(super) rules: Rules,
}

impl Seen {
    /// The daemon, if it answers.
    pub(super) fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) => Some(running),
            _ => None,
        }
    }
    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running().map(|running| running.status.version.pid)
    }
}

impl Running {
    /// What it says of one port.
    pub(super) fn port(&self, name: &str) -> Option<&PortStatus> {
        self.ports.ports.iter().find(|port| port.name == name)
    }

    /// Puts in what is really in force where nothing was asked for.
    pub(super) fn complete(&self, wanted: &mut Wanted) {
        if wanted.ports.is_empty() {
            wanted.ports = self.ports.ports.iter().map(|port| port.name.clone()).collect();
            wanted.mode = match self.ports.mode.as_str() {
                "bridge" => Mode::Bridge(vec![(PortId(0), PortId(1))]),
                "host" => Mode::Host,
                _ => Mode::Routed,
            };
            wanted.host_road &= self.ports.mode == "routed";
            wanted.closed = self.status.failure.on_failure == "closed";
            if wanted.closed {
                wanted.pin_directory = self.status.failure.pin_dir.clone().into();
            }
            wanted.conntrack_max = self.stats.conntrack.capacity as usize;
        }
    }
}

/// Asks.
pub(super) fn observe(wanted: &Wanted) -> Seen {
    match ask(&wanted.socket) {
        Ok(Some(running)) => Seen::Running(Box::new(running)),
        Ok(None) => Seen::Silent("its answer does not belong to the request".to_owned()),
        Err(ClientError::Connect { source, .. }) => match source.kind() {
            io::ErrorKind::NotFound => Seen::Absent { stale: false },
            io::ErrorKind::ConnectionRefused => Seen::Absent { stale: true },
            _ => Seen::Silent(source.to_string()),
        },
        Err(error) => Seen::Silent(error.to_string()),
    }
}

/// `None` for an answer to another question.
fn ask(socket: &Path) -> Result<Option<Running>, ClientError> {
    let mut client = Client::connect(socket)?;
    let Response::Status(status) = client.call(Request::ShowStatus {})? else { return Ok(None) };
    let Response::Ports(ports) = client.call(Request::ShowPorts {})? else { return Ok(None) };
    let Response::Stats(stats) = client.call(Request::ShowStats {})? else { return Ok(None) };
    let rules = Request::ShowRules { family: None, table: None, chain: None };
    let Response::Rules(rules) = client.call(rules)? else { return Ok(None) };
    Ok(Some(Running { status: *status, ports, stats, rules }))
}

/// What it means.
pub(super) fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let socket = wanted.socket.to_string_lossy();
    let running = match seen {
        Seen::Running(running) => running,
        Seen::Absent { stale } => {
            let left = if *stale { ", although its socket is left" } else { "" };
            let found = format!("no daemon runs on this control socket{left}");
            return vec![Finding::note(Code::DaemonAbsent, socket, found)];
        }
        Seen::Silent(why) => {
            let found = format!("the daemon cannot be asked: {why}");
            return vec![
                Finding::warning(Code::DaemonSocket, socket, found)
                    .advise("root, its user and its --socket-group may ask it"),
            ];
        }
    };
    let mut findings = vec![version(running)];
    findings.extend(ports(wanted, running));
    findings.extend(out_of_service(running));
    findings.extend(host_road(wanted, running));
    findings.extend(
        running.ports.notes.iter().map(|note| Finding::note(Code::DaemonNote, "", note.as_str())),
    );
    findings.extend(losses(running));
    findings.push(log(running));
    findings.extend(state(running));
    findings.push(conntrack(running));
    findings.extend(stuck(running));
    findings.extend(failure(running));
    findings.extend(open(running));
    findings
}

fn version(running: &Running) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let theirs = &running.status.version.portcullis;
    let pid = running.status.version.pid;
    if theirs == ours {
        return Finding::ok(
            Code::DaemonVersion,
            "",
            format!("portcullis {theirs} runs, pid {pid}"),
        );
    }
    Finding::note(Code::DaemonVersion, "", format!("the daemon is {theirs}, and this is {ours}"))
}

fn ports(wanted: &Wanted, running: &Running) -> Option<Finding> {
    let missing = wanted.ports.iter().filter(|name| running.port(name).is_none());
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    (!missing.is_empty()).then(|| {
        let found = format!("the running daemon does not have {}", missing.join(", "));
        Finding::note(Code::DaemonPorts, "", found)
    })
}

fn out_of_service(running: &Running) -> Vec<Finding> {
    let out =
        running.ports.ports.iter().filter_map(|port| Some((port, port.out_of_service.as_ref()?)));
    let findings = out.map(|(port, why)| {
        let finding = Finding::error(Code::OutOfService, port.name.as_str(), why.as_str());
        finding.advise("it comes back by itself when its device is there and fits")
    });
    findings.collect()
}

fn host_road(wanted: &Wanted, running: &Running) -> Option<Finding> {
    if !wanted.host_road {
        return None;
    }
    let way = &running.ports.host_road;
    if let Some(chain) = running.rules.chains.iter().find(|chain| !chain.enforced) {
        let found =
            format!("{} and its {} rule(s) are not enforced", chain.chain, chain.rules.len());
        let advice = "start it with the host road";
        return Some(Finding::warning(Code::HostRoad, "", found).advise(advice));
    }
    if way == "plain" {
        let found = "INPUT and OUTPUT are enforced, by plain reads and writes";
        let advice = "see io-uring: it takes fewer system calls";
        return Some(Finding::note(Code::HostRoad, "", found).advise(advice));
    }
    Some(Finding::ok(Code::HostRoad, "", format!("INPUT and OUTPUT are enforced, by {way}")))
}

/// Losses that say that something is too slow or too small.
fn losses(running: &Running) -> Vec<Finding> {
    const OF_SOCKETS: [(&str, &str); 3] = [
        ("rx_ring_full", "the worker is too slow: more queues and workers, or less on its core"),
        ("fill_ring_empty", "the pool is too small for the ports"),
        ("rx_dropped", "frames longer than a chunk: see mtu, lro and gro-hw"),
    ];
    const OF_WORKERS: [(&str, &str); 2] = [
        ("tx_ring_full", "the output port is slower than what is sent to it"),
        ("no_frame", "the pool is too small for the ports"),
    ];
    let mut findings = Vec::new();
    let mut add = |subject: &str, name: &str, count: u64, advice: &str| {
        if count > 0 {
            let found = format!("{name}: {count} since the daemon started");
            findings.push(Finding::warning(Code::Losses, subject, found).advise(advice));
        }
    };
    for port in &running.ports.ports {
        for (name, advice) in OF_SOCKETS {
            let counts = port.queues.iter().filter_map(|queue| queue.counters.get(name));
            add(&port.name, name, counts.sum(), advice);
        }
    }
    let silent = running.stats.xdp.get("silent").copied().unwrap_or(0);
    let advice = "a worker did not turn for longer than the watchdog allows: see cpu checks";
    add("", "silent", silent, advice);
    for (name, advice) in OF_WORKERS {
        add("", name, running.stats.drops.get(name).copied().unwrap_or(0), advice);
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Code::Losses, "", "no frame was lost beside the engine"));
    }
    findings
}

fn log(running: &Running) -> Finding {
    let file = running.status.log.file.clone().unwrap_or_default();
    if let Some(error) = &running.status.log.error {
        let finding = Finding::error(Code::LogLost, file, format!("cannot be written: {error}"));
        return finding.advise("make room or mend its permissions: it is opened again by itself");
    }
    match running.stats.log_lost {
        0 => Finding::ok(Code::LogLost, file, "no LOG line was lost"),
        lost => Finding::warning(Code::LogLost, file, format!("{lost} LOG lines were lost"))
            .advise("limit LOG rules (-m limit), and see that the log's disk is not full"),
    }
}

fn state(running: &Running) -> Option<Finding> {
    let state = running.status.state.as_ref()?;
    Some(match &state.error {
        Some(error) => {
            let found = format!("the last save failed: {error}");
            Finding::error(Code::StateSave, state.file.as_str(), found)
                .advise("make room, or mend the directory's permissions")
        }
        None => Finding::ok(Code::StateSave, state.file.as_str(), "connections are saved"),
    })
}

fn conntrack(running: &Running) -> Finding {
    let table = &running.stats.conntrack;
    let (entries, capacity) = (table.entries, table.capacity);
    let found = format!("{entries} of {capacity} connections");
    let most = table.counters.get("drop").copied().unwrap_or(0) + table.quota_refused;
    if table.crowded || entries * 8 >= capacity * 7 {
        return Finding::warning(Code::ConntrackFull, "", format!("{found}: nearly full"))
            .mend(Command::new("portcullis show stats"))
            .advise("a higher --conntrack-max; `show stats` names who fills it");
    }
    if most > 0 {
        let found = format!("{found} now, and {most} were refused since the start");
        return Finding::note(Code::ConntrackFull, "", found);
    }
    Finding::ok(Code::ConntrackFull, "", found)
}

/// Workers that do not turn, and those that run an older policy than the daemon.
fn stuck(running: &Running) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stuck in &running.status.failure.stuck {
        let found = format!("has not turned for {} ms, while {}", stuck.still_ms, stuck.stage);
        let subject = format!("worker {}", stuck.worker);
        let advice = "see the cpu checks; if it stays so, restart the daemon and report it";
        findings.push(Finding::error(Code::WorkerStuck, subject, found).advise(advice));
    }
    let stats = &running.stats;
    for behind in stats.workers.iter().filter(|worker| worker.generation < stats.generation) {
        let (ours, newest) = (behind.generation, stats.generation);
        let found = format!("still runs policy {ours}, and {newest} is in force");
        let subject = format!("worker {}", behind.worker);
        let advice = "restart the daemon, and report it with `portcullis --json show stats`";
        findings.push(Finding::error(Code::WorkerStuck, subject, found).advise(advice));
    }
    findings
}

/// Closed means that the programs stay: a port without a pin would open.
fn failure(running: &Running) -> Option<Finding> {
    let failure = &running.status.failure;
    let open: Vec<&str> =
        failure.ports.iter().filter(|it| !it.pinned).map(|it| it.port.as_str()).collect();
    if failure.on_failure != "closed" || open.is_empty() {
        return None;
    }
    let found = format!("on-failure is closed, but {} open when the daemon ends", open.join(", "));
    Some(Finding::error(Code::Pins, "", found).advise("see `portcullis show status`, and restart"))
}

fn open(running: &Running) -> Option<Finding> {
    let chains = &running.rules.chains;
    let drops = |policy: &Option<String>| policy.as_deref() == Some("DROP");
    let empty = chains.iter().all(|chain| chain.rules.is_empty() && !drops(&chain.policy));
    empty.then(|| {
        Finding::note(Code::PolicyOpen, "", "no rule is in force")
            .mend(Command::new("portcullis apply --rules FILE"))
    })
}
