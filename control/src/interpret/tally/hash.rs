//! The oracle's own `-m hashlimit`: plain numbers, one list, and the kernel's regular
//! clearing away done at every packet.

use dataplane::packet::Family;
use dataplane::policy::tally::{HashSettings, Unit};

use super::super::Subject;
use super::super::packet::Proto;

/// Ticks a second.
const HZ: u64 = 250;
/// What a packet earns in a tick: 2^39, and a byte: 2^24.
const PACKET_TICK: u128 = 1 << 39;
const BYTE_TICK: u128 = 1 << 24;
/// What a bucket of bytes holds: a second's worth.
const BYTES_FULL: u128 = BYTE_TICK * HZ as u128;
const WORD: u128 = 1 << 64;

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    settings: HashSettings,
    /// Tick of the first packet.
    began: Option<u64>,
    entries: Vec<Entry>,
}

/// Source, destination and their ports, as far as they are told apart.
type Key = (u128, u128, u16, u16);

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    last: u64,
    expires: u64,
    credit: u128,
    refills: u64,
    counted: u128,
    was_too_much: bool,
}

/// What became of a packet.
pub(super) enum Found {
    Within,
    Above,
    Dropped(&'static str),
}

impl Table {
    pub(super) fn new(settings: HashSettings) -> Self {
        Self { settings, began: None, entries: Vec::new() }
    }

    pub(super) fn take(&mut self, subject: &Subject<'_>) -> Found {
        let now = subject.now.0 / 4_000_000;
        let Some(key) = key(&self.settings, subject) else { return Found::Dropped("ports") };
        self.clear_away(now);
        let life = self.ticks(self.settings.expire_ms);
        let known = self.entries.iter().position(|entry| entry.key == key);
        let at = match known {
            Some(at) => {
                self.refill(at, now);
                at
            }
            None if self.entries.len() as u64 >= self.most() => {
                return Found::Dropped("room in the table");
            }
            None => {
                let credit = self.full();
                let refills = self.settings.rate.burst;
                self.entries.push(Entry {
                    key,
                    last: now,
                    expires: 0,
                    credit,
                    refills,
                    counted: 0,
                    was_too_much: false,
                });
                self.entries.len() - 1
            }
        };
        self.entries[at].expires = now + life;
        let within = self.spend(at, u128::from(subject.packet.length));
        if within { Found::Within } else { Found::Above }
    }

    fn ticks(&self, ms: u32) -> u64 {
        u64::from(ms).div_ceil(4)
    }

    fn most(&self) -> u64 {
        let buckets = if self.settings.buckets == 0 { 8192 } else { self.settings.buckets };
        let most = if self.settings.most == 0 { buckets * 8 } else { self.settings.most };
        u64::from(most.max(buckets))
    }

    /// Every `gc_ms` the kernel drops what has expired by then.
    fn clear_away(&mut self, now: u64) {
        let began = *self.began.get_or_insert(now);
        let every = self.ticks(self.settings.gc_ms);
        let looks = (now - began) / every;
        if looks > 0 {
            let last_look = began + looks * every;
            self.entries.retain(|entry| entry.expires > last_look);
        }
    }

    fn cost(&self) -> u128 {
        let avg = u128::from(self.settings.rate.avg);
        match self.settings.rate.unit {
            // Whole credits of a millionth of a second.
            Unit::Packets => avg * (PACKET_TICK * u128::from(HZ) / 1_000_000) % WORD,
            Unit::Bytes => avg * BYTES_FULL / (1 << 32),
        }
    }

    fn full(&self) -> u128 {
        match self.settings.rate.unit {
            Unit::Packets => self.cost() * u128::from(self.settings.rate.burst) % WORD,
            Unit::Bytes => BYTES_FULL,
        }
    }

    /// What a window allows: in the long run, and at once.
    fn window(&self) -> (u128, u128) {
        let rate = self.settings.rate;
        let (avg, burst) = (u128::from(rate.avg), u128::from(rate.burst));
        match rate.unit {
            Unit::Packets => (1_000_000 / avg, 1_000_000 / avg + burst),
            Unit::Bytes => {
                let second = (u128::from(u32::MAX) / avg - 1) * 16;
                (second, second * burst.max(1))
            }
        }
    }

    fn refill(&mut self, at: usize, now: u64) {
        let (full, window) = (self.full(), self.window());
        let rate = self.settings.rate;
        let entry = &mut self.entries[at];
        let passed = u128::from(now - entry.last);
        if passed == 0 {
            return;
        }
        if let Some(seconds) = rate.window_s {
            let length = u128::from(seconds) * u128::from(HZ);
            if passed >= length {
                entry.last = now;
                entry.was_too_much = entry.counted * length > passed * window.0;
                entry.counted = 0;
            }
            return;
        }
        entry.last = now;
        entry.credit = match rate.unit {
            Unit::Packets => (entry.credit + passed * PACKET_TICK) % WORD,
            Unit::Bytes => entry.credit + passed * BYTE_TICK,
        };
        entry.credit = entry.credit.min(full);
    }

    fn spend(&mut self, at: usize, length: u128) -> bool {
        let (cost, window) = (self.cost(), self.window());
        let rate = self.settings.rate;
        let entry = &mut self.entries[at];
        if rate.window_s.is_some() {
            entry.counted += if rate.unit == Unit::Bytes { length } else { 1 };
            return !entry.was_too_much && entry.counted <= window.1;
        }
        let cost = match rate.unit {
            Unit::Packets => cost,
            Unit::Bytes => ((length / 16 + 1) * cost).min(BYTES_FULL),
        };
        if rate.unit == Unit::Bytes && entry.credit < cost && entry.refills > 0 {
            entry.refills -= 1;
            entry.credit = BYTES_FULL;
        }
        let enough = entry.credit >= cost;
        if enough {
            entry.credit -= cost;
        }
        enough
    }
}

/// The address with only its first bits.
fn cut(address: u128, family: Family, len: u8) -> u128 {
    let width = if family == Family::V4 { 32 } else { 128 };
    let host = width - u32::from(len);
    if host >= 128 { 0 } else { address >> host << host }
}

/// `None` when ports are asked for and the headers cannot be read.
fn key(settings: &HashSettings, subject: &Subject<'_>) -> Option<Key> {
    let packet = &subject.packet;
    let wanted = settings.parts;
    let src = if wanted.src { cut(packet.src, packet.family, settings.src_len) } else { 0 };
    let dst = if wanted.dst { cut(packet.dst, packet.family, settings.dst_len) } else { 0 };
    if !wanted.sport && !wanted.dport {
        return Some((src, dst, 0, 0));
    }
    let later = packet.fragment_offset > 0;
    let (sport, dport) = match packet.proto {
        _ if later && packet.family == Family::V6 => (0, 0),
        Proto::CutOff | Proto::Known(59) if packet.family == Family::V6 => return None,
        Proto::CutOff => (0, 0),
        Proto::Known(proto) => match proto {
            6 | 17 | 33 | 50 | 132 | 136 => words(packet.tail, 0)?,
            51 => words(packet.tail, 4)?,
            _ => (0, 0),
        },
    };
    Some((src, dst, if wanted.sport { sport } else { 0 }, if wanted.dport { dport } else { 0 }))
}

fn words(bytes: &[u8], at: usize) -> Option<(u16, u16)> {
    let four = bytes.get(at..at + 4)?;
    Some((u16::from_be_bytes([four[0], four[1]]), u16::from_be_bytes([four[2], four[3]])))
}
