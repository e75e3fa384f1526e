//! Generated batches: conversations between inside, outside and the router,
//! each with errors about it and accidents on the way, interleaved.

use super::script::{
    Batch, Body, Complaint, Dir, End, Flow, Harm, Packet, Place, Reporter, Step, Twist,
};
use super::{nat, policy};
use super::{sctp, tcp};
use crate::diff::rng::Rng;
use crate::lab::{self, address, host_mac};

/// Packets in a sequence, about.
const LENGTH: usize = 24;

/// A batch of that many sequences.
pub fn batch(seed: u64, sequences: usize) -> Batch {
    let mut rng = Rng(seed ^ 0x5eed_0000_0000);
    let v6 = rng.chance(40);
    let policy = policy::generate(&mut rng, v6);
    let checksums = policy.sysctls.iter().all(|(name, _)| name != "checksum");
    let mut maker = Maker { rng, v6, flows: Vec::new(), id: 0, checksums, nat: policy.nat };
    let mut queues: Vec<Vec<Step>> = (0..sequences).map(|n| maker.sequence(n)).collect();
    queues.iter_mut().for_each(|queue| queue.reverse());
    let mut steps = Vec::new();
    // Mostly one conversation for a while, so that other packets come between.
    while !queues.is_empty() {
        let at = maker.rng.below(queues.len().min(8));
        for _ in 0..=maker.rng.below(4) {
            steps.extend(queues[at].pop());
        }
        if queues[at].is_empty() {
            queues.swap_remove(at);
        }
    }
    Batch { v6, rules: policy.rules, sysctls: policy.sysctls, flows: maker.flows, steps }
}

struct Maker {
    rng: Rng,
    v6: bool,
    flows: Vec<Flow>,
    id: u16,
    /// Whether connection tracking looks at checksums.
    checksums: bool,
    /// Whether the policy translates.
    nat: bool,
}

impl Maker {
    fn host(&self, port: usize, host: u8) -> End {
        End {
            address: address(self.v6, port, host),
            place: Place::Port(port, host_mac(port, host)),
        }
    }

    /// Beyond the gateway on eth2.
    fn remote(&mut self) -> End {
        let last = 1 + self.rng.below(20) as u8;
        End { address: nat::remote(self.v6, last), place: Place::Port(2, host_mac(2, 254)) }
    }

    fn inside(&mut self) -> End {
        let host = self.rng.pick(&[10, 11]);
        self.host(0, host)
    }

    fn anybody(&mut self) -> End {
        match self.rng.below(5) {
            0 | 1 => self.remote(),
            2 => self.inside(),
            _ => {
                let (port, host) = (1 + self.rng.below(2), self.rng.pick(&[10, 11]));
                self.host(port, host)
            }
        }
    }

    fn router(&mut self) -> End {
        let port = self.rng.below(lab::PORTS);
        End { address: address(self.v6, port, 1), place: Place::Router }
    }

    /// An outside address that may lead inside.
    fn virtual_host(&mut self) -> End {
        let last = self.rng.pick(&nat::VIRTUAL);
        End { address: nat::remote(self.v6, last), place: Place::Port(2, host_mac(2, 254)) }
    }

    fn ends(&mut self) -> (End, End) {
        let way = self.rng.below(if self.nat { 18 } else { 10 });
        match way {
            0..5 => (self.inside(), self.anybody()),
            5..7 => (self.anybody(), self.inside()),
            7..9 => (self.anybody(), self.router()),
            9 => (self.router(), self.anybody()),
            10..13 => (self.inside(), self.remote()),
            13..16 => (self.remote(), self.virtual_host()),
            16 => (self.inside(), self.virtual_host()),
            _ => (self.anybody(), self.virtual_host()),
        }
    }

