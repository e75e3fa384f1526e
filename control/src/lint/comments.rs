//! What comments say: whose rules they are, until when, and what they had better not say.

use std::fmt;
use std::sync::Arc;

use dataplane::policy::report::ReportTarget;

use super::Place;
use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Chain, MatchBody, Rule, Ruleset, Span, TargetSpec};

/// A day, in the order of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: i64,
    month: u8,
    day: u8,
}

impl Date {
    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str, len: usize| {
            (text.len() == len && text.bytes().all(|it| it.is_ascii_digit()))
                .then(|| text.parse::<u16>().ok())
                .flatten()
        };
        let mut parts = text.split('-');
        let year = i64::from(digits(parts.next()?, 4)?);
        let month = digits(parts.next()?, 2)? as u8;
        let day = digits(parts.next()?, 2)? as u8;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let there = (1..=12).contains(&month) && (1..=length).contains(&day);
        (parts.next().is_none() && there).then_some(Self { year, month, day })
    }

    /// The day of a time, in seconds since 1970 (UTC).
    pub fn of_unix(seconds: u64) -> Self {
        // The calendar begins in March of year 0, so that leap days are last.
        let days = (seconds / 86_400) as i64 + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let march = (5 * of_year + 2) / 153;
        let day = (of_year - (153 * march + 2) / 5 + 1) as u8;
        let month = if march < 10 { march + 3 } else { march - 9 } as u8;
        Self { year: year + era * 400 + i64::from(month <= 2), month, day }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// The `key=value` words of a rule's comments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata<'r> {
    /// `owner=`.
    pub owner: Option<&'r str>,
    /// `ticket=`.
    pub ticket: Option<&'r str>,
    /// `review=`.
    pub review: Option<&'r str>,
    /// `expires=`.
    pub expires: Option<&'r str>,
    /// Whether the words `exception` or `temporary` are there.
    pub exception: bool,
}

impl<'r> Metadata<'r> {
    /// Of a rule.
    pub fn of(rule: &'r Rule) -> Self {
        let mut found = Self::default();
        for (text, _) in comments(rule) {
            for word in text.split([' ', ',', ';']) {
                let value = |key: &str| {
                    let value = word.strip_prefix(key)?.strip_prefix('=')?;
                    (!value.is_empty()).then_some(value)
                };
                found.owner = found.owner.or(value("owner"));
                found.ticket = found.ticket.or(value("ticket"));
                found.review = found.review.or(value("review"));
                found.expires = found.expires.or(value("expires"));
                let plain = word.trim_matches(|it: char| !it.is_alphanumeric());
                found.exception |=
                    ["exception", "temporary"].iter().any(|it| plain.eq_ignore_ascii_case(it));
            }
        }
        found
    }
}

fn comments(rule: &Rule) -> impl Iterator<Item = (&str, Span)> {
    rule.matches.iter().filter_map(|spec| match &spec.body {
        MatchBody::Comment(text) => Some((text.as_str(), spec.span)),
        _ => None,
    })
}

/// Everything about comments.
pub(super) fn findings(rules: &Ruleset, file: &Arc<str>, today: Option<Date>) -> Vec<Finding> {
    let mut found = Vec::new();
    for place in super::places(rules) {
        ownership(&place, file, today, &mut found);
        purpose(&place, file, &mut found);
        secrets(place.rule, file, &mut found);
    }
    for table in &rules.tables {
        let user = table.chains.iter().filter(|chain| chain.policy.is_none());
        found.extend(user.filter_map(|chain| scope(rules, chain, file)));
    }
    found
}

fn ownership(place: &Place<'_>, file: &Arc<str>, today: Option<Date>, found: &mut Vec<Finding>) {
    let rule = place.rule;
    let Some(span) = comments(rule).next().map(|it| it.1) else { return };
    let said = Metadata::of(rule);
    let mut tell = |code, message: String, remedy: &str| {
        let finding = Finding::new(Severity::Warning, code, file, span, message);
        found.push(finding.with_remedy(remedy));
    };
    if said.exception || said.expires.is_some() {
        if said.owner.is_none() {
            let message = "this exception has no owner".to_owned();
            tell(Code::ExceptionWithoutOwner, message, "add owner=NAME to the comment");
        }
        if said.ticket.is_none() {
            let message = "this exception has no ticket".to_owned();
            tell(Code::ExceptionWithoutTicket, message, "add ticket=ID to the comment");
        }
        if said.review.is_none() && said.expires.is_none() {
            let message = "nothing says when this exception is looked at again".to_owned();
            tell(Code::ExceptionWithoutReview, message, "add review=YYYY-MM-DD to the comment");
        }
    }
    let dates = [
        ("review", said.review, Code::ReviewOverdue, "delete it, or set the next date"),
        ("expires", said.expires, Code::ExceptionExpired, "delete it, or have it renewed"),
    ];
    for (key, value, code, remedy) in dates {
        let Some(value) = value else { continue };
        match (Date::parse(value), today) {
            (None, _) => {
                let message = format!("`{key}={value}' is no date");
                tell(Code::BadDate, message, "write it as YYYY-MM-DD");
            }
            (Some(date), Some(today)) if date < today => {
                let by = said.owner.map(|it| format!(" (owner {it})")).unwrap_or_default();
                tell(code, format!("{key}={value} is past: today is {today}{by}"), remedy);
            }
            _ => {}
        }
    }
}

/// Rules that need no words: what everybody knows.
fn purpose(place: &Place<'_>, file: &Arc<str>, found: &mut Vec<Finding>) {
    if comments(place.rule).next().is_none() {
        let message = "nothing says what this rule is for";
        let finding =
            Finding::new(Severity::Note, Code::MissingPurpose, file, place.rule.span, message);
        found.push(finding.with_remedy("add -m comment --comment \"what it is for owner=NAME\""));
    }
}

