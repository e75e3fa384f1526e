//! Seeded-random SCTP conversations.

use dataplane::wire::build::{L4, Packet};

use super::{Random, Step, hosts};

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

/// Tags that the ends announce.
const TAGS: [u32; 2] = [0x1111_0001, 0x2222_0002];

/// A conversation that follows the protocol often enough to get deep, and breaks
/// it often enough to meet every rule.
pub(crate) fn random_sctp(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let family = random.below(2);
    let opening = [(0, INIT), (1, INIT_ACK), (0, COOKIE_ECHO), (1, COOKIE_ACK)];
    let sane = if random.one_in(4) { 0 } else { random.below(5) };
    let close = [SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE];
    (0..steps)
        .map(|at| {
            let (side, kind) = match opening.get(at) {
                Some(&opened) if at < sane => opened,
                _ if random.one_in(3) => {
                    (random.below(2), random.pick(&[INIT, INIT_ACK, COOKIE_ECHO, COOKIE_ACK]))
                }
                _ if random.one_in(4) => (random.below(2), random.pick(&close)),
                _ => (random.below(2), random.pick(&[DATA, HEARTBEAT, HEARTBEAT_ACK, SACK])),
            };
            packet(&mut random, side, kind, family)
        })
        .collect()
}

fn packet(random: &mut Random, side: usize, kind: u8, family: usize) -> Step {
    let rare = [ABORT, ERROR, 12, 63, 64, 130, 192, SHUTDOWN, SHUTDOWN_ACK, SHUTDOWN_COMPLETE];
    let kind = if random.one_in(10) { random.pick(&rare) } else { kind };
    let mut payload = chunk(random, side, kind);
    if random.one_in(6) {
        let second = random.pick(&[
            DATA,
            HEARTBEAT,
            HEARTBEAT_ACK,
            ERROR,
            SACK,
            INIT,
            COOKIE_ECHO,
            ABORT,
            SHUTDOWN,
        ]);
        payload.extend(chunk(random, side, second));
    }
    if random.one_in(40) {
        payload.truncate(random.below(payload.len() + 1));
    }
    // What the peer announced; none for an INIT.
    let expected = if kind == INIT { 0 } else { TAGS[1 - side] };
    let tag = match random.one_in(6) {
        true => random.pick(&[0, TAGS[side], TAGS[1 - side], 0x3333_0003, 0x4444_0004]),
        false => expected,
    };
    let [src, dst] = hosts(side, family);
    let [sport, dport] = if side == 0 { [4000, 2905] } else { [2905, 4000] };
    let mut packet = Packet::new(src, dst, L4::Sctp { sport, dport, tag }).payload(&payload);
    if random.one_in(40) {
        packet = packet.bad_l4_checksum();
    }
    if side == 0 { Step::inside(packet) } else { Step::outside(packet) }
}

fn chunk(random: &mut Random, side: usize, kind: u8) -> Vec<u8> {
    let flags = u8::from(random.one_in(4));
    let mut value = match kind {
        INIT | INIT_ACK => {
            let tag = if random.one_in(8) { random.pick(&[0, 0x3333_0003]) } else { TAGS[side] };
            let mut value = tag.to_be_bytes().to_vec();
            value.extend([0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0, 0, 1]);
            value
        }
        DATA => vec![0; 12 + random.below(40)],
        _ => vec![0; random.below(9)],
    };
    let mut length = 4 + value.len() as u16;
    if random.one_in(60) {
        length = random.pick(&[0, 1, 3, 4, length + 1, length + 400]);
    }
    while value.len() % 4 != 0 {
        value.push(0);
    }
    let mut bytes = vec![kind, flags];
    bytes.extend(length.to_be_bytes());
    bytes.extend(value);
    bytes
}
