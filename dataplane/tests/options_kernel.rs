//! IPv4 options and IPv6 hop-by-hop options: the engine's road byte for byte
//! against the kernel's, forwarded and refused, at every place where an answer
//! can be made. Needs root.

mod router;
mod support;

use dataplane::fib::RouteKind;
use dataplane::policy::RejectWith;
use dataplane::wire::build::Packet;
use dataplane::wire::tcp::flags;
use dataplane::wire::{checksum, ipv4, proto};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use router::{NOW_MS, Router, STRANGERS};
use support::{HOST, Lab, ROUTER};

const A: &str = "198.18.1.5";
const B: &str = "198.18.2.7";
const A6: &str = "2001:db8:1::5";
const B6: &str = "2001:db8:2::7";
const DAY_MS: u64 = 86_400_000;
/// How far the kernel's time of day may be from the test's.
const SKEW_MS: u64 = 60_000;

fn hex(frames: &[Vec<u8>]) -> String {
    let line = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    frames.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Gives an ICMP error of the router's the number zero: the kernel's cannot be
/// foretold. `back`: the frame goes back to where the question came from.
fn without_id(frame: &mut [u8], back: bool) {
    if back && frame[12..14] == [8, 0] {
        frame[18..20].fill(0);
        ipv4::Packet::new_header(&mut frame[14..]).expect("IPv4").fill_checksum();
    }
}

/// Replaces the kernel's times of day by ours, wherever we have one and the
/// kernel's is right.
fn with_our_time(kernel: &mut [u8], ours: &[u8], back: bool) {
    if kernel.len() != ours.len() || kernel[12..14] != [8, 0] {
        return;
    }
    let is_stamp = |&at: &usize| ours[at..at + 4] == NOW_MS.to_be_bytes();
    let stamps: Vec<_> = (34..ours.len().saturating_sub(3)).filter(is_stamp).collect();
    if stamps.is_empty() {
        return;
    }
    let now = dataplane::clock::wall_us() / 1000 % DAY_MS;
    for at in stamps {
        let time = u32::from_be_bytes(kernel[at..at + 4].try_into().expect("four bytes"));
        let apart = now.abs_diff(time.into());
        if apart.min(DAY_MS - apart) < SKEW_MS {
            kernel[at..at + 4].copy_from_slice(&NOW_MS.to_be_bytes());
        }
    }
    let mut ip = ipv4::Packet::new_header(&mut kernel[14..]).expect("IPv4");
    ip.fill_checksum();
    let l4 = 14 + ip.header_len();
    if back {
        kernel[l4 + 2..l4 + 4].fill(0);
        let sum = checksum::internet(&kernel[l4..]);
        kernel[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What the kernel and we make of one packet must be the same. Returns the
/// frames that went on and back.
fn compare(lab: &Lab, router: &mut Router, name: &str, packet: Packet) -> [usize; 2] {
    let frame = packet.macs(HOST[0], ROUTER[0]).build();
    let mut kernel = lab.exchange(0, &frame);
    let (mut ours, disposition) = router.exchange(&frame);
    for (port, back) in [(0, true), (1, false)] {
        for frame in kernel[port].iter_mut().chain(&mut ours[port]) {
            if frame[12..14] == [8, 0] {
                let ip = ipv4::Packet::new_checked(&frame[14..]).expect("IPv4");
                assert!(
                    ip.checksum_ok(),
                    "{name}: checksum of\n{}",
                    hex(std::slice::from_ref(frame))
                );
            }
            without_id(frame, back);
        }
        for (kernel, ours) in kernel[port].iter_mut().zip(&ours[port]) {
            with_our_time(kernel, ours, back);
        }
        assert_eq!(
            hex(&kernel[port]),
            hex(&ours[port]),
            "{name}: kernel, then ours ({disposition:?}), {} for\n{}",
            if back { "back" } else { "on" },
            hex(std::slice::from_ref(&frame))
        );
    }
    [ours[1].len(), ours[0].len()]
}

/// An option: type, length, the rest.
fn option(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, rest.len() as u8 + 2], rest].concat()
}

/// An option with empty slots behind its fixed part.
fn slots(kind: u8, head: &[u8], slots: usize) -> Vec<u8> {
    option(kind, &[head, &vec![0; slots * 4]].concat())
}

/// IPv4 option lists, well-formed and not.
fn lists() -> Vec<(&'static str, Vec<u8>)> {
    let slots =
        |kind: u8, head: &[u8], slots: usize| option(kind, &[head, &vec![0; slots * 4]].concat());
    let mut lists = vec![
        ("no-operations", vec![1, 1, 1, 1]),
        ("an end", vec![0, 0, 0, 0]),
        ("bytes behind the end", vec![1, 0, 7, 9, 1, 2, 3, 4]),
        ("unknown", vec![0x1e, 4, 1, 2, 0x9e, 4, 3, 4]),
        ("a length of zero", vec![1, 0x1e, 0, 1]),
        ("a length of one", vec![0x1e, 1, 0, 0]),
        ("a length beyond the header", vec![1, 1, 0x1e, 3]),
        ("no length", vec![1, 1, 1, 0x1e]),
        ("router alert", vec![0x94, 4, 0, 0]),
        ("router alert of a value", vec![0x94, 4, 0, 1]),
        ("short router alert", vec![1, 0x94, 3, 0]),
        ("short router alert behind a route", [slots(7, &[4], 1), vec![0x94, 3, 0, 1, 1]].concat()),
        ("security", option(0x82, &[0; 9])),
        ("stream", vec![0x88, 4, 1, 2]),
        ("cipso", option(0x86, &[0, 0, 0, 1, 1, 4, 0, 0])),
        ("short cipso", vec![0x86, 6, 0, 0, 0, 1]),
        ("quick start", option(0x19, &[0, 0, 0, 0, 0, 0])),
    ];
    for (name, head, count) in [
        ("route of nine", vec![4], 9),
        ("route of one", vec![4], 1),
        ("route of none", vec![4], 0),
        ("full route", vec![16], 3),
        ("route beyond", vec![200], 3),
        ("route with one left", vec![12], 3),
        ("route with a crooked pointer", vec![5], 2),
        ("route with a cut slot", vec![9], 2),
        ("route with a cut slot at the end", vec![10], 2),
        ("route before its slots", vec![3], 2),
    ] {
        lists.push((name, slots(7, &head, count)));
    }
    lists.push(("empty route", vec![7, 2, 1, 1]));
    lists.push(("two routes", [slots(7, &[4], 1), slots(7, &[4], 1)].concat()));
    lists.extend(timestamps());
    let both = [slots(7, &[4], 2), slots(0x44, &[5, 1], 2), vec![1]].concat();
    lists.push(("route and times", both.clone()));
    lists.push(("times and route", [slots(0x44, &[5, 0], 2), slots(7, &[4], 2)].concat()));
    lists.push(("route and times and trouble", [&both[..], &[0x1e, 99]].concat()));
    for (name, kind) in [("loose", 0x83), ("strict", 0x89)] {
        lists.push((name, option(kind, &[4, 203, 0, 113, 9])));
        lists.push((name, option(kind, &[8, 203, 0, 113, 9])));
        lists.push((name, option(kind, &[3, 203, 0, 113, 9])));
        lists.push((name, option(kind, &[])));
        lists.push((name, [slots(kind, &[4], 1), slots(kind, &[4], 1)].concat()));
        lists.push((name, [slots(kind, &[4], 1), vec![0x1e, 77]].concat()));
    }
    lists
}

/// Lists around the timestamp option.
fn timestamps() -> Vec<(&'static str, Vec<u8>)> {
    let listed = |flag: u8, first: [u8; 4]| {
        option(0x44, &[&[5, flag], &first[..], &[0; 4], &[198, 18, 1, 1], &[0; 4]].concat())
    };
    let mut lists = Vec::new();
    for (name, head, count) in [
        ("times", vec![5, 0], 4),
        ("times with one left", vec![17, 0], 4),
        ("times with a cut slot", vec![18, 0], 4),
        ("times without room", vec![21, 0], 4),
        ("times that overflow", vec![21, 0xe0], 4),
        ("times that overflow once too often", vec![21, 0xf0], 4),
        ("times before their slots", vec![4, 0], 4),
        ("times and addresses", vec![5, 1], 4),
        ("times and addresses with one left", vec![13, 1], 4),
        ("times and addresses with half a slot", vec![17, 1], 4),
        ("times and addresses without room", vec![21, 1], 4),
        ("listed with half a slot", vec![17, 3], 4),
        ("listed without room", vec![21, 0xf3], 4),
        ("no address listed", vec![5, 3], 4),
        ("times of flag 2", vec![5, 2], 4),
        ("times of flag 15 without room", vec![21, 15], 4),
        ("no times", vec![5, 0], 0),
    ] {
        lists.push((name, slots(0x44, &head, count)));
    }
    lists.push(("short times", vec![0x44, 3, 5, 1]));
    lists.push(("two times", [slots(0x44, &[5, 0], 1), slots(0x44, &[5, 0], 1)].concat()));
    for (name, first) in [
        ("listed: its address here", [198, 18, 1, 1]),
        ("listed: its address there", [198, 18, 2, 1]),
        ("listed: a stranger's", [198, 18, 2, 7]),
        ("listed: nowhere", [203, 0, 113, 1]),
        ("listed: a broadcast address", [198, 18, 2, 255]),
        ("listed: everyone", [255; 4]),
        ("listed: a group", [224, 0, 0, 1]),
        ("listed: itself", [127, 0, 0, 1]),
    ] {
        lists.push((name, listed(3, first)));
    }
    lists
}

/// With a loopback interface: an option may name its address.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.router("ip link set lo up");
    lab
}

fn routes(lab: &Lab) -> Vec<(&'static str, u8, RouteKind)> {
    lab.router("ip route add unreachable 198.51.100.0/24");
    lab.router("ip route add blackhole 192.0.2.0/24");
    vec![("198.51.100.0", 24, RouteKind::Unreachable), ("192.0.2.0", 24, RouteKind::Blackhole)]
}

/// Every list on a packet to `to`.
fn every_list(
    lab: &Lab,
    router: &mut Router,
    to: &str,
    change: impl Fn(Packet) -> Packet,
) -> [usize; 2] {
    let mut sum = [0, 0];
    for (name, list) in lists() {
        let packet = Packet::udp(A, 1, to, 2).payload_len(40).options(&list);
        let seen = compare(lab, router, &format!("{name}, to {to}"), change(packet));
        sum = [sum[0] + seen[0], sum[1] + seen[1]];
    }
    sum
}

#[test]
fn ipv4_options_forwarded_and_refused() {
    let lab = lab();
    let routes = routes(&lab);
    lab.router("iptables -P INPUT DROP");
    let mut router = Router::new(&routes, None);
    let [on, back] = every_list(&lab, &mut router, B, |packet| packet);
    assert!(on > 30 && back > 20, "{on} on, {back} back");
    for to in ["192.0.2.9", "198.18.1.1", "198.18.2.1", "224.0.0.1", "198.18.1.255"] {
        let [on, _] = every_list(&lab, &mut router, to, |packet| packet);
        assert_eq!(on, 0);
    }
    // Errors of routing are limited per destination whatever the settings: each
    // packet comes from a host of its own.
    let mut host = STRANGERS.start;
    for (to, answers) in [("198.51.100.9", 60), ("8.8.8.8", 60)] {
        let mut back = 0;
        for (name, list) in lists() {
            let from = format!("198.18.1.{host}");
            host += 1;
            lab.neighbour(0, &from);
            let packet = Packet::udp(&from, 1, to, 2).payload_len(40).options(&list);
            back += compare(&lab, &mut router, &format!("{name}, to {to}"), packet)[1];
        }
        assert!(back > answers, "{back} back");
    }
    let [on, back] = every_list(&lab, &mut router, B, |packet| packet.ttl(1));
    assert!(on == 0 && back > 50, "{on} on, {back} back");
    every_list(&lab, &mut router, B, |packet| packet.fragment(0, 32, true));
    every_list(&lab, &mut router, B, |packet| packet.fragment(32, 16, false));
    let martian = |packet: Packet| Packet { src: "127.0.0.1".parse().expect("it"), ..packet };
    assert_eq!(every_list(&lab, &mut router, B, martian), [0, 0]);
}

#[test]
fn ipv4_options_rejected() {
    let lab = lab();
    for (with, name) in
        [(RejectWith::Icmp(3), "icmp-port-unreachable"), (RejectWith::TcpReset, "tcp-reset")]
    {
        let tcp = if with == RejectWith::TcpReset { "-p tcp" } else { "" };
        for tracked in [false, true] {
            // The first rule that asks for tracking turns it on.
            let state = if tracked { "-m conntrack --ctstate NEW" } else { "" };
            let rules = format!(
                "*filter\n:INPUT DROP\n-A OUTPUT {state}\n\
                 -A INPUT {tcp} -j REJECT --reject-with {name}\n\
                 -A FORWARD {tcp} -j REJECT --reject-with {name}\nCOMMIT\n"
            );
            lab.router_input("iptables-restore", &rules);
            let mut router = Router::new(&[], Some([with, RejectWith::Icmp6(4)]));
            if tracked {
                router = router.tracked();
            }
            for to in [B, "198.18.1.1"] {
                for (list_name, list) in lists() {
                    let packet = Packet::tcp(A, 1, to, 2, flags::SYN).options(&list);
                    let name = format!("{name}, {list_name}, to {to}, tracked: {tracked}");
                    compare(&lab, &mut router, &name, packet);
                }
            }
        }
    }
}

/// Lists of options that are nearly right.
fn any_list() -> impl Strategy<Value = Vec<u8>> {
    let kind = proptest::sample::select(
        &[7u8, 7, 0x44, 0x44, 0x44, 0x94, 0x82, 0x1e, 0x83, 0x89, 0x86, 1, 1, 0][..],
    );
    let one = (kind, 0..7u8, -1..2i8, 1..4u8, 0..16u8, prop_oneof![9 => Just(0i8), 1 => -3..4i8])
        .prop_map(|(kind, slots, shift, step, flag, wrong)| {
            let fixed: Vec<u8> = match kind {
                0 | 1 => return vec![kind],
                0x44 => {
                    vec![(5 + 4 * step).wrapping_add_signed(shift * (flag as i8 & 1)), flag & 0xf3]
                }
                7 | 0x83 | 0x89 => vec![(4 * step).wrapping_add_signed(shift * (flag as i8 & 1))],
                _ => vec![0, 0],
            };
            let mut bytes = option(kind, &[&fixed[..], &vec![0; 4 * usize::from(slots)]].concat());
            bytes[1] = bytes[1].wrapping_add_signed(wrong);
            bytes
        });
    proptest::collection::vec(one, 1..4).prop_map(|list| {
        let mut list = list.concat();
        list.truncate(40);
        list
    })
}

#[test]
fn generated_ipv4_options() {
    let lab = Lab::new();
    lab.router("iptables -P INPUT DROP");
    let mut router = Router::new(&[], None);
    let rng = TestRng::deterministic_rng(Config::default().rng_algorithm);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut sum = [0, 0];
    for _ in 0..400 {
        let list = any_list().new_tree(&mut runner).expect("a list").current();
        for ttl in [1, 9] {
            let packet = Packet::udp(A, 1, B, 2).payload_len(20).ttl(ttl).options(&list);
            let seen = compare(&lab, &mut router, "generated", packet);
            sum = [sum[0] + seen[0], sum[1] + seen[1]];
        }
    }
    assert!(sum[0] > 50 && sum[1] > 200, "{sum:?}");
}

/// Hop-by-hop options headers, the first byte (next header) left out of account.
fn headers() -> Vec<(&'static str, Vec<u8>)> {
    let mut headers = vec![
        ("router alert", vec![0, 0, 5, 2, 0, 0, 1, 0]),
        ("router alert of three bytes", vec![0, 0, 5, 3, 0, 0, 0, 0]),
        ("two router alerts", vec![0, 1, 5, 2, 0, 0, 5, 2, 0, 1, 1, 4, 0, 0, 0, 0]),
        ("padding that is not zero", vec![0, 0, 1, 4, 0, 0, 0, 1]),
        ("an option beyond its header", vec![0, 0, 1, 5, 0, 0, 0, 0]),
        ("a header beyond the packet", vec![0, 99, 1, 4, 0, 0, 0, 0]),
        ("six Pad1", vec![0, 0, 0, 0, 0, 0, 0, 0]),
        ("an option without length", vec![0, 0, 1, 3, 0, 0, 0, 0x1e]),
        ("jumbo with a length", vec![0, 0, 0xc2, 4, 0, 1, 0, 0]),
        ("jumbo that is none", vec![0, 0, 0xc2, 4, 0, 0, 1, 0]),
        ("jumbo of three bytes", vec![0, 0, 0xc2, 3, 0, 1, 0, 0]),
        ("crooked jumbo", vec![0, 1, 0, 0xc2, 4, 0, 0, 1, 0, 0, 1, 3, 0, 0, 0, 0]),
        ("unknown behind known", vec![0, 1, 5, 2, 0, 0, 1, 0, 0x9e, 4, 1, 2, 3, 4, 1, 0]),
        ("aligned ioam", vec![0, 1, 1, 0, 0x31, 6, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0]),
        ("crooked ioam", vec![0, 0, 0x31, 4, 0, 0, 0, 0]),
        ("short ioam", vec![0, 0, 1, 0, 0x31, 1, 0, 0]),
        ("calipso", vec![0, 1, 7, 8, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 0, 0]),
        ("short calipso", vec![0, 0, 7, 4, 0, 0, 0, 1]),
        ("eight options", [&[0, 2][..], &[0x1e, 0].repeat(8), &[1, 4, 0, 0, 0, 0]].concat()),
        ("nine options", [&[0, 2][..], &[0x1e, 0].repeat(9), &[1, 2, 0, 0]].concat()),
        ("nine options, one unknown", [&[0, 2][..], &[0x9e, 0].repeat(9), &[1, 2, 0, 0]].concat()),
        ("eight bytes of padding", vec![0, 1, 0x1e, 0, 1, 2, 0, 0, 1, 2, 0, 0, 0x1e, 2, 0, 0]),
    ];
    for (name, kind) in [
        ("unknown, to be skipped", 0x1e),
        ("unknown, to be dropped", 0x5e),
        ("unknown, to be reported", 0x9e),
        ("unknown, to be reported unless to a group", 0xde),
        ("mutable unknown, to be skipped", 0x3e),
        ("mutable unknown, to be reported", 0xbe),
        ("home address", 0xc9),
        ("rpl", 0x63),
        ("tunnel limit", 4),
    ] {
        headers.push((name, vec![0, 0, kind, 4, 1, 2, 3, 4]));
        headers.push((name, vec![0, 0, 0, 0, 1, 0, kind, 0]));
    }
    headers
}

#[test]
fn hop_by_hop_options() {
    let lab = Lab::new();
    lab.router("ip6tables -P INPUT DROP");
    let mut router = Router::new(&[], None);
    let mut sum = [0, 0];
    for (name, header) in headers() {
        for to in [B6, "2001:db8:1::1", "2001:db8:99::1", "ff02::1", "ff0e::1"] {
            for ttl in [1, 9] {
                let packet = Packet::udp(A6, 1, to, 2).ttl(ttl).payload_len(9);
                let packet = packet.extension(proto::HOP_BY_HOP, &header);
                let name = format!("{name} to {to}, {ttl} hops");
                let seen = compare(&lab, &mut router, &name, packet.clone());
                sum = [sum[0] + seen[0], sum[1] + seen[1]];
                let empty = Packet { length: Some(0), ..packet };
                compare(&lab, &mut router, &format!("{name}, no length"), empty);
            }
        }
        for from in ["::", "fe80::5"] {
            lab.neighbour(0, "fe80::5");
            let packet = Packet::udp(from, 1, "2001:db8:1::1", 2).extension(0, &header);
            compare(&lab, &mut router, &format!("{name} from {from}"), packet);
        }
        let error = Packet::icmp(A6, B6, 1, 0, 0).extension(0, &header);
        compare(&lab, &mut router, &format!("{name} on an error"), error);
    }
    assert!(sum[0] > 10 && sum[1] > 40, "{sum:?}");
}

#[test]
fn hop_limit_comes_before_scope() {
    let lab = Lab::new();
    lab.neighbour(0, "fe80::5");
    let mut router = Router::new(&[], None);
    for ttl in [0, 1, 2] {
        let packet = Packet::udp("fe80::5", 1, B6, 2).ttl(ttl);
        let seen = compare(&lab, &mut router, &format!("{ttl} hops"), packet);
        assert_eq!(seen, [0, 1]);
        let packet = Packet::udp("::", 1, B6, 2).ttl(ttl);
        assert_eq!(compare(&lab, &mut router, "from nobody", packet), [0, 0]);
    }
}

/// Where rules see which bytes: untouched in PREROUTING, filled in towards the
/// sender in INPUT and FORWARD, completed in POSTROUTING. The same expectations
/// hold for the engine in its own tests.
#[test]
fn what_rules_see_in_the_kernel() {
    let lab = lab();
    // Bytes 20-27 of the header: the option's start, then the slot.
    let seen = |chain: &str, pointer: u8, slot: u32| {
        format!(
            "-A {chain} -m u32 --u32 20=0x0707{pointer:02x}00:0x0707{pointer:02x}ff -m u32 --u32 23=0x{slot:08x}\n"
        )
    };
    let (inside, outside) = (0xc612_0101u32, 0xc612_0201u32);
    let rules = [
        "*raw\n".to_owned(),
        seen("PREROUTING", 4, 0),
        "COMMIT\n*mangle\n".into(),
        seen("PREROUTING", 4, 0),
        seen("INPUT", 8, inside),
        seen("FORWARD", 8, inside),
        seen("POSTROUTING", 8, outside),
        "COMMIT\n*filter\n:INPUT DROP\n".into(),
        seen("INPUT", 8, inside),
        seen("FORWARD", 8, inside),
        "COMMIT\n".into(),
    ];
    lab.router_input("iptables-restore", &rules.concat());
    for to in [B, "198.18.1.1"] {
        let packet = Packet::udp(A, 1, to, 2).options(&[7, 7, 4, 0, 0, 0, 0, 1]);
        lab.exchange(0, &packet.macs(HOST[0], ROUTER[0]).build());
    }
    let counts = lab.router("iptables-save -c");
    let counts: Vec<_> = counts
        .lines()
        .filter(|line| line.contains("u32"))
        .map(|line| {
            let chain = line.split_whitespace().nth(2).expect("a chain");
            (chain, line.split(':').next().expect("a counter"))
        })
        .collect();
    for (chain, count) in &counts {
        let expected = if *chain == "PREROUTING" { "[2" } else { "[1" };
        assert_eq!(*count, expected, "{chain}");
    }
    assert_eq!(counts.len(), 7);
}
