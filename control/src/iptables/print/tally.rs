//! hashlimit, recent and connlimit in normal form.

use dataplane::packet::Family;
use dataplane::policy::tally::{ConnRule, RecentAction, RecentRule};

use super::{bang, hashlimit, push, quoted};
use crate::iptables::address::format_address;
use crate::model::TallySpec;

pub(super) fn spec(out: &mut String, spec: &TallySpec, family: Family) {
    match spec {
        TallySpec::Recent { name, rule } => recent(out, name, rule, family),
        TallySpec::Hash { name, above, settings } => {
            hashlimit::hashlimit(out, name, *above, settings, family);
        }
        TallySpec::Conn { rule } => connlimit(out, rule),
    }
}

fn recent(out: &mut String, name: &str, rule: &RecentRule, family: Family) {
    let action = match rule.action {
        RecentAction::Set => "--set",
        RecentAction::Check => "--rcheck",
        RecentAction::Update => "--update",
        RecentAction::Remove => "--remove",
    };
    push(out, format_args!(" -m recent {}{action}", bang(rule.negated)));
    if rule.seconds != 0 {
        push(out, format_args!(" --seconds {}", rule.seconds));
    }
    if rule.reap {
        out.push_str(" --reap");
    }
    if rule.hits != 0 {
        push(out, format_args!(" --hitcount {}", rule.hits));
    }
    if rule.same_ttl {
        out.push_str(" --rttl");
    }
    out.push_str(" --name");
    word(out, name);
    let side = if rule.destination { "--rdest" } else { "--rsource" };
    push(out, format_args!(" --mask {} {side}", format_address(rule.mask, family)));
}

fn connlimit(out: &mut String, rule: &ConnRule) {
    let option = if rule.above { "above" } else { "upto" };
    let side = if rule.destination { "daddr" } else { "saddr" };
    let ConnRule { limit, len, .. } = rule;
    push(out, format_args!(" -m connlimit --connlimit-{option} {limit}"));
    push(out, format_args!(" --connlimit-mask {len} --connlimit-{side}"));
}

/// The tools print names as they are; in quotes only what would not be read back.
pub(super) fn word(out: &mut String, text: &str) {
    let bare = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\');
    match text.chars().all(bare) {
        true => push(out, format_args!(" {text}")),
        false => quoted(out, text),
    }
}
