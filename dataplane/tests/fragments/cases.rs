//! Datagrams in fragments, in every order and disorder.

use dataplane::wire::build::Packet;
use dataplane::wire::proto;

use crate::lab::address;

/// Frames one after the other, each with the port that it arrives on.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frames: Vec<(usize, Packet)>,
}

/// A small generator with a seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// Below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }
}

fn between(v6: bool) -> (String, String) {
    (address(v6, 0, 10).to_string(), address(v6, 1, 10).to_string())
}

fn udp(v6: bool, dport: u16, len: usize, id: u32) -> Packet {
    let (a, b) = between(v6);
    Packet::udp(&a, 5000, &b, dport).payload_len(len).id(id)
}

/// Cuts `total` bytes of layer 4 into pieces of these sizes; the last takes the rest.
fn cut(packet: &Packet, total: usize, sizes: &[usize]) -> Vec<Packet> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    for &size in sizes {
        pieces.push(packet.clone().fragment(at as u16, size, true));
        at += size;
    }
    pieces.push(packet.clone().fragment(at as u16, total - at, false));
    pieces
}

fn inside(pieces: Vec<Packet>) -> Vec<(usize, Packet)> {
    pieces.into_iter().map(|piece| (0, piece)).collect()
}

/// Cases of one family, each with an identification of its own.
pub(crate) fn all(v6: bool) -> Vec<Case> {
    let only = if v6 { only_v6() } else { only_v4() };
    [orders(v6), contradictions(v6), headers(v6), pings(v6), only].concat()
}

/// What makes a datagram, in any order, and again.
fn orders(v6: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, pieces: Vec<Packet>| {
        cases.push(Case { name: name.to_owned(), frames: inside(pieces) });
    };
    let d = |id: u32| udp(v6, 4000, 2992, id);
    let thirds = |id| cut(&d(id), 3000, &[1200, 1200]);
    add("in order", thirds(1));
    add("reversed", thirds(2).into_iter().rev().collect());
    let mut mixed = thirds(3);
    mixed.swap(0, 1);
    add("middle first", mixed);
    add("full size", cut(&d(4), 3000, &[1440, 1440]));
    add("full size reversed", cut(&d(5), 3000, &[1440, 1440]).into_iter().rev().collect());
    add("unequal", cut(&d(6), 3000, &[800, 1360, 200]));
    add("tiny first", cut(&d(7), 3000, &[8, 1304, 1304]));
    add("tiny", cut(&udp(v6, 4000, 92, 8), 100, &[8; 12]));
    add("tiny reversed", cut(&udp(v6, 4000, 92, 9), 100, &[8; 12]).into_iter().rev().collect());
    add("two of eight", cut(&udp(v6, 4000, 8, 10), 16, &[8]));
    add("two", cut(&udp(v6, 4000, 100, 11), 108, &[56]));
    add("twice each", thirds(12).into_iter().flat_map(|p| [p.clone(), p]).collect());
    let mut part = thirds(13);
    part.insert(2, d(13).fragment(600, 800, true));
    add("part of a run again", part);
    let mut part: Vec<_> = thirds(14).into_iter().rev().collect();
    part.insert(2, d(14).fragment(2000, 600, true));
    add("across runs again", part);
    cases
}

/// What does not go together.
fn contradictions(v6: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, pieces: Vec<Packet>| {
        cases.push(Case { name: name.to_owned(), frames: inside(pieces) });
    };
    let d = |id: u32| udp(v6, 4000, 2992, id);
    let thirds = |id| cut(&d(id), 3000, &[1200, 1200]);
    add(
        "overlap",
        vec![
            d(15).fragment(0, 1200, true),
            d(15).fragment(1192, 1000, true),
            d(15).fragment(2192, 808, false),
            d(15).fragment(1200, 992, true),
        ],
    );
    add(
        "overlap before",
        vec![
            d(16).fragment(1200, 1400, false),
            d(16).fragment(0, 1208, true),
            d(16).fragment(0, 1200, true),
        ],
    );
    add("whole again after it was complete", [thirds(17), thirds(17)].concat());
    add("missing", thirds(18)[..2].to_vec());
    add("refused by its port", cut(&udp(v6, 53, 2992, 19), 3000, &[1200, 1200]));
    let refused = cut(&udp(v6, 53, 2992, 20), 3000, &[1200, 1200]);
    add("refused by its port, reversed", refused.into_iter().rev().collect());
    add(
        "beyond the last",
        vec![
            d(21).fragment(1200, 600, false),
            d(21).fragment(1800, 600, true),
            d(21).fragment(0, 1200, true),
        ],
    );
    add(
        "two ends",
        vec![
            d(22).fragment(1200, 600, false),
            d(22).fragment(1200, 800, false),
            d(22).fragment(0, 1200, true),
        ],
    );
    add("an odd length", vec![d(23).fragment(0, 1203, true), d(23).fragment(1200, 1400, false)]);
    add(
        "an odd length in the middle",
        vec![
            d(24).fragment(0, 1200, true),
            d(24).fragment(1200, 603, true),
            d(24).fragment(1800, 1200, false),
        ],
    );
    add("empty first", vec![d(25).fragment(0, 0, true), d(25).fragment(0, 1200, true)]);
    add("empty last", vec![d(26).fragment(0, 1200, true), d(26).fragment(1200, 0, false)]);
    cases
}

