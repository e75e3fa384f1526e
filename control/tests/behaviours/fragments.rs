//! Lines 40, 41: fragments.

use super::packet::{Host, Packet, alice, udp, v6, web};
use super::script::{both, both_v6};

/// A datagram of 1600 bytes of UDP in three unequal pieces.
fn pieces(from: Host, to: Host) -> Vec<Packet> {
    let datagram = udp(from, 4001, to.ip, 53, &(0..1592).map(|n| n as u8).collect::<Vec<_>>());
    datagram.fragments(&[0, 800, 1_200])
}

#[test]
fn b40_fragments_are_translated_once() {
    both(|t| {
        t.rules(&["-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100"]);
        for (round, order) in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]].into_iter().enumerate() {
            let all = pieces(alice(), web());
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
        // And back.
        let answer = udp(web(), 53, "198.18.3.100".parse().unwrap(), 4001, &[9; 1_592]);
        let back = answer.fragments(&[0, 1_400]);
        t.send(back[1].clone()).dropped("");
        let seen = t.send(back[0].clone());
        assert_eq!(seen.state, "ESTABLISHED");
        let sizes: Vec<_> = seen.out.iter().map(|frame| frame.ip().piece()).collect();
        assert_eq!(sizes, [(0, 1_400), (1_400, 200)]);
        assert!(seen.out.iter().all(|frame| frame.ip().dst() == alice().ip));
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

/// The kernel draws a new identification on the way out; the one that came in is
/// as good, and not told apart here.
#[test]
fn b40_fragments_are_translated_once_v6() {
    both_v6(|t| {
        t.rules(&["-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 2001:db8:3::100"]);
        for order in [[0, 1, 2], [2, 0, 1]] {
            let all = pieces(v6(alice()), v6(web()));
            for &index in &order[..2] {
                t.send(all[index].clone()).dropped("");
            }
            let seen = t.send(all[order[2]].clone());
            assert_eq!(seen.state, "NEW");
            let sizes: Vec<_> = seen.out.iter().map(|frame| frame.ip().piece()).collect();
            assert_eq!(sizes, [(0, 800), (800, 400), (1_200, 400)], "in order, in their sizes");
            for frame in &seen.out {
                assert_eq!(frame.ip().src().to_string(), "2001:db8:3::100");
            }
            assert_eq!(t.count("nat POSTROUTING 0"), 1);
        }
    });
}

#[test]
fn b41_overlapping_fragments_are_dropped_v6() {
    both_v6(|t| {
        t.rules(&[]);
        let datagram = udp(v6(alice()), 4001, v6(web()).ip, 53, &[7; 1_592]);
        t.send(datagram.fragments(&[0, 800])[0].clone()).dropped("");
        t.send(datagram.fragments(&[0, 792])[1].clone()).dropped("");
        t.send(datagram.fragments(&[0, 800])[1].clone()).dropped("");
        t.no_flow();
        assert_eq!(t.count("mangle PREROUTING 1"), 0);
    });
}
