//! SYNPROXY from frame to frame: what a flood costs, and what a client gets.

use super::*;
use crate::policy::matches::{ConntrackMatch, Match, Neg, TcpMatch};
use crate::policy::target::{CtTarget, SynproxyTarget, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId, state_class};
use crate::wire::{be16, be32, checksum, put16, put32};

const ACK: u8 = 0x10;
const ISN: u32 = 1_000;
const SERVER_ISN: u32 = 0xffff_fff0;
/// Where a frame's TCP header begins.
const L4: usize = 34;

/// SYNs from inside are not tracked; they and what tracking cannot place go to SYNPROXY.
fn proxying() -> Rig {
    let syn = Match::Tcp(TcpMatch { flags: Some(Neg::plain((0x17, SYN))), ..TcpMatch::default() });
    let notrack = Target::Ct(CtTarget { notrack: true, ..CtTarget::default() });
    let target = SynproxyTarget {
        mss: Some(1460),
        wscale: Some(7),
        sack_perm: true,
        timestamp: true,
        ecn: false,
    };
    let unplaced = Match::Conntrack(ConntrackMatch {
        state: Some(Neg::plain(state_class::INVALID | state_class::UNTRACKED)),
        ..ConntrackMatch::default()
    });
    let (mut v4, v6) = builders();
    v4.needs_conntrack = true;
    let rule = Spec::any(notrack).proto(6).with(syn).input(INSIDE.bit());
    v4.builtin(TableId::Raw, Hook::Prerouting, ChainPolicy::Accept, vec![rule]);
    let rule = Spec::any(Target::Synproxy(target)).proto(6).with(unplaced);
    v4.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, vec![rule]);
    // Everybody is behind the client.
    let anywhere = route(("0.0.0.0", 0), RouteKind::Unicast(INSIDE));
    let anywhere = RouteEntry { via: Some(ip(CLIENT)), ..anywhere };
    let rig = Rig::new(&Topology { routes: vec![anywhere], ..topology() }, join(v4, v6));
    rig.conntrack.set("tcp_loose", 0).unwrap();
    rig
}

fn number(frame: &[u8], at: usize) -> u32 {
    be32(frame, L4 + at)
}

/// A client that goes through with it; gives the cookie.
fn connects(rig: &mut Rig) -> u32 {
    let client = |flags, seq, ack| Packet::tcp(CLIENT, 4000, SERVER, 80, flags).seq(seq, ack);
    assert_eq!(rig.up(client(SYN, ISN, 0)).disposition, dropped(DropReason::Synproxy));
    let (port, answer) = rig.answer();
    assert_eq!((port, answer[L4 + 13], number(&answer, 8)), (INSIDE, SYN_ACK, ISN + 1));
    let cookie = number(&answer, 4);
    assert!(rig.conntrack.is_empty());
    let proof = client(ACK, ISN + 1, cookie.wrapping_add(1));
    assert_eq!(rig.up(proof).disposition, dropped(DropReason::Synproxy));
    let (port, syn) = rig.answer();
    assert_eq!((port, syn[L4 + 13]), (OUTSIDE, SYN));
    assert_eq!((number(&syn, 4), number(&syn, 8)), (ISN, cookie));
    let answer = Packet::tcp(SERVER, 80, CLIENT, 4000, SYN_ACK).seq(SERVER_ISN, ISN + 1);
    assert_eq!(rig.down(answer).disposition, dropped(DropReason::Synproxy));
    let emitted = std::mem::take(&mut rig.seen.emitted);
    let numbers: Vec<_> = emitted
        .iter()
        .map(|(port, frame)| (*port, frame[L4 + 13], number(frame, 4), number(frame, 8)))
        .collect();
    assert_eq!(
        numbers,
        [
            (OUTSIDE, ACK, ISN + 1, SERVER_ISN.wrapping_add(1)),
            (INSIDE, ACK, cookie.wrapping_add(1), ISN + 1)
        ]
    );
    cookie
}

