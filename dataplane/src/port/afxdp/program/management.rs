//! The management list in the BPF maps.
//!
//! A list is written beside the one in force, under another number, and comes into
//! force by one store: at no moment is anything admitted that neither list admits,
//! or refused that both admit. The maps have room for two lists. What the list
//! before left behind goes at the next change, when no packet looks at it any more.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::{BpfError, Program, is_absent, is_full, take};
use crate::port::management::{Compiled, Counted, ENTRIES_MAX, Entry, List};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};

/// Set beside the number of a list that has IPv6 entries; as in `common.h`.
const LISTS_IPV6: u32 = 1 << 31;
/// Numbers of lists: taken in turns.
const NUMBERS: [u32; 2] = [1, 2];

pub(super) struct ManagementMaps {
    in_force: Array<MapData, u32>,
    prefixes4: LpmTrie<MapData, [u8; 8], u64>,
    prefixes6: LpmTrie<MapData, [u8; 20], u64>,
    services: HashMap<MapData, [u8; 8], u64>,
    counts: PerCpuArray<MapData, u64>,
    broadcasts: HashMap<MapData, [u8; 4], u8>,
    current_broadcasts: BTreeSet<Ipv4Addr>,
    entries: Vec<Placed>,
    /// What the maps hold under each of [`NUMBERS`].
    written: [Compiled; 2],
    /// Which of them is in force.
    turn: usize,
}

/// An entry in force.
#[derive(Clone)]
struct Placed {
    entry: Entry,
    /// Its bit.
    slot: u8,
    /// What was counted under that bit before, in and out.
    before: [u64; 2],
}

impl ManagementMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, BpfError> {
        Ok(Self {
            in_force: take(ebpf, "management")?.try_into()?,
            prefixes4: take(ebpf, "manage4")?.try_into()?,
            prefixes6: take(ebpf, "manage6")?.try_into()?,
            services: take(ebpf, "services")?.try_into()?,
            counts: take(ebpf, "managed")?.try_into()?,
            broadcasts: take(ebpf, "broadcast4")?.try_into()?,
            current_broadcasts: BTreeSet::new(),
            entries: Vec::new(),
            written: Default::default(),
            turn: 0,
        })
    }

    fn set(&mut self, list: &List) -> Result<(), BpfError> {
        let next = 1 - self.turn;
        self.erase(next)?;
        let entries = self.allot(list)?;
        let slots: Vec<u8> = entries.iter().map(|placed| placed.slot).collect();
        let compiled = list.compile(&slots);
        let number = NUMBERS[next];
        // Known before it is written, so that what a failure leaves is erased.
        self.written[next] = compiled.clone();
        for (&prefix, &bits) in &compiled.prefixes {
            self.write_prefix(number, prefix, bits)?;
        }
        for (&service, &bits) in &compiled.services {
            let result = self.services.insert(service_key(number, service), bits, 0);
            result.map_err(|error| full("services", error))?;
        }
        let ipv6 = if compiled.has_ipv6() { LISTS_IPV6 } else { 0 };
        let word = if list.is_empty() { 0 } else { number | ipv6 };
        self.in_force.set(0, word, 0)?;
        (self.entries, self.turn) = (entries, next);
        Ok(())
    }

    /// Bits for the entries of a list: those that were there keep theirs, and with it
    /// their counts; the others begin at zero.
    fn allot(&self, list: &List) -> Result<Vec<Placed>, BpfError> {
        let bit = |placed: &Placed| 1_u64 << placed.slot;
        let used: u64 = self.entries.iter().map(bit).sum();
        let kept = |entry: &Entry| self.entries.iter().find(|known| known.entry == *entry);
        let keeping: u64 = list.entries().iter().filter_map(kept).map(bit).sum();
        // Bits of entries that go are taken last: packets may still be counted there.
        let slots = |among: u64| (0..ENTRIES_MAX as u8).filter(move |slot| among >> slot & 1 == 1);
        let mut free = slots(!used).chain(slots(used & !keeping));
        let mut entries = Vec::with_capacity(list.entries().len());
        for entry in list.entries() {
            let placed = match kept(entry) {
                Some(placed) => placed.clone(),
                None => {
                    let slot = free.next().ok_or(BpfError::Full("managed"))?;
                    Placed { entry: entry.clone(), slot, before: self.count(slot)? }
                }
            };
            entries.push(placed);
        }
        Ok(entries)
    }

    /// Packets in and out under a bit.
    fn count(&self, slot: u8) -> Result<[u64; 2], BpfError> {
        let sum =
            |index: u32| -> Result<u64, BpfError> { Ok(self.counts.get(&index, 0)?.iter().sum()) };
        let at = u32::from(slot) * 2;
        Ok([sum(at)?, sum(at + 1)?])
    }

    fn write_prefix(
        &mut self,
        number: u32,
        (network, length): (IpAddr, u8),
        bits: u64,
    ) -> Result<(), BpfError> {
        let length = 32 + u32::from(length);
        let (name, result) = match network {
            IpAddr::V4(v4) => {
                let key = Key::new(length, joined(number, v4.octets()));
                ("manage4", self.prefixes4.insert(&key, bits, 0))
            }
            IpAddr::V6(v6) => {
                let key = Key::new(length, joined(number, v6.octets()));
                ("manage6", self.prefixes6.insert(&key, bits, 0))
            }
        };
        result.map_err(|error| full(name, error))
    }

    /// Takes the list out of the maps that is not in force.
    fn erase(&mut self, which: usize) -> Result<(), BpfError> {
        let (number, old) = (NUMBERS[which], std::mem::take(&mut self.written[which]));
        for &(network, length) in old.prefixes.keys() {
            let length = 32 + u32::from(length);
            let result = match network {
                IpAddr::V4(v4) => {
                    self.prefixes4.remove(&Key::new(length, joined(number, v4.octets())))
                }
                IpAddr::V6(v6) => {
                    self.prefixes6.remove(&Key::new(length, joined(number, v6.octets())))
                }
            };
            result.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })?;
        }
        for &service in old.services.keys() {
            let result = self.services.remove(&service_key(number, service));
            result.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }

    fn counted(&self) -> Result<Vec<Counted>, BpfError> {
        let counted = |placed: &Placed| {
            let [inbound, outbound] = self.count(placed.slot)?;
            let [before_in, before_out] = placed.before;
            Ok(Counted {
                entry: placed.entry.clone(),
                inbound: inbound - before_in,
                outbound: outbound - before_out,
            })
        };
        self.entries.iter().map(counted).collect()
    }

    fn set_broadcasts(&mut self, wanted: BTreeSet<Ipv4Addr>) -> Result<(), BpfError> {
        for gone in self.current_broadcasts.difference(&wanted) {
            match self.broadcasts.remove(&gone.octets()) {
                Err(error) if !is_absent(&error) => return Err(error.into()),
                _ => {}
            }
        }
        for new in wanted.difference(&self.current_broadcasts) {
            let result = self.broadcasts.insert(new.octets(), 1, 0);
            result.map_err(|error| full("broadcast4", error))?;
        }
        self.current_broadcasts = wanted;
        Ok(())
    }
}

