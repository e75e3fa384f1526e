//! The blocklist in the BPF maps: tables of sources, the rules that drop what is in them,
//! and what these rules have dropped.
//!
//! `bpf/block.h` says what the maps mean. This writes single entries and knows nothing of
//! what may stand there, which is the business of whoever has taken it
//! ([`Program::take_blocklist`](super::Program::take_blocklist)).

use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};

use super::{BpfError, is_absent, is_full, take};
use crate::packet::{Family, MAX_PORTS, Mac, PortId};

/// Rules of each family that can stand in the maps.
pub const RULES: usize = 4;
/// As in `block.h`.
const HOSTS: u32 = 1;
const NETS: u32 = 2;
const PORTS: u32 = 64;

/// Room in the maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlocklistSize {
    /// Single addresses, IPv4 and IPv6. Room costs [`BYTES_OF_ROOM`] each.
    pub hosts: [u32; 2],
    /// Prefixes of each family. Room costs nothing.
    pub nets: u32,
}

/// Memory for each address that there may be, in bytes.
pub const BYTES_OF_ROOM: u64 = 16;
/// About what an entry takes, in bytes: address and prefix, of IPv4 and IPv6.
const BYTES_OF_ENTRY: [[u64; 2]; 2] = [[64, 96], [64, 96]];

/// About what `hosts` addresses and `nets` prefixes of a family take, in bytes.
pub fn bytes_of(family: Family, hosts: u64, nets: u64) -> u64 {
    let each = BYTES_OF_ENTRY.map(|sizes| sizes[place(family)]);
    hosts * each[0] + nets * each[1]
}

/// What an entry says of the sources in it, unless a longer one says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Meaning {
    /// They are in the table.
    Listed = 1,
    /// They are not.
    Excepted = 2,
}

/// A rule as the program carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRule {
    /// What is in this table is dropped; never 0.
    pub table: u32,
    /// Whether the table has prefixes besides single addresses.
    pub nets: bool,
    /// On which ports, a bit each.
    pub ports: u64,
}

/// What a rule has dropped on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Packets.
    pub packets: u64,
    /// Their bytes of layer 3, as rules count them.
    pub bytes: u64,
    /// Bytes of their frames, as ports count them.
    pub frame_bytes: u64,
}

/// The maps.
pub struct Blocklist {
    hosts4: HashMap<MapData, [u8; 8], u8>,
    hosts6: HashMap<MapData, [u8; 20], u8>,
    nets4: LpmTrie<MapData, [u8; 8], u8>,
    nets6: LpmTrie<MapData, [u8; 20], u8>,
    rules: Array<MapData, [u64; 2]>,
    counts: PerCpuArray<MapData, [u64; 3]>,
    macs: Array<MapData, u64>,
    size: BlocklistSize,
}

impl std::fmt::Debug for Blocklist {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Blocklist").field("size", &self.size).finish_non_exhaustive()
    }
}

fn place(family: Family) -> usize {
    usize::from(family == Family::V6)
}

/// A table's number and what follows it in a key.
fn joined<const N: usize, const M: usize>(table: u32, rest: [u8; N]) -> [u8; M] {
    let mut key = [0; M];
    key[..4].copy_from_slice(&table.to_ne_bytes());
    key[4..].copy_from_slice(&rest);
    key
}

/// Of which table a key is.
fn table_of(key: &[u8]) -> u32 {
    key.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Remains").finish_non_exhaustive()
    }
}

impl Blocklist {
    pub(super) fn take(ebpf: &mut Ebpf, size: BlocklistSize) -> Result<Self, BpfError> {
        Ok(Self {
            hosts4: take(ebpf, "block4")?.try_into()?,
            hosts6: take(ebpf, "block6")?.try_into()?,
            nets4: take(ebpf, "block4_net")?.try_into()?,
            nets6: take(ebpf, "block6_net")?.try_into()?,
            rules: take(ebpf, "block_rules")?.try_into()?,
            counts: take(ebpf, "block_counts")?.try_into()?,
            macs: take(ebpf, "block_macs")?.try_into()?,
            size,
        })
    }

    /// The room that there is.
    pub fn size(&self) -> BlocklistSize {
        self.size
    }

    /// Puts a prefix into a table, or changes what it means.
    ///
    /// # Errors
    /// [`BpfError::Full`] when there is no room, or no memory; others when the map refuses.
    pub fn put(
        &mut self,
        table: u32,
        prefix: (IpAddr, u8),
        meaning: Meaning,
    ) -> Result<(), BpfError> {
        let value = meaning as u8;
        let (name, result) = match prefix {
            (IpAddr::V4(ip), 32) => {
                ("block4", self.hosts4.insert(joined(table, ip.octets()), value, 0))
            }
            (IpAddr::V6(ip), 128) => {
                ("block6", self.hosts6.insert(joined(table, ip.octets()), value, 0))
            }
            (IpAddr::V4(ip), length) => {
                let key = Key::new(32 + u32::from(length), joined(table, ip.octets()));
                ("block4_net", self.nets4.insert(&key, value, 0))
            }
            (IpAddr::V6(ip), length) => {
                let key = Key::new(32 + u32::from(length), joined(table, ip.octets()));
                ("block6_net", self.nets6.insert(&key, value, 0))
            }
        };
        let lacks_room = |error: &_| is_full(error) || super::errno(error) == Some(libc::ENOMEM);
        result.map_err(|error| if lacks_room(&error) { BpfError::Full(name) } else { error.into() })
    }

