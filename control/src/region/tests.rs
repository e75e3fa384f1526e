//! Regions against every packet of a small world.

use dataplane::packet::Family;
use proptest::prelude::*;

use super::*;

/// Few values a field, so that all packets can be tried.
const SPACE: Space = Space { family: Family::V4, classes: [0b11, 0b1, 0b11, 0b1] };
const VALUES: u128 = 4;

fn ranges() -> impl Strategy<Value = Ranges> {
    let some = prop::collection::vec((0..VALUES, 0..VALUES), 1..3).prop_map(|some| {
        Ranges::union(some.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect())
    });
    prop_oneof![Just(Ranges::of(0, VALUES - 1)), some]
}

fn region() -> impl Strategy<Value = Region> {
    let classes = (1_u64..4, 1_u64..4);
    let atoms = prop::collection::vec((0_u32..2, any::<bool>()), 0..2);
    (ranges(), ranges(), ranges(), classes, 0_u8..4, atoms).prop_map(
        |(src, dst, dport, (iif, state), proto, atoms)| {
            let mut region = world();
            region.src = src;
            region.dst = dst;
            region.dport = dport;
            region.classes[0] = iif;
            region.classes[2] = state;
            region.proto = Bytes::of(|it| it < 2 && (proto == 3 || it == proto % 2));
            for (atom, holds) in atoms {
                region.suppose(Atom(atom), holds);
            }
            region
        },
    )
}

/// All packets of the small world.
fn world() -> Region {
    let small = Ranges::of(0, VALUES - 1);
    Region {
        src: small.clone(),
        dst: small.clone(),
        sport: Ranges::of(0, 0),
        dport: small,
        proto: Bytes::of(|it| it < 2),
        flags: Bytes::of(|it| it == 0),
        ..Region::all(&SPACE)
    }
}

fn packets() -> impl Iterator<Item = Point> {
    let small = 0..VALUES;
    let addresses = small.clone().flat_map(|src| (0..VALUES).map(move |dst| (src, dst)));
    let ports = addresses.flat_map(move |ends| small.clone().map(move |port| (ends, port as u16)));
    let rest = (0_u8..32).map(|bits| {
        let bit = |at: u8| bits >> at & 1;
        let atoms =
            (0..2).filter(|at| bit(3 + at) != 0).map(|at| Atom(at.into())).collect::<Vec<_>>();
        ([1 << bit(0), 1, 1 << bit(1), 1], bit(2), atoms)
    });
    let rest: Vec<_> = rest.collect();
    ports.flat_map(move |((src, dst), dport)| {
        rest.clone().into_iter().map(move |(classes, proto, atoms)| Point {
            src,
            dst,
            sport: 0,
            dport,
            proto,
            flags: 0,
            classes,
            atoms,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cutting_and_meeting_are_those_of_packets(a in region(), b in region()) {
        let (pieces, both) = (a.minus(&b), a.and(&b));
        let (mut meets, mut within) = (false, true);
        for point in packets() {
            let (in_a, in_b) = (a.contains(&point), b.contains(&point));
            meets |= in_a && in_b;
            within &= in_b || !in_a;
            let hits = pieces.iter().filter(|piece| piece.contains(&point)).count();
            prop_assert_eq!(hits, usize::from(in_a && !in_b), "{:?}", point);
            prop_assert_eq!(both.as_ref().is_some_and(|it| it.contains(&point)), in_a && in_b);
        }
        prop_assert_eq!(a.meets(&b), meets);
        prop_assert_eq!(a.within(&b), within);
        prop_assert_eq!(a.minus(&b).is_empty(), within);
    }

    #[test]
    fn covers_are_told_from_what_lies_open(
        a in region(),
        covers in prop::collection::vec(prop::collection::vec(region(), 1..3), 0..7),
    ) {
        let slices: Vec<&[Region]> = covers.iter().map(|it| &it[..]).collect();
        let covered_by = |point: &Point, some: &[usize]| {
            some.iter().any(|at| covers[*at].iter().any(|it| it.contains(point)))
        };
        match cover(&a, &slices, &mut Effort(1_000_000)) {
            Cover::Whole(used) => {
                let open = packets().find(|point| a.contains(point) && !covered_by(point, &used));
                prop_assert_eq!(open, None);
            }
            Cover::Open(point) => {
                let all: Vec<usize> = (0..covers.len()).collect();
                prop_assert!(a.contains(&point), "{:?} is not in the region", point);
                prop_assert!(!covered_by(&point, &all), "{:?} is covered", point);
            }
            Cover::Unknown => prop_assert!(false, "this is little work"),
        }
    }
}

#[test]
fn effort_is_bounded() {
    let mut covers = Vec::new();
    for at in 0..VALUES {
        let mut one = world();
        one.src = Ranges::of(at, at);
        covers.push(vec![one]);
    }
    let slices: Vec<&[Region]> = covers.iter().map(|it| &it[..]).collect();
    assert_eq!(cover(&world(), &slices, &mut Effort(3)), Cover::Unknown);
    assert_eq!(cover(&world(), &slices, &mut Effort(1_000)), Cover::Whole(vec![0, 1, 2, 3]));
    assert!(
        matches!(cover(&world(), &slices[1..], &mut Effort(1_000)), Cover::Open(p) if p.src == 0)
    );
}
