//! From the file of an earlier process into the tables of this one, before the
//! first packet.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::conntrack::{ConnId, Conntrack, ImportError, Limits, Saved, TimeoutsId, status};
use dataplane::fib::Network;
use dataplane::packet::{Family, PortId};

use super::format::{Contents, Refusal};
use super::{Place, StateError, failed, mapped};
use crate::compile::{Imported, Piece, SavedLimit};

/// What came of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Whether there was one.
    pub found: bool,
    /// Why it was not used, and where it lies now.
    pub refused: Option<(Refusal, PathBuf)>,
    /// Whether it was written after the workers had stopped.
    pub clean: bool,
    /// Time since it was saved.
    pub age: Nanos,
    /// Connections that go on.
    pub connections: u64,
    /// Connections whose time ran out meanwhile.
    pub expired: u64,
    /// Connections that the table had no room for.
    pub no_room: u64,
    /// Connections in the middle of opening when an earlier process died, and
    /// masqueraded ones whose address or port is gone.
    pub stale: u64,
    /// Connections that contradict each other.
    pub clashed: u64,
    /// Expectations that still hold.
    pub expectations: u64,
    /// Buckets of rules that still stand.
    pub limits: u64,
    /// What rules share by name, and amounts that they own.
    pub pieces: Imported,
    /// What it took.
    pub took: Nanos,
}

/// Reads the state file into the tables. A file that is refused is renamed, and
/// the tables stay as they were.
///
/// # Errors
/// The file is there and cannot be read, or not be put aside.
pub fn restore(
    place: &Place,
    conntrack: &Conntrack,
    network: &Network,
    dynamic: impl FnOnce(&[SavedLimit], &[Piece], Nanos, Nanos) -> (usize, Imported),
) -> Result<Restored, StateError> {
    let now = monotonic();
    let path = place.path();
    let Some(file) = mapped::read(path).map_err(failed(path, "read it"))? else {
        return Ok(Restored::default());
    };
    let mut restored = Restored { found: true, ..Restored::default() };
    let contents = match Contents::check(&file) {
        Ok(contents) => contents,
        Err(refusal) => {
            let aside = mapped::beside(path, ".refused");
            std::fs::rename(path, &aside).map_err(failed(path, "put it aside"))?;
            restored.refused = Some((refusal, aside));
            return Ok(restored);
        }
    };
    restored.clean = contents.header.clean;
    // A wall clock that was set back says nothing.
    restored.age = Nanos(wall_us().saturating_sub(contents.header.saved_at_us) * 1000);
    let ports: Vec<Option<PortId>> =
        contents.ports().map(|name| network.port_named(&name)).collect();
    let timeouts = contents.timeouts().map(|name| conntrack.timeouts_named(&name)).collect();
    let mut incoming = Incoming { conntrack, network, ports, timeouts, restored, now };
    incoming.connections(&contents);
    let mut restored = incoming.restored;
    let saved: Vec<SavedLimit> = contents.limits().filter_map(Result::ok).collect();
    let pieces: Vec<Piece> = contents.pieces().filter_map(Result::ok).collect();
    let (limits, pieces) = dynamic(&saved, &pieces, restored.age, now);
    (restored.limits, restored.pieces) = (limits as u64, pieces);
    restored.took = monotonic().saturating_sub(now);
    Ok(restored)
}

struct Incoming<'i> {
    conntrack: &'i Conntrack,
    network: &'i Network,
    /// The present numbers of the ports as they were.
    ports: Vec<Option<PortId>>,
    /// The present indices of the timeout policies as they were.
    timeouts: Vec<Option<TimeoutsId>>,
    restored: Restored,
    now: Nanos,
}

impl Incoming<'_> {
    fn connections(&mut self, contents: &Contents<'_>) {
        let mut names = HashMap::new();
        let mut children = Vec::new();
        for mut saved in contents.connections().filter_map(Result::ok) {
            if !self.belongs(&mut saved) {
                self.restored.stale += 1;
                continue;
            }
            match self.conntrack.import(&saved, self.restored.age, self.now) {
                Ok(id) => {
                    self.restored.connections += 1;
                    names.insert(saved.number, id);
                    children.extend(saved.master.map(|master| (id, master)));
                }
                Err(ImportError::Expired) => self.restored.expired += 1,
                Err(ImportError::Full) => self.restored.no_room += 1,
                Err(ImportError::Clash | ImportError::Unsound) => self.restored.clashed += 1,
            }
        }
        for (child, master) in children {
            // A master that is gone leaves its children to themselves, as in the kernel.
            if let Some(master) = names.get(&master) {
                self.conntrack.set_master(child, *master);
            }
        }
        self.expectations(contents, &names);
    }

    /// Expectations go on with their masters.
    fn expectations(&mut self, contents: &Contents<'_>, names: &HashMap<u64, ConnId>) {
        for expected in contents.expectations().filter_map(Result::ok) {
            let timeout = expected.left.saturating_sub(self.restored.age);
            let Some(master) = names.get(&expected.master).filter(|_| timeout > Nanos(0)) else {
                continue;
            };
            let limits = Limits { most: u32::MAX, timeout, any_master: false };
            let put = self.conntrack.expect(&expected.of_master(*master), limits, self.now);
            self.restored.expectations += u64::from(put.is_ok());
        }
    }

    /// Whether the connection still makes sense here and now.
    fn belongs(&self, saved: &mut Saved) -> bool {
        // What the ends agreed on after the last save is not known, and without it
        // everything they say would be INVALID.
        if !self.restored.clean && saved.is_half_open() {
            return false;
        }
        if let Some(TimeoutsId(old)) = saved.timeouts() {
            saved.set_timeouts(self.timeouts.get(usize::from(old)).copied().flatten());
        }
        let Some(old) = saved.masquerade_port() else { return true };
        let Some(Some(port)) = self.ports.get(usize::from(old)) else { return false };
        saved.set_masquerade_port(Some(port.0));
        let taken = match saved.reply.family {
            Family::V4 => IpAddr::from((saved.reply.dst as u32).to_be_bytes()),
            Family::V6 => IpAddr::from(saved.reply.dst.to_be_bytes()),
        };
        let addresses = &self.network.port(*port).addresses;
        saved.status & status::SRC_NAT == 0 || addresses.iter().any(|(own, _)| *own == taken)
    }
}
