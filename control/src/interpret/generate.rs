//! Generated rules and packets for property tests: drawn from the same small
//! pools, so that near hits and near misses are common.

pub(crate) mod bytes;
mod cut;
mod place;
mod protocol;
mod tally;
mod targets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::conntrack::Direction;
use dataplane::packet::{Family, PktType};
use dataplane::policy::matches::*;
use dataplane::policy::report::{AuditKind, NflogTarget, ReportTarget};
use dataplane::policy::target::{
    ConnmarkTarget, LogTarget, MarkTarget, NatRange, NatTarget, RejectWith,
};
use dataplane::policy::{ChainPolicy, Match, TableId, state_class};
use dataplane::wire::build::{L4, Packet, Tcp};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::*;
pub(crate) use place::any_place;

pub(crate) const PORTS: [&str; 4] = ["eth0", "eth1", "eth10", "wan0"];

const HOSTS_V4: [u32; 7] =
    [0xc612_0101, 0xc612_0102, 0xc612_017f, 0xc612_0180, 0xc612_0201, 0xc633_6407, 0xcb00_7109];
const MASKS_V4: [u32; 7] =
    [u32::MAX, 0xffff_fffe, 0xffff_ff80, 0xffff_ff00, 0xffff_0000, 0xff00_ff00, 0];
const NET_V6: u128 = 0x2001_0db8_0001_0000_0000_0000_0000_0000;
const SERVICES: [u16; 9] = [0, 21, 22, 23, 80, 443, 1023, 1024, 65535];

pub(crate) fn host(family: Family) -> BoxedStrategy<u128> {
    match family {
        Family::V4 => select(&HOSTS_V4[..]).prop_map(u128::from).boxed(),
        Family::V6 => {
            let low = select(vec![1_u128, 2, 0x7f, 0x80, 1 << 64 | 1, 1 << 80]);
            low.prop_map(|low| NET_V6 | low).boxed()
        }
    }
}

fn mask(family: Family) -> BoxedStrategy<u128> {
    match family {
        Family::V4 => select(&MASKS_V4[..]).prop_map(u128::from).boxed(),
        Family::V6 => {
            select(vec![u128::MAX, !1, !0x7f, !0xffff, u128::MAX << 64, !0xff0, 0]).boxed()
        }
    }
}

fn neg<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Neg<T>> {
    (prop::bool::weighted(0.3), value).prop_map(|(negated, value)| Neg { negated, value })
}

fn address_mask(family: Family) -> impl Strategy<Value = AddressMask> {
    (host(family), mask(family))
        .prop_map(|(address, mask)| AddressMask { address: address & mask, mask })
}

fn service() -> impl Strategy<Value = u16> {
    select(&SERVICES[..])
}

fn ports() -> impl Strategy<Value = Range<u16>> {
    (service(), service(), any::<bool>()).prop_map(|(a, b, single)| match single {
        true => Range { low: a, high: a },
        false => Range { low: a.min(b), high: a.max(b) },
    })
}

fn interface() -> impl Strategy<Value = (Interface, bool)> {
    let names = vec![
        ("eth0", false),
        ("eth1", false),
        ("eth1", true),
        ("eth", true),
        ("", true),
        ("wan0", false),
        ("lo", false),
        ("ppp", true),
    ];
    (select(names), prop::bool::weighted(0.3)).prop_map(|((name, prefix), negated)| {
        (Interface { name: name.to_owned(), prefix }, negated)
    })
}

fn tcp_match() -> impl Strategy<Value = Match> {
    let flags =
        select(vec![(0x17, 0x02), (0x3f, 0), (0x03, 0x03), (0x04, 0x04), (0x10, 0x10), (0, 0)]);
    (
        weighted(0.3, neg(ports())),
        weighted(0.5, neg(ports())),
        weighted(0.3, neg(flags)),
        weighted(0.15, neg(select(vec![2_u8, 3, 8]))),
    )
        .prop_map(|(sport, dport, flags, option)| {
            Match::Tcp(TcpMatch { sport, dport, flags, option })
        })
}

fn multiport() -> impl Strategy<Value = Match> {
    let side =
        select(vec![MultiportSide::Source, MultiportSide::Destination, MultiportSide::Either]);
    (side, neg(vec(ports(), 1..4))).prop_map(|(side, Neg { negated, value })| {
        Match::Multiport(MultiportMatch { side, ports: Neg { negated, value: value.into() } })
    })
}

