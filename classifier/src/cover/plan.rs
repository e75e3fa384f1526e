//! Chooses the covers: greedily, the one that places most rules in small
//! slots, until few rules are left or the tables are used up.

use std::collections::HashMap;

use super::lanes::{LANES, Lanes, Words, word_count, words};
use crate::ladder::ladder;
use crate::{Address, PortRange, Rule};

/// Few enough to compare rather than to hash.
const COMPARED: usize = 16;
/// Rules in a slot at most; more once tables run short.
const SLOTS: [u8; 2] = [8, 16];
/// Masks tried per address and round.
const LADDER: usize = 9;

/// How covers are looked for; which way is best differs between rule lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Among masks that part the rules into equal portions.
    Portions,
    /// The same, and exact ports that are not hashed count against a cover.
    Ports,
    /// Among prefixes of round lengths.
    Lengths,
}

impl Style {
    pub(super) const ALL: [Self; 3] = [Self::Portions, Self::Ports, Self::Lengths];
}

/// Which bits a table hashes. A rule may stand in it only if it fixes them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Cover<A> {
    pub(super) src: A,
    pub(super) dst: A,
    /// Source port in the upper half; exact ports only.
    pub(super) ports: u32,
}

impl<A: Address> Cover<A> {
    /// All that a rule fixes.
    pub(super) fn of(rule: &Rule<A>) -> Self {
        let exact = |range: PortRange| if range.low == range.high { 0xffff } else { 0 };
        let ports = exact(rule.sport) << 16 | exact(rule.dport);
        Self { src: rule.src.mask(), dst: rule.dst.mask(), ports }
    }
    /// Whether a rule that fixes `finest` may stand in this table.
    pub(super) fn admits(&self, finest: &Self) -> bool {
        self.src & finest.src == self.src
            && self.dst & finest.dst == self.dst
            && self.ports & finest.ports == self.ports
    }
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
    fn default() -> Self {
        Self { src: A::default(), dst: A::default(), ports: 0 }
    }
}

/// Where each rule goes.
pub(super) struct Plan<A> {
    /// For each table its cover and the rules of every slot, in order of position.
    pub(super) tables: Vec<(Cover<A>, Vec<Vec<u32>>)>,
    pub(super) rest: Vec<u32>,
}

/// Distributes the rules numbered in `left`, which are in order of position, and
/// enters masks, shifts and bases into the lanes.
pub(super) fn choose<A: Address>(
    lanes: &mut Lanes,
    rules: &[Rule<A>],
    left: Vec<u32>,
    style: Style,
) -> Plan<A> {
    let seed = u64::from(lanes.salt.0[0]) << 32 | u64::from(lanes.last_factor.0[0]);
    let mut base = 0;
    let mut plan = Plan { tables: Vec::new(), rest: left };
    let finest: Vec<Cover<A>> = rules.iter().map(Cover::of).collect();
    let mut census = Census { seed: seed | 1, style, rules, finest: &finest, counts: Vec::new() };
    let mut limit = 0;
    while plan.tables.len() < LANES && plan.rest.len() > COMPARED {
        // The last tables take what they can.
        if plan.tables.len() >= LANES - 4 {
            limit = SLOTS.len() - 1;
        }
        let Some(cover) = census.best(&plan.rest, SLOTS[limit]) else {
            limit += 1;
            if limit == SLOTS.len() {
                break;
            }
            continue;
        };
        let table = plan.tables.len();
        enter(lanes, table, &cover);
        let (slots, rest) = census.split(lanes, table, &cover, &plan.rest, SLOTS[limit]);
        lanes.base.0[table] = base;
        base += slots.len() as u32;
        plan.tables.push((cover, slots));
        plan.rest = rest;
    }
    plan
}

/// Counts rules by slot.
struct Census<'r, A> {
    seed: u64,
    style: Style,
    rules: &'r [Rule<A>],
    finest: &'r [Cover<A>],
    counts: Vec<u8>,
}

