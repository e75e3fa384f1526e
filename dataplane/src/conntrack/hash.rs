//! What a flow is found by must not be for its sender to choose: tuples are hashed under a
//! key that is drawn at the start and never shown.
//!
//! **Tuples** go through rounds of AES, each under a round key of its own: six over IPv4's
//! two words, and four between blocks of IPv6's. Two packets collide by what their
//! difference becomes; four rounds under independent keys give no difference of inputs any
//! difference of outputs with a probability above 2^-113 (Keliher and Sui, 2007), whoever
//! chooses the inputs. That is why message authentication codes are built of four rounds
//! (Daemen and Rijmen's Pelican); two more are margin. Attacks that recover keys of so few
//! rounds read outputs for inputs of their choice, and nobody outside reads any: what there
//! is to measure, at best, is that two flows share a bucket. Processors without the
//! instruction get the same numbers from the same rounds written out.
//!
//! **Sources**, and the round keys, are hashed with SipHash-1-3 of whole words, written out:
//! the general hasher spends as much on lengths and rests as on this.

#![allow(unsafe_code, reason = "an instruction of the processor")]

/// Round keys: one before the first round, and one for each.
const KEYS: usize = 7;
/// Rounds between the blocks of a long tuple.
const BETWEEN: usize = 4;

/// What tuples are hashed under.
#[derive(Clone, Debug)]
pub(super) struct HashKey {
    /// As it was drawn.
    pub(super) drawn: [u8; 16],
    rounds: [u128; KEYS],
    /// Whether the processor has the instruction.
    has_aes: bool,
}

impl HashKey {
    /// The round keys of a key.
    pub(super) fn new(drawn: [u8; 16]) -> Self {
        let word = |number: usize| u128::from(sip13(&drawn, [number as u64]));
        let rounds = std::array::from_fn(|at| word(2 * at) << 64 | word(2 * at + 1));
        #[cfg(target_arch = "x86_64")]
        let has_aes = is_x86_feature_detected!("aes");
        #[cfg(not(target_arch = "x86_64"))]
        let has_aes = false;
        Self { drawn, rounds, has_aes }
    }

    /// The hash of a tuple of IPv4.
    #[inline]
    pub(super) fn narrow(&self, head: u64, pair: u64) -> u64 {
        self.hash([join(head, pair)])
    }

    /// The hash of a tuple of IPv6.
    pub(super) fn wide(&self, head: u64, [a, b, c, d]: [u64; 4]) -> u64 {
        self.hash([u128::from(head), join(a, b), join(c, d)])
    }

    #[inline]
    fn hash<const N: usize>(&self, blocks: [u128; N]) -> u64 {
        #[cfg(target_arch = "x86_64")]
        if self.has_aes {
            // SAFETY: the processor has it.
            return unsafe { instructed(&self.rounds, blocks) };
        }
        debug_assert!(!self.has_aes);
        written_out(&self.rounds, blocks)
    }
}

#[inline]
const fn join(high: u64, low: u64) -> u128 {
    (high as u128) << 64 | low as u128
}

/// With the processor's instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "aes")]
fn instructed<const N: usize>(keys: &[u128; KEYS], blocks: [u128; N]) -> u64 {
    use std::arch::x86_64::{
        __m128i, _mm_aesenc_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_xor_si128,
    };
    let vector = |word: u128| _mm_set_epi64x((word >> 64) as i64, word as i64);
    let mut state: __m128i = vector(keys[0]);
    for (nth, block) in blocks.into_iter().enumerate() {
        state = _mm_xor_si128(state, vector(block));
        for &key in &keys[1..if nth + 1 < N { BETWEEN + 1 } else { KEYS }] {
            state = _mm_aesenc_si128(state, vector(key));
        }
    }
    _mm_cvtsi128_si64(state) as u64
}

/// The same for any processor.
fn written_out<const N: usize>(keys: &[u128; KEYS], blocks: [u128; N]) -> u64 {
    let mut state = keys[0];
    for (nth, block) in blocks.into_iter().enumerate() {
        state ^= block;
        for &key in &keys[1..if nth + 1 < N { BETWEEN + 1 } else { KEYS }] {
            state = aes_round(state, key);
        }
    }
    state as u64
}

/// One round of AES (FIPS 197): bytes are exchanged, moved along their rows, mixed within
/// their columns, and a key is added.
fn aes_round(state: u128, key: u128) -> u128 {
    let (state, mut mixed) = (state.to_le_bytes(), [0; 16]);
    for column in 0..4 {
        let taken = |row: usize| S_BOX[usize::from(state[row + 4 * ((column + row) % 4)])];
        let bytes: [u8; 4] = std::array::from_fn(taken);
        let all = bytes.iter().fold(0, |all, byte| all ^ byte);
        for row in 0..4 {
            let byte = bytes[row];
            mixed[4 * column + row] = byte ^ all ^ twice(byte ^ bytes[(row + 1) % 4]);
        }
    }
    u128::from_le_bytes(mixed) ^ key
}

