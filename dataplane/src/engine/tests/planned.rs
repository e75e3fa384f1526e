//! The short road beside the long one: two routers of one policy, one of which follows
//! plans, see the same frames and must not differ in anything; and of each guard, that
//! a packet which it is there for takes the long road.

use super::*;
use crate::conntrack::Row;
use crate::engine::Switches;
use crate::policy::matches::{ConntrackMatch, Match, Neg, Range, TcpMatch, ctstatus};
use crate::policy::target::{
    ConnmarkTarget, CtTarget, HelperKind, MarkTarget, NatRange, NatTarget, Target,
};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, CounterId, Hook, TableId, state_class};
use crate::wire::build::address_bits;
use crate::wire::tcp::flags::{ACK, FIN, PSH};

/// Both routers.
pub(super) struct Twins {
    plain: Rig,
    planned: Rig,
}

impl Twins {
    pub(super) fn over(topology: &Topology, policy: impl Fn() -> Policy) -> Self {
        let [plain, planned] = [false, true].map(|plans| {
            let mut rig = Rig::new(topology, policy());
            rig.engine.set_switches(Switches::all(plans));
            rig
        });
        Self { plain, planned }
    }
    fn new(policy: impl Fn() -> Policy) -> Self {
        Self::over(&topology(), policy)
    }
    /// With an IPv4 policy.
    fn v4(fill: impl Fn(&mut Builder<u32>)) -> Self {
        Self::new(|| {
            let (mut v4, mut v6) = builders();
            (v4.needs_conntrack, v6.needs_conntrack) = (true, true);
            fill(&mut v4);
            join(v4, v6)
        })
    }
    pub(super) fn each(&mut self) -> [&mut Rig; 2] {
        [&mut self.plain, &mut self.planned]
    }
    fn everything(rig: &mut Rig) -> impl PartialEq + std::fmt::Debug + use<> {
        let rows: Vec<Row> = rig.conntrack.rows(rig.now).collect();
        let inner: Vec<_> = rows.iter().map(|row| rig.conntrack.inner(row.view.id)).collect();
        let counters: Vec<_> =
            (0..rig.snapshot.policy.counters).map(|id| rig.snapshot.count(CounterId(id))).collect();
        let drops: Vec<u64> = DropReason::ALL.iter().map(|&why| rig.stats.drops(why)).collect();
        let Recorder { emitted, held, delivered, logged, wanted, steps, outcomes } =
            std::mem::take(&mut rig.seen);
        let drops = (drops, rig.conntrack.counters(), rig.conntrack.len());
        (
            (rows, inner, counters, drops),
            (emitted, held, delivered, logged),
            (wanted, steps, outcomes),
        )
    }
    /// Nothing tells one from the other.
    #[track_caller]
    pub(super) fn compare(&mut self) {
        let [plain, planned] = self.each();
        assert_eq!(Self::everything(plain), Self::everything(planned));
    }
    #[track_caller]
    fn arrive(&mut self, port: PortId, frame: &[u8]) -> Sent {
        let [plain, planned] = self.each().map(|rig| rig.arrive(port, frame));
        assert_eq!((plain.disposition, &plain.frame), (planned.disposition, &planned.frame));
        self.compare();
        planned
    }
    #[track_caller]
    fn up(&mut self, packet: Packet) -> Sent {
        self.arrive(INSIDE, &packet.macs(HOST_MACS[0], PORT_MACS[0]).build())
    }
    #[track_caller]
    fn down(&mut self, packet: Packet) -> Sent {
        self.arrive(OUTSIDE, &packet.macs(HOST_MACS[1], PORT_MACS[1]).build())
    }
    pub(super) fn followed(&self) -> u64 {
        self.planned.stats.plans.followed.get()
    }
    fn refused(&self, why: crate::plan::Unplannable) -> u64 {
        self.planned.stats.plans.refused()[why as usize].1
    }
    /// Whether what `run` sends follows plans.
    #[track_caller]
    fn follows(&mut self, run: impl FnOnce(&mut Self)) -> u64 {
        let before = self.followed();
        run(self);
        self.followed() - before
    }
}

