//! Generated rules: what is printed parses back to the same rule, and nothing panics.

mod protocol;

use dataplane::packet::{Family, PktType};
use dataplane::policy::matches::{
    AddressMask, ConnbytesMatch, ConnlabelMatch, ConntrackMatch, HopCompare, IcmpMatch,
    IpRangeMatch, Match, MultiportMatch, MultiportSide, Neg, Range, TcpMatch, UdpMatch,
};
use dataplane::policy::place::PlaceMatch;
use dataplane::policy::report::{AuditKind, NflogTarget, ReportTarget};
use dataplane::policy::target::{
    ConnmarkTarget, CtTarget, HelperKind, LogTarget, MarkTarget, NatRange, NatTarget,
    SynproxyTarget, ZoneId, ZoneScope,
};
use proptest::option;
use proptest::prelude::*;

use super::targets;
use super::{file, load};
use crate::interpret::generate::bytes;
use crate::iptables::address::{full_mask, prefix_mask};
use crate::iptables::targets::{REJECT_V4, REJECT_V6};
use crate::iptables::{TableNames, parse_bytes, print};
use crate::model::{Interface, LimitSpec, MatchBody, MatchSpec, Rule, Span, TargetSpec};

fn neg<T: std::fmt::Debug + Clone>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Neg<T>> {
    (any::<bool>(), value).prop_map(|(negated, value)| Neg { negated, value })
}

/// Masks of every length, dotted ones with holes, addresses near their edges.
fn address(family: Family) -> impl Strategy<Value = AddressMask> {
    let full = full_mask(family);
    let width = full.count_ones();
    let prefix = (0..=width).prop_map(move |len| prefix_mask(family, len));
    let mask = prop_oneof![8 => prefix, 1 => any::<u128>().prop_map(move |mask| mask & full)];
    (any::<u128>(), mask).prop_map(|(address, mask)| AddressMask { address: address & mask, mask })
}

fn range() -> impl Strategy<Value = Range<u16>> {
    prop_oneof![
        any::<u16>().prop_map(|port| Range { low: port, high: port }),
        (any::<u16>(), any::<u16>())
            .prop_map(|(a, b)| Range { low: a.min(b), high: a.max(b) })
            .prop_filter("compares nothing", |range| range.low != 0 || range.high != u16::MAX),
        Just(Range { low: 0, high: 65_534 }),
        Just(Range { low: 1, high: 65_535 }),
    ]
}

/// A protocol with the match that it makes possible.
fn protocol(family: Family) -> BoxedStrategy<(Option<Neg<u8>>, Vec<MatchBody>)> {
    let ports = || option::of(neg(range()));
    let flags = neg((0..64_u8, 0..64_u8))
        .prop_filter("compares nothing", |flags| flags.negated || flags.value != (0, 0));
    let tcp = (ports(), ports(), option::of(flags), option::of(neg(1..=255_u8)));
    let tcp = tcp.prop_map(|(sport, dport, flags, option)| {
        Match::Tcp(TcpMatch { sport, dport, flags, option })
    });
    let udp = (ports(), ports()).prop_map(|(sport, dport)| Match::Udp(UdpMatch { sport, dport }));
    let v6 = family == Family::V6;
    let codes = prop_oneof![
        Just(Range { low: 0, high: 255 }),
        any::<u8>().prop_map(|code| Range { low: code, high: code })
    ];
    let icmp = neg((0..255_u8, codes)).prop_map(move |kind| Match::Icmp(IcmpMatch { v6, kind }));
    let side = prop_oneof![
        Just(MultiportSide::Source),
        Just(MultiportSide::Destination),
        Just(MultiportSide::Either)
    ];
    let list = proptest::collection::vec(range(), 1..=7).prop_map(Vec::into_boxed_slice);
    let multiport = (side, neg_box(list))
        .prop_map(|(side, ports)| Match::Multiport(MultiportMatch { side, ports }));
    let with = |number: u8, body: Match| (Some(Neg::plain(number)), vec![MatchBody::Plain(body)]);
    prop_oneof![
        option::of(neg(1..=255_u8)).prop_map(|proto| (proto, Vec::new())),
        tcp.prop_map(move |body| with(6, body)),
        udp.prop_map(move |body| with(17, body)),
        icmp.prop_map(move |body| with(if v6 { 58 } else { 1 }, body)),
        multiport.prop_map(move |body| with(132, body)),
        protocol::bound(family).prop_map(move |(proto, body)| with(proto, body)),
    ]
    .boxed()
}

