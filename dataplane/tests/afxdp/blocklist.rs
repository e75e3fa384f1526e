//! The blocklist in the maps: which frames the program drops for which entries, and how it
//! counts them.

use std::net::IpAddr;

use dataplane::packet::{Family, Mac};
use dataplane::port::afxdp::blocklist::{BlockRule, Blocked, Meaning, quiesce};
use dataplane::port::afxdp::{Blocklist, BlocklistSize, BpfError, Config, Opened};
use dataplane::wire::build::Packet;
use dataplane::wire::ipv4;

use crate::lab::Lab;
use crate::{A, Peer, alone, open_in, routed, soon};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const RULE: BlockRule = BlockRule { table: 7, nets: true, ports: 1 };

/// A frame of UDP from a source.
fn from(source: &str, to: Mac, port: u16) -> Vec<u8> {
    let own = if source.contains('.') { "198.18.2.2" } else { "fd00:2::2" };
    let mut frame = Packet::udp(source, 9, own, port).payload(&[7; 20]).build();
    frame[..6].copy_from_slice(&to.0);
    frame
}

/// The same with another value in a byte of its IPv4 header, whose checksum is right again.
fn odd(at: usize, value: u8) -> Vec<u8> {
    let mut frame = from("198.18.0.2", OWN, 9);
    frame[14 + at] = value;
    frame.resize(80, 0);
    ipv4::Packet::new_header(&mut frame[14..]).expect("a header").fill_checksum();
    frame
}

fn prefix(text: &str, length: u8) -> (IpAddr, u8) {
    (text.parse().expect("an address"), length)
}

struct Stand {
    left: Peer,
    opened: Opened,
    list: Blocklist,
    _lab: Lab,
}

impl Stand {
    fn new() -> Self {
        let lab = Lab::new(1);
        let size = BlocklistSize { hosts: [2, 2], nets: 3 };
        let config = Config { blocklist: Some(size), ..routed(&["f0", "f1"]) };
        let mut opened = open_in(&lab.boxed(), &config).expect("the box opens");
        let list = opened.program.take_blocklist().expect("it is switched on");
        assert!(opened.program.take_blocklist().is_none(), "once");
        let left = Peer::new(&lab.left(), "l0", 1);
        Self { left, opened, list, _lab: lab }
    }

    fn counted(&self) -> [Blocked; 2] {
        [Family::V4, Family::V6].map(|family| self.list.count(family, 0, A).expect("it is read"))
    }

    /// Sends a frame; whether it was dropped, which must have been counted exactly then.
    fn drops(&mut self, frame: &[u8]) -> bool {
        let program = |stand: &Self| stand.opened.program.counters(A).expect("they are read");
        let (before, mut expected) = (program(self), self.counted());
        self.left.send(0, [frame]);
        let mut after = before;
        assert!(soon(|| {
            after = program(self);
            after != before
        }));
        let dropped = after.blocked > before.blocked;
        if dropped {
            let counted = &mut expected[usize::from(frame[12] != 8)];
            counted.packets += 1;
            let field = |at: usize| u64::from(frame[at]) << 8 | u64::from(frame[at + 1]);
            counted.bytes += if frame[12] == 8 { field(16) } else { 40 + field(18) };
            counted.frame_bytes += frame.len() as u64;
        }
        assert_eq!(self.counted(), expected, "{frame:?}");
        dropped
    }

    fn put(&mut self, table: u32, text: &str, length: u8, meaning: Meaning) {
        self.list.put(table, prefix(text, length), meaning).expect("there is room");
    }
}

#[test]
fn without_a_size_there_is_none() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut opened = open_in(&lab.boxed(), &routed(&["f0", "f1"])).expect("the box opens");
    assert!(opened.program.take_blocklist().is_none());
}