/// Headers that differ from fragment to fragment.
fn headers(v6: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, pieces: Vec<Packet>| {
        cases.push(Case { name: name.to_owned(), frames: inside(pieces) });
    };
    let d = |id: u32| udp(v6, 4000, 2992, id);
    let thirds = |id| cut(&d(id), 3000, &[1200, 1200]);
    for (index, tos) in [(1, 2), (2, 3), (1, 1), (0, 2), (1, 3), (3, 3)].into_iter().enumerate() {
        let id = 30 + index as u32;
        let mut pieces = thirds(id);
        pieces[0] = pieces[0].clone().tos(tos.0);
        pieces[1] = pieces[1].clone().tos(tos.1);
        pieces[2] = pieces[2].clone().tos(tos.1);
        add(&format!("congestion {tos:?}"), pieces);
    }
    let mut differing = thirds(40);
    differing[1] = differing[1].clone().ttl(9).tos(0x48);
    add("differing hops and class", differing);
    cases
}

/// Long echoes both ways, and one to the router.
fn pings(v6: bool) -> Vec<Case> {
    let (a, b) = between(v6);
    let router = address(v6, 0, 1).to_string();
    // What comes back has passed the narrower port.
    let cut = |packet: Packet, size| cut(&packet.payload_len(4000), 4008, &[size, size, size]);
    let mut frames = inside(cut(Packet::ping(&a, &b, 7, 1).id(50), 1328));
    frames.extend(cut(Packet::pong(&b, &a, 7, 1).id(51), 1312).into_iter().map(|piece| (1, piece)));
    let own = inside(cut(Packet::ping(&a, &router, 8, 1).id(52), 1320));
    let both = [("ping of 4000 bytes", frames), ("ping to the router", own)];
    both.into_iter().map(|(name, frames)| Case { name: name.to_owned(), frames }).collect()
}

