//! Lines 40, 41: fragments.

use super::packet::{Packet, alice, udp, web};
use super::script::both;

/// A datagram of 1600 bytes of UDP in three unequal pieces.
fn pieces(from: super::packet::Host) -> Vec<Packet> {
    let datagram = udp(from, 4001, web().ip, 53, &(0..1592).map(|n| n as u8).collect::<Vec<_>>());
    datagram.fragments(&[0, 800, 1_200])
}

#[test]
fn b40_fragments_are_translated_once() {
    both(|t| {
        t.rules(&["-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100"]);
        for (round, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]].into_iter().enumerate() {
            let all = pieces(alice());
            for &index in &order[..2] {
                t.send(all[index].clone()).dropped("");
            }
            let seen = t.send(all[order[2]].clone());
            assert_eq!(seen.state, "NEW");
            let mut sizes: Vec<_> = seen.out.iter().map(|frame| frame.ip().piece()).collect();
            assert_eq!(sizes, [(0, 800), (800, 400), (1_200, 400)], "in order, in their sizes");
            sizes.clear();
            for frame in &seen.out {
                assert_eq!(frame.ip().src().to_string(), "198.18.3.100");
                assert!(frame.ip().ip_checksum_holds());
            }
            assert_eq!(t.count("nat POSTROUTING 0"), 1, "round {round}");
            assert_eq!(t.flow().field("dst", 1), "198.18.3.100");
        }
    });
}

#[test]
fn b41_overlapping_fragments_are_dropped() {
    both(|t| {
        t.rules(&[]);
        let datagram = udp(alice(), 4001, web().ip, 53, &[7; 1_592]);
        let first = datagram.fragments(&[0, 800])[0].clone();
        // Starts 8 bytes early, and ends the datagram.
        let last = datagram.fragments(&[0, 792])[1].clone();
        t.send(first.clone()).dropped("");
        t.send(last).dropped("");
        t.no_flow();
        // The rest of it comes too late.
        t.send(datagram.fragments(&[0, 800])[1].clone()).dropped("");
        t.no_flow();
        assert_eq!(t.count("mangle PREROUTING 1"), 0);
    });
}
