//! The numbered behaviours that naive firewalls get wrong, as far as they
//! concern tracking alone. Each test name starts with its number.

use super::*;
use crate::wire::tcp::flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
use CtState::{Established, Invalid, New, Related};

fn out(flags: u8, seq: u32, ack: u32) -> Packet {
    Packet::tcp(A, 1000, B, 80, flags).seq(seq, ack)
}
fn back(flags: u8, seq: u32, ack: u32) -> Packet {
    Packet::tcp(B, 80, A, 1000, flags).seq(seq, ack)
}

/// One packet, the state it must get, and the entry after it (see [`Lab::entry`]).
type Row = (Packet, CtState, &'static str);

fn check(lab: &Lab, rows: &[Row]) {
    for (at, (packet, state, entry)) in rows.iter().enumerate() {
        assert_eq!(lab.state(packet), *state, "state of packet {at}");
        let entries = lab.ct.rows(lab.now).count();
        let found = if entries == 0 { "none".to_owned() } else { lab.entry() };
        assert_eq!(found, *entry, "entry after packet {at}");
    }
}

/// A handshake: 101 and 501 come next, both windows are 8192.
fn established() -> Lab {
    let lab = Lab::new(&[]);
    check(
        &lab,
        &[
            (out(SYN, 100, 0), New, "120 SYN_SENT [UNREPLIED]"),
            (back(SYN | ACK, 500, 101), Established, "60 SYN_RECV"),
            (out(ACK, 101, 501), Established, OPEN),
        ],
    );
    lab
}

const OPEN: &str = "432000 ESTABLISHED [ASSURED]";
const LOWERED: &str = "300 ESTABLISHED [ASSURED]";

#[test]
fn b01_a_bare_ack_is_new_and_other_beginnings_are_invalid() {
    check(&Lab::new(&[]), &[(out(ACK, 1, 1), New, "300 ESTABLISHED [UNREPLIED]")]);
    for flags in [RST, RST | ACK, FIN | ACK, SYN | ACK] {
        check(&Lab::new(&[]), &[(out(flags, 1, 1), Invalid, "none")]);
    }
    check(&Lab::new(&[("tcp_loose", 0)]), &[(out(ACK, 1, 1), Invalid, "none")]);
}

#[test]
fn b02_flags_that_matter_and_flags_that_do_not() {
    for flags in [SYN | PSH, SYN | ECE, SYN | ECE | CWR, SYN | URG] {
        assert_eq!(Lab::new(&[]).state(&out(flags, 1, 0)), New);
    }
    for flags in [FIN, SYN | FIN, 0, FIN | PSH | URG, SYN | RST] {
        check(&Lab::new(&[]), &[(out(flags, 1, 0), Invalid, "none")]);
    }
}

#[test]
fn b03_b04_a_first_packet_that_is_dropped_leaves_nothing() {
    let lab = Lab::new(&[]);
    for _ in 0..2 {
        assert_eq!(lab.denied(&out(SYN, 1, 0)), New);
        assert!(lab.ct.is_empty());
    }
    assert_eq!(lab.ct.counters().insert, 0);
}

#[test]
fn b05_udp_replies_within_two_seconds_make_no_stream() {
    let mut lab = Lab::new(&[]);
    let (ask, answer) = (Packet::udp(A, 5, B, 53), Packet::udp(B, 53, A, 5));
    check(
        &lab,
        &[
            (ask.clone(), New, "30 - [UNREPLIED]"),
            (answer.clone(), Established, "30 -"),
            (answer.clone(), Established, "30 -"),
        ],
    );
    lab.wait(2);
    check(&lab, &[(answer.clone(), Established, "30 -")]);
    lab.wait_ms(4);
    check(&lab, &[(ask, Established, "120 - [ASSURED]")]);
}

#[test]
fn b06_a_retransmission_of_acknowledged_data_passes() {
    let lab = established();
    let data = out(ACK | PSH, 101, 501).payload_len(100);
    check(
        &lab,
        &[
            (data.clone(), Established, LOWERED),
            (back(ACK, 501, 201), Established, OPEN),
            (data, Established, OPEN),
        ],
    );
}

#[test]
fn b07_data_past_the_window_by_at_most_a_window_passes() {
    // B let A send up to 101 + 8192.
    let past = |bytes: u32| out(ACK, 101 + 8192 + bytes, 501).payload_len(1);
    check(&established(), &[(past(0), Established, LOWERED)]);
    check(&established(), &[(past(8000), Established, OPEN)]);
    check(&established(), &[(past(8190), Established, OPEN)]);
    check(&established(), &[(past(8191), Invalid, OPEN)]);
}

#[test]
fn b08_an_ack_of_unseen_data_is_invalid_and_an_old_one_passes() {
    let lab = established();
    check(
        &lab,
        &[
            (out(ACK, 101, 502), Invalid, OPEN),
            (out(ACK, 101, 501u32.wrapping_sub(70_000)), Established, OPEN),
        ],
    );
}

#[test]
fn b09_b10_b11_resets_below_inside_and_exactly_at_the_ack() {
    check(
        &established(),
        &[
            (back(RST, 500, 0), Invalid, OPEN),
            // The kernel lowers to the time of CLOSE.
            (back(RST, 510, 0), Established, "10 ESTABLISHED [ASSURED]"),
        ],
    );
    check(
        &established(),
        &[
            (back(RST, 501, 0), Established, "10 CLOSE [ASSURED]"),
            (out(ACK | PSH, 101, 501).payload_len(5), Established, "10 CLOSE [ASSURED]"),
        ],
    );
}

#[test]
fn b12_a_stale_reset_after_fin_is_not_invalid() {
    check(
        &established(),
        &[
            (out(FIN | ACK, 101, 501), Established, "120 FIN_WAIT [ASSURED]"),
            (back(RST, 400, 0), Established, "10 CLOSE [ASSURED]"),
        ],
    );
}

#[test]
fn b13_a_syn_in_established_and_its_challenge() {
    check(
        &established(),
        &[
            (out(SYN, 7000, 0), Established, OPEN),
            (back(ACK, 501, 101), Established, OPEN),
            (out(RST, 101, 0), Established, "10 CLOSE [ASSURED]"),
            (out(SYN, 7000, 0), New, "120 SYN_SENT [UNREPLIED]"),
        ],
    );
}

#[test]
fn b13_a_syn_in_last_ack_and_its_challenge() {
    check(
        &established(),
        &[
            (out(FIN | ACK, 101, 501), Established, "120 FIN_WAIT [ASSURED]"),
            (back(FIN | ACK, 501, 102), Established, "30 LAST_ACK [ASSURED]"),
            (out(SYN, 7000, 0), Established, "30 LAST_ACK [ASSURED]"),
            (back(ACK, 502, 102), Established, "30 LAST_ACK [ASSURED]"),
            (out(ACK, 102, 502), Established, "120 TIME_WAIT [ASSURED]"),
        ],
    );
}

#[test]
fn b14_wrong_answers_to_a_syn() {
    let lab = Lab::new(&[]);
    const SENT: &str = "120 SYN_SENT [UNREPLIED]";
    check(
        &lab,
        &[
            (out(SYN, 100, 0), New, SENT),
            (back(SYN | ACK, 500, 999), Invalid, SENT),
            (back(RST | ACK, 0, 999), Invalid, SENT),
        ],
    );
}

#[test]
fn b15_a_reply_ack_in_syn_sent_is_a_reply() {
    let rows = [
        (out(SYN, 100, 0), New, "120 SYN_SENT [UNREPLIED]"),
        (back(ACK, 500, 90), Established, "120 SYN_SENT"),
        (out(RST, 90, 0), Established, "10 CLOSE"),
    ];
    check(&Lab::new(&[]), &rows);
}

#[test]
fn b16_simultaneous_open() {
    check(
        &Lab::new(&[]),
        &[
            (out(SYN, 100, 0), New, "120 SYN_SENT [UNREPLIED]"),
            (back(SYN, 500, 0), Established, "120 SYN_SENT2"),
            (out(SYN | ACK, 100, 501), Established, "60 SYN_RECV"),
        ],
    );
}

#[test]
fn b17_a_syn_in_time_wait_starts_anew() {
    let lab = established();
    check(
        &lab,
        &[
            (out(FIN | ACK, 101, 501), Established, "120 FIN_WAIT [ASSURED]"),
            (back(FIN | ACK, 501, 102), Established, "30 LAST_ACK [ASSURED]"),
            (out(ACK, 102, 502), Established, "120 TIME_WAIT [ASSURED]"),
            (out(SYN, 9000, 0), New, "120 SYN_SENT [UNREPLIED]"),
        ],
    );
    assert_eq!(lab.ct.len(), 1);
}

#[test]
fn b18_fast_open_data_counts() {
    check(
        &Lab::new(&[]),
        &[
            (out(SYN, 100, 0).payload_len(50), New, "120 SYN_SENT [UNREPLIED]"),
            (back(SYN | ACK, 500, 151), Established, "60 SYN_RECV"),
        ],
    );
}

#[test]
fn b19_scaling_needs_both_sides() {
    const SCALE_7: [u8; 4] = [1, 3, 3, 7];
    let open = |answer: &[u8]| {
        let lab = Lab::new(&[]);
        lab.state(&out(SYN, 100, 0).tcp_options(&SCALE_7));
        lab.state(&back(SYN | ACK, 500, 101).tcp_options(answer));
        lab.state(&out(ACK, 101, 501));
        lab.state(&back(ACK, 501, 101));
        lab
    };
    let far = out(ACK, 101 + 20_000, 501).payload_len(1);
    assert_eq!(open(&SCALE_7).state(&far), Established);
    assert_eq!(open(&[]).state(&far), Invalid);
}

#[test]
fn b20_repeated_acks_and_a_closed_window_lower_the_timeout() {
    let lab = established();
    let ack = back(ACK, 501, 101);
    let rows = [OPEN, OPEN, OPEN, LOWERED].map(|entry| (ack.clone(), Established, entry));
    check(&lab, &rows);
    check(&lab, &[(back(ACK, 501, 101).window(5), Established, OPEN)]);
    check(&established(), &[(back(ACK, 501, 101).window(0), Established, LOWERED)]);
}

#[test]
fn b21_a_repeated_syn_does_not_extend() {
    let mut lab = Lab::new(&[]);
    check(&lab, &[(out(SYN, 100, 0), New, "120 SYN_SENT [UNREPLIED]")]);
    lab.wait(100);
    check(&lab, &[(out(SYN, 100, 0), New, "20 SYN_SENT [UNREPLIED]")]);
    lab.wait(20);
    assert_eq!(lab.ct.rows(lab.now).count(), 0);
    check(&lab, &[(out(SYN, 100, 0), New, "120 SYN_SENT [UNREPLIED]")]);
    assert_eq!(lab.ct.len(), 1, "the lookup collected the expired entry");
}

#[test]
fn b22_unacknowledged_data_lowers_the_timeout() {
    check(
        &established(),
        &[
            (out(ACK, 101, 501).payload_len(10), Established, LOWERED),
            (back(ACK, 501, 111), Established, OPEN),
        ],
    );
}

/// A UDP flow and what a router in front of B says about it.
fn error(to: &str, kind: u8) -> Packet {
    Packet::error("192.0.2.77", to, kind, 1, 0, &Packet::udp(A, 5, B, 53).build())
}

#[test]
fn b23_an_error_from_anywhere_is_related_if_it_goes_home() {
    let lab = Lab::new(&[]);
    assert_eq!(lab.state(&error(A, 3)), Invalid);
    let first = lab.pass(&Packet::udp(A, 5, B, 53)).unwrap();
    let tracking = lab.pass(&error(A, 3)).unwrap();
    assert_eq!((tracking.state, tracking.direction), (Related, Direction::Reply));
    assert_eq!(tracking.conn, first.conn);
    assert_eq!(lab.state(&error("198.51.100.2", 3)), Invalid);
    assert_eq!(lab.state(&error(A, 3).bad_l4_checksum()), Invalid);
    assert_eq!(lab.ct.counters().icmp_error, 3);
    assert_eq!(lab.state(&error(A, 5)), Related, "a redirect");
}

#[test]
fn b24_an_error_neither_refreshes_nor_deletes() {
    let mut lab = Lab::new(&[]);
    lab.state(&Packet::udp(A, 5, B, 53));
    lab.wait(10);
    assert_eq!(lab.state(&error(A, 3)), Related);
    assert_eq!(lab.entry(), "20 - [UNREPLIED]");
}

#[test]
fn b28_about_a_flow_that_is_not_tracked() {
    // The flow itself never comes here: raw exempts it.
    let lab = Lab::new(&[]);
    assert_eq!(lab.state(&error(A, 3)), Invalid);
    assert_eq!(lab.state(&Packet::udp(B, 53, A, 5)), New);
}

#[test]
fn b48_zones_do_not_mix() {
    let lab = Lab::new(&[]);
    let packet = Packet::udp(A, 5, B, 53);
    for zone in [0, 7] {
        assert_eq!(lab.state_with(&packet, ZoneScope::Both, zone), New, "zone {zone}");
        assert_eq!(lab.state_with(&packet, ZoneScope::Both, zone), New, "zone {zone}");
    }
    assert_eq!(lab.ct.len(), 2);
    assert_eq!(lab.state_with(&Packet::udp(B, 53, A, 5), ZoneScope::Both, 7), Established);
    let row = lab.ct.rows(lab.now).find(|row| row.view.original.zone == 7).unwrap();
    assert!(row.to_string().ends_with("mark=0 zone=7 use=1"), "{row}");
}

#[test]
fn a_zone_of_one_direction_leaves_the_other_where_it_was() {
    let lab = Lab::new(&[]);
    let (there, back) = (Packet::udp(A, 5, B, 53), Packet::udp(B, 53, A, 5));
    assert_eq!(lab.state_with(&there, ZoneScope::Original, 7), New);
    assert_eq!(
        lab.row().to_string(),
        "udp      17 30 src=198.51.100.1 dst=203.0.113.9 sport=5 \
        dport=53 zone-orig=7 [UNREPLIED] src=203.0.113.9 dst=198.51.100.1 sport=53 dport=5 mark=0 use=1"
    );
    // Without a zone of its own the answer is found; so it is with the opener's.
    assert_eq!(lab.state(&back), Established);
    assert_eq!(lab.state_with(&back, ZoneScope::Original, 7), Established);
    assert_eq!(lab.state_with(&there, ZoneScope::Original, 7), Established);
    // In another zone the way there is another connection's, which wants the same answers.
    let clash = lab.pass_with(&there, ZoneScope::Original, 8);
    assert_eq!(clash, Err(DropReason::ConntrackClash));
    assert_eq!(lab.state_with(&back, ZoneScope::Reply, 7), New);
}

#[test]
fn b49_a_new_timeout_waits_for_the_next_refresh() {
    let mut lab = Lab::new(&[]);
    lab.state(&Packet::udp(A, 5, B, 53));
    lab.ct.set("udp_timeout", 100).unwrap();
    lab.wait(1);
    assert_eq!(lab.entry(), "29 - [UNREPLIED]");
    lab.state(&Packet::udp(A, 5, B, 53));
    assert_eq!(lab.entry(), "100 - [UNREPLIED]");
}

#[test]
fn b50_a_full_table_keeps_assured_flows_and_drops_new_ones() {
    let lab = Lab::new(&[("max", 40)]);
    let open = |port: u16| {
        [
            Packet::tcp(A, port, B, 80, SYN).seq(100, 0),
            Packet::tcp(B, 80, A, port, SYN | ACK).seq(500, 101),
            Packet::tcp(A, port, B, 80, ACK).seq(101, 501),
        ]
    };
    for port in 0..40 {
        open(port).iter().for_each(|packet| assert!(lab.pass(packet).is_ok()));
    }
    assert_eq!(lab.pass(&open(99)[0]), Err(DropReason::ConntrackFull));
    assert_eq!((lab.ct.len(), lab.ct.counters().drop), (40, 1));
    for port in 0..40 {
        assert_eq!(lab.state(&open(port)[2]), Established);
    }
}

#[test]
fn b50_a_full_table_gives_up_unanswered_flows() {
    let lab = Lab::new(&[("max", 200)]);
    for port in 0..1000 {
        let passed = lab.pass(&Packet::udp(A, port, B, 53));
        assert!(passed.is_ok(), "flow {port}: {passed:?}");
        assert!(lab.ct.len() <= 200);
    }
    let counters = lab.ct.counters();
    assert_eq!(counters.insert, 1000);
    assert_eq!(counters.early_drop as usize, 1000 - lab.ct.len());
}