    /// Takes a prefix out of a table; whether it was there.
    ///
    /// # Errors
    /// [`BpfError`] when the map refuses.
    pub fn remove(&mut self, table: u32, prefix: (IpAddr, u8)) -> Result<bool, BpfError> {
        let result = match prefix {
            (IpAddr::V4(ip), 32) => self.hosts4.remove(&joined(table, ip.octets())),
            (IpAddr::V6(ip), 128) => self.hosts6.remove(&joined(table, ip.octets())),
            (IpAddr::V4(ip), length) => {
                self.nets4.remove(&Key::new(32 + u32::from(length), joined(table, ip.octets())))
            }
            (IpAddr::V6(ip), length) => {
                self.nets6.remove(&Key::new(32 + u32::from(length), joined(table, ip.octets())))
            }
        };
        match result {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a rule in force, or takes it away. One is not to follow another in the same
    /// place before every packet has left that one: see [`quiesce`].
    ///
    /// # Errors
    /// [`BpfError`] when the map refuses.
    pub fn set_rule(
        &mut self,
        family: Family,
        at: usize,
        rule: Option<BlockRule>,
    ) -> Result<(), BpfError> {
        let index = (place(family) * RULES + at) as u32;
        let Some(rule) = rule else { return Ok(self.rules.set(index, [0, 0], 0)?) };
        let kinds = HOSTS | if rule.nets { NETS } else { 0 };
        // Two words of 32 bits in the order of memory: the table, then the kinds.
        let word = |table: u32| {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&table.to_ne_bytes());
            bytes[4..].copy_from_slice(&kinds.to_ne_bytes());
            u64::from_ne_bytes(bytes)
        };
        // The table last: with it, the rule is in force.
        self.rules.set(index, [word(0), rule.ports], 0)?;
        Ok(self.rules.set(index, [word(rule.table), rule.ports], 0)?)
    }

    /// What the rule at a place has dropped on a port since the program was loaded, over
    /// all CPUs.
    ///
    /// # Errors
    /// [`BpfError`] when the map cannot be read.
    pub fn count(&self, family: Family, at: usize, port: PortId) -> Result<Blocked, BpfError> {
        let rule = (place(family) * RULES + at) as u32;
        let values = self.counts.get(&(rule * PORTS + u32::from(port.0)), 0)?;
        let sum = |field: usize| values.iter().map(|value| value[field]).sum();
        Ok(Blocked { packets: sum(0), bytes: sum(1), frame_bytes: sum(2) })
    }

    /// Says which address a port has: only frames to it are looked at. `None`: no frame is.
    ///
    /// # Errors
    /// [`BpfError`] when the map refuses.
    pub fn set_mac(&mut self, port: PortId, mac: Option<Mac>) -> Result<(), BpfError> {
        debug_assert!(port.index() < MAX_PORTS);
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&mac.unwrap_or_default().0);
        Ok(self.macs.set(u32::from(port.0), u64::from_ne_bytes(bytes), 0)?)
    }

    /// What is left of tables for which `alive` says no.
    ///
    /// # Errors
    /// [`BpfError`] when a map cannot be read.
    pub fn remains(&self, alive: impl Fn(u32) -> bool) -> Result<Remains, BpfError> {
        let dead = |key: &[u8]| !alive(table_of(key));
        let mut remains = Remains::default();
        for key in self.hosts4.keys() {
            remains.hosts4.extend(Some(key?).filter(|key| dead(key)));
        }
        for key in self.hosts6.keys() {
            remains.hosts6.extend(Some(key?).filter(|key| dead(key)));
        }
        for key in self.nets4.keys() {
            remains.nets4.extend(Some(key?).filter(|key| dead(&key.data())));
        }
        for key in self.nets6.keys() {
            remains.nets6.extend(Some(key?).filter(|key| dead(&key.data())));
        }
        Ok(remains)
    }

    /// Takes out at most `most` of what is left. Whether there is more.
    ///
    /// # Errors
    /// [`BpfError`] when a map refuses.
    pub fn bury(&mut self, remains: &mut Remains, most: usize) -> Result<bool, BpfError> {
        for _ in 0..most {
            let buried = if let Some(key) = remains.hosts4.pop() {
                self.hosts4.remove(&key)
            } else if let Some(key) = remains.hosts6.pop() {
                self.hosts6.remove(&key)
            } else if let Some(key) = remains.nets4.pop() {
                self.nets4.remove(&key)
            } else if let Some(key) = remains.nets6.pop() {
                self.nets6.remove(&key)
            } else {
                return Ok(false);
            };
            buried.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })?;
        }
        Ok(true)
    }
}

/// Keys of tables that are gone.
#[derive(Default)]
pub struct Remains {
    hosts4: Vec<[u8; 8]>,
    hosts6: Vec<[u8; 20]>,
    nets4: Vec<Key<[u8; 8]>>,
    nets6: Vec<Key<[u8; 20]>>,
}

/// Returns when every packet that a program was at has left it: what was taken away
/// before drops nothing, and counts nothing, any more.
///
/// # Errors
/// The kernel's, where it cannot tell (it runs without ticks, `nohz_full`).
pub fn quiesce() -> std::io::Result<()> {
    // The kernel carries it out as a grace period of RCU, under which XDP programs run.
    Ok(rustix::thread::membarrier(rustix::thread::MembarrierCommand::Global)?)
}
