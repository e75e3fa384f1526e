//! The targets that change a packet's header, as far as a later rule can see it.

use std::borrow::Cow;

use dataplane::packet::Family;
use dataplane::policy::header::prefix::PrefixTarget;
use dataplane::policy::header::strip::OptionKinds;
use dataplane::policy::target::{HeaderTarget, HopChange, TcpMss};

use super::packet::{Packet, Proto};

const TCP: Proto = Proto::Known(6);

/// Changes the packet; `path_mtu` is the smallest MTU of its way there and
/// back. False: the kernel drops a packet whose header it cannot read here.
pub(super) fn change(packet: &mut Packet<'_>, target: HeaderTarget, path_mtu: u32) -> bool {
    match target {
        HeaderTarget::Hops(change) => {
            let hops = i32::from(packet.ttl);
            let changed = match change {
                HopChange::Set(value) => i32::from(value),
                HopChange::Increment(by) => hops + i32::from(by),
                HopChange::Decrement(by) => hops - i32::from(by),
            };
            packet.ttl = changed.clamp(0, 255) as u8;
            true
        }
        HeaderTarget::Tos { clear, toggle } => {
            packet.tos = (packet.tos & !clear) ^ toggle;
            true
        }
        HeaderTarget::Dscp(dscp) => {
            packet.tos = dscp * 4 + packet.tos % 4;
            true
        }
        HeaderTarget::Ecn(ecn) => {
            if let Some(ect) = ecn.ect {
                packet.tos = packet.tos / 4 * 4 + ect % 4;
            }
            let reads = (ecn.ece.is_some() || ecn.cwr.is_some()) && packet.proto == TCP;
            // A missing header ends the packet.
            !reads || tcp_ecn(packet, ecn.ece, ecn.cwr)
        }
        HeaderTarget::TcpMss(mss) => tcp_mss(packet, mss, path_mtu),
        HeaderTarget::StripOptions(kinds) => strip_options(packet, &kinds),
        HeaderTarget::FillChecksum => true,
        HeaderTarget::Prefix(prefix) => translate_prefix(packet, &prefix),
    }
}

/// Changes the flags behind the IP header, in a later fragment too.
fn tcp_ecn(packet: &mut Packet<'_>, ece: Option<bool>, cwr: Option<bool>) -> bool {
    if packet.behind < 20 {
        return false;
    }
    let segment = match packet.fragment_offset {
        0 => &mut packet.layer4.to_mut()[..],
        _ => {
            let header = usize::from(packet.whole[0] % 16) * 4;
            &mut packet.whole.to_mut()[header..]
        }
    };
    let word = |segment: &[u8]| u16::from(segment[12]) << 8 | u16::from(segment[13]);
    let old = word(segment);
    for (wanted, bit) in [(ece, 0x40), (cwr, 0x80)] {
        match wanted {
            Some(true) => segment[13] |= bit,
            Some(false) => segment[13] &= !bit,
            None => {}
        }
    }
    let new = word(segment);
    adjust(segment, old, new);
    true
}

