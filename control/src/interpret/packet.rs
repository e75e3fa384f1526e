//! Reads a frame the way iptables' own code does, independently of the data
//! plane's parser: it is the oracle's pair of eyes.

use std::borrow::Cow;

use dataplane::packet::{Family, PktType};

/// What the walk may look at. All of it comes from the frame itself.
#[derive(Clone, Debug)]
pub struct Packet<'f> {
    /// Family.
    pub family: Family,
    /// Source link-layer address.
    pub source_mac: [u8; 6],
    /// Destination link-layer address.
    pub destination_mac: [u8; 6],
    /// How the frame was addressed (set by the caller, who knows the port).
    pub pkt_type: PktType,
    /// Source address (IPv4 in the low 32 bits).
    pub src: u128,
    /// Destination address (IPv4 in the low 32 bits).
    pub dst: u128,
    /// TOS byte or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Length of the IP packet, headers included.
    pub length: u32,
    /// The protocol that `-p` compares.
    pub proto: Proto,
    /// Offset of a non-first fragment in bytes; 0 otherwise.
    pub fragment_offset: u16,
    /// Bytes behind the IP header and its extensions, in any fragment.
    pub behind: usize,
    /// The 14 bytes of its Ethernet header without tags; zeros if it has none.
    pub link: [u8; 14],
    /// The IP packet as it came.
    pub whole: Cow<'f, [u8]>,
    /// What is behind the IP header and its extensions, as it came.
    pub tail: &'f [u8],
    /// Layer 4 bytes; empty for a non-first fragment.
    pub layer4: Cow<'f, [u8]>,
}

/// The protocol at the end of the header chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// Found.
    Known(u8),
    /// IPv6: the extension headers are cut off; a rule with `-p` drops the packet.
    CutOff,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn address<const N: usize>(bytes: &[u8], at: usize) -> Option<u128> {
    let octets: [u8; N] = bytes.get(at..at + N)?.try_into().ok()?;
    Some(octets.iter().fold(0, |value, &octet| value << 8 | u128::from(octet)))
}

impl<'f> Packet<'f> {
    /// Reads an Ethernet frame; `None` when it holds no whole IP header.
    pub fn read(frame: &'f [u8]) -> Option<Self> {
        let mut at = 12;
        let mut kind = be16(frame, at)?;
        while kind == 0x8100 || kind == 0x88a8 {
            at += 4;
            kind = be16(frame, at)?;
        }
        let ip = frame.get(at + 2..)?;
        let mut packet = match kind {
            0x0800 => Self::read_v4(ip)?,
            0x86dd => Self::read_v6(ip)?,
            _ => return None,
        };
        packet.source_mac = frame.get(6..12)?.try_into().ok()?;
        packet.destination_mac = frame.get(..6)?.try_into().ok()?;
        packet.link[..12].copy_from_slice(frame.get(..12)?);
        packet.link[12..].copy_from_slice(&kind.to_be_bytes());
        Some(packet)
    }

    /// Reads a bare IP packet, as the machine itself would send it.
    pub fn read_ip(ip: &'f [u8]) -> Option<Self> {
        match ip.first()? >> 4 {
            4 => Self::read_v4(ip),
            6 => Self::read_v6(ip),
            _ => None,
        }
    }

    fn read_v4(ip: &'f [u8]) -> Option<Self> {
        let header = usize::from(ip.first()? & 0xf) * 4;
        let length = be16(ip, 2)?;
        let fragment_offset = (be16(ip, 6)? & 0x1fff) * 8;
        let packet = ip.get(..usize::from(length))?;
        let layer4 = packet.get(header..)?;
        Some(Self {
            family: Family::V4,
            source_mac: [0; 6],
            destination_mac: [0; 6],
            pkt_type: PktType::Host,
            src: address::<4>(ip, 12)?,
            dst: address::<4>(ip, 16)?,
            tos: ip[1],
            ttl: *ip.get(8)?,
            length: u32::from(length),
            proto: Proto::Known(*ip.get(9)?),
            fragment_offset,
            behind: layer4.len(),
            link: [0; 14],
            whole: Cow::Borrowed(packet),
            tail: layer4,
            layer4: Cow::Borrowed(if fragment_offset == 0 { layer4 } else { &[] }),
        })
    }

