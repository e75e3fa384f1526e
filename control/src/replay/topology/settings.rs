//! `[conntrack]`: the kernel's sysctls; and what a file says of tracking, put to use.

use std::collections::BTreeMap;
use std::path::Path;

use dataplane::conntrack::{Config, ConfigError};
use toml::Spanned;

use super::{Fault, Position, Problem, Timeouts, TopologyError, TopologyFile};
use super::{fault, position, timeouts};

/// One key of `[conntrack]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The kernel's name without `nf_conntrack_`.
    pub name: String,
    /// Its value; `true` and `false` count as 1 and 0.
    pub value: u64,
    /// Where the key stands.
    pub at: Position,
    /// Where the value stands.
    pub value_at: Position,
}

pub(super) fn read(
    keys: &BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    text: &str,
) -> Result<Vec<Sysctl>, Fault> {
    keys.iter()
        .filter(|(name, _)| name.get_ref() != timeouts::KEY)
        .map(|(name, value)| {
            let number = match value.get_ref() {
                toml::Value::Integer(number) => u64::try_from(*number).ok(),
                toml::Value::Boolean(on) => Some(u64::from(*on)),
                _ => None,
            };
            Ok(Sysctl {
                name: name.get_ref().clone(),
                value: number.ok_or_else(|| fault(value, Problem::SysctlValue))?,
                at: position(text, name.span().start),
                value_at: position(text, value.span().start),
            })
        })
        .collect()
}

impl TopologyFile {
    /// Gives `config` the sizes, sysctls and named timeouts of this file; `file` is for the errors.
    ///
    /// # Errors
    /// A name or value that connection tracking refuses.
    pub fn configure(&self, file: &Path, config: &mut Config) -> Result<(), TopologyError> {
        let refuse = |at: Position, error| TopologyError {
            file: file.to_owned(),
            at,
            problem: Problem::Sysctl(error),
        };
        if let Some(max) = self.limits.conntrack_max {
            config.set("max", max.into()).map_err(|error| refuse(self.limits_at, error))?;
        }
        for sysctl in &self.conntrack {
            let place = |error: &ConfigError| match error {
                ConfigError::OutOfRange { .. } => sysctl.value_at,
                _ => sysctl.at,
            };
            let set = config.set(&sysctl.name, sysctl.value);
            set.map_err(|error| refuse(place(&error), error))?;
        }
        for Timeouts { name, protocol, values, at } in &self.timeouts {
            let values: Vec<(&str, u64)> =
                values.iter().map(|(state, seconds)| (state.as_str(), *seconds)).collect();
            let added = config.add_timeouts(name, protocol, &values);
            added.map_err(|error| refuse(*at, error))?;
        }
        Ok(())
    }
}
