//! The messages' types, as far as they are read: H.225.0 (RAS and call signalling),
//! H.235 and H.245 as the ITU publishes them, in the order of their fields.
//!
//! A type says how its parts are written, not what they mean. Parts that nothing
//! behind them is read for are left out ([`STOP`]), and so are extensions that are
//! just skipped: they bring their lengths. How many extensions are known of each
//! type counts: see [`Added`].

pub(super) mod h225;
pub(super) mod h235;
pub(super) mod h245;
pub(super) mod media;

use super::found::Mark;
use super::per::{Added, Choice, Count, Field, Kind, Sequence};

/// Not read from here on.
const STOP: Field = must(Kind::Stop);

const FLAG: Kind = Kind::Bits(1);
/// Numbers of up to eight and sixteen bits.
const BYTE: Kind = Kind::Octets(1);
const WORD: Kind = Kind::Octets(2);
/// An object identifier.
const OBJECT: Kind = run(Count::Byte, 0, 8);
/// Bytes, as many as there are; and a number in as many.
const OCTETS: Kind = run(Count::Length, 0, 8);
/// The same of bits.
const BITS: Kind = run(Count::Length, 0, 1);
/// A name in two-byte characters, up to 128.
const NAME: Kind = run(Count::Bits(7), 1, 16);
/// Up to 128 digits.
const DIGITS: Kind = run(Count::Bits(7), 1, 4);
/// An address of an OSI network.
const NSAP: Kind = run(Count::Bits(5), 1, 8);
/// Up to 256 bytes.
const TEXT: Kind = run(Count::Byte, 1, 8);
/// A value without content, where one of several is chosen.
const NULL: Field = must(Kind::Null);

const fn run(count: Count, least: u8, width: u8) -> Kind {
    Kind::Run { count, least, width }
}

const fn list(item: &'static Field) -> Kind {
    Kind::List { most: 0, item }
}

/// A field that is always there, and not followed.
const fn must(kind: Kind) -> Field {
    Field { kind, optional: false, open: false, mark: Mark::Skip }
}

const fn may(kind: Kind) -> Field {
    Field { optional: true, ..must(kind) }
}

impl Field {
    const fn noted(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }
    const fn wrapped(self) -> Self {
        Self { open: true, ..self }
    }
}

const NOT_EXTENDED: Added = Added { known: 0, read: &[] };

/// Extensions that are all skipped.
const fn more(known: u8) -> Added {
    Added { known, read: &[] }
}

const fn optional(fields: &[Field]) -> u8 {
    let (mut at, mut count) = (0, 0);
    while at < fields.len() {
        count += fields[at].optional as u8;
        at += 1;
    }
    count
}

/// A sequence without extensions.
const fn plain(first: &'static [Field]) -> Sequence {
    Sequence { extensible: false, optional: optional(first), first, added: NOT_EXTENDED }
}

const fn extensible(first: &'static [Field], added: Added) -> Sequence {
    Sequence { extensible: true, optional: optional(first), first, added }
}

/// One that is not read to its end; `optional`: how many optional fields it has.
const fn cut(optional: u8, first: &'static [Field]) -> Sequence {
    Sequence { extensible: true, optional, first, added: NOT_EXTENDED }
}

/// Bits for an index below `count`.
const fn index_bits(count: usize) -> u8 {
    (usize::BITS - (count - 1).leading_zeros()) as u8
}

const fn one_of(first: &'static [Field], added: Added) -> Choice {
    Choice { extensible: true, bits: index_bits(first.len()), first, added }
}

/// A choice without extensions.
const fn one_of_just(first: &'static [Field]) -> Choice {
    Choice { extensible: false, bits: index_bits(first.len()), first, added: NOT_EXTENDED }
}
