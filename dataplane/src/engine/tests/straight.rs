//! The straight road beside the long one: two routers, one of which lets packets go
//! straight through, see the same bursts and must not differ in anything.

use proptest::prelude::*;

use super::*;
use crate::engine::Switches;
use crate::policy::matches::{HopCompare, Match};
use crate::policy::target::Target;
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, CounterId, Hook, TableId};

/// Where packets go to, or come from: neighbours, our own, nobody, ways of every kind.
const PLACES: [&str; 14] = [
    CLIENT,
    SERVER,
    "198.18.1.1",
    "198.18.2.9",
    "198.18.2.255",
    "203.0.113.5",
    "203.0.113.130",
    "192.0.2.1",
    "10.1.1.1",
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
    "172.16.0.1",
];
const PLACES6: [&str; 10] = [
    CLIENT6,
    SERVER6,
    "2001:db8:1::1",
    "2001:db8:2::9",
    "2001:db8:9::1",
    "2001:db8:a::1",
    "fe80::5",
    "ff02::1",
    "::1",
    "2001:db8:2::",
];

fn world() -> Topology {
    let mut topology = topology();
    let out = RouteKind::Unicast(OUTSIDE);
    let via = |to: (&str, u8), via: &str, mtu| {
        let (via, mtu) = (Some(via.parse().unwrap()), mtu);
        RouteEntry { via, mtu, ..route(to, out) }
    };
    topology.routes = vec![
        via(("203.0.113.0", 25), SERVER, None),
        via(("203.0.113.128", 25), SERVER, Some(600)),
        route(("192.0.2.0", 24), RouteKind::Prohibit),
        route(("172.16.0.0", 16), RouteKind::Blackhole),
        via(("2001:db8:9::", 48), SERVER6, None),
        via(("2001:db8:a::", 48), SERVER6, Some(1300)),
        route(("10.0.0.0", 8), RouteKind::Unicast(INSIDE)),
    ];
    topology
}

/// One frame, and the port that it arrives on.
fn frames() -> impl Strategy<Value = (PortId, Vec<u8>)> {
    let ends = (any::<bool>(), 0..PLACES.len(), 0..PLACES.len());
    let sizes = prop_oneof![Just(0_usize), 1..64_usize, 560..620_usize, 1200..1500_usize];
    let odd = (0..12_u8, 0..4_u8, any::<bool>(), any::<bool>());
    (ends, sizes, odd, 0..5_u8).prop_map(|((v6, src, dst), size, odd, mac)| {
        let (kind, ttl, df, down) = odd;
        let place = |at: usize| if v6 { PLACES6[at % PLACES6.len()] } else { PLACES[at] };
        let (src, dst) = (place(src), place(dst));
        let packet = match kind {
            0 => Packet::tcp(src, 4000, dst, 80, SYN),
            1 => Packet::ping(src, dst, 1, 1),
            2 => Packet::raw(src, dst, 47, &[0; 9]),
            _ => Packet::udp(src, 4000, dst, 53),
        };
        let packet = packet.payload_len(size).ttl(ttl * 21).padding(usize::from(kind));
        let packet = match kind {
            3 if !v6 => packet.options(&[7, 7, 4, 0, 0, 0, 0, 0]),
            3 => packet.extension(0, &[0, 0, 1, 4, 0, 0, 0, 0]),
            4 => packet.fragment(0, size.max(8) / 2 / 8 * 8 + 8, true),
            5 => packet.fragment(8, size.max(8) / 2 / 8 * 8, false),
            6 => packet.bad_ip_checksum(),
            7 => packet.bad_l4_checksum(),
            8 => packet.tag(0x8100, if df { 0x6000 } else { 5 }),
            _ => packet,
        };
        let packet = if df && !v6 { packet.df() } else { packet };
        let port = if down { OUTSIDE } else { INSIDE };
        let to = match mac {
            0 => Mac([0xff; 6]),
            1 => Mac([2, 9, 9, 9, 9, 9]),
            _ => PORT_MACS[port.index()],
        };
        (port, packet.macs(HOST_MACS[port.index()], to).build())
    })
}

/// A rule: which address it looks for under which mask, a destination port, what it does.
type Written = ((usize, u8), Option<u16>, u8);

fn rules() -> impl Strategy<Value = Vec<Written>> {
    let address = (0..PLACES.len(), prop_oneof![Just(0), Just(8), Just(16), Just(24), Just(32)]);
    let port = proptest::option::of(prop_oneof![Just(53), Just(80), Just(4000)]);
    // Mostly what ends a walk, some of what does not.
    let deed = prop_oneof![12 => 0..2_u8, 1 => 2..7_u8];
    proptest::collection::vec((address, port, deed), 0..40)
}

/// The filter's FORWARD chain, of this policy.
fn filter<A: classifier::Address>(
    builder: &mut Builder<A>,
    rules: &[Written],
    policy: ChainPolicy,
    places: &[&str],
) {
    let callee = builder.user(TableId::Filter, vec![Spec::any(Target::Count)]);
    let spec = |&((place, length), port, deed): &Written| {
        let mask = u128::MAX << (32 - u32::from(length));
        let bits = crate::wire::build::address_bits(ip(places[place % places.len()]));
        let target = match deed {
            0 | 4 => Target::Accept,
            1 | 5 => Target::Drop,
            2 => Target::Count,
            3 => Target::Jump(callee),
            _ => Target::Return,
        };
        let spec = Spec::any(target).src(A::from_u128(bits & mask), A::from_u128(mask), deed == 5);
        let spec = match port {
            Some(port) => spec.udp_dport(port, port),
            None => spec,
        };
        if deed == 4 { spec.with(Match::Hops(HopCompare::Greater(21))) } else { spec }
    };
    builder.builtin(TableId::Filter, Hook::Forward, policy, rules.iter().map(spec).collect());
}

