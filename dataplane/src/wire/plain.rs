//! Plain packets: what most frames are, read at once. An untagged whole IPv4 packet without
//! options, addressed to the port, with a hop to spare and TCP's or UDP's whole header:
//! everything else is left to [`super::parse()`], which says the same of these.

use super::{be16, be32, checksum, ethertype, ipv4, proto, put16, put32, tcp};
use crate::packet::{Family, Fragment, L4Class, Mac, Parsed, PktType};

/// Where IPv4's and layer 4's headers begin.
const L3: usize = super::ethernet::HEADER;
const L4: usize = L3 + ipv4::HEADER;
/// Where both addresses are, which layer 4 follows.
const ADDRESSES: usize = L3 + 12;
const TTL: usize = L3 + 8;
const CHECKSUM: usize = L3 + 10;
/// Version and length of a header without options.
const VERSION: u8 = 0x45;

/// What short roads know of a plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port in the upper half, destination port in the lower.
    pub ports: u32,
    /// Length of the IP packet in bytes.
    pub l3_len: u16,
    /// TCP or UDP.
    pub proto: u8,
    /// TTL, above one.
    pub ttl: u8,
    /// The TOS byte.
    pub tos: u8,
    /// TCP's flags; zero for UDP.
    pub tcp_flags: u8,
}

/// Both ends of a flow, as its packets name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port in the upper half, destination port in the lower.
    pub ports: u32,
}

/// Reads a frame that arrived on a port with address `local`, if it is a plain packet.
#[inline]
pub fn read(frame: &[u8], local: Mac) -> Option<Plain> {
    let head = frame.first_chunk::<{ L4 + 8 }>()?;
    let ours = head.first_chunk() == Some(&local.0);
    let typed = be16(head, 12) == ethertype::IPV4 && head[L3] == VERSION;
    let whole = be16(head, L3 + 6) & (ipv4::MF | ipv4::OFFSET_MASK) == 0;
    let (ttl, proto) = (head[TTL], head[TTL + 1]);
    if !ours || !typed || !whole || ttl <= 1 {
        return None;
    }
    let header: &[u8; ipv4::HEADER] = head[L3..L4].first_chunk()?;
    let l3_len = be16(head, L3 + 2);
    let end = L3 + usize::from(l3_len);
    if !checksum::plain_header_ok(header) || end > frame.len() {
        return None;
    }
    let tcp_flags = match proto {
        proto::UDP if end >= L4 + super::udp::HEADER => 0,
        proto::TCP if end >= L4 + tcp::HEADER => *frame.get(L4 + 13)?,
        _ => return None,
    };
    let (src, dst) = (be32(head, ADDRESSES), be32(head, ADDRESSES + 4));
    let (ports, tos) = (be32(head, L4), head[L3 + 1]);
    Some(Plain { src, dst, ports, l3_len, proto, ttl, tos, tcp_flags })
}

impl Plain {
    /// What [`super::parse()`] says of the packet.
    pub fn parsed(&self) -> Parsed {
        Parsed {
            family: Family::V4,
            l3: L3 as u16,
            l3_len: self.l3_len,
            l4: L4 as u16,
            l4_len: self.l3_len - ipv4::HEADER as u16,
            proto: self.proto,
            ttl: self.ttl,
            tos: self.tos,
            tcp_flags: self.tcp_flags,
            fragment: Fragment::Whole,
            l4_class: L4Class::Whole,
            sport: (self.ports >> 16) as u16,
            dport: self.ports as u16,
            src: self.src.into(),
            dst: self.dst.into(),
            pkt_type: PktType::Host,
        }
    }

    /// Bytes of the frame without padding.
    #[inline]
    pub fn frame_len(&self) -> usize {
        L3 + usize::from(self.l3_len)
    }

