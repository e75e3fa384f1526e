//! Brings a connection into the state that was asked for, by packets that might
//! have been seen before.

use std::net::IpAddr;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Conntrack, CtState, Extensions, Template};
use dataplane::packet::{Mac, Parsed};
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::{self, Frame, proto};

use super::Description;
use super::describe::ip;

/// How long before the described packet the others were seen.
const EARLIER: Nanos = Nanos::from_secs(1);

/// Makes the connection that the described packet is to belong to.
pub(crate) fn connection(
    conntrack: &Conntrack,
    extensions: Extensions,
    description: &Description,
    now: Nanos,
) {
    let Ok(Frame::Ip(parsed)) = wire::parse(&description.frame, Mac::default()) else { return };
    let at = now.saturating_sub(EARLIER);
    let seen = match description.state {
        Some(CtState::Established) => opening(&parsed, &description.frame, description.original),
        Some(CtState::Related) => quoted(&parsed, &description.frame),
        _ => return,
    };
    for frame in seen {
        let Ok(Frame::Ip(parsed)) = wire::parse(&frame, Mac::default()) else { continue };
        let terms = Template::default().terms(0, extensions);
        let subject = conntrack.subject(&parsed, &frame, 0);
        let tracked = conntrack.track_subject(&subject, &parsed, &frame, true, &terms, at);
        if let Ok(mut tracking) = tracked {
            // A refusal shows in the state that tracking then reports.
            let _ = conntrack.confirm(&mut tracking, at);
        }
    }
}

/// One packet each way, and for TCP a whole handshake.
fn opening(parsed: &Parsed, frame: &[u8], original: bool) -> Vec<Vec<u8>> {
    let here = (ip(parsed.family, parsed.src), parsed.sport);
    let there = (ip(parsed.family, parsed.dst), parsed.dport);
    let (client, server) = if original { (here, there) } else { (there, here) };
    let l4 = parsed.l4_bytes(frame);
    let send =
        |from: (IpAddr, u16), to: (IpAddr, u16), l4: L4| Packet::between(from.0, to.0, l4).build();
    match parsed.proto {
        proto::TCP => handshake(l4, original, client, server, &send),
        proto::UDP | proto::UDPLITE => {
            let datagram = |from: (IpAddr, u16), to: (IpAddr, u16)| L4::Udp {
                sport: from.1,
                dport: to.1,
                length: None,
                lite: parsed.proto == proto::UDPLITE,
            };
            let way = |from, to| send(from, to, datagram(from, to));
            vec![way(client, server), way(server, client)]
        }
        proto::ICMP | proto::ICMPV6 => {
            let word = |at: usize| l4.get(at..at + 4).and_then(|b| b.try_into().ok());
            let word = word(4).map_or(0, u32::from_be_bytes);
            let (request, reply) = if parsed.proto == proto::ICMP { (8, 0) } else { (128, 129) };
            let echo = |kind| L4::Icmp { kind, code: 0, word };
            vec![send(client, server, echo(request)), send(server, client, echo(reply))]
        }
        other => vec![send(client, server, L4::Raw(other)), send(server, client, L4::Raw(other))],
    }
}

fn handshake(
    l4: &[u8],
    original: bool,
    client: (IpAddr, u16),
    server: (IpAddr, u16),
    send: &dyn Fn((IpAddr, u16), (IpAddr, u16), L4) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let word = |at: usize| l4.get(at..at + 4).and_then(|b| b.try_into().ok());
    let number = |at| word(at).map_or(1, u32::from_be_bytes);
    let (mine, theirs) = (number(4), number(8));
    let (client_seq, server_seq) = if original { (mine, theirs) } else { (theirs, mine) };
    let segment = |from: (IpAddr, u16), to: (IpAddr, u16), flags, seq, ack| {
        send(from, to, L4::Tcp(Tcp { seq, ack, ..Tcp::new(from.1, to.1, flags) }))
    };
    vec![
        segment(client, server, SYN, client_seq.wrapping_sub(1), 0),
        segment(server, client, SYN | ACK, server_seq.wrapping_sub(1), client_seq),
        segment(client, server, ACK, client_seq, server_seq),
    ]
}

/// The packet that an ICMP error quotes.
fn quoted(parsed: &Parsed, frame: &[u8]) -> Vec<Vec<u8>> {
    let Some(quoted) = parsed.l4_bytes(frame).get(8..) else { return vec![] };
    let ether_type: [u8; 2] = match quoted.first().map(|byte| byte >> 4) {
        Some(4) => [0x08, 0x00],
        _ => [0x86, 0xdd],
    };
    vec![[&[0; 12][..], &ether_type, quoted].concat()]
}
