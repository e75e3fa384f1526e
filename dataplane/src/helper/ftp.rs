//! FTP: where the data connection will go, as PORT, EPRT and the answers 227
//! and 229 say it.
//!
//! A command counts only at the beginning of a line. Lines are recognised by
//! sequence number: a segment that ends a line is remembered, by direction, and
//! the segment that continues there begins one. So nobody can smuggle a command
//! into the middle of a line by cutting it.
//!
//! A line cut in the middle of an announcement is dropped until it comes whole,
//! as a sender's repetition brings it. Under translation what follows waits for
//! it, too: if it went ahead, the other end would make one line of the old tail
//! and the new head.

mod parse;

use std::fmt::Write;

use arrayvec::ArrayString;

use super::Visit;
use super::rewrite::{self, Cut};
use crate::clock::Nanos;
use crate::conntrack::{CtState, Direction, Follow, Limits, Memory};
use crate::packet::Family;
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use parse::{Form, Found};
use std::net::{Ipv4Addr, Ipv6Addr};

/// One data connection at a time.
const LIMITS: Limits = Limits { most: 1, timeout: Nanos::from_secs(300), any_master: false };

/// Reads a segment.
pub(super) fn help(mut visit: Visit<'_, '_>) -> Result<(), DropReason> {
    if visit.state == CtState::Established {
        visit.frame.join_all();
    }
    let Some((seq, at)) = visit.stream() else { return Ok(()) };
    let payload = &visit.frame[at..visit.end()];
    let ends_line = payload.last() == Some(&b'\n');
    let next = seq.wrapping_add(payload.len() as u32);
    let memory = visit.conntrack.memory(visit.conn.id).unwrap_or_default();
    let lines = Lines::of(&memory, visit.direction);
    if let Some(cut) = lines.awaited() {
        if later(seq, cut) {
            return Err(DropReason::Helper);
        }
        if later(next, cut) {
            visit.change_lines(|lines| lines.awaits = 0);
        }
    }
    let mut outcome = Ok(());
    if lines.contains(seq) {
        let sender = visit.tuple(visit.direction).src;
        match parse::find(payload, visit.direction, visit.parsed.family, sender) {
            Found::Nothing => {}
            // The rest would come in a segment that we do not look into.
            Found::Partial => {
                if visit.is_translated() {
                    visit.change_lines(|lines| lines.wait_for(seq));
                }
                return Err(DropReason::Helper);
            }
            Found::Command(command) => outcome = announce(&mut visit, at, &command),
        }
    }
    if ends_line {
        visit.change_lines(|lines| lines.note(next));
    }
    outcome
}

impl Visit<'_, '_> {
    fn change_lines(&self, change: impl FnOnce(&mut Lines)) {
        self.conntrack.change_memory(self.conn.id, |memory| {
            let mut lines = Lines::of(memory, self.direction);
            change(&mut lines);
            lines.store(memory, self.direction);
        });
    }
}

/// Whether `a` comes after `b` in a stream.
fn later(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// Expects the data connection that a command announces.
fn announce(
    visit: &mut Visit<'_, '_>,
    at: usize,
    found: &parse::Command,
) -> Result<(), DropReason> {
    let way = visit.direction;
    if found.address != visit.tuple(way).src {
        // A third host: somebody wants a hole that leads elsewhere.
        return Ok(());
    }
    let peer = visit.tuple(way.opposite());
    let (from, to) = (peer.src, peer.dst);
    let mut new = visit.expectation(HelperKind::Ftp, Some(from), (to, found.port));
    if !visit.is_translated() {
        return visit.expect(&new, LIMITS).map(drop).map_err(|_| DropReason::Helper);
    }
    let direction = way.opposite();
    new.follow = Some(Follow { direction, port: found.port, address: None });
    let (port, id) = visit.expect_on_free_port(&mut new, LIMITS).ok_or(DropReason::Helper)?;
    let command = spell(found.form, visit.parsed.family, to, port);
    let cut = Cut { at: at + found.range.start, len: found.range.len() };
    rewrite::tcp(visit, cut, command.as_bytes()).inspect_err(|_| {
        visit.conntrack.unexpect(id);
    })
}

/// An address and port in a command's form.
fn spell(form: Form, family: Family, address: u128, port: u16) -> ArrayString<64> {
    let mut text = ArrayString::new();
    let [high, low] = port.to_be_bytes();
    let v4 = Ipv4Addr::from(address as u32);
    let written = match (form, family) {
        (Form::Port | Form::Pasv, _) => {
            let [a, b, c, d] = v4.octets();
            write!(text, "{a},{b},{c},{d},{high},{low}")
        }
        (Form::Eprt, Family::V4) => write!(text, "|1|{v4}|{port}|"),
        (Form::Eprt, Family::V6) => {
            let [a, b, c, d, e, f, g, h] = Ipv6Addr::from(address).segments();
            write!(text, "|2|{a:04x}:{b:04x}:{c:04x}:{d:04x}:{e:04x}:{f:04x}:{g:04x}:{h:04x}|")
                .and_then(|()| write!(text, "{port}|"))
        }
        (Form::Epsv, _) => write!(text, "|||{port}|"),
    };
    debug_assert!(written.is_ok(), "the longest form has 53 bytes");
    text
}

/// Where lines begin: the two last places of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lines {
    places: [u32; 2],
    known: usize,
    /// The place, from 1, of the line whose announcement was cut; 0: none was.
    awaits: usize,
}

/// Bits of a direction in [`Memory::flags`], for each of the two numbers there.
const BITS: u32 = 2;
/// Where the second numbers begin.
const AWAITS: u32 = 2 * BITS;

impl Lines {
    fn of(memory: &Memory, direction: Direction) -> Self {
        let at = direction as usize;
        let number = |from: u32| (memory.flags >> (from + BITS * at as u32) & 3).min(2) as usize;
        Self { places: memory.numbers[at], known: number(0), awaits: number(AWAITS) }
    }

    fn store(&self, memory: &mut Memory, direction: Direction) {
        let at = direction as usize;
        memory.numbers[at] = self.places;
        for (from, number) in [(0, self.known), (AWAITS, self.awaits)] {
            let shift = from + BITS * at as u32;
            memory.flags = memory.flags & !(3 << shift) | (number as u32) << shift;
        }
    }

    /// Where the line begins whose announcement was cut.
    fn awaited(&self) -> Option<u32> {
        self.places.get(self.awaits.checked_sub(1)?).copied()
    }

    /// The line at `seq` was cut. One that others came after has arrived before,
    /// and may never come again.
    fn wait_for(&mut self, seq: u32) {
        let places = &self.places[..self.known];
        let newest = places.iter().all(|&place| !later(place, seq));
        let at = places.iter().position(|&place| place == seq);
        self.awaits = at.filter(|_| newest).map_or(0, |at| at + 1);
    }

    fn contains(&self, seq: u32) -> bool {
        self.places[..self.known].contains(&seq)
    }

    /// A line ended before `seq`. The older place goes, if this one is later.
    fn note(&mut self, seq: u32) {
        if self.contains(seq) {
            return;
        }
        if self.known < self.places.len() {
            self.places[self.known] = seq;
            self.known += 1;
            return;
        }
        let oldest = usize::from(!later(self.places[1], self.places[0]));
        if later(seq, self.places[oldest]) {
            self.places[oldest] = seq;
            if self.awaits == oldest + 1 {
                self.awaits = 0;
            }
        }
    }
}