fn neg_box<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Neg<T>> {
    (any::<bool>(), value).prop_map(|(negated, value)| Neg { negated, value })
}

fn conntrack(family: Family) -> impl Strategy<Value = Match> {
    let ports = || option::of(neg(range()));
    let address = || option::of(neg(address(family)));
    let states = crate::iptables::matches::STATE_NAMES;
    let state = neg(proptest::sample::subsequence(states, 1..=states.len()))
        .prop_map(|set| Neg { negated: set.negated, value: set.value.iter().map(|s| s.1).sum() });
    let expire = (any::<u32>(), any::<u32>()).prop_map(|(low, high)| Range { low, high });
    (
        (state, option::of(neg(any::<u8>())), address(), address(), address(), address()),
        (ports(), ports(), ports(), ports()),
        (option::of(neg(0..16_u32)), option::of(neg(expire)), option::of(any::<bool>())),
    )
        .prop_map(|(a, b, c)| {
            Match::Conntrack(ConntrackMatch {
                state: Some(a.0),
                proto: a.1,
                orig_src: a.2,
                orig_dst: a.3,
                repl_src: a.4,
                repl_dst: a.5,
                orig_sport: b.0,
                orig_dport: b.1,
                repl_sport: b.2,
                repl_dport: b.3,
                status: c.0,
                expire_s: c.1,
                direction_original: c.2,
            })
        })
}

/// Text that needs every kind of quoting.
fn text(max: usize) -> impl Strategy<Value = String> {
    let max = max.to_string();
    proptest::string::string_regex(&format!("[ -~é]{{1,{max}}}")).expect("the pattern is valid")
}

fn of_connections() -> impl Strategy<Value = Match> {
    let numbers =
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| Range { low: a.min(b), high: a.max(b) });
    let numbers = prop_oneof![numbers, (0..9_u64).prop_map(|low| Range { low, high: u64::MAX })];
    let range = neg(numbers).prop_filter("has no inverse", |range| {
        !range.negated || range.value.low != range.value.high
    });
    let directions = crate::iptables::matches::CONNBYTES_DIRECTIONS.map(|(_, way)| way).to_vec();
    let units = crate::iptables::matches::CONNBYTES_UNITS.map(|(_, unit)| unit).to_vec();
    let (direction, unit) = (proptest::sample::select(directions), proptest::sample::select(units));
    let connbytes = (range, direction, unit).prop_map(|(range, direction, unit)| {
        Match::Connbytes(ConnbytesMatch { range, direction, unit })
    });
    let connlabel = (neg(0..128_u8), any::<bool>())
        .prop_map(|(label, set)| Match::Connlabel(ConnlabelMatch { label, set }));
    let helper = neg("[a-z.\"-]{0,29}")
        .prop_map(|Neg { negated, value }| Match::Helper(Neg { negated, value: value.into() }));
    prop_oneof![connbytes, connlabel, helper]
}

