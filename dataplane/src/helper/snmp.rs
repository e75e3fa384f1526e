//! SNMP under translation: addresses that a message carries as values.
//!
//! The kernel decodes the whole message by SNMP's grammar and drops what it cannot;
//! so the same is accepted here, oddities included: alternatives are tried in order,
//! and most of them again after one was met.

use super::Visit;
use crate::conntrack::Direction;
use crate::packet::Family;
use crate::verdict::DropReason;
use crate::wire::{be16, be32, checksum, proto, put16, put32};

const AGENT: u16 = 161;
const MANAGER: u16 = 162;
const HEADER: usize = 8;
/// Of UDP's checksum in its header.
const CHECK: usize = 6;

/// Makes the client's address, wherever a translated message has it as a value, the
/// one that it has outside.
///
/// # Errors
/// [`DropReason::Helper`]: the message is not one that the kernel could read.
pub(super) fn translate(visit: &mut Visit<'_, '_>) -> Result<(), DropReason> {
    let fits = visit.parsed.proto == proto::UDP && visit.parsed.family == Family::V4;
    if !visit.is_translated() || !fits {
        return Ok(());
    }
    let Some(header) = visit.parsed.l4_bytes(visit.frame).first_chunk::<HEADER>() else {
        return Ok(());
    };
    let (sport, dport, len) = (be16(header, 0), be16(header, 2), be16(header, 4));
    let onward = visit.direction == Direction::Original;
    if (sport == AGENT && onward) || (dport == MANAGER && !onward) {
        return Ok(());
    }
    if len != visit.parsed.l4_len {
        return Err(DropReason::Helper);
    }
    visit.frame.join_all();
    let [from, to] = [visit.conn.original.src as u32, visit.conn.reply.dst as u32];
    if from == to {
        return Ok(());
    }
    let (l4, end) = (usize::from(visit.parsed.l4), visit.end());
    let (header, message) = visit.frame[l4..end].split_at_mut(HEADER);
    let check = be16(header, CHECK);
    let end = message.len();
    let mut reader = Reader { message, at: 0, end, met: false, check, from, to };
    reader.message().map_err(|Unread| DropReason::Helper)?;
    let check = reader.check;
    put16(header, CHECK, check);
    Ok(())
}

/// Tags.
mod tag {
    pub(super) const CONSTRUCTED: u8 = 0x20;
    pub(super) const INTEGER: u8 = 2;
    pub(super) const STRING: u8 = 4;
    pub(super) const NULL: u8 = 5;
    pub(super) const OBJECT: u8 = 6;
    pub(super) const SEQUENCE: u8 = 0x10 | CONSTRUCTED;
    pub(super) const ADDRESS: u8 = 0x40;
    /// Requests, answers and so on, in the order in which they are tried.
    pub(super) const UNITS: [u8; 8] = [0xa0, 0xa1, 0xa5, 0xa2, 0xa3, 0xa6, 0xa7, 0xa8];
    /// Counter, time, opaque, wide counter, gauge.
    pub(super) const NUMBERS: [u8; 5] = [0x41, 0x43, 0x44, 0x46, 0x42];
    /// No value, no such object, no such instance, the end.
    pub(super) const NOTHINGS: [u8; 4] = [NULL, 0x80, 0x81, 0x82];
}

/// Whether an element must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    May,
    /// It may, if none of its alternatives was met.
    Else,
}

/// The message is not by the grammar.
struct Unread;

/// Decodes a message, and changes addresses on the way.
struct Reader<'m> {
    message: &'m mut [u8],
    at: usize,
    /// Of what is being read.
    end: usize,
    /// The last element that was looked for was met.
    met: bool,
    check: u16,
    from: u32,
    to: u32,
}

/// What is around the element being read: where it ends, unless that is marked.
struct Outer(Option<usize>);

