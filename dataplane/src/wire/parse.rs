//! The frame parser: the checks that the kernel makes before any rule sees a
//! packet, and the facts that rules and tracking read.

use super::ethernet::{self, Tag};
use super::{be16, ethertype, ipv4, ipv6, proto};
use crate::packet::{Family, Fragment, L4Class, Mac, Parsed, PktType};
use crate::verdict::DropReason;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An untagged IPv4 or IPv6 packet that passed the header checks.
    Ip(Parsed),
    /// ARP, untagged.
    Arp,
    /// A VLAN-tagged frame, whatever it carries.
    Tagged {
        /// The outermost tag.
        outer: Tag,
        /// The second tag of a QinQ frame.
        inner: Option<Tag>,
        /// The EtherType behind the tags.
        ethertype: u16,
        /// Where the payload starts in the frame.
        payload: u16,
    },
    /// Anything else.
    Other {
        /// The EtherType, or a length below 0x600 for 802.3 frames.
        ethertype: u16,
    },
}

/// Parses a frame that arrived on a port with address `local_mac`.
///
/// # Errors
/// The reason for which the kernel drops such a frame before any rule sees it.
/// Link-layer addressing is not judged: [`Parsed::pkt_type`] reports it.
#[inline]
pub fn parse(frame: &[u8], local_mac: Mac) -> Result<Frame, DropReason> {
    let header = frame.first_chunk::<{ ethernet::HEADER }>();
    let &[a, b, c, d, e, f, .., high, low] = header.ok_or(DropReason::FrameTruncated)?;
    let pkt_type = ethernet::classify(Mac([a, b, c, d, e, f]), local_mac);
    match u16::from_be_bytes([high, low]) {
        ethertype::IPV4 => parse_ipv4(frame, ethernet::HEADER, pkt_type).map(Frame::Ip),
        ethertype::IPV6 => parse_ipv6(frame, ethernet::HEADER, pkt_type).map(Frame::Ip),
        ethertype::ARP => Ok(Frame::Arp),
        ethertype if ethernet::is_tag(ethertype) => tagged(frame),
        ethertype => Ok(Frame::Other { ethertype }),
    }
}

/// Parses one frame that loopback has sent: [`parse`], where `::1` is an address as
/// any other.
///
/// # Errors
/// As [`parse`], but for IPv6 addresses.
pub fn parse_looped(frame: &[u8]) -> Result<Frame, DropReason> {
    let eth = ethernet::Packet::new_checked(frame).map_err(|_| DropReason::FrameTruncated)?;
    match eth.ethertype() {
        ethertype::IPV6 if eth.tag_count() == 0 => {
            parse_any_ipv6(frame, ethernet::HEADER, PktType::Host).map(Frame::Ip)
        }
        _ => parse(frame, Mac::default()),
    }
}

#[cold]
fn tagged(frame: &[u8]) -> Result<Frame, DropReason> {
    let eth = ethernet::Packet::new_checked(frame).map_err(|_| DropReason::FrameTruncated)?;
    let mut tags = eth.tags();
    let outer = tags.next().unwrap_or(Tag { tpid: 0, tci: 0 });
    Ok(Frame::Tagged {
        outer,
        inner: tags.next(),
        ethertype: eth.ethertype(),
        payload: eth.header_len() as u16,
    })
}

/// Parses the IPv4 packet at offset `l3` of `frame`.
///
/// # Errors
/// [`DropReason::IpHeader`] and [`DropReason::IpChecksum`], as the kernel's input path.
#[inline]
pub fn parse_ipv4(frame: &[u8], l3: usize, pkt_type: PktType) -> Result<Parsed, DropReason> {
    let bytes = frame.get(l3..).ok_or(DropReason::IpHeader)?;
    let ip = ipv4::Packet::new_header(bytes).map_err(|_| DropReason::IpHeader)?;
    if !ip.checksum_ok() {
        return Err(DropReason::IpChecksum);
    }
    let (header, total) = (ip.header_len(), ip.total_len());
    if total < header || total > bytes.len() || l3 > usize::from(u8::MAX) {
        return Err(DropReason::IpHeader);
    }
    let mut parsed = Parsed {
        family: Family::V4,
        l3: l3 as u16,
        l3_len: total as u16,
        l4: (l3 + header) as u16,
        l4_len: (total - header) as u16,
        proto: ip.protocol(),
        ttl: ip.ttl(),
        tos: ip.tos(),
        tcp_flags: 0,
        fragment: ip.fragment(),
        l4_class: L4Class::Whole,
        sport: 0,
        dport: 0,
        src: ip.src().into(),
        dst: ip.dst().into(),
        pkt_type,
    };
    match parsed.fragment {
        // Eight bytes into TCP lie the sequence numbers and flags: a rule with a
        // port drops such a fragment outright.
        Fragment::Later { offset: 8, .. } => parsed.l4_class = L4Class::Odd,
        Fragment::Later { .. } => parsed.l4_class = L4Class::LaterFragment,
        Fragment::Whole | Fragment::First => layer4(frame, &mut parsed),
    }
    Ok(parsed)
}

