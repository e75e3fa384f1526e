//! A tap beside none: two routers of one policy see the same bursts, from one of which
//! packets are taken, and must not differ in anything.

use proptest::prelude::*;

use super::lane::{arriving, process_by, twins};
use super::*;
use crate::engine::{BURST, Switches};
use crate::packet::Family;
use crate::policy::CounterId;
use crate::tap::{self, Filter, Side, Tap, Term, Terms, What};
use crate::wire::proto;

fn filter(choice: usize) -> Filter {
    let term = |what| Term { negated: false, what };
    let terms = match choice {
        0 => vec![term(What::Any)],
        1 => vec![term(What::Proto(proto::TCP))],
        2 => vec![term(What::Input(OUTSIDE))],
        3 => vec![Term { negated: true, what: What::Proto(proto::TCP) }, term(What::Input(INSIDE))],
        _ => vec![
            term(What::Family(Family::V4)),
            term(What::Ports { side: Side::Source, low: 53, high: 53 }),
        ],
    };
    Filter::new(vec![terms])
}

fn opened(filter: Filter, count: u64, room: usize) -> Tap {
    Tap::open(Terms { filter, count, until: Nanos(u64::MAX), rate: None, snaplen: 64, room })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn taking_packets_changes_nothing(
        bursts in prop::collection::vec(prop::collection::vec(arriving(), 1..BURST + 9), 1..6),
        (tracked, counted, source_rules) in (prop::bool::weighted(0.7), any::<bool>(), any::<bool>()),
        (choice, count, room) in (0_usize..5, prop::sample::select(vec![0_u64, 3, 1000]), prop::sample::select(vec![1_usize, 1000])),
        step in prop::sample::select(vec![1_u64, 1_000_000, 40_000_000_000]),
    ) {
        let mut twins = twins(tracked, counted, source_rules);
        let tap = opened(filter(choice), count, room);
        twins.each().into_iter().for_each(|rig| rig.engine.set_switches(Switches::all(true)));
        let mut ends = Vec::new();
        for burst in &bursts {
            let [usual, tapped] = twins.each();
            (usual.now, tapped.now) = (Nanos(usual.now.0 + step), Nanos(tapped.now.0 + step));
            let expected = process_by(usual, burst, |engine, world, slots, seen| {
                engine.process(world, slots, seen);
            });
            let found = process_by(tapped, burst, |engine, world, slots, seen| {
                tap::decide(engine, world, &tap, (slots, false), seen);
            });
            let wanted = |(at, frame): &&(PortId, Vec<u8>)| filter(choice).matches(frame, Some(*at));
            ends.extend(burst.iter().zip(&expected).filter(|it| wanted(&it.0)).map(|it| it.1.0));
            prop_assert_eq!(expected, found);
            // Pieces of a burst count from zero.
            for rig in twins.each() {
                rig.seen.outcomes.iter_mut().for_each(|outcome| outcome.index = 0);
            }
            twins.compare();
        }
        ends.truncate(count as usize);
        let counts = tap.counts();
        prop_assert_eq!(counts.taken, ends.len() as u64);
        prop_assert_eq!(counts.lost, ends.len().saturating_sub(room) as u64);
        ends.truncate(room);
        let records: Vec<_> = std::iter::from_fn(|| tap.take()).collect();
        let told: Vec<_> = records.iter().map(|record| record.disposition).collect();
        prop_assert_eq!(told, ends);
        prop_assert!(records.iter().all(|record| record.frame.len() <= 64));
    }
}

#[test]
fn a_record_tells_the_way_of_an_established_packet_whole() {
    let mut twins = twins(true, true, false);
    let [_, rig] = twins.each();
    rig.engine.set_switches(Switches::all(true));
    let there = Packet::udp(CLIENT, 4000, SERVER, 53).macs(HOST_MACS[0], PORT_MACS[0]).build();
    let back = Packet::udp(SERVER, 53, CLIENT, 4000).macs(HOST_MACS[1], PORT_MACS[1]).build();
    for (port, frame) in [(INSIDE, &there), (OUTSIDE, &back)].repeat(3) {
        rig.arrive(port, frame);
    }
    assert!(rig.stats.plans.followed.get() > 0, "the usual road is the short one");
    let tap = opened(filter(4), 10, 10);
    let burst = [(INSIDE, there), (OUTSIDE, back.clone())];
    process_by(rig, &burst, |engine, world, slots, seen| {
        tap::decide(engine, world, &tap, (slots, false), seen);
    });
    let record = tap.take().expect("the answer was taken");
    assert!(tap.take().is_none(), "and nothing else");
    assert_eq!((record.input, record.disposition), (Some(OUTSIDE), Disposition::Transmit(INSIDE)));
    assert_eq!(record.steps.len(), 2, "a rule and the policy: {:?}", record.steps);
    assert_eq!((record.before.ip.unwrap().ttl, record.after.ip.unwrap().ttl), (64, 63));
    assert_eq!(record.connection.unwrap().original.sport, 4000);
    assert_eq!(&record.frame[..], &back[..record.frame.len()]);
    let counted = rig.snapshot.count(CounterId(0));
    assert_eq!(counted.0, 8, "each packet once");
}