fn free_match(family: Family) -> BoxedStrategy<MatchBody> {
    let full = full_mask(family);
    let range128 = move || {
        option::of(neg((any::<u128>(), any::<u128>())
            .prop_map(move |(low, high)| Range { low: low & full, high: high & full })))
    };
    let iprange = (range128(), range128())
        .prop_filter("needs one", |(src, dst)| src.is_some() || dst.is_some())
        .prop_map(|(src, dst)| Match::IpRange(IpRangeMatch { src, dst }));
    let hops = prop_oneof![
        any::<u8>().prop_map(HopCompare::Equal),
        any::<u8>().prop_map(HopCompare::NotEqual),
        any::<u8>().prop_map(HopCompare::Less),
        any::<u8>().prop_map(HopCompare::Greater),
    ];
    let kind = proptest::sample::select(vec![
        PktType::Host,
        PktType::Broadcast,
        PktType::Multicast,
        PktType::OtherHost,
    ]);
    let plain = prop_oneof![
        iprange,
        conntrack(family),
        neg(any::<(u32, u32)>()).prop_map(Match::Mark),
        neg(any::<(u32, u32)>()).prop_map(Match::Connmark),
        neg(any::<[u8; 6]>()).prop_map(Match::MacSource),
        neg((any::<u16>(), any::<u16>()).prop_map(|(low, high)| Range { low, high }))
            .prop_map(Match::Length),
        hops.prop_map(Match::Hops),
        neg(0..64_u8).prop_map(Match::Dscp),
        neg(any::<(u8, u8)>()).prop_map(Match::Tos),
        neg(kind).prop_map(Match::PktType),
        of_connections(),
        bytes::payload(),
        bytes::measure(),
        crate::interpret::generate::any_place(family).prop_filter(
            "other tables only",
            |one| !matches!(one, Match::Place(PlaceMatch::RpFilter(_) | PlaceMatch::Owner(_)))
        ),
        protocol::free(family),
    ];
    let state = neg(1..32_u64).prop_map(|state| {
        MatchBody::State(Match::Conntrack(ConntrackMatch {
            state: Some(state),
            ..ConntrackMatch::default()
        }))
    });
    // Rates that the printed form says exactly; others round as the tools do.
    let limit =
        (proptest::sample::select(vec![1_u32, 2, 5, 10, 50, 100, 1_000, 10_000]), 1..=10_000_u32)
            .prop_map(|(rate, burst)| MatchBody::Limit(LimitSpec { avg: 10_000 / rate, burst }));
    prop_oneof![
        8 => plain.prop_map(MatchBody::Plain),
        1 => state,
        1 => text(120).prop_map(MatchBody::Comment),
        1 => limit,
        1 => bytes::owned().prop_map(MatchBody::Measure),
        1 => bytes::rated().prop_map(MatchBody::Measure),
        1 => super::tally::spec(family).prop_map(MatchBody::Tally),
    ]
    .boxed()
}

fn target(family: Family) -> BoxedStrategy<TargetSpec> {
    let names = if family == Family::V4 { REJECT_V4 } else { REJECT_V6 };
    let rejects: Vec<_> = names
        .iter()
        .map(|name| name.2)
        .filter(|with| names[0].2 == *with || !is_reset(*with))
        .collect();
    let log =
        (0..8_u8, option::of(text(29)), any::<[bool; 5]>()).prop_map(|(level, prefix, set)| {
            let mut prefix = prefix.unwrap_or_default();
            prefix.truncate(prefix.floor_char_boundary(29));
            TargetSpec::Log(LogTarget {
                level,
                prefix: prefix.into(),
                tcp_sequence: set[0],
                tcp_options: set[1],
                ip_options: set[2],
                uid: set[3],
                mac_decode: set[4],
            })
        });
    let connmark = (any::<u32>(), any::<u32>(), 0..3_u8).prop_map(|(a, b, kind)| match kind {
        0 => ConnmarkTarget::Set { clear: a, toggle: b },
        1 => ConnmarkTarget::Save { nfmask: a, ctmask: b },
        _ => ConnmarkTarget::Restore { nfmask: a, ctmask: b },
    });
    let nflog =
        (any::<u16>(), option::of(text(63)), option::of(any::<u32>()), any::<u32>(), any::<u16>())
            .prop_map(|(group, prefix, size, range, threshold)| {
                let mut prefix = prefix.unwrap_or_default();
                prefix.truncate(prefix.floor_char_boundary(63));
                let range = if size.is_some() { 0 } else { range };
                let prefix = prefix.into();
                ReportTarget::Nflog(NflogTarget { group, prefix, size, range, threshold })
            });
    let audit = proptest::sample::select(&AuditKind::ALL[..]).prop_map(ReportTarget::Audit);
    prop_oneof![
        prop_oneof![nflog, audit].prop_map(TargetSpec::Report),
        Just(TargetSpec::None),
        Just(TargetSpec::Accept),
        Just(TargetSpec::Drop),
        Just(TargetSpec::Return),
        Just(TargetSpec::Jump("U".to_string())),
        Just(TargetSpec::Goto("U".to_string())),
        proptest::sample::select(rejects).prop_map(TargetSpec::Reject),
        log,
        Just(TargetSpec::Meta(bytes::rateest())),
        any::<(u32, u32)>()
            .prop_map(|(clear, toggle)| TargetSpec::Mark(MarkTarget { clear, toggle })),
        connmark.prop_map(TargetSpec::Connmark),
    ]
    .boxed()
}

