//! `[lint]`: which findings of `lint` a site denies, warns of, notes or allows.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::reader::{Reader, Span, nearest};
use super::table::{Entry, Given, Origin, Value};
use crate::lint::{LINTS, Level, Levels, named};

/// Levels by code.
#[derive(Clone, Debug, Default)]
pub struct LintTable(pub BTreeMap<String, Given<Level>>);

/// Wherever they come from.
impl PartialEq for LintTable {
    fn eq(&self, other: &Self) -> bool {
        self.written() == other.written()
    }
}

impl LintTable {
    /// As lint takes them.
    pub fn levels(&self) -> Levels {
        let mut levels = Levels::default();
        for (code, given) in &self.0 {
            levels.set(code, given.value);
        }
        levels
    }
}

/// The code that `word` was probably to be.
pub fn nearest_code(word: &str) -> Option<String> {
    let names: Vec<String> = LINTS.iter().map(|lint| lint.code.name()).collect();
    nearest(word, names.iter().map(String::as_str)).map(str::to_owned)
}

impl Value for LintTable {
    fn shape() -> String {
        "table of \"deny\", \"warn\", \"note\" or \"allow\" by code".to_owned()
    }

    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = value.as_table() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let mut levels = BTreeMap::new();
        for (key, value) in table.iter() {
            let (code, at) = (key.get_ref().to_string(), reader.span(value.span()));
            if named(&code).is_none() {
                let named = reader.span(key.span());
                let message = format!("lint has no code `{code}`");
                match nearest_code(&code) {
                    Some(near) => reader.unknown::<()>(named, message, &near),
                    None => reader.bad(named, message, "`portcullis lint --codes` lists them"),
                };
                continue;
            }
            let Some(text) = value.get_ref().as_str() else {
                reader.mismatch::<()>(value.get_ref(), at, "string: deny, warn, note or allow");
                continue;
            };
            match Level::named(text) {
                Some(value) => {
                    levels.insert(code, Given { value, origin: Origin::File(at) });
                }
                None => {
                    let message = format!("`{text}` is no level");
                    reader.bad::<()>(at, message, "write deny, warn, note or allow");
                }
            }
        }
        Some(Self(levels))
    }

    fn written(&self) -> Option<toml::Value> {
        let level = |given: &Given<Level>| toml::Value::String(given.value.name().to_owned());
        let table = self.0.iter().map(|(code, given)| (code.clone(), level(given)));
        Some(toml::Value::Table(table.collect()))
    }

    fn beneath(&mut self, lower: &Self) {
        for (code, given) in &lower.0 {
            self.0.entry(code.clone()).or_insert_with(|| given.clone());
        }
    }

    fn entries(&self) -> Option<Vec<Entry>> {
        let entry = |(code, given): (&String, &Given<Level>)| Entry {
            key: code.clone(),
            value: toml::Value::String(given.value.name().to_owned()),
            origin: given.origin,
        };
        Some(self.0.iter().map(entry).collect())
    }
}
