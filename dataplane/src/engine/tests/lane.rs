//! The short lane beside the long road, burst by burst: frames that are nearly plain, of a
//! tracked family with plans and of one that meets no rule, in any order.

use classifier::Masked;
use proptest::prelude::*;

use super::planned::Twins;
use super::*;
use crate::engine::BURST;
use crate::fib::RuleEntry;
use crate::packet::Family;
use crate::policy::matches::Range;
use crate::policy::target::{NatRange, NatTarget, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};
use crate::wire::build::address_bits;
use crate::wire::tcp::flags::{ACK, FIN, PSH, RST};

/// A frame, and the port that it comes in by.
pub(super) type Arriving = (PortId, Vec<u8>);

/// The server's network takes small packets; a host behind it has a router, one of whose
/// ways is for smaller ones still.
fn topology_of_lanes(source_rules: bool) -> Topology {
    let mut topology = topology();
    topology.ports[1].mtu = 300;
    let via = |to, mtu| RouteEntry {
        via: Some(ip(SERVER)),
        mtu,
        ..route(to, RouteKind::Unicast(OUTSIDE))
    };
    topology.routes = vec![
        via(("203.0.113.0", 24), None),
        via(("203.0.113.128", 25), Some(100)),
        route(("192.0.2.0", 24), RouteKind::Blackhole),
        route(("192.0.3.0", 24), RouteKind::Unreachable),
    ];
    if source_rules {
        let from = Some((ip("198.18.1.0"), 24));
        let rule = |priority, from, table| RuleEntry {
            family: Family::V4,
            priority,
            fwmark: None,
            from,
            to: None,
            iif: None,
            table,
            realms: Realms::default(),
        };
        topology.rules = vec![rule(0, None, 255), rule(9, from, 254), rule(99, None, 254)];
    }
    topology
}

/// What clients outside see of those inside.
const WAN: &str = "198.18.2.1";
/// What is the server's other name to those inside.
const VIRTUAL: &str = "203.0.113.7";

/// Translates the source, the destination, or both.
fn translate(v4: &mut Builder<u32>, [source, destination]: [bool; 2]) {
    let range = |address: &str, ports: Option<(u16, u16)>| NatRange {
        addresses: Some(Range { low: address_bits(ip(address)), high: address_bits(ip(address)) }),
        ports: ports.map(|(low, high)| Range { low, high }),
        ..NatRange::default()
    };
    if source {
        let rule = Spec::any(Target::Nat(NatTarget::Snat(range(WAN, None)))).output(OUTSIDE.bit());
        v4.builtin(TableId::Nat, Hook::Postrouting, ChainPolicy::Accept, vec![rule]);
    }
    if destination {
        let to = Target::Nat(NatTarget::Dnat(range(SERVER, Some((53, 53)))));
        let mut rule = Spec::any(to);
        rule.base.dst = (Masked::new(address_bits(ip(VIRTUAL)) as u32, u32::MAX), false);
        v4.builtin(TableId::Nat, Hook::Prerouting, ChainPolicy::Accept, vec![rule]);
    }
}

pub(super) fn twins(tracked: bool, counted: bool, source_rules: bool) -> Twins {
    translating(tracked, counted, source_rules, [false; 2])
}

fn translating(tracked: bool, counted: bool, source_rules: bool, translated: [bool; 2]) -> Twins {
    Twins::over(&topology_of_lanes(source_rules), || {
        let (mut v4, v6) = builders();
        v4.needs_conntrack = tracked;
        if tracked {
            translate(&mut v4, translated);
        }
        if counted {
            let (filter, forward) = (TableId::Filter, Hook::Forward);
            v4.builtin(filter, forward, ChainPolicy::Accept, vec![Spec::any(Target::Count)]);
        }
        join(v4, v6)
    })
}

/// What is unusual of a packet.
#[derive(Clone, Copy, Debug)]
enum Oddity {
    Nothing,
    Padding,
    Priority,
    Tag,
    OtherHost,
    Broadcast,
    Options,
    BadHeader,
    BadSum,
    NoSum,
    ShortLength,
    First,
    Later,
    Cut,
    Whole,
}

