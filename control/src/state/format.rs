//! The bytes of a state file.
//!
//! A header of [`HEADER`] bytes, then sections: kind, checksum, number of entries,
//! length, and that many bytes. Numbers are little-endian. The header has a
//! checksum of its own and says how long the file is; each section's checksum also
//! covers its head. So a file cut short, torn or changed anywhere is recognised
//! before anything of it is used. Words of connections that are zero, as most are,
//! take no room.

use dataplane::clock::Nanos;
use dataplane::conntrack::{Saved, Tuple};
use dataplane::packet::Family;
use thiserror::Error;

use super::expected::{self, Expected};
use crate::compile::pieces::MAX_PIECE;
use crate::compile::{Piece, SavedLimit};

/// How the files begin.
const MAGIC: &[u8; 8] = b"PCSTATE\n";
/// The version of the format that this build writes, and the only one it reads.
pub(super) const VERSION: u32 = 2;
/// Length of the header.
pub(super) const HEADER: usize = 64;
/// Length of a section's head.
pub(super) const SECTION_HEAD: usize = 24;
/// Set when the workers had stopped before the connections were taken.
const CLEAN: u32 = 1;

const _: () = assert!(Saved::WORDS <= 64, "the words of a connection have one mask");

/// Why a state file is not used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Something else.
    #[error("it is not a state file")]
    Foreign,
    /// Of another version.
    #[error("it is of version {found}, and this build reads version {VERSION}")]
    Version {
        /// The version.
        found: u32,
    },
    /// Connections are described in other words.
    #[error("its connections are laid out as in version {found}, and this build's as in {ours}")]
    Layout {
        /// The layout.
        found: u32,
        /// The layout of this build.
        ours: u32,
    },
    /// The end is missing, or there is more.
    #[error("it is {found} bytes long and should be {wanted}")]
    Length {
        /// Bytes there are.
        found: u64,
        /// Bytes there should be.
        wanted: u64,
    },
    /// Not what was written.
    #[error("the checksum of its {part} is wrong")]
    Checksum {
        /// Which part.
        part: &'static str,
    },
    /// Checksums hold, and yet it makes no sense.
    #[error("its {part} make no sense")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
}

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Section {
    /// Names of the ports, in the order of their numbers.
    Ports = 1,
    /// Connections.
    Connections = 2,
    /// `limit` cells.
    Limits = 3,
    /// Expectations.
    Expectations = 4,
    /// Names of the timeout policies, in the order of their indices.
    Timeouts = 5,
    /// What rules share by name.
    Pieces = 6,
}

impl Section {
    const ALL: [Self; 6] = [
        Self::Ports,
        Self::Connections,
        Self::Limits,
        Self::Expectations,
        Self::Timeouts,
        Self::Pieces,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Connections => "connections",
            Self::Limits => "limits",
            Self::Expectations => "expectations",
            Self::Timeouts => "timeout policies",
            Self::Pieces => "named state",
        }
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Microseconds since 1970 at the moment that all times in the file relate to.
    pub(super) saved_at_us: u64,
    /// Whether nothing happened after that.
    pub(super) clean: bool,
    /// Length of the file.
    pub(super) length: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(MAGIC);
        put_u32(&mut bytes, VERSION);
        put_u32(&mut bytes, Saved::LAYOUT);
        put_u64(&mut bytes, self.saved_at_us);
        put_u64(&mut bytes, self.length);
        put_u32(&mut bytes, if self.clean { CLEAN } else { 0 });
        put_u32(&mut bytes, Saved::WORDS as u32);
        bytes.resize(HEADER - 4, 0);
        let sum = crc32c::crc32c(&bytes);
        put_u32(&mut bytes, sum);
        let mut header = [0; HEADER];
        header.copy_from_slice(&bytes);
        header
    }

    fn decode(file: &[u8]) -> Result<Self, Refusal> {
        if file.len() < MAGIC.len() || !file.starts_with(MAGIC) {
            return Err(Refusal::Foreign);
        }
        let short = Refusal::Length { found: file.len() as u64, wanted: HEADER as u64 };
        let header = file.get(..HEADER).ok_or(short)?;
        let mut from = Reader(&header[MAGIC.len()..]);
        let version = from.u32().unwrap_or_default();
        if version != VERSION {
            return Err(Refusal::Version { found: version });
        }
        let mut sum = Reader(&header[HEADER - 4..]);
        if sum.u32() != Some(crc32c::crc32c(&header[..HEADER - 4])) {
            return Err(Refusal::Checksum { part: "header" });
        }
        let malformed = Refusal::Malformed { part: "header's numbers" };
        let layout = from.u32().ok_or(malformed.clone())?;
        let saved_at_us = from.u64().ok_or(malformed.clone())?;
        let length = from.u64().ok_or(malformed.clone())?;
        let flags = from.u32().ok_or(malformed.clone())?;
        let words = from.u32().ok_or(malformed)?;
        if layout != Saved::LAYOUT || words != Saved::WORDS as u32 {
            return Err(Refusal::Layout { found: layout, ours: Saved::LAYOUT });
        }
        if length != file.len() as u64 {
            return Err(Refusal::Length { found: file.len() as u64, wanted: length });
        }
        Ok(Self { saved_at_us, clean: flags & CLEAN != 0, length })
    }
}

