//! The ledger of a socket: which chunks of its worker's pool it has been lent.
//!
//! Invariant: a chunk stands in at most one ledger, from the moment in which its
//! [`Frame`](crate::port::Frame) was spent for the fill or the transmit ring of that
//! socket until a frame is made of it again, by a receive or a completion
//! descriptor or, when the socket is closed, by clearing the ledger. Lending spends
//! the token, and an entry can be struck out once: so there is never a second
//! token for a chunk, even if a kernel handed one back twice or one that it never got.

/// One bit a chunk.
#[derive(Debug)]
pub(super) struct Ledger {
    words: Box<[u64]>,
    chunks: u32,
}

impl Ledger {
    /// An empty one for a pool of `chunks`.
    pub(super) fn new(chunks: usize) -> Self {
        Self { words: vec![0; chunks.div_ceil(64)].into(), chunks: chunks as u32 }
    }

    /// Notes that a chunk was lent.
    #[inline]
    pub(super) fn enter(&mut self, chunk: u32) {
        let (word, bit) = place(chunk);
        debug_assert!(self.words[word] & bit == 0, "chunk {chunk} is lent already");
        self.words[word] |= bit;
    }

    /// Strikes a chunk out. False when it does not stand there.
    #[inline]
    pub(super) fn strike(&mut self, chunk: u64) -> bool {
        if chunk >= u64::from(self.chunks) {
            return false;
        }
        let (word, bit) = place(chunk as u32);
        let lent = self.words[word] & bit != 0;
        self.words[word] &= !bit;
        lent
    }

    /// How many chunks stand in it.
    pub(super) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Strikes out the first chunk at or after `from`.
    pub(super) fn strike_next(&mut self, from: u32) -> Option<u32> {
        let mut chunk = from;
        while chunk < self.chunks {
            let (word, _) = place(chunk);
            let rest = self.words[word] >> (chunk % 64);
            if rest != 0 {
                chunk += rest.trailing_zeros();
                return self.strike(u64::from(chunk)).then_some(chunk);
            }
            chunk = (chunk / 64 + 1) * 64;
        }
        None
    }
}

fn place(chunk: u32) -> (usize, u64) {
    (chunk as usize / 64, 1 << (chunk % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lent_is_struck_out_once() {
        let mut ledger = Ledger::new(100);
        for chunk in [0, 63, 64, 99] {
            ledger.enter(chunk);
        }
        assert_eq!(ledger.len(), 4);
        assert!(ledger.strike(64));
        assert!(!ledger.strike(64), "twice");
        assert!(!ledger.strike(1), "never lent");
        assert!(!ledger.strike(100), "no chunk");
        assert!(!ledger.strike(u64::MAX), "no chunk");
        assert_eq!(ledger.len(), 3);
    }

    #[test]
    fn clearing_finds_every_chunk_once() {
        let lent = [0, 1, 62, 63, 64, 127, 128, 198, 199];
        let mut ledger = Ledger::new(200);
        lent.iter().for_each(|chunk| ledger.enter(*chunk));
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some(chunk) = ledger.strike_next(from) {
            found.push(chunk);
            from = chunk + 1;
        }
        assert_eq!(found, lent);
        assert_eq!(ledger.len(), 0);
        assert_eq!(ledger.strike_next(0), None);
    }
}
