//! The packets of a flow after its first: each side answers what it has really been sent, so
//! that translation is met as the ends meet it.

use std::net::IpAddr;

use dataplane::packet::{Family, Mac, Parsed};
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::{self, Frame, proto};

use super::file::Step;
use crate::explain::Description;
use crate::explain::describe::ip;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Where the server's stream begins.
const SERVER_SEQ: u32 = 20_001;

/// The ends of a packet as one side sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) src: IpAddr,
    pub(super) sport: u16,
    pub(super) dst: IpAddr,
    pub(super) dport: u16,
}

impl Ends {
    fn of(parsed: &Parsed) -> Self {
        let (src, dst) = (ip(parsed.family, parsed.src), ip(parsed.family, parsed.dst));
        Self { src, sport: parsed.sport, dst, dport: parsed.dport }
    }

    /// Of a frame that is a usable packet.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        parse(frame).map(|parsed| Self::of(&parsed))
    }

    fn turned(self) -> Self {
        let Self { src, sport, dst, dport } = self;
        Self { src: dst, sport: dport, dst: src, dport: sport }
    }
}

fn parse(frame: &[u8]) -> Option<Parsed> {
    match wire::parse(frame, Mac::default()) {
        Ok(Frame::Ip(parsed)) => Some(parsed),
        _ => None,
    }
}

/// Who answers how when all goes well, after the first packet: from the client or not, and
/// with which flags.
pub(super) fn answers(first: &Description) -> Vec<(bool, Option<u8>)> {
    match parse(&first.frame) {
        Some(parsed) if parsed.proto == proto::TCP => {
            vec![(false, Some(SYN | ACK)), (true, Some(ACK))]
        }
        _ => vec![(false, None)],
    }
}

/// A flow under way.
#[derive(Debug)]
pub(super) struct Talk {
    family: Family,
    proto: u8,
    /// What the client sends.
    client: Ends,
    /// What the server has received of it.
    server: Ends,
    /// Where the streams stand: the client's, the server's.
    seq: [u32; 2],
    /// The first packet's ICMP type, and what an echo is told by on either side.
    kind: u8,
    ids: [u32; 2],
}

impl Talk {
    /// `None`: a frame that is no packet, which nobody answers.
    pub(super) fn new(frame: &[u8]) -> Option<Self> {
        let parsed = parse(frame)?;
        let ends = Ends::of(&parsed);
        let l4 = parsed.l4_bytes(frame);
        let kind = l4.first().copied().unwrap_or(0);
        let id = word(l4, 4);
        let seq = [word(l4, 4), SERVER_SEQ];
        let (family, proto) = (parsed.family, parsed.proto);
        Some(Self { family, proto, client: ends, server: ends, seq, kind, ids: [id, id] })
    }

    /// A packet of one side was sent.
    pub(super) fn sent(&mut self, from_client: bool, frame: &[u8]) {
        let Some(parsed) = parse(frame).filter(|it| it.proto == proto::TCP) else { return };
        let l4 = parsed.l4_bytes(frame);
        let header = usize::from(l4.get(12).map_or(0, |byte| byte >> 4)) * 4;
        let mut length = l4.len().saturating_sub(header) as u32;
        length += u32::from(parsed.tcp_flags & SYN != 0) + u32::from(parsed.tcp_flags & FIN != 0);
        let side = usize::from(!from_client);
        self.seq[side] = word(l4, 4).wrapping_add(length);
    }

    /// A packet of the client has come to the server, like this.
    pub(super) fn arrived(&mut self, frame: &[u8]) {
        let Some(parsed) = parse(frame) else { return };
        self.server = Ends::of(&parsed);
        self.ids[1] = word(parsed.l4_bytes(frame), 4);
    }

    /// The next packet of one side.
    pub(super) fn next(&self, step: &Step) -> Vec<u8> {
        let ends = if step.from_client { self.client } else { self.server.turned() };
        let side = usize::from(!step.from_client);
        let l4 = match self.proto {
            proto::TCP => {
                let flags = step.flags.unwrap_or(ACK);
                let ack = if flags & ACK == 0 { 0 } else { self.seq[1 - side] };
                let tcp = Tcp::new(ends.sport, ends.dport, flags);
                L4::Tcp(Tcp { seq: self.seq[side], ack, ..tcp })
            }
            proto::UDP | proto::UDPLITE => L4::Udp {
                sport: ends.sport,
                dport: ends.dport,
                length: None,
                lite: self.proto == proto::UDPLITE,
            },
            proto::SCTP => L4::Sctp { sport: ends.sport, dport: ends.dport, tag: 0 },
            proto::ICMP | proto::ICMPV6 => {
                let usual = if step.from_client { self.kind } else { self.answer_kind() };
                let kind = step.kind.unwrap_or(usual);
                L4::Icmp { kind, code: step.code, word: self.ids[side] }
            }
            other => L4::Raw(other),
        };
        Packet::between(ends.src, ends.dst, l4).payload_len(step.length.into()).build()
    }

    fn answer_kind(&self) -> u8 {
        match (self.family, self.kind) {
            (Family::V4, 8) => 0,
            (Family::V6, 128) => 129,
            // Timestamps and their like are answered by the next type.
            (Family::V4, kind @ (13 | 15 | 17)) => kind + 1,
            (_, kind) => kind,
        }
    }
}

/// Four bytes of a header; zero behind its end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_be_bytes)
}
