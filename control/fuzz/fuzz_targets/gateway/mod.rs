//! A gateway between an inside and an outside, driven by a script.
//!
//! A script is a byte for the rules and then steps of five bytes and a payload:
//! `what, flow, tweak, place, length`. A flow of TCP shakes hands when it is first
//! spoken of, so that payloads meet established connections; answers go to the
//! address that the gateway showed. What comes out is checked: it parses, its
//! lengths and checksums are right where the packet's were, it fits the way, no
//! inside address leaves under MASQUERADE, and all tables stay within bounds.

mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack, CtState};
use dataplane::effects::{Effects, LogRecord, Outcome};
use dataplane::engine::{Engine, Slot, World};
use dataplane::packet::{Family, Fragment, Mac, Parsed, PortId};
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};
use dataplane::wire::build::{L4, Packet};
use dataplane::wire::{self, Frame, checksum, ipv4, proto};

use rules::{HOST_MACS, PORT_MACS, Rules};

const HEADROOM: usize = 64;
const ROOM: usize = 256;
const MTU: usize = 1500;
const MOST: u64 = 64;
const MOST_EXPECTED: u64 = 16;
const STEPS: usize = 40;
const SYN: u8 = 2;
const ACK: u8 = 0x10;
const OUTSIDE: PortId = PortId(1);

