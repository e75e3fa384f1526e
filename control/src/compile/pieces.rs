//! Named state outside its policy: pieces of bytes for the state file.
//!
//! Whoever keeps state by name gives it a kind of its own, says it in bytes with
//! [`Words`] and reads it back, all of it or nothing, with [`Reading`]. Times are ages at
//! the moment of saving. A piece of a kind, name or version that nobody asks for any more
//! is left out, and [`Imported`] says so.

use thiserror::Error;

/// Longest piece in bytes; a longer one is not kept.
pub const MAX_PIECE: usize = 64 << 20;

/// Longest name in bytes; a piece with a longer one is not kept.
pub const MAX_NAME: usize = u16::MAX as usize;

/// One table, list or counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whose: `recent`, `hashlimit4`, ...
    pub kind: String,
    /// Its name among those of the kind.
    pub name: String,
    /// Version of `bytes`, for that kind.
    pub version: u16,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// Why a piece is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Left {
    /// No rule has what it belongs to, or not with the same settings.
    #[error("no rule has it any more")]
    Unclaimed,
    /// Written by another build.
    #[error("it is of version {0}, which this build does not read")]
    Version(u16),
    /// Not what this build writes.
    #[error("it makes no sense")]
    Malformed,
}

/// What became of the pieces of a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Pieces that go on.
    pub taken: u64,
    /// Pieces that no rule asks for any more.
    pub unclaimed: u64,
    /// Pieces that could not be read.
    pub refused: u64,
    /// The first of these: its kind and name, and why.
    pub first_refused: Option<(String, String, Left)>,
}

impl Imported {
    /// Counts what became of `piece`.
    pub fn note(&mut self, piece: &Piece, outcome: Result<(), Left>) {
        match outcome {
            Ok(()) => self.taken += 1,
            Err(Left::Unclaimed) => self.unclaimed += 1,
            Err(why) => {
                self.refused += 1;
                let first = || (piece.kind.clone(), piece.name.clone(), why);
                self.first_refused.get_or_insert_with(first);
            }
        }
    }
}

/// The bytes of a piece being written; numbers are little-endian.
#[derive(Clone, Debug, Default)]
pub struct Words(pub Vec<u8>);

impl Words {
    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
}

/// The bytes of a piece being read; `None` when there are no more.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'b>(pub &'b [u8]);

impl Reading<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }
    /// Four bytes.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    /// Eight bytes.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    /// Sixteen bytes.
    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
    /// Whether everything was read.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}
