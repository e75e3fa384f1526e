//! What the tables of one build look at, lane by lane: masks, salted
//! multipliers, where a table's slots lie, and the windows of its signatures.
//!
//! Lane `t` belongs to table `t`. All of it is laid out so that one vector holds
//! a column; the scalar code reads the same columns.

#![allow(clippy::needless_range_loop, reason = "sides and words number several columns at once")]

use crate::{Address, Key};

/// Tables in one build at most: the lanes of one 512-bit vector.
pub const LANES: usize = 16;
/// 32-bit words of an address at most.
pub(super) const WORDS: usize = 4;
/// Windows of a signature.
pub(super) const WINDOWS: usize = 3;
/// How far each word's product is rotated, so that equal words do not cancel out.
pub(super) const TURNS: [[u32; WORDS]; 2] = [[0, 5, 10, 21], [13, 18, 25, 29]];
/// The same for the ports.
pub(super) const PORTS_TURN: u32 = 7;

/// One column: a value for each table.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Column(pub(super) [u32; LANES]);

impl Column {
    pub(super) const ZERO: Self = Self([0; LANES]);
}

/// A key's addresses as 32-bit words, most significant first, and its ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// Source, then destination.
    pub(super) addresses: [[u32; WORDS]; 2],
    /// Source port in the upper half.
    pub(super) ports: u32,
}

impl Words {
    #[inline(always)]
    pub(super) fn of<A: Address>(key: &Key<A>) -> Self {
        Self::new(key.src, key.dst, key.sport, key.dport)
    }
    #[inline(always)]
    pub(super) fn new<A: Address>(src: A, dst: A, sport: u16, dport: u16) -> Self {
        let ports = u32::from(sport) << 16 | u32::from(dport);
        Self { addresses: [words(src), words(dst)], ports }
    }
    /// The words that a window may lie in, by number: source, destination, ports.
    #[inline(always)]
    pub(super) fn all<A: Address>(&self) -> [u32; 2 * WORDS + 1] {
        let [src, dst] = self.addresses;
        match word_count::<A>() {
            1 => [src[0], dst[0], self.ports, 0, 0, 0, 0, 0, 0],
            _ => [src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], self.ports],
        }
    }
}

#[inline(always)]
pub(super) fn words<A: Address>(address: A) -> [u32; WORDS] {
    let wide = address.to_u128();
    if A::BITS == 32 {
        [wide as u32, 0, 0, 0]
    } else {
        [(wide >> 96) as u32, (wide >> 64) as u32, (wide >> 32) as u32, wide as u32]
    }
}

/// Words that an address of this family has.
pub(super) const fn word_count<A: Address>() -> usize {
    A::BITS as usize / 32
}

/// Every column.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    /// Which bits of each address word are hashed.
    pub(super) masks: [[Column; WORDS]; 2],
    /// Which bits of the ports are.
    pub(super) ports: Column,
    /// Secret odd factors.
    pub(super) factors: [[Column; WORDS]; 2],
    pub(super) ports_factor: Column,
    pub(super) last_factor: Column,
    pub(super) salt: Column,
    /// A hash is shifted right by this much for a slot of the table ...
    pub(super) shift: Column,
    /// ... counted from here.
    pub(super) base: Column,
    /// Which of [`Words::all`] each of a signature's windows lies in ...
    pub(super) window_word: [Column; WINDOWS],
    /// ... and how far from its right end.
    pub(super) window_shift: [Column; WINDOWS],
    /// Tables whose third window takes the place of the destination port's classes.
    pub(super) third: u16,
}

impl Lanes {
    /// Secret factors from a seed, no tables.
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word >> 32) as u32
        };
        let mut odd = || Column(std::array::from_fn(|_| random() | 1));
        let factors = [(); 2].map(|()| [(); WORDS].map(|()| odd()));
        let (ports_factor, last_factor) = (odd(), odd());
        let salt = Column(std::array::from_fn(|_| random()));
        Self {
            masks: [[Column::ZERO; WORDS]; 2],
            ports: Column::ZERO,
            factors,
            ports_factor,
            last_factor,
            salt,
            shift: Column([31; LANES]),
            base: Column::ZERO,
            window_word: [Column::ZERO; WINDOWS],
            window_shift: [Column::ZERO; WINDOWS],
            third: 0,
        }
    }

    /// The hash of one table.
    #[inline(always)]
    pub(super) fn hash<A: Address>(&self, table: usize, words: &Words) -> u32 {
        let mut hash = self.salt.0[table];
        for side in 0..2 {
            for word in 0..word_count::<A>() {
                let kept = words.addresses[side][word] & self.masks[side][word].0[table];
                let product = kept.wrapping_mul(self.factors[side][word].0[table]);
                hash ^= product.rotate_left(TURNS[side][word]);
            }
        }
        let ports = (words.ports & self.ports.0[table]).wrapping_mul(self.ports_factor.0[table]);
        hash ^= ports.rotate_left(PORTS_TURN);
        hash ^= hash >> 15;
        hash.wrapping_mul(self.last_factor.0[table])
    }
    /// Where a hash leads.
    #[inline(always)]
    pub(super) fn slot(&self, table: usize, hash: u32) -> u32 {
        (hash >> self.shift.0[table]).wrapping_add(self.base.0[table])
    }
}

/// Tells hashes of one slot apart; 0 is kept for "mixed".
#[inline(always)]
pub(super) fn tag(hash: u32) -> u32 {
    (hash & 0xff).max(1)
}
