//! Targets as plain data.

use super::ChainId;
use super::header::prefix::PrefixTarget;
use super::header::strip::OptionKinds;
use super::matches::{AddressMask, Range};
use super::meta::MetaTarget;
use super::report::ReportTarget;
use super::tee::TeeTarget;
use crate::sets::SetTarget;

/// `--reject-with`, both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    /// A TCP reset; only valid for rules with `-p tcp`.
    TcpReset,
    /// An ICMP destination-unreachable (type 3) with this code.
    Icmp(u8),
    /// An ICMPv6 destination-unreachable (type 1) with this code.
    Icmp6(u8),
}

/// `-j LOG` options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogTarget {
    /// syslog level 0-7; iptables' default is 4 (warning).
    pub level: u8,
    /// At most 29 bytes.
    pub prefix: Box<str>,
    /// `--log-tcp-sequence`.
    pub tcp_sequence: bool,
    /// `--log-tcp-options`.
    pub tcp_options: bool,
    /// `--log-ip-options`.
    pub ip_options: bool,
    /// `--log-uid`.
    pub uid: bool,
    /// `--log-macdecode`.
    pub mac_decode: bool,
}

/// `-j MARK` in its canonical form: `mark = (mark & !clear) ^ toggle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MarkTarget {
    /// Bits cleared first.
    pub clear: u32,
    /// Bits toggled afterwards.
    pub toggle: u32,
}

/// `-j CONNMARK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnmarkTarget {
    /// `--set-xmark VALUE/MASK`: `ctmark = (ctmark & !clear) ^ toggle`.
    Set {
        /// Bits cleared first.
        clear: u32,
        /// Bits toggled afterwards.
        toggle: u32,
    },
    /// `--save-mark`: `ctmark = (ctmark & !ctmask) ^ (nfmark & nfmask)`.
    Save {
        /// Mask on the packet's mark.
        nfmask: u32,
        /// Mask on the connection's mark.
        ctmask: u32,
    },
    /// `--restore-mark`: `nfmark = (nfmark & !nfmask) ^ (ctmark & ctmask)`.
    Restore {
        /// Mask on the packet's mark.
        nfmask: u32,
        /// Mask on the connection's mark.
        ctmask: u32,
    },
}

/// What a translation may choose from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// Addresses, inclusive, in the common form; `None` keeps the packet's own.
    pub addresses: Option<Range<u128>>,
    /// Ports (ICMP identifiers, GRE keys), inclusive; `None` leaves them to the choice.
    pub ports: Option<Range<u16>>,
    /// `LOW-HIGH/BASE`: the port that `LOW` stands for; ports move by the distance.
    pub base_port: Option<u16>,
    /// `--random`.
    pub random: bool,
    /// `--random-fully`.
    pub random_fully: bool,
    /// `--persistent`.
    pub persistent: bool,
}

/// The targets of the nat table. Each ends the walk; the engine carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatTarget {
    /// `SNAT --to-source`.
    Snat(NatRange),
    /// `DNAT --to-destination`.
    Dnat(NatRange),
    /// `MASQUERADE`: to an address of the output port.
    Masquerade(NatRange),
    /// `REDIRECT`: to an address of the input port, or to loopback from OUTPUT.
    Redirect(NatRange),
    /// `NETMAP --to`: host bits stay. Destination in PREROUTING and OUTPUT, else source.
    Netmap(AddressMask),
}

/// Connection helpers. State files keep the numbers: one that was used stays; 15 is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HelperKind {
    /// `ftp` (TCP).
    Ftp = 1,
    /// `tftp` (UDP).
    Tftp = 2,
    /// `irc` (TCP).
    Irc = 3,
    /// `sip` (UDP and TCP).
    Sip = 4,
    /// `amanda` (UDP).
    Amanda = 5,
    /// `sane` (TCP).
    Sane = 6,
    /// `netbios-ns` (UDP).
    NetbiosNs = 7,
    /// `snmp` (UDP).
    Snmp = 8,
    /// `snmp_trap` (UDP).
    SnmpTrap = 9,
    /// `pptp` (TCP).
    Pptp = 10,
    /// `RAS` (UDP).
    Ras = 11,
    /// `Q.931` (TCP).
    Q931 = 12,
    /// `H.245` (UDP).
    H245 = 13,
}

impl HelperKind {
    /// All helpers.
    pub const ALL: [Self; 13] = [
        Self::Ftp,
        Self::Tftp,
        Self::Irc,
        Self::Sip,
        Self::Amanda,
        Self::Sane,
        Self::NetbiosNs,
        Self::Snmp,
        Self::SnmpTrap,
        Self::Pptp,
        Self::Ras,
        Self::Q931,
        Self::H245,
    ];
    /// Whether nothing that it rewrites changes its length.
    pub const fn keeps_lengths(self) -> bool {
        matches!(self, Self::Ras | Self::Q931 | Self::H245)
    }
    /// The name that `--helper` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ftp => "ftp",
            Self::Tftp => "tftp",
            Self::Irc => "irc",
            Self::Sip => "sip",
            Self::Amanda => "amanda",
            Self::Sane => "sane",
            Self::NetbiosNs => "netbios-ns",
            Self::Snmp => "snmp",
            Self::SnmpTrap => "snmp_trap",
            Self::Pptp => "pptp",
            Self::Ras => "RAS",
            Self::Q931 => "Q.931",
            Self::H245 => "H.245",
        }
    }
}

