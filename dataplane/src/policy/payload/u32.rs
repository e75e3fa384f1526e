//! `-m u32`: numbers out of the packet, cut and shifted, against ranges.

use crate::policy::matches::Range;

/// Most tests, steps of one (the first place included), and ranges of one.
pub const MAX_PARTS: usize = 10;

/// What is done with the number so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum U32Step {
    /// `&`.
    And(u32),
    /// `<<`, by less than 32.
    Left(u32),
    /// `>>`, by less than 32.
    Right(u32),
    /// `@`: moves the origin on by the number, and reads there.
    At(u32),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct U32Test {
    /// Where the first four bytes are read.
    pub start: u32,
    /// What becomes of them.
    pub steps: Box<[U32Step]>,
    /// Where the outcome must lie, in one of these.
    pub ranges: Box<[Range<u32>]>,
}

/// `-m u32`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct U32Match {
    /// `!` before it.
    pub negated: bool,
    /// All of them must hold.
    pub tests: Box<[U32Test]>,
}

impl U32Match {
    /// Whether a packet, from its network header on, satisfies it. A test that reads
    /// past its end does not hold.
    pub fn matches(&self, packet: &[u8]) -> bool {
        self.tests.iter().all(|test| test.holds(packet)) != self.negated
    }
}

impl U32Test {
    fn holds(&self, packet: &[u8]) -> bool {
        let outcome = self.outcome(packet);
        outcome.is_some_and(|value| self.ranges.iter().any(|range| range.contains(value)))
    }

    fn outcome(&self, packet: &[u8]) -> Option<u32> {
        let mut origin = 0_u32;
        let mut value = read(packet, 0, self.start)?;
        for step in &self.steps {
            match *step {
                U32Step::And(mask) => value &= mask,
                U32Step::Left(bits) => value = value.wrapping_shl(bits),
                U32Step::Right(bits) => value = value.wrapping_shr(bits),
                U32Step::At(place) => {
                    origin = origin.checked_add(value)?;
                    value = read(packet, origin, place)?;
                }
            }
        }
        Some(value)
    }
}

/// Four bytes at `origin + place`.
fn read(packet: &[u8], origin: u32, place: u32) -> Option<u32> {
    let at = origin.checked_add(place)? as usize;
    Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(start: u32, steps: &[U32Step], low: u32, high: u32) -> U32Match {
        let ranges = [Range { low, high }].into();
        let tests = [U32Test { start, steps: steps.into(), ranges }].into();
        U32Match { negated: false, tests }
    }

    #[test]
    fn reads_follow_each_other_and_end_with_the_packet() {
        let packet = [0x45, 0, 0, 24, 0, 0, 0, 0, 1, 2, 3, 4];
        assert!(test(0, &[], 0x4500_0018, 0x4500_0018).matches(&packet));
        assert!(test(8, &[], 0x0102_0304, 0x0102_0304).matches(&packet));
        assert!(!test(9, &[], 0, u32::MAX).matches(&packet), "one byte is missing");
        assert!(!test(u32::MAX, &[], 0, u32::MAX).matches(&packet));
        let second = [U32Step::And(0xff), U32Step::Right(3), U32Step::At(5)];
        assert!(test(0, &second, 0x0102_0304, 0x0102_0304).matches(&packet), "24 >> 3 + 5 = 8");
        let far = [U32Step::And(0), U32Step::At(9)];
        assert!(!test(0, &far, 0, u32::MAX).matches(&packet));
        let overflow = [U32Step::At(u32::MAX)];
        assert!(!test(0, &overflow, 0, u32::MAX).matches(&packet));
    }

    #[test]
    fn negation_holds_for_what_cannot_be_read() {
        let plain = test(9, &[], 0, u32::MAX);
        assert!(U32Match { negated: true, ..plain }.matches(&[0; 12]));
    }
}
