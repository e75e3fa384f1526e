//! Builds cover tables from a rule list.

use super::condition::Conditions;
use super::lanes::{Lanes, tag};
use super::plan::{self, Plan, Sketch, Slots, Style, words_of};
use super::scalar;
use super::sign::{self, Signs};
use super::tail::Tail;
use super::{BLOCK, Block, CoverTables, Entry, Level, MIXED, PRIO_SHIFT, TAG_SHIFT, Table};
use crate::fold::FoldMap;
use crate::{Address, ClassSet, Key, Masked, PortRange, Rule};

/// Rules in one build at most: entries must be able to name their blocks.
pub const MOST_RULES: usize = 1 << 22;
/// Longer lists are laid out in one way only: building takes its time.
const MOST_TRIED: usize = 1 << 15;
/// Keys to compare layouts by.
const SAMPLE: usize = 512;

/// Different rules that can match, by first position, with all their positions.
struct Interned<A> {
    rules: Vec<Rule<A>>,
    /// Where each rule's positions start; one more at the end.
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl<A: Address> Interned<A> {
    fn of(rules: &[Rule<A>]) -> Self {
        let mut known: FoldMap<&Rule<A>, u32> = FoldMap::default();
        known.reserve(rules.len());
        let (mut distinct, mut counts) = (Vec::with_capacity(rules.len()), Vec::new());
        let mut which = Vec::with_capacity(rules.len());
        for rule in rules {
            which.push(if can_match(rule) {
                let number = *known.entry(rule).or_insert_with(|| {
                    distinct.push(*rule);
                    counts.push(0_u32);
                    counts.len() as u32 - 1
                });
                counts[number as usize] += 1;
                Some(number)
            } else {
                None
            });
        }
        let mut starts = vec![0];
        for count in counts {
            starts.push(starts[starts.len() - 1] + count);
        }
        let mut next = starts.clone();
        let mut positions = vec![0; starts[starts.len() - 1] as usize];
        for (position, number) in which.into_iter().enumerate() {
            if let Some(number) = number {
                let slot = &mut next[number as usize];
                positions[*slot as usize] = position as u32;
                *slot += 1;
            }
        }
        Self { rules: distinct, starts, positions }
    }
    fn own(&self, number: u32) -> &[u32] {
        let number = number as usize;
        &self.positions[self.starts[number] as usize..self.starts[number + 1] as usize]
    }
    fn copies(&self) -> Box<[(u32, u32)]> {
        let numbers = 0..self.rules.len() as u32;
        let own = numbers.map(|number| self.own(number));
        own.flat_map(|own| own[1..].iter().map(move |&position| (own[0], position))).collect()
    }
}

/// A rule with an empty range or an empty class set matches no key.
fn can_match<A>(rule: &Rule<A>) -> bool {
    rule.sport.low <= rule.sport.high
        && rule.dport.low <= rule.dport.high
        && [rule.iif, rule.oif, rule.state, rule.l4].iter().all(|set| set.0 != 0)
}

impl<A: Address> CoverTables<A> {
    /// Builds the tables. Position = index in `rules`. The seed salts the hash:
    /// answers do not depend on it, the layout does.
    ///
    /// # Panics
    /// When there are [`MOST_RULES`] rules or more.
    pub fn build(rules: &[Rule<A>], seed: u64) -> Self {
        let ground = Ground::of(rules, seed);
        if rules.len() > MOST_TRIED {
            return ground.lay_out_as(Style::Portions);
        }
        let mut plans: Vec<(Box<Lanes>, Plan<A>)> = Vec::with_capacity(Style::ALL.len());
        for style in Style::ALL {
            let (lanes, plan) = ground.plan(style);
            if !plans.iter().any(|(_, known)| known.is_like(&plan)) {
                plans.push((lanes, plan));
            }
        }
        let keys = sample(&ground.interned.rules, seed);
        let cost = |tables: &Self| keys.iter().map(|key| scalar::cost(tables, key)).sum::<u64>();
        let tried = plans.into_iter().map(|(lanes, plan)| ground.lay_out(lanes, plan));
        let tried = tried.map(|tables| (cost(&tables), tables));
        let (with, mut best) = tried.min_by_key(|(cost, _)| *cost).expect("there are styles");
        best.signed = false;
        best.signed = with < cost(&best);
        best
    }

