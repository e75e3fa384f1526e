//! What is fast in this module, against the same said plainly.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::ethernet;
use super::*;

/// The running sum, word by word.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)))
        .sum()
}

/// Its complement in 16 bits.
fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// A frame by the views.
fn viewed(frame: &[u8], local: Mac) -> Result<Frame, DropReason> {
    let eth = ethernet::Packet::new_checked(frame).map_err(|_| DropReason::FrameTruncated)?;
    let (mut tags, pkt_type) = (eth.tags(), eth.pkt_type(local));
    if let Some(outer) = tags.next() {
        let (inner, ethertype) = (tags.next(), eth.ethertype());
        return Ok(Frame::Tagged { outer, inner, ethertype, payload: eth.header_len() as u16 });
    }
    match eth.ethertype() {
        ethertype::IPV4 => super::super::parse::parse_ipv4(frame, 14, pkt_type).map(Frame::Ip),
        ethertype::IPV6 => super::super::parse::parse_ipv6(frame, 14, pkt_type).map(Frame::Ip),
        ethertype::ARP => Ok(Frame::Arp),
        ethertype => Ok(Frame::Other { ethertype }),
    }
}

proptest! {
    #[test]
    fn sums(
        bytes in prop_oneof![vec(any::<u8>(), 0..300), vec(prop_oneof![Just(0), Just(255)], 0..99)],
        parts in (0..40_usize, 0..40_usize), start in any::<u32>(),
    ) {
        prop_assert_eq!(checksum::internet(&bytes), folded(sum(&bytes)));
        let at = (parts.0 * 2).min(bytes.len());
        let (first, rest) = bytes.split_at(at);
        let middle = (parts.1 * 2).min(rest.len());
        let (second, last) = rest.split_at(middle);
        let added = checksum::add(checksum::add(checksum::add(start.into(), first), second), last);
        prop_assert_eq!(checksum::finish(added), folded(sum(&bytes) + u64::from(start)));
        prop_assert_eq!(checksum::finish(u64::from(start) << 20), folded(u64::from(start) << 20));
    }

    #[test]
    fn plain_headers(mut header in any::<[u8; 20]>(), right in any::<bool>()) {
        header[0] = 0x45;
        if right {
            header[10..12].fill(0);
            let check = folded(sum(&header));
            header[10..12].copy_from_slice(&check.to_be_bytes());
        }
        prop_assert_eq!(checksum::plain_header_ok(&header), folded(sum(&header)) == 0);
        let view = ipv4::Packet::new_header(&header[..]).unwrap();
        prop_assert_eq!(view.checksum_ok(), folded(sum(&header)) == 0);
    }

    #[test]
    fn ethernet_headers(
        addresses in vec(any::<u8>(), 12),
        types in vec(prop_oneof![
            Just(0x0800_u16), Just(0x86dd), Just(0x0806), Just(0x8100), Just(0x88a8), any::<u16>(),
        ], 0..8),
        rest in vec(any::<u8>(), 0..60), ours in any::<bool>(), cut in 0..90_usize,
    ) {
        let mut frame = addresses.clone();
        types.iter().for_each(|word| frame.extend(word.to_be_bytes()));
        frame.extend(rest);
        frame.truncate(cut.max(frame.len() / 2));
        let mut local = Mac([2; 6]);
        if ours {
            local.0.copy_from_slice(&addresses[..6]);
        }
        prop_assert_eq!(parse(&frame, local), viewed(&frame, local));
    }
}