fn icmp_match(v6: bool) -> impl Strategy<Value = Match> {
    let kinds = match v6 {
        false => vec![(8, 0, 255), (0, 0, 255), (3, 0, 255), (3, 3, 3), (3, 4, 4), (255, 0, 255)],
        true => vec![(128, 0, 255), (129, 0, 255), (1, 0, 255), (1, 4, 4), (2, 0, 255)],
    };
    neg(select(kinds)).prop_map(move |Neg { negated, value: (kind, low, high) }| {
        Match::Icmp(IcmpMatch { v6, kind: Neg { negated, value: (kind, Range { low, high }) } })
    })
}

fn state_bits() -> impl Strategy<Value = u64> {
    select(vec![
        state_class::NEW,
        state_class::ESTABLISHED,
        state_class::ESTABLISHED | state_class::RELATED,
        state_class::INVALID,
        state_class::UNTRACKED | state_class::NEW,
        ctstate::DNAT,
        ctstate::SNAT | state_class::NEW,
        0x1f,
    ])
}

fn conntrack_match(family: Family) -> impl Strategy<Value = ConntrackMatch> {
    let state = weighted(0.7, neg(state_bits()));
    let rest = (
        weighted(0.1, neg(select(vec![6_u8, 17, 1]))),
        weighted(0.1, neg(address_mask(family))),
        weighted(0.1, neg(ports())),
        weighted(0.1, neg(select(vec![0_u32, ctstatus::SEEN_REPLY, ctstatus::CONFIRMED]))),
        weighted(0.1, neg((0_u32..40).prop_map(|low| Range { low, high: low + 100 }))),
        weighted(0.1, any::<bool>()),
    );
    (state, rest).prop_map(|(state, (proto, orig_src, orig_dport, status, expire_s, direction))| {
        ConntrackMatch {
            state,
            proto,
            orig_src,
            orig_dport,
            status,
            expire_s,
            direction_original: direction,
            ..ConntrackMatch::default()
        }
    })
}

fn mark() -> impl Strategy<Value = (u32, u32)> {
    let value = select(vec![0_u32, 1, 2, 3, 0x10]);
    (value, select(vec![u32::MAX, 3, 0x10])).prop_map(|(value, mask)| (value & mask, mask))
}

fn connbytes() -> impl Strategy<Value = ConnbytesMatch> {
    let range = (0..4_u64, prop_oneof![0..4_u64, Just(60), Just(u64::MAX)])
        .prop_map(|(low, more)| Range { low, high: low.saturating_add(more) });
    let direction = select(vec![None, Some(Direction::Original), Some(Direction::Reply)]);
    let unit = ConnbytesUnit::Packets;
    let unit = select(vec![unit, unit, ConnbytesUnit::Bytes, ConnbytesUnit::Average]);
    (neg(range), direction, unit).prop_map(|(range, direction, unit)| ConnbytesMatch {
        range,
        direction,
        unit,
    })
}

