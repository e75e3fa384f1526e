//! Ports that NAT chose at random, compared up to a renaming: wherever the two
//! sides' frames differ in a port, each must show its own choice for that flow.

use super::concrete::{Peek, is_icmp, peek};
use super::sctp::crc32c;
use crate::lab::Sent;

/// The pairs in use, by flow: the kernel's port and ours.
#[derive(Clone, Debug)]
pub struct Bijection {
    /// By flow, the latest first.
    pairs: Vec<Vec<(u16, u16)>>,
}

impl Bijection {
    /// Nothing chosen yet.
    pub fn new(flows: usize) -> Self {
        Self { pairs: vec![Vec::new(); flows] }
    }

    /// Whether what the two sides sent, in order, is the same up to ports.
    pub fn alike(&mut self, flow: usize, theirs: &[Sent], own: &[Sent]) -> bool {
        if theirs == own {
            return true;
        }
        if theirs.len() != own.len() {
            return false;
        }
        // Checksum and ports may be in different fragments: they are compared joined.
        if let (Some((heads, a)), Some((own_heads, b))) = (joined(theirs), joined(own)) {
            return heads == own_heads && self.translate(flow, &a, &b) == a;
        }
        let mut own = own.to_vec();
        for (kernel, ours) in theirs.iter().zip(&mut own) {
            if kernel.port == ours.port {
                ours.frame = self.translate(flow, &kernel.frame, &ours.frame);
            }
        }
        own.sort();
        theirs == own
    }

    /// Our frame in the kernel's ports; unchanged where that explains nothing.
    pub fn translate(&mut self, flow: usize, kernel: &[u8], ours: &[u8]) -> Vec<u8> {
        let mut frame = ours.to_vec();
        if kernel == ours || kernel.len() != ours.len() || frame.len() < 14 {
            return frame;
        }
        let (Some(theirs), Some(own)) = (peek(&kernel[14..]), peek(&ours[14..])) else {
            return frame;
        };
        if theirs.later || own.later || (theirs.proto, theirs.l4) != (own.proto, own.l4) {
            return frame;
        }
        self.rename(flow, kernel, &mut frame, 14, &theirs, None);
        let error = match (own.proto, own.ports.0 >> 8) {
            (1, kind) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (58, kind) => kind < 128 || kind == 137,
            _ => false,
        };
        if error {
            // The quotation, and the error's own checksum over it.
            let at = 14 + own.l4 + 8;
            // It may call itself a later fragment: what it shows are the ports still.
            if let Some(inner) = kernel.get(at..).and_then(peek) {
                self.rename(flow, kernel, &mut frame, at, &inner, Some(14 + own.l4 + 2));
            }
        }
        frame
    }

    /// Renames the ports of the packet at `at`; keeps its checksum, and the one at `outer`.
    fn rename(
        &mut self,
        flow: usize,
        kernel: &[u8],
        frame: &mut [u8],
        at: usize,
        inner: &Peek,
        outer: Option<usize>,
    ) {
        if inner.proto == 132 {
            self.rename_sctp(flow, kernel, frame, at + inner.l4, outer);
            return;
        }
        let (places, sum): (&[usize], usize) = match inner.proto {
            6 => (&[0, 2], 16),
            17 | 136 => (&[0, 2], 6),
            33 => (&[0, 2], 6),
            proto if is_icmp(proto) => (&[4], 2),
            _ => return,
        };
        for &place in places {
            let field = at + inner.l4 + place;
            let (Some(theirs), Some(own)) = (word(kernel, field), word(frame, field)) else {
                return;
            };
            if theirs == own || !self.admits(flow, theirs, own, is_icmp(inner.proto)) {
                continue;
            }
            let sum = at + inner.l4 + sum;
            let unsummed = word(frame, sum) == Some(0) && word(kernel, sum) == Some(0);
            put(frame, field, theirs);
            let before = word(frame, sum);
            if let (Some(old), false) = (before, unsummed) {
                put(frame, sum, adjusted(old, own, theirs));
            }
            let Some(outer) = outer else { continue };
            let mut total = word(frame, outer).expect("inside the frame");
            total = adjusted(total, own, theirs);
            if let (Some(old), Some(new)) = (before, word(frame, sum)) {
                total = adjusted(total, old, new);
            }
            put(frame, outer, total);
        }
        // Zero and all ones are the same number in this arithmetic.
        for at in [Some(at + inner.l4 + sum), outer].into_iter().flatten() {
            if let (Some(0 | 0xffff), Some(same @ (0 | 0xffff))) =
                (word(frame, at), word(kernel, at))
            {
                put(frame, at, same);
            }
        }
    }

