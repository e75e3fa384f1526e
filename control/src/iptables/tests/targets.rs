//! Generated targets of the mangle table and of any, for the round trip.

use dataplane::packet::Family;
use dataplane::policy::header::prefix::{PREFIX_MAX, PrefixTarget};
use dataplane::policy::header::strip::OptionKinds;
use dataplane::policy::target::HeaderTarget;
use proptest::option;
use proptest::prelude::*;

use crate::iptables::address::{full_mask, prefix_mask};
use crate::model::{MetaSpec, TargetSpec};

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

/// CLASSIFY, IDLETIMER, TEE.
pub(super) fn meta(family: Family) -> impl Strategy<Value = TargetSpec> {
    let timer = ("[a-z0-9_.:-]{3,27}", 1..2_147_482_u32, any::<bool>()).prop_map(
        |(label, timeout_s, alarm)| MetaSpec::IdleTimer { label: label.into(), timeout_s, alarm },
    );
    let gateway = any::<u128>().prop_map(move |bits| (bits & full_mask(family)).max(1));
    let output = option::of("[a-z0-9]{1,15}");
    let tee = (gateway, output)
        .prop_map(|(gateway, output)| MetaSpec::Tee { gateway, output: output.map(Into::into) });
    prop_oneof![any::<u32>().prop_map(MetaSpec::Classify), timer, tee].prop_map(TargetSpec::Meta)
}
