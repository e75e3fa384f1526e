//! Housekeeping: the main thread's loop while the workers forward.
//!
//! Each round takes in what the kernel says of the network and publishes it,
//! asks the kernel for next hops, ends connections that lost their address, collects expired ones, frees what the
//! workers have left behind, and looks after signals. Every step is bounded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::conntrack::{Conntrack, Offender};
use dataplane::fib::Network;
use dataplane::packet::Family;
use dataplane::port::PortError;
use dataplane::publish::Publisher;
use dataplane::sets::Registry;
use dataplane::worker::{NeighbourRequest, Outlets, PortEvent, WorkerEvent};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::forget::Forgetter;
use super::notify::Duties;
use super::ports::Reports;
use super::service::{NetworkInForce, Service};
use super::watchdog::Watchdog;
use super::{Daemon, DaemonError, ProgramSight};
use crate::net::{Mirror, Update};

/// Longest pause of a round: bounds how long a next hop waits to be asked for.
const PAUSE_MS: i64 = 5;
/// The whole connection table is swept in about this time.
const SWEEP_PERIOD: Nanos = Nanos::from_secs(10);
/// Next hops asked for in one round at most.
const REQUESTS: usize = 256;
/// How often neighbours that the kernel considers stale are refreshed.
const REFRESH_EVERY: Nanos = Nanos::from_secs(5);
/// At most this many of them each time.
const REFRESH_MAX: usize = 64;

/// How often it is looked which rules were hit.
const SAMPLE_EVERY: Nanos = Nanos::SECOND;

/// What signals ask for.
#[derive(Clone, Debug)]
pub(super) struct Signals {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) reload: Arc<AtomicBool>,
    pub(super) rotate: Arc<AtomicBool>,
}

/// The network side of the daemon: mirror, publication, and the XDP program's
/// idea of what is local.
#[derive(Debug)]
pub(super) struct NetworkSide {
    pub(super) mirror: Mirror,
    pub(super) networks: Publisher<Network>,
    pub(super) program: ProgramSight,
    next_refresh: Nanos,
    forgetter: Forgetter,
    /// The last complaint about the mirror, so that it is made once.
    complaint: String,
}

impl NetworkSide {
    pub(super) fn new(mirror: Mirror, networks: Publisher<Network>, program: ProgramSight) -> Self {
        Self {
            mirror,
            networks,
            program,
            next_refresh: Nanos(0),
            forgetter: Forgetter::default(),
            complaint: String::new(),
        }
    }

    /// Takes in changes. A network that cannot be honoured leaves the old one in force.
    /// True when there was one that `service` was not told of before.
    fn follow(&mut self, service: &Service) -> bool {
        let outcome = self.mirror.drain().and_then(|_| self.mirror.refresh(monotonic));
        let news = !matches!(outcome, Ok(None));
        match outcome {
            Ok(None) => {}
            Ok(Some(update)) => self.publish(update, service),
            Err(error) => self.complain(error.to_string(), service),
        }
        self.networks.reclaim();
        news
    }

    /// Ends connections that stood on what the network has lost.
    fn forget(&mut self, conntrack: &Conntrack) {
        self.forgetter.note(self.mirror.losses());
        self.forgetter.work(conntrack);
    }

    fn publish(&mut self, update: Update, service: &Service) {
        let network = match Network::build(&update.topology) {
            Ok(network) => Arc::new(network),
            Err(error) => return self.complain(error.to_string(), service),
        };
        // A new local address stays with the kernel before it is routed to.
        let kept = self.program.set_local(update.local, update.broadcasts);
        self.program.blocking().prepare(&network);
        drop(self.networks.publish(Arc::clone(&network)));
        self.program.blocking().adopt(&network);
        let notes = update.notes.iter().map(ToString::to_string).collect();
        service.set_network(NetworkInForce { network, notes });
        match kept {
            Ok(()) => self.complaint.clear(),
            Err(error) => self.complain(error.to_string(), service),
        }
    }

    fn complain(&mut self, complaint: String, service: &Service) {
        if complaint != self.complaint {
            tracing::error!("the kernel's network cannot be followed exactly: {complaint}");
            let note = |complaint: &str| format!("not followed: {complaint}");
            service.replace_note(&note(&self.complaint), note(&complaint));
            self.complaint = complaint;
        }
    }

