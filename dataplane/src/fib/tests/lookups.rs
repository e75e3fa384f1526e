//! Indexed lookups against plain ones: a binary search over all intervals, the rules
//! one by one, sorted lists.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::lpm::{Intervals, Lpm, Span};
use super::super::neighbours::Neighbours;
use super::super::own::Own;
use super::super::{Mode, NeighbourEntry, Realms, RouteEntry, RouteKind, RuleEntry, Topology};
use super::*;

/// The longest prefix by a scan.
fn scan(prefixes: &[(Span, u32)], address: u128) -> Option<u32> {
    let covers = |(span, _): &&(Span, u32)| span.first <= address && address <= span.last;
    let narrowest = prefixes.iter().filter(covers).min_by_key(|(span, _)| span.last - span.first);
    narrowest.map(|&(_, value)| value)
}

/// Prefixes of a family of so many bits, some crowded at its ends, all different.
fn prefixes(bits: u32) -> impl Strategy<Value = Vec<(Span, u32)>> {
    let all = u128::MAX >> (128 - bits);
    let address = prop_oneof![0..64_u128, (all - 63)..=all, 0..=all];
    vec((address, 0..=bits), 0..60).prop_map(move |list| {
        let mut spans: Vec<(Span, u32)> = Vec::new();
        for (address, len) in list {
            let host = all.checked_shr(len).unwrap_or(0);
            let span = Span { first: address & !host, last: address | host };
            if !spans.iter().any(|&(other, _)| other == span) {
                spans.push((span, spans.len() as u32));
            }
        }
        spans
    })
}

/// Where something may change: both sides of every boundary, and anywhere.
fn probes(prefixes: &[(Span, u32)], anywhere: &[u128], bits: u32) -> Vec<u128> {
    let all = u128::MAX >> (128 - bits);
    let sides = |(span, _): &(Span, u32)| {
        [span.first, span.last, span.first.wrapping_sub(1), span.last.wrapping_add(1)]
    };
    let ends = prefixes.iter().flat_map(sides).chain(anywhere.iter().copied());
    ends.chain([0, all]).map(|address| address & all).collect()
}

proptest! {
    #[test]
    fn indexed_prefixes_equal_a_scan(
        v4 in prefixes(32), v6 in prefixes(128), anywhere in vec(any::<u128>(), 64),
    ) {
        let (narrow, wide) = (Lpm::<u32>::build(v4.clone()), Lpm::<u128>::build(v6.clone()));
        for address in probes(&v4, &anywhere, 32) {
            prop_assert_eq!(narrow.get(address as u32), scan(&v4, address), "{:x}", address);
        }
        for address in probes(&v6, &anywhere, 128) {
            prop_assert_eq!(wide.get(address), scan(&v6, address), "{:x}", address);
        }
    }

    #[test]
    fn overlaid_tables_equal_tables_by_turns(
        tables in vec(prefixes(32), 1..4), odd in any::<bool>(), anywhere in vec(any::<u128>(), 32),
    ) {
        let counts = |value: u32| !odd || !value.is_multiple_of(3);
        let flat: Vec<_> = tables.iter().map(|table| Intervals::of(table.clone())).collect();
        let together = Intervals::overlaid(&flat.iter().collect::<Vec<_>>(), counts);
        let together = Lpm::<u32>::index(&together);
        for address in tables.iter().flat_map(|table| probes(table, &anywhere, 32)) {
            let slow = tables.iter().find_map(|table| scan(table, address).filter(|&v| counts(v)));
            prop_assert_eq!(together.get(address as u32), slow, "{:x}", address);
        }
    }

    #[test]
    fn own_addresses_equal_a_list(
        own in vec((any::<bool>(), 0..2000_u128), 0..40), probes in vec(0..2000_u128, 200),
    ) {
        let family = |v6| if v6 { Family::V6 } else { Family::V4 };
        let own: Vec<_> = own.into_iter().map(|(v6, address)| (family(v6), address)).collect();
        let set = Own::new(own.iter().copied());
        for address in probes.into_iter().chain(own.iter().map(|&(_, address)| address)) {
            for family in [Family::V4, Family::V6] {
                let listed = own.contains(&(family, address));
                prop_assert_eq!(set.has(family, address), listed);
                prop_assert_eq!(set.holds(family, address), listed);
            }
        }
    }

    /// Few addresses, so that keys repeat; many, so that buckets are long.
    #[test]
    fn neighbours_equal_a_list(
        entries in vec((0..3_u8, any::<bool>(), 0..40_u32, any::<u8>()), 0..200),
    ) {
        let entry = |(port, v6, address, mac): (u8, bool, u32, u8)| NeighbourEntry {
            port: PortId(port),
            address: match v6 {
                true => Ipv6Addr::from_bits(address.into()).into(),
                false => Ipv4Addr::from_bits(address).into(),
            },
            mac: Mac([mac; 6]),
        };
        let entries: Vec<_> = entries.into_iter().map(entry).collect();
        let keyed = entries.iter().map(|entry| (Neighbours::key(entry), entry.mac));
        let keyed: Vec<_> = keyed.collect();
        let table = Neighbours::new(keyed.clone());
        for port in (0..4).map(PortId) {
            for family in [Family::V4, Family::V6] {
                for address in 0..42 {
                    let key = (port, family, address);
                    let first = keyed.iter().find(|&&(other, _)| other == key);
                    let first = first.map(|&(_, mac)| mac);
                    prop_assert_eq!(table.get(port, family, address), first);
                }
            }
        }
    }

    /// Without rules of one's own, one table stands for all that the rules ask.
    #[test]
    fn one_table_equals_the_rules(
        routes in vec((0..1_u32 << 12, 20..=32_u8, 0..5_u8, 0..3_u8), 0..60),
        realms in any::<bool>(),
        probes in vec(0..1_u32 << 12, 100),
    ) {
        let entry = |(address, len, kind, table): (u32, u8, u8, u8)| RouteEntry {
            to: (Ipv4Addr::from_bits(10 << 24 | address << 4).into(), len),
            via: None,
            kind: match kind {
                0 => RouteKind::Throw,
                1 => RouteKind::Local,
                2 => RouteKind::Blackhole,
                _ => RouteKind::Unicast(ETH0),
            },
            table: [255, 254, 253][usize::from(table)],
            metric: u32::from(kind),
            mtu: None,
            prefsrc: None,
            devices: 0,
            anycast: false,
            realms: Realms::default(),
        };
        let mut topology = Topology { mode: Mode::Routed, rules: Vec::new(), ..super::topology() };
        topology.routes = routes.into_iter().map(entry).collect();
        if realms {
            let tables = [(0, 255), (32766, 254), (32767, 253)];
            topology.rules = tables.map(|(priority, table)| RuleEntry {
                family: Family::V4,
                priority,
                fwmark: None,
                from: None,
                to: None,
                iif: None,
                table,
                realms: Realms(table),
            }).into();
        }
        let network = Network::build(&topology).unwrap();
        for probe in probes {
            let query = Query {
                family: Family::V4,
                src: 1,
                dst: u128::from(10 << 24 | probe << 4 | 3),
                iif: Some(ETH1),
                mark: 0,
            };
            let slow = network.v4.find_by_rules(&query).map(|found| found.route());
            prop_assert_eq!(network.route(&query), slow);
        }
    }
}
