//! TCP conversations: two endpoints that mostly follow the protocol, and then
//! do one of the things that connection tracking has a rule about.

use super::script::{Body, Dir, Harm, Segment};
use crate::diff::rng::Rng;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;

const INITIAL: [u32; 7] = [0xffff_fff0, 0xffff_ff00, 0xffff_0000, 0, 1, 0x7fff_fff0, 0x1234_5678];
const WINDOWS: [u16; 8] = [0, 1, 100, 1_000, 8_192, 29_200, 64_240, 65_535];
const LENGTHS: [usize; 7] = [1, 2, 10, 100, 536, 1_000, 1_300];

/// A segment with its direction and what is wrong with it.
pub type Move = (Dir, Segment, Harm);

/// One conversation in the making.
#[derive(Debug)]
pub struct Talk {
    /// Next sequence number of each end.
    next: [u32; 2],
    /// What each end has acknowledged last.
    acked: [u32; 2],
    window: [u16; 2],
    /// Window scale that each end offers.
    scale: [Option<u8>; 2],
    sack: [bool; 2],
    stamps: bool,
    moves: Vec<Move>,
}

/// The body of a move.
pub fn body(segment: Segment) -> Body {
    Body::Tcp(segment)
}

/// A conversation of about that many segments.
pub fn conversation(rng: &mut Rng, length: usize) -> Vec<Move> {
    let mut talk = Talk::new(rng);
    talk.open(rng);
    while talk.moves.len() < length {
        talk.act(rng);
    }
    let Talk { moves, .. } = talk;
    moves
}

impl Talk {
    fn new(rng: &mut Rng) -> Self {
        let mut initial = || if rng.chance(50) { rng.pick(&INITIAL) } else { rng.bits() as u32 };
        let next = [initial(), initial()];
        let mut scale = || {
            let scales = [None, None, Some(0), Some(2), Some(7), Some(7), Some(14), Some(15)];
            rng.pick(&scales)
        };
        let scale = [scale(), scale()];
        let mut window = || if rng.chance(70) { 29_200 } else { rng.pick(&WINDOWS) };
        let window = [window(), window()];
        let sack = [rng.chance(70), rng.chance(70)];
        Self { next, acked: [0; 2], window, scale, sack, stamps: rng.chance(30), moves: Vec::new() }
    }

    fn options(&self, dir: Dir, syn: bool) -> Vec<u8> {
        let mut options = Vec::new();
        if syn {
            options.extend([2, 4, 5, 0xb4]);
            if self.sack[dir as usize] {
                options.extend([1, 1, 4, 2]);
            }
            if let Some(scale) = self.scale[dir as usize] {
                options.extend([1, 3, 3, scale]);
            }
        }
        if self.stamps {
            options.extend([1, 1, 8, 10, 0, 0, 1, 1, 0, 0, 0, if syn { 0 } else { 1 }]);
        }
        options
    }

    /// The segment that this end would send now.
    fn plain(&self, dir: Dir, flags: u8) -> Segment {
        let at = dir as usize;
        let ack = if flags & ACK != 0 { self.acked[at] } else { 0 };
        Segment {
            seq: self.next[at],
            ack,
            flags,
            window: self.window[at],
            options: self.options(dir, flags & SYN != 0),
            payload: 0,
        }
    }

    fn put(&mut self, dir: Dir, segment: Segment) {
        self.moves.push((dir, segment, Harm::None));
    }

    /// Sends and counts it.
    fn send(&mut self, dir: Dir, flags: u8, payload: usize) {
        let segment = Segment { payload, ..self.plain(dir, flags) };
        let takes = payload as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.put(dir, segment);
        self.next[dir as usize] = self.next[dir as usize].wrapping_add(takes);
    }

    /// Acknowledges everything that the other end has sent.
    fn acknowledge(&mut self, dir: Dir) {
        self.acked[dir as usize] = self.next[dir.flip() as usize];
        let segment = self.plain(dir, ACK);
        self.put(dir, segment);
    }

    fn handshake(&mut self, tfo: usize) {
        self.send(Dir::Original, SYN, tfo);
        self.acked[1] = self.next[0];
        self.send(Dir::Reply, SYN | ACK, 0);
        self.acknowledge(Dir::Original);
    }

