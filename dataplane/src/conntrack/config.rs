//! Timeouts and knobs, under the kernel's short names.

use std::sync::atomic::{AtomicU64, Ordering};

use super::timeouts::Policy;
use crate::clock::Nanos;

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such setting.
    #[error("unknown conntrack setting `{0}`")]
    Unknown(Box<str>),
    /// The kernel has it, Portcullis has nothing that it could govern.
    #[error("conntrack setting `{name}` has no counterpart here: {why}")]
    NotHonoured {
        /// The setting's name.
        name: Box<str>,
        /// What to know or do instead.
        why: &'static str,
    },
    /// The setting exists; the value is outside its range.
    #[error("conntrack setting `{name}` must be {low} to {high}, not {value}")]
    OutOfRange {
        /// The setting's name.
        name: &'static str,
        /// Lowest value.
        low: u64,
        /// Highest value.
        high: u64,
        /// The refused value.
        value: u64,
    },
    /// A named timeout policy twice, or more of them than there may be.
    #[error("timeout policy `{0}` exists already, or there are too many")]
    PolicyTaken(Box<str>),
    /// A named timeout policy for a protocol that has none.
    #[error("timeout policy `{policy}`: unknown protocol `{protocol}`")]
    UnknownProtocol {
        /// The policy's name.
        policy: Box<str>,
        /// What it is said to be for.
        protocol: Box<str>,
    },
    /// A named timeout policy names a state that its protocol does not have.
    #[error("timeout policy `{policy}`: its protocol has no timeout `{state}`")]
    UnknownState {
        /// The policy's name.
        policy: Box<str>,
        /// The state.
        state: Box<str>,
    },
}

/// Why a table could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConntrackError {
    /// No table of that size.
    #[error("a conntrack table holds 1 to {most} connections, not {asked}")]
    Capacity {
        /// What was asked for.
        asked: usize,
        /// The largest possible.
        most: usize,
    },
}

macro_rules! settings {
    ($($variant:ident $name:literal = $default:literal, $low:literal ..= $high:expr;)*) => {
        /// One setting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum Setting { $($variant,)* }

        impl Setting {
            const ALL: &'static [(Self, &'static str, u64, u64, u64)] =
                &[$((Self::$variant, $name, $default, $low, $high),)*];
        }
    };
}

impl Setting {
    /// Whether `value` is one that the setting can have.
    pub(super) fn check(self, value: u64) -> Result<(), ConfigError> {
        let (_, name, _, low, high) = Self::ALL[self as usize];
        match (low..=high).contains(&value) {
            true => Ok(()),
            false => Err(ConfigError::OutOfRange { name, low, high, value }),
        }
    }
}

/// Timeouts are kept by the kernel as a signed count of ticks.
const LONGEST: u64 = i32::MAX as u64 / 250;