fn full(name: &'static str, error: MapError) -> BpfError {
    if is_full(&error) { BpfError::Full(name) } else { error.into() }
}

/// A list's number and what follows it in a key.
fn joined<const N: usize, const M: usize>(number: u32, rest: [u8; N]) -> [u8; M] {
    let mut key = [0; M];
    key[..4].copy_from_slice(&number.to_ne_bytes());
    key[4..].copy_from_slice(&rest);
    key
}

fn service_key(number: u32, (protocol, port): (u8, u16)) -> [u8; 8] {
    let ([p0, p1], [w0, w1]) = (u16::from(protocol).to_ne_bytes(), port.to_be_bytes());
    joined(number, [p0, p1, w0, w1])
}

impl Program {
    /// Puts a management list in the place of the one in force, at once for every
    /// packet. Entries that stay keep their counts. One change must not follow another
    /// within the time that a packet takes.
    ///
    /// # Errors
    /// [`BpfError`] when a map refuses; the list before is in force.
    pub fn set_management(&mut self, list: &List) -> Result<(), BpfError> {
        self.management.set(list)
    }

    /// The management list in force, and what each entry admitted.
    ///
    /// # Errors
    /// [`BpfError`] when a map cannot be read.
    pub fn management(&self) -> Result<Vec<Counted>, BpfError> {
        self.management.counted()
    }

    /// Says which of the local addresses are broadcast addresses: nobody's service.
    ///
    /// # Errors
    /// [`BpfError`] when the map is full.
    pub fn set_broadcasts(
        &mut self,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Result<(), BpfError> {
        self.management.set_broadcasts(addresses.into_iter().collect())
    }
}
