//! Regions of packet space: what rules match, as sets that can be cut, joined and covered.
//!
//! A [`Region`] is a product: one set of values a field, and what is known of *atoms*,
//! conditions that have no field (a packet's length, membership of a set, ...). Atoms are taken
//! to be independent of each other and of the fields, so what is said to be covered
//! is covered, and a packet that is said to be open may turn out not to exist where
//! its atoms exclude each other: who shows it tries it first.
//!
//! The space is that of packets whose layer 4 is whole, and of later fragments. Packets that are cut
//! short in their headers are beyond it: matches drop them by looking.

mod cover;
mod liked;
mod of_rule;
mod real;
mod tell;
#[cfg(test)]
mod tests;
mod values;
mod ways;

use dataplane::packet::Family;

pub use cover::{Cover, Effort, cover};
pub use liked::liked;
pub use of_rule::{Atoms, Reading};
#[cfg(test)]
pub(crate) use real::stands_for;
pub use real::{at_hook, at_table, ports, real, space};
pub use tell::{Speaker, point_words};
pub use values::{Bytes, Ranges};
pub use ways::{Carried, Decider, Fate, Leaf, Lost, ReadRule, Side, Step, Ways, written};

/// A condition without a field; [`Atoms`] says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Atom(pub u32);

/// A product of sets of values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// Source addresses, in the common form.
    pub src: Ranges,
    /// Destination addresses.
    pub dst: Ranges,
    /// Source ports, or ICMP types.
    pub sport: Ranges,
    /// Destination ports, or ICMP codes.
    pub dport: Ranges,
    /// Protocols.
    pub proto: Bytes,
    /// TCP flag bytes.
    pub flags: Bytes,
    /// Class bits: input interface, output interface, connection state, layer 4.
    pub classes: [u64; 4],
    /// What is known of atoms, by atom.
    pub atoms: Vec<(Atom, bool)>,
}

/// A packet, as far as regions tell packets apart. Atoms that it does not name are false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Source address, in the common form.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port, or ICMP type.
    pub sport: u16,
    /// Destination port, or ICMP code.
    pub dport: u16,
    /// Protocol.
    pub proto: u8,
    /// TCP flag byte.
    pub flags: u8,
    /// One bit each: input interface, output interface, connection state, layer 4.
    pub classes: [u64; 4],
    /// Atoms that hold.
    pub atoms: Vec<Atom>,
}

/// All packets that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Their family.
    pub family: Family,
    /// The class bits there are: input interfaces, output interfaces, states, layer 4.
    pub classes: [u64; 4],
}

impl Space {
    /// Bits of an address.
    pub const fn address_bits(&self) -> u32 {
        match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }
}

impl Region {
    /// Every packet.
    pub fn all(space: &Space) -> Self {
        let address = Ranges::all(space.address_bits());
        Self {
            src: address.clone(),
            dst: address,
            sport: Ranges::all(16),
            dport: Ranges::all(16),
            proto: Bytes::ALL,
            flags: Bytes::ALL,
            classes: space.classes,
            atoms: Vec::new(),
        }
    }

    fn ranges(&self) -> [&Ranges; 4] {
        [&self.src, &self.dst, &self.sport, &self.dport]
    }

    fn ranges_mut(&mut self) -> [&mut Ranges; 4] {
        [&mut self.src, &mut self.dst, &mut self.sport, &mut self.dport]
    }

    /// Whether no packet lies in it.
    pub fn is_empty(&self) -> bool {
        self.ranges().iter().any(|set| set.is_empty())
            || self.proto.is_empty()
            || self.flags.is_empty()
            || self.classes.contains(&0)
    }

    /// What is said of an atom.
    fn atom(&self, atom: Atom) -> Option<bool> {
        let at = self.atoms.binary_search_by_key(&atom, |entry| entry.0).ok()?;
        Some(self.atoms[at].1)
    }

    /// Says something of an atom. False: it contradicts what was said.
    pub fn suppose(&mut self, atom: Atom, holds: bool) -> bool {
        match self.atoms.binary_search_by_key(&atom, |entry| entry.0) {
            Ok(at) => self.atoms[at].1 == holds,
            Err(at) => {
                self.atoms.insert(at, (atom, holds));
                true
            }
        }
    }

    /// Whether some packet lies in both.
    pub fn meets(&self, other: &Self) -> bool {
        self.classes.iter().zip(other.classes).all(|(one, two)| one & two != 0)
            && !self.proto.and(other.proto).is_empty()
            && !self.flags.and(other.flags).is_empty()
            && self.ranges().iter().zip(other.ranges()).all(|(one, two)| one.meets(two))
            && other.atoms.iter().all(|(atom, holds)| self.atom(*atom) != Some(!holds))
    }