fn mark(value: u32) -> Target {
    Target::Mark(MarkTarget { clear: u32::MAX, toggle: value })
}

fn flow() -> [Packet; 2] {
    [Packet::udp(CLIENT, 4000, SERVER, 53), Packet::udp(SERVER, 53, CLIENT, 4000)]
}

/// Goes both ways, so that both directions have had an ESTABLISHED packet.
fn open(twins: &mut Twins) {
    let [there, back] = flow();
    twins.up(there);
    twins.down(back);
    let [there, _] = flow();
    twins.up(there);
}

fn accepting() -> Twins {
    Twins::v4(|v4| {
        v4.builtin(
            TableId::Filter,
            Hook::Forward,
            ChainPolicy::Accept,
            vec![Spec::any(Target::Count)],
        );
    })
}

#[test]
fn the_third_packet_of_each_direction_follows_a_plan() {
    let mut twins = accepting();
    open(&mut twins);
    assert_eq!(twins.followed(), 0);
    let sent = twins.follows(|twins| {
        for _ in 0..3 {
            let [there, back] = flow();
            twins.up(there);
            let sent = twins.down(back);
            assert_eq!(sent.disposition, Disposition::Transmit(INSIDE));
        }
    });
    assert_eq!(sent, 6);
    assert_eq!(twins.planned.stats.plans.made.get(), 2);
}

#[test]
fn tcp_is_tracked_in_full_and_every_state_is_the_same() {
    let mut twins = accepting();
    let up = |flags, seq, ack| Packet::tcp(CLIENT, 4000, SERVER, 80, flags).seq(seq, ack);
    let down = |flags, seq, ack| Packet::tcp(SERVER, 80, CLIENT, 4000, flags).seq(seq, ack);
    twins.up(up(SYN, 100, 0));
    twins.down(down(SYN_ACK, 500, 101));
    twins.up(up(ACK, 101, 501));
    let followed = twins.follows(|twins| {
        for at in 0..20 {
            twins.up(up(ACK | PSH, 101 + 10 * at, 501 + 10 * at).payload(&[1; 10]));
            twins.down(down(ACK | PSH, 501 + 10 * at, 111 + 10 * at).payload(&[2; 10]));
        }
    });
    assert!(followed >= 38, "{followed}");
    // Out of the window: INVALID, which the rules see as such.
    twins.up(up(ACK, 0x7000_0000, 1));
    twins.up(up(ACK, 301, 701).payload(&[0; 5]));
    let mut broken = up(ACK, 306, 701).macs(HOST_MACS[0], PORT_MACS[0]).build();
    broken[50] ^= 1;
    assert_eq!(twins.follows(|twins| drop(twins.arrive(INSIDE, &broken))), 0, "wrong checksum");
    twins.up(up(FIN | ACK, 306, 701));
    twins.down(down(FIN | ACK, 701, 307));
    twins.up(up(ACK, 307, 702));
    twins.up(up(ACK, 307, 702));
}