/// Parses the IPv6 packet at offset `l3` of `frame`.
///
/// A chain of extension headers that is cut short does not end the packet's
/// road here, as it does not in the kernel: see [`Parsed::broken_chain`].
///
/// # Errors
/// [`DropReason::IpHeader`]; [`DropReason::MartianSource`] and
/// [`DropReason::MartianDestination`] for addresses that may not cross a wire,
/// because the kernel's IPv6 input drops those before any rule.
#[inline]
pub fn parse_ipv6(frame: &[u8], l3: usize, pkt_type: PktType) -> Result<Parsed, DropReason> {
    let bytes = frame.get(l3..).ok_or(DropReason::IpHeader)?;
    let ip = ipv6::Packet::new_header(bytes).map_err(|_| DropReason::IpHeader)?;
    check_ipv6_addresses(ip.src(), ip.dst())?;
    parse_any_ipv6(frame, l3, pkt_type)
}

/// [`parse_ipv6`], where `::1` is an address as any other.
///
/// # Errors
/// [`DropReason::IpHeader`].
#[inline]
pub fn parse_any_ipv6(frame: &[u8], l3: usize, pkt_type: PktType) -> Result<Parsed, DropReason> {
    let bytes = frame.get(l3..).ok_or(DropReason::IpHeader)?;
    let ip = ipv6::Packet::new_header(bytes).map_err(|_| DropReason::IpHeader)?;
    let (src, dst, next) = (ip.src(), ip.dst(), ip.next_header());
    let total = match ip.payload_len() {
        // Room for a jumbo option, which the router then refuses; without one
        // the kernel takes the packet as long as the frame.
        0 if next == proto::HOP_BY_HOP => bytes.len(),
        length => ipv6::HEADER + length,
    };
    if total > bytes.len() || total > usize::from(u16::MAX) || l3 > usize::from(u8::MAX) {
        return Err(DropReason::IpHeader);
    }
    let payload = &bytes[ipv6::HEADER..total];
    let upper = ipv6::upper(next, payload);
    let (proto, offset, fragment) = match upper {
        Ok(upper) => (upper.proto, upper.offset, upper.fragment),
        Err(_) => (proto::HOP_BY_HOP, payload.len(), Fragment::Whole),
    };
    let l4 = l3 + ipv6::HEADER + offset;
    let mut parsed = Parsed {
        family: Family::V6,
        l3: l3 as u16,
        l3_len: total as u16,
        l4: u16::try_from(l4).map_err(|_| DropReason::IpHeader)?,
        l4_len: (payload.len() - offset) as u16,
        proto,
        ttl: ip.hop_limit(),
        tos: ip.traffic_class(),
        tcp_flags: 0,
        fragment,
        l4_class: L4Class::Odd,
        sport: 0,
        dport: 0,
        src,
        dst,
        pkt_type,
    };
    match fragment {
        _ if upper.is_err() => {}
        Fragment::Later { .. } => parsed.l4_class = L4Class::LaterFragment,
        Fragment::Whole | Fragment::First => layer4(frame, &mut parsed),
    }
    Ok(parsed)
}

#[inline]
fn check_ipv6_addresses(src: u128, dst: u128) -> Result<(), DropReason> {
    const LOOPBACK: u128 = 1;
    let multicast = |address: u128| address >> 120 == 0xff;
    let scope = (dst >> 112) as u8 & 15;
    if src == LOOPBACK || multicast(src) {
        Err(DropReason::MartianSource)
    } else if dst == LOOPBACK || multicast(dst) && scope <= 1 {
        Err(DropReason::MartianDestination)
    } else {
        Ok(())
    }
}

/// Fills what rules read from a layer 4 header, as far as it is present.
#[inline]
fn layer4(frame: &[u8], parsed: &mut Parsed) {
    let l4 = &frame[usize::from(parsed.l4)..][..usize::from(parsed.l4_len)];
    let fixed = match (parsed.family, parsed.proto) {
        (_, proto::TCP) => {
            parsed.tcp_flags = l4.get(13).copied().unwrap_or(0);
            20
        }
        (_, proto::UDP | proto::UDPLITE) => 8,
        (_, proto::SCTP | proto::DCCP) => 12,
        (Family::V4, proto::ICMP) | (Family::V6, proto::ICMPV6) => {
            if let [kind, code, ..] = *l4 {
                (parsed.sport, parsed.dport) = (kind.into(), code.into());
            }
            parsed.l4_class = if l4.len() < 8 { L4Class::Odd } else { L4Class::Whole };
            return;
        }
        _ => {
            parsed.l4_class = L4Class::Whole;
            return;
        }
    };
    if l4.len() >= 4 {
        (parsed.sport, parsed.dport) = (be16(l4, 0), be16(l4, 2));
    }
    parsed.l4_class = if l4.len() < fixed { L4Class::Odd } else { L4Class::Whole };
}
