//! `[[alert]]`: webhooks, each a table of its own.

use std::collections::BTreeSet;

use dataplane::clock::Nanos;
use toml::de::{DeTable, DeValue};

use super::reader::{Reader, Span, nearest};
use super::table::Value;
use crate::alert::{Body, DEFAULT_BODY, EventKind, Thresholds, Webhook};

/// Webhooks at most.
const MOST: usize = 16;
/// What a webhook's table may say.
const WORDS: [&str; 11] = [
    "url",
    "events",
    "body",
    "drop-rate",
    "conntrack-warning",
    "conntrack-critical",
    "hold",
    "expiring",
    "timeout",
    "attempts",
    "queue",
];

/// The webhooks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Webhooks(pub Vec<Webhook>);

impl Value for Webhooks {
    fn shape() -> String {
        "tables [[alert]] with url and events".to_owned()
    }

    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(list) = value.as_array() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        if list.len() > MOST {
            return reader.bad(at, format!("there are more than {MOST} alerts"), "join some");
        }
        let one = |item: &toml::Spanned<DeValue<'_>>, reader: &mut Reader<'_>| {
            let at = reader.span(item.span());
            match item.get_ref().as_table() {
                Some(table) => webhook(table, at, reader),
                None => reader.mismatch(item.get_ref(), at, &Self::shape()),
            }
        };
        // All of them, so that every error is told.
        let all: Vec<Option<Webhook>> = list.iter().map(|item| one(item, reader)).collect();
        all.into_iter().collect::<Option<_>>().map(Self)
    }

    fn written(&self) -> Option<toml::Value> {
        (!self.0.is_empty()).then(|| self.0.iter().map(table_of).collect::<Vec<_>>().into())
    }
}

fn webhook(table: &DeTable<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Webhook> {
    let mut good = true;
    for (key, _) in table.iter().filter(|(key, _)| !WORDS.contains(&&**key.get_ref())) {
        let named = reader.span(key.span());
        let message = format!("an alert has no key `{}`", key.get_ref());
        let remedy = format!("an alert has {}", WORDS.join(", "));
        match nearest(key.get_ref(), WORDS.into_iter()) {
            Some(near) => reader.unknown::<()>(named, message, near),
            None => reader.bad::<()>(named, message, &remedy),
        };
        good = false;
    }
    let url = url(table, at, reader);
    let events = events(table, at, reader);
    let body = body(table, reader);
    let mut number = |word: &str, low: u64, high: u64, default: u64| {
        let found = number(table, word, low, high, default, reader);
        good &= found.is_some();
        found.unwrap_or(default)
    };
    let usual = Thresholds::default();
    let thresholds = Thresholds {
        drop_rate: number("drop-rate", 1, 1_000_000_000, usual.drop_rate as u64) as f64,
        conntrack_warning: number("conntrack-warning", 1, 100, 80) as f64,
        conntrack_critical: number("conntrack-critical", 1, 100, 95) as f64,
        hold: Nanos::from_secs(number("hold", 0, 3600, 10)),
        expiring_s: number("expiring", 1, 8760, 72) * 3600,
    };
    let timeout = Nanos::from_secs(number("timeout", 1, 60, 5));
    let attempts = number("attempts", 1, 100, 8) as u32;
    let queue = number("queue", 1, 1000, 100) as usize;
    let (url, events, body) = (url?, events?, body?);
    good.then_some(Webhook { url, events, body, thresholds, timeout, attempts, queue })
}

fn url(table: &DeTable<'_>, at: Span, reader: &mut Reader<'_>) -> Option<String> {
    let remedy = "write url = \"http://...\" or \"https://...\"";
    let Some(value) = table.get("url") else {
        return reader.bad(at, "an alert is without url".to_owned(), remedy);
    };
    let at = reader.span(value.span());
    let Some(text) = value.get_ref().as_str() else {
        return reader.mismatch(value.get_ref(), at, "url, as a string");
    };
    let parsed: Option<ureq::http::Uri> = text.parse().ok();
    let is_web = |uri: &ureq::http::Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    };
    match parsed.filter(is_web) {
        Some(_) => Some(text.to_owned()),
        None => reader.bad(at, format!("{text:?} is no web address"), remedy),
    }
}

