//! The bytes of a described packet.

use super::super::{be16, checksum, ethertype, proto, put16, put32, tcp};
use super::{L4, Packet, Tcp, address_bits};
use crate::packet::Family;

impl Packet {
    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.eth_dst.0);
        frame.extend(self.eth_src.0);
        for tag in &self.tags {
            frame.extend(tag.tpid.to_be_bytes());
            frame.extend(tag.tci.to_be_bytes());
        }
        let (number, l4) = self.layer4();
        let l4 = match self.fragment {
            None => l4,
            Some((offset, _)) => {
                let start = usize::from(offset).min(l4.len());
                l4[start..start.saturating_add(self.fragment_len).min(l4.len())].to_vec()
            }
        };
        let (ethertype, ip) = match self.family() {
            Family::V4 => (ethertype::IPV4, self.ipv4(number, &l4)),
            Family::V6 => (ethertype::IPV6, self.ipv6(number, &l4)),
        };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(ip);
        frame.resize(frame.len() + self.padding, 0);
        frame.truncate(self.truncate.unwrap_or(usize::MAX));
        frame
    }
    /// The IP packet alone: the frame without its Ethernet header and tags.
    pub fn build_ip(&self) -> Vec<u8> {
        let header = 14 + 4 * self.tags.len();
        self.build().split_off(header)
    }

    fn layer4(&self) -> (u8, Vec<u8>) {
        let mut bytes = Vec::new();
        let number = match &self.l4 {
            L4::Tcp(tcp) => {
                tcp.emit(&mut bytes);
                proto::TCP
            }
            L4::Udp { sport, dport, length, lite } => {
                let length = length.unwrap_or((8 + self.payload.len()) as u16);
                for word in [*sport, *dport, length, 0] {
                    bytes.extend(word.to_be_bytes());
                }
                if *lite { proto::UDPLITE } else { proto::UDP }
            }
            L4::Icmp { kind, code, word } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(word.to_be_bytes());
                if self.src.is_ipv4() { proto::ICMP } else { proto::ICMPV6 }
            }
            L4::Sctp { sport, dport, tag } => {
                bytes.extend(sport.to_be_bytes());
                bytes.extend(dport.to_be_bytes());
                bytes.extend(tag.to_be_bytes());
                bytes.extend([0; 4]);
                proto::SCTP
            }
            L4::Raw(number) => *number,
        };
        bytes.extend(&self.payload);
        if !matches!(self.l4, L4::Raw(_)) {
            self.fill_checksum(number, &mut bytes);
        }
        (number, bytes)
    }

    fn fill_checksum(&self, number: u8, l4: &mut [u8]) {
        let (src, dst) = (address_bits(self.src), address_bits(self.dst));
        checksum::fill_transport(self.family(), src, dst, number, l4);
        let at = match self.l4 {
            L4::Tcp(_) => 16,
            L4::Udp { .. } => 6,
            L4::Icmp { .. } => 2,
            L4::Sctp { .. } => 8,
            L4::Raw(_) => return,
        };
        let sum = be16(l4, at) ^ self.l4_checksum_xor;
        let none = self.udp_checksum_none && matches!(self.l4, L4::Udp { .. });
        put16(l4, at, if none { 0 } else { sum });
    }

    fn ipv4(&self, number: u8, l4: &[u8]) -> Vec<u8> {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let mut ip = vec![0; header];
        let ihl = self.ihl.unwrap_or((header / 4) as u8);
        ip[0] = self.version.unwrap_or(4) << 4 | ihl & 15;
        ip[1] = self.tos;
        put16(&mut ip, 2, self.length.unwrap_or((header + l4.len()) as u16));
        put16(&mut ip, 4, self.id as u16);
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let word = (self.evil as u16) << 15 | (self.df as u16) << 14 | (more as u16) << 13;
        put16(&mut ip, 6, word | (offset / 8));
        (ip[8], ip[9]) = (self.ttl, number);
        put32(&mut ip, 12, address_bits(self.src) as u32);
        put32(&mut ip, 16, address_bits(self.dst) as u32);
        ip[20..].copy_from_slice(&options);
        let covered = (usize::from(ihl & 15) * 4).clamp(20, header);
        let sum = checksum::internet(&ip[..covered]) ^ self.ip_checksum_xor;
        put16(&mut ip, 10, sum);
        ip.extend(l4);
        ip
    }

    fn ipv6(&self, number: u8, l4: &[u8]) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let mut header = vec![0; 8];
            put16(&mut header, 2, offset & 0xfff8 | more as u16);
            put32(&mut header, 4, self.id);
            chain.push((proto::FRAGMENT, header));
        }
        let mut next = number;
        let mut payload = l4.to_vec();
        for (kind, mut header) in chain.into_iter().rev() {
            if let Some(first) = header.first_mut() {
                *first = next;
            }
            header.extend(payload);
            (next, payload) = (kind, header);
        }
        let mut ip = vec![0; 40];
        let version = u32::from(self.version.unwrap_or(6)) << 28;
        put32(&mut ip, 0, version | u32::from(self.tos) << 20 | self.flow_label & 0xf_ffff);
        put16(&mut ip, 4, self.length.unwrap_or(payload.len() as u16));
        (ip[6], ip[7]) = (next, self.ttl);
        ip[8..24].copy_from_slice(&address_bits(self.src).to_be_bytes());
        ip[24..40].copy_from_slice(&address_bits(self.dst).to_be_bytes());
        ip.extend(payload);
        ip
    }
}

impl Tcp {
    fn emit(&self, bytes: &mut Vec<u8>) {
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut header = vec![0; tcp::HEADER];
        put16(&mut header, 0, self.sport);
        put16(&mut header, 2, self.dport);
        put32(&mut header, 4, self.seq);
        put32(&mut header, 8, self.ack);
        let words = self.offset.unwrap_or(((tcp::HEADER + options.len()) / 4) as u8);
        (header[12], header[13]) = (words << 4 | self.reserved & 15, self.flags);
        put16(&mut header, 14, self.window);
        put16(&mut header, 18, self.urgent);
        bytes.extend(header);
        bytes.extend(options);
    }
}
