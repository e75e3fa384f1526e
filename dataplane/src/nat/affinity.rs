//! On which queue an answer will arrive: network cards spread what they receive
//! by a Toeplitz hash of addresses and ports under a key that they tell. Where a
//! port is drawn at random anyway, one whose answers come to the drawing worker
//! keeps the connection's packets on one core. Nothing depends on it.

use crate::conntrack::Tuple;
use crate::packet::Family;
use crate::wire::proto;

/// Bytes of a key that a hash over IPv6 addresses and ports uses.
const KEY: usize = 40;

/// Which transport protocols' ports a card hashes, besides addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hashed {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// UDP over IPv4.
    pub udp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
    /// UDP over IPv6.
    pub udp6: bool,
}

/// How one card spreads what it receives over its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    key: [u8; KEY],
    queues: Box<[u32]>,
    hashed: Hashed,
}

impl Spread {
    /// From the card's key and indirection table. `None` when the key is too short,
    /// the table is empty, or only one queue is in it.
    pub fn new(key: &[u8], queues: &[u32], hashed: Hashed) -> Option<Self> {
        let key = *key.first_chunk::<KEY>()?;
        let several = queues.iter().any(|queue| Some(queue) != queues.first());
        several.then(|| Self { key, queues: queues.into(), hashed })
    }

    /// The queue on which a packet of this tuple arrives; `None` when its port has
    /// no say in it.
    pub fn queue(&self, tuple: &Tuple) -> Option<u32> {
        let ports_count = match (tuple.proto, tuple.family) {
            (proto::TCP, Family::V4) => self.hashed.tcp4,
            (proto::TCP, Family::V6) => self.hashed.tcp6,
            (proto::UDP, Family::V4) => self.hashed.udp4,
            (proto::UDP, Family::V6) => self.hashed.udp6,
            _ => false,
        };
        let hash = ports_count.then(|| self.hash(tuple))?;
        self.queues.get(hash as usize % self.queues.len()).copied()
    }

    /// Toeplitz: for every bit of the input that is set, the 32 bits of the key
    /// that start at its place.
    fn hash(&self, tuple: &Tuple) -> u32 {
        let mut hash = Toeplitz { key: &self.key, at: 0, hash: 0 };
        for address in [tuple.src, tuple.dst] {
            match tuple.family {
                Family::V4 => hash.take(&(address as u32).to_be_bytes()),
                Family::V6 => hash.take(&address.to_be_bytes()),
            }
        }
        hash.take(&tuple.sport.to_be_bytes());
        hash.take(&tuple.dport.to_be_bytes());
        hash.hash
    }
}

struct Toeplitz<'k> {
    key: &'k [u8; KEY],
    at: usize,
    hash: u32,
}

impl Toeplitz<'_> {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let window = (0..5).fold(0_u64, |window, more| {
                window << 8 | u64::from(self.key.get(self.at + more).copied().unwrap_or(0))
            });
            for bit in 0..8 {
                if byte & 0x80 >> bit != 0 {
                    self.hash ^= (window >> (8 - bit)) as u32;
                }
            }
            self.at += 1;
        }
    }
}

/// The queue that the drawing worker reads, and the card that would fill it.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// How the card of the port on which answers arrive spreads them.
    pub spread: &'a Spread,
    /// The worker's queue.
    pub queue: u32,
}

impl Home<'_> {
    /// Whether a packet of this tuple arrives elsewhere.
    pub fn is_foreign(&self, tuple: &Tuple) -> bool {
        self.spread.queue(tuple).is_some_and(|queue| queue != self.queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and the packets by which drivers' authors verify their hash.
    const KEY_OF_THE_SUITE: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];
    const ALL: Hashed = Hashed { tcp4: true, udp4: true, tcp6: true, udp6: true };

    fn tuple(src: (&str, u16), dst: (&str, u16)) -> Tuple {
        let bits = |text: &str| crate::wire::build::address_bits(text.parse().unwrap());
        let family = if src.0.contains(':') { Family::V6 } else { Family::V4 };
        let (src, sport, dst, dport) = (bits(src.0), src.1, bits(dst.0), dst.1);
        Tuple { src, dst, sport, dport, proto: proto::TCP, family, zone: 0 }
    }

    #[test]
    fn the_hash_is_the_cards() {
        let spread = Spread::new(&KEY_OF_THE_SUITE, &[0, 1], ALL).unwrap();
        for (src, dst, hash) in [
            (("66.9.149.187", 2794), ("161.142.100.80", 1766), 0x51cc_c178),
            (("199.92.111.2", 14230), ("65.69.140.83", 4739), 0xc626_b0ea),
            (("24.19.198.95", 12898), ("12.22.207.184", 38024), 0x5c2b_394a),
        ] {
            assert_eq!(spread.hash(&tuple(src, dst)), hash, "{src:?}");
        }
        let wide = tuple(("3ffe:2501:200:1fff::7", 2794), ("3ffe:2501:200:3::1", 1766));
        assert_eq!(spread.hash(&wide), 0x4020_7d3d);
    }

    #[test]
    fn only_what_the_card_hashes_has_a_home() {
        assert!(Spread::new(&KEY_OF_THE_SUITE, &[2, 2], ALL).is_none(), "one queue");
        assert!(Spread::new(&KEY_OF_THE_SUITE[..39], &[0, 1], ALL).is_none(), "a short key");
        let only_tcp = Hashed { udp4: false, ..ALL };
        let spread = Spread::new(&KEY_OF_THE_SUITE, &[0, 1], only_tcp).unwrap();
        let tcp = tuple(("66.9.149.187", 2794), ("161.142.100.80", 1766));
        assert_eq!(spread.queue(&tcp), Some(0));
        assert_eq!(spread.queue(&Tuple { proto: proto::UDP, ..tcp }), None);
        assert_eq!(spread.queue(&Tuple { proto: proto::ICMP, ..tcp }), None);
        assert!(Home { spread: &spread, queue: 1 }.is_foreign(&tcp));
        assert!(!Home { spread: &spread, queue: 0 }.is_foreign(&tcp));
    }
}