    /// Hands the workers' wishes to the kernel, and keeps alive what it would forget
    /// because the traffic does not pass through it.
    fn neighbours(&mut self, outlets: &Outlets, now: Nanos) {
        for _ in 0..REQUESTS {
            let Some(NeighbourRequest { port, family, next_hop }) = outlets.neighbours.pop() else {
                break;
            };
            let address = match family {
                Family::V4 => IpAddr::V4(Ipv4Addr::from(next_hop as u32)),
                Family::V6 => IpAddr::V6(Ipv6Addr::from(next_hop)),
            };
            if let Err(error) = self.mirror.solicit(port, address) {
                tracing::debug!("{address}: {error}");
            }
        }
        if now >= self.next_refresh {
            self.next_refresh = now + REFRESH_EVERY;
            for (port, address) in self.mirror.stale_neighbours(REFRESH_MAX) {
                if let Err(error) = self.mirror.solicit(port, address) {
                    tracing::debug!("{address}: {error}");
                }
            }
        }
    }
}

/// Sweeps the connection table at an even pace, and sets every second; what sets will
/// grow into is there before they do.
#[derive(Debug)]
struct Sweeper {
    last: Nanos,
    /// Until when sources that fill the table have been named.
    named: Nanos,
}

impl Sweeper {
    fn sweep(&mut self, conntrack: &Conntrack, sets: &Registry, now: Nanos) {
        let elapsed = now.saturating_sub(self.last).0.min(Nanos::SECOND.0);
        let share = u128::from(elapsed) * conntrack.places() as u128;
        let budget = (share / u128::from(SWEEP_PERIOD.0)) as usize;
        if budget > 0 {
            conntrack.sweep(now, budget);
            self.last = now;
        }
        sets.foresee();
        if now >= self.named + Nanos::SECOND {
            sets.sweep(now);
            let offenders = conntrack.pressure().offenders;
            for Offender { prefix, .. } in offenders.iter().filter(|it| it.last > self.named) {
                tracing::warn!("the connection table is crowded, and {prefix} is over its quota");
            }
            self.named = now;
        }
    }
}

impl Daemon {
    /// Runs until a signal or the control socket says stop, or a worker falls.
    pub(super) fn keep_house(
        &mut self,
        signals: &Signals,
        mut duties: Duties,
    ) -> Result<(), DaemonError> {
        let mut sweeper = Sweeper { last: monotonic(), named: monotonic() };
        let watchdog = self.config.failure.watchdog;
        let mut dog = Watchdog::new(watchdog, self.fleet.sights().len(), monotonic());
        let mut reports = Reports::new(&self.config.ports);
        let mut sampled = Nanos(0);
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE_MS * 1_000_000 };
        while !signals.stop.load(Ordering::Relaxed) {
            {
                let events = self.network.mirror.events();
                let mut fds = [PollFd::new(&events, PollFlags::IN)];
                // An interrupted poll is a short pause.
                let _ = poll(&mut fds, Some(&pause));
            }
            let now = monotonic();
            if self.network.follow(&self.service) {
                self.ports.ring();
            }
            self.network.forget(&self.conntrack);
            self.network.neighbours(&self.outlets, now);
            sweeper.sweep(&self.conntrack, self.service.sets().registry(), now);
            self.service.store().settle();
            self.service.taps().reclaim();
            self.report_events(&mut reports, now);
            if signals.rotate.swap(false, Ordering::Relaxed) {
                self.log.desk().reopen();
            }
            if signals.reload.swap(false, Ordering::Relaxed) {
                self.service.reload_in_background();
            }
            self.service.tend();
            if now >= sampled + SAMPLE_EVERY {
                let now_s = wall_us() / 1_000_000;
                self.service.store().sample(now_s);
                self.service.sample_denied(now_s);
                self.service.expire(now_s);
                self.service.watch_matrix(now);
                sampled = now;
            }
            duties.turn(now, || self.service.status_line());
            self.watch_workers(&mut dog, now)?;
            if let Some(worker) = self.fleet.fallen() {
                return Err(DaemonError::WorkerFell(worker));
            }
        }
        Ok(())
    }

    fn report_events(&self, reports: &mut Reports, now: Nanos) {
        while let Some(WorkerEvent { port, event, .. }) = self.outlets.events.pop() {
            match event {
                PortEvent::LinkDown => reports.link(port, now, false),
                PortEvent::LinkUp => reports.link(port, now, true),
                // Who keeps the ports says so.
                PortEvent::Failed(PortError::DeviceGone { .. }) => {}
                PortEvent::Failed(error) => reports.say(port, now, true, error.to_string()),
            }
        }
        reports.tick(now);
    }
}
