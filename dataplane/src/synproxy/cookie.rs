//! SYN cookies: an initial sequence number that tells, when it comes back, that
//! we gave it out, to whom, not long ago, and which segment size the client told.
//!
//! The layout is that of the kernel's: a keyed hash of the connection, plus the
//! client's own number, plus the minute in the upper 8 bits, plus a second hash
//! (of the minute too) with the size's index in the lower 24. A cookie is good
//! in the minute that it was made in and in the next.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::clock::Nanos;
use crate::packet::Family;

/// Bits below the minute.
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;
/// Minutes that a cookie is good for, the one it was made in included.
const MINUTES: u32 = 2;
const MINUTE_NS: u64 = 60_000_000_000;

/// Segment sizes that a cookie can say, by family, ascending.
const SIZES_V4: [u16; 4] = [536, 1300, 1440, 1460];
const SIZES_V6: [u16; 4] = [1220, 1420, 1440, 8940];

fn sizes(family: Family) -> &'static [u16; 4] {
    match family {
        Family::V4 => &SIZES_V4,
        Family::V6 => &SIZES_V6,
    }
}

/// A connection as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Family.
    pub family: Family,
    /// The client's address.
    pub client: u128,
    /// The server's address.
    pub server: u128,
    /// The client's port.
    pub client_port: u16,
    /// The server's port.
    pub server_port: u16,
}

/// Gives cookies out and knows them again.
#[derive(Clone)]
pub struct Cookies {
    keys: [[u8; 16]; 2],
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

impl Cookies {
    /// Keys of its own, derived from a secret.
    pub fn new(secret: &[u8; 16]) -> Self {
        let half = |number: u8| {
            let mut hasher = SipHasher24::new_with_key(secret);
            hasher.write(b"syn cookie");
            hasher.write_u8(number);
            hasher.finish().to_le_bytes()
        };
        let key = |number: u8| {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&half(number));
            key[8..].copy_from_slice(&half(number + 1));
            key
        };
        Self { keys: [key(0), key(2)] }
    }

    fn hash(&self, which: usize, ends: &Ends, minute: u32) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.keys[which]);
        hasher.write_u128(ends.client);
        hasher.write_u128(ends.server);
        hasher.write_u16(ends.client_port);
        hasher.write_u16(ends.server_port);
        hasher.write_u32(minute);
        hasher.finish() as u32
    }

    /// The number to answer a client's SYN with, whose own number is `seq` and
    /// which says `mss` (zero when it says nothing).
    pub fn issue(&self, ends: &Ends, seq: u32, mss: u16, now: Nanos) -> u32 {
        let minute = minute(now);
        let fits = sizes(ends.family).iter().rposition(|&size| size <= mss).unwrap_or(0);
        let low = self.hash(1, ends, minute).wrapping_add(fits as u32) & MASK;
        self.hash(0, ends, 0).wrapping_add(seq).wrapping_add(minute << BITS).wrapping_add(low)
    }

    /// The segment size that `cookie` says, if it was given out for these ends and
    /// the client's number `seq`, and is still good.
    pub fn check(&self, ends: &Ends, seq: u32, cookie: u32, now: Nanos) -> Option<u16> {
        let rest = cookie.wrapping_sub(self.hash(0, ends, 0).wrapping_add(seq));
        let minute = minute(now);
        let age = minute.wrapping_sub(rest >> BITS) & (u32::MAX >> BITS);
        if age >= MINUTES {
            return None;
        }
        let index = rest.wrapping_sub(self.hash(1, ends, minute.wrapping_sub(age))) & MASK;
        sizes(ends.family).get(index as usize).copied()
    }
}

fn minute(now: Nanos) -> u32 {
    (now.0 / MINUTE_NS) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends() -> Ends {
        Ends { family: Family::V4, client: 1, server: 2, client_port: 3, server_port: 4 }
    }

    #[test]
    fn a_cookie_says_the_next_smaller_size() {
        let cookies = Cookies::new(&[7; 16]);
        let now = Nanos::from_secs(1_000);
        let said = |family, mss| {
            let ends = Ends { family, ..ends() };
            cookies.check(&ends, 9, cookies.issue(&ends, 9, mss, now), now)
        };
        for (mss, size) in [
            (0, 536),
            (535, 536),
            (536, 536),
            (1299, 536),
            (1300, 1300),
            (1440, 1440),
            (1459, 1440),
            (1460, 1460),
            (65535, 1460),
        ] {
            assert_eq!(said(Family::V4, mss), Some(size), "{mss}");
        }
        for (mss, size) in [(0, 1220), (1420, 1420), (8939, 1440), (8940, 8940)] {
            assert_eq!(said(Family::V6, mss), Some(size), "{mss}");
        }
    }

    #[test]
    fn a_cookie_is_good_in_its_minute_and_the_next() {
        let cookies = Cookies::new(&[7; 16]);
        for start in [0, 59, 60, 255 * 60, 256 * 60 + 59] {
            let cookie = cookies.issue(&ends(), 9, 1460, Nanos::from_secs(start));
            let later = |s: u64| cookies.check(&ends(), 9, cookie, Nanos::from_secs(start + s));
            let left = 120 - start % 60;
            assert_eq!(later(0), Some(1460));
            assert_eq!(later(left - 1), Some(1460), "{start}");
            assert_eq!(later(left), None, "{start}");
        }
    }

    proptest! {
        /// Whatever is not the very same connection makes the cookie worthless. (By
        /// chance four in 2^24 guesses are right.)
        #[test]
        fn a_cookie_is_good_for_its_own_connection_only(
            secret in any::<[u8; 16]>(), seq in any::<u32>(), which in 0..6_u8, by in 1..1000_u32,
        ) {
            let (cookies, now) = (Cookies::new(&secret), Nanos::from_secs(100));
            let cookie = cookies.issue(&ends(), seq, 1460, now);
            let (mut other, mut other_seq, mut other_cookie) = (ends(), seq, cookie);
            match which {
                0 => other.client += u128::from(by),
                1 => other.server += u128::from(by),
                2 => other.client_port += by as u16,
                3 => other.server_port += by as u16,
                4 => other_seq = seq.wrapping_add(by + 3),
                _ => other_cookie = cookie.wrapping_add(by + 3),
            }
            prop_assert_eq!(cookies.check(&ends(), seq, cookie, now), Some(1460));
            prop_assert_eq!(cookies.check(&other, other_seq, other_cookie, now), None);
        }
    }
}
