//! Lines 28, 48-50: what is not tracked, zones, timeouts changed, a full table.

use super::conn::Conn;
use super::flow::Flow;
use super::packet::{Packet, alice, bob, carol, error, hop, udp, web};
use super::script::both;

#[test]
fn b28_untracked_flows_leave_no_trace() {
    both(|t| {
        t.rules(&["-t raw -A PREROUTING -p udp -m udp --dport 53 -j CT --notrack"]);
        let request = udp(alice(), 4001, web().ip, 53, b"question");
        let sent = t.send(request).passes("UNTRACKED");
        t.no_flow();
        t.send(error(hop(), alice().ip, 3, 3, sent.ip().0)).passes("INVALID");
        t.send(udp(web(), 53, alice().ip, 4001, b"answer")).passes("NEW");
        let flow = t.flow();
        assert_eq!((flow.field("sport", 0), flow.replied()), ("53", false));
    });
}

#[test]
fn b48_zones_keep_the_same_tuple_apart() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -i eth0 -j CT --zone 1",
            "-t raw -A PREROUTING -i eth1 -j CT --zone 2",
            "-t raw -A PREROUTING -i eth2 -j CT --zone 1",
        ]);
        let request = udp(alice(), 4001, web().ip, 53, b"question");
        // The same addresses and ports behind eth1.
        let twin = Packet { from: carol(), ..request.clone() };
        t.send(request).passes("NEW");
        t.send(twin.clone()).passes("NEW");
        t.send(udp(web(), 53, alice().ip, 4001, b"answer")).passes("ESTABLISHED");
        let flows = t.flows();
        assert_eq!(flows.len(), 2);
        for flow in flows {
            assert_eq!(flow.replied(), flow.has("zone=1"));
            assert!(flow.replied() || flow.has("zone=2"));
        }
        t.send(twin).passes("NEW");
    });
}

#[test]
fn b49_a_timeout_change_is_for_later() {
    both(|t| {
        t.rules(&[]);
        let request = udp(alice(), 4001, web().ip, 53, b"question");
        let mut c = Conn::new(alice(), 4002, web(), 80);
        t.send(request.clone()).passes("NEW");
        c.open(t);
        t.sysctl("udp_timeout", 77);
        t.sysctl("tcp_timeout_established", 1_000);
        for flow in t.flows() {
            flow.is(flow.state(), if flow.state().is_empty() { 30 } else { 432_000 });
        }
        t.send(request).passes("NEW");
        t.send(c.up("A")).passes("ESTABLISHED");
        for flow in t.flows() {
            flow.is(flow.state(), if flow.state().is_empty() { 77 } else { 1_000 });
        }
    });
}

#[test]
fn b50_a_full_table() {
    both(|t| {
        t.rules(&[]);
        let mut flows: Vec<Conn> =
            (0..4).map(|n| Conn::new(alice(), 4001 + n, web(), 80)).collect();
        for c in &mut flows {
            c.open(t);
        }
        assert!(t.flows().iter().all(Flow::assured));
        t.fill_table();
        assert_eq!(t.table_drops(), 0);
        for n in 0..3 {
            let seen = t.send(udp(bob(), 4001 + n, web().ip, 53, b"question"));
            assert!(seen.out.is_empty(), "{seen:?}");
            assert_eq!(t.table_drops(), u64::from(n) + 1);
        }
        for c in &mut flows {
            c.talk(t);
        }
        assert_eq!((t.flows().len(), t.table_drops()), (4, 3));
    });
}