fn tcp_mss(packet: &mut Packet<'_>, target: TcpMss, path_mtu: u32) -> bool {
    if packet.fragment_offset > 0 {
        return true;
    }
    let (headers, default) = match packet.family {
        Family::V4 => (40, 536),
        Family::V6 => (60, 1220),
    };
    let segment = packet.layer4.to_mut();
    let end = segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    if end < 20 || end > segment.len() {
        return false;
    }
    let wanted = match target {
        TcpMss::Set(mss) => u32::from(mss),
        TcpMss::ClampToPmtu if path_mtu <= headers => return false,
        TcpMss::ClampToPmtu => path_mtu - headers,
    };
    let mut at = 20;
    while at + 4 <= end {
        if segment[at..at + 2] == [2, 4] {
            let told = u32::from(segment[at + 2]) << 8 | u32::from(segment[at + 3]);
            let lowered = told.min(wanted) as u16;
            segment[at + 2..at + 4].copy_from_slice(&lowered.to_be_bytes());
            // At an odd place too, as if it were an even one: the kernel does so.
            adjust(segment, told as u16, lowered);
            return true;
        }
        at += match (segment[at], segment[at + 1]) {
            (0 | 1, _) | (_, 0) => 1,
            (_, length) => usize::from(length),
        };
    }
    if segment.len() == end && end < 60 {
        let mss = wanted.min(default) as u16;
        let [high, low] = mss.to_be_bytes();
        let length = segment.len() as u16;
        let offset = u16::from(segment[12]) * 256 + u16::from(segment[13]);
        let mut grown = segment[..20].to_vec();
        grown.extend([2, 4, high, low]);
        grown.extend(&segment[20..]);
        grown[12] += 0x10;
        for (old, new) in [(length, length + 4), (0, 0x0204), (0, mss), (offset, offset + 0x1000)] {
            adjust(&mut grown, old, new);
        }
        packet.layer4 = Cow::Owned(grown);
        packet.length += 4;
    }
    true
}

fn strip_options(packet: &mut Packet<'_>, kinds: &OptionKinds) -> bool {
    if packet.fragment_offset > 0 {
        return true;
    }
    let segment = packet.layer4.to_mut();
    let end = segment.get(12).map_or(0, |byte| usize::from(byte / 16) * 4);
    if segment.len() < 20 || segment.len() < end {
        return false;
    }
    let before = segment.clone();
    let mut at = 20;
    while at + 1 < end {
        let size = if segment[at] < 2 || segment[at + 1] == 0 { 1 } else { segment[at + 1].into() };
        let Some(option) = segment.get_mut(at..at + size).filter(|_| at + size <= end) else {
            break;
        };
        if kinds.contains(option[0]) {
            option.fill(1);
        }
        at += size;
    }
    for at in (20..end).step_by(2) {
        let word = |bytes: &[u8]| u16::from(bytes[at]) * 256 + u16::from(bytes[at + 1]);
        let (old, new) = (word(&before), word(segment));
        adjust(segment, old, new);
    }
    true
}

/// Keeps a TCP checksum as right as it was when one word under it changes.
fn adjust(segment: &mut [u8], old: u16, new: u16) {
    if old == new {
        return;
    }
    let sum = u16::from(segment[16]) * 256 + u16::from(segment[17]);
    let wide = u32::from(!sum) + u32::from(!old) + u32::from(new);
    let once = wide % 0x1_0000 + wide / 0x1_0000;
    let folded = (once % 0x1_0000 + once / 0x1_0000) as u16;
    segment[16..18].copy_from_slice(&(!folded).to_be_bytes());
}

/// RFC 6296 over eight words: the difference between the prefixes' sums goes into the
/// first word behind them that can take it.
fn translate_prefix(packet: &mut Packet<'_>, target: &PrefixTarget) -> bool {
    const ONES: u32 = 0xffff;
    let words = |address: u128| -> [u32; 8] {
        std::array::from_fn(|index| (address >> (112 - 16 * index)) as u32 & ONES)
    };
    let side = if target.source { &mut packet.src } else { &mut packet.dst };
    let length = target.from.1.max(target.to.1);
    let host_bits = 128 - u32::from(length);
    let host = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
    let mut address = words(*side & host | target.to.0 & !host);
    let free = |index: &usize| address[*index] != ONES;
    let Some(slot) = (if length <= 48 { Some(3) } else { (4..8).find(free) }) else {
        return false;
    };
    let mut sum = address[slot];
    sum += words(target.from.0).iter().sum::<u32>();
    sum += words(target.to.0).iter().map(|word| ONES - word).sum::<u32>();
    // Eight complements more than are wanted are eight times minus zero.
    while sum > ONES {
        sum = sum / (ONES + 1) + sum % (ONES + 1);
    }
    address[slot] = if sum == ONES { 0 } else { sum };
    *side = address.iter().fold(0, |value, word| value << 16 | u128::from(*word));
    true
}
