//! Which rule matches this key first?
//!
//! The crate owns the static side of classification: the [`Key`] drawn from a
//! packet, the [`Rule`] drawn from a policy, and the structures that answer
//! "the first rule at or after position p that matches this key". It knows
//! nothing of packets, chains, names or I/O.
//!
//! Entry points: [`Classifier`] (the question), [`reference::Linear`] (the
//! oracle, never optimised), [`cover::CoverTables`] (a few hash tables, all looked
//! into at once), [`tuple_space::TupleSpace`] (one after the other, for what does
//! not suit those), and [`strategy::Strategy`] (which one, and why).

pub mod cover;
pub mod field;
mod fold;
pub mod key;
mod ladder;
pub mod reference;
pub mod rule;
pub mod strategy;
pub mod tuple_space;

pub use field::{Address, ClassSet, Masked, PortRange};
pub use key::Key;
pub use rule::Rule;

/// What batches of questions say where no rule matches: greater than every position.
pub const NONE: u32 = u32::MAX;

/// The question every structure in this crate answers.
///
/// Positions are indices into the rule list that the structure was built from;
/// lower positions win. A classifier is immutable once built.
pub trait Classifier<A: Address> {
    /// The lowest position `>= from` whose rule matches `key`, or `None`.
    fn first_at_or_after(&self, key: &Key<A>, from: u32) -> Option<u32>;
}
