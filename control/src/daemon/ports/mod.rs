//! Keeping ports in service while their devices go and come.
//!
//! A port is a name. While a fit device of that name is there, the port is in
//! service on it; a device that is deleted, renamed, moved away, enslaved, or
//! changed so that it cannot be served takes its port out of service, and the next
//! fit device of that name brings it back. Everything that may wait (attaching,
//! binding, closing) happens on one thread, which looks when the network has
//! changed and every [`LOOK_EVERY`]; workers get and return finished sockets through
//! their [`Exchange`](dataplane::worker::Exchange).
//!
//! Per port: in service, then leaving (some workers have not returned their
//! sockets), then out (all are closed and their frames recovered), then in service.

mod board;
mod report;

use std::net::Ipv4Addr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use dataplane::clock::{Nanos, monotonic};
use dataplane::fib::Mode;
use dataplane::packet::PortId;
use dataplane::port::afxdp::{self, AfxdpError, BoundSocket, Closing, LinkInfo, PortOpener};
use dataplane::worker::PortOrder;

pub(super) use board::{PortBoard, SocketSights};
pub(super) use report::Reports;

use super::blocklist::Blocking;
use super::fleet::WorkerSight;
use super::preflight::{self, Holds};
use super::{Config, ProgramSight, owners};
use crate::apply::PolicyStore;

/// Longest time between two looks at the devices.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same while workers have sockets to return.
const LOOK_SOON: Duration = Duration::from_millis(2);
/// How long a port stays out after something failed that may fail again.
const REST: Nanos = Nanos::SECOND;

/// How the ports are to be taken.
pub(super) fn wanted(
    config: &Config,
    workers: usize,
    store: &PolicyStore,
    broadcasts: Vec<Ipv4Addr>,
) -> afxdp::Config {
    let mut wanted = afxdp::Config::new(config.ports.iter().cloned(), workers);
    wanted.broadcasts = broadcasts;
    wanted.needs_owners = owners::are_asked(store);
    wanted.attach = config.attach;
    wanted.copy = config.copy;
    wanted.routed = !matches!(config.mode, Mode::Bridge(_));
    wanted.on_failure = config.failure.on_failure;
    wanted.beat_limit = config.failure.watchdog;
    wanted.host = config.host;
    wanted.management = config.management.clone();
    wanted.blocklist = store.read(|view| Blocking::wants(config, &view.snapshot().policy));
    wanted
}

/// Says that the network has changed.
pub(super) type Bell = SyncSender<()>;

/// The thread. Dropping it ends it.
#[derive(Debug)]
pub(super) struct PortKeeper {
    bell: Option<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl PortKeeper {
    /// Begins to keep the ports, which are all in service on `links`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn start(parts: KeptPorts, links: &[LinkInfo], holds: Holds) -> io::Result<Self> {
        let (bell, rings) = sync_channel(1);
        let mut keeping = Keeping::new(parts, links, holds);
        let thread = std::thread::Builder::new()
            .name("ports".to_owned())
            .spawn(move || keeping.run(&rings))?;
        Ok(Self { bell: Some(bell), thread: Some(thread) })
    }

    /// Lets it look now.
    pub(super) fn ring(&self) {
        if let Some(bell) = &self.bell {
            // One that waits already will do.
            let _ = bell.try_send(());
        }
    }
}