    /// Layer 4 of the frame that was read.
    #[inline]
    pub fn l4<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(L4..self.frame_len()).unwrap_or_default()
    }

    /// Whether a UDP datagram's length and, if `sums` are wanted, its checksum hold, as
    /// tracking sees it. `frame` is the one that was read.
    #[inline]
    pub fn datagram_holds(&self, frame: &[u8], sums: bool) -> bool {
        let Some(udp) = frame.get(L4..).and_then(<[u8]>::first_chunk::<8>) else { return false };
        let (length, sum) = (usize::from(be16(udp, 4)), be16(udp, 6));
        (8..=self.frame_len() - L4).contains(&length)
            && (sum == 0 || !sums || self.sum_holds(frame))
    }

    /// Whether the checksum over layer 4 and its pseudo header, whose addresses lie before
    /// it, verifies: both are one sum.
    #[inline]
    pub fn sum_holds(&self, frame: &[u8]) -> bool {
        let Some(summed) = frame.get(ADDRESSES..self.frame_len()) else { return false };
        let rest = u16::from(self.proto) + (self.l3_len - ipv4::HEADER as u16);
        checksum::holds(summed, rest)
    }

    /// Does to the frame what a router does: both link-layer addresses are others (the
    /// next hop's first), and there is a hop less.
    #[inline]
    pub fn forward(&self, frame: &mut [u8], macs: &[u8; 12]) {
        let Some(head) = frame.first_chunk_mut::<L4>() else { return };
        head[..12].copy_from_slice(macs);
        let old = u16::from_be_bytes([self.ttl, self.proto]);
        let new = u16::from_be_bytes([self.ttl - 1, self.proto]);
        let sum = checksum::update16(be16(head, CHECKSUM), old, new);
        head[TTL] = self.ttl - 1;
        head[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// Both ends of its flow.
    #[inline]
    pub fn ends(&self) -> Ends {
        Ends { src: self.src, dst: self.dst, ports: self.ports }
    }

    /// [`Plain::forward`] with other ends, in one: each checksum is the one that a change
    /// after the other would leave. UDP's stays away where it is not.
    #[inline]
    pub fn forward_as(&self, frame: &mut [u8], macs: &[u8; 12], ends: &Ends) {
        let Some(head) = frame.first_chunk_mut::<{ L4 + 8 }>() else { return };
        let hops = |ttl: u8| u32::from(u16::from_be_bytes([ttl, self.proto]));
        let addresses = change(self.src, ends.src) + change(self.dst, ends.dst);
        let ip = addresses + change(hops(self.ttl), hops(self.ttl - 1));
        let l4 = addresses + change(self.ports, ends.ports);
        head[..12].copy_from_slice(macs);
        head[TTL] = self.ttl - 1;
        let sum = checksum::update(be16(head, CHECKSUM), ip);
        put16(head, CHECKSUM, sum);
        put32(head, ADDRESSES, ends.src);
        put32(head, ADDRESSES + 4, ends.dst);
        put32(head, L4, ends.ports);
        if self.proto == proto::UDP {
            let sum = checksum::udp(be16(head, L4 + 6), |sum| checksum::update(sum, l4));
            put16(head, L4 + 6, sum);
        } else if let Some(tcp) = frame.get_mut(L4..).and_then(<[u8]>::first_chunk_mut::<20>) {
            let sum = checksum::update(be16(tcp, 16), l4);
            put16(tcp, 16, sum);
        }
    }
}

/// What a word's change adds to a sum over it.
#[inline]
fn change(old: u32, new: u32) -> u64 {
    u64::from(!old) + u64::from(new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse::{Frame, parse};
    use super::*;
    use crate::conntrack::Tuple;
    use crate::nat::{Manip, rewrite::rewrite};
    use crate::plan::is_plain;
    use crate::wire::build::Packet;

    const PORT: Mac = Mac([2, 0, 0, 0, 1, 1]);

    fn built(tcp: bool, payload: &[u8], ttl: u8) -> Vec<u8> {
        let packet = match tcp {
            true => Packet::tcp("10.0.0.1", 4000, "198.18.0.1", 80, tcp::flags::ACK),
            false => Packet::udp("10.0.0.1", 4000, "198.18.0.1", 53),
        };
        packet.payload(payload).ttl(ttl).macs(Mac([2, 9, 9, 9, 9, 9]), PORT).build()
    }

    /// Nearly a plain packet: bytes of its headers are changed, and perhaps the sum of
    /// IPv4's header made right again; it is cut, or padded.
    fn near() -> impl Strategy<Value = Vec<u8>> {
        let change = (0_usize..L4 + 20, any::<u8>());
        let changes = proptest::collection::vec(change, 0..3);
        let bytes = proptest::collection::vec(any::<u8>(), 0..40);
        let cut = proptest::option::of(-8_isize..24);
        (any::<bool>(), bytes, 0_u8..4, changes, any::<bool>(), cut).prop_map(
            |(tcp, payload, ttl, changes, mended, cut)| {
                let mut frame = built(tcp, &payload, ttl);
                for (at, value) in changes {
                    if let Some(byte) = frame.get_mut(at) {
                        *byte = value;
                    }
                }
                if let (true, Ok(mut ip)) = (mended, ipv4::Packet::new_header(&mut frame[L3..])) {
                    ip.fill_checksum();
                }
                let length = frame.len().saturating_add_signed(cut.unwrap_or(0));
                frame.resize(length, 0xa5);
                frame
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_plain_packet_is_what_the_parser_says(frame in near()) {
            let parsed = match parse(&frame, PORT) {
                Ok(Frame::Ip(parsed)) if is_plain(&parsed) => Some(parsed),
                _ => None,
            };
            let wanted = parsed.filter(|parsed| parsed.family == Family::V4);
            prop_assert_eq!(read(&frame, PORT).map(|plain| plain.parsed()), wanted);
        }

        #[test]
        fn its_checksum_holds_when_the_long_one_does(frame in near(), bits in 0_u8..3) {
            let mut frame = frame;
            if bits > 0 && let Some(last) = frame.last_mut() {
                *last ^= bits;
            }
            if let Some(plain) = read(&frame, PORT) {
                let parsed = plain.parsed();
                let message = parsed.l4_bytes(&frame);
                let Parsed { family, src, dst, proto, .. } = parsed;
                let wanted = checksum::transport(family, src, dst, proto, message) == 0;
                prop_assert_eq!(plain.sum_holds(&frame), wanted);
            }
        }

        #[test]
        fn a_hop_less_is_what_the_header_makes_of_it(frame in near(), macs: [u8; 12]) {
            if let Some(plain) = read(&frame, PORT) {
                let (mut short, mut long) = (frame.clone(), frame);
                plain.forward(&mut short, &macs);
                ipv4::Packet::new_checked(&mut long[L3..]).unwrap().decrement_ttl();
                long[..12].copy_from_slice(&macs);
                prop_assert_eq!(short, long);
            }
        }

        #[test]
        fn other_ends_are_what_translations_in_turn_make_of_them(
            (frame, macs) in (near(), any::<[u8; 12]>()),
            (wanted, kept) in ((any::<u32>(), any::<u32>(), any::<u32>()), 0_u8..8),
            sum in proptest::option::weighted(0.5, prop_oneof![
                Just(0_u16), Just(1), Just(0xfffe), Just(0xffff), any::<u16>()
            ]),
        ) {
            let mut frame = frame;
            let Some(plain) = read(&frame, PORT) else { return Ok(()) };
            let at = L4 + if plain.proto == proto::UDP { 6 } else { 16 };
            sum.into_iter().for_each(|sum| put16(&mut frame, at, sum));
            let Ends { src, dst, ports } = plain.ends();
            let keep = |bit: u8, old, new| if kept & bit != 0 { old } else { new };
            let (new_src, new_dst, new_ports) = wanted;
            let src = keep(1, src, new_src);
            let dst = keep(2, dst, new_dst);
            let ports = keep(4, ports, new_ports);
            let (mut short, mut long) = (frame.clone(), frame);
            plain.forward_as(&mut short, &macs, &Ends { src, dst, ports });
            let target = Tuple {
                src: src.into(),
                dst: dst.into(),
                sport: (ports >> 16) as u16,
                dport: ports as u16,
                proto: plain.proto,
                family: Family::V4,
                zone: 0,
            };
            let length = plain.frame_len();
            let ip = &mut long[L3..length];
            prop_assert!(rewrite(ip, &target, Manip::Destination));
            ipv4::Packet::new_checked(&mut *ip).unwrap().decrement_ttl();
            prop_assert!(rewrite(ip, &target, Manip::Source));
            long[..12].copy_from_slice(&macs);
            prop_assert_eq!(short, long);
        }
    }
}
