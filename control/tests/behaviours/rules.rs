//! Lines 53, 59-62, 64: what rules see, and what they count.

use super::conn::Conn;
use super::packet::{Packet, alice, bob, dave, echo, error, hop, router, tcp, udp, web};
use super::script::{Extra, before_a_store, both, both_with};

#[test]
fn b53_ctstate_and_state_agree() {
    both(|t| {
        let words = ["NEW", "ESTABLISHED", "RELATED", "INVALID"];
        let one = words.map(|word| format!("-A FORWARD -m state --state {word}"));
        let other = words.map(|word| format!("-A FORWARD -m conntrack --ctstate {word}"));
        let mut rules: Vec<&str> = one.iter().chain(&other).map(String::as_str).collect();
        rules.extend([
            "-A FORWARD -m conntrack --ctstate DNAT",
            "-A FORWARD -m conntrack --ctstate SNAT",
            "-t nat -A PREROUTING -d 198.18.3.77/32 -j DNAT --to-destination 198.18.3.10",
            "-t nat -A POSTROUTING -s 198.18.1.11/32 -j SNAT --to-source 198.18.3.100",
        ]);
        t.rules(&rules);
        let mut plain = Conn::new(alice(), 4001, web(), 80);
        plain.open(t);
        t.send(plain.up("SA")).passes("INVALID");
        t.send(tcp(alice(), 4002, web().ip, 80).flags("F")).passes("INVALID");
        let sent = t.send(udp(alice(), 4003, web().ip, 53, b"?")).passes("NEW");
        t.send(error(hop(), alice().ip, 3, 3, sent.ip().0)).passes("RELATED");
        let counts: Vec<u64> = (0..8).map(|n| t.count(&format!("filter FORWARD {n}"))).collect();
        assert_eq!(counts[..4], counts[4..]);
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
        assert_eq!((t.count("filter FORWARD 8"), t.count("filter FORWARD 9")), (0, 0));
        let mut dnat = Conn::new(alice(), 4004, web(), 80);
        dnat.service.0 = "198.18.3.77".parse().unwrap();
        dnat.open(t);
        assert_eq!((t.count("filter FORWARD 8"), t.count("filter FORWARD 9")), (3, 0));
        let mut snat = Conn::new(bob(), 4005, web(), 80);
        snat.open(t);
        // SNAT is decided after FORWARD has seen the first packet.
        assert_eq!((t.count("filter FORWARD 8"), t.count("filter FORWARD 9")), (3, 2));
    });
}

#[test]
fn b59_what_reject_does_not_answer() {
    both(|t| {
        t.rules(&[
            "-A FORWARD -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset",
            "-A FORWARD -p udp -m udp --dport 53 -j REJECT --reject-with icmp-port-unreachable",
            "-A FORWARD -p icmp -j REJECT --reject-with icmp-admin-prohibited",
            "-A INPUT -p udp -j REJECT --reject-with icmp-port-unreachable",
        ]);
        let syn = tcp(alice(), 4001, web().ip, 80).flags("S").seq(700);
        let answer = t.send(syn.clone()).passes("NEW");
        assert_eq!((answer.port, answer.ip().seq(), answer.ip().ack()), (0, 0, 701));
        assert_eq!(answer.ip().l4()[13], 0x14);
        // Without SYN, the reset has the sequence number that was asked for.
        let answer =
            t.send(tcp(alice(), 4002, web().ip, 80).flags("A").seq(7).ack(9_000)).passes("NEW");
        assert_eq!((answer.ip().seq(), answer.ip().l4()[13]), (9_000, 4));
        t.send(tcp(alice(), 4003, web().ip, 80).flags("R").seq(7)).dropped("INVALID");
        let mut broken = syn.build();
        broken.ip[36] ^= 1;
        t.send(broken).dropped("INVALID");
        // ICMP errors: about a datagram, not about an error, nor what does not add up.
        let query = udp(alice(), 4001, web().ip, 53, b"question");
        let answer = t.send(query.clone()).passes("NEW");
        assert_eq!(answer.ip().icmp_kind(), (3, 3));
        let mut broken = query.clone();
        broken.ip[30] ^= 1;
        t.send(broken).dropped("INVALID");
        assert_eq!(
            t.send(echo(8, alice(), web().ip, 7, 1)).passes("NEW").ip().icmp_kind(),
            (3, 13)
        );
        t.send(error(alice(), web().ip, 3, 3, &query.ip)).dropped("INVALID");
        let sent = t.send(udp(alice(), 4001, web().ip, 99, b"question")).passes("NEW");
        t.send(error(hop(), alice().ip, 3, 3, sent.ip().0)).dropped("RELATED");
        // For the router itself: not when it was sent to everybody.
        let own = udp(alice(), 4001, router(0).ip, 99, b"question");
        assert_eq!(t.send(own).passes("NEW").ip().icmp_kind(), (3, 3));
        let all = "198.18.1.255".parse().unwrap();
        let seen = t.send(udp(alice(), 4001, all, 99, b"question"));
        assert!(seen.out.is_empty(), "{seen:?}");
        assert_eq!(t.count("filter INPUT 0"), 2);
    });
}

