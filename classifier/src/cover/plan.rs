//! Chooses the covers: greedily, the one that places most rules in small
//! slots, until few rules are left or the tables are used up.

use super::lanes::{LANES, Lanes, Words, word_count, words};
use crate::fold::FoldMap;
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

/// Slots of one table with their rules, in order of position.
pub(super) struct Slots {
    /// Where each slot's rules start; one more at the end.
    starts: Vec<u32>,
    rules: Vec<u32>,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }
    /// Every slot's rules.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u32]> + Clone {
        self.starts.windows(2).map(|ends| &self.rules[ends[0] as usize..ends[1] as usize])
    }
}

/// Where each rule goes.
pub(super) struct Plan<A> {
    /// For each table its cover and its slots.
    pub(super) tables: Vec<(Cover<A>, Slots)>,
    pub(super) rest: Vec<u32>,
}

impl<A: Address> Plan<A> {
    /// Whether both came to the same tables; under one seed, all else is the same then.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let covers = |plan: &Self| plan.tables.iter().map(|(cover, _)| *cover).collect::<Vec<_>>();
        self.rest == other.rest && covers(self) == covers(other)
    }
}

/// What planning looks at of the rules, close together.
pub(super) struct Sketch<A> {
    rules: Vec<Fixed<A>>,
    /// The different finest covers, by number.
    groups: Vec<Cover<A>>,
}

/// What one rule fixes, and the number of its finest cover.
#[derive(Clone, Copy)]
struct Fixed<A> {
    src: A,
    dst: A,
    /// Lowest ports, the source's in the upper half.
    ports: u32,
    group: u32,
}

impl<A: Address> Sketch<A> {
    pub(super) fn of(rules: &[Rule<A>]) -> Self {
        let mut groups = Vec::new();
        let mut known: FoldMap<Cover<A>, u32> = FoldMap::default();
        let rules = rules.iter().map(|rule| {
            let cover = Cover::of(rule);
            let group = *known.entry(cover).or_insert_with(|| {
                groups.push(cover);
                groups.len() as u32 - 1
            });
            let ports = u32::from(rule.sport.low) << 16 | u32::from(rule.dport.low);
            Fixed { src: rule.src.value(), dst: rule.dst.value(), ports, group }
        });
        let rules = rules.collect();
        Self { rules, groups }
    }
}

/// Distributes all rules and enters masks, shifts and bases into the lanes.
pub(super) fn choose<A: Address>(lanes: &mut Lanes, sketch: &Sketch<A>, style: Style) -> Plan<A> {
    let seed = u64::from(lanes.salt.0[0]) << 32 | u64::from(lanes.last_factor.0[0]);
    let mut base = 0;
    let mut plan = Plan { tables: Vec::new(), rest: (0..sketch.rules.len() as u32).collect() };
    let mut census = Census { seed: seed | 1, style, sketch, counts: Vec::new() };
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
    sketch: &'r Sketch<A>,
    counts: Vec<u8>,
}

impl<A: Address> Census<'_, A> {
    /// The cover that places most; `None` when none places enough to earn its probe.
    fn best(&mut self, left: &[u32], limit: u8) -> Option<Cover<A>> {
        let mut counts = vec![0; self.sketch.groups.len()];
        for &rule in left {
            counts[self.sketch.rules[rule as usize].group as usize] += 1;
        }
        let groups = self.sketch.groups.iter().copied().zip(counts);
        let groups: Vec<(Cover<A>, usize)> = groups.filter(|&(_, count)| count > 0).collect();
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
            let worth = self.worth(&cover, left, limit, best.0);
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
    fn hash(&self, cover: &Cover<A>, rule: &Fixed<A>) -> u64 {
        let (src, dst) = (words(rule.src & cover.src), words(rule.dst & cover.dst));
        let mut hash = u64::from(rule.ports & cover.ports) ^ self.seed;
        for word in 0..word_count::<A>() {
            hash = (hash ^ u64::from(src[word]) ^ u64::from(dst[word]) << 32)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        hash.wrapping_mul(0x94d0_49bb_1331_11eb)
    }
    /// What a table of this cover is worth: rules early in their slot more than late ones.
    /// Gives up, at less than that, once it cannot be worth more than `beaten`.
    fn worth(&mut self, cover: &Cover<A>, left: &[u32], limit: u8, beaten: u64) -> u64 {
        /// Rules between two looks at whether it still can.
        const STRETCH: usize = 1024;
        let shift = self.clear(left.len());
        let ports = if self.style == Style::Ports { u32::MAX } else { 0 };
        // Of each group: whether it is admitted, and what it loses.
        let of_group = |finest: &Cover<A>| {
            let lost = finest.ports & !cover.ports & ports;
            cover.admits(finest).then_some(if lost == 0 { 0 } else { UNHASHED_PORT })
        };
        let groups: Vec<Option<u64>> = self.sketch.groups.iter().map(of_group).collect();
        let (mut worth, mut ahead) = (0, left.len());
        for stretch in left.chunks(STRETCH) {
            if worth + ahead as u64 * WORTH[0] <= beaten {
                return 0;
            }
            ahead -= stretch.len();
            for &rule in stretch {
                let rule = &self.sketch.rules[rule as usize];
                let Some(portless) = groups[rule.group as usize] else { continue };
                let slot = (self.hash(cover, rule) >> shift) as usize;
                let count = self.counts[slot];
                if count < limit {
                    worth += WORTH[usize::from(count / 2).min(2)] - portless;
                    self.counts[slot] = count + 1;
                }
            }
        }
        worth
    }
    /// The slots of the table with the rules that fit, and the rest.
    fn split(
        &mut self,
        lanes: &mut Lanes,
        table: usize,
        cover: &Cover<A>,
        left: &[u32],
        limit: u8,
    ) -> (Slots, Vec<u32>) {
        let Sketch { rules, groups } = self.sketch;
        let admitted: Vec<bool> = groups.iter().map(|finest| cover.admits(finest)).collect();
        let admitted = |rule: u32| admitted[rules[rule as usize].group as usize];
        let count = left.iter().filter(|&&rule| admitted(rule)).count();
        let bits = (count * 2).next_power_of_two().ilog2().max(4);
        lanes.shift.0[table] = 32 - bits;
        self.counts.clear();
        self.counts.resize(1 << bits, 0);
        let (mut placed, mut rest) = (Vec::with_capacity(count), Vec::new());
        for &number in left {
            if admitted(number) {
                let rule = &rules[number as usize];
                let words =
                    Words::new(rule.src, rule.dst, (rule.ports >> 16) as u16, rule.ports as u16);
                let slot = lanes.hash::<A>(table, &words) >> (32 - bits);
                let count = &mut self.counts[slot as usize];
                if *count < limit {
                    *count += 1;
                    placed.push((slot, number));
                    continue;
                }
            }
            rest.push(number);
        }
        (self.lay_out(&placed), rest)
    }
    /// Slots of what was counted.
    fn lay_out(&self, placed: &[(u32, u32)]) -> Slots {
        let mut starts = Vec::with_capacity(self.counts.len() + 1);
        let mut start = 0;
        starts.push(start);
        starts.extend(self.counts.iter().map(|&count| {
            start += u32::from(count);
            start
        }));
        let mut next = starts.clone();
        let mut rules = vec![0; placed.len()];
        for &(slot, number) in placed {
            let at = &mut next[slot as usize];
            rules[*at as usize] = number;
            *at += 1;
        }
        Slots { starts, rules }
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