fn any_match(family: Family, raw: bool) -> BoxedStrategy<MatchBody> {
    let hops = select(vec![
        HopCompare::Equal(64),
        HopCompare::NotEqual(64),
        HopCompare::Less(64),
        HopCompare::Greater(63),
    ]);
    let kinds = select(vec![PktType::Host, PktType::Broadcast, PktType::Multicast]);
    let range =
        (host(family), host(family)).prop_map(|(a, b)| Range { low: a.min(b), high: a.max(b) });
    let ranges = (weighted(0.6, neg(range.clone())), weighted(0.6, neg(range)))
        .prop_map(|(src, dst)| Match::IpRange(IpRangeMatch { src, dst }));
    let length = (20_u16..60).prop_map(|low| Range { low, high: low + 30 });
    let tracked = match raw {
        true => Just(ConntrackMatch {
            state: Some(Neg::plain(state_class::INVALID)),
            ..Default::default()
        })
        .boxed(),
        false => conntrack_match(family).boxed(),
    };
    let plain = prop_oneof![
        3 => ranges,
        4 => tracked.prop_map(Match::Conntrack),
        2 => neg(mark()).prop_map(Match::Mark),
        1 => neg(mark()).prop_map(Match::Connmark),
        1 => neg(select(vec![[2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xac]])).prop_map(Match::MacSource),
        1 => neg(length).prop_map(Match::Length),
        1 => hops.prop_map(Match::Hops),
        1 => neg(select(vec![0_u8, 10])).prop_map(Match::Dscp),
        1 => neg(select(vec![(0, 0xff), (0x28, 0xfc), (0, 4)])).prop_map(Match::Tos),
        1 => neg(kinds).prop_map(Match::PktType),
        2 => connbytes().prop_map(Match::Connbytes),
        4 => bytes::payload(),
        2 => bytes::measure(),
        6 => protocol::free(family).prop_map(Match::Protocol),
        2 => (neg(0..4_u8), any::<bool>())
            .prop_map(|(label, set)| Match::Connlabel(ConnlabelMatch { label, set })),
        3 => any_place(family),
        1 => neg(select(vec!["", "ftp", "irc"]))
            .prop_map(|Neg { negated, value }| Match::Helper(Neg { negated, value: value.into() })),
    ];
    let limit = (select(vec![10_000_u32, 1_000, 600_000]), 1_u32..4)
        .prop_map(|(avg, burst)| MatchBody::Limit(LimitSpec { avg, burst }));
    prop_oneof![
        8 => plain.prop_map(MatchBody::Plain),
        2 => limit,
        2 => bytes::owned().prop_map(MatchBody::Measure),
        2 => tally::spec(family).prop_map(MatchBody::Tally),
        1 => Just(MatchBody::Comment("owner=test".into())),
    ]
    .boxed()
}

/// A protocol with the matches that need it, and whichever others, in any order.
fn proto_and_matches(
    family: Family,
    raw: bool,
) -> impl Strategy<Value = (Option<Neg<u8>>, Vec<MatchSpec>)> {
    let icmp = if family == Family::V6 { 58 } else { 1 };
    let udp = (weighted(0.3, neg(ports())), weighted(0.5, neg(ports())))
        .prop_map(|(sport, dport)| Match::Udp(UdpMatch { sport, dport }));
    let own = prop_oneof![
        3 => Just((None, vec![])),
        1 => neg(select(vec![6_u8, 17, 1, 58, 132, 47])).prop_map(|proto| (Some(proto), vec![])),
        4 => vec(prop_oneof![3 => tcp_match().boxed(), 1 => multiport().boxed()], 1..3)
            .prop_map(|list| (Some(Neg::plain(6)), list)),
        3 => vec(prop_oneof![3 => udp.boxed(), 1 => multiport().boxed()], 1..3)
            .prop_map(|list| (Some(Neg::plain(17)), list)),
        1 => multiport().prop_map(|one| (Some(Neg::plain(132)), vec![one])),
        4 => protocol::bound(family)
            .prop_map(|(proto, one)| (Some(Neg::plain(proto)), vec![Match::Protocol(one)])),
        2 => icmp_match(icmp == 58).prop_map(move |one| (Some(Neg::plain(icmp)), vec![one])),
    ];
    (own, vec(any_match(family, raw), 0..3), any::<u64>()).prop_map(
        |((proto, own), others, order)| {
            let mut bodies: Vec<MatchBody> = own.into_iter().map(MatchBody::Plain).collect();
            for (at, other) in others.into_iter().enumerate() {
                let place = (order >> (8 * at)) as usize % (bodies.len() + 1);
                bodies.insert(place, other);
            }
            let span = Span::default();
            (proto, bodies.into_iter().map(|body| MatchSpec { body, span }).collect())
        },
    )
}

