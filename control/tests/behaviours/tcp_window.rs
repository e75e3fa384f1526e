//! Lines 6-12, 19, 20, 22: sequence numbers, windows, resets and timeouts.

use super::conn::Conn;
use super::packet::{alice, web};
use super::script::both;

/// An established connection from that port, both windows as given.
#[track_caller]
fn opened(t: &mut super::script::Script<'_>, cport: u16, windows: (u16, u16)) -> Conn {
    let mut c = Conn::new(alice(), cport, web(), 80);
    (c.cseq, c.sseq) = (500_000, 900_000);
    (c.cwin, c.swin) = windows;
    c.open(t);
    c
}

#[test]
fn b06_an_acknowledged_retransmission_passes() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        let data = c.client_sends("PA", &[7; 100]);
        t.send(data.clone()).passes("ESTABLISHED");
        t.send(c.down("A")).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
        let again = t.send(data).passes("ESTABLISHED");
        assert_eq!(again.ip().payload(), [7; 100]);
    });
}

#[test]
fn b07_data_past_the_window() {
    both(|t| {
        t.rules(&[]);
        // The server takes 1000 bytes from 500001 on: maxend is 501001.
        for (n, (past, state)) in [
            (0, "ESTABLISHED"),
            (1, "ESTABLISHED"),
            (989, "ESTABLISHED"),
            (990, "INVALID"),
            (1500, "INVALID"),
        ]
        .into_iter()
        .enumerate()
        {
            let c = opened(t, 4001 + n as u16, (29_200, 1_000));
            t.send(c.up("PA").seq(501_001 + past).len(10)).passes(state);
        }
    });
}

#[test]
fn b08_acks_of_the_unseen_and_the_old() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        t.send(c.server_sends("PA", &[8; 500])).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 300);
        t.send(c.up("A").ack(c.sseq + 1)).passes("INVALID");
        // Nothing but a right one puts the timeout back.
        for old in [66_001, 70_000, 500_000] {
            t.send(c.up("A").ack(c.sseq - old)).passes("ESTABLISHED");
            t.flow().is("ESTABLISHED", 300);
        }
        t.send(c.up("A")).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
    });
}

#[test]
fn b09_a_reset_below_the_acknowledged_is_invalid() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        c.talk(t);
        t.send(c.down("A")).passes("ESTABLISHED");
        for seq in [c.cseq - 1, c.cseq - 10, c.cseq - 5_000] {
            t.send(c.up("R").seq(seq)).passes("INVALID");
            t.send(c.up("RA").seq(seq)).passes("INVALID");
        }
        t.flow().is("ESTABLISHED", 432_000);
        c.talk(t);
    });
}

/// The timeout goes down to that of CLOSE.
#[test]
fn b10_an_inexact_reset_in_the_window_passes() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        c.talk(t);
        t.send(c.down("A")).passes("ESTABLISHED");
        t.send(c.up("R").seq(c.cseq + 20)).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 10);
        // What the reset seemed to send is still unacknowledged.
        c.talk(t);
        t.flow().is("ESTABLISHED", 300);
    });
}

#[test]
fn b11_an_exact_reset_closes() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        c.talk(t);
        t.send(c.down("A")).passes("ESTABLISHED");
        t.send(c.up("R")).passes("ESTABLISHED");
        t.flow().is("CLOSE", 10);
        t.send(c.server_sends("PA", &[8; 50])).passes("ESTABLISHED");
        t.flow().is("CLOSE", 10);
    });
}

#[test]
fn b12_a_stale_reset_after_fin() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        c.talk(t);
        t.send(c.client_sends("FA", &[])).passes("ESTABLISHED");
        t.flow().is("FIN_WAIT", 120);
        t.send(c.down("A")).passes("ESTABLISHED");
        t.flow().is("CLOSE_WAIT", 60);
        t.send(c.up("R").seq(c.cseq - 10)).passes("ESTABLISHED");
        t.flow().is("CLOSE", 10);
        // Before the FIN it would have been: line 9.
        let mut other = opened(t, 4002, (29_200, 29_200));
        other.talk(t);
        t.send(other.down("A")).passes("ESTABLISHED");
        t.send(other.up("R").seq(other.cseq - 10)).passes("INVALID");
    });
}

#[test]
fn b19_a_scale_on_one_side_is_none() {
    let scale: &[u8] = &[3, 3, 7];
    both(|t| {
        t.rules(&[]);
        for (port, soptions, state) in [(4001, scale, "ESTABLISHED"), (4002, &[][..], "INVALID")] {
            let mut c = Conn::new(alice(), port, web(), 80);
            c.coptions = scale.to_vec();
            c.soptions = soptions.to_vec();
            (c.cwin, c.swin) = (200, 200);
            c.open(t);
            // A window of 200 means 25600 when both scale by 7.
            t.send(c.down("PA").seq(c.sseq + 5_000).len(10)).passes(state);
            t.send(c.up("PA").seq(c.cseq + 5_000).len(10)).passes(state);
        }
    });
}

#[test]
fn b20_repetition_and_zero_windows_lower_the_timeout() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        c.talk(t);
        t.send(c.down("A")).passes("ESTABLISHED");
        for repeated in 1..=4 {
            t.send(c.up("A")).passes("ESTABLISHED");
            let timeout = if repeated < 4 { 432_000 } else { 300 };
            t.flow().is("ESTABLISHED", timeout);
        }
        t.send(c.down("A")).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
        t.send(c.up("A").window(0)).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 300);
        t.send(c.up("A")).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
    });
}

#[test]
fn b22_unacknowledged_data_lowers_the_timeout() {
    both(|t| {
        t.rules(&[]);
        let mut c = opened(t, 4001, (29_200, 29_200));
        t.flow().is("ESTABLISHED", 432_000);
        t.send(c.client_sends("PA", &[7; 100])).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 300);
        t.send(c.down("A")).passes("ESTABLISHED");
        t.flow().is("ESTABLISHED", 432_000);
    });
}