fn built(
    tcp: bool,
    there: bool,
    (peer, size, ttl, tos): (usize, usize, u8, u8),
    odd: Oddity,
) -> Arriving {
    const PEERS: [&str; 12] = [
        SERVER,
        SERVER,
        SERVER,
        "203.0.113.7",
        "203.0.113.200",
        "192.0.2.9",
        "192.0.3.9",
        "198.18.2.1",
        "127.0.0.1",
        "224.0.0.5",
        "255.255.255.255",
        "0.0.0.1",
    ];
    let (peer, index) = (PEERS[peer % PEERS.len()], usize::from(!there));
    let (src, dst) = match there {
        true => (CLIENT, peer),
        false if size % 2 == 0 => (peer, WAN),
        false => (peer, CLIENT),
    };
    let ports = if there { (4000, 53) } else { (53, 4000) };
    let flags = if size % 7 == 0 { FIN | ACK } else { ACK };
    let packet = match tcp {
        true => Packet::tcp(src, ports.0, dst, ports.1, flags).seq(100, 100),
        false => Packet::udp(src, ports.0, dst, ports.1),
    };
    let to = match odd {
        Oddity::OtherHost => Mac([2, 7, 7, 7, 7, 7]),
        Oddity::Broadcast => Mac([0xff; 6]),
        _ => PORT_MACS[index],
    };
    let packet = packet.payload_len(size).ttl(ttl).tos(tos).macs(HOST_MACS[index], to);
    let packet = match odd {
        Oddity::Padding => packet.padding(9),
        Oddity::Priority => packet.tag(0x8100, 0x6000),
        Oddity::Tag => packet.tag(0x8100, 0x6005),
        Oddity::Options => packet.options(&[1, 1, 1, 0]),
        Oddity::BadHeader => packet.bad_ip_checksum(),
        Oddity::BadSum => packet.bad_l4_checksum(),
        Oddity::NoSum => packet.no_udp_checksum(),
        Oddity::ShortLength => packet.length(20 + 5),
        Oddity::First => packet.fragment(0, 8, true),
        Oddity::Later => packet.fragment(8, 8, false),
        Oddity::Cut => packet.truncate(20 + 14 + 6),
        Oddity::Whole => packet.df(),
        Oddity::Nothing | Oddity::OtherHost | Oddity::Broadcast => packet,
    };
    (PortId(index as u8), packet.build())
}

pub(super) fn arriving() -> impl Strategy<Value = Arriving> {
    use Oddity::*;
    let odd = prop::sample::select(vec![
        Padding,
        Priority,
        Tag,
        OtherHost,
        Broadcast,
        Options,
        BadHeader,
        BadSum,
        NoSum,
        ShortLength,
        First,
        Later,
        Cut,
        Whole,
    ]);
    let odd = prop_oneof![3 => Just(Nothing), 2 => odd];
    let peer = prop_oneof![3 => Just(0_usize), 1 => 0_usize..12];
    let ttl = prop_oneof![4 => Just(64_u8), 1 => 0_u8..4];
    let size = prop_oneof![3 => 0_usize..40, 1 => 40_usize..400];
    (prop::bool::weighted(0.2), any::<bool>(), (peer, size, ttl, 0_u8..2), odd)
        .prop_map(|(tcp, there, facts, odd)| built(tcp, there, facts, odd))
}

/// One segment of a conversation, as far as it is not what the model says: how far from it
/// the numbers are.
#[derive(Clone, Debug)]
struct Said {
    there: bool,
    flags: u8,
    size: usize,
    seq: u32,
    ack: u32,
    window: u16,
    options: &'static [u8],
    broken: bool,
    tos: u8,
}