    /// One sequence: flows on ports of their own, that may compete for a translation.
    fn sequence(&mut self, number: usize) -> Vec<Step> {
        let proto = match self.rng.below(20) {
            0..12 => 6,
            12..16 => 17,
            18 => 132,
            16..18 => {
                if self.v6 {
                    58
                } else {
                    1
                }
            }
            _ => self.rng.pick(&[47, 47, 136, 33, 50, 200]),
        };
        let sport = match self.rng.below(10) {
            0 => 200 + number as u16,
            1 => 600 + number as u16,
            _ => 20_000 + number as u16 * 7,
        };
        let dport = if self.rng.chance(50) { 80 } else { self.rng.pick(&[53, 443, 1_024, 7_777]) };
        let (client, server) = self.ends();
        let first = Flow { proto, client, server, sport, dport };
        let mut rivals = vec![first.clone()];
        while self.nat && rivals.len() < 4 && self.rng.chance(45) {
            rivals.push(self.rival(&first));
        }
        let mut queues: Vec<Vec<Step>> = Vec::new();
        for flow in rivals {
            self.flows.push(flow);
            let mut steps = self.conversation(self.flows.len() - 1);
            steps.reverse();
            queues.push(steps);
        }
        let mut steps = Vec::new();
        while !queues.is_empty() {
            let at = self.rng.below(queues.len());
            for _ in 0..=self.rng.below(3) {
                steps.extend(queues[at].pop());
            }
            queues.retain(|queue| !queue.is_empty());
        }
        steps
    }

    /// A flow that wants the same port, of the same server or elsewhere.
    fn rival(&mut self, flow: &Flow) -> Flow {
        let mut rival = flow.clone();
        let (client, server) = self.ends();
        match self.rng.below(6) {
            0..3 => rival.client = self.rival_client(flow),
            3 => rival.server = server,
            4 => rival.dport = self.rng.pick(&[80, 443, 8_080]),
            _ => (rival.client, rival.server) = (client, server),
        }
        rival
    }

    /// Another host on the same network.
    fn rival_client(&mut self, flow: &Flow) -> End {
        match flow.client.place {
            Place::Port(port, mac) if mac != host_mac(2, 254) => {
                let host = self.rng.pick(&[10, 11, 254]);
                self.host(port, host)
            }
            Place::Port(..) => self.remote(),
            Place::Router => self.inside(),
        }
    }

    fn conversation(&mut self, flow: usize) -> Vec<Step> {
        let mut steps = match self.flows[flow].proto {
            6 => self.tcp(flow),
            17 | 136 => self.udp(flow),
            1 | 58 => self.icmp(flow),
            132 => self.sctp(flow),
            _ => self.other(flow),
        };
        self.complaints(flow, &mut steps);
        self.accidents(&mut steps);
        steps
    }

    fn packet(&mut self, flow: usize, dir: Dir, body: Body) -> Packet {
        self.id = self.id.wrapping_add(1).max(1);
        Packet {
            flow,
            dir,
            body,
            ttl: 64,
            tos: 0,
            id: self.id,
            harm: Harm::None,
            pieces: Vec::new(),
        }
    }

    fn length(&mut self) -> usize {
        LENGTH / 2 + self.rng.below(LENGTH)
    }

    fn tcp(&mut self, flow: usize) -> Vec<Step> {
        let length = self.length();
        let moves = tcp::conversation(&mut self.rng, length);
        let moves = moves.into_iter().map(|(dir, segment, harm)| {
            let mut packet = self.packet(flow, dir, tcp::body(segment));
            packet.harm = harm;
            self.extras(&mut packet);
            Step::Packet(packet)
        });
        moves.collect()
    }

    fn udp(&mut self, flow: usize) -> Vec<Step> {
        let length = self.length() / 2;
        let mut steps = Vec::new();
        for _ in 0..length {
            let dir = if self.rng.chance(60) { Dir::Original } else { Dir::Reply };
            let payload = self.rng.pick(&[0, 1, 30, 64, 500, 1_200]);
            let body = match self.rng.below(8) {
                0 => Body::UdpUnsummed(payload),
                _ => Body::Udp(payload),
            };
            let mut packet = self.packet(flow, dir, body);
            if self.rng.chance(6) {
                packet.harm = self.rng.pick(&[Harm::Checksum, Harm::Cut(6), Harm::Cut(8)]);
            }
            self.extras(&mut packet);
            steps.push(Step::Packet(packet));
        }
        steps
    }

