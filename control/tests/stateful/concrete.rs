//! Makes a script's packets concrete for one side: replies go where that side's
//! translation says, errors quote what that side sent.

use std::net::IpAddr;

use super::script::{
    Batch, Body, Complaint, Dir, End, Flow, Harm, Packet, Place, Reporter, Step, Twist,
};
use super::sctp::crc32c;
use crate::lab::frames::{self, Ip, Tcp};
use crate::lab::{Sent, address, host_mac, port_mac};

/// Stands for a port where the local stack is meant.
pub const HOST: usize = 99;

/// The identification of the scripts' own errors.
pub const COMPLAINT_ID: u16 = 0x4321;

/// A packet ready to be put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where.
    pub place: Place,
    /// The IP packet.
    pub packet: Vec<u8>,
}

impl Ready {
    /// The whole frame.
    pub fn frame(&self) -> Vec<u8> {
        match self.place {
            Place::Port(port, mac) => frames::ip_frame(port_mac(port), mac, &self.packet),
            Place::Router => frames::ip_frame([0; 6], [0; 6], &self.packet),
        }
    }
}

/// The parts of an IP packet that scripts care about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Layer 4 protocol.
    pub proto: u8,
    /// Where layer 4 begins.
    pub l4: usize,
    /// Source and destination port; type and code, then identifier for ICMP.
    pub ports: (u16, u16),
    /// Whether it is not a first fragment.
    pub later: bool,
}

/// ICMP or ICMPv6.
pub fn is_icmp(proto: u8) -> bool {
    matches!(proto, 1 | 58)
}