/// Without connection tracking, fragments meet the rules one by one. Of the
/// first one only a datagram without a checksum adds up.
#[test]
fn b59_reject_does_not_answer_fragment_tails() {
    both(|t| {
        t.load("*filter\n-A FORWARD -p udp -j REJECT\nCOMMIT\n", false);
        let datagram = udp(alice(), 4001, web().ip, 53, &[7; 64]);
        let pieces = datagram.clone().without_udp_checksum().fragments(&[0, 32]);
        let answer = t.send(pieces[0].clone()).frame();
        assert_eq!(answer.ip().icmp_kind(), (3, 3));
        assert!(t.send(pieces[1].clone()).out.is_empty());
        for piece in datagram.fragments(&[0, 32]) {
            assert!(t.send(piece).out.is_empty());
        }
        assert_eq!(t.count("filter FORWARD 0"), 4);
    });
}

#[test]
fn b60_returning_and_policies() {
    both(|t| {
        t.rules(&[
            "-P FORWARD DROP",
            "-N services",
            "-A FORWARD -p udp -j services",
            "-A FORWARD -p udp -m udp --dport 53 -j ACCEPT",
            "-A FORWARD -p udp -m udp --dport 54 -j RETURN",
            "-A FORWARD -p udp -m udp --dport 54 -j ACCEPT",
            "-A FORWARD -p udp -m udp --dport 56 -j ACCEPT",
            "-A services -p udp -m udp --dport 55 -j RETURN",
            "-A services -p udp -m udp --dport 55:56 -j DROP",
        ]);
        let mut ask = |dport| t.send(udp(alice(), 4001, web().ip, dport, b"?"));
        ask(53).passes("NEW");
        for dport in [54, 55, 56, 57] {
            ask(dport).dropped("NEW");
        }
        let counts = t.counters();
        let packets = |place: &str| counts[place].0;
        assert_eq!(packets("filter FORWARD policy"), 3);
        assert_eq!(packets("filter FORWARD 0"), 5);
        assert_eq!(packets("filter FORWARD 1"), 1);
        assert_eq!(packets("filter FORWARD 2"), 1);
        assert_eq!(packets("filter FORWARD 3"), 0);
        assert_eq!((packets("filter services 0"), packets("filter services 1")), (1, 1));
    });
}

