//! SipHash-1-3 of whole words, written out: what a flow is found by must not be for its
//! sender to choose. The general hasher spends as much on lengths and rests as on this.

/// The hash of `words`, as if their bytes were written in little-endian order.
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

    use super::sip13;

    fn wanted(key: &[u8; 16], words: &[u64]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(key);
        words.iter().for_each(|&word| hasher.write_u64(word));
        hasher.finish()
    }

    proptest! {
        #[test]
        fn is_siphash(key: [u8; 16], words: [u64; 5]) {
            prop_assert_eq!(sip13(&key, words), wanted(&key, &words));
            let pair = [words[0], words[1]];
            prop_assert_eq!(sip13(&key, pair), wanted(&key, &pair));
            prop_assert_eq!(sip13(&key, []), wanted(&key, &[]));
        }
    }
}
