//! Matches on other transports and extension headers, with operands of every size.

use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::policy::matches::{AddressMask, Neg, Range};
use dataplane::policy::protocol::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{neg, prefix_mask};
use crate::iptables::matches::CHUNK_NAMES;

/// Any two ends in any order, but not all numbers without `!`, which says nothing.
fn asked<T: Arbitrary + Copy + PartialEq + 'static>(
    all: Range<T>,
) -> impl Strategy<Value = Option<Neg<Range<T>>>> {
    let range = (any::<T>(), any::<T>(), any::<bool>())
        .prop_map(|(low, high, one)| Range { low, high: if one { low } else { high } });
    option::of(neg(range)).prop_map(move |range| range.filter(|r| r.negated || r.value != all))
}

fn index() -> impl Strategy<Value = Option<Neg<Range<u32>>>> {
    asked(Range { low: 0, high: u32::MAX })
}

fn ordered<T: Arbitrary + Copy + Ord>() -> impl Strategy<Value = Range<T>> {
    (any::<T>(), any::<T>()).prop_map(|(a, b)| Range { low: a.min(b), high: a.max(b) })
}

/// One that needs no `-p`.
pub(super) fn free(family: Family) -> BoxedStrategy<Match> {
    let ect = neg(0..4_u8)
        .prop_map(|ect| ProtocolMatch::Ecn(EcnMatch { ect: Some(ect), ..EcnMatch::default() }));
    if family == Family::V4 {
        return ect.prop_map(Match::Protocol).boxed();
    }
    let length = || option::of(neg(any::<u32>()));
    let ah = (index(), length(), any::<bool>()).prop_map(|(spi, length, reserved)| {
        let length = length.filter(|length| length.negated || length.value != 0);
        ProtocolMatch::Ah(AhMatch { spi, length, reserved })
    });
    let headers = (neg(1..=255_u8), any::<bool>())
        .prop_map(|(headers, soft)| ProtocolMatch::Ipv6Header(Ipv6HeaderMatch { headers, soft }));
    let option = prop_oneof![
        any::<u8>().prop_map(|kind| (kind, None)),
        (1..=255_u8, 0..255_u8).prop_map(|(kind, length)| (kind, Some(length))),
    ];
    let options = (any::<bool>(), length(), vec(option, 0..=16)).prop_map(
        |(destination, length, options)| {
            let options = options.into();
            ProtocolMatch::Options(OptionsMatch { destination, length, options })
        },
    );
    let frag = (index(), length(), any::<[bool; 2]>(), option::of(any::<bool>())).prop_map(
        |(id, length, [reserved, first], more)| {
            ProtocolMatch::Frag(FragMatch { id, length, reserved, first, more })
        },
    );
    prop_oneof![ect, ah, headers, options, frag, rt(), srh()].prop_map(Match::Protocol).boxed()
}

fn rt() -> impl Strategy<Value = ProtocolMatch> {
    let list = (any::<bool>(), vec(any::<u128>(), 0..=16), any::<bool>());
    (option::of(neg(any::<u32>())), index(), option::of(neg(any::<u32>())), option::of(list))
        .prop_map(|(kind, segments_left, length, of_type_0)| {
            let mut rt = RtMatch { kind, segments_left, length, ..RtMatch::default() };
            if let Some((reserved, addresses, not_strict)) = of_type_0 {
                let not_strict = not_strict && !addresses.is_empty();
                let addresses = addresses.into();
                rt = RtMatch { reserved, addresses, not_strict, ..rt };
                rt.kind = Some(Neg::plain(0));
            }
            ProtocolMatch::Rt(Box::new(rt))
        })
}

fn srh() -> impl Strategy<Value = ProtocolMatch> {
    let compare = || {
        (any::<u8>(), any::<[Option<bool>; 3]>()).prop_map(|(value, [equal, greater, less])| {
            let value = if equal.or(greater).or(less).is_some() { value } else { 0 };
            SrhCompare { value, equal, greater, less }
        })
    };
    let segment = || {
        let mask = (0..=128_u32).prop_map(|len| prefix_mask(Family::V6, len));
        option::of(neg(
            (any::<u128>(), mask).prop_map(|(address, mask)| AddressMask { address, mask })
        ))
    };
    (
        (option::of(neg(any::<u8>())), option::of(neg(any::<u16>()))),
        (compare(), compare(), compare()),
        (segment(), segment(), segment()),
    )
        .prop_map(|((next_header, tag), compared, (previous, next, last))| {
            let (length, segments_left, last_entry) = compared;
            ProtocolMatch::Srh(Box::new(SrhMatch {
                next_header,
                length,
                segments_left,
                last_entry,
                tag,
                previous,
                next,
                last,
            }))
        })
}

