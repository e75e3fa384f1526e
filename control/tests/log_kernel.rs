//! LOG lines against those that the kernel prints for the same packets, and
//! with them the frame parser: what it refuses, no rule of the kernel sees.
//! Needs root, and reads the machine's kernel log.

mod lab;

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use dataplane::effects::{LogRecord, Report};
use dataplane::packet::{Family, Mac, Parsed, PortId};
use dataplane::policy::Hook;
use dataplane::policy::target::LogTarget;
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::{Frame, ipv4, ipv6, parse, proto};
use lab::{Lab, address, host_mac, port_mac};
use portcullis::log::{Entry, line};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

/// The machine's kernel log, from now on.
struct KernelLog {
    file: std::fs::File,
    tag: String,
}

impl KernelLog {
    fn open() -> Self {
        // Lines of other namespaces are printed only when this is set.
        std::fs::write("/proc/sys/net/netfilter/nf_log_all_netns", "1").expect("needs root");
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .expect("the kernel log");
        file.seek(SeekFrom::End(0)).expect("its end");
        Self { file, tag: format!("pc{}", std::process::id()) }
    }

    /// Our lines since the last call, without priority, and without our tag.
    fn lines(&mut self) -> Vec<String> {
        let (mut lines, mut record) = (Vec::new(), vec![0; 8192]);
        loop {
            match self.file.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let message = text.split_once(';').map_or("", |(_, message)| message);
                    let message = message.split('\n').next().unwrap_or("");
                    lines.extend(message.strip_prefix(&self.tag).map(str::to_owned));
                }
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return lines,
                Err(error) => panic!("reading the kernel log: {error}"),
            }
        }
    }
}

fn rules(tag: &str) -> String {
    format!(
        "*mangle\n\
         -A PREROUTING -j LOG --log-prefix \"{tag}A:\"\n\
         -A PREROUTING -j MARK --set-mark 0xbeef\n\
         -A PREROUTING -j LOG --log-prefix \"{tag}B:\" --log-tcp-sequence --log-tcp-options \
         --log-ip-options --log-macdecode --log-uid\n\
         -A FORWARD -j LOG --log-prefix \"{tag}C:\"\n\
         -A POSTROUTING -j LOG --log-prefix \"{tag}D:\"\nCOMMIT\n"
    )
}

fn target(prefix: &str, verbose: bool) -> LogTarget {
    LogTarget {
        level: 4,
        prefix: prefix.into(),
        tcp_sequence: verbose,
        tcp_options: verbose,
        ip_options: verbose,
        uid: verbose,
        mac_decode: verbose,
    }
}

fn to_line(frame: &[u8], parsed: &Parsed, target: &LogTarget, hook: Hook, mark: u32) -> String {
    let output = matches!(hook, Hook::Forward | Hook::Postrouting).then_some(PortId(1));
    let record = LogRecord {
        hook,
        input: Some(PortId(0)),
        output,
        mark,
        ..LogRecord::plain(Report::Log(target), frame, parsed)
    };
    line(&Entry::copy(&record), |port| ["eth0", "eth1", "eth2"][port.index()])
}

/// What reaches the rules: hop-by-hop options are judged before any of them.
fn parsed(frame: &[u8]) -> Option<Parsed> {
    let Ok(Frame::Ip(parsed)) = parse(frame, Mac(port_mac(0))) else { return None };
    let ip = parsed.l3_bytes(frame);
    let options = parsed.family == Family::V6 && ip[6] == proto::HOP_BY_HOP;
    (!options || ipv6::hop_by_hop(ip).is_ok()).then_some(parsed)
}

/// The lines of the rules above. `forwarded`: whether the kernel sent it on.
fn ours(frame: &[u8], forwarded: bool) -> Vec<String> {
    let Some(p) = parsed(frame) else { return Vec::new() };
    let mut lines = vec![
        to_line(frame, &p, &target("A:", false), Hook::Prerouting, 0),
        to_line(frame, &p, &target("B:", true), Hook::Prerouting, 0xbeef),
    ];
    if forwarded {
        let mut hop = frame.to_vec();
        match p.family {
            Family::V4 => ipv4::Packet::new_header(&mut hop[14..]).expect("IPv4").decrement_ttl(),
            Family::V6 => hop[14 + 7] -= 1,
        }
        let p = parsed(&hop).expect("still a packet");
        lines.push(to_line(&hop, &p, &target("C:", false), Hook::Forward, 0xbeef));
        lines.push(to_line(&hop, &p, &target("D:", false), Hook::Postrouting, 0xbeef));
    }
    lines
}

