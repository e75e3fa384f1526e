//! A cover: which bits of a key one table hashes, and the salted hash.

use crate::{Address, Key, PortRange, Rule};

/// The bits of each field that a table hashes. A rule may stand in a table
/// only if it fixes all of these bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cover<A> {
    pub(super) src: A,
    pub(super) dst: A,
    pub(super) sport: u16,
    pub(super) dport: u16,
    pub(super) proto: u8,
}

/// The leading bits that all values of a range share.
fn common_prefix(range: PortRange) -> u16 {
    let free = u32::from(range.low ^ range.high).leading_zeros() - 16;
    (0xffff_u32 << (16 - free)) as u16
}

impl<A: Address> Cover<A> {
    /// All bits that the rule fixes: the finest table it may stand in.
    pub(super) fn of(rule: &Rule<A>) -> Self {
        Self {
            src: rule.src.mask(),
            dst: rule.dst.mask(),
            sport: common_prefix(rule.sport),
            dport: common_prefix(rule.dport),
            proto: rule.proto.mask(),
        }
    }
    /// Whether a rule that fixes `finest` may stand in a table of this cover.
    pub(super) fn admits(&self, finest: &Self) -> bool {
        self.src & finest.src == self.src
            && self.dst & finest.dst == self.dst
            && self.sport & finest.sport == self.sport
            && self.dport & finest.dport == self.dport
            && self.proto & finest.proto == self.proto
    }
    /// Number of bits hashed.
    pub(super) fn bits(&self) -> u32 {
        let addresses = self.src.to_u128().count_ones() + self.dst.to_u128().count_ones();
        addresses + self.sport.count_ones() + self.dport.count_ones() + self.proto.count_ones()
    }
    /// The hash under which a key is looked up.
    #[inline]
    pub(super) fn hash_key(&self, salt: &Salt, key: &Key<A>) -> u64 {
        self.hash(salt, key.src, key.dst, [key.sport, key.dport], key.proto)
    }
    /// The hash under which a rule is stored; the rule's cover must be admitted.
    pub(super) fn hash_rule(&self, salt: &Salt, rule: &Rule<A>) -> u64 {
        let ports = [rule.sport.low, rule.dport.low];
        self.hash(salt, rule.src.value(), rule.dst.value(), ports, rule.proto.value())
    }
    #[inline]
    fn hash(&self, salt: &Salt, src: A, dst: A, ports: [u16; 2], proto: u8) -> u64 {
        let small = u64::from(ports[0] & self.sport)
            | u64::from(ports[1] & self.dport) << 16
            | u64::from(proto & self.proto) << 32;
        let (src, dst) = ((src & self.src).to_u128(), (dst & self.dst).to_u128());
        if A::BITS <= 32 {
            salt.finish(fold((src | dst << 32) as u64 ^ salt.0[0], small ^ salt.0[1]))
        } else {
            let src = fold(src as u64 ^ salt.0[0], (src >> 64) as u64 ^ salt.0[1]);
            let dst = fold(dst as u64 ^ salt.0[3], (dst >> 64) as u64 ^ salt.0[4]);
            salt.finish(fold(src ^ small ^ salt.0[5], dst ^ salt.0[6]))
        }
    }
}

/// Secret words of one build.
#[derive(Clone, Copy, Debug)]
pub(super) struct Salt([u64; 8]);

impl Salt {
    /// Expands a seed (splitmix64).
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        }))
    }
    #[inline]
    fn finish(&self, hash: u64) -> u64 {
        fold(hash ^ self.0[2], self.0[7] | 1)
    }
}

/// The two halves of the full product, folded: every input bit reaches every output bit.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_prefix_of_ranges() {
        let prefix = |low, high| common_prefix(PortRange { low, high });
        assert_eq!(prefix(0, 65535), 0);
        assert_eq!(prefix(80, 80), 0xffff);
        assert_eq!(prefix(80, 81), 0xfffe);
        assert_eq!(prefix(1024, 65535), 0);
        assert_eq!(prefix(6000, 6063), 0xff00);
        for (low, high) in [(6000, 6063), (1024, 2047), (0, 1), (32767, 32768)] {
            let mask = prefix(low, high);
            assert!((low..=high).all(|port| port & mask == low & mask), "{low}-{high}");
        }
    }

    #[test]
    fn the_salt_changes_the_hash() {
        let cover = Cover { src: !0u32, dst: !0, sport: 0, dport: !0, proto: 0xff };
        let key = Key { src: 1, dst: 2, dport: 80, proto: 6, ..Key::zero() };
        let hash = |seed| cover.hash_key(&Salt::new(seed), &key);
        assert_ne!(hash(1), hash(2));
        assert_eq!(hash(1), hash(1));
    }
}
