//! `conntrack.settings` and `conntrack.timeouts`: tables whose keys are connection
//! tracking's own. An entry of the command line beats the file's entry of that name.

use std::collections::BTreeMap;

use dataplane::conntrack::{self, setting_name};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::{Reader, Span, nearest};
use super::table::{Entry, Given, Origin, Value};
use crate::daemon::NamedTimeouts;

/// Settings by the kernel's short names.
#[derive(Clone, Debug, Default)]
pub struct SettingTable(pub BTreeMap<String, Given<u64>>);

/// Wherever they come from.
impl PartialEq for SettingTable {
    fn eq(&self, other: &Self) -> bool {
        self.values().eq(other.values())
    }
}

impl SettingTable {
    /// Those of the command line; the last of a name holds.
    pub fn of_flags(settings: Vec<(String, u64)>) -> Self {
        let given = |value| Given { value, origin: Origin::Flag };
        let named = settings.into_iter().map(|(name, value)| {
            // What is no name at all is refused by connection tracking, with the reason.
            let name = setting_name(&name).map_or(name, str::to_owned);
            (name, given(value))
        });
        Self(named.collect())
    }

    /// Names and values.
    pub fn values(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, given)| (name.as_str(), given.value))
    }
}

/// The settings' short names.
fn names() -> Vec<&'static str> {
    conntrack::Config::new([0; 16]).entries().map(|(name, _)| name).collect()
}

impl Value for SettingTable {
    fn shape() -> String {
        "table of whole numbers by setting".to_owned()
    }

    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = value.as_table() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let mut settings = BTreeMap::new();
        for (key, value) in table.iter() {
            let named = reader.span(key.span());
            let at = reader.span(value.span());
            let Some((name, value)) = setting(key.get_ref(), named, value, at, reader) else {
                continue;
            };
            if settings.contains_key(name) {
                let message = format!("`{name}` is set already, by another of its names");
                reader.bad::<()>(named, message, "set it once");
            }
            settings.insert(name.to_owned(), Given { value, origin: Origin::File(at) });
        }
        Some(Self(settings))
    }

    fn written(&self) -> Option<toml::Value> {
        let values = self.values().map(|(name, value)| (name.to_owned(), number(value)));
        Some(toml::Value::Table(values.collect()))
    }

    fn beneath(&mut self, lower: &Self) {
        for (name, given) in &lower.0 {
            self.0.entry(name.clone()).or_insert_with(|| given.clone());
        }
    }

    fn entries(&self) -> Option<Vec<Entry>> {
        let entry = |(key, given): (&String, &Given<u64>)| Entry {
            key: key.clone(),
            value: number(given.value),
            origin: given.origin,
        };
        Some(self.0.iter().map(entry).collect())
    }
}

/// One setting, checked.
fn setting(
    key: &str,
    named: Span,
    value: &Spanned<DeValue<'_>>,
    at: Span,
    reader: &mut Reader<'_>,
) -> Option<(&'static str, u64)> {
    let name = match setting_name(key) {
        Ok("max") => {
            let message = format!("`{key}` has a key of its own");
            return reader.bad(named, message, "write `max` in [conntrack]");
        }
        Ok(name) => name,
        Err(error) => {
            return match nearest(key, names().into_iter()) {
                Some(near) => reader.unknown(named, error.to_string(), near),
                None => reader.bad(named, error.to_string(), "`portcullis sysctl` lists them"),
            };
        }
    };
    let value = whole(value.get_ref(), at, reader)?;
    match conntrack::Config::new([0; 16]).set(name, value) {
        Ok(()) => Some((name, value)),
        Err(error) => reader.bad(at, error.to_string(), "write a number in that range"),
    }
}

