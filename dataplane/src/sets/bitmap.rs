//! The elements of a bitmap type: one row for each address or port of a range.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::element::{Element, Extras};
use super::error::SetError;
use super::key::{Key, WORDS, mac_number};
use super::slab::{Ask, COMMENTED, FILLED, LIVE, Layout, Mapped, Row, Slab};
use super::spec::{CreateSpec, SetType};
use crate::clock::Nanos;

/// What the bitmap says of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    No,
    Yes,
    /// There, without the link-layer address that it is to have.
    Unfilled,
}

/// Rows that are emptied under one lock.
const PIECE: u32 = 4096;

/// Whether a range is, or ends like, a network that holds more than one of `netmask`: the
/// kernel takes no other along with a netmask.
fn holds_networks(first: u32, last: u32, netmask: u8) -> bool {
    let mask = |length: u32| u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let length = (1..=31).rev().find(|length| last & mask(*length) == first);
    match length {
        Some(length) => u32::from(netmask) > length,
        None => (first, last) == (0, u32::MAX),
    }
}

/// Elements of a bitmap type.
#[derive(Debug)]
pub(super) struct Bitmap {
    kind: SetType,
    first: u32,
    /// Addresses of one element, as a power of two.
    shift: u32,
    count: u32,
    default_timeout_s: u32,
    slab: Slab,
    live: AtomicU32,
    writer: Mutex<()>,
}

/// An element to be added.
pub(super) struct Put<'a> {
    pub(super) element: &'a Element,
    pub(super) extras: &'a Extras,
    pub(super) flags: u64,
    pub(super) exist: bool,
    /// False for packets.
    pub(super) may_allocate: bool,
    pub(super) now: Nanos,
}