    fn open(&mut self, rng: &mut Rng) {
        match rng.below(16) {
            0..6 => self.handshake(0),
            6 => self.handshake(rng.pick(&[1, 100, 1_300])),
            7 => {
                // Both open at once.
                self.send(Dir::Original, SYN, 0);
                self.send(Dir::Reply, SYN, 0);
                self.acked = [self.next[1], self.next[0]];
                for dir in [Dir::Reply, Dir::Original] {
                    let mut segment = self.plain(dir, SYN | ACK);
                    segment.seq = segment.seq.wrapping_sub(1);
                    if rng.chance(80) {
                        self.put(dir, segment);
                    }
                }
            }
            8 => {
                // Tried again, refused for a wrong number, then accepted.
                for _ in 0..=rng.below(3) {
                    let syn = self.plain(Dir::Original, SYN);
                    self.put(Dir::Original, syn);
                }
                let error = rng.pick(&[1, 0x1_0000, u32::MAX, 0x8000_0000]);
                let mut wrong = self.plain(Dir::Reply, rng.pick(&[SYN | ACK, RST | ACK, ACK]));
                wrong.ack = self.next[0].wrapping_add(1).wrapping_add(error);
                self.put(Dir::Reply, wrong);
                self.handshake(0);
            }
            9 => {
                // Picked up in the middle.
                self.acked = [self.next[1], self.next[0]];
                self.send(Dir::Original, ACK, rng.pick(&[0, 10, 1_000]));
            }
            10 => {
                self.send(Dir::Original, SYN, 0);
                self.acked[1] = self.next[0];
                let refusal = self.plain(Dir::Reply, RST | ACK);
                self.put(Dir::Reply, refusal);
            }
            11 => {
                // The other end remembers an older connection.
                self.send(Dir::Original, SYN, 0);
                let mut old = self.plain(Dir::Reply, ACK);
                (old.seq, old.ack) = (rng.bits() as u32, rng.bits() as u32);
                let mut reset = self.plain(Dir::Original, RST);
                reset.seq = old.ack;
                self.put(Dir::Reply, old);
                self.put(Dir::Original, reset);
                self.next[0] = self.next[0].wrapping_sub(1);
                self.handshake(0);
            }
            12 => self.send(Dir::Original, SYN, 0),
            13 => {
                let flags = rng.pick(&[SYN | ACK, RST, FIN | ACK, FIN, RST | ACK, ACK | URG]);
                let segment = self.plain(Dir::Original, flags);
                self.put(Dir::Original, segment);
                self.handshake(0);
            }
            14 => {
                // ECN, or pushed.
                let mut syn = self.plain(Dir::Original, SYN | rng.pick(&[0xc0, 0x40, PSH, URG]));
                syn.window = self.window[0];
                self.put(Dir::Original, syn);
                self.handshake(0);
            }
            _ => {}
        }
    }

    fn dir(rng: &mut Rng) -> Dir {
        if rng.chance(55) { Dir::Original } else { Dir::Reply }
    }

    fn act(&mut self, rng: &mut Rng) {
        let dir = Self::dir(rng);
        match rng.below(100) {
            0..18 => {
                self.send(dir, PSH | ACK, rng.pick(&LENGTHS));
                if rng.chance(75) {
                    self.acknowledge(dir.flip());
                }
            }
            18..24 => self.holes(rng, dir),
            24..28 => {
                let mut again = self.plain(dir, PSH | ACK);
                again.payload = rng.pick(&LENGTHS);
                again.seq = again.seq.wrapping_sub(again.payload as u32);
                self.put(dir, again);
            }
            28..31 => {
                for _ in 0..rng.pick(&[2, 3, 4, 5]) {
                    let same = self.plain(dir, ACK);
                    self.put(dir, same);
                }
            }
            31..36 => self.closed_window(rng, dir),
            36..44 => self.beyond(rng, dir),
            44..50 => self.strange_ack(rng, dir),
            50..52 => {
                let mut probe = self.plain(dir, ACK);
                probe.seq = probe.seq.wrapping_sub(1);
                probe.payload = rng.below(2);
                self.put(dir, probe);
                self.acknowledge(dir.flip());
            }
            52..62 => {
                let ack = if rng.chance(95) { ACK } else { 0 };
                self.send(dir, FIN | ack, rng.pick(&[0, 0, 0, 20]));
                if rng.chance(70) {
                    self.acknowledge(dir.flip());
                }
            }
            62..72 => self.reset(rng, dir),
            72..82 => self.open_again(rng, dir),
            82..85 => self.window[dir as usize] = rng.pick(&WINDOWS),
            85..89 => self.odd_flags(rng, dir),
            89..92 => {
                let segment = Segment { payload: 10, ..self.plain(dir, PSH | ACK) };
                let harm = rng.pick(&[Harm::Checksum, Harm::Checksum, Harm::Cut(8), Harm::Cut(12)]);
                self.moves.push((dir, segment, harm));
            }
            92..95 => self.odd_options(rng, dir),
            _ => self.acknowledge(dir),
        }
    }

