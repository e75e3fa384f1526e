//! `[[pressure]]`: profiles, each a table of its own.

use std::path::PathBuf;

use dataplane::clock::Nanos;
use toml::de::{DeTable, DeValue};

use super::alerts::number;
use super::reader::{Reader, Span, nearest};
use super::table::Value;
use crate::pressure::{Condition, Gauge, Profile, TIMEOUTS};

/// Profiles at most.
const MOST: usize = 16;
/// What a profile's table may say.
const WORDS: [&str; 8] =
    ["name", "enter", "leave", "hold", "release", "timeouts", "rules", "rules6"];

/// The profiles.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiles(pub Vec<Profile>);

impl Value for Profiles {
    fn shape() -> String {
        "tables [[pressure]] with name and enter".to_owned()
    }

    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(list) = value.as_array() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        if list.len() > MOST {
            return reader.bad(at, format!("there are more than {MOST} profiles"), "join some");
        }
        let mut names: Vec<String> = Vec::new();
        let mut one = |item: &toml::Spanned<DeValue<'_>>| {
            let at = reader.span(item.span());
            let Some(table) = item.get_ref().as_table() else {
                return reader.mismatch(item.get_ref(), at, &Self::shape());
            };
            let profile = profile(table, at, reader)?;
            if names.contains(&profile.name) {
                let message = format!("there are two profiles {}", profile.name);
                return reader.bad(at, message, "rename one");
            }
            names.push(profile.name.clone());
            Some(profile)
        };
        // All of them, so that every error is told.
        let all: Vec<Option<Profile>> = list.iter().map(&mut one).collect();
        all.into_iter().collect::<Option<_>>().map(Self)
    }

    fn written(&self) -> Option<toml::Value> {
        (!self.0.is_empty()).then(|| self.0.iter().map(table_of).collect::<Vec<_>>().into())
    }
}