/// Looks into an IP packet; `None` when it is too short.
pub fn peek(packet: &[u8]) -> Option<Peek> {
    let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (src, dst, mut proto, mut l4, mut later): (IpAddr, IpAddr, _, _, _);
    if packet.first()? >> 4 == 6 {
        src = <[u8; 16]>::try_from(packet.get(8..24)?).ok()?.into();
        dst = <[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into();
        (proto, l4, later) = (packet[6], 40, false);
        if proto == 44 {
            later = word(42)? & 0xfff8 != 0;
            (proto, l4) = (packet[40], 48);
        }
    } else {
        src = <[u8; 4]>::try_from(packet.get(12..16)?).ok()?.into();
        dst = <[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into();
        (proto, l4) = (packet[9], usize::from(packet[0] & 15) * 4);
        later = word(6)? & 0x1fff != 0;
    }
    let ports = if is_icmp(proto) {
        (word(l4)?, word(l4 + 4).unwrap_or(0))
    } else {
        (word(l4)?, word(l4 + 2).unwrap_or(0))
    };
    Some(Peek { src, dst, proto, l4, ports, later })
}

/// A packet that was seen, and where an answer to it enters.
#[derive(Clone, Debug)]
struct Seen {
    place: Place,
    packet: Vec<u8>,
}

/// What one side has shown of a flow so far, by direction.
#[derive(Clone, Debug, Default)]
struct Trace {
    out: [Option<Seen>; 2],
    put: [Option<Seen>; 2],
}

/// One side's knowledge. See the head of this file.
#[derive(Debug)]
pub struct Concrete {
    v6: bool,
    run: u32,
    flows: Vec<Flow>,
    traces: Vec<Trace>,
}

impl Concrete {
    /// Knows nothing yet. Identifications differ from run to run: the kernel may
    /// still hold fragments of an earlier one.
    pub fn new(batch: &Batch, run: u32) -> Self {
        let traces = vec![Trace::default(); batch.flows.len()];
        Self { v6: batch.v6, run, flows: batch.flows.clone(), traces }
    }

    /// The packets of a step, in order.
    pub fn make(&mut self, step: &Step) -> Vec<Ready> {
        match step {
            Step::Packet(packet) => self.packet(packet),
            Step::Complaint(complaint) => self.complaint(complaint).into_iter().collect(),
        }
    }

    /// Takes in what came of one of a step's packets, the local stack's share
    /// as sent on [`HOST`].
    pub fn learn(&mut self, step: &Step, ready: &Ready, sent: &[Sent]) {
        let Step::Packet(Packet { flow, dir, .. }) = step else { return };
        let trace = &mut self.traces[*flow];
        let Some(own) = peek(&ready.packet).filter(|own| !own.later) else { return };
        let continues = |packet: &[u8]| {
            peek(packet).is_some_and(|seen| {
                let back = (seen.dst, seen.ports.1, seen.src) == (own.src, own.ports.0, own.dst);
                let icmp = is_icmp(own.proto);
                let same = if icmp { seen.ports.0 == own.ports.0 } else { !back };
                seen.proto == own.proto && !seen.later && same
            })
        };
        for Sent { port, frame } in sent {
            let Some(packet) = frame.get(14..).filter(|packet| continues(packet)) else { continue };
            let mac = frame[..6].try_into().expect("six bytes");
            let place = if *port == HOST { Place::Router } else { Place::Port(*port, mac) };
            trace.out[*dir as usize] = Some(Seen { place, packet: packet.to_vec() });
        }
    }

    /// Source, destination and entry of a flow's next packet in that direction.
    fn reach(&self, flow: usize, dir: Dir) -> (End, u16, IpAddr, u16) {
        let Flow { client, server, sport, dport, proto } = self.flows[flow];
        if dir == Dir::Original {
            let first = if is_icmp(proto) { sport } else { dport };
            return (client, sport, server.address, first);
        }
        let seen = self.traces[flow].out[Dir::Original as usize].as_ref();
        let Some((seen, peek)) = seen.and_then(|seen| Some((seen, peek(&seen.packet)?))) else {
            return (server, if is_icmp(proto) { sport } else { dport }, client.address, sport);
        };
        let from = End { address: peek.dst, place: seen.place };
        if is_icmp(proto) {
            return (from, peek.ports.1, peek.src, peek.ports.1);
        }
        (from, peek.ports.1, peek.src, peek.ports.0)
    }

    fn packet(&mut self, packet: &Packet) -> Vec<Ready> {
        let (from, sport, to, dport) = self.reach(packet.flow, packet.dir);
        let mut ip = Ip::new(from.address, to, self.flows[packet.flow].proto);
        let id = packet.id.wrapping_add((self.run as u16).wrapping_mul(977)).max(1);
        (ip.ttl, ip.tos, ip.id) = (packet.ttl, packet.tos, id);
        let mut l4 = layer4(&ip, &packet.body, sport, dport);
        match packet.harm {
            Harm::None => {}
            // Arithmetic would not make it wrong by the same amount.
            Harm::Checksum if matches!(packet.body, Body::Sctp(..)) => {
                l4[8..12].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
            }
            Harm::Checksum => {
                let at = (l4.len() & !1).saturating_sub(2);
                spoil(&mut l4, at);
            }
            Harm::Cut(keep) => l4.truncate(keep),
        }
        let place = from.place;
        let ready: Vec<Ready> = if packet.pieces.is_empty() {
            vec![Ready { place, packet: ip.packet(&l4) }]
        } else {
            let pieces = packet.pieces.iter();
            pieces
                .filter_map(|&(start, end)| piece(&ip, self.run, &l4, start, end))
                .map(|packet| Ready { place, packet })
                .collect()
        };
        if let Some(first) = ready.first() {
            let put = Seen { place, packet: first.packet.clone() };
            self.traces[packet.flow].put[packet.dir as usize] = Some(put);
        }
        ready
    }

    fn complaint(&self, complaint: &Complaint) -> Option<Ready> {
        let trace = &self.traces[complaint.flow];
        let about = complaint.about as usize;
        let seen = trace.out[about].as_ref().or(trace.put[about].as_ref())?;
        let seen_peek = peek(&seen.packet)?;
        let quoted = quote(seen, &seen_peek, complaint)?;
        let home = match seen.place {
            Place::Port(port, _) => port,
            Place::Router => 0,
        };
        let (from, place) = match complaint.reporter {
            Reporter::Receiver => (seen_peek.dst, seen.place),
            Reporter::Gateway => {
                (address(self.v6, home, 254), Place::Port(home, host_mac(home, 254)))
            }
            Reporter::Host(port, host) => {
                (address(self.v6, port, host), Place::Port(port, host_mac(port, host)))
            }
        };
        let mut ip =
            Ip::new(from, complaint.to.unwrap_or(seen_peek.src), if self.v6 { 58 } else { 1 });
        ip.id = COMPLAINT_ID;
        let mut l4 = frames::icmp(&ip, complaint.kind, complaint.code, complaint.word, &quoted);
        if complaint.twist == Twist::Checksum {
            spoil(&mut l4, 2);
        }
        Some(Ready { place, packet: ip.packet(&l4) })
    }
}

/// Adds one to a word, in the checksum's arithmetic: wrong by the same amount on
/// both sides, whatever ports they chose.
fn spoil(l4: &mut [u8], at: usize) {
    if let Some(word) = l4.get_mut(at..at + 2) {
        let value = u16::from_be_bytes([word[0], word[1]]);
        word.copy_from_slice(&value.checked_add(1).unwrap_or(1).to_be_bytes());
    }
}

/// The quotation in an ICMP error.
fn quote(seen: &Seen, peek: &Peek, complaint: &Complaint) -> Option<Vec<u8>> {
    let mut quoted = seen.packet.clone();
    quoted.truncate(peek.l4 + complaint.keep);
    let v6 = peek.src.is_ipv6();
    let (ttl, source, destination) = if v6 { (7, 23, 39) } else { (8, 15, 19) };
    match complaint.twist {
        Twist::None | Twist::Checksum => {}
        Twist::Older => quoted[ttl] = quoted[ttl].saturating_sub(2),
        Twist::Byte(at) => spoil(&mut quoted, peek.l4 + (at & !1)),
        Twist::Source => quoted[source] ^= 1,
        Twist::Destination => quoted[destination] ^= 1,
        Twist::Fragment if !v6 => quoted[7] = 3,
        Twist::FirstFragment if !v6 => quoted[6] = 0x20,
        Twist::Fragment | Twist::FirstFragment => return None,
    }
    // A router on the way would have kept the header's checksum right.
    let header = quoted.len().min(peek.l4);
    if !v6 && header >= 20 && complaint.twist != Twist::Older {
        quoted[10..12].fill(0);
        let sum = frames::checksum(&[&quoted[..header]]);
        quoted[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    Some(quoted)
}

fn layer4(ip: &Ip, body: &Body, sport: u16, dport: u16) -> Vec<u8> {
    match body {
        Body::Tcp(segment) => Tcp {
            sport,
            dport,
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            options: segment.options.clone(),
            payload: segment.payload,
        }
        .build(ip),
        Body::Udp(payload) => frames::udp(ip, sport, dport, *payload),
        Body::UdpUnsummed(payload) => {
            let mut l4 = frames::udp(ip, sport, dport, *payload);
            l4[6..8].fill(0);
            l4
        }
        Body::Icmp(kind, code, sequence, payload) => {
            let ([a, b], [c, d]) = (sport.to_be_bytes(), sequence.to_be_bytes());
            let rest: Vec<u8> = (0..*payload).map(|n| n as u8).collect();
            frames::icmp(ip, *kind, *code, [a, b, c, d], &rest)
        }
        Body::Sctp(tag, chunks) => {
            let mut l4 = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
            l4.extend(tag.to_be_bytes());
            l4.extend([0; 4]);
            l4.extend(chunks);
            let sum = crc32c(&l4);
            l4[8..12].copy_from_slice(&sum);
            l4
        }
        Body::Raw(bytes) => bytes.clone(),
    }
}

/// One fragment: bytes `start..end` of layer 4; the last one says so.
fn piece(ip: &Ip, run: u32, l4: &[u8], start: usize, end: usize) -> Option<Vec<u8>> {
    let end = end.min(l4.len());
    let bytes = l4.get(start..end).filter(|bytes| !bytes.is_empty())?;
    let more = end < l4.len();
    let mut part = ip.clone();
    if ip.v6() {
        let word = (start as u16 & 0xfff8) | u16::from(more);
        let [high, low] = word.to_be_bytes();
        part.first_extension = 44;
        part.options = vec![ip.proto, 0, high, low];
        part.options.extend((run << 16 | u32::from(ip.id)).to_be_bytes());
    } else {
        part.frag = (start / 8) as u16 | if more { 0x2000 } else { 0 };
    }
    Some(part.packet(bytes))
}
