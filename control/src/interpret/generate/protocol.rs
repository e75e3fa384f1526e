//! Matches on other transports and extension headers, and headers that they
//! hit or nearly hit.

use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Range};
use dataplane::policy::protocol::*;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use super::{host, neg, ports};

const SPIS: [u32; 5] = [0, 1, 7, 256, u32::MAX];

fn spi() -> impl Strategy<Value = Range<u32>> {
    (select(&SPIS[..]), select(&SPIS[..]), any::<bool>()).prop_map(|(a, b, single)| match single {
        true => Range { low: a, high: a },
        false => Range { low: a.min(b), high: a.max(b) },
    })
}

fn ah(v6: bool) -> impl Strategy<Value = ProtocolMatch> {
    let length = weighted(0.4, neg(select(vec![12_u32, 16, 0])));
    (weighted(0.7, neg(spi())), length, prop::bool::weighted(0.3)).prop_map(
        move |(spi, length, reserved)| {
            let length = length.filter(|_| v6);
            ProtocolMatch::Ah(AhMatch { spi, length, reserved: reserved && v6 })
        },
    )
}

/// One that needs no `-p`.
pub(super) fn free(family: Family) -> BoxedStrategy<ProtocolMatch> {
    let ect = neg(0..4_u8)
        .prop_map(|ect| ProtocolMatch::Ecn(EcnMatch { ect: Some(ect), ..EcnMatch::default() }));
    if family == Family::V4 {
        return ect.boxed();
    }
    let headers = (neg(any::<u8>()), any::<bool>())
        .prop_map(|(headers, soft)| ProtocolMatch::Ipv6Header(Ipv6HeaderMatch { headers, soft }));
    let frag =
        (weighted(0.4, neg(spi())), any::<bool>(), any::<bool>(), weighted(0.5, any::<bool>()))
            .prop_map(|(id, reserved, first, more)| {
                ProtocolMatch::Frag(FragMatch { id, length: None, reserved, first, more })
            });
    prop_oneof![
        1 => ect,
        2 => ah(true),
        1 => Just(ProtocolMatch::Eui64),
        2 => headers,
        3 => rt(),
        3 => options(),
        2 => frag,
        3 => srh(),
    ]
    .boxed()
}

fn rt() -> impl Strategy<Value = ProtocolMatch> {
    (
        weighted(0.6, neg(select(vec![0_u32, 4, 256]))),
        weighted(0.3, neg((0..3_u32).prop_map(|low| Range { low, high: low + 1 }))),
        weighted(0.3, neg(select(vec![8_u32, 24, 40]))),
        prop::bool::weighted(0.2),
        vec(host(Family::V6), 0..3),
        any::<bool>(),
    )
        .prop_map(|(kind, segments_left, length, reserved, addresses, not_strict)| {
            let addresses = addresses.into();
            let rt = RtMatch { kind, segments_left, length, reserved, addresses, not_strict };
            ProtocolMatch::Rt(Box::new(rt))
        })
}

fn options() -> impl Strategy<Value = ProtocolMatch> {
    let option = select(vec![(0, None), (1, None), (1, Some(4)), (1, Some(0)), (5, Some(2))]);
    let length = weighted(0.3, neg(select(vec![8_u32, 16])));
    (any::<bool>(), length, vec(option, 0..4)).prop_map(|(destination, length, options)| {
        ProtocolMatch::Options(OptionsMatch { destination, length, options: options.into() })
    })
}

