//! Lines 25-27: ICMP errors about translated flows.

use super::packet::{View, alice, bob, echo, error, far, hop, icmp, tcp, udp, v6, web};
use super::script::{both, both_v6};

/// Everything that leaves by eth2 takes this address.
const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
/// The same in IPv6.
const SNAT_V6: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 2001:db8:3::100";

#[test]
fn b25_an_error_comes_in() {
    both(|t| {
        t.rules(&[SNAT]);
        // Bob asks what alice asks, so that his port and his identifier change.
        for host in [alice(), bob()] {
            let datagram = udp(host, 4001, far().ip, 53, b"question");
            let segment = tcp(host, 4001, far().ip, 80).flags("S").build();
            for first in [datagram, segment, echo(8, host, far().ip, 7, 1)] {
                let out = t.send(first.clone()).passes("NEW");
                let outside = out.ip().src();
                assert_eq!(outside.to_string(), "198.18.3.100");
                for (kind, code) in [(3, 3), (11, 0), (3, 4)] {
                    let told = t.send(error(hop(), outside, kind, code, out.ip().0));
                    let told = told.passes("RELATED");
                    let (outer, inner) = (told.ip(), told.ip().quoted());
                    assert_eq!((told.port, outer.src(), outer.dst()), (0, hop().ip, host.ip));
                    assert_eq!((inner.src(), inner.dst()), (host.ip, far().ip));
                    // Ports, or checksum and identifier of an echo: as they were sent.
                    assert_eq!(inner.l4(), &View(&first.ip).l4()[..8]);
                    assert!(outer.checksums_hold());
                }
            }
        }
    });
}

#[test]
fn b26_an_error_goes_out() {
    both(|t| {
        t.rules(&[SNAT]);
        let out = t.send(udp(alice(), 4001, web().ip, 53, b"question")).passes("NEW");
        let outside = out.ip().src();
        let reply = t.send(udp(web(), 53, outside, 4001, b"answer")).passes("ESTABLISHED");
        assert_eq!(reply.ip().dst(), alice().ip);
        for teller in [alice(), bob()] {
            let told = t.send(error(teller, web().ip, 3, 3, reply.ip().0)).passes("RELATED");
            let (outer, inner) = (told.ip(), told.ip().quoted());
            assert_eq!((told.port, outer.src(), outer.dst()), (2, outside, web().ip));
            assert_eq!((inner.src(), inner.dst(), inner.dport()), (web().ip, outside, 4001));
            assert!(outer.checksums_hold());
        }
    });
}

#[test]
fn b27_a_redirect_about_a_translated_flow_is_dropped() {
    both(|t| {
        t.rules(&["-t nat -A POSTROUTING -s 198.18.1.10/32 -j SNAT --to-source 198.18.3.100"]);
        let redirect = |to, about: &[u8]| icmp(hop(), to, 5, 1, [198, 18, 3, 11], &about[..28]);
        let out = t.send(udp(alice(), 4001, far().ip, 53, b"question")).passes("NEW");
        t.send(redirect(out.ip().src(), out.ip().0)).dropped("RELATED");
        // About any other it passes.
        let out = t.send(udp(bob(), 4001, far().ip, 53, b"question")).passes("NEW");
        t.send(redirect(bob().ip, out.ip().0)).passes("RELATED");
    });
}

/// The same in IPv6, for a destination unreachable and a packet too big.
#[test]
fn b25_an_error_comes_in_v6() {
    both_v6(|t| {
        t.rules(&[SNAT_V6]);
        let out = t.send(udp(v6(alice()), 4001, v6(far()).ip, 53, b"question")).passes("NEW");
        let outside = out.ip().src();
        assert_eq!(outside.to_string(), "2001:db8:3::100");
        for (kind, code) in [(1, 4), (2, 0), (3, 0)] {
            let told = t.send(error(v6(hop()), outside, kind, code, out.ip().0)).passes("RELATED");
            let (outer, inner) = (told.ip(), told.ip().quoted());
            assert_eq!((told.port, outer.src(), outer.dst()), (0, v6(hop()).ip, v6(alice()).ip));
            assert_eq!((inner.src(), inner.sport()), (v6(alice()).ip, 4001));
            assert!(outer.checksums_hold());
        }
    });
}

#[test]
fn b26_an_error_goes_out_v6() {
    both_v6(|t| {
        t.rules(&[SNAT_V6]);
        let out = t.send(udp(v6(alice()), 4001, v6(web()).ip, 53, b"question")).passes("NEW");
        let outside = out.ip().src();
        let reply = t.send(udp(v6(web()), 53, outside, 4001, b"answer")).passes("ESTABLISHED");
        for teller in [alice(), bob()] {
            let told = t.send(error(v6(teller), v6(web()).ip, 1, 4, reply.ip().0));
            let told = told.passes("RELATED");
            let (outer, inner) = (told.ip(), told.ip().quoted());
            assert_eq!((told.port, outer.src(), outer.dst()), (2, outside, v6(web()).ip));
            assert_eq!((inner.dst(), inner.dport()), (outside, 4001));
            assert!(outer.checksums_hold());
        }
    });
}
