//! Scripts beside the numbered lines, where their subjects meet: NAT of the
//! router's own packets, with zones, with fragments, with helpers.

use super::conn::Conn;
use super::packet::{
    Packet, alice, bob, carol, echo, error, far, hop, icmp, router, tcp, udp, v6, web,
};
use super::script::{both, both_v6};

#[test]
fn the_routers_own_packets_are_translated_too() {
    both(|t| {
        t.rules(&[
            "-t nat -A OUTPUT -d 198.18.3.77/32 -p udp -j DNAT --to-destination 198.18.3.10:5353",
            "-t nat -A POSTROUTING -o eth2 -j MASQUERADE",
        ]);
        let s = t.send(udp(router(2), 700, "198.18.3.77".parse().unwrap(), 53, b"?"));
        assert_eq!(s.frame().ip().dst(), web().ip);
        t.send(udp(web(), 5353, router(2).ip, 700, b"!"));
        // alice clashes with the router's own
        let o = t.send(udp(alice(), 700, web().ip, 5353, b"?"));
        let p = o.frame().ip().sport();
        t.send(udp(web(), 5353, router(2).ip, p, b"!"));
        let told = t.send(error(hop(), router(2).ip, 3, 3, o.frame().ip().0));
        assert_eq!(told.passes("RELATED").ip().dst(), alice().ip);
        t.send(error(hop(), router(2).ip, 3, 3, s.frame().ip().0)).dropped("RELATED");
        assert_eq!(t.send(echo(8, router(2), web().ip, 9, 1)).passes("NEW").ip().icmp_id(), 9);
        assert_ne!(t.send(echo(8, alice(), web().ip, 9, 1)).passes("NEW").ip().icmp_id(), 9);
    });
}

#[test]
fn redirected_to_the_router() {
    both(|t| {
        t.rules(&[
            "-t nat -A PREROUTING -i eth0 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128",
            "-t nat -A PREROUTING -i eth0 -p udp -j REDIRECT",
            "-A INPUT -p tcp -j REJECT --reject-with tcp-reset",
        ]);
        let s = t.send(tcp(alice(), 4001, far().ip, 80).flags("S"));
        assert_eq!(s.frame().ip().src(), far().ip);
        t.send(udp(alice(), 4001, far().ip, 53, b"?")).dropped("NEW");
        assert_eq!(t.delivered(), 1);
        let back = t.send(udp(router(0), 53, alice().ip, 4001, b"!")).passes("ESTABLISHED");
        assert_eq!(back.ip().src(), far().ip);
        t.send(error(alice(), far().ip, 3, 3, &udp(far(), 53, alice().ip, 4001, b"!").ip));
    });
}

#[test]
fn netmap_and_port_ranges() {
    both(|t| {
        t.rules(&[
            "-t nat -A PREROUTING -d 192.0.2.0/24 -j NETMAP --to 198.18.2.0/24",
            "-t nat -A POSTROUTING -s 198.18.1.0/24 -o eth1 -j NETMAP --to 198.51.100.0/24",
            "-t nat -A POSTROUTING -o eth2 -p udp -j SNAT --to-source 198.18.3.100-198.18.3.100:2000-2003",
            "-t nat -A PREROUTING -i eth2 -p tcp -j DNAT --to-destination 198.18.1.10-198.18.1.10:8000-8003",
        ]);
        let s = t.send(udp(alice(), 4001, "192.0.2.10".parse().unwrap(), 53, b"?"));
        assert_eq!(
            (s.frame().ip().src().to_string(), s.frame().ip().dst()),
            ("198.51.100.10".to_owned(), carol().ip)
        );
        t.send(udp(carol(), 53, "198.51.100.10".parse().unwrap(), 4001, b"!"))
            .passes("ESTABLISHED");
        for n in 0..4 {
            let s = t.send(udp(alice(), 4001 + n, web().ip, 53, b"?"));
            let p = s.frame().ip().sport();
            assert!((2000..=2003).contains(&p));
            t.send(udp(web(), 53, "198.18.3.100".parse().unwrap(), p, b"!")).passes("ESTABLISHED");
        }
        t.send(udp(alice(), 4009, web().ip, 53, b"?")).dropped("NEW");
        t.send(error(carol(), "198.51.100.10".parse().unwrap(), 3, 3, s.frame().ip().0))
            .passes("RELATED");
        let r = tcp(web(), 5000, "198.18.3.1".parse().unwrap(), 80).flags("S");
        let s = t.send(r);
        assert!((8000..=8003).contains(&s.frame().ip().dport()));
    });
}

