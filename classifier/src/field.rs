//! The kinds of field a rule can constrain: masked values, port ranges and
//! sets of small classes.

use std::fmt::Debug;
use std::hash::Hash;
use std::ops::{BitAnd, BitOr, Not};

/// An address type: `u32` for IPv4, `u128` for IPv6, in host order, so that
/// the most significant bit is the first bit of the network prefix.
pub trait Address:
    Copy
    + Eq
    + Ord
    + Hash
    + Debug
    + Default
    + Send
    + Sync
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Not<Output = Self>
    + 'static
{
    /// Number of bits in the address.
    const BITS: u32;
    /// Narrows from the common 128-bit form (IPv4 in the low 32 bits).
    fn from_u128(value: u128) -> Self;
    /// Widens to the common 128-bit form (IPv4 in the low 32 bits).
    fn to_u128(self) -> u128;
}

impl Address for u32 {
    const BITS: u32 = 32;
    fn from_u128(value: u128) -> Self {
        value as u32
    }
    fn to_u128(self) -> u128 {
        u128::from(self)
    }
}

impl Address for u128 {
    const BITS: u32 = 128;
    fn from_u128(value: u128) -> Self {
        value
    }
    fn to_u128(self) -> u128 {
        self
    }
}

/// A value under a mask: matches `x` when `x & mask == value`.
///
/// The mask need not be contiguous. Invariant: `value & !mask == 0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Masked<T> {
    value: T,
    mask: T,
}

impl<T: Copy + Eq + BitAnd<Output = T>> Masked<T> {
    /// Bits of `value` outside `mask` are cleared, as iptables does on load.
    pub fn new(value: T, mask: T) -> Self {
        Self { value: value & mask, mask }
    }
    /// Whether `x` agrees with the value on every bit of the mask.
    #[inline]
    pub fn matches(&self, x: T) -> bool {
        x & self.mask == self.value
    }
    /// The value; bits outside the mask are zero.
    pub fn value(&self) -> T {
        self.value
    }
    /// The mask.
    pub fn mask(&self) -> T {
        self.mask
    }
}

/// An inclusive range of 16-bit values (ports, or ICMP type and code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest value that matches.
    pub low: u16,
    /// Highest value that matches; `low > high` matches nothing.
    pub high: u16,
}

impl PortRange {
    /// Every value.
    pub const ANY: Self = Self { low: 0, high: u16::MAX };

    /// Whether `x` lies in the range.
    #[inline]
    pub fn matches(&self, x: u16) -> bool {
        self.low <= x && x <= self.high
    }
    /// Whether the range holds every value.
    pub fn is_any(&self) -> bool {
        *self == Self::ANY
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::ANY
    }
}

/// A set of small classes (interfaces, conntrack states, ...), one bit each.
/// A key carries exactly one bit (or none: then only [`ClassSet::ANY`] matches).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClassSet(pub u64);

impl ClassSet {
    /// Every class, and also a key that has no class bit at all.
    pub const ANY: Self = Self(u64::MAX);
    /// No class: matches nothing.
    pub const NONE: Self = Self(0);

    /// Whether the key's class bit is in the set.
    #[inline]
    pub fn matches(&self, bit: u64) -> bool {
        self.0 == u64::MAX || self.0 & bit != 0
    }
    /// Whether every key matches.
    pub fn is_any(&self) -> bool {
        self.0 == u64::MAX
    }
}

impl Default for ClassSet {
    fn default() -> Self {
        Self::ANY
    }
}
