//! `string`, `u32`, `bpf`; `quota`, `statistic`, `cluster`, `cpu`.

use std::fmt::Write as _;

use crate::diff::rng::Rng;
use crate::diff::rules::Place;

fn not(rng: &mut Rng) -> &'static str {
    if rng.chance(20) { "! " } else { "" }
}

/// A match of either group.
pub fn extension(rng: &mut Rng, place: &Place<'_>, _parts: &[String]) -> Option<String> {
    Some(if rng.chance(60) { on_bytes(rng, place.v6) } else { on_amounts(rng, place.conntrack) })
}

/// One of the matches on any byte.
pub fn on_bytes(rng: &mut Rng, v6: bool) -> String {
    match rng.below(3) {
        0 => string(rng, &[]),
        1 => format!("-m u32 {}--u32 \"{}\"", not(rng), numbers(rng, v6)),
        _ => bpf(rng),
    }
}

/// One of those on amounts, whose outcome does not depend on the clock or on chance.
pub fn on_amounts(rng: &mut Rng, conntrack: bool) -> String {
    let bang = not(rng);
    match rng.below(if conntrack { 6 } else { 4 }) {
        0 => {
            let every = 1 + rng.below(6);
            let packet = rng.below(every);
            format!("-m statistic --mode nth {bang}--every {every} --packet {packet}")
        }
        1 => format!("-m quota {bang}--quota {}", rng.pick(&[0, 28, 40, 100, 500, 2_000, 20_000])),
        2 => format!("-m statistic --mode random {bang}--probability {}", rng.below(2)),
        // Nobody has that many.
        3 => format!("-m cpu {bang}--cpu 65535"),
        _ => {
            let nodes = 1 + rng.below(8);
            let (node, seed) = (1 + rng.below(nodes), rng.bits() as u32);
            format!(
                "-m cluster --cluster-total-nodes {nodes} {bang}--cluster-local-node {node} \
                 --cluster-hash-seed {seed}"
            )
        }
    }
}

/// A pattern out of `like`, often changed a little; of likely bytes if that is empty.
pub fn string(rng: &mut Rng, like: &[u8]) -> String {
    let len = rng.pick(&[1, 1, 2, 2, 3, 4, 5, 8, 13, 30]);
    let mut bytes: Vec<u8> = if like.len() > len {
        let at = rng.below(like.len() - len);
        like[at..at + len].to_vec()
    } else {
        let likely = [0, 0, 1, 2, 6, 17, 0x40, 0xc6, 0x12, 0x20, b'a', b'A', 0xff, 0xdf];
        (0..len.min(4)).map(|_| rng.pick(&likely)).collect()
    };
    if rng.chance(25) {
        let at = rng.below(bytes.len());
        bytes[at] ^= rng.pick(&[0x20, 1, 0x80, 0xff]);
    }
    let mut text = format!("-m string --algo {}", rng.pick(&["bm", "kmp"]));
    let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    let _ = write!(text, " {}--hex-string \"|{hex}|\"", not(rng));
    let from = rng.pick(&[0, 0, 0, 1, 8, 12, 16, 20, 28, 40, 60, 100]);
    if from > 0 {
        let _ = write!(text, " --from {from}");
    }
    if rng.chance(50) {
        let _ = write!(text, " --to {}", from + rng.pick(&[0, 1, 2, 4, 8, 20, 28, 40, 60, 1_000]));
    }
    if rng.chance(30) {
        text.push_str(" --icase");
    }
    text
}

/// An expression, near the length of a short packet.
pub fn numbers(rng: &mut Rng, v6: bool) -> String {
    let header = if v6 { 40 } else { 20 };
    let mut text = String::new();
    for at in 0..1 + rng.below(3) {
        if at > 0 {
            text.push_str("&&");
        }
        let start = rng.pick(&[0, 2, 4, 6, 8, 9, 12, 16, header, header + 4, header + 8, 60, 70]);
        let _ = write!(text, "{start}");
        for _ in 0..rng.below(4) {
            let _ = match rng.below(4) {
                0 => write!(text, ">>{}", rng.pick(&[0, 4, 8, 16, 22, 24, 31])),
                1 => write!(text, "<<{}", rng.pick(&[0, 1, 8, 16, 31])),
                2 => write!(text, "&0x{:x}", rng.pick(&[0xff, 0x3c, 0xf, 0xffff, 0xff00, 0])),
                _ => write!(text, "@{}", rng.pick(&[0, 1, 2, 4, 8, 12, 16, 4_294_967_295_u32])),
            };
        }
        text.push('=');
        let bound = |rng: &mut Rng| {
            let (far, near) = (rng.bits() as u32, rng.pick(&[0, 1, 5, 6, 17, 0x40, 0x45, 1_000]));
            if rng.chance(50) { near } else { far }
        };
        let (low, high) = (bound(rng), bound(rng));
        let _ = match rng.below(4) {
            0 => write!(text, "{low}"),
            1 => write!(text, "{low},{high}"),
            2 => write!(text, "0:{high}"),
            _ => write!(text, "{low}:4294967295"),
        };
    }
    text
}

/// A program: loads, some arithmetic, comparisons that lead forward, and two ends.
pub fn bpf(rng: &mut Rng) -> String {
    let mut program: Vec<(u32, u32, u32, u32)> = Vec::new();
    let len = 2 + rng.below(7);
    for at in 0..len {
        let left = (len - at) as u32;
        let offset = rng.pick(&[0, 1, 2, 6, 8, 9, 12, 16, 19, 20, 24, 28, 39, 40, 50, 60, 64, 100]);
        let header = rng.pick(&[0xfff0_0000, 0xffe0_0000_u32]);
        let k = rng.pick(&[0, 1, 4, 6, 15, 17, 31, 64, 0xff, 0x0800, 0xffff]);
        let instruction = match rng.below(14) {
            0..4 => (rng.pick(&[0x20, 0x28, 0x30]), 0, 0, offset),
            4 => (rng.pick(&[0x20, 0x28, 0x30]), 0, 0, header + offset),
            5 => {
                let beside = 0xffff_f000 + rng.pick(&[0, 4, 20, 40]);
                (rng.pick(&[0x20, 0x28, 0x30]), 0, 0, beside)
            }
            6 => (0xb1, 0, 0, rng.pick(&[0, 9, 20])),
            7 => (rng.pick(&[0x40, 0x48, 0x50]), 0, 0, rng.pick(&[0, 2, 4, 20, u32::MAX])),
            8 => (rng.pick(&[0x80, 0x81, 0x00, 0x01, 0x07, 0x87, 0x84]), 0, 0, k),
            9 | 10 => {
                let code = rng.pick(&[
                    0x04, 0x14, 0x24, 0x44, 0x54, 0xa4, 0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c,
                    0x7c, 0x9c, 0xac,
                ]);
                (code, 0, 0, k)
            }
            11 => (rng.pick(&[0x34, 0x94]), 0, 0, k.max(1)),
            _ => {
                let code = rng.pick(&[0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d]);
                let jump = |rng: &mut Rng| rng.below(left as usize + 1) as u32;
                (code, jump(rng), jump(rng), k)
            }
        };
        program.push(instruction);
    }
    let yes = if rng.chance(50) { (0x16, 0, 0, 0) } else { (6, 0, 0, rng.pick(&[1, 65_535])) };
    program.extend([yes, (6, 0, 0, 0)]);
    let body: Vec<String> =
        program.iter().map(|(code, jt, jf, k)| format!("{code} {jt} {jf} {k}")).collect();
    format!("-m bpf --bytecode \"{},{}\"", program.len(), body.join(","))
}