    fn icmp(&mut self, flow: usize) -> Vec<Step> {
        let pairs: &[(u8, u8)] = if self.v6 {
            &[(128, 129)]
        } else {
            &[(8, 0), (8, 0), (8, 0), (13, 14), (15, 16), (17, 18)]
        };
        let (request, reply) = self.rng.pick(pairs);
        let length = self.length() / 2;
        let mut steps = Vec::new();
        for number in 0..length {
            let (dir, mut kind) = match self.rng.below(10) {
                0..5 => (Dir::Original, request),
                5..8 => (Dir::Reply, reply),
                8 => (Dir::Reply, request),
                _ => (Dir::Original, reply),
            };
            if self.rng.chance(4) {
                kind = if self.v6 {
                    self.rng.pick(&[130, 133, 135, 136, 137, 139, 140, 143, 200])
                } else {
                    self.rng.pick(&[9, 10, 19, 30, 40, 255])
                };
            }
            let code = if self.rng.chance(5) { 1 } else { 0 };
            let payload = self.rng.pick(&[0, 8, 56, 400, 1_200]);
            let mut packet = self.packet(flow, dir, Body::Icmp(kind, code, number as u16, payload));
            if self.rng.chance(6) {
                packet.harm = self.rng.pick(&[Harm::Checksum, Harm::Cut(2), Harm::Cut(7)]);
            }
            self.extras(&mut packet);
            steps.push(Step::Packet(packet));
        }
        steps
    }

    fn sctp(&mut self, flow: usize) -> Vec<Step> {
        let length = self.length() / 2;
        let moves = sctp::conversation(&mut self.rng, length);
        let moves = moves.into_iter().map(|(dir, tag, chunks, harm)| {
            let mut packet = self.packet(flow, dir, Body::Sctp(tag, chunks));
            packet.harm = harm;
            self.extras(&mut packet);
            Step::Packet(packet)
        });
        moves.collect()
    }

    fn other(&mut self, flow: usize) -> Vec<Step> {
        let length = self.length() / 3;
        let mut steps = Vec::new();
        for _ in 0..length {
            let dir = if self.rng.chance(60) { Dir::Original } else { Dir::Reply };
            let packet =
                self.packet(flow, dir, Body::Raw(vec![0, 0, 8, 0, 1, 2, 3, 4, 0, 0, 0, 0]));
            steps.push(Step::Packet(packet));
        }
        steps
    }

    /// TTLs and fragments, now and then.
    fn extras(&mut self, packet: &mut Packet) {
        let router = self.flows[packet.flow].client.place == Place::Router
            || self.flows[packet.flow].server.place == Place::Router;
        if self.rng.chance(2) && !router {
            packet.ttl = self.rng.pick(&[1, 2]);
        }
        if self.rng.chance(3) {
            packet.tos = self.rng.pick(&[0x10, 0xb8]);
        }
        if self.rng.chance(5) && packet.harm == Harm::None && !router {
            self.cut(packet);
        }
    }

