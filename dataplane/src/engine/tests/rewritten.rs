//! Answers about packets that rules have rewritten, and copies for others: each once
//! differed from the kernel (`seeds_that_once_differed` in `control/tests/differential.rs`).

use super::*;
use crate::policy::header::prefix::PrefixTarget;
use crate::policy::target::{HeaderTarget, RejectWith, Target, TcpMss};
use crate::policy::tee::TeeTarget;
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};
use crate::wire::build::address_bits;

const ACCEPT: ChainPolicy = ChainPolicy::Accept;

/// TCPMSS in PREROUTING, REJECT in FORWARD.
fn clamped(summing: bool) -> Rig {
    let (v4, mut v6) = builders();
    let set = vec![Spec::any(Target::Header(HeaderTarget::TcpMss(TcpMss::Set(1221))))];
    v6.builtin(TableId::Mangle, Hook::Prerouting, ACCEPT, set);
    let refuse = vec![Spec::any(Target::Reject(RejectWith::Icmp6(1)))];
    v6.builtin(TableId::Filter, Hook::Forward, ACCEPT, refuse);
    v6.needs_conntrack = true;
    let mut rig = Rig::new(&topology(), join(v4, v6));
    if !summing {
        let mut config = Config::new([7; 16]);
        config.set("checksum", 0).unwrap();
        rig.conntrack = Conntrack::new(config).unwrap();
    }
    rig
}

/// INVALID, with an MSS at an odd place: TCPMSS leaves a wrong checksum there.
fn odd_mss() -> Packet {
    let options = [1, 2, 4, 0x23, 0x28, 1, 1, 1];
    Packet::tcp(CLIENT6, 81, SERVER6, 40_008, SYN_ACK).tcp_options(&options)
}

#[test]
fn a_checksum_that_tracking_found_right_stays_right_for_reject() {
    let mut rig = clamped(true);
    assert_eq!(rig.up(odd_mss()).disposition, dropped(DropReason::Reject));
    assert_eq!(rig.answer().0, INSIDE);
    // One that was wrong before is not answered, and neither is what nobody summed up.
    assert_eq!(rig.up(odd_mss().bad_l4_checksum()).disposition, dropped(DropReason::Reject));
    assert!(rig.seen.emitted.is_empty());
    let mut rig = clamped(false);
    assert_eq!(rig.up(odd_mss()).disposition, dropped(DropReason::Reject));
    assert!(rig.seen.emitted.is_empty());
}

#[test]
fn an_error_of_our_own_that_another_prefix_makes_wrong_is_sent() {
    let (v4, mut v6) = builders();
    let refuse = vec![Spec::any(Target::Reject(RejectWith::Icmp6(0)))];
    v6.builtin(TableId::Filter, Hook::Forward, ACCEPT, refuse);
    // The same prefix on both sides: whose prefix is another gets this one, and nothing
    // makes up for it.
    let prefix = (address_bits(ip("2001:db8:2::")), 64);
    let target = PrefixTarget { source: true, from: prefix, to: prefix };
    let translate = vec![Spec::any(Target::Header(HeaderTarget::Prefix(target)))];
    v6.builtin(TableId::Mangle, Hook::Postrouting, ACCEPT, translate);
    for hook in [Hook::Output, Hook::Postrouting] {
        v6.builtin(TableId::Nat, hook, ACCEPT, vec![]);
    }
    v6.needs_conntrack = true;
    let mut rig = Rig::new(&topology(), join(v4, v6));
    let segment = Packet::tcp(CLIENT6, 40_002, SERVER6, 22, 0x10);
    assert_eq!(rig.up(segment).disposition, dropped(DropReason::Reject));
    let (port, answer) = rig.answer();
    assert_eq!(port, INSIDE);
    let source = address_bits(ip("2001:db8:2::1")).to_be_bytes();
    assert_eq!(answer[22..38], source, "the inner port's address under the other prefix");
}

#[test]
fn a_copy_on_a_foreign_link_for_a_broadcast_address_is_for_everybody_there() {
    let (mut v4, v6) = builders();
    let gateway = address_bits(ip(SERVER));
    let tee = TeeTarget { gateway, output: Some(INSIDE) };
    v4.builtin(TableId::Mangle, Hook::Prerouting, ACCEPT, vec![Spec::any(Target::Tee(tee))]);
    let mut rig = Rig::new(&topology(), join(v4, v6));
    for dst in ["198.18.2.255", "198.18.1.255"] {
        rig.down(Packet::udp(SERVER, 1, dst, 2));
        let (port, copy) = rig.answer();
        assert_eq!((port, &copy[..6]), (INSIDE, &[0xff; 6][..]), "{dst}");
    }
    rig.down(Packet::udp(SERVER, 1, CLIENT, 2));
    assert_eq!(rig.answer().1[..6], HOST_MACS[0].0);
}

#[test]
fn what_is_said_to_a_link_local_address_of_our_own_cannot_be_routed_anew() {
    let ours = "fe80::ff:fe00:101";
    let mut topology = topology();
    topology.ports[0].addresses.push((ip(ours), 64));
    for rewrites in [false, true] {
        let (v4, mut v6) = builders();
        let dscp = Spec::any(Target::Header(HeaderTarget::Dscp(0x2e)));
        let rules = if rewrites { vec![dscp] } else { vec![] };
        v6.builtin(TableId::Mangle, Hook::Output, ACCEPT, rules);
        let mut rig = Rig::new(&topology, join(v4, v6));
        let sent = rig.own(Packet::udp(ours, 1, ours, 2)).disposition;
        assert_eq!(sent == dropped(DropReason::NoRoute), rewrites, "{sent:?}");
        assert!(rig.seen.emitted.is_empty() && rig.seen.wanted.is_empty());
    }
}