settings! {
    TcpSynSent "tcp_timeout_syn_sent" = 120, 0..=LONGEST;
    TcpSynSent2 "" = 120, 0..=LONGEST;
    TcpSynRecv "tcp_timeout_syn_recv" = 60, 0..=LONGEST;
    TcpEstablished "tcp_timeout_established" = 432_000, 0..=LONGEST;
    TcpFinWait "tcp_timeout_fin_wait" = 120, 0..=LONGEST;
    TcpCloseWait "tcp_timeout_close_wait" = 60, 0..=LONGEST;
    TcpLastAck "tcp_timeout_last_ack" = 30, 0..=LONGEST;
    TcpTimeWait "tcp_timeout_time_wait" = 120, 0..=LONGEST;
    TcpClose "tcp_timeout_close" = 10, 0..=LONGEST;
    TcpRetransTimeout "tcp_timeout_max_retrans" = 300, 0..=LONGEST;
    TcpUnacknowledged "tcp_timeout_unacknowledged" = 300, 0..=LONGEST;
    TcpLoose "tcp_loose" = 1, 0..=1;
    TcpBeLiberal "tcp_be_liberal" = 0, 0..=1;
    TcpMaxRetrans "tcp_max_retrans" = 3, 0..=255;
    TcpIgnoreInvalidRst "tcp_ignore_invalid_rst" = 0, 0..=1;
    Udp "udp_timeout" = 30, 0..=LONGEST;
    UdpStream "udp_timeout_stream" = 120, 0..=LONGEST;
    Icmp "icmp_timeout" = 30, 0..=LONGEST;
    Icmpv6 "icmpv6_timeout" = 30, 0..=LONGEST;
    Generic "generic_timeout" = 600, 0..=LONGEST;
    Gre "gre_timeout" = 30, 0..=LONGEST;
    GreStream "gre_timeout_stream" = 180, 0..=LONGEST;
    SctpClosed "sctp_timeout_closed" = 10, 0..=LONGEST;
    SctpCookieWait "sctp_timeout_cookie_wait" = 3, 0..=LONGEST;
    SctpCookieEchoed "sctp_timeout_cookie_echoed" = 3, 0..=LONGEST;
    SctpEstablished "sctp_timeout_established" = 210, 0..=LONGEST;
    SctpShutdownSent "sctp_timeout_shutdown_sent" = 3, 0..=LONGEST;
    SctpShutdownRecd "sctp_timeout_shutdown_recd" = 3, 0..=LONGEST;
    SctpShutdownAckSent "sctp_timeout_shutdown_ack_sent" = 3, 0..=LONGEST;
    SctpHeartbeatSent "sctp_timeout_heartbeat_sent" = 30, 0..=LONGEST;
    Checksum "checksum" = 1, 0..=1;
    Acct "acct" = 0, 0..=1;
    Timestamp "timestamp" = 0, 0..=1;
    Events "events" = 2, 0..=2;
    ExpectMax "expect_max" = 4096, 1..=1 << 20;
    FragHighThresh "ipfrag_high_thresh" = 4_194_304, 0..=1 << 27;
    FragTime "ipfrag_time" = 30, 0..=LONGEST;
    FragMaxDist "ipfrag_max_dist" = 64, 0..=i32::MAX as u64;
    Frag6HighThresh "frag6_high_thresh" = 4_194_304, 0..=1 << 27;
    Frag6Timeout "frag6_timeout" = 60, 0..=LONGEST;
    Max "max" = 262_144, 1..=1 << 28;
}

/// Settings of this or an earlier kernel that nothing here answers to, and why.
const NOT_HONOURED: &[(&str, &str)] = &[
    ("buckets", "the table has a fixed shape, made at the start for `max` connections"),
    ("count", "it is read-only; `portcullis conntrack -C` tells it"),
    ("log_invalid", "tracking logs nothing by itself; use `-m conntrack --ctstate INVALID -j LOG`"),
    ("frag6_low_thresh", "memory for fragments has one limit, frag6_high_thresh"),
    ("ipfrag_low_thresh", "memory for fragments has one limit, ipfrag_high_thresh"),
    ("ipfrag_secret_interval", "it has no effect in the kernel either; the hash has a random key"),
    ("helper", "helpers are never assigned by port; use `-j CT --helper`"),
    ("events_retry_timeout", "events that a reader is too slow for are counted as lost"),
    ("tcp_no_window_check", "the kernel's name for this is tcp_be_liberal"),
];
/// Protocols whose settings kernels have, or had, and that are tracked as `generic` here.
const NOT_TRACKED: &str = "DCCP is tracked as any other protocol, under generic_timeout";
/// The family of names with which IPv6 fragments for the machine itself are governed.
const LOCAL_FRAGMENTS: &str =
    "IPv6 fragments are collected by tracking; use frag6_high_thresh and frag6_timeout";

/// Why a name is none of a setting's.
fn absent(name: &str) -> ConfigError {
    let short = short(name).unwrap_or(name);
    let known = NOT_HONOURED.iter().find(|row| row.0 == short).map(|row| row.1);
    let why = match known {
        Some(why) => why,
        None if short.starts_with("dccp_") => NOT_TRACKED,
        None if name.trim_start_matches("net.ipv6.").starts_with("ip6frag_") => LOCAL_FRAGMENTS,
        None => return ConfigError::Unknown(name.into()),
    };
    ConfigError::NotHonoured { name: name.into(), why }
}

/// The short name of the setting that `name` is a name of.
///
/// # Errors
/// There is none, or it is one of the kernel's that is not honoured.
pub fn setting_name(name: &str) -> Result<&'static str, ConfigError> {
    find(name).map(|setting| Setting::ALL[setting as usize].1).ok_or_else(|| absent(name))
}