    /// Sent in pieces: in order, out of order, twice, overlapping, or not all.
    fn cut(&mut self, packet: &mut Packet) {
        let len = match &packet.body {
            Body::Tcp(segment) => 20 + segment.options.len() + segment.payload,
            Body::Udp(payload) | Body::UdpUnsummed(payload) | Body::Icmp(_, _, _, payload) => {
                8 + payload
            }
            Body::Sctp(_, chunks) => 12 + chunks.len(),
            Body::Raw(bytes) => bytes.len(),
        };
        let size = self.rng.pick(&[8, 24, 48, 400, 600]);
        // IPv4 refuses to reassemble nothing, and lots of pieces prove nothing.
        if len <= size || len / size > 6 {
            return;
        }
        let mut pieces: Vec<(usize, usize)> =
            (0..len).step_by(size).map(|start| (start, (start + size).min(len))).collect();
        match self.rng.below(10) {
            0..4 => {}
            4..6 => pieces.reverse(),
            6 => {
                let at = self.rng.below(pieces.len());
                pieces.insert(at, pieces[at]);
            }
            7 => {
                let at = self.rng.below(pieces.len());
                pieces.swap(0, at);
            }
            8 => {
                // A piece that reaches into the next.
                let at = self.rng.below(pieces.len());
                pieces[at].1 = (pieces[at].1 + 8).min(len);
            }
            _ => drop(pieces.remove(self.rng.below(pieces.len()))),
        }
        packet.pieces = pieces;
    }

    /// Errors about the flow's packets, among them.
    fn complaints(&mut self, flow: usize, steps: &mut Vec<Step>) {
        for _ in 0..self.rng.pick(&[0, 0, 1, 2, 3]) {
            let at = self.rng.below(steps.len() + 1);
            let complaint = self.complaint(flow);
            steps.insert(at, Step::Complaint(complaint));
        }
    }

    fn complaint(&mut self, flow: usize) -> Complaint {
        let (kind, code) = if self.v6 {
            self.rng.pick(&[(1, 0), (1, 1), (1, 4), (3, 0), (3, 1), (4, 0), (137, 0)])
        } else {
            self.rng.pick(&[
                (3, 0),
                (3, 1),
                (3, 3),
                (3, 13),
                (11, 0),
                (11, 1),
                (12, 0),
                (5, 1),
                (4, 0),
            ])
        };
        let reporter = match self.rng.below(10) {
            0..5 => Reporter::Receiver,
            5..8 => Reporter::Gateway,
            _ => Reporter::Host(self.rng.below(lab::PORTS), self.rng.pick(&[10, 11, 254])),
        };
        let to = self.rng.chance(10).then(|| self.anybody().address);
        let twist = match self.rng.below(20) {
            0..11 => Twist::None,
            11..13 => Twist::Older,
            // A changed port may be one that the other side happens to use.
            13..15 if self.nat => Twist::Byte(4),
            13..15 => Twist::Byte(self.rng.pick(&[0, 2, 4])),
            15 => Twist::Source,
            16 => Twist::Destination,
            17 => Twist::Fragment,
            18 => Twist::FirstFragment,
            _ => Twist::Checksum,
        };
        let flow_ends = [self.flows[flow].client.place, self.flows[flow].server.place];
        let twist = match twist {
            // The nat table drops errors with a wrong checksum that tracking lets by.
            Twist::Checksum if !self.checksums || flow_ends.contains(&Place::Router) => Twist::None,
            twist => twist,
        };
        let keep = match self.rng.pick(&[8, 8, 8, 20, 28, 64, 548, 4, 2, 0]) {
            // An echo's checksum without the identifier that it covers.
            4 if matches!(self.flows[flow].proto, 1 | 58) => 2,
            keep => keep,
        };
        Complaint {
            flow,
            about: if self.rng.chance(60) { Dir::Original } else { Dir::Reply },
            kind,
            code,
            word: [0; 4],
            reporter,
            to,
            keep,
            twist,
        }
    }

    /// The network's own: loss, duplicates, reordering.
    fn accidents(&mut self, steps: &mut Vec<Step>) {
        let mut at = 0;
        while at < steps.len() {
            match self.rng.below(100) {
                0..3 => drop(steps.remove(at)),
                3..7 => steps.insert(at, steps[at].clone()),
                7..12 if at + 1 < steps.len() => steps.swap(at, at + 1),
                12..14 => {
                    // Late by a few.
                    let late = steps.remove(at);
                    let to = (at + 1 + self.rng.below(5)).min(steps.len());
                    steps.insert(to, late);
                }
                _ => {}
            }
            at += 1;
        }
    }
}
