//! Marks: which rules set which bits, and which ask for them.

use std::sync::Arc;

use dataplane::policy::matches::Match;
use dataplane::policy::target::{ConnmarkTarget, ZoneId};
use serde::Serialize;

use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{MatchBody, MetaSpec, Rule, Ruleset, Span, TargetSpec};

/// Whose mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The packet's.
    Packet,
    /// The connection's.
    Connection,
}

/// One rule that has to do with a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Use {
    /// Whose mark.
    pub mark: Owner,
    /// Bits that it sets.
    pub sets: u32,
    /// Bits that it asks for.
    pub asks: u32,
    /// The values of these bits, where they are in the rule.
    pub value: u32,
    /// The rule's line.
    pub line: u32,
    #[serde(skip)]
    span: Span,
}

fn uses(rule: &Rule) -> Vec<Use> {
    let mut found = Vec::new();
    let mut add = |mark, sets, asks, value, span: Span| {
        found.push(Use { mark, sets, asks, value, line: span.line, span });
    };
    use Owner::{Connection, Packet};
    for spec in &rule.matches {
        match &spec.body {
            MatchBody::Plain(Match::Mark(it)) => add(Packet, 0, it.value.1, it.value.0, spec.span),
            MatchBody::Plain(Match::Connmark(it)) => {
                add(Connection, 0, it.value.1, it.value.0, spec.span);
            }
            _ => {}
        }
    }
    let span = rule.target_span;
    match &rule.target {
        TargetSpec::Mark(it) => add(Packet, it.toggle, 0, it.toggle, span),
        TargetSpec::Connmark(ConnmarkTarget::Set { toggle, .. }) => {
            add(Connection, *toggle, 0, *toggle, span);
        }
        TargetSpec::Connmark(ConnmarkTarget::Save { nfmask, ctmask }) => {
            add(Packet, 0, *nfmask, 0, span);
            add(Connection, *ctmask, 0, 0, span);
        }
        TargetSpec::Connmark(ConnmarkTarget::Restore { nfmask, ctmask }) => {
            add(Connection, 0, *ctmask, 0, span);
            add(Packet, *nfmask, 0, 0, span);
        }
        TargetSpec::Meta(MetaSpec::Hmark(_)) => add(Packet, u32::MAX, 0, 0, span),
        TargetSpec::Set(it) if it.map.is_some_and(|map| map.mark) => {
            add(Packet, u32::MAX, 0, 0, span);
        }
        TargetSpec::Ct(it) if matches!(it.zone, Some((_, ZoneId::Mark))) => {
            add(Packet, 0, 0xffff, 0, span);
        }
        _ => {}
    }
    found
}

/// Every rule that has to do with marks, in file order.
pub fn map(rules: &Ruleset) -> Vec<Use> {
    let mut all: Vec<Use> = super::places(rules).flat_map(|place| uses(place.rule)).collect();
    all.sort_by_key(|it| it.line);
    all
}

/// What is set in vain, and what is asked for in vain.
pub(super) fn findings(rules: &Ruleset, file: &Arc<str>) -> Vec<Finding> {
    let all = map(rules);
    let mut found = Vec::new();
    for mark in [Owner::Packet, Owner::Connection] {
        let mine = || all.iter().filter(move |it| it.mark == mark);
        let (set, asked) = mine().fold((0, 0), |(set, asked), it| (set | it.sets, asked | it.asks));
        let whose = match mark {
            Owner::Packet => "mark",
            Owner::Connection => "connection mark",
        };
        // What is copied whole, or made of a hash, is not meant bit by bit.
        let plain = |it: &&Use| it.value != 0;
        for one in mine().filter(plain) {
            let (unread, unset) = (one.sets & !asked, one.value & one.asks & !set);
            if one.sets != 0 && one.sets == unread {
                let message =
                    format!("no rule of this file asks for bits {unread:#x} of the {whose}");
                let finding =
                    Finding::new(Severity::Note, Code::MarkNeverRead, file, one.span, message);
                found.push(finding.with_remedy(
                    "delete the rule, unless something outside asks for it, as `ip rule fwmark' does",
                ));
            }
            if unset != 0 {
                let message = format!("no rule of this file sets bits {unset:#x} of the {whose}");
                let finding =
                    Finding::new(Severity::Warning, Code::MarkNeverSet, file, one.span, message);
                found.push(finding.with_remedy("set the mark, or delete the match"));
            }
        }
    }
    found
}