fn said() -> impl Strategy<Value = Said> {
    const PSH_ACK: u8 = ACK | PSH;
    const STAMPS: &[u8] = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    const SACK: &[u8] = &[1, 1, 5, 10, 0, 0, 0x20, 0, 0, 0, 0x40, 0];
    let flags = prop_oneof![
        12 => Just(ACK),
        12 => Just(PSH_ACK),
        1 => prop::sample::select(vec![FIN | ACK, RST, RST | ACK, SYN, SYN_ACK, 0, 0xc0 | ACK]),
    ];
    let distances = vec![1_u32, u32::MAX, 30_000, 70_000, 0_u32.wrapping_sub(70_000), 1 << 30];
    let off = || prop_oneof![12 => Just(0_u32), 1 => prop::sample::select(distances.clone())];
    let window = prop::sample::select(vec![0_u16, 1000, 30_000, u16::MAX]);
    let options = prop::sample::select(vec![&[][..], &[][..], STAMPS, SACK]);
    let size = prop_oneof![2 => Just(0_usize), 3 => 0_usize..200];
    let rest = (window, options, prop::bool::weighted(0.03), 0_u8..2);
    (any::<bool>(), flags, size, off(), off(), rest).prop_map(
        |(there, flags, size, seq, ack, (window, options, broken, tos))| Said {
            there,
            flags,
            size,
            seq,
            ack,
            window,
            options,
            broken,
            tos,
        },
    )
}

/// The conversation's frames, from its handshake on.
fn conversation(segments: &[Said], translated: [bool; 2], seen_open: bool) -> Vec<Arriving> {
    const OFFER: &[u8] = &[2, 4, 5, 180, 4, 2, 1, 3, 3, 4];
    let server = if translated[1] { VIRTUAL } else { SERVER };
    let client = if translated[0] { WAN } else { CLIENT };
    let plain = Said {
        there: true,
        flags: SYN,
        size: 0,
        seq: 0,
        ack: 0,
        window: 30_000,
        options: OFFER,
        broken: false,
        tos: 0,
    };
    let opening = [
        plain.clone(),
        Said { there: false, flags: SYN_ACK, ..plain.clone() },
        Said { flags: ACK, options: &[], ..plain },
    ];
    let mut next = [u32::MAX - 100, 5000];
    let skipped = if seen_open { 0 } else { opening.len() };
    let frame = |said: &Said| {
        let Said { there, flags, size, window, options, .. } = *said;
        let (own, other) = (usize::from(!there), usize::from(there));
        let packet = match there {
            true => Packet::tcp(CLIENT, 4000, server, 53, flags),
            false => Packet::tcp(SERVER, 53, client, 4000, flags),
        };
        let numbers = (next[own].wrapping_add(said.seq), next[other].wrapping_add(said.ack));
        let taken = size as u32 + u32::from(flags & (SYN | FIN) != 0);
        if said.seq == 0 && !said.broken {
            next[own] = next[own].wrapping_add(taken);
        }
        let packet = packet.seq(numbers.0, numbers.1).window(window).tcp_options(options);
        let packet = packet.payload_len(size).tos(said.tos);
        let packet = if said.broken { packet.bad_l4_checksum() } else { packet };
        (PortId(own as u8), packet.macs(HOST_MACS[own], PORT_MACS[own]).build())
    };
    opening.iter().chain(segments).map(frame).skip(skipped).collect()
}

/// Takes a burst through a router: what became of each frame, and its bytes.
fn process(rig: &mut Rig, burst: &[Arriving]) -> Vec<(Disposition, Vec<u8>)> {
    process_by(rig, burst, |engine, world, slots, seen| engine.process(world, slots, seen))
}

