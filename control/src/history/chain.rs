//! How records hang together, and what damage looks like. No files here.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::record::{Record, sum_of};

/// What is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// The file that says where the chain begins and ends.
    #[error("head.json is {0}")]
    Head(&'static str),
    /// A record is gone.
    #[error("record {0} is missing")]
    Missing(u64),
    /// A record was changed.
    #[error("record {0} was changed")]
    Changed(u64),
    /// A record does not follow the one before.
    #[error("record {0} does not follow the one before it")]
    Unchained(u64),
    /// The chain does not end where it did.
    #[error("the chain ends at record {found}, and ended with another record {wanted}")]
    End {
        /// The last there is.
        found: u64,
        /// The last there was.
        wanted: u64,
    },
    /// A text is gone.
    #[error("text {sha256:.12} of record {number} ({name}) is missing")]
    NoText {
        /// The record.
        number: u64,
        /// The text's name.
        name: String,
        /// Its sum.
        sha256: String,
    },
    /// A text was changed.
    #[error("text {sha256:.12} of record {number} ({name}) was changed")]
    Text {
        /// The record.
        number: u64,
        /// The text's name.
        name: String,
        /// Its sum.
        sha256: String,
    },
}

/// Where the chain begins and ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// The oldest record that is kept.
    pub(super) first: u64,
    /// What it follows.
    pub(super) first_previous: String,
    /// The newest.
    pub(super) last: u64,
    /// Its sum.
    pub(super) last_sum: String,
    /// Of this head as JSON with an empty sum.
    pub(super) sum: String,
}

impl Head {
    /// Nothing was recorded yet.
    pub(super) fn empty() -> Self {
        Self { first: 1, ..Self::default() }.sealed()
    }

    pub(super) fn sealed(mut self) -> Self {
        self.sum = String::new();
        self.sum = sum_of(&self.bytes());
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads it.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let head: Self = serde_json::from_slice(bytes).map_err(|_| Damage::Head("not readable"))?;
        match head.clone().sealed() == head {
            true => Ok(head),
            false => Err(Damage::Head("changed")),
        }
    }
}

/// Reads the record that should be number `number`.
pub(super) fn read_record(bytes: &[u8], number: u64) -> Result<Record, Damage> {
    let record: Record = serde_json::from_slice(bytes).map_err(|_| Damage::Changed(number))?;
    let whole = record.computed() == record.sum && record.bytes() == bytes;
    match whole && record.number == number {
        true => Ok(record),
        false => Err(Damage::Changed(number)),
    }
}

/// What is wrong with how these records, the readable ones of `head`'s range, follow each other.
pub(super) fn links(head: &Head, records: &[Record]) -> Vec<Damage> {
    let mut damage = Vec::new();
    let mut before: Option<(u64, &str)> = Some((head.first.wrapping_sub(1), &head.first_previous));
    for record in records {
        if let Some((number, sum)) = before
            && number.wrapping_add(1) == record.number
            && record.previous != sum
        {
            damage.push(Damage::Unchained(record.number));
        }
        before = Some((record.number, &record.sum));
    }
    if let Some((number, sum)) = before
        && number == head.last
        && head.last >= head.first
        && sum != head.last_sum
    {
        damage.push(Damage::End { found: number, wanted: head.last });
    }
    damage
}
