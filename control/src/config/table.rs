//! How the table of keys is made into types: one line of [`keys!`](super::keys) is a key of
//! the file, a field of [`Layer`](super::Layer) and [`Settings`](super::Settings), and a
//! row of the reference.

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::reader::{Reader, Span};
use super::{Layer, Settings};

/// When a change of a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// From the next reload on.
    Live,
    /// From the next start on.
    Restart,
}

/// Who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// The configuration file, here.
    File(Span),
    /// The command line.
    Flag,
}

/// A value, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where from.
    pub origin: Origin,
}

impl<T> Given<T> {
    /// A value from the command line, if it is there.
    pub fn flag(value: Option<T>) -> Option<Self> {
        value.map(|value| Self { value, origin: Origin::Flag })
    }
}

/// A value of a key: how it is read from a file and written to one.
pub trait Value: Sized + Clone + PartialEq {
    /// What may be written, in a few words.
    fn shape() -> String;
    /// Reads it; what is wrong is said to the reader.
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self>;
    /// As TOML, on one line; nothing for what is not set.
    fn written(&self) -> Option<toml::Value>;
    /// Takes in what a lower layer says besides.
    fn beneath(&mut self, lower: &Self) {
        let _ = lower;
    }
    /// Keys below the key of this value, each with a value of its own, for tables.
    fn entries(&self) -> Option<Vec<Entry>> {
        None
    }
}

/// One entry of a value that is a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: toml::Value,
    /// Where it comes from.
    pub origin: Origin,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its path in the file, as `policy.rules`.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// When a change holds.
    pub effect: Effect,
    /// The flag of `run` that says the same.
    pub flag: &'static str,
    pub(super) shape: fn() -> String,
    pub(super) default: fn() -> Option<toml::Value>,
    pub(super) read: fn(&DeValue<'_>, Span, &mut Reader<'_>, &mut Layer),
    pub(super) lines: fn(&Settings) -> Vec<Line>,
    pub(super) same: fn(&Settings, &Settings) -> bool,
    pub(super) take: fn(&mut Settings, &Settings),
}

impl Key {
    /// What may be written, in a few words.
    pub fn shape(&self) -> String {
        (self.shape)()
    }
    /// The default as TOML; `None` where nothing is the default.
    pub fn default(&self) -> Option<toml::Value> {
        (self.default)()
    }
    /// The table that it stands in, empty for the top, and its name there.
    pub fn place(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once('.').unwrap_or(("", self.name))
    }
    /// Its value in these settings: one line, or one for each entry of a table.
    pub fn lines(&self, settings: &Settings) -> Vec<Line> {
        (self.lines)(settings)
    }
    /// Whether these settings have different values for it, wherever they come from.
    pub fn differs(&self, one: &Settings, other: &Settings) -> bool {
        !(self.same)(one, other)
    }
    /// Makes its value in `to` what it is in `from`.
    pub fn take(&self, to: &mut Settings, from: &Settings) {
        (self.take)(to, from);
    }
    /// What it means, on one line.
    pub fn summary(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// One key in force, or one entry of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The whole path, as it is written in TOML.
    pub name: String,
    /// The value; nothing for what is not set.
    pub value: Option<toml::Value>,
    /// Where it comes from.
    pub origin: Origin,
}

/// The lines of one key.
pub(super) fn lines<T: Value>(name: &str, given: &Given<T>) -> Vec<Line> {
    match given.value.entries() {
        None => {
            let value = given.value.written();
            vec![Line { name: name.to_owned(), value, origin: given.origin }]
        }
        Some(entries) => entries
            .into_iter()
            .map(|Entry { key, value, origin }| {
                let name = format!("{name}.{}", quoted(&key));
                Line { name, value: Some(value), origin }
            })
            .collect(),
    }
}

/// A key as TOML writes it, on one line.
pub(super) fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        return key.to_owned();
    }
    let escaped = key.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// The topmost that says something, with what the lower ones add.
pub(super) fn merged<T: Value>(
    upper: &Option<Given<T>>,
    lower: &Option<Given<T>>,
    default: T,
) -> Given<T> {
    match (upper, lower) {
        (Some(upper), Some(lower)) => {
            let mut merged = upper.clone();
            merged.value.beneath(&lower.value);
            merged
        }
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => Given { value: default, origin: Origin::Default },
    }
}

macro_rules! keys {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty = $name:literal, $effect:ident, $flag:literal, $default:expr;
    )*) => {
        /// What one source says: the file, or the command line.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Layer {
            $($(#[doc = $doc])+ pub $field: Option<Given<$type>>,)*
        }

        /// Every key's value, and where it comes from.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: Given<$type>,)*
        }

        impl Settings {
            /// `upper` beats `lower`, which beats the defaults, key by key.
            pub fn of(upper: &Layer, lower: &Layer) -> Self {
                Self { $($field: table::merged(&upper.$field, &lower.$field, $default),)* }
            }
        }

        /// Every key there is.
        pub static KEYS: &[Key] = &[$(Key {
            name: $name,
            doc: concat!($($doc, "\n"),+),
            effect: Effect::$effect,
            flag: $flag,
            shape: <$type as Value>::shape,
            default: || <$type as Value>::written(&$default),
            read: |value, at, reader, layer| {
                let read = <$type as Value>::read(value, at, reader);
                layer.$field = read.map(|value| Given { value, origin: Origin::File(at) });
            },
            lines: |settings| table::lines($name, &settings.$field),
            same: |one, other| one.$field.value == other.$field.value,
            take: |to, from| to.$field.clone_from(&from.$field),
        },)*];
    };
}
pub(super) use keys;