fn nat_range(family: Family) -> impl Strategy<Value = NatRange> {
    let full = full_mask(family);
    let addresses = (any::<u128>(), any::<u128>(), any::<bool>()).prop_map(move |(a, b, one)| {
        let (a, b) = (a & full, if one { a & full } else { b & full });
        Range { low: a.min(b), high: a.max(b) }
    });
    let flags = any::<[bool; 3]>();
    (option::of(addresses), option::of(range()), flags).prop_map(|(addresses, ports, flags)| {
        let [random, random_fully, persistent] = flags;
        NatRange { addresses, ports, random, random_fully, persistent, base_port: None }
    })
}

/// Targets of the nat table, with the protocol that ports need.
fn nat(family: Family) -> impl Strategy<Value = TargetSpec> {
    let prefix = (0..=full_mask(family).count_ones()).prop_map(move |len| prefix_mask(family, len));
    let network = (any::<u128>(), prefix)
        .prop_map(|(address, mask)| AddressMask { address: address & mask, mask });
    let some = |range: &NatRange| range.addresses.is_some() || range.ports.is_some();
    let snat = nat_range(family).prop_filter("says nothing", some).prop_map(NatTarget::Snat);
    let dnat = (nat_range(family), option::of(1..=u16::MAX))
        .prop_filter("says nothing", move |(range, _)| some(range))
        .prop_map(|(range, base)| {
            let shifts = range.ports.is_some_and(|ports| ports.low != ports.high);
            let base_port = base.filter(|_| shifts);
            NatTarget::Dnat(NatRange { base_port, random_fully: false, ..range })
        });
    let ports = nat_range(family)
        .prop_map(|range| NatRange { addresses: None, persistent: false, ..range })
        .boxed();
    let redirect = ports.clone().prop_map(|range| NatRange { random_fully: false, ..range });
    prop_oneof![
        snat,
        dnat,
        ports.prop_map(NatTarget::Masquerade),
        redirect.prop_map(NatTarget::Redirect),
        network.prop_map(NatTarget::Netmap),
    ]
    .prop_map(TargetSpec::Nat)
}

/// Targets of the raw table; a helper for TCP.
fn raw() -> impl Strategy<Value = TargetSpec> {
    let id = prop_oneof![(1..=u16::MAX).prop_map(ZoneId::Fixed), Just(ZoneId::Mark)];
    let scopes = vec![ZoneScope::Both, ZoneScope::Original, ZoneScope::Reply];
    let zone = option::of((proptest::sample::select(scopes), id));
    let helpers = vec![HelperKind::Ftp, HelperKind::Sip, HelperKind::Q931];
    let helper = option::of(proptest::sample::select(helpers));
    let events = (option::of(1..1024_u32), option::of(Just(1_u32)));
    let ct = (any::<bool>(), zone, helper, events).prop_map(|(notrack, zone, helper, events)| {
        let helper = helper.filter(|_| !notrack);
        let (events, expect_events) = events;
        CtTarget { notrack, zone, helper, events, expect_events, ..CtTarget::default() }
    });
    let alias = CtTarget { alias: true, notrack: true, ..CtTarget::default() };
    prop_oneof![8 => ct, 1 => Just(alias)].prop_map(TargetSpec::Ct)
}

fn synproxy() -> impl Strategy<Value = TargetSpec> {
    (option::of(any::<u16>()), option::of(any::<u8>()), any::<[bool; 3]>()).prop_map(
        |(mss, wscale, [sack_perm, timestamp, ecn])| {
            TargetSpec::Synproxy(SynproxyTarget { mss, wscale, sack_perm, timestamp, ecn })
        },
    )
}

/// A target that belongs to one table.
fn of_table(family: Family) -> impl Strategy<Value = (&'static str, TargetSpec)> {
    prop_oneof![
        4 => nat(family).prop_map(|target| ("nat", target)),
        2 => raw().prop_map(|target| ("raw", target)),
        1 => synproxy().prop_map(|target| ("mangle", target)),
        2 => targets::mangle(family).prop_map(|target| ("mangle", target)),
        2 => targets::meta(family).prop_map(|target| ("filter", target)),
    ]
}

