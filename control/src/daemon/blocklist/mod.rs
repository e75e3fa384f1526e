//! Source blocklists in the XDP program: rules that are proven to come first
//! ([`crate::compile::blocklist`]) are carried out there as far as their sets can be pushed.
//!
//! What must hold at any time, and how it does:
//!
//! - *A table in the maps holds nothing that its set does not hold.* It is a copy that may
//!   lack elements, never the other way: what it lacks, the engine drops and counts. Who
//!   changes a set tells the follower after the change, before the command is done; what
//!   packets or time change is not pushed.
//! - *A rule drops only what no rule before it drops.* A second rule is in force only while
//!   the tables of those before it, on its ports, are whole; later rules go before earlier
//!   ones, and come after them, with a grace period in between.
//! - *Counts belong to one policy.* Before another is published every rule is taken away,
//!   a grace period passes, and what was counted goes to the old policy's counters.
//! - *Nothing outlives the daemon*: the maps go with the program, or drop nothing while no
//!   worker turns.
//!
//! Life cycle: [`Blocker::start`] runs a thread that fills tables and buries old ones, a piece
//! at a time. Locks: the state's is taken last, after a set's and a policy's.

mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use dataplane::fib::{Mode, Network};
use dataplane::packet::{Family, Mac, PortId};
use dataplane::policy::Policy;
use dataplane::port::afxdp::blocklist::{self, BlockRule, Blocked, Meaning, Remains};
use dataplane::port::afxdp::{Blocklist, BlocklistSize, BpfError};
use dataplane::sets::{Element, Follower, Set, SetType};
use dataplane::snapshot::Snapshot;
use dataplane::verdict::DropReason;

use super::Config;
use crate::api::protocol::{BlocklistInfo, Ports, Stats};
use crate::apply::{Ahead, PolicyStore};
use crate::compile::blocklist::survey;
use state::{State, unsuitable};

type Prefix = (std::net::IpAddr, u8);

/// The least room for addresses of a family: a policy with a blocklist may come later.
const LEAST: u32 = 1 << 16;

/// What is written to; the program's maps but in tests.
trait Maps: std::fmt::Debug + Send {
    fn size(&self) -> BlocklistSize;
    fn put(&mut self, table: u32, prefix: Prefix, meaning: Meaning) -> Result<(), BpfError>;
    fn remove(&mut self, table: u32, prefix: Prefix) -> Result<bool, BpfError>;
    fn set_rule(
        &mut self,
        family: Family,
        at: usize,
        to: Option<BlockRule>,
    ) -> Result<(), BpfError>;
    fn count(&self, family: Family, at: usize, port: PortId) -> Result<Blocked, BpfError>;
    fn set_mac(&mut self, port: PortId, mac: Option<Mac>) -> Result<(), BpfError>;
    fn remains(&self, alive: &dyn Fn(u32) -> bool) -> Result<Remains, BpfError>;
    fn bury(&mut self, remains: &mut Remains, most: usize) -> Result<bool, BpfError>;
    fn quiesce(&self) -> io::Result<()>;
}

impl Maps for Blocklist {
    fn size(&self) -> BlocklistSize {
        Self::size(self)
    }
    fn put(&mut self, table: u32, prefix: Prefix, meaning: Meaning) -> Result<(), BpfError> {
        Self::put(self, table, prefix, meaning)
    }
    fn remove(&mut self, table: u32, prefix: Prefix) -> Result<bool, BpfError> {
        Self::remove(self, table, prefix)
    }
    fn set_rule(
        &mut self,
        family: Family,
        at: usize,
        to: Option<BlockRule>,
    ) -> Result<(), BpfError> {
        Self::set_rule(self, family, at, to)
    }
    fn count(&self, family: Family, at: usize, port: PortId) -> Result<Blocked, BpfError> {
        Self::count(self, family, at, port)
    }
    fn set_mac(&mut self, port: PortId, mac: Option<Mac>) -> Result<(), BpfError> {
        Self::set_mac(self, port, mac)
    }
    fn remains(&self, alive: &dyn Fn(u32) -> bool) -> Result<Remains, BpfError> {
        Self::remains(self, alive)
    }
    fn bury(&mut self, remains: &mut Remains, most: usize) -> Result<bool, BpfError> {
        Self::bury(self, remains, most)
    }
    fn quiesce(&self) -> io::Result<()> {
        blocklist::quiesce()
    }
}

/// The room that a policy's blocklists want, at most `most` addresses of each family.
fn room(policy: &Policy, ports: usize, most: u32) -> Option<BlocklistSize> {
    let mut wanted = [0_u32; 2];
    for candidate in survey(policy, ports).iter().filter(|it| it.proven.is_ok()) {
        let set = candidate.slot.set();
        if unsuitable(&set).is_none() {
            let sum = &mut wanted[usize::from(candidate.family == Family::V6)];
            *sum = sum.saturating_add(set.spec().maxelem);
        }
    }
    let hosts = wanted.map(|wanted| wanted.max(LEAST).min(most));
    (most > 0).then_some(BlocklistSize { hosts, nets: most })
}

/// What is done ahead of the engine, if anything.
#[derive(Clone, Debug)]
pub(super) struct Blocking(Result<Arc<Blocker>, Arc<str>>);

impl Blocking {
    /// Begins with the program's maps.
    pub(super) fn start(maps: Option<Blocklist>, config: &Config) -> Self {
        let off = |why: &str| Self(Err(why.into()));
        match maps {
            Some(maps) => match Blocker::start(maps, config.ports.len()) {
                Ok(blocker) => Self(Ok(blocker)),
                Err(error) => off(&format!("the kernel does not tell who is done: {error}")),
            },
            None if config.blocklist == 0 => off("xdp.blocklist is 0"),
            None if config.faults.is_some() => off("faults are injected behind the program"),
            None if matches!(config.mode, Mode::Bridge(_)) => off("the mode is bridge"),
            None => off("the kernel refused its maps"),
        }
    }