    /// Like [`CoverTables::build`], but laid out in one way only: for lists that are seldom
    /// looked into.
    ///
    /// # Panics
    /// As there.
    pub fn build_plainly(rules: &[Rule<A>], seed: u64) -> Self {
        Ground::of(rules, seed).lay_out_as(Style::Portions)
    }
}

/// What all layouts of one build share.
struct Ground<A> {
    seed: u64,
    /// Rules given, copies included.
    rules: usize,
    interned: Interned<A>,
    sketch: Sketch<A>,
    conditions: Conditions,
    condition_of: Vec<u32>,
    signs: Signs,
}

impl<A: Address> Ground<A> {
    fn of(rules: &[Rule<A>], seed: u64) -> Self {
        assert!(rules.len() < MOST_RULES, "too many rules for one chain");
        let interned = Interned::of(rules);
        let firsts = (0..interned.rules.len() as u32).map(|number| interned.own(number)[0]);
        let (conditions, condition_of) = Conditions::number(firsts.zip(&interned.rules));
        let signs = Signs::choose(interned.rules.iter());
        let sketch = Sketch::of(&interned.rules);
        Self { seed, rules: rules.len(), interned, sketch, conditions, condition_of, signs }
    }
    fn plan(&self, style: Style) -> (Box<Lanes>, Plan<A>) {
        let mut lanes = Box::new(Lanes::new(self.seed));
        let plan = plan::choose(&mut lanes, &self.sketch, style);
        (lanes, plan)
    }
    fn lay_out_as(&self, style: Style) -> CoverTables<A> {
        let (lanes, plan) = self.plan(style);
        self.lay_out(lanes, plan)
    }
    fn lay_out(&self, mut lanes: Box<Lanes>, plan: Plan<A>) -> CoverTables<A> {
        let interned = &self.interned;
        let slots = plan.tables.iter().map(|(_, slots)| slots.len()).sum();
        let mut made =
            Made { ground: self, entries: Vec::with_capacity(slots), blocks: Vec::new() };
        let tables = plan.tables.iter().enumerate();
        let tables = tables.map(|(table, (_, slots))| made.table(&mut lanes, table, slots));
        let tables = tables.collect();
        let tail = plan.rest.iter().map(|&number| {
            let rule = &interned.rules[number as usize];
            (rule, self.condition_of[number as usize], interned.own(number))
        });
        let tail = Tail::build(tail);
        CoverTables {
            level: Level::detect(),
            tables,
            tail,
            tail_rules: plan.rest.iter().map(|&number| interned.own(number)[0]).collect(),
            signs: Box::new(self.signs.clone()),
            signed: true,
            entries: made.entries.into(),
            blocks: made.blocks.into(),
            lanes,
            conditions: self.conditions.clone(),
            copies: interned.copies(),
            rules: self.rules,
            distinct: interned.rules.len(),
        }
    }
}

/// Keys to compare layouts by: every third is a flood's, with a source and source
/// port of no rule in particular; some of the rules match the others.
fn sample<A: Address>(rules: &[Rule<A>], seed: u64) -> Vec<Key<A>> {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state ^ state >> 29
    };
    let step = rules.len().div_ceil(SAMPLE).max(1);
    let keys = rules.iter().step_by(step).enumerate().map(|(number, rule)| {
        let flood = number % 3 == 2;
        let mut address = |field: Masked<A>| {
            let free = A::from_u128(u128::from(random()) << 64 | u128::from(random()));
            field.value() | (free & !field.mask())
        };
        let src = address(if flood { Masked::default() } else { rule.src });
        let dst = address(rule.dst);
        let mut port = |range: PortRange| {
            let within = random() >> 32;
            range.low + (within % (u64::from(range.high - range.low) + 1)) as u16
        };
        let sport = port(if flood { PortRange::ANY } else { rule.sport });
        let dport = port(if number % 6 == 5 { PortRange::ANY } else { rule.dport });
        let class = |set: ClassSet| set.0 & set.0.wrapping_neg();
        Key {
            src,
            dst,
            sport,
            dport,
            proto: if rule.proto.mask() == 0 { 6 } else { rule.proto.value() },
            flags: rule.flags.value(),
            iif: class(rule.iif),
            oif: class(rule.oif),
            state: class(rule.state),
            l4: class(rule.l4),
        }
    });
    keys.collect()
}

struct Made<'b, A> {
    ground: &'b Ground<A>,
    entries: Vec<Entry>,
    blocks: Vec<Block<A>>,
}

impl<A: Address> Made<'_, A> {
    fn table(&mut self, lanes: &mut Lanes, table: usize, slots: &Slots) -> Table {
        sign::place_windows(lanes, table, slots, &self.ground.interned.rules);
        let mut made = Table {
            rules: 0,
            first: u32::MAX,
            largest_slot: 0,
            largest: self.entries.len() as u32,
        };
        self.blocks.reserve(slots.iter().map(|slot| slot.len().div_ceil(BLOCK)).sum());
        for slot in slots.iter() {
            let size = slot.len() as u32;
            if size > made.largest_slot {
                (made.largest_slot, made.largest) = (size, self.entries.len() as u32);
            }
            made.rules += size;
            let entry = self.entry(lanes, table, slot);
            made.first = made.first.min((entry.meta >> PRIO_SHIFT) as u32);
            self.entries.push(entry);
        }
        made
    }
    fn entry(&mut self, lanes: &Lanes, table: usize, slot: &[u32]) -> Entry {
        let Some(&best) = slot.first() else { return Entry::EMPTY };
        let Ground { interned, condition_of, signs, .. } = self.ground;
        let start = self.blocks.len() as u64;
        let (mut shared, mut sign) = (None, 0);
        for (index, &number) in slot.iter().enumerate() {
            let rule = &interned.rules[number as usize];
            let tag = tag(lanes.hash::<A>(table, &words_of(rule)));
            shared = Some(if shared.is_none_or(|known| known == tag) { tag } else { MIXED });
            sign |= signs.of(lanes, table, rule);
            if index % BLOCK == 0 {
                self.blocks.push(Block::empty());
            }
            let block = self.blocks.last_mut().expect("one was just pushed");
            let condition = condition_of[number as usize];
            block.set(index % BLOCK, rule, condition, interned.own(number));
        }
        let tag = u64::from(shared.unwrap_or(MIXED));
        let first = u64::from(interned.own(best)[0]);
        let more = slot.len().div_ceil(BLOCK) as u64 - 1;
        Entry { meta: first << PRIO_SHIFT | tag << TAG_SHIFT | start << 4 | more, sign }
    }
}