#[test]
fn both_translations_both_ways_and_both_families() {
    let to = |address: &str| NatRange {
        addresses: Some(Range { low: address_bits(ip(address)), high: address_bits(ip(address)) }),
        ports: Some(Range { low: 7000, high: 7000 }),
        ..NatRange::default()
    };
    for (client, server, wan, virt) in [
        (CLIENT, SERVER, "198.18.2.1", "203.0.113.9"),
        (CLIENT6, SERVER6, "2001:db8:2::1", "2001:db8:9::9"),
    ] {
        let mut twins = Twins::new(|| {
            let (mut v4, mut v6) = builders();
            (v4.needs_conntrack, v6.needs_conntrack) = (true, true);
            let rule = |address| Target::Nat(NatTarget::Dnat(to(address)));
            let source = |address| Target::Nat(NatTarget::Snat(to(address)));
            v4.builtin(
                TableId::Nat,
                Hook::Prerouting,
                ChainPolicy::Accept,
                vec![Spec::any(rule(SERVER))],
            );
            v6.builtin(
                TableId::Nat,
                Hook::Prerouting,
                ChainPolicy::Accept,
                vec![Spec::any(rule(SERVER6))],
            );
            v4.builtin(
                TableId::Nat,
                Hook::Postrouting,
                ChainPolicy::Accept,
                vec![Spec::any(source("198.18.2.1"))],
            );
            v6.builtin(
                TableId::Nat,
                Hook::Postrouting,
                ChainPolicy::Accept,
                vec![Spec::any(source("2001:db8:2::1"))],
            );
            join(v4, v6)
        });
        let followed = twins.follows(|twins| {
            for length in 0..20 {
                let payload = vec![0xfe; length];
                let sent = twins.up(Packet::udp(client, 4000, virt, 9).payload(&payload));
                let expected = Packet::udp(wan, 7000, server, 7000).payload(&payload).ttl(63);
                assert_eq!(sent.frame, expected.macs(PORT_MACS[1], HOST_MACS[1]).build());
                let back = twins.down(Packet::udp(server, 7000, wan, 7000).payload(&payload));
                let expected = Packet::udp(virt, 9, client, 4000).payload(&payload).ttl(63);
                assert_eq!(back.frame, expected.macs(PORT_MACS[0], HOST_MACS[0]).build());
            }
            twins.up(Packet::udp(client, 4000, virt, 9).no_udp_checksum());
        });
        assert!(followed >= 38, "{followed}");
    }
}

#[test]
fn a_plan_ends_with_its_policy_and_with_its_network() {
    let mut twins = accepting();
    open(&mut twins);
    let again = |twins: &mut Twins| {
        let [there, back] = flow();
        twins.up(there);
        twins.down(back);
    };
    assert_eq!(twins.follows(again), 2);
    for rig in twins.each() {
        let (mut v4, v6) = builders();
        v4.needs_conntrack = true;
        v4.builtin(
            TableId::Filter,
            Hook::Forward,
            ChainPolicy::Drop,
            vec![Spec::any(Target::Count)],
        );
        rig.snapshot = Snapshot::new(1, join(v4, v6), 1);
    }
    let [there, _] = flow();
    let sent = twins.up(there);
    assert_eq!(sent.disposition, dropped(DropReason::ChainPolicy), "though of the same number");

    let mut twins = accepting();
    open(&mut twins);
    let elsewhere = Mac([2, 9, 9, 9, 9, 9]);
    let mut other = topology();
    other.neighbours.iter_mut().for_each(|neighbour| neighbour.mac = elsewhere);
    for rig in twins.each() {
        rig.network = Network::build(&other).unwrap();
    }
    let [there, _] = flow();
    assert_eq!(twins.up(there).frame[..6], elsewhere.0);
    assert_eq!(twins.follows(again), 1, "one has a new plan already");
}

#[test]
fn what_came_in_elsewhere_or_is_not_plain_takes_the_long_road() {
    let mut twins = Twins::v4(|v4| {
        let inside = Spec::any(Target::Count).input(INSIDE.bit());
        v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![inside]);
    });
    open(&mut twins);
    let to_gateway = |packet: Packet| packet.macs(HOST_MACS[0], PORT_MACS[0]);
    let there = || flow()[0].clone();
    let elsewhere = there().macs(HOST_MACS[1], PORT_MACS[1]).build();
    assert_eq!(twins.follows(|twins| drop(twins.arrive(OUTSIDE, &elsewhere))), 0, "port");
    twins.up(there());
    let one_hop = twins.follows(|twins| {
        assert_eq!(twins.up(there().ttl(1)).disposition, dropped(DropReason::TtlExpired));
    });
    assert_eq!(one_hop, 0, "no hop to spare");
    let long = there().payload(&vec![0; 1500]);
    assert_eq!(twins.follows(|twins| drop(twins.up(long))), 0, "beyond the MTU");
    let fits = there().payload(&vec![0; 1472]);
    assert_eq!(twins.follows(|twins| drop(twins.up(fits))), 1, "just within it");
    let others = there().macs(HOST_MACS[0], Mac([2, 7, 7, 7, 7, 7])).build();
    assert_eq!(twins.follows(|twins| drop(twins.arrive(INSIDE, &others))), 0, "not for us");
    let everybody = there().macs(HOST_MACS[0], Mac([255; 6])).build();
    assert_eq!(twins.follows(|twins| drop(twins.arrive(INSIDE, &everybody))), 0, "for all");
    let optioned = there().options(&[1, 1, 1, 1]);
    assert_eq!(twins.follows(|twins| drop(twins.up(optioned))), 0, "options");
    let piece = there().payload(&[0; 64]).id(9).fragment(0, 32, true);
    assert_eq!(twins.follows(|twins| drop(twins.up(piece))), 0, "a fragment");
    let mut padded = to_gateway(there()).build();
    padded.extend_from_slice(&[0xaa; 9]);
    let sent = twins.arrive(INSIDE, &padded);
    assert_eq!(sent.frame.len(), padded.len() - 9, "padding goes no further");
}