/// Two ends, and what lies between them.
struct Flow {
    client: (&'static str, u16),
    server: (&'static str, u16),
    proto: u8,
    /// Port that the client is on.
    from: u8,
}

const fn flow(
    client: (&'static str, u16),
    server: (&'static str, u16),
    proto: u8,
    from: u8,
) -> Flow {
    Flow { client, server, proto, from }
}

const FLOWS: [Flow; 26] = [
    flow(("198.18.1.2", 4000), ("198.18.2.2", 21), proto::TCP, 0),
    flow(("198.18.1.2", 4001), ("198.18.2.2", 6667), proto::TCP, 0),
    flow(("198.18.1.2", 5060), ("198.18.2.2", 5060), proto::UDP, 0),
    flow(("198.18.1.2", 5060), ("198.18.2.2", 5060), proto::TCP, 0),
    flow(("198.18.1.2", 4002), ("198.18.2.2", 69), proto::UDP, 0),
    flow(("198.18.1.2", 4003), ("198.18.2.2", 80), proto::TCP, 0),
    flow(("198.18.2.2", 4004), ("198.18.2.1", 8080), proto::TCP, 1),
    flow(("198.18.2.2", 4005), ("203.0.113.2", 21), proto::TCP, 1),
    flow(("198.18.1.2", 4006), ("198.18.2.2", 3128), proto::TCP, 0),
    flow(("198.18.1.2", 4007), ("198.18.2.2", 90), proto::TCP, 0),
    flow(("198.18.1.2", 4008), ("198.18.2.2", 91), proto::TCP, 0),
    flow(("198.18.1.2", 0), ("198.18.2.2", 0), proto::ICMP, 0),
    flow(("198.18.1.2", 4009), ("198.18.2.2", 92), proto::SCTP, 0),
    flow(("198.18.1.2", 0), ("198.18.2.2", 0), proto::GRE, 0),
    flow(("198.18.2.2", 5060), ("203.0.113.2", 5060), proto::UDP, 1),
    flow(("2001:db8:1::2", 4000), ("2001:db8:2::2", 21), proto::TCP, 0),
    flow(("2001:db8:1::2", 5060), ("2001:db8:2::2", 5060), proto::UDP, 0),
    flow(("2001:db8:1::2", 4002), ("2001:db8:2::2", 69), proto::UDP, 0),
    flow(("2001:db8:1::2", 4003), ("2001:db8:2::2", 80), proto::TCP, 0),
    flow(("2001:db8:1::2", 0), ("2001:db8:2::2", 0), proto::ICMPV6, 0),
    flow(("198.18.1.2", 4010), ("198.18.2.2", 10_080), proto::UDP, 0),
    flow(("198.18.1.2", 4011), ("198.18.2.2", 6566), proto::TCP, 0),
    flow(("198.18.1.2", 4014), ("198.18.2.2", 1723), proto::TCP, 0),
    flow(("198.18.1.2", 4012), ("198.18.2.2", 161), proto::UDP, 0),
    flow(("198.18.1.2", 4013), ("198.18.2.2", 162), proto::UDP, 0),
    flow(("2001:db8:1::2", 4010), ("2001:db8:2::2", 10_080), proto::UDP, 0),
];

/// A flow's ends as the gateway shows them to each side, once it has.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Source and destination of what left towards the server.
    shown: Option<(u128, u16, u128, u16)>,
    opened: bool,
    next: [u32; 2],
}

/// What the gateway sends by itself, and how the frame ended.
#[derive(Default)]
struct Seen {
    sent: Vec<(PortId, Vec<u8>)>,
    outcome: Option<Outcome>,
}

impl Effects for Seen {
    const TRACE: bool = true;
    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.sent.push((port, frame.to_vec()));
        true
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _: Option<PortId>, _: &[u8]) {}
    fn log(&mut self, _: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
    fn outcome(&mut self, outcome: &Outcome) {
        self.outcome = Some(*outcome);
    }
}

struct Gateway<'a> {
    rules: &'a Rules,
    conntrack: Conntrack,
    stats: WorkerStats,
    engine: Engine,
    now: Nanos,
    known: [Known; FLOWS.len()],
    /// The last frame that left, and where.
    last: Option<(PortId, Vec<u8>)>,
    /// Somebody spoke to an inside address, and may be answered by it.
    reached_directly: bool,
    /// Fragments came in: what is said about them, now or when their time is up, is
    /// about more than the last one.
    gathers: bool,
}

/// Plays a script.
pub fn play(data: &[u8]) {
    let Some((&which, mut rest)) = data.split_first() else { return };
    thread_local!(static RULES: Vec<Rules> = rules::all());
    RULES.with(|all| {
        let mut gateway = Gateway::new(&all[usize::from(which) % all.len()]);
        for _ in 0..STEPS {
            let [what, flow, tweak, place, length, tail @ ..] = rest else { return };
            let length = usize::from(*length) * if tweak & 0x80 != 0 { 5 } else { 1 };
            let (payload, tail) = tail.split_at(length.min(tail.len()));
            rest = tail;
            gateway.step(*what, usize::from(*flow) % FLOWS.len(), *tweak, *place, payload);
        }
    });
}

impl<'a> Gateway<'a> {
    fn new(rules: &'a Rules) -> Self {
        let mut config = Config::new([7; 16]);
        for (name, value) in [("max", MOST), ("expect_max", MOST_EXPECTED)] {
            config.set(name, value).expect("a sysctl");
        }
        Self {
            rules,
            conntrack: Conntrack::new(config).expect("a table"),
            stats: WorkerStats::default(),
            engine: Engine::new(),
            now: Nanos::from_secs(1000),
            known: [Known { next: [1000, 5000], ..Known::default() }; FLOWS.len()],
            last: None,
            reached_directly: false,
            gathers: false,
        }
    }

    fn step(&mut self, what: u8, flow: usize, tweak: u8, place: u8, payload: &[u8]) {
        let waited = if tweak & 0x40 != 0 { u64::from(place) * 4000 } else { 1 };
        self.now = self.now + Nanos::from_millis(waited);
        let side = usize::from(what >> 7);
        match what & 7 {
            0..=2 => {
                self.open(flow);
                self.say(flow, side, ACK | 8, tweak, place, payload);
            }
            3 => self.say(flow, side, place, tweak, 0, payload),
            4 => self.quote(flow, side, place, tweak),
            5 => self.echo(tweak, place, payload),
            6 => {
                let header: &[u8] = if flow < 15 { &[8, 0] } else { &[0x86, 0xdd] };
                let frame = [&PORT_MACS[side].0[..], &HOST_MACS[side].0, header, payload].concat();
                self.arrive(PortId(side as u8), frame);
            }
            _ => self.flood(flow, payload.len()),
        }
    }

    /// Shakes a flow's hands, if it is one of TCP.
    fn open(&mut self, flow: usize) {
        if std::mem::replace(&mut self.known[flow].opened, true) || FLOWS[flow].proto != proto::TCP
        {
            return;
        }
        for (side, flags) in [(0, SYN), (1, SYN | ACK), (0, ACK)] {
            self.say(flow, side, flags, 0, 0, b"");
            if flags & SYN != 0 {
                self.known[flow].next[side] = self.known[flow].next[side].wrapping_add(1);
            }
        }
    }

    fn ends(&self, flow: usize, side: usize) -> (IpAddr, u16, IpAddr, u16) {
        let Flow { client, server, .. } = &FLOWS[flow];
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        if side == 0 {
            return (ip(client.0), client.1, ip(server.0), server.1);
        }
        let v4 = ip(client.0).is_ipv4();
        let address = |bits: u128| match v4 {
            true => Ipv4Addr::from(bits as u32).into(),
            false => IpAddr::from(Ipv6Addr::from(bits)),
        };
        match self.known[flow].shown {
            Some((src, sport, dst, dport)) => (address(dst), dport, address(src), sport),
            // As it would try to reach a client that it does not know.
            None if FLOWS[flow].from == 1 => (ip(server.0), server.1, ip(client.0), client.1),
            None if v4 => (ip(server.0), server.1, ip("198.18.2.1"), client.1),
            None => (ip(server.0), server.1, ip("2001:db8:2::1"), client.1),
        }
    }

    /// A packet of one side of a flow.
    fn packet(&self, flow: usize, side: usize, flags: u8, payload: &[u8]) -> Packet {
        let (src, sport, dst, dport) = self.ends(flow, side);
        let l4 = match FLOWS[flow].proto {
            proto::TCP => {
                let [seq, ack] = [side, 1 - side].map(|side| self.known[flow].next[side]);
                let base = Packet::tcp("0.0.0.0", sport, "0.0.0.0", dport, flags);
                base.seq(seq, if flags & ACK != 0 { ack } else { 0 }).l4
            }
            proto::UDP => L4::Udp { sport, dport, length: None, lite: false },
            proto::SCTP => L4::Sctp { sport, dport, tag: flags.into() },
            number @ (proto::ICMP | proto::ICMPV6) => {
                let request = if number == proto::ICMP { 8 } else { 128 };
                let answer = if number == proto::ICMP { 0 } else { 129 };
                L4::Icmp { kind: [request, answer][side], code: 0, word: 5 << 16 }
            }
            number => L4::Raw(number),
        };
        Packet::between(src, dst, l4).payload(payload)
    }

    fn say(&mut self, flow: usize, side: usize, flags: u8, tweak: u8, place: u8, payload: &[u8]) {
        let mut packet = self.packet(flow, side, flags, payload);
        if tweak & 1 != 0 {
            packet = packet.df();
        }
        match tweak >> 1 & 15 {
            1 => packet = packet.ttl(place),
            2 => packet = packet.bad_l4_checksum(),
            3 => packet = packet.truncate(usize::from(place)),
            4 => packet = packet.no_udp_checksum(),
            5 => packet = packet.padding(usize::from(place)),
            6 => packet = packet.fragment(u16::from(place & 31) * 8, 24, true),
            7 => packet = packet.payload_len(1300 + usize::from(place)),
            8 => packet = packet.length(u16::from(place) * 8),
            9 if packet.src.is_ipv4() => packet = packet.options(&payload[..payload.len().min(36)]),
            9 => packet = packet.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]),
            10 if FLOWS[flow].proto == proto::TCP => {
                let options = &payload[..payload.len().min(usize::from(place) % 40)];
                packet = packet.tcp_options(options).payload(&payload[options.len()..]);
            }
            11 => packet = packet.tos(place),
            _ => {}
        }
        if FLOWS[flow].proto == proto::TCP && flags & SYN == 0 && place & 0x80 == 0 {
            let next = &mut self.known[flow].next[side];
            *next = next.wrapping_add(packet.payload.len() as u32);
        }
        let port = FLOWS[flow].from ^ side as u8;
        let out = self.arrive(PortId(port), built(packet, port));
        if let Some((parsed, _)) = out.filter(|_| side == 0 && self.known[flow].shown.is_none()) {
            let Parsed { src, sport, dst, dport, .. } = parsed;
            self.known[flow].shown = Some((src, sport, dst, dport));
        }
    }