fn whole(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<u64> {
    let Some(number) = value.as_integer() else {
        return reader.mismatch(value, at, "whole number");
    };
    let parsed = u64::from_str_radix(number.as_str(), number.radix()).ok();
    // TOML's own numbers end there.
    let parsed = parsed.filter(|number| i64::try_from(*number).is_ok());
    parsed.or_else(|| reader.bad(at, format!("{number} is out of range"), "write a smaller one"))
}

fn number(value: u64) -> toml::Value {
    toml::Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Timeouts by name.
#[derive(Clone, Debug, Default)]
pub struct TimeoutTable(pub Vec<Given<NamedTimeouts>>);

/// Wherever they come from, in whatever order.
impl PartialEq for TimeoutTable {
    fn eq(&self, other: &Self) -> bool {
        self.written() == other.written()
    }
}

impl TimeoutTable {
    /// Those of the command line.
    pub fn of_flags(named: Vec<NamedTimeouts>) -> Self {
        Self(named.into_iter().map(|value| Given { value, origin: Origin::Flag }).collect())
    }
}

const PROTOCOL: &str = "protocol";

impl Value for TimeoutTable {
    fn shape() -> String {
        "table of { protocol, STATE = seconds } by name".to_owned()
    }

    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = value.as_table() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let mut all = Vec::new();
        for (name, policy) in table.iter() {
            let at = reader.span(policy.span());
            let Some(policy) = policy.get_ref().as_table() else {
                reader.mismatch::<()>(policy.get_ref(), at, "table with `protocol`");
                continue;
            };
            let named = reader.span(name.span());
            let value = timeouts(name.get_ref(), named, policy, reader);
            let origin = Origin::File(named);
            all.extend(value.map(|value| Given { value, origin }));
        }
        Some(Self(all))
    }

    fn written(&self) -> Option<toml::Value> {
        let entries = self.entries()?.into_iter().map(|entry| (entry.key, entry.value));
        Some(toml::Value::Table(entries.collect()))
    }

    fn beneath(&mut self, lower: &Self) {
        let known: Vec<_> = self.0.iter().map(|given| given.value.name.clone()).collect();
        let new = lower.0.iter().filter(|given| !known.contains(&given.value.name));
        self.0.extend(new.cloned());
    }

    fn entries(&self) -> Option<Vec<Entry>> {
        let entry = |given: &Given<NamedTimeouts>| {
            let NamedTimeouts { name, protocol, values } = &given.value;
            let mut table = toml::Table::new();
            table.insert(PROTOCOL.to_owned(), protocol.clone().into());
            table.extend(values.iter().map(|(state, seconds)| (state.clone(), number(*seconds))));
            Entry { key: name.clone(), value: table.into(), origin: given.origin }
        };
        Some(self.0.iter().map(entry).collect())
    }
}

/// One name's timeouts, checked.
fn timeouts(
    name: &str,
    named: Span,
    policy: &DeTable<'_>,
    reader: &mut Reader<'_>,
) -> Option<NamedTimeouts> {
    let mut protocol = None;
    let mut values = Vec::new();
    for (key, value) in policy.iter() {
        let at = reader.span(value.span());
        if *key.get_ref() == PROTOCOL {
            let word = value.get_ref().as_str();
            match word {
                Some(word) => protocol = Some((word.to_owned(), at)),
                None => reader.mismatch(value.get_ref(), at, "protocol, as \"tcp\"")?,
            }
            continue;
        }
        let seconds = whole(value.get_ref(), at, reader);
        values.extend(seconds.map(|seconds| (key.get_ref().to_string(), seconds, key.span())));
    }
    let Some((protocol, at)) = protocol else {
        let message = format!("timeouts {name:?} are without a protocol");
        return reader.bad(named, message, "add protocol = \"tcp\", or another");
    };
    let check = |values: &[(&str, u64)]| {
        conntrack::Config::new([0; 16]).add_timeouts(name, &protocol, values)
    };
    if let Err(error) = check(&[]) {
        let remedy = "tcp, udp, udplite, icmp, icmpv6, gre, sctp or generic";
        return reader.bad(at, error.to_string(), remedy);
    }
    let mut good = true;
    for (state, seconds, key) in &values {
        if let Err(error) = check(&[(state, *seconds)]) {
            let at = reader.span(key.clone());
            reader.bad::<()>(at, error.to_string(), "the states are those of `nfct`");
            good = false;
        }
    }
    let values = values.into_iter().map(|(state, seconds, _)| (state, seconds)).collect();
    good.then(|| NamedTimeouts { name: name.to_owned(), protocol, values })
}