    /// Whether all of it lies in `other`. It is not empty.
    pub fn within(&self, other: &Self) -> bool {
        self.classes.iter().zip(other.classes).all(|(one, two)| one & !two == 0)
            && self.proto.minus(other.proto).is_empty()
            && self.flags.minus(other.flags).is_empty()
            && self.ranges().iter().zip(other.ranges()).all(|(one, two)| one.within(two))
            && other.atoms.iter().all(|(atom, holds)| self.atom(*atom) == Some(*holds))
    }

    /// What lies in both; `None` if nothing does.
    pub fn and(&self, other: &Self) -> Option<Self> {
        if !self.meets(other) {
            return None;
        }
        let mut both = Self {
            src: self.src.and(&other.src),
            dst: self.dst.and(&other.dst),
            sport: self.sport.and(&other.sport),
            dport: self.dport.and(&other.dport),
            proto: self.proto.and(other.proto),
            flags: self.flags.and(other.flags),
            classes: std::array::from_fn(|at| self.classes[at] & other.classes[at]),
            atoms: self.atoms.clone(),
        };
        other.atoms.iter().all(|(atom, holds)| both.suppose(*atom, *holds)).then_some(both)
    }

    /// What lies in it and not in `other`, as regions that do not meet. It is not empty.
    pub fn minus(&self, other: &Self) -> Vec<Self> {
        if !self.meets(other) {
            return vec![self.clone()];
        }
        let mut pieces = Vec::new();
        let mut rest = self.clone();
        for at in 0..4 {
            let outside = rest.classes[at] & !other.classes[at];
            if outside != 0 {
                let mut piece = rest.clone();
                piece.classes[at] = outside;
                pieces.push(piece);
            }
            rest.classes[at] &= other.classes[at];
        }
        let outside = rest.proto.minus(other.proto);
        if !outside.is_empty() {
            pieces.push(Self { proto: outside, ..rest.clone() });
        }
        rest.proto = rest.proto.and(other.proto);
        let outside = rest.flags.minus(other.flags);
        if !outside.is_empty() {
            pieces.push(Self { flags: outside, ..rest.clone() });
        }
        rest.flags = rest.flags.and(other.flags);
        for at in 0..4 {
            let theirs = other.ranges()[at];
            let outside = rest.ranges()[at].minus(theirs);
            if !outside.is_empty() {
                let mut piece = rest.clone();
                *piece.ranges_mut()[at] = outside;
                pieces.push(piece);
            }
            let inside = rest.ranges()[at].and(theirs);
            *rest.ranges_mut()[at] = inside;
        }
        for &(atom, holds) in &other.atoms {
            if rest.atom(atom).is_none() {
                let mut piece = rest.clone();
                piece.suppose(atom, !holds);
                pieces.push(piece);
                rest.suppose(atom, holds);
            }
        }
        pieces
    }

    /// Whether a packet lies in it.
    pub fn contains(&self, point: &Point) -> bool {
        self.classes.iter().zip(point.classes).all(|(set, bit)| set & bit != 0)
            && self.proto.contains(point.proto)
            && self.flags.contains(point.flags)
            && self.src.contains(point.src)
            && self.dst.contains(point.dst)
            && self.sport.contains(point.sport.into())
            && self.dport.contains(point.dport.into())
            && self.atoms.iter().all(|(atom, holds)| point.atoms.contains(atom) == *holds)
    }

    /// One of its packets: `nth` chooses among ends and insides of each field's ranges. `None`
    /// if it has none.
    pub fn pick(&self, nth: u64) -> Option<Point> {
        let mut draw = nth;
        let mut next = || {
            // Other fields, other choices; the first packet has the lowest value of each.
            let now = draw;
            draw = draw.rotate_left(23).wrapping_mul(0x2545_f491_4f6c_dd1d);
            now
        };
        let class = |set: u64, nth: u64| -> Option<u64> {
            let nth = nth.checked_rem(u64::from(set.count_ones()))?;
            (0..64).map(|bit| 1 << bit).filter(|bit| set & bit != 0).nth(nth as usize)
        };
        let mut classes = [0; 4];
        for (bit, set) in classes.iter_mut().zip(self.classes) {
            *bit = class(set, next())?;
        }
        Some(Point {
            src: self.src.pick(next())?,
            dst: self.dst.pick(next())?,
            sport: self.sport.pick(next())? as u16,
            dport: self.dport.pick(next())? as u16,
            proto: self.proto.pick(next())?,
            flags: self.flags.pick(next())?,
            classes,
            atoms: self.atoms.iter().filter(|(_, holds)| *holds).map(|(atom, _)| *atom).collect(),
        })
    }
}