impl<A: Address> Census<'_, A> {
    /// The cover that places most; `None` when none places enough to earn its probe.
    fn best(&mut self, left: &[u32], limit: u8) -> Option<Cover<A>> {
        let mut groups: HashMap<Cover<A>, usize> = HashMap::new();
        for &rule in left {
            *groups.entry(self.finest[rule as usize]).or_default() += 1;
        }
        let groups: Vec<(Cover<A>, usize)> = groups.into_iter().collect();
        let mut tried: Vec<(usize, Cover<A>)> = candidates(&groups, self.style)
            .into_iter()
            .map(|cover| {
                let admitted = groups.iter().filter(|(finest, _)| cover.admits(finest));
                (admitted.map(|(_, count)| count).sum(), cover)
            })
            .collect();
        tried.sort_unstable_by_key(|&(admitted, cover)| (std::cmp::Reverse(admitted), cover));
        let mut best = (0, None);
        for (admitted, cover) in tried {
            if (admitted as u64) * WORTH[0] <= best.0 {
                break;
            }
            let worth = self.worth(&cover, left, limit);
            if worth > best.0 {
                best = (worth, Some(cover));
            }
        }
        let worthwhile = (left.len() / 32).max(COMPARED / 2) as u64;
        best.1.filter(|_| best.0 >= worthwhile * WORTH[2])
    }
    fn clear(&mut self, rules: usize) -> u32 {
        // Eight slots a rule: chance collisions hardly disturb the count.
        let bits = (rules * 8).next_power_of_two().ilog2().clamp(6, 20);
        self.counts.clear();
        self.counts.resize(1 << bits, 0);
        64 - bits
    }
    #[inline]
    fn hash(&self, cover: &Cover<A>, rule: u32) -> u64 {
        let rule = &self.rules[rule as usize];
        let (src, dst) = (words(rule.src.value() & cover.src), words(rule.dst.value() & cover.dst));
        let ports = u32::from(rule.sport.low) << 16 | u32::from(rule.dport.low);
        let mut hash = u64::from(ports & cover.ports) ^ self.seed;
        for word in 0..word_count::<A>() {
            hash = (hash ^ u64::from(src[word]) ^ u64::from(dst[word]) << 32)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        hash.wrapping_mul(0x94d0_49bb_1331_11eb)
    }
    /// What a table of this cover is worth: rules early in their slot more than late ones.
    fn worth(&mut self, cover: &Cover<A>, left: &[u32], limit: u8) -> u64 {
        let shift = self.clear(left.len());
        let ports = if self.style == Style::Ports { u32::MAX } else { 0 };
        let mut worth = 0;
        for &rule in left {
            if cover.admits(&self.finest[rule as usize]) {
                let slot = (self.hash(cover, rule) >> shift) as usize;
                let count = self.counts[slot];
                if count < limit {
                    let lost = self.finest[rule as usize].ports & !cover.ports & ports;
                    let portless = if lost == 0 { 0 } else { UNHASHED_PORT };
                    worth += WORTH[usize::from(count / 2).min(2)] - portless;
                    self.counts[slot] = count + 1;
                }
            }
        }
        worth
    }
    /// The slots of the table with the rules that fit, and the rest.
    fn split(
        &self,
        lanes: &mut Lanes,
        table: usize,
        cover: &Cover<A>,
        left: &[u32],
        limit: u8,
    ) -> (Vec<Vec<u32>>, Vec<u32>) {
        let admitted = |rule: u32| cover.admits(&self.finest[rule as usize]);
        let count = left.iter().filter(|&&rule| admitted(rule)).count();
        let bits = (count * 2).next_power_of_two().ilog2().max(4);
        lanes.shift.0[table] = 32 - bits;
        let mut slots = vec![Vec::new(); 1 << bits];
        let mut rest = Vec::new();
        for &number in left {
            if admitted(number) {
                let rule = &self.rules[number as usize];
                let hash = lanes.hash::<A>(table, &words_of(rule));
                let slot: &mut Vec<u32> = &mut slots[(hash >> (32 - bits)) as usize];
                if slot.len() < usize::from(limit) {
                    slot.push(number);
                    continue;
                }
            }
            rest.push(number);
        }
        (slots, rest)
    }
}

/// What a rule fixes, as a key of its own.
pub(super) fn words_of<A: Address>(rule: &Rule<A>) -> Words {
    Words::new(rule.src.value(), rule.dst.value(), rule.sport.low, rule.dport.low)
}

fn enter<A: Address>(lanes: &mut Lanes, table: usize, cover: &Cover<A>) {
    for (side, mask) in [cover.src, cover.dst].into_iter().enumerate() {
        for (word, mask) in words(mask).into_iter().enumerate() {
            lanes.masks[side][word].0[table] = mask;
        }
    }
    lanes.ports.0[table] = cover.ports;
}

/// The worth of the first two rules of a slot, the next two, and the others.
const WORTH: [u64; 3] = [16, 14, 10];
/// What a rule loses whose exact port is not hashed.
const UNHASHED_PORT: u64 = 4;

/// Every combination of a few masks per field, but "no bits at all".
fn candidates<A: Address>(groups: &[(Cover<A>, usize)], style: Style) -> Vec<Cover<A>> {
    let masks = |field: fn(&Cover<A>) -> A| match style {
        Style::Lengths => lengths(groups, field),
        _ => {
            let masks = groups.iter().map(|(cover, count)| (field(cover), *count));
            ladder(masks, |mask| mask.to_u128().count_ones(), LADDER)
        }
    };
    let (sources, destinations) = (masks(|cover| cover.src), masks(|cover| cover.dst));
    let mut ports: Vec<u32> = groups.iter().map(|(cover, _)| cover.ports).collect();
    ports.extend([0, 0xffff, 0xffff_0000]);
    ports.sort_unstable();
    ports.dedup();
    let mut covers = Vec::new();
    for &src in &sources {
        for &dst in &destinations {
            covers.extend(ports.iter().map(|&ports| Cover { src, dst, ports }));
        }
    }
    covers.retain(|cover| !cover.is_empty());
    covers
}

/// Prefixes of round lengths behind what nearly all masks share.
fn lengths<A: Address>(groups: &[(Cover<A>, usize)], field: impl Fn(&Cover<A>) -> A) -> Vec<A> {
    let fixed = groups.iter().map(|(cover, _)| field(cover)).filter(|&mask| mask != A::default());
    let shared = fixed.reduce(|a, b| a & b).unwrap_or_default().to_u128();
    let top = (shared << (128 - A::BITS)).leading_ones();
    let mut picked = vec![A::default(), A::from_u128(shared)];
    for eighths in [2, 4, 5, 6, 7, 8] {
        // Of the first 32 bits, or of what an IPv6 network usually fixes.
        let len = eighths * if A::BITS == 32 { 4 } else { 8 };
        let len = len.max(top).min(A::BITS);
        let ones = u128::MAX.checked_shl(128 - len).unwrap_or(0) >> (128 - A::BITS);
        picked.push(A::from_u128(ones));
    }
    picked.push(A::from_u128(u128::MAX >> (128 - A::BITS)));
    picked.sort_unstable();
    picked.dedup();
    picked
}
