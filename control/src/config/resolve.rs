//! From settings to what the daemon runs on: what keys mean together.

use dataplane::clock::Nanos;
use dataplane::engine::Switches;
use dataplane::fib::Mode;
use dataplane::packet::PortId;
use dataplane::port::afxdp::{AttachChoice, CopyMode, OnFailure};
use dataplane::port::host::HostChoice;
use dataplane::port::management::List;

use super::values::{
    AttachName, CaptureFilesName, CaptureLinkName, HostRoadName, ModeName, OnFailureName, Pairs,
    ZeroCopyName,
};
use super::{
    Configured, Conflict, DEFAULT_HISTORY, DEFAULT_SETS, DEFAULT_SOCKET, DEFAULT_STATE, Settings,
};
use crate::daemon::sandbox::Sandbox;
use crate::daemon::{
    CaptureSettings, ChangeSettings, Config, Failure, LogSettings, MetricsSettings, Rotation,
};
use crate::history::Keep;
use crate::log::nflog::Link;

impl Settings {
    /// What the frames are for.
    fn mode(&self) -> Result<Mode, Conflict> {
        let Pairs(pairs) = &self.bridge.value;
        let bridge = |problem| Conflict::new("bridge", self.bridge.origin, problem);
        match self.mode.value {
            ModeName::Routed | ModeName::Host if !pairs.is_empty() => {
                Err(bridge("pairs need mode = \"bridge\" (--mode bridge)".to_owned()))
            }
            ModeName::Routed => Ok(Mode::Routed),
            ModeName::Host => Ok(Mode::Host),
            ModeName::Bridge if pairs.is_empty() && self.ports.value.0.len() == 2 => {
                Ok(Mode::Bridge(vec![(PortId(0), PortId(1))]))
            }
            ModeName::Bridge => {
                let id = |name: &String| {
                    let position = self.ports.value.0.iter().position(|port| port == name);
                    let position = position.ok_or_else(|| bridge(format!("{name} is no port")))?;
                    Ok(PortId(position as u8))
                };
                let pairs = pairs.iter().map(|(a, b)| Ok((id(a)?, id(b)?)));
                Ok(Mode::Bridge(pairs.collect::<Result<_, Conflict>>()?))
            }
        }
    }

    /// A second daemon needs a file of its own: only one on the usual socket has a usual file.
    fn state(&self) -> Option<std::path::PathBuf> {
        match &self.state_file.value {
            Some(file) => file.path().map(ToOwned::to_owned),
            None if self.socket.value.as_os_str() == DEFAULT_SOCKET => Some(DEFAULT_STATE.into()),
            None => None,
        }
    }

    /// Where and how long policies are recorded, and what changes need.
    fn changes(&self) -> ChangeSettings {
        let usual = self.socket.value.as_os_str() == DEFAULT_SOCKET;
        let directory = match &self.history_dir.value {
            Some(file) => file.path().map(ToOwned::to_owned),
            None => usual.then(|| DEFAULT_HISTORY.into()),
        };
        let age = Nanos::from_secs(self.history_days.value.0 * 86_400);
        ChangeSettings {
            history: directory,
            keep: Keep { records: self.history_keep.value.0 as usize, age },
            require: self.require.value.0.clone(),
            probes: self.probes.value.0.iter().map(|probe| probe.0).collect(),
        }
    }

    /// How records are limited, and where they go.
    fn logging(&self) -> LogSettings {
        let mib = |mib: u64| (mib > 0).then_some(mib << 20);
        let seconds = |seconds: u64| (seconds > 0).then_some(Nanos::from_secs(seconds));
        let link = match self.nflog_link.value {
            CaptureLinkName::Nflog => Link::Nflog,
            CaptureLinkName::Ethernet => Link::Ethernet,
            CaptureLinkName::Raw => Link::Raw,
        };
        LogSettings {
            rate: self.log_rate.value.0 as u32,
            burst: self.log_burst.value.0 as u32,
            budget: self.log_budget.value.0 as u32,
            trace_rate: self.trace_rate.value.0 as u32,
            nflog_rate: self.nflog_rate.value.0 as u32,
            json: self.log_json.value.clone(),
            rotation: Rotation {
                bytes: mib(self.log_rotate_mib.value.0),
                age: seconds(self.log_rotate_hours.value.0 * 3600),
                keep: self.log_keep.value.0 as u32,
            },
            captures: self.nflog_dir.value.clone().map(|directory| CaptureSettings {
                directory,
                split: self.nflog_files.value == CaptureFilesName::Group,
                link,
                rotation: Rotation {
                    bytes: mib(self.nflog_rotate_mib.value.0),
                    age: None,
                    keep: self.nflog_keep.value.0 as u32,
                },
            }),
            top_every: seconds(self.log_top.value.0),
        }
    }

