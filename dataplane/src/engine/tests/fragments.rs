//! Fragments on the road: whole before the first hook, in pieces on the way out.

use super::*;
use crate::conntrack::CtState;
use crate::packet::Family;
use crate::policy::testing::Recorder;
use crate::wire::ipv4;

/// A rig whose both families are tracked.
fn tracked(change: impl FnOnce(&mut Topology)) -> Rig {
    let (mut v4, mut v6) = builders();
    (v4.needs_conntrack, v6.needs_conntrack) = (true, true);
    let mut topology = topology();
    change(&mut topology);
    Rig::new(&topology, join(v4, v6))
}

fn pieces(packet: &Packet) -> [Packet; 3] {
    [(0, 1200, true), (1200, 600, true), (1800, 200, false)]
        .map(|(offset, len, more)| packet.clone().fragment(offset, len, more))
}

fn udp(id: u32) -> Packet {
    Packet::udp(CLIENT, 5000, SERVER, 53).payload_len(1992).id(id).ttl(9)
}

#[test]
fn fragments_cross_once_and_keep_their_sizes() {
    for packet in [udp(1), Packet::udp(CLIENT6, 5000, SERVER6, 53).payload_len(1992).id(1).ttl(9)] {
        let mut rig = tracked(|_| {});
        let [first, second, third] = pieces(&packet);
        assert_eq!(rig.up(third).disposition, Disposition::Collected);
        assert_eq!(rig.up(first).disposition, Disposition::Collected);
        assert!(rig.seen.emitted.is_empty() && rig.conntrack.is_empty());
        assert_eq!(rig.up(second).disposition, Disposition::Fragmented);
        let macs = |packet: Packet| packet.macs(PORT_MACS[1], HOST_MACS[1]).ttl(8).build();
        let expected = pieces(&packet).map(|piece| (OUTSIDE, macs(piece)));
        assert_eq!(rig.seen.emitted, expected);
        assert_eq!(rig.conntrack.len(), 1);
        let outcome = rig.seen.outcomes.last().unwrap();
        assert_eq!(outcome.tracking.state, CtState::New);
        assert_eq!((rig.stats.collected.get(), rig.stats.reassembled.get()), (2, 1));
    }
}

#[test]
fn a_datagram_for_this_machine_is_whole_even_when_untracked() {
    let own = || Packet::ping(CLIENT, "198.18.1.1", 1, 1).payload_len(1992).id(4);
    for tracks in [false, true] {
        let mut rig = Rig::v4(|builder| builder.needs_conntrack = tracks);
        let [first, second, third] = pieces(&own());
        rig.up(first);
        rig.up(second);
        assert!(rig.seen.delivered.is_empty());
        assert_eq!(rig.up(third).disposition, Disposition::Delivered);
        let [whole] = &rig.seen.delivered[..] else { panic!("{:?}", rig.seen.delivered) };
        assert_eq!(whole[14..], own().build_ip());
    }
}

#[test]
fn our_own_fragments_are_tracked_whole() {
    let mut rig = tracked(|_| {});
    let packet = Packet::udp("198.18.2.1", 5000, SERVER, 53).payload_len(1992).id(5);
    let ended = pieces(&packet).map(|piece| rig.own(piece).disposition);
    assert_eq!(ended[1..], [Disposition::Collected, Disposition::Fragmented]);
    assert_eq!((rig.seen.emitted.len(), rig.conntrack.len()), (3, 1));
}

#[test]
fn overlapping_fragments_leave_nothing_behind() {
    let mut rig = tracked(|_| {});
    let [first, _, third] = pieces(&udp(6));
    rig.up(first);
    let over = udp(6).fragment(1192, 608, true);
    assert_eq!(rig.up(over).disposition, dropped(DropReason::ReassemblyOverlap));
    // The one that was kept; a frame of the burst is counted by whoever drives.
    assert_eq!(rig.stats.drops(DropReason::ReassemblyOverlap), 1);
    assert_eq!(rig.up(third).disposition, Disposition::Collected);
    assert!(rig.seen.emitted.is_empty() && rig.conntrack.is_empty());
}

