//! A reader of packed ASN.1 (X.691, aligned) that keeps to what is asked for: it
//! walks over a message as its [types](super::types) say, skips what nobody
//! follows, and notes where the rest stands.
//!
//! It is as tolerant as the kernel's: values are not checked, a type may be read
//! to some point and no further, and a message that contradicts itself may still
//! be read to its end. Nothing is read outside the message, and the work is bounded
//! ([`STEPS`]): open fields that overlap could be read again and again otherwise.

use super::found::{Found, Mark};

/// Steps for all messages of one packet; a call with thirty channels takes two thousand.
pub(super) const STEPS: u32 = 20_000;

/// How many items there are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Count {
    /// In this many bits, which are not aligned.
    Bits(u8),
    /// In a byte.
    Byte,
    /// In two bytes.
    Word,
    /// In a byte, or in two if it is more than 127.
    Length,
}

/// How a value is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Not at all.
    Null,
    /// In this many bits, where the value before ended.
    Bits(u8),
    /// In this many bytes.
    Octets(u8),
    /// A number in one to four bytes, whose count comes first.
    Long,
    /// So many more than `least` items of `width` bits each.
    Run { count: Count, least: u8, width: u8 },
    /// Values of one type.
    List { most: u8, item: &'static Field },
    /// Values of several types, in their order.
    Sequence(&'static Sequence),
    /// A value of one of several types.
    Choice(&'static Choice),
    /// Whatever it is, it and what follows in its sequence are not read.
    Stop,
}

/// A part of a type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) kind: Kind,
    pub(super) optional: bool,
    /// Wrapped, with its length in front.
    pub(super) open: bool,
    /// What it is noted as.
    pub(super) mark: Mark,
}

#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) extensible: bool,
    /// Optional ones among the first fields, those behind a [`Kind::Stop`] included.
    pub(super) optional: u8,
    pub(super) first: &'static [Field],
    pub(super) added: Added,
}

#[derive(Debug)]
pub(super) struct Choice {
    pub(super) extensible: bool,
    /// Bits of the index.
    pub(super) bits: u8,
    pub(super) first: &'static [Field],
    pub(super) added: Added,
}

/// What a type was extended by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Added {
    /// Extensions whose presence is looked at. Later ones are taken to be there.
    pub(super) known: u8,
    /// Those that are not just skipped, by number from 0.
    pub(super) read: &'static [(u8, Field)],
}

impl Added {
    fn field(&self, at: u32) -> Option<&'static Field> {
        self.read.iter().find(|(number, _)| u32::from(*number) == at).map(|(_, field)| field)
    }
}

/// The message ended, or an index is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Read<T = ()> = Result<T, Malformed>;

/// Reads a message of the type `root` that ends before `end` in `data` and starts at
/// `start`. `steps`: how much work may still be done.
pub(super) fn read(
    data: &[u8],
    (start, end): (usize, usize),
    root: &Field,
    found: &mut Found,
    steps: &mut u32,
) -> Read {
    let data = data.get(..end).ok_or(Malformed)?;
    Reader { data, at: start * 8, found, steps }.field(root, true)
}

struct Reader<'d, 'f> {
    data: &'d [u8],
    /// In bits.
    at: usize,
    found: &'f mut Found,
    steps: &'f mut u32,
}

