//! `[conntrack.timeout.NAME]`: named timeouts for `-j CT --timeout`.

use std::collections::BTreeMap;

use toml::Spanned;

use super::{Fault, Position, Problem, fault, position};

/// The key of `[conntrack]` that holds them.
pub(super) const KEY: &str = "timeout";

/// Timeouts of one protocol under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// What rules call them.
    pub name: String,
    /// The protocol, as `nfct` calls it.
    pub protocol: String,
    /// Seconds by state.
    pub values: Vec<(String, u64)>,
    /// Where the tables begin in the file.
    pub at: Position,
}

pub(super) fn read(
    keys: &BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    text: &str,
) -> Result<Vec<Timeouts>, Fault> {
    let Some((key, value)) = keys.iter().find(|(name, _)| name.get_ref() == KEY) else {
        return Ok(Vec::new());
    };
    let refuse = || fault(value, Problem::Timeouts);
    let at = position(text, key.span().start);
    let tables = value.get_ref().as_table().ok_or_else(refuse)?;
    let named = tables.iter().map(|(name, policy)| {
        let policy = policy.as_table().ok_or_else(refuse)?;
        let protocol = policy.get("protocol").and_then(toml::Value::as_str).ok_or_else(refuse)?;
        let states = policy.iter().filter(|(state, _)| *state != "protocol");
        let values = states.map(|(state, value)| {
            let seconds = value.as_integer().and_then(|value| u64::try_from(value).ok());
            seconds.map(|seconds| (state.clone(), seconds)).ok_or_else(refuse)
        });
        let values = values.collect::<Result<_, _>>()?;
        Ok(Timeouts { name: name.clone(), protocol: protocol.to_owned(), values, at })
    });
    named.collect()
}