#[test]
fn strays_and_resets_behind_masquerade() {
    both(|t| {
        t.rules(&["-t nat -A POSTROUTING -o eth2 -j MASQUERADE"]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.open(t);
        c.talk(t);
        // To the router itself, for all it knows.
        t.send(c.down("R").seq(c.sseq - 100)).dropped("INVALID");
        t.send(c.down("PA").seq(c.sseq + 100_000).len(10)).dropped("INVALID");
        t.send(c.down("R").seq(c.sseq + 5)).passes("ESTABLISHED");
        t.send(c.down("R")).passes("ESTABLISHED");
        t.send(c.up("PA").len(3));
        t.send(c.up("S").seq(9_000_000).ack(0));
        t.send(tcp(web(), 80, router(2).ip, 4001).flags("SA").seq(5).ack(9_000_001));
        t.send(tcp(web(), 81, router(2).ip, 4001).flags("S").seq(5));
    });
}

#[test]
fn two_zones_behind_one_address() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -i eth0 -j CT --zone-orig 1",
            "-t raw -A PREROUTING -i eth1 -j CT --zone-orig 2",
            "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100",
        ]);
        let request = udp(alice(), 4001, web().ip, 53, b"question");
        let twin = Packet { from: carol(), ..request.clone() };
        let a = t.send(request).passes("NEW");
        let b = t.send(twin).passes("NEW");
        t.send(udp(web(), 53, "198.18.3.100".parse().unwrap(), a.ip().sport(), b"!"))
            .passes("ESTABLISHED");
        t.send(udp(web(), 53, "198.18.3.100".parse().unwrap(), b.ip().sport(), b"!"))
            .passes("ESTABLISHED");
        t.send(error(hop(), "198.18.3.100".parse().unwrap(), 3, 3, a.ip().0));
        t.send(error(hop(), "198.18.3.100".parse().unwrap(), 3, 3, b.ip().0));
    });
}

#[test]
fn nat_in_ipv6() {
    both_v6(|t| {
        t.rules(&[
            "-t nat -A POSTROUTING -o eth2 -j MASQUERADE",
            "-t nat -A PREROUTING -d 2001:db8:3::77/128 -j DNAT --to-destination 2001:db8:1::a",
            "-t nat -A PREROUTING -i eth0 -p udp -m udp --dport 99 -j REDIRECT --to-ports 100",
        ]);
        for host in [alice(), bob()] {
            let o = t.send(echo(8, v6(host), v6(web()).ip, 7, 1)).passes("NEW");
            t.send(echo(0, v6(web()), o.ip().src(), o.ip().icmp_id(), 1)).passes("ESTABLISHED");
            t.send(error(v6(hop()), o.ip().src(), 3, 0, o.ip().0)).passes("RELATED");
            let o = t.send(tcp(v6(host), 4001, v6(web()).ip, 80).flags("S")).passes("NEW");
            t.send(error(v6(hop()), o.ip().src(), 1, 0, o.ip().0)).passes("RELATED");
            t.send(udp(v6(host), 4001, v6(web()).ip, 99, b"?"));
        }
        t.send(tcp(v6(far()), 4001, "2001:db8:3::77".parse().unwrap(), 80).flags("S"))
            .passes("NEW");
        let o = t
            .send(tcp(v6(far()), 4001, "2001:db8:3::77".parse().unwrap(), 80).flags("S").ttl(1))
            .out;
        assert_eq!(o.len(), 1);
    });
}

