//! recent, hashlimit and connlimit with few names, short times and coarse masks.

use dataplane::packet::Family;
use dataplane::policy::tally::rate::cost_of_bytes;
use dataplane::policy::tally::{
    ConnRule, HashSettings, KeyParts, Rate, RecentAction, RecentRule, Unit,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::mask;
use crate::model::TallySpec;

fn recent(family: Family) -> impl Strategy<Value = TallySpec> {
    use RecentAction::{Check, Remove, Set, Update};
    // Families may share a list under one mask only.
    let names = if family == Family::V4 { ["a", "b"] } else { ["a6", "b6"] };
    let name = select(names.to_vec()).prop_map(Box::<str>::from);
    let action = select(vec![Set, Set, Set, Check, Check, Update, Update, Remove]);
    let numbers = (select(vec![0_u32, 0, 1, 2, 4]), select(vec![0_u32, 0, 1, 2, 3, 7]));
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.2), any::<[bool; 2]>());
    (name, action, numbers, flags, mask(family)).prop_map(
        |(name, action, (seconds, hits), (negated, same_ttl, [reap, destination]), mask)| {
            let asks = matches!(action, Check | Update);
            let seconds = if asks { seconds } else { 0 };
            let rule = RecentRule {
                action,
                negated,
                seconds,
                hits: if asks { hits } else { 0 },
                same_ttl: asks && same_ttl,
                reap: seconds != 0 && reap,
                destination,
                mask,
            };
            TallySpec::Recent { name, rule }
        },
    )
}

/// Names by what they count, so that no two rules quarrel; few entries, short lives.
fn hash(family: Family) -> impl Strategy<Value = TallySpec> {
    let rates = vec![
        ("p", Rate { unit: Unit::Packets, avg: 1_000_000, burst: 2, window_s: None }),
        ("p", Rate { unit: Unit::Packets, avg: 10_000, burst: 1, window_s: None }),
        ("b", Rate { unit: Unit::Bytes, avg: cost_of_bytes(64), burst: 0, window_s: None }),
        ("b", Rate { unit: Unit::Bytes, avg: cost_of_bytes(160), burst: 2, window_s: None }),
        ("w", Rate { unit: Unit::Packets, avg: 500_000, burst: 1, window_s: Some(1) }),
        ("v", Rate { unit: Unit::Bytes, avg: cost_of_bytes(128), burst: 1, window_s: Some(2) }),
    ];
    let full: u8 = if family == Family::V4 { 32 } else { 128 };
    let lengths = (select(vec![full, full, 24, 0]), select(vec![full, full, 9]));
    let table = (select(vec![1_u32, 2, 16]), select(vec![0_u32, 3, 40]));
    let times = (select(vec![100_u32, 1_000, 2_500]), select(vec![100_u32, 1_000]));
    (select(rates), any::<bool>(), any::<[bool; 4]>(), lengths, (table, times)).prop_map(
        |((name, rate), above, parts, (src_len, dst_len), ((buckets, most), times))| {
            let [src, sport, dst, dport] = parts;
            let (parts, (expire_ms, gc_ms)) = (KeyParts { src, sport, dst, dport }, times);
            let settings =
                HashSettings { parts, src_len, dst_len, rate, buckets, most, expire_ms, gc_ms };
            TallySpec::Hash { name: name.into(), above, settings }
        },
    )
}

fn conn(family: Family) -> impl Strategy<Value = TallySpec> {
    let full: u8 = if family == Family::V4 { 32 } else { 128 };
    (0..5_u32, any::<[bool; 2]>(), select(vec![full, full, 24, 0])).prop_map(
        |(limit, [above, destination], len)| TallySpec::Conn {
            rule: ConnRule { limit, above, len, destination },
        },
    )
}

pub(super) fn spec(family: Family) -> impl Strategy<Value = TallySpec> {
    prop_oneof![2 => recent(family), 2 => hash(family), 1 => conn(family)]
}
