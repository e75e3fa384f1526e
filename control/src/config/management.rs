//! `management.allow`: a list of strings, each an entry of the management list.

use dataplane::port::management::Entry;
use toml::de::DeValue;

use super::reader::{Reader, Span};
use super::table::Value;

/// Entries as they were written, duplicates and all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(pub Vec<Entry>);

impl Value for Managers {
    fn shape() -> String {
        "list of entries, as [\"198.51.100.0/24 tcp 22\"]".to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(list) = value.as_array() else {
            return reader.mismatch(value, at, &Self::shape());
        };
        let mut entry = |item: &toml::Spanned<DeValue<'_>>| -> Option<Entry> {
            let (at, value) = (reader.span(item.span()), item.get_ref());
            let Some(text) = value.as_str() else {
                return reader.mismatch(value, at, "entry, as a string");
            };
            match text.parse() {
                Ok(entry) => Some(entry),
                Err(error) => {
                    let remedy = "an entry is PREFIX PROTOCOL PORTS";
                    reader.bad(at, format!("management: {error}"), remedy)
                }
            }
        };
        // All of them, so that every error is told.
        let entries: Vec<Option<Entry>> = list.iter().map(&mut entry).collect();
        entries.into_iter().collect::<Option<_>>().map(Self)
    }
    fn written(&self) -> Option<toml::Value> {
        let written = self.0.iter().map(|entry| toml::Value::String(entry.to_string()));
        Some(written.collect::<Vec<_>>().into())
    }
}