#[test]
fn flags_that_a_rule_asks_for_are_guarded_and_no_others() {
    let flags = |mask, value| {
        let flags = Some(Neg::plain((mask, value)));
        let one = Match::Tcp(TcpMatch { flags, ..TcpMatch::default() });
        Spec::any(Target::Count).proto(6).with(one)
    };
    for negated in [false, true] {
        let mut twins = Twins::v4(|v4| {
            let mut pushed = flags(PSH, PSH);
            if negated {
                // In the residual part, not in the classifier.
                let flags = Some(Neg { negated: true, value: (PSH, PSH) });
                pushed.matches = vec![Match::Tcp(TcpMatch { flags, ..TcpMatch::default() })];
            }
            let elsewhere = flags(0x20, 0x20).output(INSIDE.bit());
            let rules = vec![pushed, elsewhere];
            v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, rules);
        });
        let up = |flags| Packet::tcp(CLIENT, 4000, SERVER, 80, flags).seq(101, 501);
        twins.up(Packet::tcp(CLIENT, 4000, SERVER, 80, SYN).seq(100, 0));
        twins.down(Packet::tcp(SERVER, 80, CLIENT, 4000, SYN_ACK).seq(500, 101));
        twins.up(up(ACK));
        assert_eq!(twins.follows(|twins| drop(twins.up(up(ACK)))), 1);
        assert_eq!(twins.follows(|twins| drop(twins.up(up(ACK | PSH)))), 0, "asked for");
        assert_eq!(twins.follows(|twins| drop(twins.up(up(ACK | PSH)))), 1, "now it is its plan");
        let urgent = twins.follows(|twins| drop(twins.up(up(ACK | PSH | 0x20))));
        assert_eq!(urgent, 1, "asked for on another port only");
    }
}

#[test]
fn the_tos_byte_is_guarded_where_a_rule_asks_for_it() {
    let mut twins = Twins::v4(|v4| {
        let expedited = Spec::any(Target::Drop).with(Match::Dscp(Neg::plain(46)));
        v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![expedited]);
    });
    open(&mut twins);
    let there = || flow()[0].clone();
    assert_eq!(twins.follows(|twins| drop(twins.up(there().tos(1)))), 1, "not one of its bits");
    let sent = twins.up(there().tos(46 << 2));
    assert_eq!(sent.disposition, dropped(DropReason::Rule));
    assert_eq!(twins.follows(|twins| drop(twins.up(there()))), 1);
}

#[test]
fn the_connections_status_is_compared() {
    let mut twins = Twins::v4(|v4| {
        let status = Some(Neg::plain(ctstatus::ASSURED));
        let assured = Match::Conntrack(ConntrackMatch { status, ..ConntrackMatch::default() });
        let rules = vec![Spec::any(Target::Drop).with(assured)];
        v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, rules);
    });
    open(&mut twins);
    let there = || flow()[0].clone();
    assert_eq!(twins.follows(|twins| drop(twins.up(there()))), 1);
    for rig in twins.each() {
        rig.now = rig.now + Nanos::from_secs(5);
    }
    // A stream by now.
    let late = twins.follows(|twins| {
        assert_eq!(twins.up(there()).disposition, dropped(DropReason::Rule));
    });
    assert_eq!(late, 0);
}

