//! Lines 5, 23, 24: UDP streams, and ICMP errors about flows.

use super::packet::{alice, bob, error, far, hop, udp, web};
use super::script::both;

#[test]
fn b05_a_udp_stream_is_older_than_two_seconds() {
    both(|t| {
        t.rules(&[]);
        let (request, reply) =
            (udp(alice(), 4001, web().ip, 53, b"?"), udp(web(), 53, alice().ip, 4001, b"!"));
        t.send(request.clone()).passes("NEW");
        for _ in 0..2 {
            t.send(reply.clone()).passes("ESTABLISHED");
            let flow = t.flow();
            flow.is("", 30);
            assert!(flow.replied() && !flow.assured());
        }
        t.send(request.clone()).passes("ESTABLISHED");
        t.flow().is("", 30);
        t.wait_ms(2_100);
        t.send(reply).passes("ESTABLISHED");
        let flow = t.flow();
        flow.is("", 120);
        assert!(flow.assured());
    });
}

#[test]
fn b23_errors_from_anywhere_about_a_flow_are_related() {
    both(|t| {
        t.rules(&[]);
        let first = t.send(udp(alice(), 4001, far().ip, 53, b"question")).passes("NEW");
        // From a router that has no part in the flow, to its source.
        let told = t.send(error(hop(), alice().ip, 3, 1, first.ip().0)).passes("RELATED");
        assert_eq!((told.port, told.ip().quoted().dport()), (0, 53));
        // To somebody else.
        t.send(error(hop(), bob().ip, 3, 1, first.ip().0)).passes("INVALID");
        // About a flow that nobody knows.
        let unknown = udp(alice(), 4002, far().ip, 53, b"question");
        t.send(error(hop(), alice().ip, 3, 1, &unknown.ip)).passes("INVALID");
    });
}

#[test]
fn b24_an_error_neither_refreshes_nor_deletes() {
    both(|t| {
        t.rules(&[]);
        let request = udp(alice(), 4001, far().ip, 53, b"question");
        let first = t.send(request.clone()).passes("NEW");
        let flow = t.flow();
        flow.is("", 30);
        t.sysctl("udp_timeout", 200);
        for (kind, code) in [(3, 3), (3, 1), (11, 0)] {
            t.send(error(hop(), alice().ip, kind, code, first.ip().0)).passes("RELATED");
            assert_eq!(t.flow().facts, flow.facts);
            t.flow().is("", 30);
        }
        t.send(request).passes("NEW");
        t.flow().is("", 200);
    });
}