impl Bitmap {
    pub(super) fn new(spec: &CreateSpec) -> Result<Self, SetError> {
        let (low, high) = spec.range.ok_or(SetError::Parameter("range"))?;
        let (low, high) = (low.min(high), low.max(high));
        let shift = 32 - u32::from(spec.netmask.unwrap_or(32));
        let host = if shift == 32 { u32::MAX } else { (1 << shift) - 1 };
        let (first, last) = (low & !host, high | host);
        if spec.netmask.is_some_and(|netmask| !holds_networks(first, last, netmask)) {
            return Err(SetError::NetmaskRange);
        }
        let count = (u64::from(last) - u64::from(first) + 1) >> shift;
        if count > u64::from(CreateSpec::MAX_BITMAP) {
            return Err(SetError::RangeSize);
        }
        let key_words = usize::from(spec.kind == SetType::BitmapIpMac);
        Ok(Self {
            kind: spec.kind,
            first,
            shift,
            count: count as u32,
            default_timeout_s: spec.timeout.unwrap_or_default(),
            slab: Slab::new(Layout::new(spec, key_words), count as u32),
            live: AtomicU32::new(0),
            writer: Mutex::new(()),
        })
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row of an element.
    fn row_of(&self, element: &Element) -> Result<u32, SetError> {
        let value = match self.kind {
            SetType::BitmapPort => u32::from(element.port),
            _ => u32::try_from(element.ip).map_err(|_| SetError::WrongFamily)?,
        };
        let row = value.checked_sub(self.first).map(|distance| distance >> self.shift);
        row.filter(|row| *row < self.count).ok_or(SetError::OutOfRange)
    }

    fn element(&self, at: u32, state: u64, key: &Key) -> Element {
        let value = self.first + (at << self.shift);
        match self.kind {
            SetType::BitmapPort => Element { port: value as u16, ..Element::default() },
            _ => Element {
                ip: u128::from(value),
                mac: (state & FILLED != 0)
                    .then(|| std::array::from_fn(|byte| (key[0] >> (40 - 8 * byte)) as u8)),
                ..Element::default()
            },
        }
    }

    /// Whether its time runs: not before the link-layer address is known.
    fn runs(&self, state: u64) -> bool {
        self.kind != SetType::BitmapIpMac || state & FILLED != 0
    }

    fn is_over(&self, row: &Row<'_>, now: Nanos) -> bool {
        self.runs(row.state()) && row.expired(now)
    }

    /// What a packet finds, or, without an `ask`, somebody who wants to know.
    pub(super) fn test(
        &self,
        element: &Element,
        ask: &Ask,
        mapped: &mut Mapped,
    ) -> Result<Found, SetError> {
        let at = self.row_of(element)?;
        let Some(row) = self.slab.row(at) else { return Ok(Found::No) };
        let Some((state, key)) = row.read() else { return Ok(Found::No) };
        if self.kind == SetType::BitmapIpMac {
            match element.mac {
                Some(_) if state & FILLED == 0 => return Ok(Found::Unfilled),
                Some(mac) if u128::from(key[0]) != mac_number(mac) => return Ok(Found::No),
                // Nobody asks for the address: it is enough that the element is there.
                None if state & FILLED == 0 => return Ok(Found::Yes),
                _ => {}
            }
        }
        Ok(if row.answers(ask, mapped) { Found::Yes } else { Found::No })
    }

    pub(super) fn put(&self, put: &Put<'_>, note: impl FnOnce(u32)) -> Result<(), SetError> {
        let at = self.row_of(put.element)?;
        let _writer = self.writer();
        if put.may_allocate {
            self.slab.prepare(at);
        }
        let row = self.slab.row(at).ok_or(SetError::NoRoom)?;
        let old = row.state();
        let there = old & LIVE != 0;
        let mac = put.element.mac.filter(|_| self.kind == SetType::BitmapIpMac);
        let filling = there && mac.is_some() && old & FILLED == 0;
        if there && !filling && !self.is_over(&row, put.now) && !put.exist {
            return Err(SetError::Exists);
        }
        if !there {
            row.clear();
        }
        let mut flags = LIVE | put.flags;
        let keeps = there && !filling && old & FILLED != 0 && (mac.is_none() || !put.exist);
        if mac.is_some() || keeps {
            flags |= FILLED;
        }
        if let Some(mac) = mac.filter(|_| !keeps) {
            // One word, so nobody reads half an address, nor misses the element meanwhile.
            let mut key = [0; WORDS];
            key[0] = mac_number(mac) as u64;
            row.set_key(&key);
        }
        let mut timeout_s = put.extras.timeout_s.unwrap_or(self.default_timeout_s);
        if filling && timeout_s == self.default_timeout_s {
            timeout_s = row.held_timeout();
        }
        match self.kind == SetType::BitmapIpMac && flags & FILLED == 0 {
            true => row.hold_timeout(timeout_s),
            false => row.start_timeout(timeout_s, put.now),
        }
        row.init(put.extras);
        if put.flags & COMMENTED != 0 {
            note(at);
        }
        row.set_state(flags);
        if !there {
            self.live.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn del(&self, element: &Element, now: Nanos) -> Result<(), SetError> {
        let at = self.row_of(element)?;
        let _writer = self.writer();
        let row = self.slab.row(at).ok_or(SetError::NotThere)?;
        if row.state() & LIVE == 0 {
            return Err(SetError::NotThere);
        }
        let over = self.is_over(&row, now);
        row.set_state(0);
        self.live.fetch_sub(1, Ordering::Relaxed);
        if over { Err(SetError::NotThere) } else { Ok(()) }
    }

    /// A piece at a time, so that nobody waits long.
    fn drop_where(&self, wanted: impl Fn(&Row<'_>) -> bool) {
        for from in (0..self.count).step_by(PIECE as usize) {
            let _writer = self.writer();
            let rows = from..self.count.min(from + PIECE);
            for row in rows.filter_map(|at| self.slab.row(at)) {
                if row.state() & LIVE != 0 && wanted(&row) {
                    row.set_state(0);
                    self.live.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }

    pub(super) fn flush(&self) {
        self.drop_where(|_| true);
    }

    pub(super) fn sweep(&self, now: Nanos) {
        self.drop_where(|row| self.is_over(row, now));
    }

    /// Sets room aside for what packets add.
    pub(super) fn reserve(&self) {
        self.slab.prepare_to(self.count);
    }

    /// Elements from a row on, until `take` has enough; the next row.
    pub(super) fn list(
        &self,
        from: u32,
        now: Nanos,
        mut take: impl FnMut(u32, u64, Element, Extras) -> bool,
    ) -> Option<u32> {
        for at in from..self.count {
            let Some(row) = self.slab.row(at) else { continue };
            let Some((state, key)) = row.read() else { continue };
            if self.is_over(&row, now) {
                continue;
            }
            let extras = row.extras(state, self.runs(state), now);
            if !take(at, state, self.element(at, state, &key), extras) {
                return Some(at);
            }
        }
        None
    }

    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.slab.bytes()
    }
}
