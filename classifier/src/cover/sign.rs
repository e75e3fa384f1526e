//! Signatures: for each slot, which small classes of every field any of its
//! rules can match. A packet that falls into none of them need not see the leaf.
//!
//! Each half of the upper 32 bits looks at the sixteen values of a window: four
//! bits of a field, placed for every table where its rules differ. The lower
//! half tells destination ports (or a third window), protocols, states and input
//! interfaces apart.

use super::lanes::{Lanes, WINDOWS, WORDS, Words, word_count};
use super::plan::Slots;
use crate::{Address, ClassSet, Key, PortRange, Rule};

/// Destination ports are told apart at this many limits at most.
const DPORT_LIMITS: usize = 15;
const PROTO: u32 = 20;
const STATE: u32 = 24;
const IIF: u32 = 28;
/// Values of a window.
const VALUES: u32 = 16;
/// Slots looked at to place a table's windows.
const SAMPLE: usize = 256;

/// Where the ports of one build are told apart, and the classes of protocols.
#[derive(Clone, Debug)]
#[repr(C, align(32))]
pub(super) struct Signs {
    /// A port's class is the number of limits below it; the last never counts.
    pub(super) dport: [u16; 16],
    proto: [u32; 256],
}

impl Signs {
    pub(super) fn choose<'r, A: Address>(rules: impl Iterator<Item = &'r Rule<A>>) -> Self {
        let mut dport = [u16::MAX; 16];
        limits(rules.map(|rule| rule.dport), &mut dport[..DPORT_LIMITS]);
        Self { dport, proto: std::array::from_fn(|proto| 1 << (PROTO + proto_class(proto as u8))) }
    }
    #[inline(always)]
    fn dport_class(&self, port: u16) -> u32 {
        self.dport.iter().map(|&limit| u32::from(port > limit)).sum()
    }
    /// What every table's signature must have, but for the port's class. (A key
    /// without a state or interface matches sets of all, which have every class.)
    #[inline(always)]
    pub(super) fn wanted<A>(&self, key: &Key<A>) -> u32 {
        self.proto[usize::from(key.proto)]
            | 1 << (STATE + (key.state.trailing_zeros() & 3))
            | 1 << (IIF + (key.iif.trailing_zeros() & 3))
    }
    /// What a key needs to find in a signature of the table.
    #[inline(always)]
    pub(super) fn wanted_of<A: Address>(
        &self,
        lanes: &Lanes,
        table: usize,
        words: &Words,
        key: &Key<A>,
    ) -> u64 {
        let all = words.all::<A>();
        let bit = |window: usize| {
            let word = all[lanes.window_word[window].0[table] as usize];
            1_u32 << (word >> lanes.window_shift[window].0[table] & (VALUES - 1))
        };
        let third = match lanes.third >> table & 1 {
            1 => bit(2),
            _ => 1 << self.dport_class(key.dport),
        };
        u64::from(self.wanted(key) | third) | u64::from(bit(0) | bit(1) << VALUES) << 32
    }
    /// The signature of a rule in a table.
    pub(super) fn of<A: Address>(&self, lanes: &Lanes, table: usize, rule: &Rule<A>) -> u64 {
        let (value, mask) = fixed(rule);
        let bits = |number: usize| {
            let word = lanes.window_word[number].0[table] as usize;
            let shift = lanes.window_shift[number].0[table];
            window(value[word] >> shift, mask[word] >> shift)
        };
        let run = |low: u32, high: u32| (2 << high) - (1 << low);
        let third = match lanes.third >> table & 1 {
            1 => bits(2),
            _ => run(self.dport_class(rule.dport.low), self.dport_class(rule.dport.high)),
        };
        let proto = match rule.proto.mask() {
            0xff => 1 << (PROTO + proto_class(rule.proto.value())),
            _ => 0xf << PROTO,
        };
        let small = proto | classes(rule.state) << STATE | classes(rule.iif) << IIF;
        u64::from(small | third) | u64::from(bits(0) | bits(1) << VALUES) << 32
    }
}

/// Limits where most ranges begin or end: half of them the commonest, half
/// spread evenly over the others.
fn limits(ranges: impl Iterator<Item = PortRange>, out: &mut [u16]) {
    let mut ends = Vec::new();
    for range in ranges.filter(|range| !range.is_any()) {
        ends.extend(range.low.checked_sub(1));
        ends.push(range.high);
    }
    ends.sort_unstable();
    let runs = ends.chunk_by(|a, b| a == b).map(|run| (run.len() as u32, run[0]));
    let mut heaviest: Vec<(u32, u16)> = runs.filter(|&(_, at)| at != u16::MAX).collect();
    heaviest.sort_unstable_by_key(|&(weight, at)| (std::cmp::Reverse(weight), at));
    let (common, spread) = out.split_at_mut(out.len().div_ceil(2));
    let mut taken = heaviest.into_iter();
    for (limit, (_, at)) in common.iter_mut().zip(taken.by_ref()) {
        *limit = at;
    }
    let mut rest: Vec<(u32, u16)> = taken.collect();
    rest.sort_unstable_by_key(|&(_, at)| at);
    let total: u64 = rest.iter().map(|&(weight, _)| u64::from(weight)).sum();
    let (mut passed, mut next, steps) = (0, 1, spread.len() as u64 + 1);
    let mut free = spread.iter_mut();
    for (weight, at) in rest {
        passed += u64::from(weight);
        if passed * steps >= next * total {
            next = passed * steps / total + 1;
            let Some(limit) = free.next() else { break };
            *limit = at;
        }
    }
}