    /// Later data first, the receiver says what it has, then the missing part.
    fn holes(&mut self, rng: &mut Rng, dir: Dir) {
        let (first, second) = (rng.pick(&LENGTHS), rng.pick(&LENGTHS));
        let mut early = self.plain(dir, ACK);
        early.payload = first;
        let mut late = early.clone();
        late.seq = early.seq.wrapping_add(first as u32);
        late.payload = second;
        let edges = (late.seq, late.seq.wrapping_add(second as u32));
        self.put(dir, late);
        let mut partial = self.plain(dir.flip(), ACK);
        let right = edges.1.wrapping_add(rng.pick(&[0, 0, 0, 1, 100_000]));
        partial.options.extend([1, 1, 5, 10]);
        partial.options.extend(edges.0.to_be_bytes());
        partial.options.extend(right.to_be_bytes());
        for _ in 0..rng.pick(&[1, 1, 3]) {
            self.put(dir.flip(), partial.clone());
        }
        if rng.chance(85) {
            self.put(dir, early);
        }
        self.next[dir as usize] = edges.1;
        if rng.chance(80) {
            self.acknowledge(dir.flip());
        }
    }

    fn closed_window(&mut self, rng: &mut Rng, dir: Dir) {
        let mut closed = self.plain(dir, ACK);
        closed.window = 0;
        self.put(dir, closed);
        for _ in 0..rng.below(3) {
            let mut probe = self.plain(dir.flip(), ACK);
            probe.payload = 1;
            probe.seq = probe.seq.wrapping_sub(rng.below(2) as u32);
            self.put(dir.flip(), probe);
        }
        if rng.chance(60) {
            self.acknowledge(dir);
        }
    }

    /// Data around and past the right edge of the receiver's window.
    fn beyond(&mut self, rng: &mut Rng, dir: Dir) {
        let other = dir.flip() as usize;
        let both = self.scale[0].is_some() && self.scale[1].is_some();
        let scale = if both { self.scale[other].unwrap_or(0).min(14) } else { 0 };
        let window = u32::from(self.window[other].max(1)) << scale;
        let mut segment = self.plain(dir, PSH | ACK);
        segment.payload = rng.pick(&[0, 1, 10, 1_000]);
        let edge = self.acked[other].wrapping_add(window);
        let end = match rng.below(8) {
            0 => edge,
            1 => edge.wrapping_add(1),
            2 => edge.wrapping_sub(1),
            3 => edge.wrapping_add(window),
            4 => edge.wrapping_add(window).wrapping_add(1),
            5 => edge.wrapping_add(segment.payload as u32),
            6 => edge.wrapping_add(segment.payload as u32 + 1),
            _ => edge.wrapping_add(rng.bits() as u32 % 200_000),
        };
        segment.seq = end.wrapping_sub(segment.payload as u32);
        self.put(dir, segment);
        if rng.chance(30) {
            let mut ack = self.plain(dir.flip(), ACK);
            ack.ack = end;
            self.put(dir.flip(), ack);
        }
    }

