//! Frames of flows, and what must have become of them on the other side: written
//! without the data plane's own wire code, which they are to check.

use dataplane::packet::{Family, PortId};

/// Ethernet header.
const ETHERNET: usize = 14;

/// The inside and the outside port.
pub(super) const PORTS: [PortId; 2] = [PortId(0), PortId(1)];
/// Their addresses.
const OWN: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];
/// The router behind each.
const PEER: [[u8; 6]; 2] = [[2, 0, 0, 0, 2, 1], [2, 0, 0, 0, 2, 2]];

/// Both ends of a packet. IPv4 addresses stand in the low 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) family: Family,
    pub(super) proto: u8,
    pub(super) src: u128,
    pub(super) dst: u128,
    pub(super) sport: u16,
    pub(super) dport: u16,
}

impl Flow {
    /// As the answer has it.
    pub(super) fn reversed(self) -> Self {
        let Self { src, dst, sport, dport, .. } = self;
        Self { src: dst, dst: src, sport: dport, dport: sport, ..self }
    }
}

/// What a TCP header says beside its ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
}

/// TCP flags.
pub(super) mod flag {
    pub(crate) const SYN: u8 = 2;
    pub(crate) const ACK: u8 = 16;
}

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Bytes of the IP header.
fn ip_header(family: Family) -> usize {
    match family {
        Family::V4 => 20,
        Family::V6 => 40,
    }
}

/// Bytes of the protocol's header.
fn l4_header(proto: u8) -> usize {
    match proto {
        TCP => 20,
        UDP => 8,
        _ => 0,
    }
}

/// Bytes of a frame that its headers take.
pub(super) fn headers(family: Family, proto: u8) -> usize {
    ETHERNET + ip_header(family) + l4_header(proto)
}

/// A frame of `len` bytes (without the frame check sequence) that arrives on the port with
/// this index; its payload is zeros. A pure TCP acknowledgement has padding instead.
pub(super) fn frame(flow: &Flow, segment: Segment, port: usize, len: usize) -> Vec<u8> {
    let l4 = ETHERNET + ip_header(flow.family);
    let mut frame = vec![0; len.max(headers(flow.family, flow.proto))];
    let bare = flow.proto == TCP && len <= 80;
    let end = if bare { l4 + 20 } else { frame.len() };
    let present = (end - l4) as u16;
    frame[..6].copy_from_slice(&OWN[port]);
    frame[6..12].copy_from_slice(&PEER[port]);
    match flow.family {
        Family::V4 => {
            frame[12..14].copy_from_slice(&[8, 0]);
            let ip = &mut frame[ETHERNET..l4];
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(20 + present).to_be_bytes());
            ip[6] = 0x40;
            (ip[8], ip[9]) = (64, flow.proto);
            ip[12..16].copy_from_slice(&(flow.src as u32).to_be_bytes());
            ip[16..20].copy_from_slice(&(flow.dst as u32).to_be_bytes());
        }
        Family::V6 => {
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            let ip = &mut frame[ETHERNET..l4];
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&present.to_be_bytes());
            (ip[6], ip[7]) = (flow.proto, 64);
            ip[8..24].copy_from_slice(&flow.src.to_be_bytes());
            ip[24..40].copy_from_slice(&flow.dst.to_be_bytes());
        }
    }
    let header = &mut frame[l4..end];
    if flow.proto == TCP || flow.proto == UDP {
        header[..2].copy_from_slice(&flow.sport.to_be_bytes());
        header[2..4].copy_from_slice(&flow.dport.to_be_bytes());
    }
    if flow.proto == TCP {
        header[4..8].copy_from_slice(&segment.seq.to_be_bytes());
        header[8..12].copy_from_slice(&segment.ack.to_be_bytes());
        (header[12], header[13]) = (0x50, segment.flags);
        header[14..16].copy_from_slice(&[0xff, 0xff]);
    } else if flow.proto == UDP {
        header[4..6].copy_from_slice(&present.to_be_bytes());
    }
    fill_checksums(&mut frame);
    frame
}

/// The ends of a frame that this module wrote.
pub(super) fn flow(frame: &[u8]) -> Flow {
    let family = if frame[12] == 8 { Family::V4 } else { Family::V6 };
    let l4 = ETHERNET + ip_header(family);
    let (proto, src, dst) = match family {
        Family::V4 => (frame[23], number(&frame[26..30]), number(&frame[30..34])),
        Family::V6 => (frame[20], number(&frame[22..38]), number(&frame[38..54])),
    };
    let port = |at: usize| match proto {
        TCP | UDP => number(&frame[l4 + at..l4 + at + 2]) as u16,
        _ => 0,
    };
    Flow { family, proto, src, dst, sport: port(0), dport: port(2) }
}

/// What must leave for `arrived`, which came on the port with this index, with these ends.
pub(super) fn forwarded(arrived: &[u8], port: usize, ends: &Flow) -> Vec<u8> {
    let mut frame = arrived.to_vec();
    let l4 = ETHERNET + ip_header(ends.family);
    frame[..6].copy_from_slice(&PEER[1 - port]);
    frame[6..12].copy_from_slice(&OWN[1 - port]);
    match ends.family {
        Family::V4 => {
            frame[22] -= 1;
            frame[26..30].copy_from_slice(&(ends.src as u32).to_be_bytes());
            frame[30..34].copy_from_slice(&(ends.dst as u32).to_be_bytes());
            frame.truncate(ETHERNET + number(&frame[16..18]) as usize);
        }
        Family::V6 => {
            frame[21] -= 1;
            frame[22..38].copy_from_slice(&ends.src.to_be_bytes());
            frame[38..54].copy_from_slice(&ends.dst.to_be_bytes());
            frame.truncate(l4 + number(&frame[18..20]) as usize);
        }
    }
    if ends.proto == TCP || ends.proto == UDP {
        frame[l4..l4 + 2].copy_from_slice(&ends.sport.to_be_bytes());
        frame[l4 + 2..l4 + 4].copy_from_slice(&ends.dport.to_be_bytes());
    }
    fill_checksums(&mut frame);
    frame
}

/// Computes every checksum afresh.
fn fill_checksums(frame: &mut [u8]) {
    let v4 = frame[12] == 8;
    let family = if v4 { Family::V4 } else { Family::V6 };
    let l4 = ETHERNET + ip_header(family);
    let (proto, addresses) = if v4 { (frame[23], 26..34) } else { (frame[20], 22..54) };
    if v4 {
        frame[24..26].fill(0);
        let sum = folded(&[&frame[ETHERNET..l4]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let end = match family {
        Family::V4 => ETHERNET + number(&frame[16..18]) as usize,
        Family::V6 => l4 + number(&frame[18..20]) as usize,
    };
    let at = match proto {
        TCP => l4 + 16,
        UDP => l4 + 6,
        _ => return,
    };
    frame[at..at + 2].fill(0);
    let [high, low] = ((end - l4) as u16).to_be_bytes();
    let sum = folded(&[&frame[addresses], &[0, proto, high, low], &frame[l4..end]]);
    let sum = if sum == 0 && proto == UDP { u16::MAX } else { sum };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
}

/// The Internet checksum over parts, of which all but the last have even lengths.
fn folded(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}
