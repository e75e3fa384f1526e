//! Rules with `expires=` in their comment stop matching at their time.
//!
//! Nothing on the packet's road looks at a clock: a policy is compiled without what has expired,
//! and compiled anew when something expires. A rule that has expired keeps its place, number,
//! counters and identity, and matches nothing.

use super::annotations::annotations;
use super::{Interface, MatchBody, MatchSpec, Rule, Ruleset};

/// The interface of rules that have expired. None can have this name: it is too long.
pub const NEVER: &str = "(this rule has expired)";

/// When a rule expires, in seconds since 1970: `YYYY-MM-DD` (at its beginning) or
/// `YYYY-MM-DDTHH:MMZ`, UTC. `Some(Err)` with what is written, if that is no time.
pub fn expires(rule: &Rule) -> Option<Result<u64, String>> {
    let says =
        |it: &MatchSpec| matches!(&it.body, MatchBody::Comment(text) if text.contains("expires="));
    if !rule.matches.iter().any(says) {
        return None;
    }
    let written = annotations(rule).remove("expires")?;
    Some(parse(&written).ok_or(written))
}

/// A time as comments write it, in seconds since 1970.
pub fn parse(text: &str) -> Option<u64> {
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        17 => format!("{}:00Z", text.strip_suffix('Z')?),
        20 => text.to_owned(),
        _ => return None,
    };
    let time: jiff::Timestamp = whole.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

fn rules(ruleset: &Ruleset) -> impl Iterator<Item = &Rule> {
    ruleset.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules)
}

fn has_expired(rule: &Rule, now_s: u64) -> bool {
    matches!(expires(rule), Some(Ok(time)) if time <= now_s)
}

/// The rules as they are at `now_s`; `None` when none of them has expired.
pub fn in_force(ruleset: &Ruleset, now_s: u64) -> Option<Ruleset> {
    if !rules(ruleset).any(|rule| has_expired(rule, now_s)) {
        return None;
    }
    let mut ruleset = ruleset.clone();
    let chains = ruleset.tables.iter_mut().flat_map(|table| &mut table.chains);
    for rule in chains.flat_map(|chain| &mut chain.rules) {
        if has_expired(rule, now_s) {
            rule.input = Some((Interface { name: NEVER.to_owned(), prefix: false }, false));
        }
    }
    Some(ruleset)
}

/// When the next rule expires after `now_s`.
pub fn next(ruleset: &Ruleset, now_s: u64) -> Option<u64> {
    let times = rules(ruleset).filter_map(|rule| expires(rule)?.ok());
    times.filter(|time| *time > now_s).min()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_are_dates_or_minutes_and_nothing_else() {
        assert_eq!(parse("2026-11-22"), Some(1_795_305_600));
        assert_eq!(parse("2026-11-22T20:40Z"), Some(1_795_380_000));
        assert_eq!(parse("2026-11-22T20:40:05Z"), Some(1_795_380_005));
        for bad in ["", "soon", "2026-13-01", "2026-02-30", "22.11.2026", "2026-11-22T20:40"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
