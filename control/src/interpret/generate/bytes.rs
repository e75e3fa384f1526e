//! Matches on any byte, and on time, chance and amounts: near what packets here hold.

use dataplane::policy::matches::{Match, Range};
use dataplane::policy::measure::estimator::{EstimatorParameters, RateCompare, RateTest};
use dataplane::policy::measure::time::{ALL_MONTHDAYS, ALL_WEEKDAYS};
use dataplane::policy::measure::{ClusterMatch, MeasureMatch, TimeMatch};
use dataplane::policy::payload::bpf::BpfInstruction;
use dataplane::policy::payload::string::{Algorithm, StringSpec};
use dataplane::policy::payload::u32::{U32Step, U32Test};
use dataplane::policy::payload::{BpfMatch, PayloadMatch, StringMatch, U32Match};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::neg;
use crate::model::{MatchBody, MatchSpec, MeasureSpec, MetaSpec, Span, Table, TargetSpec};

/// A pattern out of bytes that headers and payloads have.
pub(crate) fn string() -> impl Strategy<Value = StringMatch> {
    let byte = select(vec![0_u8, 0, 1, 2, 6, 17, 0x40, 0xc6, 0x12, 0xff, 0xdf, b'a', b'A']);
    let algorithm = select(vec![Algorithm::BoyerMoore, Algorithm::KnuthMorrisPratt]);
    let range = (select(vec![0_u16, 0, 8, 20, 40]), select(vec![4_u16, 20, 40, 65_000]));
    (vec(byte, 1..4), any::<bool>(), algorithm, any::<bool>(), range).prop_map(
        |(pattern, negated, algorithm, ignore_case, (from, len))| {
            let pattern = pattern.into();
            let to = from + len;
            StringMatch::new(StringSpec { pattern, negated, algorithm, ignore_case, from, to })
                .expect("a good pattern")
        },
    )
}

/// Numbers out of the headers, some of them behind the packet's end.
pub(crate) fn number() -> impl Strategy<Value = U32Match> {
    let step = prop_oneof![
        3 => select(vec![0xff_u32, 0x3c, 0xf, u32::MAX, 0]).prop_map(U32Step::And),
        1 => (0..32_u32).prop_map(U32Step::Left),
        3 => select(vec![0_u32, 8, 16, 22, 24, 31]).prop_map(U32Step::Right),
        2 => select(vec![0_u32, 1, 4, 12, 40, u32::MAX]).prop_map(U32Step::At),
    ];
    let range = prop_oneof![
        select(vec![0_u32, 6, 17, 0x40, 0x45]).prop_map(|low| Range { low, high: low }),
        (0..0x1_0000_u32).prop_map(|high| Range { low: 0, high }),
        any::<(u32, u32)>().prop_map(|(low, high)| Range { low, high }),
    ];
    let start = prop_oneof![9 => 0..48_u32, 1 => any::<u32>()];
    let test = (start, vec(step, 0..5), vec(range, 1..3)).prop_map(|(start, steps, ranges)| {
        U32Test { start, steps: steps.into(), ranges: ranges.into() }
    });
    (any::<bool>(), vec(test, 1..3))
        .prop_map(|(negated, tests)| U32Match { negated, tests: tests.into() })
}

/// Whatever the checker lets through.
pub(crate) fn program() -> impl Strategy<Value = BpfMatch> {
    let codes = vec![
        0x20_u16, 0x28, 0x30, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x80, 0xb1, 0, 1, 2, 3, 0x60,
        0x61, 0x81, 0x87, 7, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d, 4, 0x0c, 0x14, 0x1c,
        0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x84, 0x94, 0x9c,
        0xa4, 0xac, 5, 6, 0x16,
    ];
    let constant = prop_oneof![
        8 => 0..48_u32,
        2 => select(vec![0xff_u32, 0xffff, 0x45, 6, 17, 22]),
        2 => select(vec![0_u32, 4, 20, 36, 40, 56]).prop_map(|at| 0xffff_f000 + at),
        2 => (0..40_u32).prop_map(|at| 0xfff0_0000 + at),
        2 => (0..40_u32).prop_map(|at| 0xffe0_0000 + at),
        1 => any::<u32>(),
    ];
    let one = (select(codes), 0..3_u8, 0..3_u8, constant)
        .prop_map(|(code, jt, jf, k)| BpfInstruction { code, jt, jf, k });
    (vec(one, 0..12), any::<bool>()).prop_map(|(wild, by_a)| {
        let end = BpfInstruction { code: if by_a { 0x16 } else { 6 }, jt: 0, jf: 0, k: 1 };
        let mut kept: Vec<BpfInstruction> = Vec::new();
        // From behind, each with the rest, so that jumps find where to go.
        for one in wild {
            let program = std::iter::once(one).chain(kept.iter().copied()).chain([end]);
            if BpfMatch::new(program.collect()).is_ok() {
                kept.insert(0, one);
            }
        }
        kept.push(end);
        BpfMatch::new(kept.into()).expect("it was tried")
    })
}