fn conn_of(rig: &Rig) -> crate::conntrack::ConnId {
    rig.conntrack.rows(rig.now).next().unwrap().view.id
}

#[test]
fn the_connections_mark_is_compared_if_a_rule_asks_for_it() {
    let restore =
        || Target::Connmark(ConnmarkTarget::Restore { nfmask: u32::MAX, ctmask: u32::MAX });
    let save = || Target::Connmark(ConnmarkTarget::Save { nfmask: u32::MAX, ctmask: u32::MAX });
    let mut twins = Twins::v4(|v4| {
        let seven = Spec::any(Target::Drop).with(Match::Mark(Neg::plain((7, u32::MAX))));
        let rules = vec![Spec::any(restore())];
        v4.builtin(TableId::Mangle, Hook::Prerouting, ChainPolicy::Accept, rules);
        v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![seven]);
        v4.builtin(
            TableId::Mangle,
            Hook::Postrouting,
            ChainPolicy::Accept,
            vec![Spec::any(save())],
        );
    });
    open(&mut twins);
    let there = || flow()[0].clone();
    assert_eq!(twins.follows(|twins| drop(twins.up(there()))), 1);
    for (value, follows) in [(5, 0), (5, 1), (7, 0)] {
        for rig in twins.each() {
            rig.conntrack.set_mark(conn_of(rig), value);
        }
        assert_eq!(twins.follows(|twins| drop(twins.up(there()))), follows, "{value}");
    }
    // A walk that changes it is none to be repeated.
    let mut twins = Twins::v4(|v4| {
        let toggle = Target::Connmark(ConnmarkTarget::Set { clear: 0, toggle: 1 });
        let rules = vec![Spec::any(toggle)];
        v4.builtin(TableId::Mangle, Hook::Prerouting, ChainPolicy::Accept, rules);
    });
    let followed = twins.follows(|twins| (0..4).for_each(|_| open(twins)));
    assert_eq!(followed, 0);
    assert!(twins.refused(crate::plan::Unplannable::Mark) > 5);
    // Nor one that changes it and changes it back.
    let mut twins = Twins::v4(|v4| {
        let toggle = || Spec::any(Target::Connmark(ConnmarkTarget::Set { clear: 0, toggle: 1 }));
        let rules = vec![toggle(), toggle()];
        v4.builtin(TableId::Mangle, Hook::Prerouting, ChainPolicy::Accept, rules);
    });
    assert_eq!(twins.follows(|twins| (0..4).for_each(|_| open(twins))), 0);
}

#[test]
fn marks_choose_the_way_and_are_told() {
    let mut twins = Twins::v4(|v4| {
        v4.builtin(
            TableId::Mangle,
            Hook::Prerouting,
            ChainPolicy::Accept,
            vec![Spec::any(mark(9))],
        );
    });
    open(&mut twins);
    // The outcome, which is compared, has it.
    assert_eq!(twins.follows(open), 3);
}

#[test]
fn what_varies_leaves_no_plan_and_is_not_tried_again() {
    let length = Match::Length(Neg::plain(Range { low: 1000, high: 2000 }));
    let mut twins = Twins::v4(|v4| {
        let rules = vec![Spec::any(Target::Drop).with(length.clone())];
        v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, rules);
    });
    assert_eq!(twins.follows(|twins| (0..10).for_each(|_| open(twins))), 0);
    assert_eq!(twins.refused(crate::plan::Unplannable::Match), 2, "once for each direction");
    // Behind a rule that ends the walk nobody asks.
    let mut twins = Twins::v4(|v4| {
        let state = Some(Neg::plain(state_class::ESTABLISHED));
        let established = Match::Conntrack(ConntrackMatch { state, ..ConntrackMatch::default() });
        let rules = vec![
            Spec::any(Target::Accept).with(established),
            Spec::any(Target::Drop).with(length.clone()),
        ];
        v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, rules);
    });
    assert!(twins.follows(|twins| (0..10).for_each(|_| open(twins))) > 25);
}