    fn read_v6(ip: &'f [u8]) -> Option<Self> {
        let length = usize::from(be16(ip, 4)?) + 40;
        let packet = ip.get(..length)?;
        let (proto, fragment_offset, layer4) = match last_header(packet) {
            Some((proto, offset, at)) => {
                let whole = if offset == 0 { packet.get(at..) } else { None };
                (Proto::Known(proto), offset, whole.unwrap_or(&[]))
            }
            None => (Proto::CutOff, 0, &[][..]),
        };
        Some(Self {
            family: Family::V6,
            source_mac: [0; 6],
            destination_mac: [0; 6],
            pkt_type: PktType::Host,
            src: address::<16>(ip, 8)?,
            dst: address::<16>(ip, 24)?,
            tos: ip[0] << 4 | ip[1] >> 4,
            ttl: ip[7],
            length: length as u32,
            proto,
            fragment_offset,
            behind: layer4.len(),
            link: [0; 14],
            whole: Cow::Borrowed(packet),
            tail: layer4,
            layer4: Cow::Borrowed(layer4),
        })
    }

    /// The IP packet as rules left it, for whoever looks at all of it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.whole.to_vec();
        if self.fragment_offset == 0 {
            bytes.truncate(self.whole.len() - self.behind);
            bytes.extend_from_slice(&self.layer4);
        }
        match self.family {
            Family::V4 => {
                let header = usize::from(bytes[0] & 0xf) * 4;
                (bytes[1], bytes[8]) = (self.tos, self.ttl);
                bytes[2..4].copy_from_slice(&(self.length as u16).to_be_bytes());
                bytes[12..16].copy_from_slice(&(self.src as u32).to_be_bytes());
                bytes[16..20].copy_from_slice(&(self.dst as u32).to_be_bytes());
                if bytes[..20] != self.whole[..20] {
                    bytes[10..12].fill(0);
                    let words = bytes[..header].chunks(2);
                    let words = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
                    let sum = words.fold(0, |sum, word| (sum + word) % 0xffff);
                    let sum = !(sum as u16);
                    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
                }
            }
            Family::V6 => {
                bytes[0] = bytes[0] & 0xf0 | self.tos >> 4;
                bytes[1] = bytes[1] & 0x0f | self.tos << 4;
                bytes[4..6].copy_from_slice(&(self.length as u16 - 40).to_be_bytes());
                bytes[7] = self.ttl;
                bytes[8..24].copy_from_slice(&self.src.to_be_bytes());
                bytes[24..40].copy_from_slice(&self.dst.to_be_bytes());
            }
        }
        bytes
    }

    /// Source and destination port, when four bytes of layer 4 are there.
    pub fn ports(&self) -> Option<(u16, u16)> {
        Some((be16(&self.layer4, 0)?, be16(&self.layer4, 2)?))
    }
}

/// Protocol, fragment offset and layer 4 offset at the end of the chain.
fn last_header(packet: &[u8]) -> Option<(u8, u16, usize)> {
    const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];
    let mut kind = packet[6];
    let mut at = 40;
    while EXTENSIONS.contains(&kind) {
        let next = *packet.get(at)?;
        let size = usize::from(*packet.get(at + 1)?);
        at += match kind {
            // The kernel reads on to the segments left.
            43 => {
                packet.get(at + 3)?;
                (size + 1) * 8
            }
            44 => {
                let offset = be16(packet, at + 2)? & !7;
                if offset > 0 {
                    let last = !EXTENSIONS.contains(&next);
                    return last.then_some((next, offset, at + 8));
                }
                8
            }
            51 => (size + 2) * 4,
            _ => (size + 1) * 8,
        };
        kind = next;
    }
    Some((kind, 0, at))
}
