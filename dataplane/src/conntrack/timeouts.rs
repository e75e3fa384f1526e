//! Named timeout policies (`-j CT --timeout NAME`): sets of timeouts that hold
//! for the connections given them, in place of the table's own.
//!
//! A policy is fixed when the table is made. What it does not name it takes from
//! the table's settings at that time, as the kernel does.

use super::Conntrack;
use super::config::{Config, ConfigError, Setting, Settings};
use super::record::Locked;
use super::status::OWN_TIMEOUTS;
use super::template::TimeoutsId;
use crate::wire::proto;

/// Policies of a table at most.
const MOST: usize = 255;

/// A policy as configured.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    name: Box<str>,
    protocol: u8,
    values: Vec<(Setting, u64)>,
}

/// The policies of a table.
#[derive(Debug)]
pub(super) struct Named(Box<[(Policy, Settings)]>);

impl Named {
    pub(super) fn new(config: &Config) -> Self {
        let fill = |policy: &Policy| {
            let settings = Settings::new(config);
            policy.values.iter().for_each(|&(setting, value)| settings.set(setting, value));
            (policy.clone(), settings)
        };
        Self(config.policies().iter().map(fill).collect())
    }

    /// The timeouts that hold for an entry: its policy's, or the table's.
    #[inline]
    pub(super) fn of<'s>(&'s self, entry: &Locked<'_>, table: &'s Settings) -> &'s Settings {
        if entry.status() & OWN_TIMEOUTS == 0 {
            return table;
        }
        let id = entry.extras().timeouts();
        id.and_then(|id| self.0.get(usize::from(id))).map_or(table, |(_, settings)| settings)
    }
}

impl Conntrack {
    /// The named timeout policies with their protocols, as [`Config::timeout_policies`] has them.
    pub fn timeout_policies(&self) -> impl Iterator<Item = (&str, u8)> {
        self.named.0.iter().map(|(policy, _)| (&*policy.name, policy.protocol))
    }

    /// The policy of this name.
    pub fn timeouts_named(&self, name: &str) -> Option<TimeoutsId> {
        let at = self.named.0.iter().position(|(policy, _)| *policy.name == *name)?;
        Some(TimeoutsId(at as u8))
    }

    /// The names of the policies, by index.
    pub fn timeout_names(&self) -> impl Iterator<Item = &str> {
        self.named.0.iter().map(|(policy, _)| &*policy.name)
    }
}

impl Config {
    /// Adds a named timeout policy for a protocol (`tcp`, `udp`, `udplite`, `icmp`,
    /// `icmpv6`, `gre`, `sctp`, `generic`): `values` are seconds by state, in the names
    /// that `nfct` uses (`established`, `unreplied`, `replied`, `timeout`, ...).
    ///
    /// # Errors
    /// An unknown protocol or state, a value out of range, a name taken, too many policies.
    pub fn add_timeouts(
        &mut self,
        name: &str,
        protocol: &str,
        values: &[(&str, u64)],
    ) -> Result<(), ConfigError> {
        let policies = self.policies();
        if policies.len() == MOST || policies.iter().any(|known| *known.name == *name) {
            return Err(ConfigError::PolicyTaken(name.into()));
        }
        let (number, states) = states(protocol).ok_or_else(|| ConfigError::UnknownProtocol {
            policy: name.into(),
            protocol: protocol.into(),
        })?;
        let values = values.iter().map(|&(state, value)| {
            let &(_, setting) = states.iter().find(|known| known.0 == state).ok_or_else(|| {
                ConfigError::UnknownState { policy: name.into(), state: state.into() }
            })?;
            setting.check(value).map(|()| (setting, value))
        });
        let values = values.collect::<Result<_, _>>()?;
        self.push_policy(Policy { name: name.into(), protocol: number, values });
        Ok(())
    }

    /// The named timeout policies with their protocols' numbers; 255 stands for
    /// `generic`, any protocol without timeouts of its own.
    pub fn timeout_policies(&self) -> impl Iterator<Item = (&str, u8)> {
        self.policies().iter().map(|policy| (&*policy.name, policy.protocol))
    }
}

/// A protocol's number and its states' names.
fn states(protocol: &str) -> Option<(u8, &'static [(&'static str, Setting)])> {
    use Setting::{
        Generic, Gre, GreStream, Icmp, Icmpv6, SctpClosed, SctpCookieEchoed, SctpCookieWait,
        SctpEstablished, SctpHeartbeatSent, SctpShutdownAckSent, SctpShutdownRecd,
        SctpShutdownSent, TcpClose, TcpCloseWait, TcpEstablished, TcpFinWait, TcpLastAck,
        TcpRetransTimeout, TcpSynRecv, TcpSynSent, TcpSynSent2, TcpTimeWait, TcpUnacknowledged,
        Udp, UdpStream,
    };
    const ANY: u8 = 255;
    const STREAM: &[(&str, Setting)] = &[("unreplied", Udp), ("replied", UdpStream)];
    Some(match protocol {
        "tcp" => (
            proto::TCP,
            &[
                ("syn_sent", TcpSynSent),
                ("syn_recv", TcpSynRecv),
                ("established", TcpEstablished),
                ("fin_wait", TcpFinWait),
                ("close_wait", TcpCloseWait),
                ("last_ack", TcpLastAck),
                ("time_wait", TcpTimeWait),
                ("close", TcpClose),
                ("syn_sent2", TcpSynSent2),
                ("retrans", TcpRetransTimeout),
                ("unacknowledged", TcpUnacknowledged),
            ],
        ),
        "udp" => (proto::UDP, STREAM),
        "udplite" => (proto::UDPLITE, STREAM),
        "icmp" => (proto::ICMP, &[("timeout", Icmp)]),
        "icmpv6" => (proto::ICMPV6, &[("timeout", Icmpv6)]),
        "gre" => (proto::GRE, &[("unreplied", Gre), ("replied", GreStream)]),
        "sctp" => (
            proto::SCTP,
            &[
                ("closed", SctpClosed),
                ("cookie_wait", SctpCookieWait),
                ("cookie_echoed", SctpCookieEchoed),
                ("established", SctpEstablished),
                ("shutdown_sent", SctpShutdownSent),
                ("shutdown_recd", SctpShutdownRecd),
                ("shutdown_ack_sent", SctpShutdownAckSent),
                ("heartbeat_sent", SctpHeartbeatSent),
            ],
        ),
        "generic" => (ANY, &[("timeout", Generic)]),
        _ => return None,
    })
}