impl Reader<'_, '_> {
    /// There are so many bits left.
    fn need(&self, bits: usize) -> Read {
        if self.at + bits <= self.data.len() * 8 { Ok(()) } else { Err(Malformed) }
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    fn skip(&mut self, bits: usize) -> Read {
        self.at += bits;
        self.need(0)
    }

    fn byte(&self, at: usize) -> u32 {
        self.data.get(at).copied().unwrap_or(0).into()
    }

    /// A number of up to 32 bits.
    fn bits(&mut self, count: usize) -> Read<u32> {
        self.need(count)?;
        let from = self.at / 8;
        let word = (0..5).fold(0, |word, at| word << 8 | u64::from(self.byte(from + at)));
        let value = word >> (40 - self.at % 8 - count) & ((1 << count) - 1);
        self.at += count;
        Ok(value as u32)
    }

    /// Which optional fields there are, the first in the highest of 32 bits.
    fn map(&mut self, count: usize) -> Read<u32> {
        self.need(count)?;
        if count == 0 {
            return Ok(0);
        }
        // The kernel's slip: one that ends exactly with its fourth byte is read from
        // the beginning of the first.
        let slip = if self.at % 8 + count == 32 { self.at % 8 } else { 0 };
        self.at -= slip;
        let value = self.bits(count)? << (32 - count);
        self.at += slip;
        Ok(value)
    }

    /// A length, from the byte on that is begun.
    fn length(&mut self) -> Read<usize> {
        self.need(16)?;
        let first = self.byte(self.at / 8) as usize;
        self.at += 8;
        if first & 0x80 == 0 {
            return Ok(first);
        }
        let second = self.byte(self.at / 8) as usize;
        self.at += 8;
        Ok((first & 0x3f) << 8 | second)
    }

    fn count(&mut self, count: Count) -> Read<usize> {
        match count {
            Count::Bits(bits) => return Ok(self.bits(bits.into())? as usize),
            Count::Byte | Count::Word | Count::Length => self.align(),
        }
        match count {
            Count::Byte => Ok(self.bits(8)? as usize),
            Count::Word => Ok(self.bits(16)? as usize),
            _ => self.length(),
        }
    }

    /// `live`: whether what it is part of is followed.
    fn field(&mut self, field: &Field, live: bool) -> Read {
        *self.steps = self.steps.checked_sub(1).ok_or(Malformed)?;
        let live = live && field.mark != Mark::Skip;
        match field.kind {
            Kind::Null | Kind::Stop => Ok(()),
            Kind::Bits(bits) => self.skip(bits.into()),
            Kind::Octets(count) => {
                self.align();
                self.note(live, field.mark, (self.at / 8) as u32);
                self.skip(usize::from(count) * 8)
            }
            Kind::Long => self.long(field.mark, live),
            Kind::Run { count, least, width } => {
                let items = self.count(count)? + usize::from(least);
                self.align();
                self.skip(items * usize::from(width))
            }
            Kind::List { most, item } => {
                for at in 0..self.count(Count::Length)? {
                    self.item(item, live, at < most.into())?;
                }
                Ok(())
            }
            Kind::Sequence(sequence) => {
                self.note(live, field.mark, 0);
                self.sequence(sequence, live)
            }
            Kind::Choice(choice) => self.choice(choice, field.mark, live),
        }
    }

    fn note(&mut self, live: bool, mark: Mark, value: u32) {
        if live {
            self.found.note(mark, value);
        }
    }

    fn long(&mut self, mark: Mark, live: bool) -> Read {
        let bytes = self.bits(2)? as usize + 1;
        self.align();
        if live {
            let value = self.bits(bytes * 8)?;
            self.found.note(mark, value.wrapping_add(1));
        }
        // Behind one that counts, the kernel leaves its length once more.
        self.skip(bytes * 8)
    }

    fn item(&mut self, item: &Field, live: bool, kept: bool) -> Read {
        if !item.open {
            return self.field(item, live && kept);
        }
        self.align();
        self.wrapped(Some(item).filter(|_| live), kept)
    }

    /// A field behind its length; `None`: to be skipped. `kept`: whether it is noted.
    fn wrapped(&mut self, field: Option<&Field>, kept: bool) -> Read {
        *self.steps = self.steps.checked_sub(1).ok_or(Malformed)?;
        let length = self.length()? * 8;
        self.need(length)?;
        match field.filter(|field| field.mark != Mark::Skip) {
            None => self.at += length,
            Some(field) => {
                let end = self.at / 8 * 8 + length;
                self.field(field, kept)?;
                self.at = end;
            }
        }
        Ok(())
    }

    fn sequence(&mut self, sequence: &Sequence, live: bool) -> Read {
        self.need(1)?;
        let extended = sequence.extensible && self.bits(1)? == 1;
        let mut map = self.map(sequence.optional.into())?;
        for field in sequence.first {
            if matches!(field.kind, Kind::Stop) {
                return Ok(());
            }
            if field.optional {
                let present = map >> 31 == 1;
                map <<= 1;
                if !present {
                    continue;
                }
            }
            if field.open {
                self.wrapped(Some(field).filter(|_| live), true)?;
            } else {
                self.field(field, live)?;
            }
        }
        if extended { self.extensions(&sequence.added, live) } else { Ok(()) }
    }

    fn extensions(&mut self, added: &Added, live: bool) -> Read {
        let count = self.bits(7)? + 1;
        if count > 32 {
            return Err(Malformed);
        }
        let map = self.map(count as usize)?;
        self.align();
        for at in 0..count {
            if at >= added.known.into() {
                self.wrapped(None, false)?;
                continue;
            }
            let field = added.field(at);
            if field.is_some_and(|field| matches!(field.kind, Kind::Stop)) {
                return Ok(());
            }
            if map & (1 << 31 >> at) != 0 {
                self.wrapped(field.filter(|_| live), true)?;
            }
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Choice, mark: Mark, live: bool) -> Read {
        self.need(1)?;
        let roots = choice.first.len() as u32;
        let added =
            if choice.extensible && self.bits(1)? == 1 { Some(self.bits(7)?) } else { None };
        let index = match added {
            Some(number) => number + roots,
            None => self.bits(choice.bits.into())?,
        };
        let field = match added {
            Some(number) => choice.added.field(number),
            None => Some(choice.first.get(index as usize).ok_or(Malformed)?),
        };
        self.note(live, mark, index);
        if field.is_some_and(|field| matches!(field.kind, Kind::Stop)) {
            return Ok(());
        }
        match field {
            Some(field) if added.is_none() && !field.open => self.field(field, live),
            _ => {
                self.align();
                self.wrapped(field.filter(|_| live), true)
            }
        }
    }
}