fn proto_class(proto: u8) -> u32 {
    match proto {
        6 => 0,
        17 => 1,
        1 | 58 => 2,
        _ => 3,
    }
}

/// Four classes of the bits of a set.
fn classes(set: ClassSet) -> u32 {
    let fold = |bits: u64, by: u32| bits | bits >> by;
    (fold(fold(fold(fold(set.0, 32), 16), 8), 4) & 0xf) as u32
}

/// The values of the words of a rule, and which of their bits it fixes.
fn fixed<A: Address>(rule: &Rule<A>) -> ([u32; 2 * WORDS + 1], [u32; 2 * WORDS + 1]) {
    let prefix = |range: PortRange| {
        let free = u32::from(range.low ^ range.high).leading_zeros() - 16;
        (0xffff_u32 << (16 - free)) as u16
    };
    let value = Words::new(rule.src.value(), rule.dst.value(), rule.sport.low, rule.dport.low);
    let (sport, dport) = (prefix(rule.sport), prefix(rule.dport));
    let mask = Words::new(rule.src.mask(), rule.dst.mask(), sport, dport);
    (value.all::<A>(), mask.all::<A>())
}

/// The values of a window that agree with `value` under `mask`.
fn window(value: u32, mask: u32) -> u32 {
    match mask & (VALUES - 1) {
        0 => 0xffff,
        0xf => 1 << (value & (VALUES - 1)),
        mask => (0..VALUES).filter(|at| (at ^ value) & mask == 0).fold(0, |all, at| all | 1 << at),
    }
}

/// For every place that a window can have: its word, its shift, and how many of its values
/// each slot lets pass.
fn passing<'s, A: Address>(
    slots: impl Iterator<Item = &'s [u32]>,
    rules: &[Rule<A>],
) -> Vec<(usize, u32, Vec<u32>)> {
    let words = 0..2 * word_count::<A>() + 1;
    let shifts = || (0..32).step_by(2).rev().skip(1);
    let mut places: Vec<(usize, u32, Vec<u32>)> =
        words.flat_map(|word| shifts().map(move |shift| (word, shift, Vec::new()))).collect();
    let mut values = vec![0; places.len()];
    for slot in slots {
        values.fill(0);
        for &number in slot {
            let (value, mask) = fixed(&rules[number as usize]);
            for (all, &(word, shift, _)) in values.iter_mut().zip(&places) {
                *all |= window(value[word] >> shift, mask[word] >> shift);
            }
        }
        for ((_, _, passing), all) in places.iter_mut().zip(&values) {
            passing.push(u32::count_ones(*all));
        }
    }
    places
}

/// Places the windows of a table where the rules of its slots differ most: each
/// where it lets fewest leaves pass that the others let pass. Takes the ports'
/// place with the third where ports are hashed.
pub(super) fn place_windows<A: Address>(
    lanes: &mut Lanes,
    table: usize,
    slots: &Slots,
    rules: &[Rule<A>],
) {
    let mut shared: Vec<&[u32]> = slots.iter().filter(|slot| slot.len() > 1).collect();
    if shared.is_empty() {
        shared = slots.iter().filter(|slot| !slot.is_empty()).collect();
    }
    let step = shared.len().div_ceil(SAMPLE).max(1);
    let sample = || shared.iter().step_by(step);
    let places = passing(sample().copied(), rules);
    lanes.third &= !(1 << table);
    if lanes.ports.0[table] & 0xffff != 0 {
        lanes.third |= 1 << table;
    }
    let mut passed: Vec<u32> = sample().map(|_| 1).collect();
    for number in 0..WINDOWS {
        let cost = |passing: &[u32]| {
            let both = passed.iter().zip(passing);
            both.map(|(&passed, &passing)| u64::from(passed * passing)).sum::<u64>()
        };
        let words = word_count::<A>();
        let own = match number {
            0 => 0..words,
            1 => words..2 * words,
            _ => 0..2 * words + 1,
        };
        let best = places
            .iter()
            .filter(|(word, ..)| own.contains(word))
            .min_by_key(|(_, _, passing)| cost(passing));
        let (word, shift, passing) = best.expect("there are words");
        for (passed, &passing) in passed.iter_mut().zip(passing) {
            *passed *= passing;
        }
        lanes.window_word[number].0[table] = *word as u32;
        lanes.window_shift[number].0[table] = *shift;
    }
}
