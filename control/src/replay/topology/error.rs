//! What can be wrong with a topology file.

use std::path::PathBuf;

use dataplane::packet::MAX_PORTS;

use super::Position;

/// What is wrong with a topology file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}:{}: {problem}", file.display(), at.line, at.column)]
pub struct TopologyError {
    /// The file.
    pub file: PathBuf,
    /// The place.
    pub at: Position,
    /// The problem.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    /// TOML or its shape: the library's words.
    #[error("{0}")]
    Syntax(String),
    /// A mode that does not exist.
    #[error("unknown mode `{0}` (routed, bridge or host)")]
    Mode(String),
    /// `mode = "bridge"` and `bridge` must come together.
    #[error("`bridge` goes with mode = \"bridge\", and that mode needs it")]
    BridgeMode,
    /// A port in two pairs, or paired with itself.
    #[error("port `{0}` stands in a bridge pair twice")]
    BridgedTwice(String),
    /// `mode = "host"` has exactly one port.
    #[error("mode = \"host\" takes one port")]
    HostPorts,
    /// No port at all.
    #[error("no [[port]]")]
    NoPorts,
    /// More ports than the engine can hold.
    #[error("more than {MAX_PORTS} ports")]
    TooManyPorts,
    /// An interface name that the kernel would refuse.
    #[error("`{0}` is no interface name")]
    PortName(String),
    /// The same port again.
    #[error("port `{0}` is defined twice")]
    DuplicatePort(String),
    /// A device that is not a port of this file.
    #[error("no port `{0}`")]
    NoSuchPort(String),
    /// Not six octets, or not a unicast address.
    #[error("`{0}` is no unicast MAC address")]
    Mac(String),
    /// An MTU outside what Ethernet and IP allow.
    #[error("an MTU of {0} is impossible (68 to 65535)")]
    Mtu(u32),
    /// Not an IP address.
    #[error("`{0}` is no IP address")]
    Address(String),
    /// Not a multicast address.
    #[error("`{0}` is no multicast group")]
    Group(String),
    /// Not ADDRESS/LENGTH.
    #[error("`{0}` is no ADDRESS/LENGTH")]
    Prefix(String),
    /// A destination with bits beyond its length.
    #[error("`{0}` has bits set beyond the prefix length")]
    HostBits(String),
    /// Addresses of two families in one entry.
    #[error("both IPv4 and IPv6 in one entry")]
    MixedFamilies,
    /// A mark that is not VALUE or VALUE/MASK.
    #[error("`{0}` is no mark (VALUE or VALUE/MASK)")]
    Fwmark(String),
    /// Realms that cannot be read.
    #[error("`{0}` is no realm (TO or FROM/TO, numbers below 65536)")]
    Realms(String),
    /// A route type that does not exist.
    #[error("unknown route type `{0}` (unicast, blackhole, unreachable, prohibit or throw)")]
    RouteType(String),
    /// A unicast route needs a device, the others take none.
    #[error("a unicast route needs `dev`; other types take neither `dev` nor `via`")]
    RouteDevice,
    /// A family that does not exist.
    #[error("unknown family `{0}` (v4 or v6)")]
    Family(String),
    /// A sysctl value that is not a number.
    #[error("expected a whole number or a boolean")]
    SysctlValue,
    /// `[conntrack.timeout.NAME]` is no table of timeouts.
    #[error("[conntrack.timeout.NAME] takes `protocol` and whole seconds by state")]
    Timeouts,
    /// Connection tracking refuses the key or its value.
    #[error("{0}")]
    Sysctl(dataplane::conntrack::ConfigError),
}