impl Drop for PortKeeper {
    fn drop(&mut self) {
        self.bell = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What ports are kept with.
#[derive(Debug)]
pub(super) struct KeptPorts {
    names: Vec<String>,
    mode: Mode,
    opener: PortOpener,
    program: ProgramSight,
    workers: Vec<WorkerSight>,
    board: Arc<PortBoard>,
}

impl KeptPorts {
    pub(super) fn new(
        config: &Config,
        opener: PortOpener,
        program: ProgramSight,
        workers: Vec<WorkerSight>,
        board: Arc<PortBoard>,
    ) -> Self {
        let (names, mode) = (config.ports.clone(), config.mode.clone());
        Self { names, mode, opener, program, workers, board }
    }
}

/// One port.
#[derive(Debug)]
struct Berth {
    port: PortId,
    state: State,
    /// Nothing is tried before.
    not_before: Nanos,
    /// What the device was when that failed last: another one is tried at once.
    tried: Option<LinkInfo>,
    hold: Option<UnixListener>,
}

#[derive(Debug)]
enum State {
    InService(LinkInfo),
    /// So many workers have not returned their sockets.
    Leaving {
        missing: usize,
    },
    Out,
}

struct Keeping {
    parts: KeptPorts,
    berths: Vec<Berth>,
    closing: Vec<(usize, PortId, Closing)>,
    reports: Reports,
}

impl Keeping {
    fn new(parts: KeptPorts, links: &[LinkInfo], holds: Holds) -> Self {
        let berths = links.iter().zip(holds.into_sockets()).enumerate();
        let berths = berths.map(|(index, (link, hold))| Berth {
            port: PortId(index as u8),
            state: State::InService(link.clone()),
            not_before: Nanos(0),
            tried: None,
            hold: Some(hold),
        });
        let berths = berths.collect();
        let reports = Reports::new(&parts.names);
        Self { parts, berths, closing: Vec::new(), reports }
    }

    fn run(&mut self, bell: &Receiver<()>) {
        loop {
            let busy = |berth: &Berth| matches!(berth.state, State::Leaving { .. });
            let pause = if self.berths.iter().any(busy) { LOOK_SOON } else { LOOK_EVERY };
            if bell.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            let now = monotonic();
            self.take_back(now);
            for index in 0..self.berths.len() {
                self.step(index, now);
            }
            self.reports.tick(now);
        }
    }

    /// Closes what workers have returned, and has its frames recovered.
    fn take_back(&mut self, now: Nanos) {
        let mut closing = mem::take(&mut self.closing);
        for worker in 0..self.parts.workers.len() {
            while let Some((port, socket)) = self.parts.workers[worker].exchange.returned() {
                self.parts.workers[worker].sockets.set(port, None);
                let berth = &mut self.berths[port.index()];
                if let State::InService(link) = &berth.state {
                    // It failed there. Why has been reported.
                    (berth.not_before, berth.tried) = (now + REST, Some(bare(link)));
                    self.withdraw(port, "its socket failed".to_owned(), now);
                }
                match socket.close() {
                    Ok(closed) => self.recover(worker, PortOrder::Recover(port, closed)),
                    Err(still) => closing.push((worker, port, still)),
                }
            }
        }
        for (worker, port, still) in closing {
            match still.finish() {
                Ok(closed) => self.recover(worker, PortOrder::Recover(port, closed)),
                Err(still) => self.closing.push((worker, port, still)),
            }
        }
    }

    fn recover(&mut self, worker: usize, order: PortOrder) {
        let PortOrder::Recover(port, _) = &order else { return };
        let berth = &mut self.berths[port.index()];
        if let State::Leaving { missing } = &mut berth.state {
            *missing -= 1;
            if *missing == 0 {
                berth.state = State::Out;
            }
        }
        self.order(worker, order);
    }

    /// A port has never more orders in flight than there is room for.
    fn order(&self, worker: usize, order: PortOrder) {
        if let Err(order) = self.parts.workers[worker].exchange.order(order) {
            tracing::error!("worker {worker} does not follow orders: {order:?}");
        }
    }

    fn step(&mut self, index: usize, now: Nanos) {
        let port = self.berths[index].port;
        match self.berths[index].state {
            State::Leaving { .. } => {}
            State::InService(LinkInfo { ifindex, .. }) => match self.parts.opener.look(port) {
                Ok(link) if link.ifindex == ifindex => {
                    if !self.parts.opener.is_whole(&self.parts.program.program, port) {
                        self.withdraw(port, "its BPF programs were taken off".to_owned(), now);
                    }
                }
                Ok(link) => {
                    let why = format!("it is another device now, number {}", link.ifindex);
                    self.withdraw(port, why, now);
                }
                Err(error) => self.withdraw(port, said(&error), now),
            },
            State::Out => match self.parts.opener.look(port) {
                Ok(link) => self.try_open(index, link, now),
                Err(error) => {
                    self.parts.opener.close(&self.parts.program.program, port);
                    self.is_out(port, said(&error), now);
                }
            },
        }
    }

    /// Takes a port out of service.
    fn withdraw(&mut self, port: PortId, why: String, now: Nanos) {
        // First, so that the kernel gets what is still to come.
        self.parts.opener.close(&self.parts.program.program, port);
        let workers = self.parts.workers.len();
        for worker in 0..workers {
            self.order(worker, PortOrder::Withdraw(port));
        }
        let berth = &mut self.berths[port.index()];
        berth.state = State::Leaving { missing: workers };
        berth.hold = None;
        self.is_out(port, why, now);
    }

    fn is_out(&mut self, port: PortId, why: String, now: Nanos) {
        if self.parts.board.out(port, &why) {
            let text = format!("out of service: {why}; a fit device brings it back");
            self.reports.say(port, now, true, text);
        }
    }

    fn try_open(&mut self, index: usize, link: LinkInfo, now: Nanos) {
        let berth = &self.berths[index];
        if now < berth.not_before && berth.tried.as_ref() == Some(&bare(&link)) {
            return;
        }
        let port = berth.port;
        match self.open(port, &link) {
            Ok(sockets) => self.install(index, &link, sockets, now),
            Err(why) => {
                let berth = &mut self.berths[index];
                berth.not_before = now + REST;
                berth.tried = Some(bare(&link));
                self.is_out(port, why, now);
            }
        }
    }

    fn open(&mut self, port: PortId, link: &LinkInfo) -> Result<Vec<BoundSocket>, String> {
        let hold = preflight::hold_one(&link.name, link.ifindex);
        let hold = hold.map_err(|error| error.to_string())?;
        let opener = &mut self.parts.opener;
        let sockets = opener.open(&self.parts.program.program, port, link).map_err(|e| said(&e))?;
        self.berths[port.index()].hold = Some(hold);
        Ok(sockets)
    }

    /// Hands the workers their sockets.
    fn install(&mut self, index: usize, link: &LinkInfo, sockets: Vec<BoundSocket>, now: Nanos) {
        let port = self.berths[index].port;
        for (worker, socket) in sockets.into_iter().enumerate() {
            self.parts.workers[worker].sockets.set(port, Some(socket.observer()));
            self.order(worker, PortOrder::Install(port, Box::new(socket)));
        }
        let berth = &mut self.berths[index];
        berth.state = State::InService(link.clone());
        berth.tried = None;
        self.parts.board.back(port, preflight::bridge_note(&self.parts.mode, link));
        let text = format!("in service again, on device number {}", link.ifindex);
        self.reports.say(port, now, false, text);
    }
}

/// A device without what we ourselves change of it.
fn bare(link: &LinkInfo) -> LinkInfo {
    LinkInfo { attached: None, ..link.clone() }
}

/// Why a port is out, in its own right: the sentence goes on after "out of service".
fn said(error: &AfxdpError) -> String {
    match error {
        AfxdpError::NoDevice { device, source } if source.raw_os_error() == Some(libc::ENODEV) => {
            format!("there is no device {device}")
        }
        error => error.to_string(),
    }
}
