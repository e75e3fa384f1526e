//! Lines captured from Linux 6.18 with the frames that caused them, and what
//! the kernel cannot be asked: records without input, long lines, short copies.
//! `tests/log_kernel.rs` compares many more with the live kernel.

use dataplane::packet::{Mac, Parsed};
use dataplane::policy::report::AuditKind;
use dataplane::policy::target::LogTarget;
use dataplane::wire::build::{ETH_DST, Packet};
use dataplane::wire::{Frame, parse, proto};
use dataplane::worker::line_bytes;
use proptest::prelude::*;

use super::*;

const VERBOSE: bool = true;

fn logged(frame: &[u8], verbose: bool, ports: [Option<u8>; 2], mark: u32) -> Entry {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[..6]);
    let Ok(Frame::Ip(parsed)) = parse(frame, Mac(mac)) else { panic!("not IP") };
    logged_as(frame, &parsed, verbose, ports, mark)
}

fn logged_as(
    frame: &[u8],
    parsed: &Parsed,
    verbose: bool,
    ports: [Option<u8>; 2],
    mark: u32,
) -> Entry {
    let target = LogTarget {
        level: 4,
        prefix: if verbose { "B:" } else { "A:" }.into(),
        tcp_sequence: verbose,
        tcp_options: verbose,
        ip_options: verbose,
        uid: verbose,
        mac_decode: verbose,
    };
    Entry::copy(&LogRecord {
        now: Nanos(7),
        hook: Hook::Prerouting,
        input: ports[0].map(PortId),
        output: ports[1].map(PortId),
        has_link_header: ports[0].is_some(),
        mark,
        ..LogRecord::plain(Report::Log(&target), frame, parsed)
    })
}

fn name(port: PortId) -> &'static str {
    ["eth0", "eth1"][port.index()]
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Frame, and the line after `MACPROTO=.... `, with every switch on and mark 0xbeef.
const CAPTURED: &[(&str, &str)] = &[
    (
        "080045ff0025123400000711115cc612010ac612020b0001000200115c7f000102030405060708",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=37 TOS=0x1E PREC=0xE0 TTL=7 ID=4660 PROTO=UDP SPT=1 DPT=2 LEN=17 MARK=0xbeef ",
    ),
    (
        "08004500002c123400004006d95ec612010ac612020b00010002ffffffff0000000560ff2000ea9c000001010402",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=44 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=TCP SPT=1 DPT=2 SEQ=4294967295 ACK=5 WINDOW=8192 RES=0x00 CWR ECE URG ACK PSH RST SYN FIN URGP=0 OPT (01010402) MARK=0xbeef ",
    ),
    (
        "080045000028123400004006d962c612010ac612020b00010002000003e8000000005f202000ed960009",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=TCP SPT=1 DPT=2 SEQ=1000 ACK=0 WINDOW=8192 RES=0x38 AE URG URGP=9 MARK=0xbeef ",
    ),
    (
        "080045000028123400004006d962c612010ac612020b00010002000003e800000000f00220005cbd0000",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=TCP SPT=1 DPT=2 SEQ=1000 ACK=0 WINDOW=8192 RES=0x00 SYN URGP=0 OPT (TRUNCATED)",
    ),
    (
        "080045000027123400004006d963c612010ac612020b00000000000000000000000000000000000000",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=39 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=TCP INCOMPLETE [19 bytes] ",
    ),
    (
        "08004500001b123400004032d943c612010ac612020b01010101010101",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=27 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=ESP INCOMPLETE [7 bytes] MARK=0xbeef ",
    ),
    (
        "080045000020123400004033d93dc612010ac612020b060100000000000300000004",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=AH SPI=0x3 MARK=0xbeef ",
    ),
    (
        "080045000024123420034006b963c612010ac612020b0405060708090a0b0c0d0e0f10111213",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=36 TOS=0x00 PREC=0x00 TTL=64 ID=4660 MF FRAG:3 PROTO=TCP MARK=0xbeef ",
    ),
    (
        "080048000020123420024033b136c612010ac612020b010101010101010101010000",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=4660 MF FRAG:2 OPT (010101010101010101010000) MARK=0xbeef ",
    ),
    (
        "080045000048123400004001d947c612010ac612020b0304c53cc61201054500002c123400004006d95ec612020bc612010a0009000a000003e80000000060122000e4e10000020405b4",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=72 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=ICMP TYPE=3 CODE=4 [SRC=198.18.2.11 DST=198.18.1.10 LEN=44 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=TCP SPT=9 DPT=10 SEQ=1000 ACK=0 WINDOW=8192 RES=0x00 ACK SYN URGP=0 OPT (020405B4) ] MTU=261 MARK=0xbeef ",
    ),
    (
        "08004500001c123400004001d973c612010ac612020b0300f78700000578",
        "SRC=198.18.1.10 DST=198.18.2.11 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=4660 PROTO=ICMP TYPE=3 CODE=0 INCOMPLETE [8 bytes] MARK=0xbeef ",
    ),
    (
        "86dd60000000001b2c4020010db800010000000000000000000a20010db800020000000000000000000b3b987e34660301df010300003c95020085bc000285f1030191390301",
        "SRC=2001:0db8:0001:0000:0000:0000:0000:000a DST=2001:0db8:0002:0000:0000:0000:0000:000b LEN=67 TC=0 HOPLIMIT=64 FLOWLBL=0 OPT ( FRAG:32304 ID:660301df ) PROTO=59 MARK=0xbeef ",
    ),
    (
        "86dd600000000006334020010db800010000000000000000000a20010db800020000000000000000000b2c1cb3c00084",
        "SRC=2001:0db8:0001:0000:0000:0000:0000:000a DST=2001:0db8:0002:0000:0000:0000:0000:000b LEN=46 TC=0 HOPLIMIT=64 FLOWLBL=0 OPT ( AH INCOMPLETE [6 bytes] )",
    ),
];

