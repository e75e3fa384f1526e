//! Which address of a range a connection gets: a fixed hash of its addresses, so
//! that one client keeps its address, also across restarts. The hash is Bob
//! Jenkins' `lookup3` over words, with the kernel's start values: the choice is
//! the kernel's own on a little-endian machine.

use crate::conntrack::Tuple;
use crate::packet::Family;
use crate::policy::matches::Range;

use super::Manip;

/// An address as the words that the kernel hashes: network bytes, read little-endian.
fn words(family: Family, address: u128) -> [u32; 4] {
    match family {
        Family::V4 => [(address as u32).swap_bytes(), 0, 0, 0],
        Family::V6 => [96, 64, 32, 0].map(|shift| ((address >> shift) as u32).swap_bytes()),
    }
}

/// An address of `range` for a connection that is to look like `tuple` otherwise.
pub(super) fn address(
    tuple: &Tuple,
    range: Range<u128>,
    persistent: bool,
    manip: Manip,
    zone: u16,
) -> u128 {
    let count = match tuple.family {
        Family::V4 => 1,
        Family::V6 => 4,
    };
    let low = words(tuple.family, range.low);
    let high = words(tuple.family, range.high);
    let mut dst = words(tuple.family, tuple.dst);
    let seed = if persistent { 0 } else { dst[count - 1] ^ u32::from(zone) };
    let mut hash = jenkins(&words(tuple.family, tuple.src), seed);
    let (mut chosen, mut anything) = (0, false);
    for at in 0..count {
        // Once below the highest address, the words that follow are free.
        let (least, span) = match anything {
            false => {
                let (least, most) = (low[at].swap_bytes(), high[at].swap_bytes());
                (least, most.wrapping_sub(least).wrapping_add(1))
            }
            true => (0, u32::MAX),
        };
        let word = least.wrapping_add(((u64::from(hash) * u64::from(span)) >> 32) as u32);
        anything |= word != high[at].swap_bytes();
        chosen = chosen << 32 | u128::from(word);
        if manip == Manip::Destination {
            dst[at] = word.swap_bytes();
        }
        if !persistent {
            hash ^= dst[at];
        }
    }
    chosen
}

/// The kernel's hash over an address as it stands in a connection's tuple.
pub(crate) fn hash(family: Family, address: u128, seed: u32) -> u32 {
    let key = words(family, address);
    match family {
        Family::V4 => {
            let start = 0xdead_beef_u32.wrapping_add(1 << 2).wrapping_add(seed);
            finish([start.wrapping_add(key[0]), start, start])
        }
        Family::V6 => jenkins(&key, seed),
    }
}

/// The kernel's hash over three words.
pub(crate) fn hash3(words: [u32; 3], seed: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(3 << 2).wrapping_add(seed);
    finish(words.map(|word| start.wrapping_add(word)))
}

/// `lookup3` over four words.
fn jenkins(key: &[u32; 4], seed: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(4 << 2).wrapping_add(seed);
    let [a, b, c] = [key[0], key[1], key[2]].map(|word| start.wrapping_add(word));
    let [a, b, c] = mix(mix([a, b, c], [4, 6, 8]), [16, 19, 4]);
    finish([a.wrapping_add(key[3]), b, c])
}

/// Half of `lookup3`'s mixing: each word in turn.
fn mix([mut a, mut b, mut c]: [u32; 3], turns: [u32; 3]) -> [u32; 3] {
    for turn in turns {
        a = a.wrapping_sub(c) ^ c.rotate_left(turn);
        c = c.wrapping_add(b);
        (a, b, c) = (b, c, a);
    }
    [a, b, c]
}

fn finish([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    for turn in [14, 11, 25, 16, 4, 14, 24] {
        c = (c ^ b).wrapping_sub(b.rotate_left(turn));
        (a, b, c) = (b, c, a);
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: &str, dst: &str) -> Tuple {
        let [src, dst]: [std::net::IpAddr; 2] = [src, dst].map(|text| text.parse().unwrap());
        let family = if src.is_ipv4() { Family::V4 } else { Family::V6 };
        let bits = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(v4) => u128::from(v4.to_bits()),
            std::net::IpAddr::V6(v6) => v6.to_bits(),
        };
        let (src, dst) = (bits(src), bits(dst));
        Tuple { src, dst, sport: 1, dport: 2, proto: 17, family, zone: 0 }
    }

    #[test]
    fn every_choice_lies_in_the_range_and_all_are_made() {
        let range = Range { low: 0xc000_0201, high: 0xc000_0204 };
        let mut seen = [0; 4];
        for client in 0..200 {
            let tuple = tuple(&format!("10.0.0.{client}"), "203.0.113.1");
            let chosen = address(&tuple, range, false, Manip::Source, 0);
            assert!(range.contains(chosen));
            seen[(chosen - range.low) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| count > 20), "{seen:?}");
    }

    #[test]
    fn persistent_forgets_the_destination() {
        let range = Range { low: 0xc000_0201, high: 0xc000_02fe };
        let choose = |server: u8, persistent| {
            let tuple = tuple("10.0.0.1", &format!("203.0.113.{server}"));
            address(&tuple, range, persistent, Manip::Source, 0)
        };
        assert!((0..50).all(|server| choose(server, true) == choose(0, true)));
        assert!((0..50).any(|server| choose(server, false) != choose(0, false)));
    }

    #[test]
    fn wide_ranges_stay_inside() {
        let low = 0x2001_0db8_0000_0000_0000_0000_0000_0010_u128;
        let range = Range { low, high: low + 0x20 };
        for client in 0..200 {
            let tuple = tuple(&format!("2001:db8::{client}"), "2001:db8:1::1");
            let chosen = address(&tuple, range, false, Manip::Source, 0);
            assert!(range.contains(chosen), "{chosen:x}");
        }
    }
}
