//! The generator behind port choices and the throws of rules: small, seeded, one a worker.

use super::affinity::Home;

/// splitmix64. Ports need spreading, not secrecy that outlives a guess: whoever
/// must not foretell them seeds every worker with real randomness.
#[derive(Clone, Debug, Default)]
pub struct Random(u64);

impl Random {
    /// From a seed; equal seeds give equal choices.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// 16 bits.
    pub fn half(&mut self) -> u16 {
        (self.word() >> 48) as u16
    }
}

/// What decides where the kernel lets chance decide.
#[derive(Debug)]
pub struct Luck<'a> {
    /// The worker's generator.
    pub random: &'a mut Random,
    /// Where answers had better arrive, if that is known.
    pub home: Option<Home<'a>>,
}