pub(crate) fn payload() -> impl Strategy<Value = Match> {
    let any = prop_oneof![
        string().prop_map(PayloadMatch::String),
        number().prop_map(PayloadMatch::U32),
        program().prop_map(PayloadMatch::Bpf),
    ];
    any.prop_map(|found| Match::Payload(Box::new(found)))
}

/// Around 22:13:20 on Tuesday, 14 November 2023, and any other time.
fn time() -> impl Strategy<Value = TimeMatch> {
    let date = || prop_oneof![1_699_999_990..1_700_000_060_u32, Just(0), Just(i32::MAX as u32)];
    let of_day = || prop_oneof![79_990..80_060_u32, 0..86_400_u32, Just(0), Just(86_399)];
    let monthdays = prop_oneof![Just(ALL_MONTHDAYS), Just(1 << 14), Just(!(1 << 14) & !1)];
    let weekdays = prop_oneof![Just(ALL_WEEKDAYS), Just(1 << 2), Just(1 << 1), Just(!5_u8)];
    (date(), date(), of_day(), of_day(), monthdays, weekdays, any::<bool>()).prop_map(
        |(start, stop, day_start_s, day_stop_s, monthdays, weekdays, flag)| TimeMatch {
            date_start_s: start.min(stop),
            date_stop_s: start.max(stop),
            day_start_s,
            day_stop_s,
            monthdays,
            weekdays,
            contiguous: flag && day_start_s >= day_stop_s,
            kernel_tz: flag,
        },
    )
}

pub(crate) fn measure() -> impl Strategy<Value = Match> {
    let cluster =
        (1..5_u32, any::<(u32, bool, u32)>()).prop_map(|(nodes, (mask, negated, seed))| {
            let mask = (mask & ((1 << nodes) - 1)).max(1);
            ClusterMatch { nodes, mask, negated, seed }
        });
    let any = prop_oneof![
        3 => time().prop_map(MeasureMatch::Time),
        2 => neg(0..=MeasureMatch::CHANCES).prop_map(MeasureMatch::Random),
        1 => neg(0..2_u32).prop_map(MeasureMatch::Cpu),
        2 => cluster.prop_map(MeasureMatch::Cluster),
    ];
    any.prop_map(Match::Measure)
}

/// What the estimators of generated rules are made with.
const ESTIMATOR: EstimatorParameters = EstimatorParameters { interval_log: 1, ewma_log: 2 };

pub(crate) fn rateest() -> MetaSpec {
    MetaSpec::Rateest { name: "est".into(), parameters: ESTIMATOR }
}

/// Those with state.
pub(crate) fn owned() -> impl Strategy<Value = MeasureSpec> {
    let nth = (any::<bool>(), 1..5_u32, any::<u32>()).prop_map(|(negated, every, packet)| {
        MeasureSpec::Nth { negated, every, packet: packet % every }
    });
    let quota = (any::<bool>(), 0..400_u64)
        .prop_map(|(negated, bytes)| MeasureSpec::Quota { negated, bytes });
    let account = select(vec!["web", "mail"]).prop_map(|name| MeasureSpec::Nfacct(name.into()));
    prop_oneof![nth, quota, account]
}

/// A comparison with the estimator of [`rateest`].
pub(crate) fn rated() -> impl Strategy<Value = MeasureSpec> {
    let compare = select(vec![RateCompare::Equal, RateCompare::Less, RateCompare::Greater]);
    let side = || select(vec![0_u32, 1, 10, 100]);
    let flags = any::<(bool, bool, bool)>();
    (compare, side(), side(), flags).prop_map(|(compare, left, right, (delta, negated, bytes))| {
        let sides = Some([if delta { left } else { 0 }, right]);
        let (bytes, packets) = if bytes { (sides, None) } else { (None, sides) };
        let test = RateTest { delta, negated, compare, bytes, packets };
        MeasureSpec::Rateest { test, first: "est".into(), second: None }
    })
}

/// Now and then a rule that measures a rate, and one that asks for it.
pub(crate) fn rate(table: Table) -> impl Strategy<Value = Table> {
    (any::<prop::sample::Index>(), prop::option::weighted(0.2, rated())).prop_map(
        move |(at, asked)| {
            let mut table = table.clone();
            let Some(asked) = asked else { return table };
            let rules = &mut table.chains[0].rules;
            let at = at.index(rules.len());
            rules[at].target = TargetSpec::Meta(rateest());
            let body = MatchBody::Measure(asked);
            let last = rules.len() - 1;
            rules[last].matches.push(MatchSpec { body, span: Span::default() });
            table
        },
    )
}
