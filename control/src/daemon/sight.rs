//! The BPF programs as the rest of the daemon sees them: counters to read, addresses to
//! write.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use dataplane::packet::PortId;
use dataplane::port::afxdp::{BpfError, PinError, Program, ProgramCounters};
use dataplane::port::management::List;

use dataplane::port::management::Counted;

use super::blocklist::Blocking;
use crate::net::PrefixList;

/// The XDP program, shared between the network side and whoever reads counters.
#[derive(Clone, Debug)]
pub(super) struct ProgramSight {
    pub(super) program: Arc<Mutex<Program>>,
    blocking: Blocking,
}

impl ProgramSight {
    pub(super) fn new(program: Program, blocking: Blocking) -> Self {
        Self { program: Arc::new(Mutex::new(program)), blocking }
    }
    /// What it carries out ahead of the engine.
    pub(super) fn blocking(&self) -> &Blocking {
        &self.blocking
    }
    fn read(&self, port: PortId) -> ProgramCounters {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.counters(port).unwrap_or_default()
    }
    /// Says what is local; `broadcasts` are among the prefixes.
    pub(super) fn set_local(
        &self,
        prefixes: PrefixList,
        broadcasts: Vec<Ipv4Addr>,
    ) -> Result<(), BpfError> {
        let mut program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        // Known as what they are before they are local.
        program.set_broadcasts(broadcasts)?;
        program.set_local(prefixes)
    }
    /// Puts another management list in force, at once for every packet.
    pub(super) fn set_management(&self, list: &List) -> Result<(), BpfError> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).set_management(list)
    }
    /// Whether a port's link stays when the daemon ends, and whether it was there before.
    pub(super) fn pin(&self, port: PortId) -> (bool, bool) {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).pin(port)
    }
    /// Why nobody sees whose packets of this machine are, if so.
    pub(super) fn owners_untold(&self) -> Option<String> {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.owners_untold().map(str::to_owned)
    }
    /// The start has succeeded.
    pub(super) fn settle(&self) -> Result<(), PinError> {
        self.program.lock().unwrap_or_else(PoisonError::into_inner).settle()
    }
    /// The management list; empty when its counts cannot be read.
    pub(super) fn management(&self) -> Vec<Counted> {
        let program = self.program.lock().unwrap_or_else(PoisonError::into_inner);
        program.management().unwrap_or_default()
    }
    /// What it did with the frames of one port, by name.
    pub(super) fn counters(&self, port: PortId) -> BTreeMap<String, u64> {
        let counters = self.read(port);
        let named = [
            ("redirected", counters.redirected),
            ("passed_link", counters.passed_link),
            ("passed_local", counters.passed_local),
            ("passed_group", counters.passed_group),
            ("blocked", counters.blocked),
            ("no_socket", counters.no_socket),
            ("passed_management", counters.passed_management),
            ("silent", counters.silent),
        ];
        named.map(|(name, count)| (name.to_owned(), count)).into()
    }
    /// The same over the first `ports` ports.
    pub(super) fn totals(&self, ports: usize) -> BTreeMap<String, u64> {
        let mut totals = BTreeMap::new();
        for port in 0..ports {
            for (name, count) in self.counters(PortId(port as u8)) {
                *totals.entry(name).or_default() += count;
            }
        }
        totals
    }
}
