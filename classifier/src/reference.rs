//! The oracle: a linear scan that is never optimised.

use crate::{Address, Classifier, Key, Rule};

/// The rule list itself, scanned in order.
#[derive(Clone, Debug, Default)]
pub struct Linear<A> {
    rules: Vec<Rule<A>>,
}

impl<A: Address> Linear<A> {
    /// Keeps the rules in order; position = index.
    pub fn new(rules: Vec<Rule<A>>) -> Self {
        Self { rules }
    }
    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }
    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl<A: Address> Classifier<A> for Linear<A> {
    fn first_at_or_after(&self, key: &Key<A>, from: u32) -> Option<u32> {
        let from = from as usize;
        let tail = self.rules.get(from..)?;
        tail.iter().position(|rule| rule.matches(key)).map(|index| (from + index) as u32)
    }
}