    fn strange_ack(&mut self, rng: &mut Rng, dir: Dir) {
        let mut segment = self.plain(dir, ACK);
        let (peer, own) = (self.next[dir.flip() as usize], segment.ack);
        segment.ack = match rng.below(8) {
            0 => peer.wrapping_add(1),
            1 => peer.wrapping_add(1_000),
            2 => own.wrapping_sub(1),
            3 => own.wrapping_sub(66_000),
            4 => own.wrapping_sub(66_001),
            5 => own.wrapping_sub(1 << 20),
            6 => peer.wrapping_add(0x8000_0000),
            _ => rng.bits() as u32,
        };
        if rng.chance(30) {
            segment.payload = 10;
        }
        self.put(dir, segment);
    }

    fn reset(&mut self, rng: &mut Rng, dir: Dir) {
        let flags = if rng.chance(50) { RST } else { RST | ACK };
        let mut segment = self.plain(dir, flags);
        let acked = self.acked[dir.flip() as usize];
        segment.seq = match rng.below(9) {
            0..3 => segment.seq,
            3 => acked,
            4 => acked.wrapping_sub(1),
            5 => acked.wrapping_add(1),
            6 => segment.seq.wrapping_add(100),
            7 => 0,
            _ => segment.seq.wrapping_add(rng.pick(&[1 << 20, 0x8000_0000, 70_000])),
        };
        if rng.chance(10) {
            segment.ack = 0;
        }
        segment.window = rng.pick(&[0, 0, 1_000]);
        self.put(dir, segment);
    }

    /// A new SYN, whatever the state, and what may follow.
    fn open_again(&mut self, rng: &mut Rng, dir: Dir) {
        let at = dir as usize;
        let old = self.next[at];
        let fresh = match rng.below(4) {
            0 => old.wrapping_add(100_000),
            1 => old.wrapping_sub(100_000),
            2 => rng.bits() as u32,
            _ => old,
        };
        let mut syn = self.plain(dir, SYN);
        syn.seq = fresh;
        self.put(dir, syn);
        let follow = rng.below(8);
        if follow < 3 {
            // The other end still lives in the old connection.
            let challenge = self.plain(dir.flip(), ACK);
            let reset = Segment {
                seq: challenge.ack,
                window: 0,
                options: Vec::new(),
                ..self.plain(dir, RST)
            };
            self.put(dir.flip(), challenge);
            if follow < 2 {
                self.put(dir, reset);
            }
        }
        if follow % 2 == 1 {
            if dir == Dir::Original {
                self.next = [fresh, rng.bits() as u32];
                self.handshake(0);
            } else {
                self.next[1] = fresh;
                self.acked[0] = fresh.wrapping_add(1);
                let answer = self.plain(Dir::Original, SYN | ACK);
                self.put(Dir::Original, answer);
            }
        } else if follow == 4 {
            self.next[at] = fresh.wrapping_add(1);
            let other = dir.flip();
            self.acked[other as usize] = self.next[at];
            let answer = self.plain(other, SYN | ACK);
            self.put(other, answer);
        }
    }

    fn odd_flags(&mut self, rng: &mut Rng, dir: Dir) {
        let flags = match rng.below(4) {
            0 => rng.bits() as u8,
            1 => rng.pick(&[0, SYN | FIN, SYN | RST, FIN, PSH, URG, FIN | PSH | URG, 0xff]),
            2 => rng.pick(&[ACK | URG, FIN | ACK | URG, ACK | 0xc0, RST | URG, FIN | RST | ACK]),
            _ => rng.pick(&[SYN | ACK, SYN | ACK | PSH, SYN | URG, SYN | ACK | URG]),
        };
        let segment = self.plain(dir, flags);
        self.put(dir, segment);
    }

    fn odd_options(&mut self, rng: &mut Rng, dir: Dir) {
        let flags = rng.pick(&[SYN, SYN | ACK, ACK, ACK]);
        let mut segment = self.plain(dir, flags);
        segment.options = rng
            .pick(&[
                &[3, 3, 15, 0][..],
                &[3, 0, 1, 1][..],
                &[3, 40, 1, 1][..],
                &[5, 9, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0][..],
                &[4, 3, 0, 0][..],
                &[0, 0, 0, 0, 3, 3, 4, 0][..],
                &[1, 1, 1, 5][..],
                &[254, 4, 1, 2][..],
            ])
            .to_vec();
        self.put(dir, segment);
    }
}