/// Lines seen, and whether the parser accepted.
fn compare(lab: &Lab, log: &mut KernelLog, frame: &[u8]) -> (usize, bool) {
    let sent = lab.inject(0, frame);
    let mut kernel = log.lines();
    // The router's own answers pass POSTROUTING too.
    kernel.retain(|line| !line.starts_with("D:IN= "));
    let forwarded = sent.iter().any(|sent| sent.port == 1);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(kernel, ours(frame, forwarded), "kernel, then ours, for {hex}");
    (kernel.len(), parsed(frame).is_some())
}

fn packets(a: &str, b: &str) -> Vec<Packet> {
    let inner = |packet: Packet| packet.build();
    let quoted = inner(Packet::tcp(b, 9, a, 10, 0x12).tcp_options(&[2, 4, 5, 0xb4]));
    let udp = inner(Packet::udp(b, 9, a, 10));
    let mut all = vec![
        Packet::udp(a, 1, b, 2).payload_len(9).tos(0xff).ttl(7),
        Packet::new(a, b, L4::Udp { sport: 1, dport: 2, length: None, lite: true }),
        Packet::tcp(a, 1, b, 2, 0xff).seq(u32::MAX, 5).tcp_options(&[1, 1, 4, 2]),
        Packet::new(a, b, L4::Tcp(Tcp { reserved: 0xf, urgent: 9, ..Tcp::new(1, 2, 0x20) })),
        Packet::new(a, b, L4::Tcp(Tcp { offset: Some(15), ..Tcp::new(1, 2, 2) })),
        Packet::new(a, b, L4::Sctp { sport: 1, dport: 2, tag: 3 }),
        Packet::ping(a, b, 0x1234, 7).payload_len(56),
        Packet::pong(a, b, 1, 65535),
        Packet::raw(a, b, proto::GRE, &[0; 8]),
        Packet::raw(a, b, proto::ESP, &[1; 12]),
        Packet::raw(a, b, proto::ESP, &[1; 7]),
        Packet::raw(a, b, proto::AH, &[6, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4]),
        Packet::raw(a, b, proto::AH, &[6, 1, 0, 0, 0, 0, 0, 3, 0, 0]),
        Packet::raw(a, b, proto::TCP, &[0; 19]),
        Packet::raw(a, b, proto::UDP, &[0; 7]),
        Packet::udp(a, 1, b, 2).payload_len(64).fragment(0, 32, true),
        Packet::udp(a, 1, b, 2).payload_len(64).fragment(32, 40, false),
        Packet::tcp(a, 1, b, 2, 2).payload_len(64).fragment(24, 16, true),
    ];
    for kind in 0..=20 {
        for code in [0, 1, 4] {
            all.push(Packet::error(a, b, kind, code, 0xc612_0105, &quoted));
        }
        all.push(Packet::error(a, b, kind, 0, 1400, &udp));
        all.push(Packet::icmp(a, b, kind, 0, 1400));
        all.push(Packet::icmp(a, b, kind, 0, 5).payload_len(11));
        all.push(Packet::icmp(a, b, kind, 0, 5).payload(&quoted[14..30]));
    }
    for length in 0..9 {
        all.push(Packet::raw(a, b, proto::ICMP, &[8, 0, 0, 0, 1, 2, 3, 4][..length.min(8)]));
        all.push(Packet::raw(a, b, proto::ICMPV6, &[128, 0, 0, 0, 1, 2, 3, 4][..length.min(8)]));
    }
    all
}

fn only_v4(a: &str, b: &str) -> Vec<Packet> {
    let udp = || Packet::udp(a, 1, b, 2);
    vec![
        udp().df(),
        Packet { evil: true, ..udp() },
        udp().options(&[0x94, 4, 0, 0]),
        udp().options(&[1; 40]),
        Packet::error(a, b, 3, 1, 0, &Packet::udp(b, 1, a, 2).options(&[1; 8]).build()),
        udp().bad_ip_checksum(),
        udp().length(60),
        Packet { version: Some(6), ..udp() },
        Packet { ihl: Some(4), ..udp() },
        Packet { ihl: Some(8), ..udp() },
    ]
}