fn target(table: TableId, family: Family, callees: Vec<String>) -> BoxedStrategy<TargetSpec> {
    let log = LogTarget {
        level: 4,
        prefix: "x ".into(),
        tcp_sequence: false,
        tcp_options: false,
        ip_options: false,
        uid: false,
        mac_decode: false,
    };
    let mut choices = vec![
        (3, Just(TargetSpec::None).boxed()),
        (3, Just(TargetSpec::Accept).boxed()),
        (2, Just(TargetSpec::Drop).boxed()),
        (3, Just(TargetSpec::Return).boxed()),
        (1, Just(TargetSpec::Log(log)).boxed()),
        (1, Just(TargetSpec::Report(ReportTarget::Nflog(NflogTarget::default()))).boxed()),
        (1, Just(TargetSpec::Report(ReportTarget::Audit(AuditKind::Drop))).boxed()),
    ];
    if table == TableId::Raw {
        choices.push((1, Just(TargetSpec::Report(ReportTarget::Trace)).boxed()));
    }
    if !callees.is_empty() {
        choices.push((5, select(callees.clone()).prop_map(TargetSpec::Jump).boxed()));
        choices.push((2, select(callees).prop_map(TargetSpec::Goto).boxed()));
    }
    match table {
        TableId::Filter => {
            let with = match family {
                Family::V4 => RejectWith::Icmp(3),
                Family::V6 => RejectWith::Icmp6(4),
            };
            choices.push((1, Just(TargetSpec::Reject(with)).boxed()));
        }
        TableId::Nat => {
            let address = |bits: u128| Range { low: bits, high: bits + 1 };
            let range = NatRange { addresses: Some(address(9)), ..NatRange::default() };
            let ports = NatRange { ports: Some(Range { low: 1, high: 9 }), ..range };
            let nat = select(vec![
                NatTarget::Snat(range),
                NatTarget::Snat(ports),
                NatTarget::Dnat(range),
                NatTarget::Dnat(NatRange { random: true, ..ports }),
                NatTarget::Masquerade(NatRange::default()),
                NatTarget::Redirect(NatRange::default()),
                NatTarget::Netmap(AddressMask { address: 256, mask: 0xffff_ff00 }),
            ]);
            choices.push((6, nat.prop_map(TargetSpec::Nat).boxed()));
        }
        TableId::Mangle | TableId::Raw => {
            if table == TableId::Mangle {
                choices.push((3, targets::header(family).prop_map(TargetSpec::Header).boxed()));
            }
            if table == TableId::Raw {
                choices.push((6, targets::ct().prop_map(TargetSpec::Ct).boxed()));
            }
            let marks = select(vec![1_u32, 2, 0x10]);
            let toggle =
                marks.prop_map(|bit| TargetSpec::Mark(MarkTarget { clear: bit, toggle: bit }));
            choices.push((3, toggle.boxed()));
            choices.push((3, targets::hmark(family).prop_map(TargetSpec::Meta).boxed()));
            let connmark = select(vec![
                ConnmarkTarget::Set { clear: 3, toggle: 1 },
                ConnmarkTarget::Save { nfmask: u32::MAX, ctmask: u32::MAX },
                ConnmarkTarget::Restore { nfmask: 3, ctmask: u32::MAX },
            ]);
            choices.push((1, connmark.prop_map(TargetSpec::Connmark).boxed()));
        }
        _ => {}
    }
    proptest::strategy::Union::new_weighted(choices).boxed()
}

pub(crate) fn rule(
    table: TableId,
    family: Family,
    callees: Vec<String>,
) -> impl Strategy<Value = Rule> {
    let fragment = match family {
        Family::V4 => weighted(0.05, any::<bool>()).boxed(),
        Family::V6 => Just(None).boxed(),
    };
    (
        (weighted(0.3, neg(address_mask(family))), weighted(0.3, neg(address_mask(family)))),
        (weighted(0.2, interface()), weighted(0.2, interface())),
        proto_and_matches(family, table == TableId::Raw),
        fragment,
        target(table, family, callees),
    )
        .prop_map(|((src, dst), (input, output), (proto, matches), fragment, target)| Rule {
            counters: None,
            src,
            dst,
            input,
            output,
            proto,
            fragment,
            matches,
            target,
            target_span: Span::default(),
            span: Span::default(),
        })
}

/// A table with one built-in chain and user chains that call only later ones.
pub(crate) fn table(
    id: TableId,
    family: Family,
    entry: &'static str,
) -> impl Strategy<Value = Table> {
    const USER: [&str; 4] = ["one", "two", "three", "four"];
    let chain = move |name: &'static str, later: &'static [&'static str], policy: bool, rules| {
        let callees: Vec<String> = later.iter().map(|&name| name.to_owned()).collect();
        (vec(rule(id, family, callees), rules), any::<bool>()).prop_map(move |(rules, drop)| {
            Chain {
                name: name.to_owned(),
                policy: policy.then(|| {
                    let policy = if drop { ChainPolicy::Drop } else { ChainPolicy::Accept };
                    (policy, Counters::default())
                }),
                rules,
                span: Span::default(),
            }
        })
    };
    (
        chain(entry, &USER, true, 1..30),
        chain(USER[0], &USER[1..], false, 0..8),
        chain(USER[1], &USER[2..], false, 0..30),
        chain(USER[2], &USER[3..], false, 0..4),
        chain(USER[3], &[], false, 0..4),
    )
        .prop_map(move |(a, b, c, d, e)| Table { id, chains: vec![a, b, c, d, e] })
}