/// The head of a section with these bytes; `sum` continues the checksum of the
/// section's content, which is computed as it grows.
pub(super) fn section_head(
    kind: Section,
    count: u64,
    length: u64,
    content: u32,
) -> [u8; SECTION_HEAD] {
    let mut head = [0; SECTION_HEAD];
    head[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    head[8..16].copy_from_slice(&count.to_le_bytes());
    head[16..].copy_from_slice(&length.to_le_bytes());
    let sum = crc32c::crc32c_append(content, &head);
    head[4..8].copy_from_slice(&sum.to_le_bytes());
    head
}

/// A file whose every byte has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contents<'f> {
    pub(super) header: Header,
    sections: [(u64, &'f [u8]); Section::ALL.len()],
}

impl<'f> Contents<'f> {
    /// Checks `file` from end to end.
    pub(super) fn check(file: &'f [u8]) -> Result<Self, Refusal> {
        let header = Header::decode(file)?;
        let mut contents = Self { header, sections: [(0, &[]); Section::ALL.len()] };
        let mut from = Reader(&file[HEADER..]);
        for (at, kind) in Section::ALL.into_iter().enumerate() {
            let part = kind.name();
            let malformed = Refusal::Malformed { part };
            let head = from.take(SECTION_HEAD).ok_or(malformed.clone())?;
            let mut fields = Reader(head);
            let numbers = (fields.u32(), fields.u32(), fields.u64(), fields.u64());
            let (Some(found), Some(_), Some(count), Some(length)) = numbers else {
                return Err(malformed);
            };
            if found != kind as u32 {
                return Err(malformed);
            }
            let length = usize::try_from(length).map_err(|_| malformed.clone())?;
            let content = from.take(length).ok_or(malformed.clone())?;
            let sum = crc32c::crc32c(content);
            if section_head(kind, count, length as u64, sum) != head {
                return Err(Refusal::Checksum { part });
            }
            contents.sections[at] = (count, content);
        }
        if !from.0.is_empty() {
            return Err(Refusal::Malformed { part: "last bytes" });
        }
        contents.entries(Section::Ports, get_name).try_for_each(|port| port.map(drop))?;
        contents.entries(Section::Timeouts, get_name).try_for_each(|name| name.map(drop))?;
        contents.connections().try_for_each(|connection| connection.map(drop))?;
        contents.limits().try_for_each(|limit| limit.map(drop))?;
        contents.expectations().try_for_each(|expected| expected.map(drop))?;
        contents.pieces().try_for_each(|piece| piece.map(drop))?;
        Ok(contents)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = String> + 'f {
        self.entries(Section::Ports, get_name).filter_map(Result::ok)
    }
    pub(super) fn timeouts(&self) -> impl Iterator<Item = String> + 'f {
        self.entries(Section::Timeouts, get_name).filter_map(Result::ok)
    }
    pub(super) fn connections(&self) -> impl Iterator<Item = Result<Saved, Refusal>> + 'f {
        self.entries(Section::Connections, get_connection)
    }
    pub(super) fn limits(&self) -> impl Iterator<Item = Result<SavedLimit, Refusal>> + 'f {
        self.entries(Section::Limits, get_limit)
    }

    pub(super) fn expectations(&self) -> impl Iterator<Item = Result<Expected, Refusal>> + 'f {
        self.entries(Section::Expectations, expected::get)
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = Result<Piece, Refusal>> + 'f {
        self.entries(Section::Pieces, get_piece)
    }

    /// A section's entries; ends after the first that makes no sense.
    fn entries<T>(
        &self,
        kind: Section,
        get: fn(&mut Reader<'f>) -> Option<T>,
    ) -> impl Iterator<Item = Result<T, Refusal>> + use<'f, T> {
        let (mut left, content) = self.sections[kind as usize - 1];
        let mut from = Reader(content);
        std::iter::from_fn(move || {
            let malformed = Err(Refusal::Malformed { part: kind.name() });
            if left == 0 {
                // Nothing may follow the last one.
                let rest = std::mem::take(&mut from.0);
                return (!rest.is_empty()).then_some(malformed);
            }
            left -= 1;
            let Some(entry) = get(&mut from) else {
                (left, from.0) = (0, &[]);
                return Some(malformed);
            };
            Some(Ok(entry))
        })
    }
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}
pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}
pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Text of at most 64 KiB, which neither names nor rules are longer than.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let length = text.len().min(usize::from(u16::MAX));
    put_u16(out, length as u16);
    out.extend_from_slice(&text.as_bytes()[..length]);
}