fn is_reset(with: dataplane::policy::RejectWith) -> bool {
    with == dataplane::policy::RejectWith::TcpReset
}

fn interface() -> impl Strategy<Value = Option<(Interface, bool)>> {
    let name =
        ("[a-z0-9.@_-]{1,14}", any::<bool>()).prop_map(|(name, prefix)| Interface { name, prefix });
    option::of((name, any::<bool>()))
}

fn rule(family: Family) -> impl Strategy<Value = Rule> {
    let base = (option::of(neg(address(family))), option::of(neg(address(family))));
    let fragment =
        if family == Family::V4 { option::of(any::<bool>()).boxed() } else { Just(None).boxed() };
    let matches = proptest::collection::vec(free_match(family), 0..4);
    (base, interface(), interface(), protocol(family), fragment, matches, target(family)).prop_map(
        |((src, dst), input, output, (proto, mut first), fragment, matches, target)| {
            first.extend(matches);
            let span = Span::default();
            let says = |one: &Neg<AddressMask>| one.negated || one.value.mask != 0;
            Rule {
                counters: None,
                src: src.filter(says),
                dst: dst.filter(says),
                input,
                output,
                proto,
                fragment,
                matches: first.into_iter().map(|body| MatchSpec { body, span }).collect(),
                target,
                target_span: span,
                span,
            }
        },
    )
}

/// The rule without its places, as text that two equal rules share.
fn plain(rule: &Rule) -> String {
    let span = Span::default();
    let mut rule = Rule { span, target_span: span, ..rule.clone() };
    rule.matches.iter_mut().for_each(|spec| spec.span = span);
    format!("{rule:?}")
}

fn round_trip(family: Family, table: &str, rule: &Rule) -> Result<(), TestCaseError> {
    let names = TableNames::well_known();
    let text = print::rule_text(rule, family, &names);
    let file = format!("*{table}\n:U - [0:0]\n:V - [0:0]\n-A V{text}\nCOMMIT\n");
    let parsed = match load(&file, family) {
        Ok(parsed) => parsed,
        Err(findings) => return Err(TestCaseError::fail(format!("{text}: {findings:?}"))),
    };
    let table = &parsed.ruleset.tables[0];
    let back = &table.chain("V").expect("V was declared").rules[0];
    prop_assert_eq!(plain(back), plain(rule), "{}", text);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn printed_v4_rules_parse_back(rule in rule(Family::V4)) {
        round_trip(Family::V4, "filter", &rule)?;
    }

    #[test]
    fn printed_v6_rules_parse_back(rule in rule(Family::V6)) {
        round_trip(Family::V6, "filter", &rule)?;
    }

    #[test]
    fn printed_targets_parse_back(
        v4 in (rule(Family::V4), of_table(Family::V4)),
        v6 in (rule(Family::V6), of_table(Family::V6)),
    ) {
        for (family, (rule, (table, target))) in [(Family::V4, v4), (Family::V6, v6)] {
            // Ports, helpers and SYNPROXY need it.
            let proto = Some(Neg::plain(6));
            let rule = Rule { proto, matches: vec![], target, ..rule };
            round_trip(family, table, &rule)?;
        }
    }

    /// Observed lines with words dropped, doubled, swapped and characters changed.
    #[test]
    fn mutated_lines_do_not_panic(
        row in 0..1_300_usize,
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<u8>()), 0..5),
    ) {
        let mut rows = include_str!("../observed.tsv").lines().filter(|row| !row.starts_with('#'));
        let cells: Vec<&str> = rows.nth(row).unwrap_or_default().split('\t').collect();
        let mut bytes = file(cells[1], cells[2]).into_bytes();
        for (index, how, byte) in cuts {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, byte),
                3 => bytes.truncate(at.max(1)),
                _ => { let tail = bytes[at..].to_vec(); bytes.extend(tail); }
            }
        }
        let names = TableNames::well_known();
        for family in [Family::V4, Family::V6] {
            if let Ok(parsed) = parse_bytes(&bytes, "f", family, &names) {
                let printed = print(&parsed.ruleset, &names, None);
                let again = parse_bytes(printed.as_bytes(), "f", family, &names);
                prop_assert!(again.is_ok(), "{printed:?}: {again:?}");
                prop_assert_eq!(print(&again.unwrap().ruleset, &names, None), printed);
            }
        }
    }
}