fn only_v6(a: &str, b: &str) -> Vec<Packet> {
    let udp = || Packet::udp(a, 1, b, 2);
    let pad = [0, 0, 1, 4, 0, 0, 0, 0];
    let ah = [0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1];
    let mut all = vec![
        Packet { flow_label: 0xabcde, ..udp().tos(0xa7) },
        udp().extension(proto::HOP_BY_HOP, &pad).extension(proto::DESTINATION, &pad),
        udp().extension(proto::ROUTING, &[0, 0, 4, 0, 0, 0, 0, 0]),
        udp().extension(proto::AH, &ah),
        udp().extension(proto::AH, &ah[..8]),
        Packet::raw(a, b, proto::NONE, &[1, 2]),
        Packet::raw(a, b, proto::DESTINATION, &[6]),
        Packet::raw(a, b, proto::DESTINATION, &[6, 9, 0, 0, 0, 0]),
        Packet::raw(a, b, proto::FRAGMENT, &[6, 9, 0, 0, 0, 0]),
        Packet::raw(a, b, proto::FRAGMENT, &[60, 0, 0, 9, 0, 0, 0, 1, 6, 0, 1, 4, 0, 0, 0, 0]),
        Packet::raw(a, b, proto::FRAGMENT, &[51, 0, 0, 9, 0, 0, 0, 1, 6, 0, 1, 4, 0, 0, 0, 0]),
        Packet::raw(a, b, proto::FRAGMENT, &[50, 0, 0, 9, 0, 0, 0, 1, 6, 0, 1, 4, 0, 0, 0, 0]),
        udp().length(0),
        udp().length(99),
        Packet::udp("::1", 1, b, 2),
        Packet::udp("ff02::9", 1, b, 2),
        Packet::udp(a, 1, "ff01::1", 2),
    ];
    for options in [
        [5, 2, 0, 0, 1, 0],
        [5, 3, 0, 0, 0, 0],
        [0x1e, 4, 1, 2, 3, 4],
        [0x5e, 4, 1, 2, 3, 4],
        [0x9e, 4, 1, 2, 3, 4],
        [0xc2, 4, 0, 1, 0, 0],
        [1, 4, 0, 0, 0, 1],
        [1, 5, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0x1e, 0, 0x1e, 0, 0x1e, 0],
    ] {
        let header = [&[0, 0], &options[..]].concat();
        all.push(udp().extension(proto::HOP_BY_HOP, &header));
        let long = [&[0, 2], &options[..], &options[..], &options[..4], &[1, 4, 0, 0, 0, 0]];
        all.push(udp().extension(proto::HOP_BY_HOP, &long.concat()));
    }
    all
}

fn lab_addresses(v6: bool) -> (String, String) {
    (address(v6, 0, 10).to_string(), address(v6, 1, 11).to_string())
}

fn ready() -> (Lab, KernelLog) {
    let (lab, log) = (Lab::new(), KernelLog::open());
    for v6 in [false, true] {
        lab.restore(v6, &rules(&log.tag)).expect("rules load");
    }
    (lab, log)
}

/// One test, because two would read each other's lines.
#[test]
fn lines_are_the_kernels() {
    let (lab, mut log) = ready();
    let (mut lines, mut refused) = (0, 0);
    let mut check = |packet: &Packet| {
        let (src, dst) = (Mac(host_mac(0, 10)), Mac(port_mac(0)));
        let (seen, accepted) = compare(&lab, &mut log, &packet.clone().macs(src, dst).build());
        lines += seen;
        refused += u32::from(!accepted);
    };
    for v6 in [false, true] {
        let (a, b) = lab_addresses(v6);
        let special = if v6 { only_v6(&a, &b) } else { only_v4(&a, &b) };
        packets(&a, &b).iter().chain(&special).for_each(&mut check);
    }
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(Config::default().rng_algorithm),
    );
    let random = random_packet();
    for _ in 0..1500 {
        check(&random.new_tree(&mut runner).expect("a packet").current());
    }
    eprintln!("{lines} lines, {refused} frames refused by both");
    assert!(lines > 3000 && refused > 50, "{lines} lines, {refused} refused");
}

/// Headers that are nearly right, often cut short.
fn random_packet() -> impl Strategy<Value = Packet> {
    const NUMBERS: [u8; 15] = [0, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 136, 47, 41];
    let number = proptest::sample::select(&NUMBERS[..]);
    let small = prop_oneof![0..4u8, any::<u8>()];
    let bytes = vec(prop_oneof![0..4u8, number.clone(), any::<u8>()], 0..90);
    let extension = (number.clone(), vec(small, 2..17));
    (
        (any::<bool>(), number, bytes),
        vec(extension, 0..3),
        vec(any::<u8>(), 0..12),
        proptest::option::weighted(0.3, (0..3u16, any::<bool>())),
        proptest::option::weighted(0.2, 0..120usize),
        proptest::option::weighted(0.1, 0..120u16),
    )
        .prop_map(|((v6, number, bytes), extensions, options, fragment, truncate, length)| {
            let (a, b) = lab_addresses(v6);
            Packet {
                extensions: if v6 { extensions } else { Vec::new() },
                // No-operations: what routing makes of options is not the question here.
                options: if v6 { Vec::new() } else { vec![1; options.len()] },
                fragment: fragment.map(|(offset, more)| (offset * 8, more)),
                truncate: truncate.map(|length| length.max(14)),
                length,
                ..Packet::raw(&a, &b, number, &bytes)
            }
        })
}
