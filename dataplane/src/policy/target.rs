//! Targets as plain data.

use super::ChainId;

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

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}
