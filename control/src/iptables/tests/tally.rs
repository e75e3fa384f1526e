//! recent, hashlimit and connlimit: what the tools were seen to do, and generated uses.

use dataplane::packet::Family;
use dataplane::policy::tally::rate::{bytes_of_cost, cost_of_bytes};
use dataplane::policy::tally::{
    ConnRule, HashSettings, KeyParts, Rate, RecentAction, RecentRule, Unit,
};
use proptest::prelude::*;

use super::outcome;
use crate::iptables::address::full_mask;
use crate::model::TallySpec;

#[test]
fn lines_fare_as_observed() {
    let rows = include_str!("../observed-tally.tsv").lines();
    let mut wrong = Vec::new();
    for row in rows.filter(|row| !row.starts_with('#')) {
        let cells: Vec<&str> = row.split('\t').collect();
        let family = if cells[0] == "4" { Family::V4 } else { Family::V6 };
        let ours = outcome(cells[1], cells[2], family);
        let expected = match cells.get(5) {
            Some(on_purpose) => ours == *on_purpose,
            None => cells[3] == ours || cells[4] == ours,
        };
        if !expected {
            wrong.push(format!("{row}\n  ours: {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A name of a file, perhaps one that must be quoted.
fn name() -> impl Strategy<Value = Box<str>> {
    let text = proptest::string::string_regex("[!-.0-~é][ -.0-~]{0,14}").expect("it is valid");
    text.prop_filter("no file", |name| !matches!(name.as_str(), "." | ".." | "!"))
        .prop_map(String::into)
}

fn recent(family: Family) -> impl Strategy<Value = TallySpec> {
    let actions =
        [RecentAction::Set, RecentAction::Check, RecentAction::Update, RecentAction::Remove];
    let action = proptest::sample::select(actions.to_vec());
    let numbers = (prop_oneof![Just(0), any::<u32>()], 0..=32_768_u32);
    (name(), action, numbers, any::<[bool; 4]>(), any::<u128>()).prop_map(
        move |(name, action, (seconds, hits), [negated, same_ttl, reap, destination], mask)| {
            let asks = matches!(action, RecentAction::Check | RecentAction::Update);
            let seconds = if asks { seconds } else { 0 };
            let rule = RecentRule {
                action,
                negated,
                seconds,
                hits: if asks { hits } else { 0 },
                same_ttl: asks && same_ttl,
                reap: seconds != 0 && reap,
                destination,
                mask: mask & full_mask(family),
            };
            TallySpec::Recent { name, rule }
        },
    )
}

/// Rates that the printed form says exactly; others round as the tools do.
fn rate() -> impl Strategy<Value = Rate> {
    let window_s = prop_oneof![2 => Just(None), 1 => (1..=u32::MAX).prop_map(Some)];
    let seconds = proptest::sample::select(vec![(1, 1000), (60, 59), (3600, 59), (86_400, 4)]);
    let packets = (seconds, 1..=1000_u64, 1..=1000_u64, window_s.clone()).prop_map(
        |((seconds, most), count, burst, window_s)| {
            let seconds = if window_s.is_some() { 1 } else { seconds };
            let avg = 1_000_000 * seconds / (count % most + 1);
            Rate { unit: Unit::Packets, avg, burst, window_s }
        },
    );
    let bytes = (16..=4_095_u32 << 20, 0..5_u64, window_s).prop_map(|(bytes, burst, window_s)| {
        let avg = cost_of_bytes(bytes);
        // What rounds twice is not stable, with the tools either.
        let avg = cost_of_bytes(bytes_of_cost(avg) as u32);
        Rate { unit: Unit::Bytes, avg, burst, window_s }
    });
    prop_oneof![packets, bytes].prop_filter("overflows", |rate| rate.check().is_ok())
}

fn hash(family: Family) -> impl Strategy<Value = TallySpec> {
    let width = full_mask(family).count_ones() as u8;
    let numbers = (0..=1_u32 << 20, 0..=1_u32 << 20, 1..=u32::MAX, 1..=u32::MAX);
    let lengths = (0..=width, 0..=width);
    (name(), any::<bool>(), any::<[bool; 4]>(), lengths, rate(), numbers).prop_map(
        |(name, above, [src, sport, dst, dport], (src_len, dst_len), rate, numbers)| {
            let (buckets, most, expire_ms, gc_ms) = numbers;
            let parts = KeyParts { src, sport, dst, dport };
            let settings =
                HashSettings { parts, src_len, dst_len, rate, buckets, most, expire_ms, gc_ms };
            TallySpec::Hash { name, above, settings }
        },
    )
}

fn conn(family: Family) -> impl Strategy<Value = TallySpec> {
    let width = full_mask(family).count_ones() as u8;
    (any::<u32>(), any::<[bool; 2]>(), 0..=width).prop_map(|(limit, [above, destination], len)| {
        TallySpec::Conn { rule: ConnRule { limit, above, len, destination } }
    })
}

/// Whatever can be written.
pub(super) fn spec(family: Family) -> impl Strategy<Value = TallySpec> {
    prop_oneof![recent(family), hash(family), conn(family)]
}