#[test]
fn captured_lines() {
    for (rest, expected) in CAPTURED {
        let frame = bytes(&format!("02000000010102000000010a{rest}"));
        let entry = logged(&frame, VERBOSE, [Some(0), None], 0xbeef);
        let macs = "MACSRC=02:00:00:00:01:0a MACDST=02:00:00:00:01:01";
        let kind = &rest[..4];
        let expected = format!("B:IN=eth0 OUT= {macs} MACPROTO={kind} {expected}");
        assert_eq!(line(&entry, name), expected);
    }
}

#[test]
fn a_plain_line_in_forward() {
    let frame = bytes(
        "02000000010102000000010a080045000028123400003f06da62c612010ac612020b\
         00010002000003e8000000005f202000ed960009",
    );
    let expected = "A:IN=eth0 OUT=eth1 MAC=02:00:00:00:01:01:02:00:00:00:01:0a:08:00 \
                    SRC=198.18.1.10 DST=198.18.2.11 LEN=40 TOS=0x00 PREC=0x00 TTL=63 ID=4660 \
                    PROTO=TCP SPT=1 DPT=2 WINDOW=8192 RES=0x38 AE URG URGP=9 MARK=0xbeef ";
    let entry = logged(&frame, !VERBOSE, [Some(0), Some(1)], 0xbeef);
    assert_eq!(line(&entry, name), expected);
}

#[test]
fn our_own_packets_have_no_mac() {
    let frame = Packet::udp("198.18.1.1", 1, "198.18.1.5", 2).build();
    let text = line(&logged(&frame, !VERBOSE, [None, Some(1)], 0), name);
    assert!(text.starts_with("A:IN= OUT=eth1 SRC=198.18.1.1 "), "{text}");
    assert!(text.ends_with("SPT=1 DPT=2 LEN=8 "), "{text}");
}

/// In the form of records that Linux 6.18 made.
#[test]
fn audit_records_are_the_kernels() {
    let record = |frame: &[u8], mark| {
        let Ok(Frame::Ip(parsed)) = parse(frame, ETH_DST) else { panic!("not IP") };
        let plain = LogRecord::plain(Report::Audit(AuditKind::Drop), frame, &parsed);
        audit(&LogRecord { mark, ..plain }, Nanos(1_795_339_049_319_000_000), 197)
    };
    assert_eq!(
        record(&Packet::udp("198.18.1.10", 1, "198.18.2.11", 9).build(), 0),
        "audit: type=1324 audit(1795339049.319:197): mark=0x0 saddr=198.18.1.10 daddr=198.18.2.11 \
         proto=17"
    );
    assert_eq!(
        record(&Packet::ping("2001:db8::1", "2001:db8::2", 1, 2).build(), 5),
        "audit: type=1324 audit(1795339049.319:197): mark=0x5 saddr=2001:db8::1 daddr=2001:db8::2 proto=58"
    );
}

