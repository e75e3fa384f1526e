//! Lines 1-4, 13-18, 21: how a TCP connection begins, and begins again.

use super::conn::Conn;
use super::packet::{View, alice, tcp, web};
use super::script::{Script, both};

#[test]
fn b01_bare_ack_is_new_with_timeout_300() {
    both(|t| {
        t.rules(&[]);
        t.send(tcp(alice(), 4001, web().ip, 80).flags("A").ack(1)).passes("NEW");
        let flow = t.flow();
        flow.is("ESTABLISHED", 300);
        assert!(!flow.replied());
        for flags in ["R", "RA", "F", "FA", "SA"] {
            let segment = tcp(alice(), 4002, web().ip, 80).flags(flags).ack(1);
            t.send(segment).passes("INVALID");
        }
        assert_eq!(t.flow().field("sport", 0), "4001");
    });
}

#[test]
fn b02_odd_flags() {
    both(|t| {
        t.rules(&[]);
        for (port, flags) in [(4001, "SP"), (4002, "SE"), (4003, "SU"), (4004, "SEC")] {
            t.send(tcp(alice(), port, web().ip, 80).flags(flags)).passes("NEW");
        }
        assert!(t.flows().iter().all(|flow| flow.state() == "SYN_SENT"));
        for flags in ["F", "SF", "", "FPU", "SR", "SFA", "P", "U"] {
            t.send(tcp(alice(), 4009, web().ip, 80).flags(flags).ack(1)).passes("INVALID");
        }
        assert_eq!(t.flows().len(), 4);
    });
}

#[test]
fn b03_a_dropped_first_packet_leaves_no_entry() {
    both(|t| {
        t.rules(&["-A FORWARD -p tcp -m tcp --dport 80 -j DROP"]);
        for _ in 0..2 {
            t.send(tcp(alice(), 4001, web().ip, 80).flags("S")).dropped("NEW");
            t.no_flow();
        }
        assert_eq!(t.count("filter FORWARD 0"), 2);
    });
}

#[test]
fn b04_ttl_1_leaves_no_entry() {
    both(|t| {
        t.rules(&[
            "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100",
            "-t nat -A PREROUTING -d 198.18.3.77/32 -j DNAT --to-destination 198.18.3.10",
        ]);
        let segment = tcp(alice(), 4001, "198.18.3.77".parse().unwrap(), 80).flags("S").ttl(1);
        let sent = segment.build();
        let seen = t.send(sent.clone());
        let answer = seen.passes("NEW");
        assert_eq!((answer.port, answer.ip().icmp_kind()), (0, (11, 0)));
        assert_eq!(answer.ip().quoted().src(), alice().ip);
        assert_eq!(View(&sent.ip).dst(), answer.ip().quoted().dst());
        assert!(answer.ip().checksums_hold());
        t.no_flow();
    });
}

