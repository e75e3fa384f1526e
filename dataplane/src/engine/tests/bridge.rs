//! Transparent pairs.

use super::*;
use crate::policy::target::{RejectWith, Target};
use crate::policy::testing::Spec;
use crate::policy::{ChainPolicy, Hook, TableId};

fn bridge(fill: impl FnOnce(&mut Builder<u32>)) -> Rig {
    let mut topology = topology();
    topology.mode = Mode::Bridge(vec![(INSIDE, OUTSIDE)]);
    topology.ports.iter_mut().for_each(|port| port.addresses.clear());
    let (mut v4, v6) = builders();
    fill(&mut v4);
    Rig::new(&topology, join(v4, v6))
}

fn across(packet: Packet) -> Vec<u8> {
    packet.macs(HOST_MACS[0], HOST_MACS[1]).build()
}

#[test]
fn frames_cross_untouched_and_forward_decides() {
    let mut chains = (ChainId(0), ChainId(0));
    let mut rig = bridge(|builder| {
        let rules = vec![
            Spec::any(Target::Drop).udp_dport(53, 53),
            Spec::any(Target::Count).input(INSIDE.bit()).output(OUTSIDE.bit()),
        ];
        let accept = ChainPolicy::Accept;
        chains.0 = builder.builtin(TableId::Filter, Hook::Forward, accept, rules);
        let rules = vec![Spec::any(Target::Count).input(INSIDE.bit())];
        chains.1 = builder.builtin(TableId::Mangle, Hook::Postrouting, accept, rules);
    });
    let frame = across(Packet::udp(CLIENT, 5000, SERVER, 54).ttl(1));
    let sent = rig.arrive(INSIDE, &frame);
    assert_eq!((sent.disposition, &sent.frame), (Disposition::Transmit(OUTSIDE), &frame));
    let dns = across(Packet::udp(CLIENT, 5000, SERVER, 53));
    assert_eq!(rig.arrive(INSIDE, &dns).disposition, dropped(DropReason::Rule));
    assert_eq!(rig.hits(chains.0), [1, 1, 1]);
    assert_eq!(rig.hits(chains.1), [0, 1], "no input interface in POSTROUTING");
}

#[test]
fn tagged_and_foreign_frames_see_no_rule() {
    let mut chain = ChainId(0);
    let mut rig = bridge(|builder| {
        let drop = vec![Spec::any(Target::Drop)];
        chain = builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Drop, drop);
    });
    let tagged = across(Packet::udp(CLIENT, 5000, SERVER, 53).tag(0x8100, 7));
    let mut arp = vec![0xff; 12];
    arp.extend_from_slice(&[8, 6]);
    arp.extend_from_slice(&[0; 46]);
    for frame in [&tagged, &arp] {
        let sent = rig.arrive(OUTSIDE, frame);
        assert_eq!((sent.disposition, &sent.frame), (Disposition::Transmit(INSIDE), frame));
    }
    assert_eq!(rig.hits(chain), [0, 0]);
    let long = across(Packet::udp(CLIENT, 5000, SERVER, 53).tag(0x8100, 7).payload_len(1600));
    assert_eq!(rig.arrive(INSIDE, &long).disposition, dropped(DropReason::TooBig));
}

#[test]
fn a_reset_comes_back_in_the_servers_name() {
    let mut rig = bridge(|builder| {
        let reject = vec![Spec::any(Target::Reject(RejectWith::TcpReset)).proto(6)];
        builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, reject);
    });
    let syn = across(Packet::tcp(CLIENT, 40000, SERVER, 80, SYN));
    assert_eq!(rig.arrive(INSIDE, &syn).disposition, dropped(DropReason::Reject));
    let (port, frame) = rig.answer();
    assert_eq!(port, INSIDE);
    assert_eq!(frame[..12], [HOST_MACS[0].0, HOST_MACS[1].0].concat());
    assert_eq!(frame[14 + 12..14 + 20], [198, 18, 2, 2, 198, 18, 1, 2]);
}

/// As a bridge of Linux 6.18 was seen to do with `bridge-nf-call-ip6tables`.
#[test]
fn options_cross_unless_they_cannot_be_walked() {
    let mut rig = bridge(|_| {});
    let options = [&[7, 7, 4, 0, 0, 0, 0, 1][..], &[7, 99, 4, 0], &[0x89, 7, 4, 1, 1, 1, 1, 0]];
    for options in options {
        let frame = across(Packet::udp(CLIENT, 5000, SERVER, 53).options(options));
        let sent = rig.arrive(INSIDE, &frame);
        assert_eq!((sent.disposition, sent.frame), (Disposition::Transmit(OUTSIDE), frame));
    }
    let refused = dropped(DropReason::ExtensionHeader);
    let passed = Disposition::Transmit(OUTSIDE);
    for (header, expected) in [
        ([0, 0, 0x1e, 4, 1, 2, 3, 4], passed),
        ([0, 0, 0x5e, 4, 1, 2, 3, 4], passed),
        ([0, 0, 0x9e, 4, 1, 2, 3, 4], passed),
        ([0, 0, 1, 4, 0, 0, 0, 1], passed),
        ([0, 0, 5, 3, 0, 0, 0, 0], passed),
        ([0, 0, 1, 5, 0, 0, 0, 0], refused),
        ([0, 0, 0x1e, 5, 0, 0, 0, 0], refused),
        ([0, 99, 1, 4, 0, 0, 0, 0], refused),
        ([0, 0, 0xc2, 4, 0, 1, 0, 0], refused),
    ] {
        let frame = across(Packet::udp(CLIENT6, 5000, SERVER6, 53).extension(0, &header));
        assert_eq!(rig.arrive(INSIDE, &frame).disposition, expected, "{header:?}");
    }
    assert!(rig.seen.emitted.is_empty());
}
