//! Answers that are expected on loopback: what OUTPUT turned to this machine itself
//! is answered inside the kernel, past every port.
//!
//! A memory-mapped BPF array holds one bit for each hash of an answer's addresses,
//! ports and protocol. The workers set it before they deliver what will be answered, and
//! the tcx program on loopback (`host_loop` in `dataplane/bpf/host.h`) sends what has its
//! bit set to loopback's TAP. Bits are never cleared: an answer is known for as long as
//! its connection may live, and what else has the same hash comes to the engine, which
//! gives it back as it is ([`crate::engine`]).
//!
//! Concurrency: any worker sets bits; the kernel reads whole aligned words.

#![allow(unsafe_code, reason = "the kernel reads the same memory")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::effects::Answer;
use crate::packet::Family;

/// Words of the map.
const WORDS: usize = 1 << 14;

/// As the program hashes it: words as they lie in memory.
fn hash(answer: &Answer) -> u32 {
    let mixed = |hash: u32, word: [u8; 4]| {
        let hash = (hash ^ u32::from_ne_bytes(word)).wrapping_mul(0x9e37_79b1);
        hash ^ hash >> 15
    };
    let mut hash = u32::from(answer.proto);
    for address in [answer.src, answer.dst] {
        let bytes = address.to_be_bytes();
        let skipped = if answer.family == Family::V4 { 12 } else { 0 };
        for word in bytes[skipped..].as_chunks().0 {
            hash = mixed(hash, *word);
        }
    }
    let [[a, b], [c, d]] = [answer.sport, answer.dport].map(u16::to_be_bytes);
    mixed(hash, [a, b, c, d])
}

/// Its word and its bit.
fn place(answer: &Answer) -> (usize, u64) {
    let hash = hash(answer);
    (hash as usize >> 6 & (WORDS - 1), 1 << (hash & 63))
}

/// The mapped array.
#[derive(Clone, Debug)]
pub(in crate::port) struct Looped(Arc<MmapRaw>);

impl Looped {
    /// Maps the array behind `map`.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(in crate::port) fn map(map: impl AsFd) -> io::Result<Self> {
        let fd = map.as_fd().as_raw_fd();
        let map = MmapOptions::new().len(WORDS * size_of::<u64>()).map_raw(fd)?;
        Ok(Self(Arc::new(map)))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < WORDS, "{at}: there are {WORDS} words");
        // SAFETY: the mapping is page-aligned and has `WORDS` words.
        let word = unsafe { self.0.as_mut_ptr().cast::<u64>().add(at) };
        // SAFETY: aligned, and valid as long as `self`, which holds the mapping; in this
        // process it is only accessed atomically, and the kernel only reads it.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// Lets the program send such a packet to the engine.
    pub(super) fn expect(&self, answer: &Answer) {
        let (at, bit) = place(answer);
        let word = self.word(at);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_one_bit_of_its_own() {
        let map = memmap2::MmapMut::map_anon(WORDS * size_of::<u64>()).unwrap();
        let looped = Looped(Arc::new(map.into()));
        let v4 = Answer {
            family: Family::V4,
            proto: 6,
            src: 0x7f00_0001,
            sport: 8080,
            dst: 0xc000_0202,
            dport: 40_000,
        };
        let swapped = Answer { src: v4.dst, sport: v4.dport, dst: v4.src, dport: v4.sport, ..v4 };
        let mut places = vec![place(&v4)];
        for other in [
            swapped,
            Answer { proto: 17, ..v4 },
            Answer { family: Family::V6, ..v4 },
            Answer { sport: v4.dport, dport: v4.sport, ..v4 },
            Answer { dport: 40_001, ..v4 },
        ] {
            assert!(!places.contains(&place(&other)), "{other:?}");
            places.push(place(&other));
        }
        looped.expect(&v4);
        looped.expect(&v4);
        let (at, bit) = place(&v4);
        for word in 0..WORDS {
            let expected = if word == at { bit } else { 0 };
            assert_eq!(looped.word(word).load(Ordering::Relaxed), expected);
        }
    }
}
