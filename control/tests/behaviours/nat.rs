//! Lines 30-39, 47: which addresses and ports NAT chooses.

use super::conn::Conn;
use super::packet::{Host, alice, bob, echo, far, host, mail, router, tcp, udp, web};
use super::script::{Script, both};

/// Everything that leaves by eth2 takes this address.
const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";

/// A datagram through SNAT and its answer back; gives the port that it left by.
#[track_caller]
fn exchange(t: &mut Script<'_>, from: Host, sport: u16, to: Host, dport: u16) -> u16 {
    let out = t.send(udp(from, sport, to.ip, dport, b"question")).passes("NEW");
    let (src, port) = (out.ip().src(), out.ip().sport());
    assert!(out.ip().checksums_hold());
    let back = t.send(udp(to, dport, src, port, b"answer")).passes("ESTABLISHED");
    assert_eq!((back.ip().dst(), back.ip().dport()), (from.ip, sport));
    assert_eq!(back.port, from.port.unwrap());
    assert!(back.ip().checksums_hold());
    port
}

#[test]
fn b29_the_same_icmp_id_twice() {
    both(|t| {
        t.rules(&[SNAT]);
        let mut ids = Vec::new();
        for host in [alice(), bob()] {
            let out = t.send(echo(8, host, web().ip, 7, 1)).passes("NEW");
            ids.push(out.ip().icmp_id());
            assert!(out.ip().checksums_hold());
        }
        assert_eq!(ids[0], 7);
        assert_ne!(ids[1], 7);
        for (host, id) in [alice(), bob()].into_iter().zip(ids) {
            let reply = echo(0, web(), "198.18.3.100".parse().unwrap(), id, 1);
            let back = t.send(reply).passes("ESTABLISHED");
            assert_eq!((back.ip().dst(), back.ip().icmp_id()), (host.ip, 7));
        }
    });
}

#[test]
fn b30_invalid_packets_are_not_translated() {
    both(|t| {
        t.rules(&[
            SNAT,
            "-A FORWARD -p tcp -m tcp --sport 4002 -m conntrack --ctstate INVALID -j DROP",
        ]);
        for (port, dropped) in [(4001, false), (4002, true)] {
            let mut c = Conn::new(alice(), port, web(), 80);
            c.open(t);
            let stray = c.up("A").ack(c.sseq + 100_000);
            let seen = t.send(stray);
            if dropped {
                seen.dropped("INVALID");
            } else {
                assert_eq!(seen.passes("INVALID").ip().src(), alice().ip);
            }
        }
    });
}

