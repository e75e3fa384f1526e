//! Generated targets of the mangle table and of any, for the round trip.

use dataplane::packet::Family;
use dataplane::policy::header::prefix::{PREFIX_MAX, PrefixTarget};
use dataplane::policy::header::strip::OptionKinds;
use dataplane::policy::target::HeaderTarget;
use proptest::option;
use proptest::prelude::*;

use crate::iptables::address::{full_mask, prefix_mask, width};
use crate::model::{HmarkSpec, MetaSpec, TargetSpec};

/// TCPOPTSTRIP, CHECKSUM; with IPv6 SNPT, DNPT. They need `-p tcp` and mangle.
pub(super) fn mangle(family: Family) -> BoxedStrategy<TargetSpec> {
    let strip = proptest::collection::btree_set(2..=u8::MAX, 0..9).prop_map(|found| {
        let mut kinds = OptionKinds::default();
        found.into_iter().for_each(|kind| kinds.insert(kind));
        HeaderTarget::StripOptions(kinds)
    });
    let prefix = || {
        (any::<u128>(), 1..=PREFIX_MAX).prop_map(|(address, length)| {
            (address & prefix_mask(Family::V6, u32::from(length)), length)
        })
    };
    let translate = (any::<bool>(), prefix(), prefix())
        .prop_map(|(source, from, to)| HeaderTarget::Prefix(PrefixTarget { source, from, to }));
    let both = prop_oneof![3 => strip, 1 => Just(HeaderTarget::FillChecksum)];
    match family {
        Family::V4 => both.prop_map(TargetSpec::Header).boxed(),
        Family::V6 => prop_oneof![both, translate].prop_map(TargetSpec::Header).boxed(),
    }
}

/// CLASSIFY, IDLETIMER, TEE, HMARK.
pub(super) fn meta(family: Family) -> BoxedStrategy<TargetSpec> {
    let timer = ("[a-z0-9_.:-]{3,27}", 1..2_147_482_u32, any::<bool>()).prop_map(
        |(label, timeout_s, alarm)| MetaSpec::IdleTimer { label: label.into(), timeout_s, alarm },
    );
    let gateway = any::<u128>().prop_map(move |bits| (bits & full_mask(family)).max(1));
    let output = option::of("[a-z0-9]{1,15}");
    let tee = (gateway, output)
        .prop_map(|(gateway, output)| MetaSpec::Tee { gateway, output: output.map(Into::into) });
    prop_oneof![any::<u32>().prop_map(MetaSpec::Classify), timer, tee, hmark(family)]
        .prop_map(TargetSpec::Meta)
        .boxed()
}

fn hmark(family: Family) -> BoxedStrategy<MetaSpec> {
    let mask =
        move || option::of((0..=width(family)).prop_map(move |length| prefix_mask(family, length)));
    let index = || option::of(any::<u32>());
    let port = || option::of(any::<u16>());
    (
        (mask(), mask(), any::<bool>(), option::of(any::<u16>())),
        (any::<bool>(), index(), (port(), port())),
        (any::<bool>(), index(), (port(), port())),
        (any::<u32>(), 1..=u32::MAX, index()),
    )
        .prop_map(|((src_mask, dst_mask, connection, proto_mask), masks, set, numbers)| {
            let either = |(index, spi, (one, other)): (bool, _, (_, _))| match index {
                true => (spi, None, None),
                false => (None, one, other),
            };
            let (spi_mask, sport_mask, dport_mask) = either(masks);
            let (spi, sport, dport) = either(set);
            let (seed, modulus, offset) = numbers;
            let mut spec = HmarkSpec {
                connection,
                src_mask,
                dst_mask,
                sport_mask,
                dport_mask,
                spi_mask,
                sport,
                dport,
                spi,
                proto_mask,
                seed,
                modulus,
                offset,
            };
            // Something must be asked for.
            let bare = HmarkSpec { seed, modulus, offset, ..HmarkSpec::default() };
            spec.connection |= spec == bare;
            MetaSpec::Hmark(Box::new(spec))
        })
        .boxed()
}