    /// The room that is wanted of the program.
    pub(super) fn wants(config: &Config, policy: &Policy) -> Option<BlocklistSize> {
        let off = config.faults.is_some() || matches!(config.mode, Mode::Bridge(_));
        room(policy, config.ports.len(), if off { 0 } else { config.blocklist })
    }

    /// Follows policy and network.
    pub(super) fn follow(&self, store: &PolicyStore, network: &Network) {
        if let Ok(blocker) = &self.0 {
            store.go_ahead(Arc::clone(blocker) as Arc<dyn Ahead>);
            blocker.adopt(network);
        }
    }

    /// A network is about to be published.
    pub(super) fn prepare(&self, network: &Network) {
        if let Ok(blocker) = &self.0 {
            blocker.prepare(network);
        }
    }

    /// It is published.
    pub(super) fn adopt(&self, network: &Network) {
        if let Ok(blocker) = &self.0 {
            blocker.adopt(network);
        }
    }

    /// What there is to tell.
    pub(super) fn info(&self) -> BlocklistInfo {
        match &self.0 {
            Ok(blocker) => blocker.info(),
            Err(why) => BlocklistInfo { off: Some(why.to_string()), ..BlocklistInfo::default() },
        }
    }

    /// Adds what was dropped to what the workers have counted of ports.
    pub(super) fn add_to_ports(&self, ports: &mut Ports) {
        let Ok(blocker) = &self.0 else { return };
        for (at, port) in ports.ports.iter_mut().enumerate() {
            let blocked = blocker.on_port(PortId(at as u8));
            port.rx_packets += blocked.packets;
            port.rx_bytes += blocked.frame_bytes;
        }
    }

    /// The same of drops, over `ports` ports.
    pub(super) fn add_to_stats(&self, stats: &mut Stats, ports: usize) {
        let Ok(blocker) = &self.0 else { return };
        let sum: u64 = (0..ports).map(|at| blocker.on_port(PortId(at as u8)).packets).sum();
        if sum > 0 {
            *stats.drops.entry(DropReason::Rule.name().to_owned()).or_default() += sum;
        }
    }
}

/// What carries rules out ahead of the engine.
#[derive(Debug)]
struct Blocker {
    state: Mutex<State>,
    wake: Condvar,
    myself: Weak<Self>,
}

impl Blocker {
    /// Over maps of which the program's `ports` ports make use.
    ///
    /// # Errors
    /// When the kernel cannot tell that packets have left a program.
    fn new(maps: Box<dyn Maps>, ports: usize) -> io::Result<Arc<Self>> {
        maps.quiesce()?;
        Ok(Arc::new_cyclic(|myself| Self {
            state: Mutex::new(State::new(maps, ports)),
            wake: Condvar::new(),
            myself: Weak::clone(myself),
        }))
    }

    /// The same, with its thread, which ends with the process.
    ///
    /// # Errors
    /// As there, or when no thread can be made.
    fn start(maps: Blocklist, ports: usize) -> io::Result<Arc<Self>> {
        let blocker = Self::new(Box::new(maps), ports)?;
        let theirs = Arc::clone(&blocker);
        std::thread::Builder::new().name("blocklist".to_owned()).spawn(move || theirs.run())?;
        Ok(blocker)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        loop {
            while self.step() {}
            let idle = |state: &mut State| !state.has_work();
            drop(self.wake.wait_while(self.state(), idle));
        }
    }

    /// Does a piece of work. Whether there is more.
    fn step(&self) -> bool {
        let Some(myself) = self.myself.upgrade() else { return false };
        let follower: Arc<dyn Follower> = myself;
        self.state().step(&follower)
    }

    /// Something changes by which there is work.
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.wake.notify_all();
    }

    /// A network is about to be published: ports whose address changes block nothing.
    fn prepare(&self, network: &Network) {
        self.change(|state| state.forget_macs(network));
    }

    /// It is published.
    fn adopt(&self, network: &Network) {
        self.change(|state| state.set_macs(network));
    }

    /// What was dropped on a port, for every policy since the start.
    fn on_port(&self, port: PortId) -> Blocked {
        let mut state = self.state();
        state.fold();
        state.on_port(port)
    }

    /// What there is to tell.
    fn info(&self) -> BlocklistInfo {
        let mut state = self.state();
        state.fold();
        state.info()
    }
}

impl Ahead for Blocker {
    fn fold(&self) {
        self.state().fold();
    }
    fn leave(&self) {
        self.state().leave();
    }
    fn enter(&self, snapshot: &Arc<Snapshot>) {
        self.change(|state| state.enter(Arc::clone(snapshot)));
    }
}

impl Follower for Blocker {
    fn added(&self, set: &Set, element: &Element, nomatch: bool) {
        self.state().added(set, element, nomatch);
    }
    fn removed(&self, set: &Set, element: &Element) {
        self.state().removed(set, element);
    }
    fn cleared(&self, set: &Set) {
        self.change(|state| state.cleared(set));
    }
}

/// An element as a prefix.
fn prefix(set: &Set, element: &Element) -> Prefix {
    let spec = set.spec();
    match spec.family {
        Family::V4 => {
            let address = std::net::Ipv4Addr::from(element.ip as u32);
            (address.into(), element.cidr.unwrap_or(32))
        }
        Family::V6 => (std::net::Ipv6Addr::from(element.ip).into(), element.cidr.unwrap_or(128)),
    }
}

/// Whether the set has prefixes besides single addresses.
fn has_nets(set: &Set) -> bool {
    set.spec().kind == SetType::HashNet
}
