//! Packets of as many flows as wanted, made from their numbers: at ten million flows,
//! stored frames would be what is measured.

use dataplane::conntrack::Direction;
use dataplane::packet::{Family, Parsed};
use dataplane::wire::build::{ETH_DST, L4, Packet, Tcp};
use dataplane::wire::{Frame, parse};

/// Packets that are looked up together.
pub(super) const BURST: usize = 64;
/// Flow numbers from here on are never in the table.
pub(super) const STRANGERS: u64 = 1 << 32;

const FRAME: usize = 96;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// What the flows speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Traffic {
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
}

impl Traffic {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp4 => "tcp4",
            Self::Udp4 => "udp4",
            Self::Tcp6 => "tcp6",
            Self::Udp6 => "udp6",
        }
    }
    const fn family(self) -> Family {
        match self {
            Self::Tcp4 | Self::Udp4 => Family::V4,
            Self::Tcp6 | Self::Udp6 => Family::V6,
        }
    }
    const fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp4 | Self::Tcp6)
    }
}

/// What a packet is to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// TCP's SYN.
    Opens,
    /// TCP's bare acknowledgement: opens a connection, too, that was not seen to begin.
    Goes,
    /// The same of the other end.
    Answers,
}

/// One packet, as the engine gives it to tracking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) parsed: Parsed,
    frame: [u8; FRAME],
    len: usize,
}

impl Made {
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame[..self.len]
    }
}

/// Makes packets.
#[derive(Debug)]
pub(super) struct Maker {
    traffic: Traffic,
    patterns: [Made; 3],
}

impl Maker {
    pub(super) fn new(traffic: Traffic) -> Result<Self, String> {
        let pattern = |role| pattern(traffic, role).ok_or("the pattern is no IP packet");
        Ok(Self {
            traffic,
            patterns: [pattern(Role::Opens)?, pattern(Role::Goes)?, pattern(Role::Answers)?],
        })
    }

    /// A packet of a flow: every number below 2^24 is another one, and so is every such
    /// number above [`STRANGERS`].
    pub(super) fn make(&self, flow: u64, role: Role) -> Made {
        let mut made = self.patterns[role as usize];
        // Neighbours in number are not in one network: a bijection of 24 bits.
        let host = (flow as u32).wrapping_mul(0x9e_3779) & 0xff_ffff;
        let inside = if flow >= STRANGERS { 11 << 24 } else { 10 << 24 } | host;
        let outside = 0xc612_0000 | host >> 3 & 0xffff;
        let port = 1024 + (host.wrapping_mul(0x85eb_ca6b) >> 17) as u16;
        let widen = |low: u32| match self.traffic.family() {
            Family::V4 => u128::from(low),
            Family::V6 => 0x2001_0db8 << 96 | u128::from(low),
        };
        let mut ends = [(widen(inside), port), (widen(outside), 443)];
        if role == Role::Answers {
            ends.reverse();
        }
        let [(src, sport), (dst, dport)] = ends;
        let at = usize::from(made.parsed.l4);
        made.frame[at..at + 2].copy_from_slice(&sport.to_be_bytes());
        made.frame[at + 2..at + 4].copy_from_slice(&dport.to_be_bytes());
        made.parsed = Parsed { src, dst, sport, dport, ..made.parsed };
        made
    }

    /// A packet of an established flow.
    pub(super) fn in_flow(&self, flow: u64, direction: Direction) -> Made {
        match direction {
            Direction::Original => self.make(flow, Role::Goes),
            Direction::Reply => self.make(flow, Role::Answers),
        }
    }
}

fn pattern(traffic: Traffic, role: Role) -> Option<Made> {
    let (src, dst) = match traffic.family() {
        Family::V4 => ("10.0.0.1", "198.18.0.1"),
        Family::V6 => ("2001:db8::1", "2001:db8::2"),
    };
    let mut packet = Packet::udp(src, 1, dst, 2);
    if traffic.is_tcp() {
        let (seq, ack) = if role == Role::Answers { (5000, 1000) } else { (1000, 5000) };
        let flags = if role == Role::Opens { SYN } else { ACK };
        let ack = if role == Role::Opens { 0 } else { ack };
        packet.l4 = L4::Tcp(Tcp {
            sport: 1,
            dport: 2,
            seq,
            ack,
            flags,
            window: 8192,
            urgent: 0,
            options: Vec::new(),
            offset: None,
            reserved: 0,
        });
    }
    let bytes = packet.build();
    let Ok(Frame::Ip(parsed)) = parse(&bytes, ETH_DST) else { return None };
    let mut frame = [0; FRAME];
    frame.get_mut(..bytes.len())?.copy_from_slice(&bytes);
    Some(Made { parsed, frame, len: bytes.len() })
}
