//! The table's settings at run time, and what of them concerns others.

use super::Conntrack;
use super::config::{self, ConfigError, Setting};
use crate::clock::Nanos;
use crate::packet::Family;
use crate::reassembly;

impl Conntrack {
    /// Changes a setting by the kernel's name, as [`super::Config::set`] does. Timeouts apply from each
    /// connection's next refresh on.
    ///
    /// # Errors
    /// An unknown name, a value out of range, or a `max` or `expect_max` above the size at start.
    pub fn set(&self, name: &str, value: u64) -> Result<(), ConfigError> {
        let setting = self.check(name, value)?;
        self.settings.set(setting, value);
        if setting == Setting::Events {
            self.store.events.enable(value != 0);
        }
        Ok(())
    }

    /// Whether [`Conntrack::set`] would accept this.
    ///
    /// # Errors
    /// As there.
    pub fn accepts(&self, name: &str, value: u64) -> Result<(), ConfigError> {
        self.check(name, value).map(drop)
    }

    fn check(&self, name: &str, value: u64) -> Result<Setting, ConfigError> {
        let setting = config::lookup(name, value)?;
        let bound = match setting {
            Setting::Max => Some(("max", self.capacity)),
            Setting::ExpectMax => Some(("expect_max", self.expect_capacity)),
            _ => None,
        };
        if let Some((name, high)) = bound.filter(|(_, high)| value > *high) {
            return Err(ConfigError::OutOfRange { name, low: 1, high, value });
        }
        Ok(setting)
    }

    /// The value of a setting, by any of its names.
    pub fn get(&self, name: &str) -> Option<u64> {
        config::find(name).map(|setting| self.settings.get(setting))
    }

    /// Whether checksums of packets from outside are verified.
    pub fn verifies_checksums(&self) -> bool {
        self.settings.is_on(Setting::Checksum)
    }

    /// All settings' short names with their values.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        config::named().map(|(setting, name)| (name, self.settings.get(setting)))
    }

    /// A number that rises whenever a setting changes.
    #[inline]
    pub fn revision(&self) -> u64 {
        self.settings.revision()
    }

    /// What the reassembly of a family's fragments is told.
    pub fn fragment_settings(&self, family: Family) -> reassembly::Settings {
        let get = |setting| self.settings.get(setting);
        let (memory, timeout) = match family {
            Family::V4 => (Setting::FragHighThresh, Setting::FragTime),
            Family::V6 => (Setting::Frag6HighThresh, Setting::Frag6Timeout),
        };
        reassembly::Settings {
            high_thresh: get(memory) as usize,
            timeout: Nanos::from_secs(get(timeout)),
            max_dist: match family {
                Family::V4 => get(Setting::FragMaxDist) as u32,
                Family::V6 => reassembly::Settings::new(family).max_dist,
            },
        }
    }
}