/// The same, by whoever decides.
pub(super) fn process_by(
    rig: &mut Rig,
    burst: &[Arriving],
    decide: impl FnOnce(&mut Engine, &World<'_>, &mut [Slot<'_>], &mut Recorder),
) -> Vec<(Disposition, Vec<u8>)> {
    const ROOM: usize = 64;
    let room = |frame: &Vec<u8>| [&[0; ROOM][..], frame, &[0; ROOM]].concat();
    let mut buffers: Vec<_> = burst.iter().map(|(_, frame)| room(frame)).collect();
    let disposition = Disposition::Drop(DropReason::FaultInjected);
    let arrived = buffers.iter_mut().zip(burst).map(|(buf, (port, frame))| Slot {
        buf,
        start: ROOM,
        len: frame.len(),
        port: *port,
        disposition,
    });
    let mut slots: Vec<_> = arrived.collect();
    let Rig { snapshot, network, conntrack, stats, engine, seen, now } = rig;
    let world = World { snapshot, worker: 0, network, conntrack, stats, now: *now };
    decide(engine, &world, &mut slots, seen);
    slots.iter().map(|slot| (slot.disposition, slot.frame().to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn bursts_of_nearly_plain_frames_end_as_on_the_long_road(
        bursts in prop::collection::vec(prop::collection::vec(arriving(), 1..BURST + 9), 1..6),
        (tracked, counted, source_rules) in (prop::bool::weighted(0.7), any::<bool>(), prop::bool::weighted(0.2)),
        translated in any::<[bool; 2]>(),
        step in prop::sample::select(vec![1_u64, 1_000_000, 1_900_000_000, 40_000_000_000]),
    ) {
        let mut twins = translating(tracked, counted, source_rules, translated);
        for burst in bursts {
            let [plain, planned] = twins.each().map(|rig| {
                rig.now = Nanos(rig.now.0 + step);
                process(rig, &burst)
            });
            prop_assert_eq!(plain, planned);
            twins.compare();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn conversations_are_tracked_as_on_the_long_road(
        segments in prop::collection::vec(said(), 1..80),
        (translated, seen_open) in (any::<[bool; 2]>(), prop::bool::weighted(0.8)),
        knobs in (any::<bool>(), prop::bool::weighted(0.2)),
        (size, step) in (1_usize..9, prop::sample::select(vec![1_u64, 1_000_000, 9_000_000_000])),
    ) {
        let mut twins = translating(true, true, false, translated);
        for rig in twins.each() {
            rig.conntrack.set("acct", knobs.0.into()).unwrap();
            rig.conntrack.set("tcp_be_liberal", knobs.1.into()).unwrap();
        }
        for burst in conversation(&segments, translated, seen_open).chunks(size) {
            let [plain, planned] = twins.each().map(|rig| {
                rig.now = Nanos(rig.now.0 + step);
                process(rig, burst)
            });
            prop_assert_eq!(plain, planned);
            twins.compare();
        }
    }
}

#[test]
fn most_of_a_conversation_follows_plans() {
    let said = |at: usize| Said {
        there: at.is_multiple_of(2),
        flags: ACK,
        size: 40,
        seq: 0,
        ack: 0,
        window: 30_000,
        options: &[],
        broken: false,
        tos: 0,
    };
    let segments: Vec<Said> = (0..40).map(said).collect();
    for translated in [[false; 2], [true, false], [true; 2]] {
        let mut twins = translating(true, true, false, translated);
        for frame in conversation(&segments, translated, true) {
            let [plain, planned] =
                twins.each().map(|rig| process(rig, std::slice::from_ref(&frame)));
            assert_eq!(plain, planned);
        }
        twins.compare();
        assert!(twins.followed() >= 36, "{translated:?}: {}", twins.followed());
    }
}

#[test]
fn without_rules_and_tracking_a_plain_packet_goes_straight() {
    let mut twins = twins(false, false, false);
    let (port, frame) = built(false, true, (3, 10, 9, 0), Oddity::Padding);
    let [plain, planned] = twins.each().map(|rig| process(rig, &[(port, frame.clone())]));
    assert_eq!(plain, planned);
    assert_eq!(planned[0].0, Disposition::Transmit(OUTSIDE));
    let expected = Packet::udp(CLIENT, 4000, "203.0.113.7", 53).payload_len(10).ttl(8);
    assert_eq!(planned[0].1, expected.macs(PORT_MACS[1], HOST_MACS[1]).build());
}