impl Reader<'_> {
    fn message(&mut self) -> Result<(), Unread> {
        /// Versions 1 and 2c.
        const NEWEST: u8 = 1;
        let outer = self.enter(tag::SEQUENCE, Need::Must)?;
        let version = self.leaf(tag::INTEGER, Need::Must)?.unwrap_or(0..0);
        match self.message[version] {
            [..=NEWEST] => {}
            _ => return Err(Unread),
        }
        self.leaf(tag::STRING, Need::Must)?;
        for unit in tag::UNITS {
            if let Some(outer) = self.enter(unit, Need::May)? {
                self.unit()?;
                self.leave(&outer)?;
                self.met = true;
            }
        }
        self.must_have_met()?;
        outer.map_or(Ok(()), |outer| self.leave(&outer))
    }

    /// Request, status, index and bindings.
    fn unit(&mut self) -> Result<(), Unread> {
        for _ in 0..3 {
            self.leaf(tag::INTEGER, Need::Must)?;
        }
        let Some(list) = self.enter(tag::SEQUENCE, Need::Must)? else { return Ok(()) };
        loop {
            self.binding()?;
            if !self.has_more(&list)? {
                return self.leave(&list);
            }
        }
    }

    /// A name and a value.
    fn binding(&mut self) -> Result<(), Unread> {
        let Some(outer) = self.enter(tag::SEQUENCE, Need::Must)? else { return Ok(()) };
        self.leaf(tag::OBJECT, Need::Must)?;
        self.leaf(tag::INTEGER, Need::May)?;
        self.leaf(tag::STRING, Need::Else)?;
        self.leaf(tag::OBJECT, Need::Else)?;
        if let Some(place) = self.leaf(tag::ADDRESS, Need::May)? {
            self.address(place)?;
        }
        for number in tag::NUMBERS {
            self.leaf(number, Need::May)?;
        }
        for nothing in tag::NOTHINGS {
            self.leaf(nothing, Need::Else)?;
        }
        self.must_have_met()?;
        self.leave(&outer)
    }

    fn address(&mut self, place: std::ops::Range<usize>) -> Result<(), Unread> {
        const LEN: usize = 4;
        let at = place.start;
        if place.len() != LEN {
            return Err(Unread);
        }
        if be32(self.message, at) != self.from {
            return Ok(());
        }
        // Zero: sent without a checksum.
        if self.check != 0 {
            let (from, to) = (self.from, self.to);
            self.check = if at.is_multiple_of(2) {
                checksum::update32(self.check, from, to)
            } else {
                checksum::update32(self.check, from.rotate_left(8), to.rotate_left(8))
            };
        }
        put32(self.message, at, self.to);
        Ok(())
    }

    /// Reads an element that has no parts: where its value is.
    fn leaf(&mut self, tag: u8, need: Need) -> Result<Option<std::ops::Range<usize>>, Unread> {
        let Some(len) = self.header(tag, need)? else { return Ok(None) };
        // Only what has parts can have a mark at its end.
        let end = self.at + len.ok_or(Unread)?;
        Ok(Some(std::mem::replace(&mut self.at, end)..end))
    }

    /// Begins with the parts of an element.
    fn enter(&mut self, tag: u8, need: Need) -> Result<Option<Outer>, Unread> {
        let Some(len) = self.header(tag, need)? else { return Ok(None) };
        let inner = len.map(|len| self.at + len);
        Ok(Some(Outer(inner.map(|inner| std::mem::replace(&mut self.end, inner)))))
    }

    /// Whether another part of a list follows.
    fn has_more(&self, outer: &Outer) -> Result<bool, Unread> {
        match outer.0 {
            Some(_) => Ok(self.at < self.end),
            None if self.end - self.at < 2 => Err(Unread),
            None => Ok(self.message[self.at] != 0),
        }
    }

    /// There must be no more parts.
    fn leave(&mut self, outer: &Outer) -> Result<(), Unread> {
        if let Some(end) = outer.0 {
            let whole = self.at == self.end;
            self.end = end;
            return if whole { Ok(()) } else { Err(Unread) };
        }
        let marked = self.end - self.at >= 2 && be16(self.message, self.at) == 0;
        self.at += if marked { 2 } else { 0 };
        if marked { Ok(()) } else { Err(Unread) }
    }

    fn must_have_met(&self) -> Result<(), Unread> {
        if self.met { Ok(()) } else { Err(Unread) }
    }

    /// Reads an element's tag and length; the outer `None` if it is not there, the
    /// inner one if its end is marked.
    fn header(&mut self, tag: u8, need: Need) -> Result<Option<Option<usize>>, Unread> {
        const LONG: u8 = 0x1f;
        const MARKED: u8 = 0x80;
        let present = self.at != self.end;
        if (need == Need::Else && self.met) || (need != Need::Must && !present) {
            return Ok(None);
        }
        self.met = false;
        if self.end - self.at < 2 {
            return Err(Unread);
        }
        let [found, len] = [self.message[self.at], self.message[self.at + 1]];
        if found & LONG == LONG {
            return Err(Unread);
        }
        // What should have parts is not asked whether it says so.
        if (found ^ tag) & !(tag & tag::CONSTRUCTED) != 0 {
            return if need == Need::Must { Err(Unread) } else { Ok(None) };
        }
        self.met = true;
        self.at += 2;
        let left = self.end - self.at;
        let len = match len {
            MARKED if found & tag::CONSTRUCTED != 0 && left >= 2 => return Ok(Some(None)),
            MARKED => return Err(Unread),
            ..MARKED => usize::from(len),
            _ => self.long_length(usize::from(len - MARKED))?,
        };
        (len <= self.end - self.at).then_some(Some(Some(len))).ok_or(Unread)
    }

    /// A length in so many bytes.
    fn long_length(&mut self, bytes: usize) -> Result<usize, Unread> {
        const MOST: usize = 2;
        if bytes > MOST || bytes > self.end - self.at {
            return Err(Unread);
        }
        let from = std::mem::replace(&mut self.at, 0);
        self.at = from + bytes;
        let digits = self.message[from..self.at].iter();
        Ok(digits.fold(0, |len, digit| len << 8 | usize::from(*digit)))
    }
}