/// How a table is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    values: Box<[u64]>,
    hash_key: [u8; 16],
    policies: Vec<Policy>,
}

impl Config {
    /// The kernel's defaults under `hash_key`, which the daemon draws at random
    /// for each boot, so that nobody outside can make hashes collide.
    pub fn new(hash_key: [u8; 16]) -> Self {
        let values = Setting::ALL.iter().map(|&(_, _, default, ..)| default).collect();
        Self { values, hash_key, policies: Vec::new() }
    }

    /// Changes one setting by the kernel's name, short (`tcp_loose`, `max`, `ipfrag_time`)
    /// or whole (`nf_conntrack_tcp_loose`, `net.netfilter.nf_conntrack_tcp_loose`).
    ///
    /// # Errors
    /// An unknown name, or a value out of range.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), ConfigError> {
        let setting = lookup(name, value)?;
        self.values[setting as usize] = value;
        Ok(())
    }

    /// The value of a setting.
    pub fn get(&self, name: &str) -> Option<u64> {
        find(name).map(|setting| self.values[setting as usize])
    }

    /// All settings' short names with their values.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        named().map(|(setting, name)| (name, self.values[setting as usize]))
    }

    pub(super) fn policies(&self) -> &[Policy] {
        &self.policies
    }

    pub(super) fn push_policy(&mut self, policy: Policy) {
        self.policies.push(policy);
    }

    /// Most connections at once.
    pub fn max_entries(&self) -> usize {
        self.values[Setting::Max as usize] as usize
    }

    /// Most expected connections at once.
    pub fn max_expected(&self) -> usize {
        self.values[Setting::ExpectMax as usize] as usize
    }

    /// The hash key.
    pub(super) fn hash_key(&self) -> [u8; 16] {
        self.hash_key
    }
}

/// The settings that have names, with these.
pub(super) fn named() -> impl Iterator<Item = (Setting, &'static str)> {
    Setting::ALL.iter().map(|row| (row.0, row.1)).filter(|row| !row.1.is_empty())
}

/// A name without what the kernel puts before it, if it could be a setting's.
fn short(name: &str) -> Option<&str> {
    if name == "net.nf_conntrack_max" {
        return Some("max");
    }
    let ours = name.strip_prefix("net.netfilter.").unwrap_or(name);
    match ours.strip_prefix("nf_conntrack_") {
        Some(short) => Some(short).filter(|short| !short.starts_with("ipfrag_")),
        None => match name.strip_prefix("net.ipv4.") {
            Some(short) => Some(short).filter(|short| short.starts_with("ipfrag_")),
            None => Some(name),
        },
    }
}

/// Finds a setting by any of its names.
pub(super) fn find(name: &str) -> Option<Setting> {
    let short = short(name)?;
    named().find(|row| row.1 == short).map(|row| row.0)
}

/// Finds a setting and checks a value for it.
pub(super) fn lookup(name: &str, value: u64) -> Result<Setting, ConfigError> {
    let setting = find(name).ok_or_else(|| absent(name))?;
    setting.check(value).map(|()| setting)
}

/// Settings in force; read by workers, changed by the control thread.
#[derive(Debug)]
pub(super) struct Settings {
    values: Box<[AtomicU64]>,
    /// Rises with every change.
    revision: AtomicU64,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Self {
        let values = config.values.iter().map(|&value| AtomicU64::new(value)).collect();
        Self { values, revision: AtomicU64::new(1) }
    }
    /// A number that rises with every change.
    #[inline]
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
    #[inline]
    pub(super) fn get(&self, setting: Setting) -> u64 {
        self.values[setting as usize].load(Ordering::Relaxed)
    }
    #[inline]
    pub(super) fn is_on(&self, setting: Setting) -> bool {
        self.get(setting) != 0
    }
    #[inline]
    pub(super) fn timeout(&self, setting: Setting) -> Nanos {
        Nanos::from_secs(self.get(setting))
    }
    pub(super) fn set(&self, setting: Setting, value: u64) {
        self.values[setting as usize].store(value, Ordering::Relaxed);
        self.revision.fetch_add(1, Ordering::Release);
    }
}