    /// Files and directories of sets. Only a daemon on the usual socket has a usual place.
    pub fn sets(&self) -> Vec<std::path::PathBuf> {
        let usual = || {
            let path = std::path::PathBuf::from(DEFAULT_SETS);
            (self.socket.value.as_os_str() == DEFAULT_SOCKET && path.is_dir()).then_some(path)
        };
        match &self.sets.value {
            Some(paths) => paths.0.clone(),
            None => usual().into_iter().collect(),
        }
    }

    /// What holds when the daemon fails.
    fn failure(&self) -> Failure {
        Failure {
            on_failure: match (self.on_failure.value, self.mode.value) {
                (Some(OnFailureName::Closed), _) | (None, ModeName::Routed) => OnFailure::Closed,
                (Some(OnFailureName::Open), _) | (None, _) => OnFailure::Open,
            },
            watchdog: Nanos::from_millis(self.watchdog.value.0),
            pin_dir: self.pin_dir.value.clone(),
        }
    }

    /// Whom no rule holds up.
    ///
    /// # Errors
    /// More entries than there is room for.
    pub fn management_list(&self) -> Result<List, Conflict> {
        List::new(self.management.value.0.iter().cloned()).map_err(|error| {
            Conflict::new("management.allow", self.management.origin, error.to_string())
        })
    }

    /// Connection tracking's settings by name.
    pub fn conntrack(&self) -> Vec<(String, u64)> {
        let settings = self.settings.value.values();
        let mut settings: Vec<_> = settings.map(|(name, value)| (name.to_owned(), value)).collect();
        let max = self.conntrack_max.value.map(|max| ("max".to_owned(), max.0));
        settings.extend(max);
        settings
    }
}

impl Configured {
    /// What the daemon is to run on.
    ///
    /// # Errors
    /// Keys that contradict each other.
    pub fn resolve(self) -> Result<Config, Conflict> {
        let settings = &self.settings;
        let mode = settings.mode()?;
        if settings.ports.value.0.is_empty() {
            let problem = "no ports: name them in the file or with --port".to_owned();
            return Err(Conflict::new("ports", settings.ports.origin, problem));
        }
        let management = settings.management_list()?;
        Ok(Config {
            ports: settings.ports.value.0.clone(),
            rules: settings.rules.value.clone(),
            rules6: settings.rules6.value.clone(),
            sets: settings.sets(),
            counters: settings.counters.value,
            host: match settings.host_road.value {
                _ if matches!(mode, Mode::Bridge(_)) => HostChoice::Off,
                HostRoadName::Auto => HostChoice::Auto,
                HostRoadName::Plain => HostChoice::Plain,
                HostRoadName::Off => HostChoice::Off,
            },
            mode,
            management,
            session: None,
            workers: settings.workers.value.map(|workers| workers.0 as usize),
            attach: match settings.attach.value {
                AttachName::Auto => AttachChoice::Auto,
                AttachName::Native => AttachChoice::Native,
                AttachName::Generic => AttachChoice::Generic,
            },
            blocklist: settings.blocklist.value.0 as u32,
            switches: Switches::all(settings.plans.value),
            copy: match settings.zero_copy.value {
                ZeroCopyName::Auto => CopyMode::Auto,
                ZeroCopyName::Force => CopyMode::ZeroCopy,
                ZeroCopyName::Off => CopyMode::Copy,
            },
            failure: settings.failure(),
            socket: settings.socket.value.clone(),
            socket_group: settings.socket_group.value.map(|group| group.0 as u32),
            sandbox: Sandbox {
                user: settings.user.value.as_ref().map(|user| user.0.clone()),
                seccomp: settings.seccomp.value,
            },
            log: settings.log.value.clone(),
            logging: settings.logging(),
            state: settings.state(),
            state_every: Nanos::from_secs(settings.state_interval.value.0),
            changes: settings.changes(),
            alerts: settings.alerts.value.0.clone(),
            pressure: settings.pressure.value.0.clone(),
            metrics: MetricsSettings {
                listen: settings.metrics_listen.value.map(|listen| listen.0),
            },
            conntrack: settings.conntrack(),
            faults: None,
            timeouts: settings.timeouts.value.0.iter().map(|given| given.value.clone()).collect(),
            configured: self,
        })
    }
}
