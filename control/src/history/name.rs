//! What people call a stored policy.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A name: with or without a leading `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// `@0` is in force, `@1` was before it, and so on.
    Back(usize),
    /// `@r17`: record 17.
    Record(u64),
    /// `@3fa9c1`: the policy whose id begins so.
    Policy(String),
}

/// Why a name names nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It cannot be a name.
    #[error(
        "{0:?} names no stored policy: write @1 for the one before, @r17 for record 17, or six or \
         more characters of an id (`portcullis history` lists them)"
    )]
    Malformed(String),
    /// Nothing is called that.
    #[error("there is no {0} in the history; `portcullis history` lists what there is")]
    Unknown(String),
    /// The history does not go back so far.
    #[error("the history has {have} policies: @0 to @{}", have - 1)]
    TooFar {
        /// Policies in force one after the other, at least one.
        have: usize,
    },
    /// Nothing was recorded yet.
    #[error("the history is empty")]
    Empty,
    /// Several ids begin so.
    #[error("several policies begin with {0}; give more characters")]
    Ambiguous(String),
}

/// Shortest beginning of an id that is taken.
const ID_MIN: usize = 6;

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let malformed = || NameError::Malformed(text.to_owned());
        let name = text.strip_prefix('@').unwrap_or(text);
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        if let Some(number) = name.strip_prefix('r').filter(|rest| digits(rest)) {
            return number.parse().map(Self::Record).map_err(|_| malformed());
        }
        if digits(name) && name.len() < ID_MIN {
            return name.parse().map(Self::Back).map_err(|_| malformed());
        }
        let hex = name.bytes().all(|it| it.is_ascii_hexdigit());
        match hex && (ID_MIN..=64).contains(&name.len()) {
            true => Ok(Self::Policy(name.to_ascii_lowercase())),
            false => Err(malformed()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Back(back) => write!(f, "@{back}"),
            Self::Record(number) => write!(f, "@r{number}"),
            Self::Policy(id) => write!(f, "@{id}"),
        }
    }
}