/// Which optional parts a connection has.
mod part {
    pub(super) const WIDE: u8 = 1;
    pub(super) const MASTER: u8 = 2;
    pub(super) const AGE: u8 = 4;
}

/// A tuple without its family and protocol.
pub(super) fn put_tuple(out: &mut Vec<u8>, tuple: &Tuple) {
    let wide = tuple.family == Family::V6;
    for address in [tuple.src, tuple.dst] {
        let bytes = address.to_le_bytes();
        out.extend_from_slice(if wide { &bytes } else { &bytes[..4] });
    }
    [tuple.sport, tuple.dport, tuple.zone].into_iter().for_each(|part| put_u16(out, part));
}

pub(super) fn get_tuple(from: &mut Reader<'_>, family: Family, proto: u8) -> Option<Tuple> {
    let mut address = || match family {
        Family::V4 => from.u32().map(u128::from),
        Family::V6 => from.array().map(u128::from_le_bytes),
    };
    let (src, dst) = (address()?, address()?);
    let (sport, dport, zone) = (from.u16()?, from.u16()?, from.u16()?);
    Some(Tuple { src, dst, sport, dport, proto, family, zone })
}

pub(super) fn put_connection(out: &mut Vec<u8>, saved: &Saved) {
    let wide = saved.original.family == Family::V6;
    let mut parts = if wide { part::WIDE } else { 0 };
    parts |= if saved.master.is_some() { part::MASTER } else { 0 };
    parts |= if saved.age.is_some() { part::AGE } else { 0 };
    out.extend_from_slice(&[parts, saved.original.proto]);
    put_u64(out, saved.number);
    put_u64(out, saved.left.0);
    put_u32(out, saved.status);
    put_u32(out, saved.mark);
    saved.master.into_iter().for_each(|master| put_u64(out, master));
    saved.age.into_iter().for_each(|age| put_u64(out, age.0));
    put_tuple(out, &saved.original);
    put_tuple(out, &saved.reply);
    let used = saved.words.iter().enumerate().filter(|(_, word)| **word != 0);
    put_u64(out, used.clone().fold(0, |mask, (at, _)| mask | 1 << at));
    used.for_each(|(_, word)| put_u64(out, *word));
}

pub(super) fn put_limit(out: &mut Vec<u8>, limit: &SavedLimit) {
    put_text(out, &limit.rule);
    put_u32(out, limit.occurrence);
    put_u32(out, limit.cell);
    put_u32(out, limit.credit);
    put_u64(out, limit.idle.0);
}

pub(super) fn put_piece(out: &mut Vec<u8>, piece: &Piece) {
    put_text(out, &piece.kind);
    put_text(out, &piece.name);
    put_u16(out, piece.version);
    put_u32(out, piece.bytes.len() as u32);
    out.extend_from_slice(&piece.bytes);
}

/// What is left to read. Every reader returns `None` at the end, having read nothing
/// that is not there.
pub(super) struct Reader<'f>(&'f [u8]);

impl<'f> Reader<'f> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'f [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

fn get_name(from: &mut Reader<'_>) -> Option<String> {
    let length = usize::from(from.u16()?);
    String::from_utf8(from.take(length)?.to_vec()).ok()
}

fn get_connection(from: &mut Reader<'_>) -> Option<Saved> {
    let [parts, proto] = from.array()?;
    let has = |part: u8| parts & part != 0;
    let (number, left) = (from.u64()?, Nanos(from.u64()?));
    let (status, mark) = (from.u32()?, from.u32()?);
    let master = if has(part::MASTER) { Some(from.u64()?) } else { None };
    let age = if has(part::AGE) { Some(Nanos(from.u64()?)) } else { None };
    let family = if has(part::WIDE) { Family::V6 } else { Family::V4 };
    let original = get_tuple(from, family, proto)?;
    let reply = get_tuple(from, family, proto)?;
    let mask = from.u64()?;
    if mask.checked_shr(Saved::WORDS as u32).unwrap_or(0) != 0 {
        return None;
    }
    let mut words = [0; Saved::WORDS];
    for (_, word) in words.iter_mut().enumerate().filter(|(at, _)| mask >> at & 1 != 0) {
        *word = from.u64()?;
    }
    Some(Saved { number, master, left, age, status, mark, original, reply, words })
}

fn get_piece(from: &mut Reader<'_>) -> Option<Piece> {
    let (kind, name, version) = (get_name(from)?, get_name(from)?, from.u16()?);
    let length = usize::try_from(from.u32()?).ok().filter(|&length| length <= MAX_PIECE)?;
    Some(Piece { kind, name, version, bytes: from.take(length)?.to_vec() })
}

fn get_limit(from: &mut Reader<'_>) -> Option<SavedLimit> {
    Some(SavedLimit {
        rule: get_name(from)?,
        occurrence: from.u32()?,
        cell: from.u32()?,
        credit: from.u32()?,
        idle: Nanos(from.u64()?),
    })
}