#[test]
fn a_client_connects_and_both_sides_count_on() {
    let mut rig = proxying();
    let cookie = connects(&mut rig);
    for round in 0..3 {
        let (up, down) = (ISN + 1 + 10 * round, SERVER_ISN.wrapping_add(1 + 20 * round));
        let seen = cookie.wrapping_add(1 + 20 * round);
        let question = Packet::tcp(CLIENT, 4000, SERVER, 80, ACK).seq(up, seen).payload(&[7; 10]);
        let sent = rig.up(question);
        assert_eq!(sent.disposition, Disposition::Transmit(OUTSIDE));
        assert_eq!((number(&sent.frame, 4), number(&sent.frame, 8)), (up, down));
        let answer =
            Packet::tcp(SERVER, 80, CLIENT, 4000, ACK).seq(down, up + 10).payload(&[8; 20]);
        let sent = rig.down(answer);
        assert_eq!(sent.disposition, Disposition::Transmit(INSIDE));
        assert_eq!((number(&sent.frame, 4), number(&sent.frame, 8)), (seen, up + 10));
    }
    let stats = &rig.stats.synproxy;
    assert_eq!((stats.syn_received.get(), stats.cookie_valid.get()), (1, 1));
    assert_eq!(rig.conntrack.len(), 1);
}

#[test]
fn a_cookie_does_not_keep() {
    let mut rig = proxying();
    rig.up(Packet::tcp(CLIENT, 4000, SERVER, 80, SYN).seq(ISN, 0));
    let cookie = number(&rig.answer().1, 4);
    rig.now = rig.now + Nanos::from_secs(180);
    let late = Packet::tcp(CLIENT, 4000, SERVER, 80, ACK).seq(ISN + 1, cookie.wrapping_add(1));
    assert_eq!(rig.up(late).disposition, dropped(DropReason::SynCookie));
    assert_eq!(rig.stats.synproxy.cookie_invalid.get(), 1);
    assert!(rig.seen.emitted.is_empty() && rig.conntrack.is_empty());
}

#[test]
fn a_million_syns_from_anywhere_leave_nothing() {
    const SYNS: u32 = 1_000_000;
    let mut rig = proxying();
    let mut frame =
        Packet::tcp(CLIENT, 4000, SERVER, 80, SYN).macs(HOST_MACS[0], PORT_MACS[0]).build();
    // All different: an odd number times all numbers.
    let source = |n: u32| 0x0b00_0000 | n.wrapping_mul(0x009e_3779) & 0x00ff_ffff;
    let mut cookies = std::collections::HashSet::new();
    for n in 0..SYNS {
        let (old, new) = (be32(&frame, 26), source(n));
        put32(&mut frame, 26, new);
        for at in [24, L4 + 16] {
            let sum = be16(&frame, at);
            put16(&mut frame, at, checksum::update32(sum, old, new));
        }
        let port = n as u16;
        let old = be16(&frame, L4);
        put16(&mut frame, L4, port);
        let sum = be16(&frame, L4 + 16);
        put16(&mut frame, L4 + 16, checksum::update16(sum, old, port));
        let sent = rig.arrive(INSIDE, &frame);
        assert_eq!(sent.disposition, dropped(DropReason::Synproxy), "{n}");
        let (port, answer) = rig.answer();
        assert_eq!((port, be32(&answer, 30)), (INSIDE, source(n)));
        cookies.insert(number(&answer, 4));
        rig.seen.steps.clear();
        rig.seen.outcomes.clear();
    }
    assert!(cookies.len() as u32 > SYNS - SYNS / 1000, "cookies repeat themselves");
    assert_eq!(rig.stats.synproxy.syn_received.get(), u64::from(SYNS));
    assert!(rig.conntrack.is_empty());
    assert_eq!(rig.conntrack.counters().insert, 0);
    // A guess is as good as any other.
    for guess in 0..1000_u32 {
        let ack = guess.wrapping_mul(0x9e37_79b9);
        let forged = Packet::tcp(CLIENT, 4001, SERVER, 80, ACK).seq(ISN + 1, ack);
        assert_eq!(rig.up(forged).disposition, dropped(DropReason::SynCookie));
    }
    rig.seen = Recorder::default();
    connects(&mut rig);
    assert_eq!(rig.conntrack.len(), 1);
}
