//! `change.require` and `change.probes`: what a change needs, and what must answer after it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use toml::de::DeValue;

use super::reader::{Reader, Span};
use super::table::Value;

/// What must be said of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// `--reason`.
    Reason,
    /// `--approver`.
    Approver,
    /// `--ticket`.
    Ticket,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reason => "reason",
            Self::Approver => "approver",
            Self::Ticket => "ticket",
        })
    }
}

impl FromStr for Evidence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Reason, Self::Approver, Self::Ticket];
        let found = all.into_iter().find(|it| it.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is none of reason, approver and ticket"))
    }
}

/// A service that must answer: a TCP connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe(pub SocketAddr);

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |_| format!("{text:?} is no address with a port, as 192.0.2.1:443");
        text.parse().map(Self).map_err(bad)
    }
}

/// A list of words of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words<T>(pub Vec<T>);

/// A kind of words.
pub trait Word: FromStr<Err = String> + fmt::Display + Clone + PartialEq {
    /// What a list of them is, in a few words.
    const SHAPE: &'static str;
}

impl Word for Evidence {
    const SHAPE: &'static str = "list of \"reason\", \"approver\", \"ticket\"";
}

impl Word for Probe {
    const SHAPE: &'static str = "list of addresses with ports, as [\"192.0.2.1:443\"]";
}

impl<T: Word> Value for Words<T> {
    fn shape() -> String {
        T::SHAPE.to_owned()
    }
    fn read(value: &DeValue<'_>, at: Span, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(list) = value.as_array() else {
            return reader.mismatch(value, at, T::SHAPE);
        };
        let mut one = |item: &toml::Spanned<DeValue<'_>>| -> Option<T> {
            let (at, value) = (reader.span(item.span()), item.get_ref());
            let Some(text) = value.as_str() else { return reader.mismatch(value, at, T::SHAPE) };
            match text.parse() {
                Ok(word) => Some(word),
                Err(error) => reader.bad(at, error, &format!("write a {}", T::SHAPE)),
            }
        };
        let words: Vec<Option<T>> = list.iter().map(&mut one).collect();
        words.into_iter().collect::<Option<_>>().map(Self)
    }
    fn written(&self) -> Option<toml::Value> {
        let words = self.0.iter().map(|word| toml::Value::String(word.to_string()));
        Some(words.collect::<Vec<_>>().into())
    }
}
