//! Generated matches on where a packet is and whose.

use dataplane::packet::Family;
use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::place::{
    AddrTypeMatch, IpsecDirection, IpsecElement, IpsecMatch, Limit, OwnerMatch, PhysdevMatch,
    PlaceMatch, RpFilterMatch, address_type as kind,
};
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// One of them, as FORWARD may have it.
pub(crate) fn any_place(family: Family) -> BoxedStrategy<Match> {
    prop_oneof![3 => address_type(family), 1 => reverse_path(), 1 => ipsec(family), 1 => owner(), 1 => physdev()]
        .prop_map(Match::Place)
        .boxed()
}

fn kinds(family: Family, limited: bool) -> impl Strategy<Value = Neg<u16>> {
    let mut all = vec![kind::UNSPEC, kind::UNICAST, kind::LOCAL, kind::MULTICAST];
    match family {
        Family::V4 => all.extend([kind::BROADCAST, kind::ANYCAST, kind::BLACKHOLE, kind::XRESOLVE]),
        Family::V6 if limited => {}
        Family::V6 => all.extend([kind::ANYCAST, kind::UNREACHABLE]),
    }
    let count = all.len();
    (prop::bool::weighted(0.3), subsequence(all, 1..=count))
        .prop_map(|(negated, set)| Neg { negated, value: set.into_iter().sum() })
}

fn address_type(family: Family) -> impl Strategy<Value = PlaceMatch> {
    let limit = select(vec![None, None, Some(Limit::Input), Some(Limit::Output)]);
    limit
        .prop_flat_map(move |limit| {
            let kinds = || kinds(family, limit.is_some());
            (kinds(), weighted(0.5, kinds()), any::<bool>()).prop_map(move |(one, other, src)| {
                let (src, dst) = if src { (Some(one), other) } else { (other, Some(one)) };
                AddrTypeMatch { src, dst, limit }
            })
        })
        .prop_map(PlaceMatch::AddrType)
}

fn reverse_path() -> impl Strategy<Value = PlaceMatch> {
    any::<[bool; 4]>().prop_map(|[loose, valid_mark, accept_local, invert]| {
        PlaceMatch::RpFilter(RpFilterMatch { loose, valid_mark, accept_local, invert })
    })
}

fn negated<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Neg<T>> {
    (any::<bool>(), value).prop_map(|(negated, value)| Neg { negated, value })
}

fn ipsec_element(family: Family) -> impl Strategy<Value = IpsecElement> {
    let end = || weighted(0.3, negated(super::address_mask(family)));
    (
        negated(any::<u32>()),
        weighted(0.5, negated(any::<u32>())),
        weighted(0.5, negated(select(vec![50_u8, 51, 108]))),
        weighted(0.5, negated(any::<bool>())),
        (end(), end()),
    )
        .prop_map(|(reqid, spi, proto, tunnel, (tunnel_src, tunnel_dst))| {
            let both = tunnel_src.is_some() || tunnel_dst.is_some();
            let tunnel = if both { Some(Neg::plain(true)) } else { tunnel };
            let reqid = Some(reqid);
            IpsecElement { reqid, spi, proto, tunnel, tunnel_dst, tunnel_src }
        })
}

fn ipsec(family: Family) -> impl Strategy<Value = PlaceMatch> {
    let direction = select(vec![IpsecDirection::In, IpsecDirection::Out]);
    let elements = proptest::collection::vec(ipsec_element(family), 0..=4);
    (direction, any::<bool>(), elements).prop_map(|(direction, none, elements)| {
        let elements = if none { Vec::new() } else { elements };
        let strict = elements.len() > 1;
        let elements = elements.into();
        PlaceMatch::Ipsec(Box::new(IpsecMatch { direction, none, strict, elements }))
    })
}

fn physdev() -> impl Strategy<Value = PlaceMatch> {
    let flag = || weighted(0.3, any::<bool>());
    let name = || weighted(0.4, negated("[a-z]{1,6}[0-9]?[+]?".prop_map(Into::into)));
    (flag(), name(), flag(), name(), flag()).prop_map(|(is_in, input, is_out, output, bridged)| {
        // One of them must be there, and OUTPUT must not ask for the way out.
        let is_in = is_in.or(Some(true).filter(|_| input.is_none()));
        let asks = is_out.is_some() || output.is_some();
        let is_bridged = if asks { Some(false) } else { bridged };
        PlaceMatch::Physdev(Box::new(PhysdevMatch { is_in, input, is_out, output, is_bridged }))
    })
}

fn owner() -> impl Strategy<Value = PlaceMatch> {
    let ids =
        || negated((0..9_u32, 0..9_u32).prop_map(|(low, more)| Range { low, high: low + more }));
    let asked = (weighted(0.7, ids()), weighted(0.5, ids()), any::<bool>());
    (weighted(0.4, any::<bool>()), asked).prop_map(|(socket, (uid, gid, supplementary))| {
        // One of them must be there.
        let socket = if uid.is_none() && gid.is_none() { socket.or(Some(true)) } else { socket };
        let supplementary = supplementary && gid.is_some();
        PlaceMatch::Owner(OwnerMatch { socket, uid, gid, supplementary })
    })
}