/// One table of a random kind, walked at FORWARD.
pub(crate) fn ruleset(family: Family) -> impl Strategy<Value = Ruleset> {
    prop_oneof![
        4 => table(TableId::Filter, family, "FORWARD").boxed(),
        2 => table(TableId::Mangle, family, "FORWARD").boxed(),
        1 => table(TableId::Nat, family, "FORWARD").boxed(),
        1 => table(TableId::Raw, family, "FORWARD").boxed(),
    ]
    .prop_flat_map(bytes::rate)
    .prop_map(move |table| Ruleset { family, tables: vec![table] })
}

fn ip(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}

fn layer4(family: Family) -> impl Strategy<Value = L4> {
    let flags = select(vec![0x02_u8, 0x12, 0x10, 0x11, 0x04, 0, 0x29, 0xc2]);
    let options =
        select(vec![vec![], vec![2, 4, 5, 180], vec![1, 3, 3, 7], vec![8, 0], vec![5, 200]]);
    let offset = weighted(0.1, select(vec![4_u8, 5, 15]));
    let tcp = (service(), service(), flags, options, offset).prop_map(
        |(sport, dport, flags, options, offset)| {
            L4::Tcp(Tcp { options, offset, ..Tcp::new(sport, dport, flags) })
        },
    );
    let lite = prop::bool::weighted(0.1);
    let udp = (service(), service(), lite).prop_map(|(sport, dport, lite)| L4::Udp {
        sport,
        dport,
        length: None,
        lite,
    });
    let kinds = match family {
        Family::V4 => vec![(8, 0), (0, 0), (3, 3), (3, 4), (11, 0), (255, 0)],
        Family::V6 => vec![(128, 0), (129, 0), (1, 4), (2, 0), (255, 0)],
    };
    let icmp = select(kinds).prop_map(|(kind, code)| L4::Icmp { kind, code, word: 7 });
    let sctp = (service(), service()).prop_map(|(sport, dport)| L4::Sctp { sport, dport, tag: 9 });
    prop_oneof![4 => tcp, 3 => udp, 2 => icmp, 1 => sctp, 1 => select(vec![47_u8, 50, 33]).prop_map(L4::Raw)]
}

/// A frame of the family: mostly whole, sometimes a fragment or cut short.
pub(crate) fn frame(family: Family) -> impl Strategy<Value = Vec<u8>> {
    let fragment = weighted(
        0.15,
        select(vec![(0_u16, true), (0, true), (8, true), (8, false), (16, false), (1480, true)]),
    );
    let extensions = match family {
        Family::V4 => Just(vec![]).boxed(),
        Family::V6 => vec(protocol::header(), 0..3).boxed(),
    };
    let other = weighted(0.3, protocol::transport());
    (
        (host(family), host(family), layer4(family)),
        (select(vec![63_u8, 64, 65]), select(vec![0_u8, 0x28, 4])),
        (0_usize..30, weighted(0.15, 0_usize..64), fragment, extensions, other),
    )
        .prop_map(
            move |((src, dst, l4), (ttl, tos), (payload, cut, fragment, extensions, other))| {
                let mut packet = Packet::between(ip(family, src), ip(family, dst), l4)
                    .ttl(ttl)
                    .tos(tos)
                    .payload_len(payload);
                if let Some((proto, bytes)) = other {
                    packet.l4 = L4::Raw(proto);
                    packet = packet.payload(&bytes);
                }
                for (kind, header) in extensions {
                    packet = packet.extension(kind, &header);
                }
                if let Some((offset, more)) = fragment {
                    packet = packet.fragment(offset, 24, more);
                }
                cut::shorten(packet.build(), family, cut)
            },
        )
}