#[test]
fn a_sender_shows_where_it_is_asked_for_and_known() {
    let frame = Packet::udp("198.18.1.1", 1, "198.18.1.5", 2).build();
    let owner = Some(Owner { uid: 1000, gid: Some(100), groups: None });
    let seen = |verbose, mark| Entry { owner, ..logged(&frame, verbose, [None, Some(1)], mark) };
    assert!(line(&seen(true, 7), name).ends_with("LEN=8 UID=1000 GID=100 MARK=0x7 "));
    assert!(line(&seen(false, 7), name).ends_with("LEN=8 MARK=0x7 "));
}

#[test]
fn long_lines_end_where_the_kernels_do() {
    let mut packet = Packet::udp("2001:db8::1", 1, "2001:db8::2", 2);
    for _ in 0..40 {
        packet = packet.extension(proto::DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0]);
    }
    let frame = packet.extension(proto::ROUTING, &[0, 0, 1, 4, 0, 0, 0, 0]).build();
    let short = line(&logged(&frame, VERBOSE, [Some(0), None], 0), name);
    assert!(short.len() < LINE && short.contains("PROTO=UDP"), "{short}");
    let mut out = Line(String::new());
    (0..400).for_each(|_| out.put(format_args!("OPT ( ) ")));
    assert_eq!(out.0.len(), LINE);
    let mut out = Line("x".repeat(LINE - 1));
    out.put(format_args!("é"));
    assert_eq!(out.0.len(), LINE - 1, "never half a letter");
}

#[test]
fn a_copy_is_bounded_and_knows_the_real_length() {
    let frame = Packet::udp("198.18.1.1", 1, "198.18.1.5", 2).payload_len(1400).build();
    let entry = logged(&frame, VERBOSE, [Some(0), None], 0);
    assert_eq!((entry.packet.len(), entry.length), (KEPT, 1428));
    assert_eq!((entry.now, entry.level, &*entry.prefix), (Nanos(7), 4, "B:"));
}

proptest! {
    #[test]
    fn any_packet_gives_one_printable_line(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        number in any::<u8>(),
        v6 in any::<bool>(),
    ) {
        let (a, b) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("198.18.0.1", "198.18.0.2") };
        let frame = Packet::raw(a, b, number, &bytes).build();
        let Ok(Frame::Ip(_)) = parse(&frame, ETH_DST) else { return Ok(()) };
        let text = line(&logged(&frame, VERBOSE, [Some(0), Some(1)], 1), name);
        prop_assert!(text.len() <= LINE && text.chars().all(|c| c.is_ascii_graphic() || c == ' '));
    }

    /// Workers keep the headers only: the line is that of the whole frame.
    #[test]
    fn what_a_worker_keeps_shows_the_same_line(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        number in prop_oneof![Just(proto::TCP), Just(proto::UDP), Just(proto::UDPLITE), any::<u8>()],
        (v6, later, tcp_words) in any::<(bool, bool, u8)>(),
    ) {
        let (a, b) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("198.18.0.1", "198.18.0.2") };
        if let Some(byte) = bytes.get_mut(12) {
            *byte = tcp_words;
        }
        let mut frame = Packet::raw(a, b, number, &bytes).build();
        if later && !v6 {
            frame[21] = 1;
        }
        let Ok(Frame::Ip(parsed)) = parse(&frame, ETH_DST) else { return Ok(()) };
        let kept = frame.len().min(line_bytes(&parsed));
        let cut = logged_as(&frame[..kept], &parsed, VERBOSE, [Some(0), Some(1)], 1);
        prop_assert_eq!(line(&cut, name), line(&logged(&frame, VERBOSE, [Some(0), Some(1)], 1), name));
    }
}