fn profile(table: &DeTable<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Profile> {
    let mut good = true;
    for (key, _) in table.iter().filter(|(key, _)| !WORDS.contains(&&**key.get_ref())) {
        let named = reader.span(key.span());
        let message = format!("a profile has no key `{}`", key.get_ref());
        match nearest(key.get_ref(), WORDS.into_iter()) {
            Some(near) => reader.unknown::<()>(named, message, near),
            None => {
                reader.bad::<()>(named, message, &format!("a profile has {}", WORDS.join(", ")))
            }
        };
        good = false;
    }
    let name = name(table, at, reader);
    let when = conditions(table, at, reader);
    let hold = number(table, "hold", 0, 3600, 2, reader);
    let release = number(table, "release", 0, 86_400, 60, reader);
    let timeouts = timeouts(table, reader);
    let rules = path(table, "rules", reader);
    let rules6 = path(table, "rules6", reader);
    let (timeouts, rules, rules6) = (timeouts?, rules?, rules6?);
    if timeouts.is_empty() && rules.is_none() && rules6.is_none() {
        let remedy = "write timeouts, rules or rules6";
        return reader.bad(at, "a profile that does nothing".to_owned(), remedy);
    }
    let (hold, release) = (Nanos::from_secs(hold?), Nanos::from_secs(release?));
    let (name, when) = (name?, when?);
    good.then_some(Profile { name, when, hold, release, timeouts, rules, rules6 })
}

fn name(table: &DeTable<'_>, at: Span, reader: &mut Reader<'_>) -> Option<String> {
    let remedy = "write name = \"siege\"";
    let Some(value) = table.get("name") else {
        return reader.bad(at, "a profile is without name".to_owned(), remedy);
    };
    let at = reader.span(value.span());
    let Some(text) = value.get_ref().as_str() else {
        return reader.mismatch(value.get_ref(), at, "name, as a string");
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match (1..=32).contains(&text.len()) && text.chars().all(plain) {
        true => Some(text.to_owned()),
        false => {
            reader.bad(at, format!("{text:?} is no name"), "letters, digits, - and _, at most 32")
        }
    }
}

fn levels(
    table: &DeTable<'_>,
    word: &str,
    reader: &mut Reader<'_>,
) -> Option<Vec<(Gauge, u64, Span)>> {
    let Some(value) = table.get(word) else { return Some(Vec::new()) };
    let at = reader.span(value.span());
    let shape = "table, as { conntrack = 80, new-flows = 20000, cpu = 90, drops = 50000 }";
    let Some(levels) = value.get_ref().as_table() else {
        return reader.mismatch(value.get_ref(), at, shape);
    };
    let mut found = Vec::new();
    for (key, _) in levels.iter() {
        let named = reader.span(key.span());
        let Some(gauge) = Gauge::ALL.into_iter().find(|it| it.name() == &**key.get_ref()) else {
            let message = format!("`{}` is not measured", key.get_ref());
            return reader.bad(named, message, "conntrack, new-flows, cpu and drops are");
        };
        let most = match gauge {
            Gauge::Conntrack | Gauge::Cpu => 100,
            Gauge::NewFlows | Gauge::Drops => 1_000_000_000,
        };
        found.push((gauge, number(levels, gauge.name(), 1, most, 1, reader)?, named));
    }
    Some(found)
}

fn conditions(table: &DeTable<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Vec<Condition>> {
    let (enter, leave) = (levels(table, "enter", reader)?, levels(table, "leave", reader)?);
    if enter.is_empty() {
        let remedy = "write enter = { conntrack = 80 }";
        return reader.bad(at, "a profile that nothing enters".to_owned(), remedy);
    }
    if let Some((gauge, _, at)) =
        leave.iter().find(|(gauge, ..)| !enter.iter().any(|it| it.0 == *gauge))
    {
        let message = format!("{} is left, and never entered", gauge.name());
        return reader.bad(*at, message, "write it in enter, too");
    }
    let mut conditions = Vec::new();
    for (gauge, level, _) in enter {
        let left = leave.iter().find(|it| it.0 == gauge);
        if let Some((_, low, at)) = left
            && *low > level
        {
            let message = format!("{} is left at {low}, above {level}", gauge.name());
            return reader.bad(*at, message, "leave below the level to enter");
        }
        let (enter, usual) = (level as f64, level as f64 * 0.75);
        conditions.push(Condition { gauge, enter, leave: left.map_or(usual, |it| it.1 as f64) });
    }
    Some(conditions)
}

fn timeouts(table: &DeTable<'_>, reader: &mut Reader<'_>) -> Option<Vec<(String, u64)>> {
    let Some(value) = table.get("timeouts") else { return Some(Vec::new()) };
    let at = reader.span(value.span());
    let Some(timeouts) = value.get_ref().as_table() else {
        return reader.mismatch(value.get_ref(), at, "table, as { udp_timeout = 10 }");
    };
    let mut found = Vec::new();
    for (key, _) in timeouts.iter() {
        let (named, word) = (reader.span(key.span()), key.get_ref().to_string());
        if !TIMEOUTS.contains(&word.as_str()) {
            let message = format!("`{word}` cannot be shortened under pressure");
            let remedy = format!("what established flows do not need can: {}", TIMEOUTS.join(", "));
            return reader.bad(named, message, &remedy);
        }
        let seconds = number(timeouts, &word, 1, 86_400, 1, reader)?;
        found.push((word, seconds));
    }
    Some(found)
}

fn path(table: &DeTable<'_>, word: &str, reader: &mut Reader<'_>) -> Option<Option<PathBuf>> {
    let Some(value) = table.get(word) else { return Some(None) };
    let at = reader.span(value.span());
    PathBuf::read(value.get_ref(), at, reader).map(Some)
}

fn table_of(profile: &Profile) -> toml::Value {
    let Profile { name, when, hold, release, timeouts, rules, rules6 } = profile;
    let whole = |number: u64| toml::Value::Integer(number as i64);
    let of = |level: fn(&Condition) -> f64| -> toml::Value {
        let levels = when.iter();
        let levels = levels.map(|it| (it.gauge.name().to_owned(), whole(level(it) as u64)));
        toml::Value::Table(levels.collect())
    };
    let mut table = toml::Table::new();
    table.insert("name".to_owned(), name.clone().into());
    table.insert("enter".to_owned(), of(|it| it.enter));
    table.insert("leave".to_owned(), of(|it| it.leave));
    table.insert("hold".to_owned(), whole(hold.0 / Nanos::SECOND.0));
    table.insert("release".to_owned(), whole(release.0 / Nanos::SECOND.0));
    if !timeouts.is_empty() {
        let all = timeouts.iter().map(|(word, seconds)| (word.clone(), whole(*seconds)));
        table.insert("timeouts".to_owned(), toml::Value::Table(all.collect()));
    }
    for (word, path) in [("rules", rules), ("rules6", rules6)] {
        let written = path.as_ref().and_then(Value::written);
        table.extend(written.map(|path| (word.to_owned(), path)));
    }
    table.into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read;

    #[test]
    fn good_profiles_are_read_and_written_alike() {
        let text = "[[pressure]]\nname = \"siege\"\nenter = { conntrack = 80, drops = 5000 }\n\
            leave = { conntrack = 50 }\nhold = 1\ntimeouts = { udp_timeout = 5 }\n\
            rules = \"siege.v4\"\n";
        let layer = read(text, Path::new("/etc/p.toml")).unwrap();
        let profiles = layer.pressure.unwrap().value;
        let Profile { when, rules, .. } = &profiles.0[0];
        assert_eq!(rules.as_deref(), Some(Path::new("/etc/siege.v4")));
        let wanted = [
            Condition { gauge: Gauge::Conntrack, enter: 80.0, leave: 50.0 },
            Condition { gauge: Gauge::Drops, enter: 5000.0, leave: 3750.0 },
        ];
        assert_eq!(*when, wanted);
        let written = profiles.written().unwrap();
        let again = read(&format!("pressure = {written}"), Path::new("p.toml")).unwrap();
        assert_eq!(again.pressure.unwrap().value, profiles);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let act = "timeouts = { udp_timeout = 5 }\n";
        for (text, line, column, part) in [
            ("enter = { cpu = 90 }\n", 1, 1, "without name"),
            ("name = \"a b\"\nenter = { cpu = 90 }\n", 2, 8, "no name"),
            ("name = \"a\"\n", 1, 1, "nothing enters"),
            ("name = \"a\"\nenter = { load = 9 }\n", 3, 11, "not measured"),
            ("name = \"a\"\nenter = { cpu = 101 }\n", 3, 17, "out of range"),
            ("name = \"a\"\nenter = { cpu = 90 }\nleave = { cpu = 95 }\n", 4, 11, "above"),
            ("name = \"a\"\nenter = { cpu = 90 }\nleave = { drops = 5 }\n", 4, 11, "never entered"),
            ("name = \"a\"\nenter = { cpu = 90 }\nrule = 1\n", 4, 1, "no key `rule`"),
        ] {
            let text = format!("[[pressure]]\n{text}{act}");
            let found = read(&text, Path::new("p.toml")).unwrap_err();
            assert!(found[0].message.contains(part), "{text}: {found:?}");
            assert_eq!((found[0].line, found[0].column), (line, column), "{text}: {found:?}");
        }
        let text = "[[pressure]]\nname = \"a\"\nenter = { cpu = 9 }\n\
            timeouts = { tcp_timeout_established = 5 }\n";
        let found = read(text, Path::new("p.toml")).unwrap_err();
        assert!(found[0].message.contains("cannot be shortened"), "{found:?}");
    }
}
