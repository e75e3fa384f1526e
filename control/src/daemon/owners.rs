//! Rules that ask whose packets of this machine are (`-m owner`), where the kernel does not
//! let the BPF programs see it: they are refused, at the start and later.

use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::policy::matches::Match;
use dataplane::policy::place::PlaceMatch;
use dataplane::port::afxdp::AfxdpError;

use super::error::DaemonError;
use super::policy::Texts;
use super::service::Service;
use crate::apply::{Change, PolicyStore};
use crate::check::mode::plain_matches;
use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Ruleset, Span};

/// Where a policy asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Questions(Vec<(Family, Span)>);

impl Questions {
    /// Those of a change.
    pub(super) fn of(change: &Change) -> Self {
        let families = [&change.v4, &change.v6].into_iter().flatten();
        Self(families.flat_map(|rules| asked(rules).map(|at| (rules.family, at))).collect())
    }

    /// A refusal of each.
    fn findings(&self, why: &str, texts: &Texts) -> Vec<Finding> {
        let finding = |(family, at): &(Family, Span)| {
            let source = match family {
                Family::V4 => texts.v4.as_ref(),
                Family::V6 => texts.v6.as_ref(),
            };
            let file: Arc<str> = source.map_or("", |source| source.name.as_str()).into();
            let message = format!("whose packets of this machine are cannot be seen here: {why}");
            Finding::new(Severity::Error, Code::UnsupportedMatch, &file, *at, message).with_remedy(
                "a kernel with CONFIG_DEBUG_INFO_BTF is needed, not locked for confidentiality, \
                 and CAP_PERFMON for the start; or remove the rule",
            )
        };
        self.0.iter().map(finding).collect()
    }

    /// Why the daemon did not start: as a refusal of these, if it is for their sake.
    pub(super) fn blame(&self, error: DaemonError, texts: &Texts) -> DaemonError {
        match error {
            DaemonError::Ports(AfxdpError::OwnersUntold { why }) => DaemonError::Policy {
                findings: self.findings(&why, texts),
                texts: Box::new(texts.clone()),
            },
            other => other,
        }
    }
}

/// Whether the policy in force asks.
pub(super) fn are_asked(store: &PolicyStore) -> bool {
    let asks = |family| store.read(|view| asked(view.rules(family)).next().is_some());
    asks(Family::V4) || asks(Family::V6)
}

fn asked(rules: &Ruleset) -> impl Iterator<Item = Span> {
    plain_matches(rules, |one| matches!(one, Match::Place(PlaceMatch::Owner(_))))
}

impl Service {
    /// Refuses a change that asks what cannot be told.
    pub(super) fn allow_owners(&self, change: &Change, texts: &Texts) -> Result<(), Vec<Finding>> {
        let Some(why) = self.program().owners_untold() else { return Ok(()) };
        let findings = Questions::of(change).findings(&why, texts);
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }
}