    /// An ICMP error about the last frame that left, or a flow's packet.
    fn quote(&mut self, flow: usize, side: usize, kind: u8, tweak: u8) {
        let (port, quoted) = match &self.last {
            Some((port, frame)) if tweak & 1 != 0 => (port.0, frame[14..].to_vec()),
            _ => {
                let packet = self.packet(flow, 1 - side, ACK, b"quoted");
                (FLOWS[flow].from ^ side as u8, packet.build_ip())
            }
        };
        let v4 = quoted[0] >> 4 == 4;
        let cut = &quoted[..quoted.len().min(8 + usize::from(tweak) * 2)];
        let cut = [&[0; 14], cut].concat();
        let from = |v4: &str, v6: &str, is_v4| if is_v4 { v4.to_string() } else { v6.to_string() };
        let router = match port {
            0 => from("198.18.1.9", "2001:db8:1::9", v4),
            _ => from("198.18.2.9", "2001:db8:2::9", v4),
        };
        let to: IpAddr = match v4 {
            true if quoted.len() >= 20 => {
                Ipv4Addr::new(quoted[12], quoted[13], quoted[14], quoted[15]).into()
            }
            false if quoted.len() >= 40 => {
                let bytes: [u8; 16] = quoted[8..24].try_into().expect("sixteen bytes");
                Ipv6Addr::from(bytes).into()
            }
            _ => return,
        };
        let packet = Packet::error(&router, &to.to_string(), kind & 15, 1, 0, &cut);
        self.arrive(PortId(port), built(packet, port));
    }