#[test]
fn connections_with_helpers_take_the_long_road() {
    let mut twins = Twins::v4(|v4| {
        let ct = CtTarget { helper: Some(HelperKind::Tftp), ..CtTarget::default() };
        let rules = vec![Spec::any(Target::Ct(ct)).udp_dport(69, 69)];
        v4.builtin(TableId::Raw, Hook::Prerouting, ChainPolicy::Accept, rules);
    });
    let followed = twins.follows(|twins| {
        for _ in 0..4 {
            twins.up(Packet::udp(CLIENT, 4000, SERVER, 69));
            twins.down(Packet::udp(SERVER, 69, CLIENT, 4000));
        }
    });
    assert_eq!(followed, 0);
    assert!(twins.refused(crate::plan::Unplannable::Connection) > 0);
}

#[test]
fn what_another_engine_has_left_is_not_followed() {
    let mut twins = accepting();
    open(&mut twins);
    assert_eq!(twins.follows(open), 3);
    // A worker that begins again, or another one.
    twins.planned.engine = Engine::new();
    twins.planned.engine.set_switches(Switches::all(true));
    let [there, back] = flow();
    assert_eq!(twins.follows(|twins| drop((twins.up(there), twins.down(back)))), 0);
    assert_eq!(twins.follows(open), 3);
}

#[test]
fn a_connection_that_begins_again_has_no_plan() {
    let mut twins = accepting();
    open(&mut twins);
    for rig in twins.each() {
        rig.conntrack.remove(conn_of(rig));
    }
    let [there, back] = flow();
    let followed = twins.follows(|twins| {
        twins.up(there);
        twins.down(back);
    });
    assert_eq!(followed, 0);
}

/// All frames in one burst, each from its port.
fn burst(rig: &mut Rig, frames: &[(PortId, Vec<u8>)]) -> Vec<Sent> {
    let mut buffers: Vec<Vec<u8>> = frames.iter().map(|(_, frame)| frame.clone()).collect();
    let slot = |(buf, (port, frame)): (_, &(PortId, Vec<u8>))| Slot {
        buf,
        start: 0,
        len: frame.len(),
        port: *port,
        disposition: Disposition::Deliver,
    };
    let mut slots: Vec<Slot<'_>> =
        buffers.iter_mut().map(Vec::as_mut_slice).zip(frames).map(slot).collect();
    let world = World {
        snapshot: &rig.snapshot,
        worker: 0,
        network: &rig.network,
        conntrack: &rig.conntrack,
        stats: &rig.stats,
        now: rig.now,
    };
    rig.engine.process(&world, &mut slots, &mut rig.seen);
    let sent =
        |slot: &Slot<'_>| Sent { disposition: slot.disposition, frame: slot.frame().to_vec() };
    slots.iter().map(sent).collect()
}

#[test]
fn what_a_long_burst_counts_is_there_when_it_is_over() {
    let mut twins = Twins::v4(|v4| {
        let rules = (0..70).map(|at| Spec::any(Target::Count).udp_dport(5000, 5000 + at)).collect();
        v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, rules);
    });
    let mut frames = Vec::new();
    for round in 0..4 {
        for at in 0..70 {
            let there = Packet::udp(CLIENT, 4000, SERVER, 5000 + at).payload(&[0; 7]);
            let back = Packet::udp(SERVER, 5000 + at, CLIENT, 4000);
            frames.push((INSIDE, there.macs(HOST_MACS[0], PORT_MACS[0]).build()));
            if round != 1 {
                frames.push((OUTSIDE, back.macs(HOST_MACS[1], PORT_MACS[1]).build()));
            }
        }
    }
    for _ in 0..2 {
        let [plain, planned] = twins.each().map(|rig| burst(rig, &frames));
        for (plain, planned) in plain.iter().zip(&planned) {
            assert_eq!((plain.disposition, &plain.frame), (planned.disposition, &planned.frame));
        }
        twins.compare();
    }
    assert!(twins.followed() > 600, "{}", twins.followed());
}
