//! What is wrong with a policy that loads: rules that cannot be reached, that change nothing, that
//! contradict each other; translations without a way; habits that end in trouble.
//!
//! What is said of packets is worked out over the compiled form, by set algebra
//! ([`crate::region`]): it holds for every packet whose headers are
//! whole. Work is bounded ([`Bounds`]); what was left undecided is counted, never guessed.
//! Each finding's code, usual level, cause, example and remedy stand in [`LINTS`].

mod chains;
mod codes;
mod comments;
#[cfg(test)]
mod findings_tests;
mod habits;
mod hits;
mod marks;
mod modules;
mod order;
mod report;
mod roads;
mod shadow;
#[cfg(test)]
mod tests;
mod unhit;

use crate::model::{Rule, Ruleset};

pub use chains::{Bounds, Survey, survey};
pub use codes::{LINTS, Level, Levels, Lint, named, reference};
pub use comments::{Date, Metadata};
pub use hits::Hits;
pub use marks::{Owner, Use, map as mark_map};
pub use modules::{Module, register};
pub use order::Move;
pub use report::{Input, Report, lint};
pub use shadow::{Doubt, Why};
pub use unhit::{Unhittable, unhittable};

/// A rule where it stands.
struct Place<'m> {
    rule: &'m Rule,
}

/// Every rule of a file.
fn places(rules: &Ruleset) -> impl Iterator<Item = Place<'_>> {
    crate::region::written(rules)
        .flat_map(|(_, chain)| chain.rules.iter().map(|rule| Place { rule }))
}