/// Multiplication by x modulo x^8 + x^4 + x^3 + x + 1.
const fn twice(byte: u8) -> u8 {
    (byte << 1) ^ ((byte >> 7) * 0x1b)
}

/// Each byte's inverse in that field, turned and added to itself four times. Powers of 3
/// and of its inverse go through all bytes but zero together.
const S_BOX: [u8; 256] = {
    let mut table = [0x63; 256];
    let (mut power, mut inverse): (u8, u8) = (1, 1);
    loop {
        power ^= twice(power);
        inverse ^= inverse << 1;
        inverse ^= inverse << 2;
        inverse ^= inverse << 4;
        inverse ^= (inverse >> 7) * 0x09;
        table[power as usize] = 0x63
            ^ inverse
            ^ inverse.rotate_left(1)
            ^ inverse.rotate_left(2)
            ^ inverse.rotate_left(3)
            ^ inverse.rotate_left(4);
        if power == 1 {
            break table;
        }
    }
};

/// SipHash-1-3 of `words`, as if their bytes were written in little-endian order.
#[inline]
pub(super) fn sip13<const N: usize>(key: &[u8; 16], words: [u64; N]) -> u64 {
    let (halves, _) = key.as_chunks::<8>();
    let [low, high] = [0, 1].map(|at| u64::from_le_bytes(halves[at]));
    let mut state = [
        low ^ 0x736f_6d65_7073_6575,
        high ^ 0x646f_7261_6e64_6f6d,
        low ^ 0x6c79_6765_6e65_7261,
        high ^ 0x7465_6462_7974_6573,
    ];
    // The last word holds the length, and bytes of which there are none here.
    let length = (N as u64 * 8) << 56;
    for word in words.into_iter().chain([length]) {
        state[3] ^= word;
        round(&mut state);
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    (0..3).for_each(|_| round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *c = c.wrapping_add(*d);
    *b = b.rotate_left(13) ^ *a;
    *d = d.rotate_left(16) ^ *c;
    *a = a.rotate_left(32).wrapping_add(*d);
    *c = c.wrapping_add(*b);
    *d = d.rotate_left(21) ^ *a;
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::{HashKey, aes_round, join, sip13, written_out};

    fn wanted(key: &[u8; 16], words: &[u64]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(key);
        words.iter().for_each(|&word| hasher.write_u64(word));
        hasher.finish()
    }

    #[test]
    fn a_round_is_that_of_the_standard() {
        // FIPS 197, appendix B: the first round's start, its end, and its key.
        let bytes = |text: &str| u128::from_str_radix(text, 16).unwrap().swap_bytes();
        let state = bytes("193de3bea0f4e22b9ac68d2ae9f84808");
        let key = bytes("a0fafe1788542cb123a339392a6c7605");
        assert_eq!(aes_round(state, key), bytes("a49c7ff2689f352b6b5bea43026a5049"));
    }

    #[test]
    fn every_bit_of_a_tuple_changes_half_of_the_hash() {
        let key = HashKey::new(*b"a key that is so");
        for bit in 0..128 {
            let mut changed = [0_u32; 64];
            for seed in 0..256_u64 {
                let (head, pair) = (seed.wrapping_mul(0x9e37_79b9), seed << 20);
                let other = join(head, pair) ^ 1 << bit;
                let other = key.narrow((other >> 64) as u64, other as u64);
                let difference = key.narrow(head, pair) ^ other;
                (0..64).for_each(|at| changed[at] += (difference >> at & 1) as u32);
            }
            assert!(changed.iter().all(|count| (80..176).contains(count)), "{bit}: {changed:?}");
        }
    }

    proptest! {
        #[test]
        fn is_siphash(key: [u8; 16], words: [u64; 5]) {
            prop_assert_eq!(sip13(&key, words), wanted(&key, &words));
            let pair = [words[0], words[1]];
            prop_assert_eq!(sip13(&key, pair), wanted(&key, &pair));
            prop_assert_eq!(sip13(&key, []), wanted(&key, &[]));
        }

        #[test]
        fn the_instruction_does_what_is_written_out(key: [u8; 16], head: u64, rest: [u64; 4]) {
            let key = HashKey::new(key);
            let [a, b, c, d] = rest;
            prop_assert_eq!(key.narrow(head, a), written_out(&key.rounds, [join(head, a)]));
            let blocks = [u128::from(head), join(a, b), join(c, d)];
            prop_assert_eq!(key.wide(head, rest), written_out(&key.rounds, blocks));
        }
    }
}