#[test]
fn b13_a_syn_in_established_is_challenged() {
    both(|t| {
        t.rules(&[]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.open(t);
        c.talk(t);
        // The client has lost its memory.
        t.send(c.up("S").seq(900_000).ack(0)).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
        t.send(c.down("A")).passes("ESTABLISHED");
        t.send(c.up("R").seq(c.cseq)).passes("ESTABLISHED");
        t.flow().is("CLOSE", 10);
        t.send(c.up("S").seq(900_000)).passes("NEW");
        t.flow().is("SYN_SENT", 120);
    });
}

/// Only an acknowledgement beyond what was sent is INVALID. One from long before
/// passes and counts as a reply, as [`b08`](super::tcp_window) has it.
#[test]
fn b14_wrong_acks_in_syn_sent() {
    both(|t| {
        t.rules(&[]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.cseq = 500_000;
        c.syn(t);
        for (ack, flags) in [(1, "SA"), (1, "RA"), (70_000, "SA"), (70_000, "RA")] {
            t.send(c.down(flags).ack(c.cseq + ack)).passes("INVALID");
        }
        let flow = t.flow();
        flow.is("SYN_SENT", 120);
        assert!(!flow.replied());
        for flags in ["SA", "RA"] {
            t.send(c.down(flags).ack(c.cseq - 70_000)).passes("ESTABLISHED");
        }
        let flow = t.flow();
        flow.is("SYN_SENT", 120);
        assert!(flow.replied());
        c.syn_ack(t);
        t.flow().is("SYN_RECV", 60);
    });
}

#[test]
fn b15_a_reply_ack_in_syn_sent_only_marks_the_reply() {
    both(|t| {
        t.rules(&[]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.syn(t);
        assert!(!t.flow().replied());
        t.send(c.down("A").seq(77).ack(c.cseq)).passes("ESTABLISHED");
        let flow = t.flow();
        flow.is("SYN_SENT", 120);
        assert!(flow.replied());
    });
}

#[test]
fn b16_simultaneous_open() {
    both(|t| {
        t.rules(&[]);
        // The last word is an ACK of either end.
        for (port, client_is_last) in [(4001, true), (4002, false)] {
            let mut c = Conn::new(alice(), port, web(), 80);
            let state = |t: &mut Script<'_>| {
                let flows = t.flows();
                let flow = flows.iter().find(|flow| flow.has(&format!("sport={port}"))).unwrap();
                (flow.state().to_owned(), flow.timeout_s.div_ceil(10) * 10)
            };
            c.syn(t);
            assert_eq!(state(t), ("SYN_SENT".to_owned(), 120));
            t.send(c.server_sends("S", &[])).passes("ESTABLISHED");
            assert_eq!(state(t), ("SYN_SENT2".to_owned(), 120));
            t.send(c.up("SA").seq(c.cseq - 1)).passes("ESTABLISHED");
            assert_eq!(state(t), ("SYN_RECV".to_owned(), 60));
            if client_is_last {
                t.send(c.down("SA").seq(c.sseq - 1)).passes("ESTABLISHED");
                t.send(c.up("A")).passes("ESTABLISHED");
            } else {
                t.send(c.down("A")).passes("ESTABLISHED");
            }
            assert_eq!(state(t), ("ESTABLISHED".to_owned(), 432_000));
        }
    });
}

/// Closes a connection from the client's side into TIME_WAIT.
#[track_caller]
fn close(t: &mut Script<'_>, c: &mut Conn) {
    t.send(c.client_sends("FA", &[])).passes("ESTABLISHED");
    t.flow().is("FIN_WAIT", 120);
    t.send(c.server_sends("FA", &[])).passes("ESTABLISHED");
    t.flow().is("LAST_ACK", 30);
    t.send(c.up("A")).passes("ESTABLISHED");
    t.flow().is("TIME_WAIT", 120);
}

#[test]
fn b17_a_syn_in_time_wait_is_new() {
    both(|t| {
        t.rules(&[]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.open(t);
        close(t, &mut c);
        c.cseq = 900_000;
        c.syn(t);
        let flow = t.flow();
        flow.is("SYN_SENT", 120);
        assert!(!flow.replied() && !flow.assured());
        c.sseq = 4_000_000;
        c.syn_ack(t);
        t.send(c.up("A")).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
    });
}

#[test]
fn b18_fast_open_data_counts() {
    both(|t| {
        t.rules(&[]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        // Data in the SYN, which the SYN-ACK acknowledges.
        t.send(c.client_sends("S", &[7; 100])).passes("NEW");
        t.send(c.server_sends("SA", &[])).passes("ESTABLISHED");
        t.flow().is("SYN_RECV", 60);
        t.send(c.up("A")).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
        // Without data in the SYN, that acknowledgement is of unseen data.
        let mut other = Conn::new(alice(), 4002, web(), 80);
        other.syn(t);
        t.send(other.down("SA").ack(other.cseq + 100)).passes("INVALID");
    });
}

#[test]
fn b21_a_repeated_syn_extends_nothing() {
    both(|t| {
        t.rules(&[]);
        let mut c = Conn::new(alice(), 4001, web(), 80);
        c.syn(t);
        t.flow().is("SYN_SENT", 120);
        // If it refreshed, it would now take this.
        t.sysctl("tcp_timeout_syn_sent", 200);
        for _ in 0..3 {
            t.send(c.up("S").seq(c.cseq - 1)).passes("NEW");
        }
        t.flow().is("SYN_SENT", 120);
        // Another connection does.
        let mut other = Conn::new(alice(), 4002, web(), 80);
        other.syn(t);
        let flows = t.flows();
        assert!(
            flows.iter().any(|flow| flow.timeout_s > 190 && flow.has("sport=4002")),
            "{flows:?}"
        );
    });
}
