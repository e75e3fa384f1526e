//! Helpers on simulated time: a client, a server, and what passes between them.

mod expectations;
mod ftp;
mod hostile;
mod others;
mod pptp;
mod shifts;
mod small;

use crate::clock::Nanos;
use crate::conntrack::{Config, Conntrack, CtState, Tracking, Tuple, status};
use crate::frame::FrameBuf;
use crate::helper::assist;
use crate::packet::Parsed;
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::build::{ETH_DST, Packet};
use crate::wire::{Frame, checksum, parse, tcp};

pub(super) const CLIENT: &str = "198.18.1.5";
pub(super) const SERVER: &str = "198.18.2.7";
pub(super) const THIRD: &str = "203.0.113.9";
pub(super) const CLIENT6: &str = "2001:db8:1::5";
pub(super) const SERVER6: &str = "2001:db8:2::7";
pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 0x10;

/// A connection table, and a helper for every connection that opens.
pub(super) struct Rig {
    pub(super) ct: Conntrack,
    pub(super) now: Nanos,
    pub(super) helper: Option<HelperKind>,
    /// What new clients are called behind a source translation. (Addresses in
    /// headers stay: that is NAT's business.)
    pub(super) outside: Option<u128>,
    /// Bytes by which a packet may grow.
    pub(super) room: usize,
}

/// A packet that came through.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) tracking: Tracking,
    pub(super) frame: Vec<u8>,
}

pub(super) fn parsed(frame: &[u8]) -> Parsed {
    match parse(frame, ETH_DST) {
        Ok(Frame::Ip(parsed)) => parsed,
        other => panic!("not an IP packet: {other:?}"),
    }
}

impl Passed {
    /// Sequence and acknowledgement number.
    pub(super) fn numbers(&self) -> (u32, u32) {
        let parsed = parsed(&self.frame);
        let segment = tcp::Packet::new_checked(parsed.l4_bytes(&self.frame)).unwrap();
        (segment.seq(), segment.ack())
    }
}

impl Rig {
    pub(super) fn new(helper: HelperKind) -> Self {
        let mut config = Config::new([9; 16]);
        config.set("max", 1024).unwrap();
        config.set("expect_max", 16).unwrap();
        let ct = Conntrack::new(config).unwrap();
        Self { ct, now: Nanos::from_secs(1000), helper: Some(helper), outside: None, room: 64 }
    }

    /// Takes a packet from tracking to confirmation. Its checksums are right afterwards.
    pub(super) fn send(&self, packet: &Packet) -> Result<Passed, DropReason> {
        let mut packet = packet.clone();
        if let Some(outside) = self.outside
            && packet.dst.to_string() == CLIENT
        {
            // As the other side addresses her.
            packet.dst = std::net::Ipv4Addr::from(outside as u32).into();
        }
        let mut frame = packet.build();
        let len = frame.len();
        frame.resize(len + self.room, 0);
        let mut parsed = parsed(&frame[..len]);
        let mut tracking = self.ct.track(&parsed, &frame[..len], false, self.now)?;
        if let Some(id) = tracking.conn.filter(|_| tracking.unconfirmed)
            && self.ct.master(id).is_none()
        {
            self.ct.set_helper(id, self.helper);
            if let Some(outside) = self.outside {
                let original = self.ct.view(id).unwrap().original;
                let reply = Tuple { dst: outside, ..original.inverted().unwrap() };
                self.ct.bind_tuple(id, Some(&reply), status::SRC_NAT | status::SRC_NAT_DONE);
            }
        }
        let mut buf = FrameBuf::new(&mut frame, len);
        assist(&self.ct, &tracking, &mut buf, &mut parsed, None, self.now, &|_, _| false)?;
        self.ct.confirm(&mut tracking, self.now)?;
        let frame = buf.to_vec();
        let seen = self::parsed(&frame);
        assert_eq!(seen, parsed, "what is known of the packet is true");
        assert!(checksum::transport_ok(&frame, &parsed), "the checksum holds");
        Ok(Passed { tracking, frame })
    }

    pub(super) fn state(&self, packet: &Packet) -> CtState {
        self.send(packet).unwrap().tracking.state
    }

    /// What is expected, one line each, without the time.
    pub(super) fn expected(&self) -> Vec<String> {
        let rows = self.ct.expectations(self.now);
        let brief = |row: &crate::conntrack::ExpectRow| {
            let text = row.to_string();
            let words = text.split(' ').skip(2).take(4);
            words.collect::<Vec<_>>().join(" ")
        };
        rows.iter().map(brief).collect()
    }
}

/// A TCP connection, its numbers kept.
pub(super) struct Talk {
    pub(super) hosts: [(&'static str, u16); 2],
    pub(super) next: [u32; 2],
}

impl Talk {
    /// Shakes hands.
    pub(super) fn open(
        rig: &Rig,
        client: (&'static str, u16),
        server: (&'static str, u16),
    ) -> Self {
        let mut talk = Self { hosts: [client, server], next: [1000, 5000] };
        let syn = talk.segment(0, b"", SYN);
        talk.next[0] += 1;
        let answer = talk.segment(1, b"", SYN | ACK);
        talk.next[1] += 1;
        let last = talk.segment(0, b"", ACK);
        [syn, answer, last].iter().for_each(|packet| drop(rig.send(packet).unwrap()));
        talk
    }
    /// A segment of a side, which stays to be sent.
    pub(super) fn segment(&self, side: usize, payload: &[u8], flags: u8) -> Packet {
        let ((src, sport), (dst, dport)) = (self.hosts[side], self.hosts[1 - side]);
        let ack = if flags & ACK != 0 { self.next[1 - side] } else { 0 };
        Packet::tcp(src, sport, dst, dport, flags).seq(self.next[side], ack).payload(payload)
    }
    /// A side says something, and goes on behind it.
    pub(super) fn say(
        &mut self,
        rig: &Rig,
        side: usize,
        payload: &[u8],
    ) -> Result<Passed, DropReason> {
        let packet = self.segment(side, payload, ACK);
        self.next[side] += payload.len() as u32;
        rig.send(&packet)
    }
}

/// The client and the server of an FTP connection have greeted each other.
pub(super) fn greeted(rig: &Rig) -> Talk {
    let mut talk = Talk::open(rig, (CLIENT, 4000), (SERVER, 21));
    talk.say(rig, 1, b"220 hello\r\n").unwrap();
    talk.say(rig, 0, b"USER x\r\n").unwrap();
    talk.say(rig, 1, b"230 ok\r\n").unwrap();
    talk
}