#[test]
fn a_passive_ftp_server_behind_dnat() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp",
            "-t nat -A PREROUTING -i eth2 -d 198.18.3.1/32 -p tcp -m tcp --dport 21 -j DNAT --to-destination 198.18.1.10",
            "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A FORWARD -p tcp -m tcp --dport 21 -j ACCEPT",
            "-P FORWARD DROP",
        ]);
        let mut c = Conn::new(web(), 4001, alice(), 21);
        c.service.0 = router(2).ip;
        c.open(t);
        t.send(c.server_sends("PA", b"220 hi\r\n"));
        t.send(c.client_sends("PA", b"PASV\r\n"));
        let o =
            t.send(c.server_sends("PA", b"227 Entering Passive Mode (198,18,1,10,200,10).\r\n"));
        assert!(String::from_utf8_lossy(o.frame().ip().payload()).contains("198,18,3,1,200,10"));
        t.expectations();
        let mut d = Conn::new(web(), 4002, alice(), 51_210);
        d.service.0 = router(2).ip;
        let s = t.send(d.client_sends("S", &[])).passes("RELATED");
        assert_eq!(s.ip().dst(), alice().ip);
        t.send(d.server_sends("SA", &[])).passes("ESTABLISHED");
        t.send(d.up("A")).passes("ESTABLISHED");
        t.send(c.up("A").ack(c.sseq - 1)).passes("ESTABLISHED");
        let o = t.send(c.client_sends("PA", b"EPSV\r\n").ack(c.sseq - 1));
        o.passes("ESTABLISHED");
        let o = t.send(c.server_sends("PA", b"229 Extended Passive (|||51211|)\r\n"));
        o.passes("ESTABLISHED");
        assert_eq!(t.expectations().len(), 1);
        t.send(tcp(far(), 4003, router(2).ip, 51_211).flags("S"));
        t.send(tcp(web(), 4003, router(2).ip, 51_211).flags("S"));
        t.flows();
    });
}

#[test]
fn ftp_over_ipv6() {
    both_v6(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp",
            "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 2001:db8:3::100",
            "-A FORWARD -i eth2 -m conntrack --ctstate NEW -j DROP",
        ]);
        let mut c = Conn::new(v6(alice()), 4001, v6(web()), 21);
        c.open(t);
        t.send(c.server_sends("PA", b"220 hi\r\n"));
        t.send(c.client_sends("PA", b"USER x\r\n"));
        let o = t.send(c.client_sends("PA", b"EPRT |2|2001:db8:1::a|51210|\r\n"));
        assert!(o.frame().ip().checksums_hold());
        assert_eq!(t.expectations().len(), 1);
        t.send(tcp(v6(web()), 20, "2001:db8:3::100".parse().unwrap(), 51_210).flags("S"))
            .passes("RELATED");
        t.send(c.client_sends("PA", b"LIST\r\n"));
    });
}

#[test]
fn a_second_ftp_command_replaces_the_first() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp",
            "-t nat -A POSTROUTING -o eth2 -j MASQUERADE",
        ]);
        let mut c = Conn::new(alice(), 4001, web(), 21);
        c.open(t);
        t.send(c.server_sends("PA", b"220 hi\r\n")).passes("ESTABLISHED");
        t.send(c.client_sends("PA", b"USER x\r\n")).passes("ESTABLISHED");
        t.send(c.client_sends("PA", b"PORT 198,18,1,10,200,10\r\n")).passes("ESTABLISHED");
        assert!(t.expectations()[0].contains("dport=51210"));
        t.send(c.client_sends("PA", b"NOOP\r\n")).passes("ESTABLISHED");
        t.send(c.client_sends("PA", b"PORT 198,18,1,10,200,11\r\n")).passes("ESTABLISHED");
        let expected = t.expectations();
        assert!(expected.len() == 1 && expected[0].contains("dport=51211"), "{expected:?}");
        t.send(c.client_sends("PA", b"LIST\r\n")).passes("ESTABLISHED");
        t.send(c.up("R")).passes("ESTABLISHED");
        t.expectations();
    });
}

