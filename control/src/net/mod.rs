//! The network as the kernel knows it, mirrored over netlink.
//!
//! [`Mirror`] dumps links, addresses, routes, rules, neighbours and groups into a
//! [`View`], follows notifications, and turns the view into the
//! [`Topology`] that workers route by.
//!
//! Life cycle: subscribe first, dump second, so that no change falls between.
//! Neighbours are followed one notification at a time, because they change all
//! the time; any other notification marks the view stale and the next
//! [`Mirror::refresh`] dumps again, because the kernel removes IPv4 routes
//! silently when a link goes down. A notification queue that overran
//! (`ENOBUFS`) is healed the same way. Dumps are spaced so that they cost at
//! most a fifth of the thread's time, however long the routing table is.
//!
//! Concurrency: one thread owns the mirror. Memory is bounded by what the
//! kernel holds.

mod groups;
mod localnet;
mod losses;
mod netlink;
mod topology;
mod view;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd};

use dataplane::clock::Nanos;
use dataplane::fib::{Mode, Topology};
use dataplane::packet::PortId;
use thiserror::Error;

pub use losses::Loss;
pub use netlink::NetlinkError;
pub use topology::{Note, PrefixList, TopologyError};
pub use view::{Link, View};

use losses::Losses;
use netlink::{Connection, Events};

/// Why the mirror cannot be built or kept.
#[derive(Debug, Error)]
pub enum NetError {
    /// Netlink itself failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel's configuration cannot be honoured exactly.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The list of multicast groups cannot be read.
    #[error("the kernel's list of multicast groups cannot be read: {0}")]
    Groups(#[from] std::io::Error),
}

/// What changed since the last look.
#[derive(Clone, Debug)]
pub struct Update {
    /// The network for the workers.
    pub topology: Topology,
    /// Prefixes that the kernel delivers locally, broadcast addresses included.
    pub local: PrefixList,
    /// Those of them that are IPv4 broadcast addresses.
    pub broadcasts: Vec<Ipv4Addr>,
    /// What the mirror had to simplify.
    pub notes: Vec<Note>,
}

/// Dumps may take this share of the thread's time: one part in this many.
const DUMP_SPACING: u64 = 5;

/// How often groups are looked at where the kernel does not tell of them.
const GROUPS_EVERY: Nanos = Nanos::SECOND;

/// `route_localnet`, of which the kernel never tells, is looked at as often.
const LOCALNET_EVERY: Nanos = Nanos::SECOND;

/// The mirror of one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct Mirror {
    mode: Mode,
    ports: Vec<String>,
    requests: Connection,
    events: Events,
    view: View,
    losses: Losses,
    stale: bool,
    changed: bool,
    next_dump: Nanos,
    /// The list of groups is to be read again.
    groups_stale: bool,
    next_groups: Nanos,
    next_localnet: Nanos,
    /// What was returned last; `None` after a failure, so that recovery is told.
    last: Option<(Topology, PrefixList, Vec<Note>)>,
}

impl Mirror {
    /// Subscribes, dumps, and is ready to be asked. `ports[i]` becomes `PortId(i)`.
    pub fn open(mode: Mode, ports: Vec<String>) -> Result<Self, NetError> {
        let events = Events::open()?;
        let mut requests = Connection::open()?;
        let mut view = View::dump(&mut requests)?;
        view.groups = groups::read()?;
        view.localnet = localnet::read(&ports);
        Ok(Self {
            mode,
            ports,
            requests,
            events,
            view,
            losses: Losses::default(),
            stale: false,
            changed: true,
            next_dump: Nanos(0),
            groups_stale: false,
            next_groups: Nanos(0),
            next_localnet: Nanos(0),
            last: None,
        })
    }

    /// The kernel's view as last seen.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The network as it stands.
    pub fn current(&self) -> Result<Update, NetError> {
        let (topology, notes) = topology::build(&self.view, &self.mode, &self.ports)?;
        let local = topology::local_prefixes(&self.view);
        let broadcasts = topology::broadcasts(&self.view);
        Ok(Update { topology, local, broadcasts, notes })
    }

