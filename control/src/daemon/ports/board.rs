//! What others may read of the ports: which are out of service and why, and which
//! sockets their workers have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::packet::PortId;
use dataplane::port::afxdp::{Observer, Opened};

use crate::daemon::{Config, preflight};

/// The sockets of one worker by port, as they are now.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct SocketSights(Arc<Mutex<Vec<Option<Observer>>>>);

impl SocketSights {
    pub(in crate::daemon) fn new(sockets: Vec<Option<Observer>>) -> Self {
        Self(Arc::new(Mutex::new(sockets)))
    }
    pub(super) fn set(&self, port: PortId, socket: Option<Observer>) {
        lock(&self.0)[port.index()] = socket;
    }
    /// The socket of a port; `None` while it has none.
    pub(in crate::daemon) fn get(&self, port: PortId) -> Option<Observer> {
        lock(&self.0).get(port.index()).cloned().flatten()
    }
    /// Ports.
    pub(in crate::daemon) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What there is to say of one port.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Why it is out of service.
    out: Option<String>,
    /// A remark on its device.
    note: Option<String>,
}

/// The state of all ports.
#[derive(Debug)]
pub(in crate::daemon) struct PortBoard {
    names: Vec<String>,
    /// What holds for as long as the daemon runs.
    standing: Vec<String>,
    entries: Mutex<Vec<Entry>>,
}

impl PortBoard {
    /// All in service, with what there is to say of how they were taken.
    pub(in crate::daemon) fn at_start(config: &Config, opened: &Opened) -> Self {
        let note = |link| preflight::bridge_note(&config.mode, link);
        let entries = opened.links.iter().map(|link| Entry { out: None, note: note(link) });
        let mut standing: Vec<_> =
            preflight::host_note(config, opened.host_road).into_iter().collect();
        standing.extend(preflight::management_notes(config));
        standing.extend_from_slice(opened.program.pin_notes());
        let entries = Mutex::new(entries.collect());
        Self { names: config.ports.clone(), standing, entries }
    }
    /// A port is out of service; true when that or the reason is news.
    pub(super) fn out(&self, port: PortId, why: &str) -> bool {
        let entry = &mut lock(&self.entries)[port.index()];
        let news = entry.out.as_deref() != Some(why);
        entry.out = Some(why.to_owned());
        news
    }
    /// A port is in service again.
    pub(super) fn back(&self, port: PortId, note: Option<String>) {
        lock(&self.entries)[port.index()] = Entry { out: None, note };
    }
    /// Why a port is out of service, if it is.
    pub(in crate::daemon) fn reason(&self, port: PortId) -> Option<String> {
        lock(&self.entries).get(port.index())?.out.clone()
    }
    /// What there is to say of the ports.
    pub(in crate::daemon) fn notes(&self) -> Vec<String> {
        let entries = lock(&self.entries);
        let each = self.names.iter().zip(entries.iter());
        each.flat_map(|(name, Entry { out, note })| {
            let out = out.as_ref().map(|why| format!("port {name} is out of service: {why}"));
            out.into_iter().chain(note.clone())
        })
        .chain(self.standing.iter().cloned())
        .collect()
    }
}
