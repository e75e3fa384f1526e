//! TCPOPTSTRIP, CHECKSUM, CLASSIFY, IDLETIMER, TEE, SNPT, DNPT, HMARK.

use super::has_protocol;
use crate::diff::rng::Rng;
use crate::diff::rules::Place;
use crate::diff::world;
use crate::lab;

/// One of them, where the table and the chain allow it.
pub fn target(rng: &mut Rng, place: &Place<'_>, parts: &[String]) -> Option<String> {
    let mangle = place.table == "mangle";
    match rng.below(7) {
        0 if mangle && has_protocol(parts, "tcp") => {
            let kinds = rng.pick(&[
                "mss",
                "sack-permitted,sack",
                "timestamp",
                "wscale,8",
                "2,3,4,5,8,19,254",
            ]);
            Some(format!("-j TCPOPTSTRIP --strip-options {kinds}"))
        }
        1 if mangle => Some("-j CHECKSUM --checksum-fill".to_owned()),
        2 if place.outward() && place.chain != "u0" && !place.chain.starts_with('u') => {
            Some(format!("-j CLASSIFY --set-class {:x}:{:x}", rng.below(0x10000), rng.below(3)))
        }
        3 if place.table != "nat" => {
            Some(format!("-j IDLETIMER --timeout 600 --label t{}", rng.below(3)))
        }
        4 | 5 if place.table != "nat" => Some(tee(rng, place.v6)),
        6 if mangle && place.v6 => prefix(rng, place.chain),
        _ => None,
    }
}

fn tee(rng: &mut Rng, v6: bool) -> String {
    let all = world::hosts(v6);
    let gateway = all[rng.below(all.len())].address;
    match rng.below(4) {
        0 => format!("-j TEE --gateway {gateway} --oif eth{}", rng.below(lab::PORTS)),
        1 => format!("-j TEE --gateway {}", world::nowhere(v6)),
        _ => format!("-j TEE --gateway {gateway}"),
    }
}

fn prefix(rng: &mut Rng, chain: &str) -> Option<String> {
    let name = match chain {
        "PREROUTING" | "OUTPUT" => "DNPT",
        "INPUT" | "POSTROUTING" => "SNPT",
        _ => return None,
    };
    let one = |rng: &mut Rng| {
        rng.pick(&[
            "2001:db8:1::/48",
            "2001:db8:1::/64",
            "2001:db8:2::/64",
            "fd00:7::/48",
            "2001:db8::/32",
            "2001:db8:ffff::/56",
        ])
    };
    let (from, to) = (one(rng), one(rng));
    Some(format!("-j {name} --src-pfx {from} --dst-pfx {to}"))
}

/// HMARK: marks few enough that rules on marks meet them, or any.
pub fn hmark(rng: &mut Rng, place: &Place<'_>) -> String {
    let mut words = vec![
        rng.pick(&[
            "--hmark-tuple src,dst",
            "--hmark-tuple src,dst,sport,dport,proto",
            "--hmark-tuple src",
            "--hmark-tuple spi",
            "--hmark-tuple sport,dport",
            "--hmark-tuple proto",
            "--hmark-src-prefix 24 --hmark-dst-prefix 8",
            "--hmark-dst-prefix 30 --hmark-dport-mask 0x0ff0 --hmark-sport 0x8001",
            "--hmark-spi-mask 0x00ff00ff --hmark-spi 0x01000000 --hmark-proto-mask 0xf",
            "--hmark-tuple dport,proto --hmark-dport 0x5",
        ])
        .to_owned(),
    ];
    if place.conntrack && rng.chance(40) {
        words[0] = match words[0].strip_prefix("--hmark-tuple ") {
            Some(members) => format!("--hmark-tuple ct,{members}"),
            None => format!("{} --hmark-tuple ct", words[0]),
        };
    }
    words.push(format!("--hmark-rnd {}", rng.pick(&["5", "0xdeadbeef", "0"])));
    words.push(format!("--hmark-mod {}", rng.pick(&["2", "4", "10", "4294967295"])));
    if rng.chance(40) {
        words.push(format!("--hmark-offset {}", rng.pick(&["1", "4294967290"])));
    }
    format!("-j HMARK {}", words.join(" "))
}
