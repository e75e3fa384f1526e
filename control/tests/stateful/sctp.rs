//! SCTP conversations: associations that open, talk and close, with chunks in
//! wrong places and tags that are not theirs.

use super::script::{Dir, Harm};
use crate::diff::rng::Rng;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

const OPENING: [(Dir, u8); 4] = [
    (Dir::Original, INIT),
    (Dir::Reply, INIT_ACK),
    (Dir::Original, COOKIE_ECHO),
    (Dir::Reply, COOKIE_ACK),
];
const CLOSING: [(Dir, u8); 3] =
    [(Dir::Original, SHUTDOWN), (Dir::Reply, SHUTDOWN_ACK), (Dir::Original, SHUTDOWN_COMPLETE)];

/// Verification tag and chunks, as they follow the ports.
pub type Move = (Dir, u32, Vec<u8>, Harm);

fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags];
    bytes.extend((value.len() as u16 + 4).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A conversation of about that many packets.
pub fn conversation(rng: &mut Rng, length: usize) -> Vec<Move> {
    let tags = [rng.bits() as u32 | 1, rng.bits() as u32 | 1];
    let mut talk = Talk { tags, moves: Vec::new() };
    if rng.chance(85) {
        talk.follow(rng, &OPENING, Dir::Original);
    }
    while talk.moves.len() < length {
        talk.act(rng);
    }
    talk.moves
}

struct Talk {
    /// The tag that each end wants to see.
    tags: [u32; 2],
    moves: Vec<Move>,
}

impl Talk {
    fn act(&mut self, rng: &mut Rng) {
        let dir = if rng.chance(50) { Dir::Original } else { Dir::Reply };
        match rng.below(12) {
            0..5 => {
                self.send(rng, dir, DATA);
                self.send(rng, dir.flip(), SACK);
            }
            5 => {
                self.send(rng, dir, HEARTBEAT);
                self.send(rng, dir.flip(), HEARTBEAT_ACK);
            }
            6 => self.follow(rng, &CLOSING, dir),
            7 => {
                if rng.chance(50) {
                    self.tags[dir as usize] = rng.bits() as u32 | 1;
                }
                self.follow(rng, &OPENING, dir);
            }
            8 => {
                let kind = rng.below(18) as u8;
                self.send(rng, dir, kind);
            }
            9 => self.send(rng, dir, ABORT),
            10 => self.send(rng, dir, ERROR),
            _ => self.send(rng, dir, SHUTDOWN),
        }
    }

    /// An exchange that `first` begins.
    fn follow(&mut self, rng: &mut Rng, exchange: &[(Dir, u8)], first: Dir) {
        for &(dir, kind) in exchange {
            let who = if first == Dir::Original { dir } else { dir.flip() };
            self.send(rng, who, kind);
        }
    }

    fn send(&mut self, rng: &mut Rng, dir: Dir, kind: u8) {
        let own = self.tags[dir as usize];
        let value = match kind {
            INIT | INIT_ACK => {
                let mut value = own.to_be_bytes().to_vec();
                value.extend([0, 0, 0x10, 0, 0, 4, 0, 4, 0, 0, 0, 1]);
                value
            }
            DATA => vec![1; rng.pick(&[13, 16, 100, 1_000])],
            SACK => vec![0; 12],
            _ => vec![2; rng.pick(&[0, 4, 8, 33])],
        };
        let flags = if rng.chance(6) { 1 } else { 0 };
        let mut tag = if kind == INIT { 0 } else { self.tags[dir.flip() as usize] };
        if rng.chance(6) {
            tag = rng.pick(&[0, own, tag.wrapping_add(1)]);
        }
        let mut chunks = chunk(kind, flags, &value);
        if rng.chance(10) {
            let other = rng.pick(&[DATA, SACK, HEARTBEAT, ABORT, COOKIE_ACK, INIT]);
            chunks.extend(chunk(other, 0, &[0; 16]));
        }
        if rng.chance(3) {
            chunks[2..4].copy_from_slice(&rng.pick(&[0_u16, 3, 2_000]).to_be_bytes());
        }
        let harm = if rng.chance(3) { Harm::Checksum } else { Harm::None };
        self.moves.push((dir, tag, chunks, harm));
    }
}

/// The checksum of RFC 9260, as it stands in the header.
pub fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes()
}