#[test]
fn b61_marks() {
    let by_mark = Extra {
        v6: false,
        ip: &[
            "rule add fwmark 0x20/0xf0 table 100 priority 1000",
            "route add default via 198.18.2.11 dev eth1 table 100",
        ],
        topology: "[[rule]]\nfwmark = \"0x20/0xf0\"\ntable = 100\npriority = 1000\n\
                   [[route]]\nto = \"0.0.0.0/0\"\nvia = \"198.18.2.11\"\ndev = \"eth1\"\ntable = 100\n",
    };
    both_with(&by_mark, |t| {
        t.rules(&[
            "-t mangle -A PREROUTING -i eth0 -p udp -m udp --dport 53 -j MARK --set-xmark 0x21/0xff",
            "-t mangle -A PREROUTING -i eth0 -p udp -m udp --dport 54 -j MARK --set-xmark 0x31/0xff",
            "-A FORWARD -m mark --mark 0x20/0xf0",
            "-A FORWARD -m mark --mark 0x0",
            // The upper half of the mark is kept in the connection and comes back with its answers.
            "-t mangle -A PREROUTING -i eth1 -j MARK --set-xmark 0x14/0xff",
            "-t mangle -A PREROUTING -i eth1 -j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xf0",
            "-t mangle -A FORWARD -i eth0 -m mark ! --mark 0x0 -j CONNMARK --save-mark --nfmask 0xf0 --ctmask 0xf0",
            "-A FORWARD -i eth1 -m mark --mark 0x24",
        ]);
        let ask = |dport| udp(alice(), 4001, web().ip, dport, b"?");
        assert_eq!(t.send(ask(53)).passes("NEW").port, 1, "routed by mark");
        assert_eq!(t.flow().field("mark", 0), "32");
        assert_eq!(t.send(ask(54)).passes("NEW").port, 2, "another mark");
        assert_eq!(t.send(ask(55)).passes("NEW").port, 2, "marks do not leak");
        let answer = Packet { from: dave(), ..udp(web(), 53, alice().ip, 4001, b"!") };
        // Its mark leads it to eth1 again: both directions are routed alike.
        assert_eq!(t.send(answer).passes("ESTABLISHED").port, 1);
        let counts: Vec<u64> = (0..3).map(|n| t.count(&format!("filter FORWARD {n}"))).collect();
        assert_eq!(counts, [2, 1, 1]);
    });
}

#[test]
fn b62_untracked_packets_match_nothing_else() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -p udp -m udp --dport 53 -j CT --notrack",
            "-A FORWARD -m conntrack --ctstate UNTRACKED",
            "-A FORWARD -m conntrack --ctstate INVALID,NEW,RELATED,ESTABLISHED",
            "-A FORWARD -m state --state UNTRACKED",
            "-A FORWARD -m state --state INVALID,NEW,RELATED,ESTABLISHED",
            "-A FORWARD -m connmark --mark 0x0",
            "-A FORWARD -m conntrack --ctproto 17",
            "-A FORWARD -m conntrack --ctstate SNAT,DNAT",
        ]);
        t.send(udp(alice(), 4001, web().ip, 53, b"?")).passes("UNTRACKED");
        t.send(udp(alice(), 4001, web().ip, 54, b"?")).passes("NEW");
        let counts: Vec<u64> = (0..7).map(|n| t.count(&format!("filter FORWARD {n}"))).collect();
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 0]);
    });
}

/// What a reload without `-c` does to rules that stay as they are is our own way:
/// the kernel zeroes them, we let them go on counting.
#[test]
fn b64_written_counters_and_reloads() {
    before_a_store(|t| {
        let file = "*filter\n:FORWARD DROP [7:700]\n\
                    [10:1000] -A FORWARD -p udp -m udp --dport 53 -j ACCEPT\nCOMMIT\n";
        t.load(file, true);
        t.send(udp(alice(), 4001, web().ip, 53, b"?")).frame();
        assert!(t.send(udp(alice(), 4001, web().ip, 54, b"?")).out.is_empty());
        let counts = t.counters();
        assert_eq!(counts["filter FORWARD 0"], (11, 1029));
        assert_eq!(counts["filter FORWARD policy"], (8, 729));
        let longer = file.replace("COMMIT", "[5:500] -A FORWARD -p tcp -j ACCEPT\nCOMMIT");
        t.load(&longer, false);
        let counts = t.peek();
        assert_eq!(counts["filter FORWARD 1"], (0, 0));
        let kept = if t.is_kernel() { (0, 0) } else { (11, 1029) };
        assert_eq!(counts["filter FORWARD 0"], kept);
        assert!(t.send(udp(alice(), 4001, web().ip, 54, b"?")).out.is_empty(), "still DROP");
        t.load(&longer, true);
        let counts = t.counters();
        assert_eq!(counts["filter FORWARD 0"], (10, 1000));
        assert_eq!(counts["filter FORWARD 1"], (5, 500));
        assert_eq!(counts["filter FORWARD policy"], (7, 700));
    });
}
