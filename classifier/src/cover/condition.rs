//! The small fields of a rule (flags, interfaces, states, layer 4 classes),
//! numbered: few combinations occur, and most rules have none.

use crate::fold::FoldMap;
use crate::{Address, ClassSet, Key, Masked, Rule};

/// The number of "always holds".
const ALWAYS: u32 = 0;
/// The number of all that found no number of their own: found by position.
const OVERFLOW: u32 = 0x7fff;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Condition {
    flags: Masked<u8>,
    iif: ClassSet,
    oif: ClassSet,
    state: ClassSet,
    l4: ClassSet,
}

impl Condition {
    fn of<A>(rule: &Rule<A>) -> Self {
        Self { flags: rule.flags, iif: rule.iif, oif: rule.oif, state: rule.state, l4: rule.l4 }
    }
    #[inline]
    fn holds<A>(&self, key: &Key<A>) -> bool {
        self.flags.matches(key.flags)
            & self.iif.matches(key.iif)
            & self.oif.matches(key.oif)
            & self.state.matches(key.state)
            & self.l4.matches(key.l4)
    }
}

/// The conditions of a rule list.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    numbered: Vec<Condition>,
    /// By first position of the rule.
    overflow: Vec<(u32, Condition)>,
}

impl Conditions {
    /// Numbers the conditions of rules that come with their first positions, ascending.
    pub(super) fn number<'r, A: Address>(
        rules: impl Iterator<Item = (u32, &'r Rule<A>)>,
    ) -> (Self, Vec<u32>) {
        let mut all = Self { numbered: vec![Condition::default()], overflow: Vec::new() };
        let mut known = FoldMap::default();
        known.insert(Condition::default(), ALWAYS);
        let numbers = rules.map(|(first, rule)| {
            let condition = Condition::of(rule);
            if let Some(&number) = known.get(&condition) {
                return number;
            }
            let number = all.numbered.len() as u32;
            if number == OVERFLOW {
                all.overflow.push((first, condition));
                return OVERFLOW;
            }
            known.insert(condition, number);
            all.numbered.push(condition);
            number
        });
        let numbers = numbers.collect();
        (all, numbers)
    }
    /// Whether the condition in `small` (of the rule first at `first`) holds.
    #[inline(always)]
    pub(super) fn hold<A>(&self, small: u32, first: u32, key: &Key<A>) -> bool {
        let number = small >> 16 & 0x7fff;
        number == ALWAYS || self.numbered_holds(number, first, key)
    }
    #[inline]
    fn numbered_holds<A>(&self, number: u32, first: u32, key: &Key<A>) -> bool {
        if let Some(condition) = self.numbered.get(number as usize) {
            return condition.holds(key);
        }
        let at = self.overflow.binary_search_by_key(&first, |&(position, _)| position);
        at.is_ok_and(|at| self.overflow[at].1.holds(key))
    }
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.numbered) + size_of_val(&*self.overflow)
    }
}
