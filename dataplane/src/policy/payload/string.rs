//! `-m string`: a pattern anywhere in the packet, or within a part of it.
//!
//! Both algorithms find the same in all patterns but one kind: with `--icase`, the
//! kernel's Boyer-Moore folds some bytes above ASCII one way only and then skips
//! over occurrences. The same tables are kept here, so the same is skipped.

/// Longest pattern in bytes.
pub const MAX_PATTERN: usize = 128;

/// `--algo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Boyer-Moore: `bm`.
    BoyerMoore,
    /// Knuth-Morris-Pratt: `kmp`.
    KnuthMorrisPratt,
}

/// What `-m string` asks for, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StringSpec {
    /// `--string`, `--hex-string`; 1 to [`MAX_PATTERN`] bytes.
    pub pattern: Box<[u8]>,
    /// `!` before it.
    pub negated: bool,
    /// `--algo`.
    pub algorithm: Algorithm,
    /// `--icase`.
    pub ignore_case: bool,
    /// `--from`: the first byte to look at, counted from the network header.
    pub from: u16,
    /// `--to`: the first byte that an occurrence must not reach.
    pub to: u16,
}

/// `-m string` with its tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatch {
    spec: StringSpec,
    /// The pattern, in upper case with `--icase`.
    folded: Box<[u8]>,
    tables: Tables,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tables {
    BoyerMoore {
        /// By byte of the text: how far its last place in the pattern is from the end.
        bad: Box<[u8; 256]>,
        /// By length of the suffix that fits: how far to go for the next that may.
        good: Box<[u8]>,
    },
    /// By place in the pattern: how much of it still fits when the next byte does not.
    KnuthMorrisPratt(Box<[u8]>),
}

/// A pattern without bytes, with too many, or a range that runs backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {MAX_PATTERN} bytes and lies in a range that runs forwards")]
pub struct BadString;

/// The kernel's upper case: that of ISO 8859-1, where two letters become what is none.
fn upper(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | 0xdf..=0xf6 | 0xf8..=0xff => byte - 0x20,
        _ => byte,
    }
}

fn lower(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' | 0xc0..=0xd6 | 0xd8..=0xde => byte + 0x20,
        _ => byte,
    }
}

impl StringMatch {
    /// Prepares the search.
    ///
    /// # Errors
    /// [`BadString`] where the kernel would refuse it.
    pub fn new(spec: StringSpec) -> Result<Self, BadString> {
        if !(1..=MAX_PATTERN).contains(&spec.pattern.len()) || spec.from > spec.to {
            return Err(BadString);
        }
        let fold = |&byte: &u8| if spec.ignore_case { upper(byte) } else { byte };
        let folded: Box<[u8]> = spec.pattern.iter().map(fold).collect();
        let tables = match spec.algorithm {
            Algorithm::BoyerMoore => Tables::BoyerMoore {
                bad: bad_shifts(&folded, spec.ignore_case),
                good: good_shifts(&folded),
            },
            Algorithm::KnuthMorrisPratt => Tables::KnuthMorrisPratt(borders(&folded)),
        };
        Ok(Self { spec, folded, tables })
    }

    /// As written.
    pub fn spec(&self) -> &StringSpec {
        &self.spec
    }

    /// Whether a packet, from its network header on, satisfies it.
    pub fn matches(&self, packet: &[u8]) -> bool {
        let end = packet.len().min(usize::from(self.spec.to));
        let text = packet.get(usize::from(self.spec.from)..end).unwrap_or_default();
        let found = match &self.tables {
            Tables::BoyerMoore { bad, good } => self.boyer_moore(text, bad, good),
            Tables::KnuthMorrisPratt(borders) => self.knuth_morris_pratt(text, borders),
        };
        found != self.spec.negated
    }

    fn fits(&self, text: u8, pattern: u8) -> bool {
        (if self.spec.ignore_case { upper(text) } else { text }) == pattern
    }

    fn boyer_moore(&self, text: &[u8], bad: &[u8; 256], good: &[u8]) -> bool {
        let pattern = &*self.folded;
        let mut last = pattern.len() - 1;
        while last < text.len() {
            let backwards = pattern.iter().rev().zip(text[..=last].iter().rev());
            let fit = backwards.take_while(|(pattern, text)| self.fits(**text, **pattern)).count();
            if fit == pattern.len() {
                return true;
            }
            let other = text[last - fit];
            let to_other = (last + usize::from(bad[usize::from(other)])).saturating_sub(fit);
            last = to_other.max(last + usize::from(good[fit]));
        }
        false
    }

    fn knuth_morris_pratt(&self, text: &[u8], borders: &[u8]) -> bool {
        let mut fit = 0;
        for &byte in text {
            while fit > 0 && !self.fits(byte, self.folded[fit]) {
                fit = usize::from(borders[fit - 1]);
            }
            if self.fits(byte, self.folded[fit]) {
                fit += 1;
            }
            if fit == self.folded.len() {
                return true;
            }
        }
        false
    }
}