    /// The last frame that left comes in again, changed.
    fn echo(&mut self, tweak: u8, place: u8, payload: &[u8]) {
        let Some((port, mut frame)) = self.last.clone() else { return };
        let port = if tweak & 1 != 0 { port.0 ^ 1 } else { port.0 };
        frame[..6].copy_from_slice(&PORT_MACS[usize::from(port)].0);
        frame[6..12].copy_from_slice(&HOST_MACS[usize::from(port)].0);
        let at = 12 + usize::from(place);
        for (byte, change) in frame.iter_mut().skip(at).zip(payload) {
            *byte ^= change;
        }
        self.arrive(PortId(port), frame);
    }

    /// Many connections from many ports.
    fn flood(&mut self, flow: usize, count: usize) {
        for at in 0..count.min(40) as u16 {
            let Flow { client, server, .. } = &FLOWS[flow];
            let packet = Packet::udp(client.0, 2000 + at, server.0, server.1);
            let port = FLOWS[flow].from;
            self.arrive(PortId(port), built(packet, port));
        }
    }

    /// A frame comes in. What it became, if it left.
    fn arrive(&mut self, port: PortId, frame: Vec<u8>) -> Option<(Parsed, PortId)> {
        let sound = match wire::parse(&frame, PORT_MACS[port.index()]) {
            Ok(Frame::Ip(parsed)) => {
                self.reached_directly |= is_inside(&parsed, parsed.dst);
                self.gathers |= parsed.fragment != Fragment::Whole;
                sound(&frame, &parsed)
            }
            _ => false,
        };
        let mut buf = vec![0; HEADROOM + frame.len() + ROOM];
        buf[HEADROOM..][..frame.len()].copy_from_slice(&frame);
        let mut burst = [Slot {
            buf: &mut buf,
            start: HEADROOM,
            len: frame.len(),
            port,
            disposition: Disposition::Drop(DropReason::FrameTruncated),
        }];
        let world = World {
            snapshot: &self.rules.snapshot,
            worker: 0,
            network: &self.rules.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now: self.now,
        };
        let mut seen = Seen::default();
        self.engine.process(&world, &mut burst, &mut seen);
        let [slot] = burst;
        let left = match slot.disposition {
            Disposition::Transmit(out) => Some((out, slot.frame().to_vec())),
            _ => None,
        };
        let tracking = seen.outcome.map(|outcome| outcome.tracking);
        let state = tracking.map(|tracking| tracking.state);
        let collected = slot.disposition == Disposition::Collected;
        let gathered = !matches!(slot.disposition, Disposition::Transmit(_));
        // An error about a connection that is not translated is not translated, either.
        let plain = tracking.and_then(|tracking| self.conntrack.view(tracking.conn?));
        let plain = plain.is_some_and(|conn| {
            (conn.original.src, conn.original.dst) == (conn.reply.dst, conn.reply.src)
        });
        let free = matches!(state, Some(CtState::Invalid | CtState::Untracked))
            || state == Some(CtState::Related) && plain;
        for (out, frame) in &seen.sent {
            // What was put together here need not have been right.
            self.leaves(*out, frame, !gathered, free || collected);
        }
        let answered: usize =
            seen.sent.iter().filter(|sent| sent.0 == port).map(|s| s.1.len()).sum();
        assert!(self.gathers || answered <= frame.len() + 128, "amplified");
        assert!(seen.sent.len() <= 64, "{} frames for one", seen.sent.len());
        assert!(self.conntrack.len() <= 2 * MOST as usize, "{}", self.conntrack.len());
        let expected = self.conntrack.expectations(self.now).len();
        assert!(expected <= MOST_EXPECTED as usize, "{expected} expected");
        let (out, frame) = left?;
        let parsed = self.leaves(out, &frame, sound, free);
        self.last = Some((out, frame));
        Some((parsed, out))
    }