fn scope(rules: &Ruleset, chain: &Chain, file: &Arc<str>) -> Option<Finding> {
    let first = chain.rules.first()?;
    let leads = |rule: &Rule| matches!(&rule.target, TargetSpec::Jump(to) | TargetSpec::Goto(to) if *to == chain.name);
    let said = |rule: &Rule| comments(rule).next().is_some();
    let led = super::places(rules).any(|place| leads(place.rule) && said(place.rule));
    if said(first) || led {
        return None;
    }
    let message = format!("nothing says what chain {} is for", chain.name);
    let finding = Finding::new(Severity::Note, Code::MissingScope, file, chain.span, message);
    Some(finding.with_remedy("give the jump to it, or its first rule, a comment"))
}

/// Texts of a rule that listings and logs show.
fn shown(rule: &Rule) -> Vec<(&str, Span)> {
    let mut texts: Vec<(&str, Span)> = comments(rule).collect();
    match &rule.target {
        TargetSpec::Log(log) => texts.push((&log.prefix, rule.target_span)),
        TargetSpec::Report(ReportTarget::Nflog(log)) => texts.push((&log.prefix, rule.target_span)),
        _ => {}
    }
    texts
}

fn secrets(rule: &Rule, file: &Arc<str>, found: &mut Vec<Finding>) {
    for (text, span) in shown(rule) {
        if is_secret(text) {
            // The message does not repeat it.
            let message = "this text looks like a password, token or key";
            let finding = Finding::new(Severity::Error, Code::SecretInComment, file, span, message);
            found.push(finding.with_remedy("take it out, and change the secret"));
        }
        let names = text.split(|it: char| it.is_whitespace() || ",;()[]'\"".contains(it));
        if let Some(name) = names.into_iter().find(|word| is_host(word)) {
            let message = format!("`{name}' is the name of a host");
            let finding = Finding::new(Severity::Note, Code::HostInComment, file, span, message);
            found.push(finding.with_remedy("name the role, not the host"));
        }
    }
}

/// Whether a text looks as if it held a secret.
fn is_secret(text: &str) -> bool {
    const KEYS: [&str; 11] = [
        "password",
        "passwd",
        "pass",
        "pwd",
        "secret",
        "token",
        "psk",
        "apikey",
        "api_key",
        "api-key",
        "private_key",
    ];
    const BEGINNINGS: [&str; 5] = ["AKIA", "ghp_", "glpat-", "xoxb-", "sk_live_"];
    let words = text.split_whitespace();
    let told = |word: &str| {
        let (key, value) = word.split_once(['=', ':']).unwrap_or_default();
        let key = key.to_ascii_lowercase();
        !value.is_empty() && KEYS.iter().any(|it| key == *it || key.ends_with(&format!("_{it}")))
    };
    let token = |word: &str| {
        let value = word.rsplit(['=', ':']).next().unwrap_or(word);
        let safe = |it: char| it.is_ascii_alphanumeric() || "+/_-".contains(it);
        let mixed = value.chars().any(|it| it.is_ascii_digit())
            && value.chars().any(|it| it.is_ascii_lowercase())
            && value.chars().any(|it| it.is_ascii_uppercase());
        value.len() >= 24 && value.chars().all(safe) && mixed
    };
    text.contains("-----BEGIN")
        || words.into_iter().any(|word| {
            told(word) || token(word) || BEGINNINGS.iter().any(|it| word.starts_with(it))
        })
}

/// Whether a word is a host's name: labels with dots, the last of letters; no mail address,
/// and no file.
fn is_host(word: &str) -> bool {
    const FILES: [&str; 9] = ["conf", "rules", "sh", "py", "txt", "md", "d", "service", "save"];
    let word = word.rsplit(['=', '/']).next().unwrap_or(word).trim_end_matches(['.', ':']);
    if word.contains('@') {
        return false;
    }
    let labels: Vec<&str> = word.split('.').collect();
    let label = |it: &&str| {
        !it.is_empty() && it.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let Some(last) = labels.last() else { return false };
    let top =
        last.len() >= 2 && last.chars().all(|it| it.is_ascii_alphabetic()) && !FILES.contains(last);
    labels.len() >= 3 && labels.iter().all(label) && top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let day = |seconds| Date::of_unix(seconds).to_string();
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(951_868_799 + 1), "2000-03-01");
        assert_eq!(day(4_107_542_399), "2100-02-28");
        assert_eq!(day(4_107_542_400), "2100-03-01");
        for bad in ["2030-13-01", "2030-02-29", "30-01-01", "2030-1-1", "2030-01-01-", "+030-01-01"]
        {
            assert_eq!(Date::parse(bad), None, "{bad}");
        }
        assert!(Date::parse("2028-02-29") < Date::parse("2028-03-01"));
    }

    #[test]
    fn secrets_and_hosts_are_told_from_words() {
        for secret in [
            "vpn psk=hunter2",
            "Password: x password:abc",
            "key AKIAIOSFODNN7EXAMPLE",
            "t=dGhpcyBpcyBhIHRva2VuIGZvcg1",
            "db_password=x",
        ] {
            assert!(is_secret(secret), "{secret}");
        }
        for plain in [
            "bypass=no",
            "allow web servers",
            "owner=net ticket=OPS-1234567",
            "pass: all",
            "compass=north",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(!is_secret(plain), "{plain}");
        }
        assert!(is_host("db7.example.internal") && is_host("host=www.example.com"));
        for plain in ["198.51.100.7", "owner=a@b.example.com", "v1.2.3", "rules.v4", "e.g.", "x.y"]
        {
            assert!(!is_host(plain), "{plain}");
        }
    }
}