#[test]
fn fragmented_pings_through_nat() {
    both(|t| {
        t.rules(&[
            "-t nat -A POSTROUTING -o eth2 -j MASQUERADE",
            "-A FORWARD -p icmp -m length --length 1000:2000 -j REJECT",
        ]);
        let big = icmp(alice(), web().ip, 8, 0, [0, 7, 0, 1], &[3; 3000]);
        for piece in big.fragments(&[0, 1480, 2960]) {
            t.send(piece);
        }
        let back = icmp(web(), router(2).ip, 0, 0, [0, 7, 0, 1], &[3; 3000]);
        for piece in back.fragments(&[0, 1000, 2000]).into_iter().rev() {
            t.send(piece);
        }
        let mid = icmp(alice(), web().ip, 8, 0, [0, 7, 0, 2], &[3; 1500]);
        for piece in mid.fragments(&[0, 800]) {
            t.send(piece);
        }
        let first = udp(bob(), 4001, web().ip, 53, &[1; 2000]);
        let mut out = Vec::new();
        for piece in first.fragments(&[0, 1400]) {
            out.extend(t.send(piece).out);
        }
        t.send(error(hop(), router(2).ip, 3, 4, out[0].ip().0));
        t.send(error(hop(), router(2).ip, 3, 4, out[1].ip().0));
        t.send(error(hop(), router(2).ip, 11, 1, out[0].ip().0));
    });
}

#[test]
fn tcp_ports_used_again_and_connections_met_midway() {
    both(|t| {
        t.rules(&["-t nat -A POSTROUTING -o eth2 -j MASQUERADE"]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.open(t);
        t.send(c.server_sends("FA", &[]));
        t.send(c.client_sends("FA", &[]));
        // SYN in LAST_ACK, its challenge
        t.send(c.up("S").seq(7_000_000).ack(0));
        t.send(c.down("A"));
        t.send(c.up("R"));
        t.send(c.up("S").seq(8_000_000).ack(0));
        t.flows();
        // picked up in the middle through NAT
        t.send(tcp(bob(), 4001, web().ip, 80).flags("PA").seq(77).ack(99).len(10));
        t.flows();
        t.send(tcp(web(), 80, router(2).ip, 4001).flags("A").seq(99).ack(87));
        t.sysctl("tcp_loose", 0);
        t.send(tcp(bob(), 4002, web().ip, 80).flags("PA").seq(77).ack(99).len(10))
            .passes("INVALID");
        t.sysctl("tcp_be_liberal", 1);
        t.send(c.down("PA").seq(c.sseq + 500_000).len(10));
        t.send(tcp(bob(), 4001, web().ip, 80).flags("R").seq(1).ack(99));
    });
}

#[test]
fn connections_of_the_router_itself() {
    both(|t| {
        t.rules(&["-A INPUT -m conntrack --ctstate INVALID -j DROP"]);
        let mut c = Conn::new(alice(), 4001, router(0), 22);
        t.send(c.client_sends("S", &[])).dropped("NEW");
        t.send(c.server_sends("SA", &[])).passes("ESTABLISHED");
        t.send(c.up("A")).dropped("ESTABLISHED");
        t.send(c.server_sends("PA", &[1; 20])).passes("ESTABLISHED");
        t.send(c.up("A").ack(c.sseq + 1)).dropped("INVALID");
        t.send(c.server_sends("FA", &[])).passes("ESTABLISHED");
        t.flow();
        t.send(echo(8, router(0), alice().ip, 5, 1)).passes("NEW");
        t.send(echo(0, alice(), router(0).ip, 5, 1)).dropped("ESTABLISHED");
        t.send(echo(0, alice(), router(0).ip, 6, 1)).dropped("INVALID");
        let o = t.send(udp(router(2), 9, far().ip, 33_434, b"x")).passes("NEW");
        t.send(error(hop(), router(2).ip, 11, 0, o.ip().0)).dropped("RELATED");
    });
}