    /// Checks a frame that leaves.
    fn leaves(&self, out: PortId, frame: &[u8], was_sound: bool, free: bool) -> Parsed {
        let mac: [u8; 6] = frame[..6].try_into().expect("an Ethernet header");
        let parsed = match wire::parse(frame, Mac(mac)) {
            Ok(Frame::Ip(parsed)) => parsed,
            other => panic!("left as {other:?}: {frame:02x?}"),
        };
        assert!(usize::from(parsed.l3_len) <= MTU, "{parsed:?}");
        let end = usize::from(parsed.l3) + usize::from(parsed.l3_len);
        assert!(end <= frame.len());
        if parsed.family == Family::V4 {
            let header = &frame[usize::from(parsed.l3)..usize::from(parsed.l4)];
            assert!(ipv4_header_ok(header), "{frame:02x?}");
        }
        if was_sound && !self.rules.breaks_sums {
            assert!(sound(frame, &parsed), "sum of {parsed:?}: {frame:02x?}");
        }
        if out == OUTSIDE && self.rules.masquerades && !free && !self.reached_directly {
            let inside = is_inside(&parsed, parsed.src);
            assert!(!inside, "{parsed:?} leaves with an inside address");
        }
        parsed
    }
}

fn built(packet: Packet, port: u8) -> Vec<u8> {
    let port = usize::from(port);
    packet.macs(HOST_MACS[port], PORT_MACS[port]).build()
}

/// Whether an address is one of a host inside.
fn is_inside(parsed: &Parsed, address: u128) -> bool {
    match parsed.family {
        Family::V4 => address >> 8 == 0x00c6_1201 && address as u8 != 1,
        Family::V6 => address >> 64 == 0x2001_0db8_0001_0000 && address as u64 != 1,
    }
}

fn ipv4_header_ok(header: &[u8]) -> bool {
    header.len() >= ipv4::HEADER && checksum::internet(header) == 0
}

/// Whether the packet is whole, and its checksums hold.
fn sound(frame: &[u8], parsed: &Parsed) -> bool {
    let header = &frame[usize::from(parsed.l3)..usize::from(parsed.l4)];
    parsed.fragment == Fragment::Whole
        && (parsed.family == Family::V6 || ipv4_header_ok(header))
        && checksum::transport_ok(frame, parsed)
}
