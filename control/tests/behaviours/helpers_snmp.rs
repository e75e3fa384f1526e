//! SNMP under translation before both: messages of all shapes, and damaged ones.

use super::helpers_forms::Dice;
use super::packet::{Packet, alice, router, udp, web};
use super::script::{Extra, Script, both, both_with};

const SNMP: &str = "-t raw -A PREROUTING -p udp -m udp --dport 161 -j CT --helper snmp";
const TRAP: &str = "-t raw -A PREROUTING -p udp -m udp --dport 162 -j CT --helper snmp_trap";
const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
const DNAT: &str =
    "-t nat -A PREROUTING -i eth0 -d 198.18.3.177/32 -j DNAT --to-destination 198.18.3.10";

/// Addresses: alice's, what she is called outside, the server's, what it is called inside.
const INSIDE: [u8; 4] = [198, 18, 1, 10];
const OUTSIDE: [u8; 4] = [198, 18, 3, 100];
const SERVER: [u8; 4] = [198, 18, 3, 10];
const SERVICE: [u8; 4] = [198, 18, 3, 177];

/// An element.
fn tlv(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let value = parts.concat();
    let mut all = vec![tag];
    match value.len() {
        0..128 => all.push(value.len() as u8),
        len @ 128..256 => all.extend([0x81, len as u8]),
        len => all.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    all.extend(value);
    all
}
fn leaf(tag: u8, value: &[u8]) -> Vec<u8> {
    tlv(tag, &[value.to_vec()])
}
fn int(value: u8) -> Vec<u8> {
    leaf(2, &[value])
}
/// The same with an end that is marked.
fn marked(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat()
}
fn name() -> Vec<u8> {
    leaf(6, &[0x2b, 6, 1, 2, 1, 4, 20, 1, 1])
}
fn bound(values: &[Vec<u8>]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = std::iter::once(name()).chain(values.iter().cloned()).collect();
    tlv(0x30, &parts)
}
fn unit(tag: u8, bindings: &[Vec<u8>]) -> Vec<u8> {
    tlv(tag, &[int(1), int(0), int(0), tlv(0x30, bindings)])
}
fn message(parts: &[Vec<u8>]) -> Vec<u8> {
    let head = [int(1), leaf(4, b"public")];
    let parts: Vec<Vec<u8>> = head.into_iter().chain(parts.iter().cloned()).collect();
    tlv(0x30, &parts)
}
fn with(values: &[Vec<u8>]) -> Vec<u8> {
    message(&[unit(0xa2, &[bound(values)])])
}
fn address(of: [u8; 4]) -> Vec<u8> {
    leaf(0x40, &of)
}

fn samples() -> Vec<Vec<u8>> {
    let plain = || bound(&[address(INSIDE)]);
    let mut all = Vec::new();
    for of in [INSIDE, OUTSIDE, SERVER, SERVICE] {
        all.push(with(&[address(of)]));
        // At odd places.
        all.push(message(&[unit(0xa2, &[bound(&[leaf(4, b"x")]), bound(&[address(of)])])]));
        all.push(message(&[unit(0xa2, &[bound(&[leaf(4, b"xy")]), bound(&[address(of)])])]));
    }
    for tag in 0xa0..=0xa9 {
        all.push(message(&[unit(tag, &[plain()])]));
    }
    for tag in [2, 4, 5, 6, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x80, 0x81, 0x82, 0x83]
    {
        all.push(with(&[leaf(tag, &[])]));
        all.push(with(&[leaf(tag, &INSIDE)]));
        all.push(with(&[address(INSIDE), leaf(tag, &INSIDE)]));
        all.push(with(&[leaf(tag, &INSIDE), address(INSIDE)]));
        all.push(with(&[leaf(tag, &[1]), int(2), leaf(tag, &[1])]));
    }
    for len in [0, 3, 5, 8] {
        all.push(with(&[leaf(0x40, &vec![198; len])]));
    }
    // Nothing, or several, where one should be.
    all.push(with(&[]));
    all.push(message(&[]));
    all.push(message(&[unit(0xa2, &[])]));
    all.push(message(&[unit(0xa0, &[plain()]), unit(0xa2, &[plain()])]));
    all.push(message(&[unit(0xa2, &[plain()]), unit(0xa0, &[plain()])]));
    all.push(message(&[unit(0xa5, &[plain()]), unit(0xa2, &[plain()])]));
    all.push(message(&[unit(0xa2, &[plain()]), unit(0xa5, &[plain()])]));
    all.push(message(&[unit(0xa2, &[plain()]), int(1)]));
    all.push(message(&[tlv(0xa2, &[int(1), int(0), int(0)])]));
    all.push(message(&[tlv(0xa2, &[int(1), int(0), tlv(0x30, &[plain()])])]));
    all.push([message(&[unit(0xa2, &[plain()])]), b"more".to_vec()].concat());
    for version in [0, 1, 2, 3, 255] {
        all.push(tlv(0x30, &[int(version), leaf(4, b"p"), unit(0xa2, &[plain()])]));
    }
    all.push(tlv(0x30, &[leaf(2, &[]), leaf(4, b"p"), unit(0xa2, &[plain()])]));
    all.push(tlv(0x30, &[leaf(2, &[0, 1]), leaf(4, b"p"), unit(0xa2, &[plain()])]));
    // Tags that say or do not say that they have parts, and long ones.
    all.push(tlv(0x10, &[int(1), leaf(4, b"p"), unit(0xa2, &[plain()])]));
    all.push(message(&[unit(0x82, &[plain()])]));
    all.push(tlv(0x30, &[int(1), leaf(0x24, b"p"), unit(0xa2, &[plain()])]));
    all.push(with(&[leaf(0x60, &INSIDE)]));
    all.push(message(&[leaf(0x1f, &[1])]));
    all.push(message(&[leaf(0xbf, &[1])]));
    all.extend(forms());
    all
}

/// The same thing said in other forms: ends that are marked, lengths, cut ones.
fn forms() -> Vec<Vec<u8>> {
    let plain = || bound(&[address(INSIDE)]);
    let mut all = Vec::new();
    let inner = || marked(0x30, &[name(), address(INSIDE)]);
    let list = || marked(0x30, &[inner(), inner()]);
    all.push(message(&[unit(0xa2, &[inner()])]));
    all.push(message(&[tlv(0xa2, &[int(1), int(0), int(0), list()])]));
    all.push(message(&[marked(0xa2, &[int(1), int(0), int(0), list()])]));
    all.push(marked(
        0x30,
        &[int(1), leaf(4, b"p"), marked(0xa2, &[int(1), int(0), int(0), list()])],
    ));
    all.push(marked(0x30, &[int(1), leaf(4, b"p")]));
    all.push([&[0x30, 0x80][..], &int(1), &leaf(4, b"p"), &[0]].concat());
    all.push([&[0x30, 0x80][..], &int(1), &leaf(4, b"p"), &[0, 1]].concat());
    all.push([&[0x30, 0x80][..], &int(1), &leaf(4, b"p")].concat());
    all.push(tlv(0x30, &[int(1), vec![4, 0x80, 0, 0], unit(0xa2, &[plain()])]));
    // Lengths in other forms.
    let body = [int(1), leaf(4, b"p"), unit(0xa2, &[plain()])].concat();
    let len = body.len() as u8;
    for head in [
        &[0x30, 0x81, len][..],
        &[0x30, 0x82, 0, len],
        &[0x30, 0x83, 0, 0, len],
        &[0x30, 0x81, len + 1],
        &[0x30, 0x81, len - 1],
        &[0x30, len + 1],
        &[0x30, len - 1],
        &[0x30, 0xff],
    ] {
        all.push([head, &body].concat());
    }
    // Long ones, and cut ones.
    all.push(message(&[unit(0xa2, &[bound(&[leaf(4, &[7; 300])]), plain()])]));
    let whole = message(&[unit(0xa2, &[plain(), plain()])]);
    all.extend((0..whole.len()).map(|len| whole[..len].to_vec()));
    all
}

/// Questions, answers and traps, as alice and the server send them.
fn ways(text: &[u8], seen: u16, service: [u8; 4]) -> [Packet; 3] {
    [
        udp(alice(), 4001, service.into(), 161, text),
        udp(web(), 161, OUTSIDE.into(), seen, text),
        udp(alice(), 4002, service.into(), 162, text),
    ]
}

fn talk(t: &mut Script<'_>, texts: &[Vec<u8>], service: [u8; 4]) {
    for text in texts {
        for packet in ways(text, 4001, service) {
            t.send(packet);
        }
    }
}

#[test]
fn snmp_messages() {
    both(|t| {
        t.rules(&[SNMP, TRAP, SNAT]);
        talk(t, &samples(), SERVER);
    });
}

#[test]
fn snmp_messages_to_a_translated_agent() {
    both(|t| {
        t.rules(&[SNMP, TRAP, DNAT]);
        for text in &samples()[..20] {
            for at in [161, 162] {
                t.send(udp(alice(), 4001, SERVICE.into(), at, text));
                t.send(udp(web(), at, alice().ip, 4001, text));
                t.send(udp(alice(), 161, SERVICE.into(), at, text));
                t.send(udp(web(), at, alice().ip, 161, text));
                t.send(udp(alice(), 162, SERVICE.into(), at, text));
                t.send(udp(web(), at, alice().ip, 162, text));
            }
        }
    });
}

#[test]
fn snmp_without_translation_or_checksum_or_with_a_wrong_length() {
    both(|t| {
        t.rules(&[SNMP, TRAP]);
        for text in &samples()[..40] {
            t.send(udp(alice(), 4001, SERVER.into(), 161, text));
            t.send(udp(web(), 161, alice().ip, 4001, text));
        }
        t.rules(&[SNMP, TRAP, SNAT]);
        for text in &samples()[..8] {
            t.send(udp(alice(), 5001, SERVER.into(), 161, text).without_udp_checksum());
            t.send(udp(web(), 161, OUTSIDE.into(), 5001, text).without_udp_checksum());
        }
        let mut padded = udp(alice(), 5001, SERVER.into(), 161, &samples()[0]);
        let len = padded.ip.len();
        padded.ip.truncate(len - 1);
        padded.ip[2..4].copy_from_slice(&(len as u16 - 1).to_be_bytes());
        t.send(padded.without_udp_checksum());
    });
}

#[test]
fn damaged_snmp_messages() {
    both(|t| {
        let mut dice = Dice(23);
        t.rules(&[SNMP, TRAP, SNAT]);
        let samples = samples();
        talk(t, &samples[..1], SERVER);
        let texts: Vec<Vec<u8>> = (0..150)
            .map(|_| {
                let which = dice.below(samples.len());
                dice.damaged(&[&samples[which][..], &[0]].concat())
            })
            .collect();
        talk(t, &texts, SERVER);
    });
}

/// The kernel gets a copy of what it says to everybody; it is not counted there.
const EVERYBODY: [&str; 3] = [
    "-t raw -A PREROUTING -i eth0 -s 198.18.1.1/32 -j DROP",
    "-t raw -A OUTPUT -p udp -m udp --dport 161 -j CT --helper snmp",
    "-A INPUT -m helper --helper snmp",
];

/// To everybody on a network: answers come from all of it.
#[test]
fn snmp_to_everybody() {
    let here = Extra {
        v6: false,
        ip: &[
            "addr del 198.18.1.1/24 dev eth0",
            "addr add 198.18.1.1/24 broadcast 198.18.1.255 dev eth0",
            "neigh replace 198.18.1.10 lladdr 02:00:00:00:01:0a dev eth0 nud permanent",
        ],
        topology: "",
    };
    both_with(&here, |t| {
        t.rules(&EVERYBODY);
        let here = router(0);
        let question = message(&[unit(0xa0, &[bound(&[leaf(5, &[])])])]);
        t.send(udp(here, 4001, [198, 18, 1, 255].into(), 161, &question));
        t.expectations();
        t.flows();
        t.send(udp(alice(), 161, here.ip, 4001, b"me"));
        t.send(udp(alice(), 162, here.ip, 4001, b"me"));
        t.expectations();
        t.rules(&EVERYBODY);
    });
}