/// A router each, of which one has the road closed.
fn twins(policy: impl Fn() -> Policy) -> [Rig; 2] {
    [true, false].map(|straight| {
        let mut rig = Rig::new(&world(), policy());
        rig.engine.set_switches(Switches { straight, ..Switches::default() });
        rig
    })
}

/// All that can be told of a router that was fed a burst.
fn fed(rig: &mut Rig, arriving: &[(PortId, Vec<u8>)]) -> String {
    const ROOM: usize = 64;
    let mut buffers: Vec<Vec<u8>> =
        arriving.iter().map(|(_, frame)| [&[0; ROOM][..], frame, &[0; ROOM]].concat()).collect();
    let slots = buffers.iter_mut().zip(arriving).map(|(buf, (port, frame))| Slot {
        buf,
        start: ROOM,
        len: frame.len(),
        port: *port,
        disposition: Disposition::Drop(DropReason::NoFrame),
    });
    let mut slots: Vec<_> = slots.collect();
    let Rig { snapshot, network, conntrack, stats, engine, seen, now } = rig;
    let (snapshot, network, conntrack, stats) = (&*snapshot, &*network, &*conntrack, &*stats);
    let world = World { snapshot, worker: 0, network, conntrack, stats, now: *now };
    engine.process(&world, &mut slots, seen);
    let ended: Vec<_> = slots.iter().map(|slot| (slot.disposition, slot.frame())).collect();
    let counts: Vec<_> =
        (0..snapshot.policy.counters).map(|id| snapshot.counters(0).get(CounterId(id))).collect();
    let drops: Vec<u64> = DropReason::ALL.iter().map(|&why| stats.drops(why)).collect();
    let told = format!("{ended:02x?} {counts:?} {drops:?} {seen:?}");
    *seen = Recorder::default();
    told
}

proptest! {
    #[test]
    fn nobody_can_tell(
        arriving in proptest::collection::vec(frames(), 1..90),
        rules in proptest::option::of(rules()),
        dropping: bool,
    ) {
        let policy = if dropping { ChainPolicy::Drop } else { ChainPolicy::Accept };
        let twins = twins(|| {
            let (mut v4, mut v6) = builders();
            if let Some(rules) = &rules {
                filter(&mut v4, rules, policy, &PLACES);
                filter(&mut v6, rules, policy, &PLACES6);
            }
            join(v4, v6)
        });
        let [straight, long] = twins.map(|mut rig| fed(&mut rig, &arriving));
        prop_assert_eq!(straight, long);
    }
}

#[test]
fn the_road_is_open_past_rules_that_end_walks() {
    let rules = vec![((0, 32), Some(53), 0), ((1, 32), None, 1)];
    let policy = || {
        let (mut v4, v6) = builders();
        filter(&mut v4, &rules, ChainPolicy::Drop, &PLACES);
        join(v4, v6)
    };
    let rig = Rig::new(&world(), policy());
    let Rig { snapshot, network, conntrack, stats, engine, now, .. } = &rig;
    let world = World { snapshot, worker: 0, network, conntrack, stats, now: *now };
    let frame = Packet::udp(CLIENT, 1, SERVER, 53).macs(HOST_MACS[0], PORT_MACS[0]).build();
    let frames = [crate::wire::parse(&frame, PORT_MACS[0])];
    let mut buf = frame.clone();
    let len = buf.len();
    let disposition = Disposition::Deliver;
    let slots = [Slot { buf: &mut buf, start: 0, len, port: INSIDE, disposition }];
    assert!(engine.ready_straight(&world).plan(&world, &slots, &frames)[0].is_some());
}

#[test]
fn rules_elsewhere_and_tracking_close_it() {
    let frame = Packet::udp(CLIENT, 1, SERVER, 2).macs(HOST_MACS[0], PORT_MACS[0]).build();
    let dropping = |hook| {
        move || {
            let (mut v4, v6) = builders();
            let drop = vec![Spec::any(Target::Drop)];
            v4.builtin(TableId::Mangle, hook, ChainPolicy::Accept, drop);
            join(v4, v6)
        }
    };
    for hook in [Hook::Prerouting, Hook::Forward, Hook::Postrouting] {
        let mut rig = Rig::new(&world(), dropping(hook)());
        let dropped = Disposition::Drop(DropReason::Rule);
        assert_eq!(rig.arrive(INSIDE, &frame).disposition, dropped);
    }
    let mut rig = Rig::new(&world(), {
        let (mut v4, v6) = builders();
        v4.needs_conntrack = true;
        join(v4, v6)
    });
    assert_eq!(rig.arrive(INSIDE, &frame).disposition, Disposition::Transmit(OUTSIDE));
    assert_eq!(rig.conntrack.len(), 1);
}
