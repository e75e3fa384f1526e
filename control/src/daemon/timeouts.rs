//! Named timeouts of the configuration.

use dataplane::conntrack::{self, ConfigError};

/// Timeouts of one protocol under a name (`-j CT --timeout`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTimeouts {
    /// What rules call them.
    pub name: String,
    /// The protocol, as `nfct` calls it.
    pub protocol: String,
    /// Seconds by state.
    pub values: Vec<(String, u64)>,
}

impl NamedTimeouts {
    /// Makes them known to a table's settings.
    ///
    /// # Errors
    /// As [`conntrack::Config::add_timeouts`].
    pub fn add_to(&self, settings: &mut conntrack::Config) -> Result<(), ConfigError> {
        let values: Vec<(&str, u64)> =
            self.values.iter().map(|(state, seconds)| (state.as_str(), *seconds)).collect();
        settings.add_timeouts(&self.name, &self.protocol, &values)
    }
}