#[test]
fn don_t_fragment_is_answered_when_a_fragment_was_too_long() {
    for (mtu, sent) in [(1220, true), (1219, false)] {
        let mut rig = tracked(|topology| topology.ports[1].mtu = mtu);
        let ended = pieces(&udp(7).df()).map(|piece| rig.up(piece).disposition);
        let (port, frame) = rig.seen.emitted.remove(0);
        match sent {
            true => assert_eq!((ended[2], port), (Disposition::Fragmented, OUTSIDE)),
            false => {
                assert_eq!((ended[2], port), (dropped(DropReason::TooBig), INSIDE));
                assert_eq!(frame[34..36], [3, 4]);
            }
        }
    }
    // Without it, the pieces get smaller.
    let mut rig = tracked(|topology| topology.ports[1].mtu = 1000);
    for piece in pieces(&udp(8)) {
        rig.up(piece);
    }
    let lengths: Vec<_> = rig.seen.emitted.iter().map(|(_, frame)| frame.len() - 34).collect();
    assert_eq!(lengths, [976, 976, 48]);
    let ip = ipv4::Packet::new_checked(&rig.seen.emitted[1].1[14..]).unwrap();
    assert!(ip.checksum_ok());
}

#[test]
fn pieces_wait_for_a_neighbour() {
    let mut rig = tracked(|topology| topology.neighbours.clear());
    let ended = pieces(&udp(9)).map(|piece| rig.up(piece).disposition);
    assert_eq!(ended[2], Disposition::Fragmented);
    assert_eq!((rig.seen.wanted.len(), rig.seen.held.len()), (1, 3));
}

#[test]
fn a_bridge_puts_together_and_takes_apart() {
    let mut rig = tracked(|topology| topology.mode = Mode::Bridge(vec![(INSIDE, OUTSIDE)]));
    let built = pieces(&udp(10)).map(|piece| piece.macs(HOST_MACS[0], HOST_MACS[1]).build());
    for frame in &built {
        rig.arrive(INSIDE, frame);
    }
    assert_eq!(rig.seen.emitted, built.map(|frame| (OUTSIDE, frame)));
}

/// IPv4: only whom it was for complains. IPv6: the router that tracks, too.
#[test]
fn time_runs_out_without_frames() {
    for (to, answers) in [(SERVER, 0), ("198.18.1.1", 1), (SERVER6, 1), ("2001:db8:1::1", 1)] {
        let mut rig = tracked(|_| {});
        let v6 = to.contains(':');
        let from = if v6 { CLIENT6 } else { CLIENT };
        let [first, second, _] = pieces(&Packet::udp(from, 1, to, 2).payload_len(1992).id(11));
        rig.up(second);
        rig.up(first);
        for (seconds, timeouts) in [(29, 0), (31, 2)] {
            let now = rig.now + Nanos::from_secs(if v6 { seconds * 2 } else { seconds });
            let world = World {
                snapshot: &rig.snapshot,
                worker: 0,
                network: &rig.network,
                conntrack: &rig.conntrack,
                stats: &rig.stats,
                now,
            };
            rig.engine.tick(&world, &mut rig.seen);
            assert_eq!(rig.stats.drops(DropReason::ReassemblyTimeout), timeouts, "{to}");
        }
        let Recorder { emitted, .. } = &rig.seen;
        assert_eq!(emitted.len(), answers, "{to}");
        let family = if v6 { Family::V6 } else { Family::V4 };
        let at = if v6 { 54 } else { 34 };
        let kind = if family == Family::V6 { [3, 1] } else { [11, 1] };
        assert!(emitted.iter().all(|(port, frame)| *port == INSIDE && frame[at..at + 2] == kind));
    }
}