/// Which direction's tuples a zone sets apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneScope {
    /// `--zone`.
    Both,
    /// `--zone-orig`.
    Original,
    /// `--zone-reply`.
    Reply,
}

/// Where the zone's number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ZoneId {
    /// This one.
    Fixed(u16),
    /// The low half of the packet's mark (`--zone mark`).
    Mark,
}

/// `-j CT` in the raw table; `NOTRACK` is `CT --notrack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtTarget {
    /// Written as `-j NOTRACK`, which is another name of `CT --notrack`.
    pub alias: bool,
    /// `--notrack`.
    pub notrack: bool,
    /// `--zone`, `--zone-orig`, `--zone-reply`.
    pub zone: Option<(ZoneScope, ZoneId)>,
    /// `--helper`, with the protocol that the rule's `-p` fixes.
    pub helper: Option<HelperKind>,
    /// `--timeout`: the named policy.
    pub timeout: Option<Box<str>>,
    /// `--ctevents`: bits in the kernel's numbering.
    pub events: Option<u32>,
    /// `--expevents`.
    pub expect_events: Option<u32>,
}

/// A change to the TTL or hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HopChange {
    /// `--ttl-set`.
    Set(u8),
    /// `--ttl-inc`; stops at 255.
    Increment(u8),
    /// `--ttl-dec`; stops at 0.
    Decrement(u8),
}

/// `-j TCPMSS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpMss {
    /// `--set-mss`: never raises.
    Set(u16),
    /// `--clamp-mss-to-pmtu`.
    ClampToPmtu,
}

/// `-j ECN`: what `None` does not name stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EcnTarget {
    /// `--ecn-tcp-ece`; `--ecn-tcp-remove` clears it and the next.
    pub ece: Option<bool>,
    /// `--ecn-tcp-cwr`.
    pub cwr: Option<bool>,
    /// `--ecn-ip-ect`: the lower two bits of the TOS byte.
    pub ect: Option<u8>,
}

/// Targets that change the packet's header and let the walk go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderTarget {
    /// `TTL`, `HL`.
    Hops(HopChange),
    /// `TOS --set-tos VALUE/MASK`: `tos = (tos & !clear) ^ toggle`.
    Tos {
        /// Bits cleared first.
        clear: u8,
        /// Bits toggled afterwards.
        toggle: u8,
    },
    /// `DSCP --set-dscp`: the upper six bits of the TOS byte.
    Dscp(u8),
    /// `ECN` (IPv4 only).
    Ecn(EcnTarget),
    /// `TCPMSS`.
    TcpMss(TcpMss),
    /// `TCPOPTSTRIP`.
    StripOptions(OptionKinds),
    /// `CHECKSUM --checksum-fill`.
    FillChecksum,
    /// `SNPT`, `DNPT` (IPv6 only).
    Prefix(PrefixTarget),
}

impl NatTarget {
    /// The name that `-j` takes.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Snat(_) => "SNAT",
            Self::Dnat(_) => "DNAT",
            Self::Masquerade(_) => "MASQUERADE",
            Self::Redirect(_) => "REDIRECT",
            Self::Netmap(_) => "NETMAP",
        }
    }
}

impl CtTarget {
    /// The name that `-j` takes.
    pub const fn name(&self) -> &'static str {
        if self.alias { "NOTRACK" } else { "CT" }
    }
}

impl HeaderTarget {
    /// The name that `-j` takes (`TTL` stands for `HL` too).
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hops(_) => "TTL",
            Self::Tos { .. } => "TOS",
            Self::Dscp(_) => "DSCP",
            Self::Ecn(_) => "ECN",
            Self::TcpMss(_) => "TCPMSS",
            Self::StripOptions(_) => "TCPOPTSTRIP",
            Self::FillChecksum => "CHECKSUM",
            Self::Prefix(prefix) => prefix.name(),
        }
    }
}

/// `-j SYNPROXY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SynproxyTarget {
    /// `--mss`, for clients that do not say.
    pub mss: Option<u16>,
    /// `--wscale`.
    pub wscale: Option<u8>,
    /// `--sack-perm`.
    pub sack_perm: bool,
    /// `--timestamp`.
    pub timestamp: bool,
    /// `--ecn`.
    pub ecn: bool,
}

/// What a rule does.
#[derive(Clone, Debug)]
pub enum Target {
    /// No `-j`: only counts.
    Count,
    /// ACCEPT: ends this table's walk at this hook.
    Accept,
    /// DROP.
    Drop,
    /// RETURN: back to the caller, or the policy in a built-in chain.
    Return,
    /// Jump to a user chain.
    Jump(ChainId),
    /// Continue in a user chain; its end returns to our caller.
    Goto(ChainId),
    /// REJECT.
    Reject(RejectWith),
    /// LOG, then continue.
    Log(LogTarget),
    /// MARK, then continue.
    Mark(MarkTarget),
    /// CONNMARK, then continue.
    Connmark(ConnmarkTarget),
    /// A header change, then continue.
    Header(HeaderTarget),
    /// CT or NOTRACK, then continue.
    Ct(CtTarget),
    /// SNAT, DNAT and their kin: ends the walk.
    Nat(NatTarget),
    /// SYNPROXY: ends the walk for the packets that it takes.
    Synproxy(SynproxyTarget),
    /// NFLOG, AUDIT, TRACE, then continue.
    Report(ReportTarget),
    /// TEE, then continue.
    Tee(TeeTarget),
    /// CLASSIFY and its kin, then continue.
    Meta(MetaTarget),
    /// SET, then continue.
    Set(SetTarget),
}
