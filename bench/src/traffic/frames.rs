//! The frames of the generator: UDP flows from behind `a0` to behind `b0`, and back.

use dataplane::packet::Mac;
use dataplane::wire::build::Packet;

use crate::lab::mac;

/// Bytes of Ethernet, IPv4 and UDP headers.
pub(super) const HEADERS: usize = 14 + 20 + 8;
/// What stands in the payload: a mark, a sequence number, a time.
pub(super) const STAMP: usize = 2 + 8 + 8;
/// The port that flows go to.
pub(crate) const SERVICE: u16 = 53;

/// How long frames are, without their checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// All alike.
    Bytes(usize),
    /// Seven of 60, four of 590, one of 1514.
    Imix,
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEAST: usize = HEADERS + STAMP;
        match text.parse() {
            _ if text == "imix" => Ok(Self::Imix),
            Ok(bytes @ LEAST..=1514) => Ok(Self::Bytes(bytes)),
            _ => Err(format!("imix, or {LEAST} to 1514 bytes")),
        }
    }
}

impl Size {
    fn of(self, flow: usize) -> usize {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Imix => [60, 60, 590, 60, 60, 590, 60, 60, 590, 60, 590, 1514][flow % 12],
        }
    }
}

/// A frame for every flow, to be stamped.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(super) frames: Vec<Vec<u8>>,
}

/// Both ends of a flow.
fn ends(flow: usize) -> [(String, u16); 2] {
    let (host, port) = (flow / 50_000, 1024 + (flow % 50_000) as u16);
    [(format!("10.1.{}.{}", host / 200, 10 + host % 200), port), ("10.2.0.10".to_owned(), SERVICE)]
}

impl Traffic {
    /// `flows` of them, addressed to what lies before `a0`.
    pub(crate) fn new(flows: usize, size: Size, next: Mac) -> Self {
        let frame = |flow| {
            let [(from, port), (to, service)] = ends(flow);
            build(&from, port, &to, service, [mac("a0"), next], size.of(flow))
        };
        Self { frames: (0..flows.max(1)).map(frame).collect() }
    }

    /// What answers it, addressed to what lies before `b0`.
    pub(crate) fn replies(flows: usize, next: Mac) -> Self {
        let frame = |flow| {
            let [(from, port), (to, service)] = ends(flow);
            build(&to, service, &from, port, [mac("b0"), next], HEADERS + STAMP)
        };
        Self { frames: (0..flows.max(1)).map(frame).collect() }
    }

    /// Single packets from behind `a0`: source, destination, destination port.
    pub(crate) fn single(packets: &[(String, String, u16)], next: Mac) -> Self {
        let frame = |(from, to, port): &(String, String, u16)| {
            build(from, 1024, to, *port, [mac("a0"), next], HEADERS + STAMP)
        };
        Self { frames: packets.iter().map(frame).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }
}

/// Without a UDP checksum: the stamp changes.
fn build(from: &str, port: u16, to: &str, service: u16, macs: [Mac; 2], size: usize) -> Vec<u8> {
    let packet = Packet::udp(from, port, to, service).macs(macs[0], macs[1]);
    packet.payload_len(size - HEADERS).no_udp_checksum().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_long_as_asked_and_flows_differ() {
        let imix = Traffic::new(12, Size::Imix, mac("a1"));
        let long = |bytes| imix.frames.iter().filter(|frame| frame.len() == bytes).count();
        assert_eq!([long(60), long(590), long(1514)], [7, 4, 1]);
        let many = Traffic::new(120_000, Size::Bytes(60), mac("a1"));
        let heads: std::collections::HashSet<_> =
            many.frames.iter().map(|frame| frame[26..38].to_vec()).collect();
        assert_eq!(heads.len(), 120_000);
        assert!("59".parse::<Size>().is_err() && "60".parse::<Size>().is_ok());
    }
}
