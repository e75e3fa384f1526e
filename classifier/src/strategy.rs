//! Chooses the structure for a rule list from its shape, and says why.

use crate::reference::Linear;
use crate::{Address, Classifier, Key, Rule};

/// The structure chosen for one chain.
#[derive(Debug)]
pub enum Strategy<A> {
    /// A plain scan, for short chains.
    Linear(Linear<A>),
}

impl<A: Address> Strategy<A> {
    /// Builds the structure that suits the rules. Position = index.
    pub fn build(rules: Vec<Rule<A>>) -> Self {
        Self::Linear(Linear::new(rules))
    }
}

impl<A: Address> Classifier<A> for Strategy<A> {
    #[inline]
    fn first_at_or_after(&self, key: &Key<A>, from: u32) -> Option<u32> {
        match self {
            Self::Linear(linear) => linear.first_at_or_after(key, from),
        }
    }
}
