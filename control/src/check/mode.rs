//! What a policy asks that the mode of the ports does not allow.

use std::sync::Arc;

use dataplane::fib::Mode;
use dataplane::policy::matches::Match;
use dataplane::policy::place::PlaceMatch;

use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{MatchBody, Ruleset, Span};

/// A refusal of each such rule of `rules`, which is from `file`.
pub fn refusals(rules: &Ruleset, file: &str, mode: &Mode) -> Vec<Finding> {
    if !matches!(mode, Mode::Bridge(_)) {
        return Vec::new();
    }
    let file: Arc<str> = file.into();
    let message = "the physdev match asks for ports of a kernel's bridge, and here is none: in \
                   bridge mode the ports are those of -i and -o";
    let physdev = |one: &Match| matches!(one, Match::Place(PlaceMatch::Physdev(_)));
    let refuse = |at| {
        Finding::new(Severity::Error, Code::UnsupportedMatch, &file, at, message)
            .with_remedy("write -i PORT for --physdev-in, -o PORT for --physdev-out")
    };
    plain_matches(rules, physdev).map(refuse).collect()
}

/// Where matches stand that are written as they are compared.
pub(crate) fn plain_matches(
    rules: &Ruleset,
    wanted: impl Fn(&Match) -> bool,
) -> impl Iterator<Item = Span> {
    let rules = rules.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    rules.flat_map(|rule| &rule.matches).filter_map(move |found| match &found.body {
        MatchBody::Plain(one) if wanted(one) => Some(found.span),
        _ => None,
    })
}