#[test]
fn b31_mappings_outlive_their_rules() {
    both(|t| {
        t.rules(&[SNAT]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.open(t);
        t.rules(&["-t nat -P POSTROUTING ACCEPT"]);
        c.talk(t);
        let out = t.send(c.client_sends("PA", &[7; 10])).passes("ESTABLISHED");
        assert_eq!(out.ip().src().to_string(), "198.18.3.100");
        // A new one goes as it is.
        let mut plain = Conn::new(alice(), 4002, web(), 80);
        plain.open(t);
        assert_eq!(plain.peer.0, alice().ip);
    });
}

#[test]
fn b32_the_same_port_for_two_clients() {
    both(|t| {
        t.rules(&[SNAT]);
        assert_eq!(exchange(t, alice(), 4001, web(), 53), 4001);
        assert_eq!(exchange(t, bob(), 4001, mail(), 53), 4001);
    });
}

#[test]
fn b33_a_remapped_port_is_used_again() {
    both(|t| {
        t.rules(&[SNAT]);
        assert_eq!(exchange(t, alice(), 4001, web(), 53), 4001);
        let port = exchange(t, bob(), 4001, web(), 53);
        assert_ne!(port, 4001);
        assert_eq!(exchange(t, bob(), 4001, mail(), 53), port);
        assert_eq!(exchange(t, bob(), 4001, far(), 99), port);
    });
}

/// One port a script: a port drawn from so few would soon be one that another
/// part of the script names.
#[test]
fn b34_low_ports_stay_low() {
    for (port, low, high) in [
        (300, 1, 511),
        (511, 1, 511),
        (512, 600, 1_023),
        (700, 600, 1_023),
        (1_023, 600, 1_023),
        (1_024, 1_024, 65_535),
    ] {
        both(|t| {
            t.rules(&[SNAT]);
            assert_eq!(exchange(t, alice(), port, web(), 2_000), port);
            for last in [11, 254] {
                let other = exchange(t, host(false, 0, last), port, web(), 2_000);
                assert!((low..=high).contains(&other) && other != port, "{port}: {other}");
            }
        });
    }
}

#[test]
fn b35_a_range_of_two_ports_is_full_with_two() {
    both(|t| {
        t.rules(&[
            "-t nat -A POSTROUTING -o eth2 -p udp -j SNAT --to-source 198.18.3.100:5000-5001",
        ]);
        let mut ports =
            [exchange(t, alice(), 4001, web(), 53), exchange(t, bob(), 4001, web(), 53)];
        ports.sort_unstable();
        assert_eq!(ports, [5000, 5001]);
        let third = host(false, 0, 254);
        t.send(udp(third, 4001, web().ip, 53, b"question")).dropped("NEW");
        assert_eq!(t.flows().len(), 2);
    });
}

/// A connection that is over gives its port up to one whose sequence numbers
/// begin higher.
#[test]
fn b35_a_closed_connection_gives_up_its_port() {
    both(|t| {
        t.rules(&[
            "-t nat -A POSTROUTING -o eth2 -p tcp -j SNAT --to-source 198.18.3.100:5000-5001",
        ]);
        let mut flows: Vec<Conn> =
            [alice(), bob()].map(|host| Conn::new(host, 4001, web(), 80)).to_vec();
        for c in &mut flows {
            c.cseq = 1_000_000;
            c.open(t);
        }
        let c = &mut flows[0];
        t.send(c.client_sends("FA", &[])).passes("ESTABLISHED");
        t.send(c.server_sends("FA", &[])).passes("ESTABLISHED");
        t.send(c.up("A")).passes("ESTABLISHED");
        let third = host(false, 0, 254);
        let lower = tcp(third, 4001, web().ip, 80).flags("S").seq(900_000);
        t.send(lower).dropped("NEW");
        assert_eq!(t.flows().len(), 2);
        let higher = tcp(third, 4001, web().ip, 80).flags("S").seq(2_000_000);
        let out = t.send(higher).passes("NEW");
        assert_eq!(out.ip().sport(), flows[0].peer.1);
        assert_eq!(t.flows().len(), 2);
        flows[1].talk(t);
    });
}

#[test]
fn b36_fully_random_ports() {
    both(|t| {
        t.rules(&["-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100 --random-fully"]);
        let ports: std::collections::BTreeSet<u16> =
            (0..8).map(|n| exchange(t, alice(), 4001, web(), 53 + n)).collect();
        // Two of eight may meet by chance, but hardly more.
        assert!(ports.len() >= 6, "{ports:?}");
        assert!(ports.iter().all(|&port| port >= 1024));
    });
}

#[test]
fn b37_a_null_binding_yields() {
    both(|t| {
        t.rules(&["-t nat -A PREROUTING -d 198.18.3.77/32 -j DNAT --to-destination 198.18.3.10"]);
        let service = Host { ip: "198.18.3.77".parse().unwrap(), ..web() };
        let out = t.send(udp(alice(), 4001, service.ip, 53, b"question")).passes("NEW");
        assert_eq!((out.ip().dst(), out.ip().sport()), (web().ip, 4001));
        let port = exchange(t, alice(), 4001, web(), 53);
        assert_ne!(port, 4001);
        let back = t.send(udp(web(), 53, alice().ip, 4001, b"answer")).passes("ESTABLISHED");
        assert_eq!(back.ip().src(), service.ip);
    });
}

#[test]
fn b38_hairpin() {
    both(|t| {
        t.rules(&[
            "-t nat -A PREROUTING -d 198.18.3.1/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 198.18.1.11:80",
            "-t nat -A POSTROUTING -s 198.18.1.0/24 -d 198.18.1.0/24 -j MASQUERADE",
        ]);
        let mut c = Conn::new(alice(), 4001, bob(), 80);
        c.service = (router(2).ip, 8080);
        c.open(t);
        assert_eq!(c.peer, (router(0).ip, 4001));
        c.talk(t);
        let back = t.send(c.server_sends("PA", &[8; 10])).passes("ESTABLISHED");
        assert_eq!((back.port, back.ip().src(), back.ip().sport()), (0, router(2).ip, 8080));
        assert_eq!((back.ip().dst(), back.ip().dport()), (alice().ip, 4001));
    });
}

#[test]
fn b39_no_udp_checksum_stays_none() {
    both(|t| {
        t.rules(&[SNAT]);
        let request = udp(alice(), 4001, web().ip, 53, b"question").without_udp_checksum();
        let out = t.send(request).passes("NEW");
        assert_eq!(
            (out.ip().src().to_string().as_str(), out.ip().udp_checksum()),
            ("198.18.3.100", 0)
        );
        let reply = udp(web(), 53, out.ip().src(), 4001, b"answer").without_udp_checksum();
        let back = t.send(reply).passes("ESTABLISHED");
        assert_eq!((back.ip().dst(), back.ip().udp_checksum()), (alice().ip, 0));
    });
}

/// The router serves port 1194. A mapping takes no packet of the service's but
/// those from the one address and port that the mapping itself was made for, and
/// only when it was there first: so far the kernel goes, and no further.
#[test]
fn b47_a_mapping_shadows_only_its_own_peer() {
    both(|t| {
        t.rules(&["-t nat -A POSTROUTING -o eth2 -j MASQUERADE"]);
        // A client of the service that was there before keeps it.
        t.send(udp(web(), 40_000, router(2).ip, 1194, b"hello")).dropped("NEW");
        assert_ne!(exchange(t, alice(), 1194, web(), 40_000), 1194);
        t.send(udp(web(), 40_000, router(2).ip, 1194, b"again")).dropped("NEW");
        assert_eq!(t.delivered(), 2);
        // The port itself is not reserved, but nobody else is led astray by that.
        assert_eq!(exchange(t, bob(), 1194, mail(), 40_000), 1194);
        t.send(udp(mail(), 40_001, router(2).ip, 1194, b"hello")).dropped("NEW");
        t.send(udp(far(), 40_000, router(2).ip, 1194, b"hello")).dropped("NEW");
        assert_eq!(t.delivered(), 4);
        let taken = t.send(udp(mail(), 40_000, router(2).ip, 1194, b"hello"));
        assert_eq!(taken.passes("ESTABLISHED").port, 0);
        assert_eq!(t.delivered(), 4);
    });
}
