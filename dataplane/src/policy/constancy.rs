//! What the answer of a match, or what a target does, depends on: may the way of one
//! packet through the rules stand for the next one's ([`crate::plan`])?
//!
//! Two packets are compared that belong to one confirmed connection, go the same way
//! in it, are both ESTABLISHED, came in by one port, are whole TCP segments or UDP
//! datagrams without IPv4 options or IPv6 extension headers, meet the same snapshot
//! and the same network, and find the connection with the same status bits. The tables
//! below have an arm for every match and target and no wildcard: whoever adds one has
//! to say.

use super::matches::{ConntrackMatch, Match, TcpMatch};
use super::measure::MeasureMatch;
use super::meta::MetaTarget;
use super::place::PlaceMatch;
use super::target::Target;

/// On what something depends, besides what both packets have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constancy {
    /// On nothing.
    Constant,
    /// On the TCP flags under this mask.
    Flags(u8),
    /// On the TOS byte under this mask.
    Tos(u8),
    /// On the connection's mark. Of a target: it may also change that.
    ConnMark,
    /// On something else, or it does something that every packet must do.
    Varies,
}
use Constancy::{ConnMark, Constant, Flags, Tos, Varies};

impl Match {
    /// On what its answer depends.
    pub fn constancy(&self) -> Constancy {
        match self {
            // Options differ from segment to segment.
            Self::Tcp(TcpMatch { option: Some(_), .. }) => Varies,
            Self::Tcp(TcpMatch { flags: Some(flags), option: None, .. }) => Flags(flags.value.0),
            // Ports are the connection's.
            Self::Tcp(TcpMatch { flags: None, option: None, .. }) => Constant,
            Self::Udp(_) | Self::Multiport(_) => Constant,
            // Never behind a TCP or UDP header.
            Self::Icmp(_) => Varies,
            // Addresses are the connection's.
            Self::IpRange(_) => Constant,
            Self::Conntrack(ConntrackMatch { expire_s: Some(_), .. }) => Varies,
            // State, direction and tuples are the same; the status is compared.
            Self::Conntrack(ConntrackMatch { expire_s: None, .. }) => Constant,
            // It begins with zero; what changed it since was constant, too.
            Self::Mark(_) => Constant,
            Self::Connmark(_) => ConnMark,
            // Any station of a link may send a connection's packets.
            Self::MacSource(_) => Varies,
            Self::Length(_) | Self::Hops(_) => Varies,
            Self::Dscp(_) => Tos(0xfc),
            Self::Tos(tos) => Tos(tos.value.1),
            // To the port's own address.
            Self::PktType(_) => Constant,
            // Who expected a connection is said when it begins.
            Self::Helper(_) => Constant,
            Self::Connbytes(_) | Self::Connlabel(_) | Self::Limit(_) => Varies,
            Self::Protocol(_) | Self::Payload(_) => Varies,
            Self::Place(place) => place.constancy(),
            Self::Measure(measure) => measure.constancy(),
            Self::Tally(_) => Varies,
            // Elements come and go without anybody being told.
            Self::Set(_) => Varies,
        }
    }
}

impl PlaceMatch {
    fn constancy(&self) -> Constancy {
        match self {
            // What the network says of addresses, ports and the packet's mark.
            Self::AddrType(_) | Self::RpFilter(_) | Self::DevGroup(_) | Self::Realm(_) => Constant,
            // Nobody's: it came from a port.
            Self::Owner(_) => Constant,
            // They say the same of every packet.
            Self::Ipsec(_) | Self::Physdev(_) => Constant,
        }
    }
}

impl MeasureMatch {
    fn constancy(&self) -> Constancy {
        match self {
            // Time, chance, amounts.
            Self::Time(_) | Self::Random(_) | Self::Nth(_) | Self::Quota(_) => Varies,
            Self::Nfacct(_) | Self::Rateest(_) => Varies,
            // The worker may be told of another core.
            Self::Cpu(_) => Varies,
            // Asks for the connection that this one was expected by, which may end.
            Self::Cluster(_) => Varies,
        }
    }
}

impl Target {
    /// On what it depends what it does, where it stands.
    pub fn constancy(&self) -> Constancy {
        match self {
            Self::Count | Self::Accept | Self::Drop | Self::Return => Constant,
            Self::Jump(_) | Self::Goto(_) => Constant,
            // An answer to each.
            Self::Reject(_) => Varies,
            Self::Log(_) | Self::Report(_) | Self::Tee(_) => Varies,
            Self::Mark(_) => Constant,
            Self::Connmark(_) => ConnMark,
            // Bytes that change are not part of a plan.
            Self::Header(_) => Varies,
            // What becomes of a packet's tracking is decided before it.
            Self::Ct(_) => Varies,
            Self::Nat(_) => Varies,
            // Reads flags and numbers.
            Self::Synproxy(_) => Varies,
            Self::Meta(meta) => match meta {
                // Hashes addresses and ports, the packets' or the connection's.
                MetaTarget::Classify(_) | MetaTarget::Hmark(_) => Constant,
                MetaTarget::IdleTimer { .. } | MetaTarget::Rateest(_) => Varies,
            },
            Self::Set(_) => Varies,
        }
    }
}
