//! The management list: what is read, what is told, what is covered.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn entry(text: &str) -> Entry {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn list(texts: &[&str]) -> List {
    List::new(texts.iter().map(|text| entry(text))).expect("it is possible")
}

#[test]
fn entries_are_read_and_written() {
    for (given, written) in [
        ("198.51.100.0/24 tcp 22", "198.51.100.0/24 tcp 22"),
        ("198.51.100.7 TCP 443,22,23,24", "198.51.100.7/32 tcp 22-24,443"),
        ("  2001:db8::/48   udp  161-162 ", "2001:db8::/48 udp 161-162"),
        ("2001:db8::1 icmp", "2001:db8::1/128 icmp"),
        ("2001:db8::/32 icmpv6", "2001:db8::/32 icmp"),
        ("0.0.0.0/0 icmp", "0.0.0.0/0 icmp"),
        ("::/0 tcp 65535", "::/0 tcp 65535"),
    ] {
        assert_eq!(entry(given).to_string(), written);
        assert_eq!(entry(written), entry(given));
    }
}

#[test]
fn what_is_no_entry_is_refused_with_what_to_write() {
    for (given, part) in [
        ("", "write PREFIX PROTOCOL PORTS"),
        ("198.51.100.0/24", "write PREFIX PROTOCOL PORTS"),
        ("198.51.100.0/24 tcp 22 23", "write PREFIX PROTOCOL PORTS"),
        ("198.51.100/24 tcp 22", "no prefix"),
        ("198.51.100.0/33 tcp 22", "no prefix"),
        ("2001:db8::/129 tcp 22", "no prefix"),
        ("198.51.100.7/24 tcp 22", "write 198.51.100.0/24, or 198.51.100.7 for"),
        ("2001:db8::1/48 tcp 22", "write 2001:db8::/48"),
        ("127.0.0.1 tcp 22", "no packet comes from"),
        ("224.0.0.0/4 udp 22", "no packet comes from"),
        ("ff02::1 udp 22", "no packet comes from"),
        ("0.0.0.0 udp 22", "no packet comes from"),
        ("::ffff:198.51.100.1 udp 22", "no packet comes from"),
        ("198.51.100.0/24 sctp 22", "write tcp, udp or icmp"),
        ("198.51.100.0/24 icmpv6", "write tcp, udp or icmp"),
        ("198.51.100.0/24 tcp", "needs ports"),
        ("198.51.100.0/24 icmp 8", "leave out `8`"),
        ("198.51.100.0/24 tcp 0", "`0` is no port"),
        ("198.51.100.0/24 tcp 65536", "is no port"),
        ("198.51.100.0/24 tcp +22", "is no port"),
        ("198.51.100.0/24 tcp ssh", "is no port"),
        ("198.51.100.0/24 tcp 24-22", "`24-22` is no port"),
        ("198.51.100.0/24 tcp 22,", "`` is no port"),
        ("198.51.100.0/24 tcp 1-65", "at most 64"),
    ] {
        let error = given.parse::<Entry>().expect_err(given).to_string();
        assert!(error.contains(part), "{given}: {error}");
    }
}

#[test]
fn odd_lists_are_remarked_on() {
    let entries = ["10.0.0.0/8 tcp 22", "10.1.0.0/16 tcp 22", "10.0.0.0/8 tcp 22", "::/0 icmp"];
    let remarks = List::remarks(&entries.map(entry));
    assert_eq!(remarks.len(), 3, "{remarks:?}");
    assert!(
        matches!(&remarks[0], Remark::Covered { entry, .. } if *entry == self::entry(entries[1]))
    );
    assert!(matches!(&remarks[1], Remark::Duplicate(_)));
    assert!(matches!(&remarks[2], Remark::Anybody(_)));
    // Another family, service or protocol is another matter.
    let entries =
        ["0.0.0.0/1 tcp 22", "10.0.0.0/8 tcp 23", "10.0.0.0/8 udp 22", "2001:db8::/32 tcp 22"];
    assert_eq!(List::remarks(&entries.map(entry)), []);
    assert_eq!(list(&["10.0.0.0/8 tcp 22", "10.0.0.0/8 tcp 22"]).entries().len(), 1);
}

#[test]
fn a_list_has_its_limit() {
    let many = |count: u32| (0..count).map(|i| entry(&format!("10.0.0.{i} tcp 22")));
    assert!(List::new(many(64)).is_ok());
    assert_eq!(List::new(many(65)), Err(ListError::TooMany(65)));
}

/// What the BPF programs do with the maps: the longest prefix, then one common bit.
fn asked(compiled: &Compiled, remote: IpAddr, number: u8, port: u16) -> u64 {
    let longest = compiled.prefixes.iter().filter(|(prefix, _)| contains(**prefix, remote));
    let longest = longest.max_by_key(|((_, length), _)| *length).map_or(0, |(_, bits)| *bits);
    longest & compiled.services.get(&(number, port)).copied().unwrap_or(0)
}

fn number(protocol: Protocol, remote: IpAddr) -> u8 {
    match (protocol, remote.is_ipv4()) {
        (Protocol::Tcp, _) => proto::TCP,
        (Protocol::Udp, _) => proto::UDP,
        (Protocol::Icmp, true) => proto::ICMP,
        (Protocol::Icmp, false) => proto::ICMPV6,
    }
}

prop_compose! {
    /// From a small world, so that prefixes nest and services are shared.
    fn some_entry()(
        v6: bool,
        low in 0_u32..8,
        length in 27_u8..=32,
        protocol in prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)],
        ports in proptest::collection::btree_set(20_u16..26, 1..4),
    ) -> Entry {
        let (address, length): (IpAddr, u8) = match v6 {
            false => (Ipv4Addr::from_bits(0xc633_6400 | low).into(), length),
            true => (Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(low)).into(), length + 96),
        };
        let ports = if protocol == Protocol::Icmp { BTreeSet::new() } else { ports };
        Entry { network: network(address, length), length, protocol, ports }
    }
}

proptest! {
    #[test]
    fn the_maps_say_what_the_list_says(
        entries in proptest::collection::vec(some_entry(), 0..24),
        turn in 0_u8..64,
    ) {
        let list = List::new(entries).expect("it is short");
        let slots: Vec<u8> = (0..list.entries().len()).map(|i| (i as u8 + turn) % 64).collect();
        let compiled = list.compile(&slots);
        let remotes = (0_u32..40).flat_map(|low| -> [IpAddr; 2] {
            [
                Ipv4Addr::from_bits((0xc633_6400_u32 - 8).wrapping_add(low)).into(),
                Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) - 8 + u128::from(low)).into(),
            ]
        });
        for remote in remotes {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                for port in 19..27 {
                    let key = if protocol == Protocol::Icmp { 0 } else { port };
                    let found = asked(&compiled, remote, number(protocol, remote), key);
                    let naive: u64 = list
                        .entries()
                        .iter()
                        .zip(&slots)
                        .filter(|(entry, _)| entry.admits(remote, protocol, port))
                        .map(|(_, slot)| 1 << slot)
                        .sum();
                    prop_assert_eq!(found, naive, "{} {:?} {}", remote, protocol, port);
                    prop_assert_eq!(
                        list.matching(remote, protocol, port).is_some(), naive != 0
                    );
                }
            }
        }
    }

    #[test]
    fn written_entries_are_read_again(entry in some_entry()) {
        prop_assert_eq!(entry.to_string().parse::<Entry>().expect("it was written"), entry);
    }
}