fn only_v4() -> Vec<Case> {
    let d = |id: u32| udp(false, 4000, 2992, id);
    let thirds = |packet: &Packet, size| cut(packet, 3000, &[size, size]);
    let mut cases = Vec::new();
    let mut add = |name: &str, pieces: Vec<Packet>| {
        cases.push(Case { name: name.to_owned(), frames: inside(pieces) });
    };
    add("don't fragment", thirds(&d(60).df(), 1200));
    add("don't fragment, reversed", thirds(&d(61).df(), 1200).into_iter().rev().collect());
    add("don't fragment, full size", thirds(&d(62).df(), 1480));
    let mut some = thirds(&d(63), 1200);
    some[0] = some[0].clone().df();
    add("don't fragment the first", some);
    let mut some = thirds(&d(64), 1200);
    some[2] = some[2].clone().df();
    add("don't fragment the last", some);
    let mut some = cut(&d(65), 3000, &[800, 1200]);
    some[0] = some[0].clone().df();
    add("don't fragment a short one", some);
    add("don't fragment, small", cut(&udp(false, 4000, 92, 66).df(), 100, &[48]));
    add("full size, may be cut", thirds(&d(67), 1480));
    let route = [7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    add("record route", thirds(&d(68).options(&route), 1200));
    let copied = [0x94, 4, 0, 0, 0x1f, 4, 1, 2];
    add("options, copied and not", thirds(&d(69).options(&copied), 1200));
    let mut first = thirds(&d(70), 1200);
    first[0] = first[0].clone().options(&copied);
    add("options in the first only", first);
    let mut later = thirds(&d(71), 1200);
    later[1] = later[1].clone().options(&copied);
    add("options in a later one", later);
    add(
        "too long",
        vec![d(72).fragment(0, 1200, true), udp(false, 4000, 65500, 72).fragment(65504, 40, false)],
    );
    let whole = |id| udp(false, 4000, 65_507 - 8, id);
    let sizes = [1480; 44];
    add("nearly too long", cut(&whole(73), 65_507, &sizes));
    cases
}

fn only_v6() -> Vec<Case> {
    let d = |id: u32| udp(true, 4000, 2992, id);
    let thirds = |packet: &Packet| cut(packet, 3000, &[1200, 1200]);
    let pad = [0, 0, 1, 4, 0, 0, 0, 0];
    let mut cases = Vec::new();
    let mut add = |name: &str, pieces: Vec<Packet>| {
        cases.push(Case { name: name.to_owned(), frames: inside(pieces) });
    };
    add("hop-by-hop options", thirds(&d(60).extension(proto::HOP_BY_HOP, &pad)));
    add("destination options", thirds(&d(61).extension(proto::DESTINATION, &pad)));
    let both = d(62).extension(proto::HOP_BY_HOP, &pad).extension(proto::DESTINATION, &pad);
    add("both", thirds(&both).into_iter().rev().collect());
    // Not in the first only: whether the kernel then keeps the sizes depends on
    // how much room the driver left before each fragment.
    let mut later = thirds(&d(64));
    later[1] = later[1].clone().extension(proto::DESTINATION, &pad);
    add("options in a later one", later);
    add("a fragment header of its own", vec![udp(true, 4000, 64, 65).fragment(0, 72, false)]);
    add("the same, refused", vec![udp(true, 53, 64, 66).fragment(0, 72, false)]);
    add("the same, long", vec![udp(true, 4000, 1380, 67).fragment(0, 1388, false)]);
    add("full size", cut(&d(68), 3000, &[1448, 1448]));
    // What stood behind the fragment header comes to stand before it, and then
    // the pieces do not fit their old sizes any more.
    let mut behind = vec![proto::UDP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    behind.extend_from_slice(&d(69).build_ip()[40..]);
    let (a, b) = between(true);
    let moved = |id| Packet::raw(&a, &b, proto::DESTINATION, &behind).id(id);
    add("options behind the fragment header", cut(&moved(69), 3016, &[1224, 1224]));
    add("the same, full size", cut(&moved(70), 3016, &[1320, 1320]));
    cases
}

/// Shuffled, cut, duplicated, lost.
pub(crate) fn random(rng: &mut Rng, seed: u64) -> Case {
    let v6 = rng.below(2) == 1;
    let total = 24 + 8 * rng.below(500) + rng.below(8);
    let dport = if rng.below(6) == 0 { 53 } else { 4000 + rng.below(20) as u16 };
    let mut packet = udp(v6, dport, total - 8, 1000 + seed as u32);
    if !v6 && rng.below(4) == 0 {
        packet = packet.df();
    }
    let (mut sizes, mut at) = (Vec::new(), 0);
    loop {
        let most = [4, 60, 150, 180][rng.below(4)];
        let size = 8 * (1 + rng.below(most));
        if at + size >= total || sizes.len() == 20 {
            break;
        }
        sizes.push(size);
        at += size;
    }
    if total - at > 1400 {
        let short = udp(v6, dport, at, 1000 + seed as u32);
        return Case {
            name: format!("seed {seed}"),
            frames: inside(vec![short.fragment(0, at, false)]),
        };
    }
    let mut pieces = cut(&packet, total, &sizes);
    for index in 0..pieces.len() {
        if rng.below(3) == 0 {
            let other = rng.below(pieces.len());
            pieces.swap(index, other);
        }
    }
    if rng.below(4) == 0 {
        let again = pieces[rng.below(pieces.len())].clone();
        pieces.insert(rng.below(pieces.len() + 1), again);
    }
    if rng.below(6) == 0 {
        let (offset, len) = (8 * rng.below(total / 8), 8 * (1 + rng.below(20)));
        pieces.insert(rng.below(pieces.len()), packet.fragment(offset as u16, len, true));
    }
    if rng.below(10) == 0 {
        pieces.remove(rng.below(pieces.len()));
    }
    Case { name: format!("seed {seed}"), frames: inside(pieces) }
}

/// Datagrams that are never finished: forwarded and for the router, with and
/// without their first fragment. IPv4 and IPv6 by turns.
pub(crate) fn unfinished() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, own, which) in
        [("forwarded", false, 0..2), ("without its first", false, 1..2), ("own", true, 0..1)]
    {
        for v6 in [false, true] {
            let (a, mut b) = between(v6);
            if own {
                b = address(v6, 0, 1).to_string();
            }
            let packet = Packet::ping(&a, &b, 9, 1).payload_len(2992).id(70);
            let pieces = cut(&packet, 3000, &[1200, 1200])[which.clone()].to_vec();
            cases.push(Case { name: format!("{name} (v6: {v6})"), frames: inside(pieces) });
        }
    }
    cases
}

/// A frame that only makes both sides speak.
pub(crate) fn ping(v6: bool, sequence: u16) -> Case {
    let (a, b) = between(v6);
    let frames = inside(vec![Packet::ping(&a, &b, 3, sequence)]);
    Case { name: "after the time was up".to_owned(), frames }
}

/// Fragments that the router itself sends, in order and reversed.
pub(crate) fn own(v6: bool) -> Vec<Packet> {
    let (a, b) = (address(v6, 1, 1).to_string(), address(v6, 1, 10).to_string());
    let cut =
        |id| cut(&Packet::udp(&a, 5000, &b, 4000).payload_len(2992).id(id), 3000, &[1200, 1200]);
    [cut(80), cut(81).into_iter().rev().collect()].concat()
}