#[test]
fn the_longest_entry_of_its_table_says_what_a_rule_drops() {
    let _alone = alone();
    let mut stand = Stand::new();
    for (text, length, meaning) in [
        ("198.18.0.0", 15, Meaning::Listed),
        ("198.18.1.0", 28, Meaning::Excepted),
        ("198.18.1.9", 32, Meaning::Listed),
        ("fd00:1::", 32, Meaning::Listed),
        ("fd00:1::9", 128, Meaning::Excepted),
    ] {
        stand.put(RULE.table, text, length, meaning);
    }
    stand.put(8, "198.18.1.8", 32, Meaning::Listed);
    let third = stand.list.put(8, prefix("198.18.1.7", 32), Meaning::Listed);
    assert!(matches!(third, Err(BpfError::Full("block4"))), "{third:?}");
    assert!(!stand.drops(&from("198.18.0.2", OWN, 9)), "there is no rule");
    for family in [Family::V4, Family::V6] {
        stand.list.set_rule(family, 0, Some(RULE)).expect("it is written");
    }
    assert!(!stand.drops(&from("198.18.0.2", OWN, 9)), "the port has no address");
    stand.list.set_mac(A, Some(OWN)).expect("it is written");
    for (source, dropped) in [
        ("198.18.0.2", true),
        ("198.17.0.2", false),
        ("198.18.1.2", false),
        ("198.18.1.9", true),
        ("198.18.1.8", false),
        ("fd00:1::2", true),
        ("fd00:1::9", false),
        ("fd00:2::9", false),
    ] {
        assert_eq!(stand.drops(&from(source, OWN, 9)), dropped, "{source}");
    }
    // On another port only; then away.
    stand.list.set_rule(Family::V4, 0, None).expect("it is written");
    assert!(!stand.drops(&from("198.18.0.2", OWN, 9)));
    quiesce().expect("the kernel tells");
    let elsewhere = BlockRule { ports: 2, ..RULE };
    stand.list.set_rule(Family::V4, 0, Some(elsewhere)).expect("it is written");
    assert!(!stand.drops(&from("198.18.0.2", OWN, 9)));
    assert!(stand.list.remove(7, prefix("198.18.0.0", 15)).expect("it is asked"));
    assert!(!stand.list.remove(7, prefix("198.18.0.0", 15)).expect("it is asked"));
    let mut remains = stand.list.remains(|table| table == 8).expect("they are read");
    assert!(stand.list.bury(&mut remains, 1).expect("it goes"), "there are more");
    assert!(!stand.list.bury(&mut remains, 100).expect("they go"));
    assert!(!stand.list.remove(7, prefix("198.18.1.9", 32)).expect("it is asked"));
    assert!(stand.list.remove(8, prefix("198.18.1.8", 32)).expect("it is asked"));
}

#[test]
fn what_the_engine_may_see_otherwise_is_the_engines() {
    let _alone = alone();
    let mut stand = Stand::new();
    stand.put(RULE.table, "198.18.0.0", 15, Meaning::Listed);
    stand.put(RULE.table, "::", 1, Meaning::Listed);
    stand.put(RULE.table, "8000::", 1, Meaning::Listed);
    stand.list.set_mac(A, Some(OWN)).expect("it is written");
    for family in [Family::V4, Family::V6] {
        stand.list.set_rule(family, 3, Some(RULE)).expect("it is written");
        stand.list.set_rule(family, 0, Some(RULE)).expect("it is written");
    }
    for source in ["198.18.0.2", "2001:db8::1", "fe80::1", "0:1::"] {
        assert!(stand.drops(&from(source, OWN, 9)), "{source}");
        assert!(stand.drops(&from(source, OWN, 66)), "{source}");
        // To somebody else, or to all.
        assert!(!stand.drops(&from(source, Mac([2; 6]), 9)), "{source}");
        assert!(!stand.drops(&from(source, Mac([0xff; 6]), 9)), "{source}");
        // DHCP is for packet sockets too.
        assert!(!stand.drops(&from(source, OWN, 67)) || source.contains(':'));
        assert!(!stand.drops(&from(source, OWN, 68)) || source.contains(':'));
        let mut short = from(source, OWN, 9);
        short.pop();
        assert!(!stand.drops(&short), "cut short");
        let mut long = from(source, OWN, 9);
        long.extend([0; 10]);
        let before = stand.counted().map(|it| it.bytes);
        let length = from(source, OWN, 9).len() as u64 - 14;
        // Padding counts for the port and not for the rule.
        stand.left.send(0, [&long[..]]);
        assert!(soon(|| stand.counted().map(|it| it.bytes) != before));
        let after = stand.counted().map(|it| it.bytes);
        assert_eq!(after.iter().sum::<u64>() - before.iter().sum::<u64>(), length);
    }
    for source in ["::1", "ff02::1"] {
        assert!(!stand.drops(&from(source, OWN, 9)), "{source}");
    }
    assert!(stand.drops(&odd(8, 3)), "another TTL is nothing odd");
    // Options, an unknown version, a length, fragments.
    for (at, value) in [(0, 0x46), (2, 0x7f), (3, 19), (6, 0x20), (7, 1)] {
        assert!(!stand.drops(&odd(at, value)), "byte {at}");
    }
    let mut damaged = from("198.18.0.2", OWN, 9);
    damaged[24] ^= 1;
    assert!(!stand.drops(&damaged), "its checksum is wrong");
    for next in [0, 43, 44, 51, 60, 132, 59] {
        let mut frame = from("2001:db8::1", OWN, 9);
        frame[20] = next;
        assert!(!stand.drops(&frame), "next header {next}");
    }
    // A tag that is a mere priority is for the engine to take off.
    let mut tagged = from("198.18.0.2", OWN, 9);
    tagged.splice(12..12, [0x81, 0, 0, 0]);
    assert!(!stand.drops(&tagged));
    // Nobody has a socket there.
    drop(std::mem::take(&mut stand.opened.workers));
    assert!(soon(|| {
        let before = stand.opened.program.counters(A).expect("they are read").no_socket;
        stand.left.send(0, [&from("198.18.0.2", OWN, 9)[..]]);
        soon(|| stand.opened.program.counters(A).expect("they are read").no_socket > before)
    }));
}
