//! Generated targets that change headers, CT and HMARK.

use dataplane::packet::Family;
use dataplane::policy::header::prefix::PrefixTarget;
use dataplane::policy::header::strip::OptionKinds;
use dataplane::policy::target::{CtTarget, HeaderTarget, HelperKind, HopChange, ZoneId, ZoneScope};
use proptest::prelude::*;
use proptest::sample::select;

use super::NET_V6;
use crate::model::{HmarkSpec, MetaSpec};

pub(super) fn header(family: Family) -> impl Strategy<Value = HeaderTarget> {
    let mut kinds = OptionKinds::default();
    [2, 5, 8].into_iter().for_each(|kind| kinds.insert(kind));
    let prefix = |source, low: u128, length| {
        let to = (NET_V6 & !0xffff_0000_0000_0000_0000 | low << 64, length);
        HeaderTarget::Prefix(PrefixTarget { source, from: (NET_V6, 48), to })
    };
    let mut all = vec![
        HeaderTarget::StripOptions(kinds),
        HeaderTarget::FillChecksum,
        HeaderTarget::Hops(HopChange::Set(64)),
        HeaderTarget::Hops(HopChange::Increment(255)),
        HeaderTarget::Hops(HopChange::Decrement(1)),
        HeaderTarget::Tos { clear: 0x3f, toggle: 0x10 },
        HeaderTarget::Dscp(0x2e),
    ];
    if family == Family::V6 {
        all.extend([prefix(true, 0, 48), prefix(false, 7, 64), prefix(true, 1, 64)]);
    }
    select(all)
}

pub(super) fn ct() -> impl Strategy<Value = CtTarget> {
    let plain = CtTarget::default();
    select(vec![
        CtTarget { notrack: true, ..plain.clone() },
        CtTarget { notrack: true, alias: true, ..plain.clone() },
        CtTarget { zone: Some((ZoneScope::Original, ZoneId::Fixed(3))), ..plain.clone() },
        CtTarget { zone: Some((ZoneScope::Both, ZoneId::Mark)), ..plain.clone() },
        CtTarget { helper: Some(HelperKind::Ftp), events: Some(1), ..plain.clone() },
        plain,
    ])
}

/// Marks that later rules can compare: few, or of few bits.
pub(super) fn hmark(family: Family) -> impl Strategy<Value = MetaSpec> {
    let plain = HmarkSpec { seed: 5, modulus: 4, ..HmarkSpec::default() };
    let whole = if family == Family::V4 { 32 } else { 128 };
    let mask = |length: u32| Some((u128::MAX >> (128 - whole)) & u128::MAX << (whole - length));
    let ends = HmarkSpec { src_mask: mask(whole), dst_mask: mask(whole), ..plain };
    let ports = HmarkSpec { sport_mask: Some(0xffff), dport_mask: Some(0xffff), ..ends };
    let all = HmarkSpec { proto_mask: Some(0xff), ..ports };
    let index = HmarkSpec { spi_mask: Some(u32::MAX), ..plain };
    let prefixes = HmarkSpec { src_mask: mask(8), dst_mask: mask(whole - 8), ..plain };
    let mut specs = vec![ends, ports, all, index, prefixes];
    specs.push(HmarkSpec { sport_mask: Some(0xff), dport: Some(0x1f00), offset: Some(1), ..plain });
    specs.push(HmarkSpec { spi: Some(0x0007_0009), modulus: u32::MAX, ..plain });
    specs.extend(specs.clone().into_iter().map(|spec| HmarkSpec { connection: true, ..spec }));
    select(specs).prop_map(|spec| MetaSpec::Hmark(Box::new(spec)))
}
