//! What the XDP program does with each kind of frame, by its own counters.

use std::net::Ipv6Addr;

use dataplane::port::afxdp::{Config, ProgramCounters, open};

use crate::lab::{Lab, inside};
use crate::{A, Peer, alone, routed, soon};

fn frame(types: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(types);
    frame.extend(rest);
    frame
}

fn v4(to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 46, 0, 1, 0, 0, 64, 17, 0, 0, 198, 18, 1, 2];
    packet.extend(to);
    packet.resize(46, 0);
    packet
}

fn v6(to: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 24, next, 255];
    packet.extend("2001:db8:9::1".parse::<Ipv6Addr>().expect("an address").octets());
    packet.extend(to.parse::<Ipv6Addr>().expect("an address").octets());
    packet.extend(payload);
    packet.resize(64.max(packet.len()), 0);
    packet
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Redirected,
    Link,
    Local,
    Group,
}

const IPV4: &[u8] = &[8, 0];
const IPV6: &[u8] = &[0x86, 0xdd];
const ICMPV6: u8 = 58;

fn cases() -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::{Group, Link, Local, Redirected};
    let tagged = [&[0x81, 0, 0, 5, 8, 0][..], &v4([198, 18, 2, 2])].concat();
    let double = [&[0x88, 0xa8, 0, 1, 0x81, 0, 0, 5, 8, 0][..], &v4([198, 18, 2, 2])].concat();
    let behind = |tags: &[u8], to| frame(tags, &v4(to));
    let (transit, own) = ([198, 18, 2, 2], [198, 18, 1, 1]);
    let mut cases = vec![
        // A kernel that forwards takes VLAN id 0 for no tag at all.
        ("priority", behind(&[0x81, 0, 0, 0, 8, 0], transit), Redirected),
        ("priority 7", behind(&[0x81, 0, 0xf0, 0, 8, 0], transit), Redirected),
        ("priority", behind(&[0x81, 0, 0, 0, 8, 0], own), Local),
        ("priority, ARP", frame(&[0x81, 0, 0, 0, 8, 6], &[0; 46]), Link),
        ("two", behind(&[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0, 8, 0], transit), Redirected),
        ("two", behind(&[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0, 8, 0], own), Local),
        ("priority, VLAN", behind(&[0x81, 0, 0, 0, 0x81, 0, 0, 5, 8, 0], transit), Link),
        ("three", behind(&[0x81, 0, 0, 0, 0x81, 0, 0, 0, 0x81, 0, 0, 0, 8, 0], own), Redirected),
        ("tag cut short", frame(&[0x81, 0, 0, 0, 8], &[]), Redirected),
        ("ARP", frame(&[8, 6], &[0; 46]), Link),
        ("LLDP", frame(&[0x88, 0xcc], &[0; 46]), Link),
        ("802.3 length", frame(&[0, 38], &[0x42; 46]), Link),
        ("VLAN", frame(&[], &tagged), Link),
        ("QinQ", frame(&[], &double), Link),
        ("IPv4 cut short", frame(IPV4, &v4([198, 18, 1, 1])[..19]), Redirected),
        ("IPv6 cut short", frame(IPV6, &v6("2001:db8::1", 17, &[])[..39]), Redirected),
    ];
    for (to, fate) in [
        ([198, 18, 1, 1], Local),
        ([198, 18, 1, 255], Local),
        ([203, 0, 113, 77], Local),
        ([203, 0, 112, 77], Redirected),
        ([198, 18, 1, 3], Redirected),
        ([198, 18, 2, 2], Redirected),
        ([223, 255, 255, 255], Redirected),
        ([224, 0, 0, 0], Group),
        ([239, 255, 255, 255], Group),
        ([240, 0, 0, 1], Redirected),
        ([255, 255, 255, 254], Redirected),
        ([255, 255, 255, 255], Group),
    ] {
        cases.push(("IPv4", frame(IPV4, &v4(to)), fate));
    }
    let mld = [ICMPV6, 0, 5, 2, 0, 0, 0, 0, 143, 0];
    for (to, next, payload, fate) in [
        ("2001:db8::1", 17, &[][..], Local),
        ("2001:db8:5::9", 6, &[], Local),
        ("2001:db8::2", 17, &[], Redirected),
        ("2001:db8:6::9", 17, &[], Redirected),
        ("ff02::1", ICMPV6, &[134], Group),
        ("ff02::1:ff00:1", ICMPV6, &[135], Group),
        ("ff02::16", 0, &mld, Group),
        ("ff05::2", 17, &[], Group),
        ("fe80::7", ICMPV6, &[132], Redirected),
        ("fe80::7", ICMPV6, &[133], Group),
        ("fe80::7", ICMPV6, &[135], Group),
        ("febf::7", ICMPV6, &[137], Group),
        ("fe80::7", ICMPV6, &[138], Redirected),
        ("fe80::7", 17, &[135], Redirected),
        ("fec0::7", ICMPV6, &[135], Redirected),
        // A kernel that forwards would carry this past the policy.
        ("2001:db8:6::9", ICMPV6, &[135], Redirected),
    ] {
        cases.push(("IPv6", frame(IPV6, &v6(to, next, payload)), fate));
    }
    cases
}

fn since(now: ProgramCounters, before: ProgramCounters) -> [u64; 6] {
    [
        now.redirected - before.redirected,
        now.passed_link - before.passed_link,
        now.passed_local - before.passed_local,
        now.passed_group - before.passed_group,
        now.blocked - before.blocked,
        now.no_socket - before.no_socket,
    ]
}

fn check(config: &Config, fate: impl Fn(Fate) -> Fate) {
    let lab = Lab::new(1);
    let local = [
        ("198.18.1.1", 32),
        ("198.18.1.255", 32),
        ("203.0.113.0", 24),
        ("2001:db8::1", 128),
        ("2001:db8:5::", 64),
    ];
    let local = local.map(|(address, len)| (address.parse().expect("an address"), len));
    let opened = inside(&lab.boxed(), || open(config, local)).expect("the box opens");
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let counters = || opened.program.counters(A).expect("the counters are read");
    for (name, bytes, expected) in cases() {
        let before = counters();
        assert_eq!(left.send(0, [&bytes[..]]), 1);
        assert!(soon(|| counters() != before), "{name}: {bytes:x?}");
        let expected = match fate(expected) {
            Fate::Redirected => [1, 0, 0, 0, 0, 0],
            Fate::Link => [0, 1, 0, 0, 0, 0],
            Fate::Local => [0, 0, 1, 0, 0, 0],
            Fate::Group => [0, 0, 0, 1, 0, 0],
        };
        assert_eq!(since(counters(), before), expected, "{name}: {bytes:x?}");
    }
}

#[test]
fn in_routed_mode_the_kernel_keeps_its_own() {
    let _alone = alone();
    check(&routed(&["f0"]), |fate| fate);
}

#[test]
fn in_bridge_mode_every_frame_is_redirected() {
    let _alone = alone();
    check(&Config { routed: false, ..routed(&["f0"]) }, |_| Fate::Redirected);
}