fn srh() -> impl Strategy<Value = ProtocolMatch> {
    let compare = || {
        let how = || weighted(0.25, any::<bool>());
        (0..5_u8, how(), how(), how()).prop_map(|(value, equal, greater, less)| SrhCompare {
            value,
            equal,
            greater,
            less,
        })
    };
    let segment = || {
        let mask = select(vec![u128::MAX, u128::MAX << 64, 0]);
        let address = (host(Family::V6), mask);
        weighted(0.2, neg(address.prop_map(|(address, mask)| AddressMask { address, mask })))
    };
    (
        weighted(0.2, neg(select(vec![6_u8, 17]))),
        (compare(), compare(), compare()),
        weighted(0.2, neg(select(vec![0_u16, 1, 256]))),
        (segment(), segment(), segment()),
    )
        .prop_map(|(next_header, (length, segments_left, last_entry), tag, segments)| {
            let (previous, next, last) = segments;
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
pub(super) fn bound(family: Family) -> BoxedStrategy<(u8, ProtocolMatch)> {
    let mss = select(vec![(0_u16, 0_u16), (536, 1459), (1460, 1460), (1, 65_535)]);
    let mss = neg(mss.prop_map(|(low, high)| Range { low, high }));
    let flag = || weighted(0.6, any::<bool>());
    let ecn = (flag(), flag(), weighted(0.3, neg(0..4_u8)));
    let ecn = ecn.prop_map(|(ece, cwr, ect)| (6, ProtocolMatch::Ecn(EcnMatch { ece, cwr, ect })));
    let dccp = (
        weighted(0.2, neg(ports())),
        weighted(0.2, neg(ports())),
        weighted(0.6, neg(0..2048_u16)),
        weighted(0.5, neg(select(vec![1_u8, 5, 32]))),
    )
        .prop_map(|(sport, dport, types, option)| {
            (33, ProtocolMatch::Dccp(DccpMatch { sport, dport, types, option }))
        });
    let last = match family {
        Family::V4 => ah(false).prop_map(|ah| (51, ah)).boxed(),
        Family::V6 => weighted(0.8, neg((0..6_u8).prop_map(|low| Range { low, high: 5 })))
            .prop_map(|kinds| (135, ProtocolMatch::Mh(kinds)))
            .boxed(),
    };
    prop_oneof![
        4 => sctp(),
        3 => dccp,
        1 => weighted(0.8, neg(spi())).prop_map(|spi| (50, ProtocolMatch::Esp(spi))),
        1 => neg(spi())
            .prop_map(|cpi| (108, ProtocolMatch::Ipcomp(IpcompMatch { cpi, reserved: false }))),
        3 => mss.prop_map(|mss| (6, ProtocolMatch::TcpMss(mss))),
        2 => ecn,
        1 => last,
    ]
    .boxed()
}

fn sctp() -> impl Strategy<Value = (u8, ProtocolMatch)> {
    let scope = select(vec![ChunkScope::Any, ChunkScope::All, ChunkScope::Only]);
    let kinds = proptest::sample::subsequence(vec![0_u8, 1, 6, 192], 0..4);
    let flags = (0..4_u8, 0..4_u8).prop_map(|(mask, set)| (mask, set & mask));
    let chunks = (scope, kinds, flags).prop_map(|(scope, kinds, (mask, set))| {
        let mut types = [0; 4];
        kinds.iter().for_each(|kind| types[usize::from(kind >> 6)] |= 1 << (kind & 63));
        let flags = kinds.first().map(|&kind| ChunkFlags { kind, mask, set });
        SctpChunks { scope, types, flags: flags.into_iter().collect() }
    });
    (weighted(0.2, neg(ports())), weighted(0.2, neg(ports())), weighted(0.8, neg(chunks))).prop_map(
        |(sport, dport, chunks)| {
            (132, ProtocolMatch::Sctp(Box::new(SctpMatch { sport, dport, chunks })))
        },
    )
}

/// Protocols with the bytes of their layer 4, good and bad.
pub(super) fn transport() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let ports = [0, 22, 0, 80];
    let sctp = vec((select(vec![0_u8, 1, 6, 192]), 0..4_u8, select(vec![8_u8, 4, 5, 1, 0])), 0..4)
        .prop_map(move |chunks| {
            let mut bytes = [&ports[..], &[0; 8]].concat();
            for (kind, flags, size) in chunks {
                bytes.extend([kind, flags, 0, size]);
                bytes.resize(bytes.len() + usize::from(size.max(4) - 4).next_multiple_of(4), 0);
            }
            (132, bytes)
        });
    let options = select(vec![vec![], vec![5, 2, 32, 0], vec![1, 32, 9, 5]]);
    let dccp = (0..32_u8, 3..9_u8, options).prop_map(move |(kind, words, options)| {
        let mut bytes = [&ports[..], &[words, 0, 0, 0, kind, 0, 0, 1], &[0; 12], &options].concat();
        bytes.resize(40, 5);
        (33, bytes)
    });
    let spis = || select(&SPIS[..]);
    let esp = spis().prop_map(|spi| (50, [spi.to_be_bytes(), [0; 4]].concat()));
    let ah = spis().prop_map(|spi| (51, [[17, 1, 0, 0], spi.to_be_bytes(), [0; 4]].concat()));
    let ipcomp = (0..3_u8).prop_map(|cpi| (108, vec![17, 0, cpi & 1, cpi >> 1, 0, 0]));
    let mh = (select(vec![59_u8, 59, 6]), 0..7_u8)
        .prop_map(|(next, kind)| (135, vec![next, 0, kind, 0, 0, 0, 0, 0]));
    prop_oneof![4 => sctp, 3 => dccp, 1 => esp, 1 => ah, 1 => ipcomp, 1 => mh]
}

/// An IPv6 extension header: its type, and its bytes from the next header on.
pub(super) fn header() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let segments = vec(host(Family::V6), 0..3);
    let bytes = select(vec![(0_u8, 0_u8), (4, 0), (4, 1), (4, 2), (2, 0)]);
    let routing = (bytes, 0..3_u8, segments).prop_map(|((kind, last), left, segments)| {
        let mut header = vec![0, segments.len() as u8 * 2, kind, left, last, 0, 0, kind & 1];
        segments.iter().for_each(|segment| header.extend(segment.to_be_bytes()));
        (43, header)
    });
    let lists: Vec<Vec<u8>> = vec![
        vec![0, 0, 1, 4, 0, 0, 0, 0],
        vec![0, 0, 5, 2, 0, 0, 1, 0],
        vec![0, 0, 0, 1, 3, 0, 0, 0],
        vec![0, 0, 1, 9, 0, 0, 0, 0],
        vec![0, 0, 0, 0, 0, 0, 0, 5],
        vec![0, 9, 1, 4, 0, 0, 0, 0],
        vec![0, 1, 5, 2, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let options = (select(vec![60_u8, 60, 0]), select(lists));
    let ah = (select(&SPIS[..]), select(vec![1_u8, 1, 2, 90]))
        .prop_map(|(spi, size)| (51, [[0, size, 0, 0], spi.to_be_bytes(), [0; 4]].concat()));
    let frag = select(vec![[0_u8, 0], [0, 1], [0, 2], [0, 8], [0, 17]])
        .prop_map(|[high, low]| (44, vec![0, 0, high, low, 0, 0, 0, 7]));
    prop_oneof![3 => routing, 3 => options, 1 => ah, 2 => frag]
}