/// One with the protocol that it needs.
pub(super) fn bound(family: Family) -> BoxedStrategy<(u8, Match)> {
    let ports = || option::of(neg(ordered::<u16>()));
    let dccp = (
        ports(),
        option::of(neg(any::<(u16, u16)>().prop_map(|(low, high)| Range { low, high }))),
        option::of(neg(1..2048_u16)),
        option::of(neg(1..=255_u8)),
    )
        .prop_map(|(sport, dport, types, option)| {
            (33, ProtocolMatch::Dccp(DccpMatch { sport, dport, types, option }))
        });
    let flag = || option::of(any::<bool>());
    let ecn = (flag(), flag(), neg(0..4_u8)).prop_map(|(ece, cwr, ect)| {
        let ect = Some(ect).filter(|_| ece.is_none() || cwr.is_none());
        (6, ProtocolMatch::Ecn(EcnMatch { ece, cwr, ect }))
    });
    let last = match family {
        Family::V4 => index()
            .prop_map(|spi| (51, ProtocolMatch::Ah(AhMatch { spi, ..AhMatch::default() })))
            .boxed(),
        Family::V6 => option::of(neg(ordered::<u8>()))
            .prop_map(|kinds| kinds.filter(|k| k.negated || k.value != Range { low: 0, high: 255 }))
            .prop_map(|kinds| (135, ProtocolMatch::Mh(kinds)))
            .boxed(),
    };
    let ipcomp = (neg(any::<(u32, u32)>()), any::<bool>()).prop_map(|(cpi, reserved)| {
        let Neg { negated, value: (low, high) } = cpi;
        let cpi = Neg { negated, value: Range { low, high } };
        (108, ProtocolMatch::Ipcomp(IpcompMatch { cpi, reserved }))
    });
    prop_oneof![
        sctp(),
        dccp,
        index().prop_map(|spi| (50, ProtocolMatch::Esp(spi))),
        ipcomp,
        neg(ordered()).prop_map(|mss| (6, ProtocolMatch::TcpMss(mss))),
        ecn,
        last,
    ]
    .prop_map(|(proto, found)| (proto, Match::Protocol(found)))
    .boxed()
}

fn sctp() -> impl Strategy<Value = (u8, ProtocolMatch)> {
    let ports = || option::of(neg(ordered::<u16>()));
    let scope = proptest::sample::select(vec![ChunkScope::Any, ChunkScope::All, ChunkScope::Only]);
    let named = proptest::sample::subsequence(CHUNK_NAMES.to_vec(), 0..=CHUNK_NAMES.len());
    let chunks = (scope, named, any::<[u8; 2]>(), any::<bool>()).prop_map(
        |(scope, named, [mask, set], all)| {
            let mut types = if all { [u64::MAX; 4] } else { [0; 4] };
            let mut flags = Vec::new();
            for (_, kind, letters) in named.iter().filter(|_| !all) {
                types[usize::from(kind >> 6)] |= 1 << (kind & 63);
                let known = letters.chars().enumerate().filter(|(_, letter)| *letter != '-');
                let known: u8 = known.map(|(place, _)| 0x80 >> place).sum();
                let mask = mask & known;
                if mask != 0 {
                    flags.push(ChunkFlags { kind: *kind, mask, set: set & mask });
                }
            }
            SctpChunks { scope, types, flags: flags.into() }
        },
    );
    let chunks = (any::<bool>(), chunks).prop_map(|(negated, value)| Neg { negated, value });
    (ports(), ports(), option::of(chunks)).prop_map(|(sport, dport, chunks)| {
        (132, ProtocolMatch::Sctp(Box::new(SctpMatch { sport, dport, chunks })))
    })
}
