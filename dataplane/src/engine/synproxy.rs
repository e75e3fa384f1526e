//! SYNPROXY on the road: what a rule hands over, and, before confirmation, what
//! belongs to connections that it opened.
//!
//! Our segments travel as any other packet of this machine does. The SYN to the
//! server shows up here again on its way out, with the cookie in its
//! acknowledgement number, and leaves it with the new connection.

use classifier::Address;

use super::World;
use super::road::{End, Packet, Road};
use crate::conntrack::{ConnId, CtState, Direction, Numbers, Proxied, TcpState, Tracking};
use crate::effects::Effects;
use crate::frame::FrameBuf;
use crate::packet::{Family, Parsed, PktType, PortId};
use crate::policy::Target;
use crate::policy::walk::RuleRef;
use crate::synproxy::options::move_stamps;
use crate::synproxy::{self, Call, Ends, Options, PACKET_MAX, Segment};
use crate::verdict::DropReason;
use crate::wire::tcp::flags::{ACK, CWR, ECE, RST, SYN};
use crate::wire::{be16, be32, ethernet, ethertype, parse, proto};

/// A TCP header as it came.
struct Came {
    from: (u128, u16),
    to: (u128, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Options,
}

impl Came {
    fn read(packet: &Packet<'_>) -> Option<Self> {
        let Parsed { src, dst, .. } = packet.parsed;
        let segment = packet.parsed.l4_bytes(&packet.frame);
        let options = Options::read(segment)?;
        Some(Self {
            from: (src, be16(segment, 0)),
            to: (dst, be16(segment, 2)),
            seq: be32(segment, 4),
            ack: be32(segment, 8),
            flags: segment[13],
            window: be16(segment, 14),
            options,
        })
    }

    fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The ends of a connection whose client sent this.
    fn ends(&self, family: Family) -> Ends {
        Ends {
            family,
            client: self.from.0,
            server: self.to.0,
            client_port: self.from.1,
            server_port: self.to.1,
        }
    }
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Does what a SYNPROXY rule wants of a packet that it takes; the packet ends.
    pub(super) fn take_over(&mut self, packet: &mut Packet<'_>, rule: RuleRef) -> End {
        let rule = &self.policy.chains[rule.chain.0 as usize].rules[rule.rule as usize];
        let (Target::Synproxy(target), Some(came)) = (&rule.target, Came::read(packet)) else {
            return End::Drop(DropReason::Hotdrop);
        };
        if synproxy::call(&packet.frame, &packet.parsed) == Call::Prove {
            return match self.open_server(packet, &came) {
                true => End::Drop(DropReason::Synproxy),
                false => End::Drop(DropReason::SynCookie),
            };
        }
        let World { conntrack, stats, now, .. } = *self.world;
        stats.synproxy.syn_received.add(1);
        let family = packet.parsed.family;
        let offered = Options { ecn: came.has(ECE | CWR), ..came.options };
        let mss = offered.mss.unwrap_or(0);
        let options = offered.answer(target, now);
        let answer = Segment {
            family,
            from: came.to,
            to: came.from,
            seq: conntrack.cookies().issue(&came.ends(family), came.seq, mss, now),
            ack: came.seq.wrapping_add(1),
            flags: SYN | ACK | if options.ecn { ECE } else { 0 },
            window: 0,
            options,
        };
        self.send_segment(&answer, as_reply(&packet.tracking), false);
        End::Drop(DropReason::Synproxy)
    }

    /// Opens the connection to the server for a client whose ACK brings a good
    /// cookie back.
    fn open_server(&mut self, packet: &Packet<'_>, came: &Came) -> bool {
        let World { conntrack, stats, now, .. } = *self.world;
        let family = packet.parsed.family;
        let (first, cookie) = (came.seq.wrapping_sub(1), came.ack.wrapping_sub(1));
        let checked = conntrack.cookies().check(&came.ends(family), first, cookie, now);
        let Some(mss) = checked else {
            stats.synproxy.cookie_invalid.add(1);
            return false;
        };
        stats.synproxy.cookie_valid.add(1);
        let options = came.options.recalled(mss);
        let syn = Segment {
            family,
            from: came.from,
            to: came.to,
            seq: first,
            ack: cookie,
            flags: SYN | if options.ecn { ECE | CWR } else { 0 },
            window: came.window,
            options,
        };
        self.send_segment(&syn, Tracking::NONE, true);
        true
    }