    /// Readable when notifications wait.
    pub fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes in all waiting notifications without blocking. Returns whether a
    /// call of [`Mirror::refresh`] is due.
    pub fn drain(&mut self) -> Result<bool, NetError> {
        let Self { view, changed, losses, ports, .. } = self;
        let mut stale = false;
        let drained = self.events.drain(|message| {
            losses.follow(view, ports, &message);
            match view.follow(message) {
                view::Follow::Ignored => {}
                view::Follow::Applied => *changed = true,
                view::Follow::NeedsDump => stale = true,
            }
        })?;
        self.stale |= stale || drained.lost;
        self.groups_stale |= drained.groups;
        Ok(self.pending())
    }

    /// Brings the view up to date if it is stale and a dump is due at `now`,
    /// and returns the network if it differs from the one returned last. A network
    /// that cannot be honoured is an error once; the next change is looked at anew,
    /// and the first good network after it is always returned.
    /// `clock` measures what a dump costs.
    pub fn refresh(&mut self, clock: fn() -> Nanos) -> Result<Option<Update>, NetError> {
        let outcome = self.try_refresh(clock);
        if outcome.is_err() {
            self.last = None;
        }
        outcome
    }

    fn try_refresh(&mut self, clock: fn() -> Nanos) -> Result<Option<Update>, NetError> {
        let start = clock();
        if self.stale {
            if start < self.next_dump {
                return Ok(None);
            }
            let dumped = View::dump(&mut self.requests);
            // What failed costs time as well.
            let cost = clock().saturating_sub(start);
            self.next_dump = start + Nanos(cost.0 * DUMP_SPACING);
            let groups = std::mem::take(&mut self.view.groups);
            let view = View { groups, localnet: localnet::read(&self.ports), ..dumped? };
            self.losses.compare(&self.view, &view, &self.ports);
            self.view = view;
            (self.stale, self.changed, self.groups_stale) = (false, true, true);
        }
        self.follow_groups(start)?;
        self.follow_localnet(start);
        if !self.changed {
            return Ok(None);
        }
        self.changed = false;
        let update = self.current()?;
        let next = (update.topology.clone(), update.local.clone(), update.notes.clone());
        if self.last.as_ref() == Some(&next) {
            return Ok(None);
        }
        self.last = Some(next);
        Ok(Some(update))
    }

    /// Reads the list of multicast groups again, if it may have changed.
    fn follow_groups(&mut self, now: Nanos) -> Result<(), NetError> {
        let due = !self.events.tells_groups() && now >= self.next_groups;
        if self.groups_stale || due {
            self.next_groups = now + GROUPS_EVERY;
            let groups = groups::read()?;
            self.groups_stale = false;
            if groups != self.view.groups {
                self.view.groups = groups;
                self.changed = true;
            }
        }
        Ok(())
    }

    /// Reads `route_localnet` again, when it is time.
    fn follow_localnet(&mut self, now: Nanos) {
        if now < self.next_localnet {
            return;
        }
        self.next_localnet = now + LOCALNET_EVERY;
        let localnet = localnet::read(&self.ports);
        if localnet != self.view.localnet {
            self.view.localnet = localnet;
            self.changed = true;
        }
    }

    /// Addresses and ports that were lost since the last call. One that has been
    /// dumped since may be told of twice.
    pub fn losses(&mut self) -> Vec<Loss> {
        self.losses.take()
    }

    /// Whether notifications or a postponed dump are still to be looked at.
    pub fn pending(&self) -> bool {
        self.stale || self.changed || self.groups_stale
    }

    /// Asks the kernel to resolve a next hop, as if it had a packet for it.
    /// A port that is gone is not an error.
    pub fn solicit(&mut self, port: PortId, address: IpAddr) -> Result<(), NetError> {
        let name = self.ports.get(port.index());
        if let Some(link) = name.and_then(|name| self.view.link_by_name(name)) {
            let index = link.index;
            self.requests.use_neighbour(index, address)?;
        }
        Ok(())
    }

    /// Neighbours on our ports that the kernel has not heard of for a while, at
    /// most `limit`: traffic that bypasses the kernel does not keep them fresh.
    pub fn stale_neighbours(&self, limit: usize) -> Vec<(PortId, IpAddr)> {
        topology::stale_neighbours(&self.view, &self.ports, limit)
    }
}
