//! `--ct-timeout`: what `-j CT --timeout NAME` may name, wherever a policy is read.

use dataplane::conntrack::{Config, ConfigError};

use super::run::setting;
use crate::daemon::NamedTimeouts;
use crate::iptables::TableNames;

/// The option.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CtTimeouts {
    /// Timeouts for CT --timeout NAME, as patient=tcp,established=864000; may be given
    /// more than once.
    #[arg(long, value_name = "NAME=PROTOCOL,STATE=SECONDS,...", value_parser = timeouts)]
    pub ct_timeout: Vec<NamedTimeouts>,
}

impl CtTimeouts {
    /// Adds them to `config`.
    pub(super) fn add_to(&self, config: &mut Config) -> Result<(), ConfigError> {
        self.ct_timeout.iter().try_for_each(|named| named.add_to(config))
    }

    /// The host's names with these.
    pub(super) fn names(&self) -> Result<TableNames, ConfigError> {
        let mut config = Config::new([0; 16]);
        self.add_to(&mut config)?;
        Ok(TableNames::of_host().with_timeout_policies(config.timeout_policies()))
    }
}

/// `NAME=PROTOCOL,STATE=SECONDS,...`
fn timeouts(text: &str) -> Result<NamedTimeouts, String> {
    const SHAPE: &str =
        "NAME=PROTOCOL,STATE=SECONDS,... is needed, as patient=tcp,established=864000";
    let (name, rest) = text.split_once('=').ok_or(SHAPE)?;
    let mut words = rest.split(',');
    let protocol = words.next().unwrap_or_default().to_owned();
    let values = words.map(setting).collect::<Result<_, _>>().map_err(|_| SHAPE)?;
    Ok(NamedTimeouts { name: name.to_owned(), protocol, values })
}