fn bad_shifts(pattern: &[u8], ignore_case: bool) -> Box<[u8; 256]> {
    let mut shifts = Box::new([pattern.len() as u8; 256]);
    for (left, &byte) in pattern.iter().rev().enumerate().skip(1).rev() {
        shifts[usize::from(byte)] = left as u8;
        if ignore_case {
            shifts[usize::from(lower(byte))] = left as u8;
        }
    }
    shifts
}

fn good_shifts(pattern: &[u8]) -> Box<[u8]> {
    let len = pattern.len();
    let shift = |fit: usize| match fit {
        0 => 1,
        _ => (1..len).find(|&shift| fits_again(pattern, fit, shift)).unwrap_or(len),
    };
    (0..len).map(|fit| shift(fit) as u8).collect()
}

/// Whether the last `fit` bytes stand `shift` bytes further left too, as far as the
/// pattern reaches, and behind another byte than they do at the end.
fn fits_again(pattern: &[u8], fit: usize, shift: usize) -> bool {
    let len = pattern.len();
    let suffix = len - fit;
    let same = (suffix..len).all(|at| at < shift || pattern[at] == pattern[at - shift]);
    let otherwise = suffix <= shift || pattern[suffix - 1] != pattern[suffix - 1 - shift];
    same && otherwise
}

fn borders(pattern: &[u8]) -> Box<[u8]> {
    let mut borders = vec![0; pattern.len()];
    let mut fit = 0;
    for at in 1..pattern.len() {
        while fit > 0 && pattern[fit] != pattern[at] {
            fit = usize::from(borders[fit - 1]);
        }
        if pattern[fit] == pattern[at] {
            fit += 1;
        }
        borders[at] = fit as u8;
    }
    borders.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spec(pattern: &[u8], algorithm: Algorithm) -> StringSpec {
        StringSpec {
            pattern: pattern.into(),
            negated: false,
            algorithm,
            ignore_case: false,
            from: 0,
            to: u16::MAX,
        }
    }

    const BOTH: [Algorithm; 2] = [Algorithm::BoyerMoore, Algorithm::KnuthMorrisPratt];

    #[test]
    fn an_occurrence_lies_whole_between_from_and_to() {
        for algorithm in BOTH {
            let within = |from, to| {
                let spec = StringSpec { from, to, ..spec(b"abc", algorithm) };
                StringMatch::new(spec).unwrap().matches(b"..abc..")
            };
            assert!(within(0, u16::MAX) && within(2, 5) && within(0, 5));
            assert!(!within(3, u16::MAX) && !within(0, 4) && !within(2, 4) && !within(9, 20));
        }
    }

    #[test]
    fn the_kernel_misses_what_it_folds_one_way_only() {
        let fold = |algorithm, pattern: &[u8], text: &[u8]| {
            let spec = StringSpec { ignore_case: true, ..spec(pattern, algorithm) };
            StringMatch::new(spec).unwrap().matches(text)
        };
        for algorithm in BOTH {
            assert!(fold(algorithm, b"Hello \xe4", b"..hELLO \xc4"));
        }
        assert!(fold(Algorithm::KnuthMorrisPratt, b"\xffab", b"..\xffab"));
        assert!(!fold(Algorithm::BoyerMoore, b"\xffab", b"..\xffab"), "skipped over");
        assert!(fold(Algorithm::BoyerMoore, b"\xffab", b"...\xffab"));
    }

    #[test]
    fn bad_patterns_are_refused() {
        let all = [(0, 0, 9), (129, 0, 9), (3, 10, 9)];
        for (len, from, to) in all {
            let spec = StringSpec { from, to, ..spec(&vec![1; len], Algorithm::BoyerMoore) };
            assert_eq!(StringMatch::new(spec), Err(BadString));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn both_find_what_is_there(
            pattern in prop::collection::vec(prop::sample::select(b"aAb".to_vec()), 1..8),
            text in prop::collection::vec(prop::sample::select(b"abAB".to_vec()), 0..40),
            ignore_case: bool,
            from in 0_u16..12,
            len in 0_u16..40,
        ) {
            let to = from + len;
            let end = text.len().min(usize::from(to));
            let part = text.get(usize::from(from)..end).unwrap_or_default();
            let fold = |bytes: &[u8]| match ignore_case {
                true => bytes.to_ascii_uppercase(),
                false => bytes.to_vec(),
            };
            let (wanted, part) = (fold(&pattern), fold(part));
            let there = part.windows(wanted.len()).any(|window| window == wanted);
            for algorithm in BOTH {
                let spec = StringSpec { ignore_case, from, to, ..spec(&pattern, algorithm) };
                prop_assert_eq!(StringMatch::new(spec).unwrap().matches(&text), there);
            }
        }
    }
}