fn events(table: &DeTable<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Vec<EventKind>> {
    let names = || EventKind::ALL.iter().map(|kind| kind.name());
    let remedy = format!("the events are {}", names().collect::<Vec<_>>().join(", "));
    let Some(value) = table.get("events") else {
        return reader.bad(at, "an alert is without events".to_owned(), &remedy);
    };
    let at = reader.span(value.span());
    let Some(list) = value.get_ref().as_array() else {
        return reader.mismatch(value.get_ref(), at, "list of events, as [\"log-loss\"]");
    };
    if list.is_empty() {
        return reader.bad(at, "an alert without events tells nothing".to_owned(), &remedy);
    }
    let mut seen = BTreeSet::new();
    let mut good = true;
    for item in list.iter() {
        let at = reader.span(item.span());
        let Some(word) = item.get_ref().as_str() else {
            good = reader.mismatch::<()>(item.get_ref(), at, "event, as a string").is_some();
            continue;
        };
        let Some(kind) = EventKind::ALL.iter().find(|kind| kind.name() == word) else {
            let message = format!("there is no event `{word}`");
            match nearest(word, names()) {
                Some(near) => reader.unknown::<()>(at, message, near),
                None => reader.bad::<()>(at, message, &remedy),
            };
            good = false;
            continue;
        };
        if !seen.insert(*kind) {
            reader.bad::<()>(at, format!("`{word}` is there twice"), "name it once");
            good = false;
        }
    }
    good.then(|| seen.into_iter().collect())
}

fn body(table: &DeTable<'_>, reader: &mut Reader<'_>) -> Option<Body> {
    let Some(value) = table.get("body") else { return Some(Body::default()) };
    let at = reader.span(value.span());
    let Some(text) = value.get_ref().as_str() else {
        return reader.mismatch(value.get_ref(), at, "template, as a string");
    };
    match Body::parse(text) {
        Ok(body) => Some(body),
        Err(error) => {
            let (line, column) = (error.line, error.column);
            // In a text over several lines the place is known exactly.
            let below = u32::from(reader.begins_below(value.span()));
            let is_within = line > 1 || below > 0;
            let column_there = if is_within { column } else { at.column };
            let at = Span { line: at.line + below + line - 1, column: column_there, len: 1 };
            let message = format!("line {line}, column {column} of the template: {error}");
            let values = "the values are event, key, state, firing, severity, summary, value, \
                          threshold, host, time and timestamp";
            reader.bad(at, message, values)
        }
    }
}

/// A whole number within bounds, or the default.
pub(super) fn number(
    table: &DeTable<'_>,
    word: &str,
    low: u64,
    high: u64,
    default: u64,
    reader: &mut Reader<'_>,
) -> Option<u64> {
    let Some(value) = table.get(word) else { return Some(default) };
    let at = reader.span(value.span());
    let shape = format!("whole number, {low} to {high}");
    let Some(number) = value.get_ref().as_integer() else {
        return reader.mismatch(value.get_ref(), at, &shape);
    };
    let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
    let parsed = parsed.filter(|number| (low..=high).contains(number));
    parsed.or_else(|| {
        let message = format!("{word}: {number} is out of range");
        reader.bad(at, message, &format!("write a {shape}"))
    })
}

fn table_of(webhook: &Webhook) -> toml::Value {
    let Webhook { url, events, body, thresholds, timeout, attempts, queue } = webhook;
    let whole = |number: u64| toml::Value::Integer(number as i64);
    let seconds = |time: Nanos| whole(time.0 / Nanos::SECOND.0);
    let mut table = toml::Table::new();
    let events: Vec<_> = events.iter().map(|kind| toml::Value::from(kind.name())).collect();
    table.insert("url".to_owned(), url.clone().into());
    table.insert("events".to_owned(), events.into());
    if body.source() != DEFAULT_BODY {
        table.insert("body".to_owned(), body.source().into());
    }
    let numbers = [
        ("drop-rate", whole(thresholds.drop_rate as u64)),
        ("conntrack-warning", whole(thresholds.conntrack_warning as u64)),
        ("conntrack-critical", whole(thresholds.conntrack_critical as u64)),
        ("hold", seconds(thresholds.hold)),
        ("expiring", whole(thresholds.expiring_s / 3600)),
        ("timeout", seconds(*timeout)),
        ("attempts", whole(u64::from(*attempts))),
        ("queue", whole(*queue as u64)),
    ];
    table.extend(numbers.map(|(word, value)| (word.to_owned(), value)));
    table.into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read;

    fn findings(text: &str) -> Vec<(u32, u32, String)> {
        let found = read(text, Path::new("p.toml")).unwrap_err();
        found.into_iter().map(|it| (it.line, it.column, it.message)).collect()
    }

    #[test]
    fn good_alerts_are_read_and_written_alike() {
        let text = "[[alert]]\nurl = \"http://192.0.2.1:8080/hook\"\nevents = [\"rollback\", \"log-loss\"]\n\
            [[alert]]\nurl = \"https://alerts.example/x\"\nevents = [\"drop-rate\"]\n\
            body = '''\n{\"text\": {{ summary }}}\n'''\ndrop-rate = 50\nexpiring = 24\nhold = 2\n";
        let layer = read(text, Path::new("p.toml")).unwrap();
        let Webhooks(alerts) = layer.alerts.unwrap().value;
        assert_eq!(alerts.len(), 2);
        assert_eq!(alerts[0].events, [EventKind::LogLoss, EventKind::Rollback]);
        assert_eq!(
            (alerts[1].thresholds.drop_rate, alerts[1].thresholds.expiring_s),
            (50.0, 86_400)
        );
        let written = Webhooks(alerts.clone()).written().unwrap();
        let again = read(&format!("alert = {written}"), Path::new("p.toml")).unwrap();
        assert_eq!(again.alerts.unwrap().value, Webhooks(alerts));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let text = "[[alert]]\nurl = \"ftp://x/\"\nevents = [\"log-los\", 3]\nfoo = 1\n\
            [[alert]]\nevents = []\nhold = 4000\n\
            [[alert]]\nurl = \"http://x/\"\nevents = [\"rollback\", \"rollback\"]\n\
            body = '''\n{\"a\": {{ event }},\n \"b\": {{ evnt }}}'''\n";
        let found = findings(text);
        let wanted = [
            (2, 7, "is no web address"),
            (3, 11, "no event `log-los`"),
            (3, 22, "expected event"),
            (4, 1, "no key `foo`"),
            (5, 1, "without url"),
            (6, 10, "tells nothing"),
            (7, 8, "out of range"),
            (10, 23, "twice"),
            (13, 10, "line 2, column 10 of the template: `evnt` is undefined"),
        ];
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for ((line, column, message), wanted) in found.iter().zip(wanted) {
            assert!(message.contains(wanted.2), "{message} {wanted:?}");
            assert_eq!((*line, *column), (wanted.0, wanted.1), "{message}");
        }
    }
}