    /// The stage behind source translation, for connections that SYNPROXY opened.
    pub(super) fn splice(&mut self, packet: &mut Packet<'_>) -> Result<(), End> {
        let Some(conn) = packet.tracking.conn else { return Ok(()) };
        if packet.parsed.proto != proto::TCP || packet.input == Some(PortId::LOOPBACK) {
            return Ok(());
        }
        if packet.opens_server && packet.tracking.unconfirmed {
            self.world.conntrack.set_proxied(conn);
        }
        let Some(proxied) = self.world.conntrack.proxied(conn) else { return Ok(()) };
        let Some(came) = Came::read(packet) else { return Err(End::Drop(DropReason::Hotdrop)) };
        let original = packet.tracking.direction == Direction::Original;
        match proxied.state {
            TcpState::Close if came.has(RST) && !original => {
                // The server refused: its reset must fit what the client knows.
                let offset = proxied.numbers.cookie.wrapping_sub(came.seq).wrapping_add(1);
                self.world.conntrack.shift_all(conn, Direction::Reply, offset as i32);
            }
            TcpState::Close if came.flags & (SYN | ACK) == SYN && original => {
                self.world.stats.synproxy.conn_reopened.add(1);
                self.opening(packet, &came, conn, Numbers::default())?;
            }
            TcpState::SynSent => self.opening(packet, &came, conn, proxied.numbers)?,
            TcpState::SynRecv if came.has(SYN | ACK) => {
                self.server_answers(packet, &came, conn, &proxied);
                return Err(End::Drop(DropReason::Synproxy));
            }
            _ => {}
        }
        let numbers = self.world.conntrack.proxied(conn).map(|proxied| proxied.numbers);
        if let Some(Numbers { stamp_offset, .. }) = numbers {
            let l4 = usize::from(packet.parsed.l4);
            let end = l4 + usize::from(packet.parsed.l4_len);
            move_stamps(&mut packet.frame[l4..end], !original, stamp_offset);
        }
        Ok(())
    }

    /// A packet of a connection whose server has not answered yet: our SYN, or the
    /// client, who tries again with a number before the one that we wait for.
    fn opening(
        &mut self,
        packet: &Packet<'_>,
        came: &Came,
        conn: ConnId,
        numbers: Numbers,
    ) -> Result<(), End> {
        let original = packet.tracking.direction == Direction::Original;
        if came.flags & (SYN | ACK) == ACK && original {
            let again = Came { seq: came.seq.wrapping_add(1), ..*came };
            return Err(End::Drop(match self.open_server(packet, &again) {
                true => {
                    self.world.stats.synproxy.cookie_retrans.add(1);
                    DropReason::Synproxy
                }
                false => DropReason::SynCookie,
            }));
        }
        let stamp = came.options.timestamps.map_or(numbers.stamp, |(_, echo)| echo);
        let numbers = Numbers { cookie: came.ack, stamp, ..numbers };
        self.world.conntrack.set_proxied_numbers(conn, numbers);
        Ok(())
    }

    /// The server's SYN-ACK: both sides are told, and the numbers joined.
    fn server_answers(
        &mut self,
        packet: &Packet<'_>,
        came: &Came,
        conn: ConnId,
        proxied: &Proxied,
    ) {
        let (family, conntrack) = (packet.parsed.family, self.world.conntrack);
        let numbers = proxied.numbers;
        let to_server = Segment {
            family,
            from: came.to,
            to: came.from,
            seq: came.ack,
            ack: came.seq.wrapping_add(1),
            flags: ACK,
            window: proxied.client_window,
            options: came.options.stamps_back(),
        };
        self.send_segment(&to_server, Tracking::NONE, false);
        // From now on: what we told the server fits it as it is. (The kernel begins
        // a moment earlier, and echoes a time that the server never had.)
        if let Some((value, _)) = came.options.timestamps {
            let stamp_offset = value.wrapping_sub(numbers.stamp);
            conntrack.set_proxied_numbers(conn, Numbers { stamp_offset, ..numbers });
        }
        let offset = numbers.cookie.wrapping_sub(came.seq);
        conntrack.shift_all(conn, Direction::Reply, offset as i32);
        let to_client = Segment {
            family,
            from: came.from,
            to: came.to,
            seq: came.seq.wrapping_add(1),
            ack: came.ack,
            flags: ACK,
            window: came.window >> came.options.scale.unwrap_or(0),
            options: came.options.stamps(),
        };
        self.send_segment(&to_client, as_reply(&packet.tracking), false);
    }

    /// Sends a segment on its own road. `opens_server`: the connection that it may
    /// open is SYNPROXY's.
    fn send_segment(&mut self, segment: &Segment, tracking: Tracking, opens_server: bool) {
        const ROOM: usize = ethernet::HEADER + PACKET_MAX;
        let (mut bytes, mut frame) = ([0; PACKET_MAX], [0; ROOM]);
        let length = ethernet::HEADER + segment.write(&mut bytes);
        frame[ethernet::HEADER..].copy_from_slice(&bytes);
        let (kind, parsed) = match segment.family {
            Family::V4 => (
                ethertype::IPV4,
                parse::parse_ipv4(&frame[..length], ethernet::HEADER, PktType::Host),
            ),
            Family::V6 => (
                ethertype::IPV6,
                parse::parse_ipv6(&frame[..length], ethernet::HEADER, PktType::Host),
            ),
        };
        frame[12..ethernet::HEADER].copy_from_slice(&kind.to_be_bytes());
        let Ok(parsed) = parsed else { return };
        let mut ours = Packet::new(FrameBuf::new(&mut frame, length), parsed, None);
        (ours.tracking, ours.opens_server, ours.half_summed) = (tracking, opens_server, true);
        let Ok(hop) = self.route_output(&ours.query()) else { return };
        self.send_own(&mut ours, hop);
    }
}

/// As what a segment of ours travels that answers a packet of that tracking.
fn as_reply(tracking: &Tracking) -> Tracking {
    match tracking.conn {
        None => Tracking::NONE,
        conn => Tracking {
            state: CtState::Established,
            direction: Direction::Reply,
            conn,
            unconfirmed: false,
            summed: false,
        },
    }
}