    /// The same for SCTP, whose checksum is made anew.
    fn rename_sctp(
        &mut self,
        flow: usize,
        kernel: &[u8],
        frame: &mut [u8],
        l4: usize,
        outer: Option<usize>,
    ) {
        let before = frame.to_vec();
        for field in [l4, l4 + 2] {
            let (Some(theirs), Some(own)) = (word(kernel, field), word(frame, field)) else {
                continue;
            };
            if theirs != own && self.admits(flow, theirs, own, false) {
                put(frame, field, theirs);
            }
        }
        let sealed = |frame: &[u8]| {
            let mut bytes = frame.get(l4..)?.to_vec();
            let sum: [u8; 4] = bytes.get(8..12)?.try_into().ok()?;
            bytes[8..12].fill(0);
            Some((sum, crc32c(&bytes)))
        };
        if let (Some((old, right)), Some((_, new))) = (sealed(&before), sealed(frame))
            && old == right
        {
            frame[l4 + 8..l4 + 12].copy_from_slice(&new);
        }
        let Some(outer) = outer else { return };
        let mut total = word(frame, outer).expect("inside the frame");
        for field in [l4, l4 + 2, l4 + 8, l4 + 10] {
            if let (Some(old), Some(new)) = (word(&before, field), word(frame, field)) {
                total = adjusted(total, old, new);
            }
        }
        put(frame, outer, total);
    }

    /// Whether the kernel's port may stand for ours in this flow. When one side
    /// chooses anew, so must the other.
    fn admits(&mut self, flow: usize, theirs: u16, own: u16, id: bool) -> bool {
        let pairs = &mut self.pairs[flow];
        if pairs.contains(&(theirs, own)) {
            return true;
        }
        let class = |port: u16| match port {
            _ if id => 0,
            0 => 0,
            1..512 => 1,
            512..1024 => 2,
            _ => 3,
        };
        let fresh = pairs.first().is_none_or(|&(a, b)| a != theirs && b != own);
        if fresh && class(theirs) == class(own) {
            pairs.insert(0, (theirs, own));
            return true;
        }
        false
    }

    /// Whether a word of a connection's line stands for the other.
    pub fn words_alike(&self, theirs: &str, own: &str) -> bool {
        let (Some((name, a)), Some((other, b))) = (theirs.split_once('='), own.split_once('='))
        else {
            return false;
        };
        let (Ok(a), Ok(b)) = (a.parse::<u16>(), b.parse::<u16>()) else { return false };
        matches!(name, "sport" | "dport" | "id")
            && name == other
            && self.pairs.iter().any(|pairs| pairs.contains(&(a, b)))
    }
}

/// The heads of frames that are all fragments, and the datagram that they make.
fn joined(frames: &[Sent]) -> Option<(Vec<Vec<u8>>, Vec<u8>)> {
    let mut parts: Vec<(u16, &[u8], &[u8])> = Vec::new();
    for Sent { frame, .. } in frames {
        let packet = frame.get(14..)?;
        let offset = match packet.first()? >> 4 {
            6 if packet[6] == 44 => word(packet, 42)? & 0xfff8,
            4 if word(packet, 6)? & 0x3fff != 0 => (word(packet, 6)? & 0x1fff) * 8,
            _ => return None,
        };
        let l4 = if packet[0] >> 4 == 6 { 48 } else { usize::from(packet[0] & 15) * 4 };
        let start = 14 + l4;
        if frame.len() < start {
            return None;
        }
        parts.push((offset, &frame[..start], &frame[start..]));
    }
    parts.sort();
    let mut whole = parts.first()?.1.to_vec();
    // Not a fragment any more, or it would not be looked into.
    match whole[14] >> 4 {
        6 => whole[56..58].fill(0),
        _ => whole[20..22].fill(0),
    }
    whole.extend(parts.iter().flat_map(|(_, _, bytes)| *bytes));
    Some((parts.iter().map(|(_, head, _)| head.to_vec()).collect(), whole))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// RFC 1624, equation 3.
fn adjusted(sum: u16, old: u16, new: u16) -> u16 {
    let mut total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}
