//! What the engine, NAT and the operator's side rely on.

use super::super::status::{DST_NAT, DST_NAT_DONE, SRC_NAT, SRC_NAT_DONE};
use super::super::{ConfigError, ConntrackError, Face, Tuple, setting_name};
use super::*;
use crate::wire::tcp::flags::{ACK, RST, SYN};

const A6: &str = "2001:db8::1";
const B6: &str = "2001:db8:1::2";

fn printed(packets: &[Packet]) -> String {
    let lab = Lab::new(&[]);
    packets.iter().for_each(|packet| assert!(lab.pass(packet).is_ok()));
    lab.row().to_string()
}

#[test]
fn rows_print_as_conntrack_does() {
    let tcp = [
        Packet::tcp(A, 1000, B, 80, SYN).seq(1, 0),
        Packet::tcp(B, 80, A, 1000, SYN | ACK).seq(9, 2),
        Packet::tcp(A, 1000, B, 80, ACK).seq(2, 10),
    ];
    assert_eq!(
        printed(&tcp),
        "tcp      6 432000 ESTABLISHED src=198.51.100.1 dst=203.0.113.9 sport=1000 dport=80 \
         src=203.0.113.9 dst=198.51.100.1 sport=80 dport=1000 [ASSURED] mark=0 use=1"
    );
    assert_eq!(
        printed(&[Packet::udp(A, 5, B, 53)]),
        "udp      17 30 src=198.51.100.1 dst=203.0.113.9 sport=5 dport=53 [UNREPLIED] \
         src=203.0.113.9 dst=198.51.100.1 sport=53 dport=5 mark=0 use=1"
    );
    assert_eq!(
        printed(&[Packet::ping(A6, B6, 77, 1), Packet::pong(B6, A6, 77, 1)]),
        "icmpv6   58 30 src=2001:db8::1 dst=2001:db8:1::2 type=128 code=0 id=77 \
         src=2001:db8:1::2 dst=2001:db8::1 type=129 code=0 id=77 mark=0 use=1"
    );
    assert_eq!(
        printed(&[Packet::raw(A, B, 50, &[0; 8])]),
        "unknown  50 600 src=198.51.100.1 dst=203.0.113.9 [UNREPLIED] \
         src=203.0.113.9 dst=198.51.100.1 mark=0 use=1"
    );
}

#[test]
fn what_the_router_answers_is_related_to_what_it_answers() {
    let lab = Lab::new(&[]);
    let first = lab.track(&Packet::tcp(A, 1000, B, 80, SYN)).unwrap();
    let reset = Packet::tcp(B, 80, A, 1000, RST | ACK).build();
    let attached = lab.ct.attach(&first, &parsed(&reset), &reset, lab.now).unwrap();
    assert_eq!(
        (attached.state, attached.direction, attached.conn, attached.unconfirmed),
        (CtState::Related, Direction::Reply, first.conn, false)
    );
    let icmp = Packet::error(A, B, 3, 3, 0, &reset[14..]).build();
    let mut again = lab.ct.attach(&attached, &parsed(&icmp), &icmp, lab.now).unwrap();
    assert_eq!(
        (again.state, again.direction, again.conn, again.unconfirmed),
        (CtState::Related, Direction::Original, first.conn, true)
    );
    lab.ct.confirm(&mut again, lab.now).unwrap();
    lab.ct.discard(first);
    assert_eq!(lab.entry(), "120 SYN_SENT [UNREPLIED]");
    let again = lab.ct.attach(&attached, &parsed(&icmp), &icmp, lab.now).unwrap();
    assert!(!again.unconfirmed, "it is in the table");
    lab.ct.remove(first.conn.unwrap());
    let alone = lab.ct.attach(&Tracking::UNTRACKED, &parsed(&reset), &reset, lab.now).unwrap();
    assert_eq!(alone.state, CtState::Invalid);
    assert!(lab.ct.is_empty());
}

#[test]
fn a_rejected_connection_is_closed() {
    let lab = Lab::new(&[]);
    let id = lab.pass(&Packet::tcp(A, 1000, B, 80, ACK)).unwrap().conn.unwrap();
    lab.ct.set_closing(id, lab.now);
    assert_eq!(lab.entry(), "10 CLOSE [UNREPLIED]");
}

#[test]
fn two_first_packets_of_one_udp_flow_share_an_entry_and_of_tcp_do_not() {
    let lab = Lab::new(&[]);
    let twice = |packet: &Packet| {
        let mut pair = [lab.track(packet).unwrap(), lab.track(packet).unwrap()];
        lab.ct.confirm(&mut pair[1], lab.now).unwrap();
        let outcome = lab.ct.confirm(&mut pair[0], lab.now);
        (outcome, pair[0].conn == pair[1].conn)
    };
    assert_eq!(twice(&Packet::udp(A, 5, B, 53)), (Ok(()), true));
    let tcp = twice(&Packet::tcp(A, 5, B, 53, SYN));
    assert_eq!(tcp, (Err(DropReason::ConntrackClash), false));
    assert_eq!(lab.ct.len(), 2);
    let counters = lab.ct.counters();
    assert_eq!((counters.clash_resolve, counters.insert_failed, counters.drop), (1, 1, 1));
}

#[test]
fn two_first_packets_that_were_translated_apart_both_get_their_answers() {
    let mut lab = Lab::new(&[]);
    let query = Packet::udp(A, 5, B, 53);
    let mut pair = [0, 1].map(|_| lab.track(&query).unwrap());
    for (tracking, port) in pair.iter().zip([7001, 7002]) {
        let id = tracking.conn.unwrap();
        let reply = lab.ct.view(id).unwrap().reply;
        let reply = Tuple { dst: 0xc000_0201, dport: port, ..reply };
        assert!(lab.ct.bind_tuple(id, Some(&reply), SRC_NAT | SRC_NAT_DONE));
    }
    for tracking in &mut pair {
        lab.ct.confirm(tracking, lab.now).unwrap();
    }
    assert_ne!(pair[0].conn, pair[1].conn);
    assert_eq!(lab.row().view.reply.dport, 7001, "the second is not listed");
    for (tracking, port) in pair.iter().zip([7001, 7002]) {
        let back = lab.pass(&Packet::udp(B, 53, "192.0.2.1", port)).unwrap();
        assert_eq!((back.conn, back.direction), (tracking.conn, Direction::Reply));
    }
    assert_eq!(lab.pass(&query).unwrap().conn, pair[0].conn, "what follows is the first's");
    lab.wait_ms(1001);
    assert_eq!(lab.denied(&Packet::udp(B, 53, "192.0.2.1", 7002)), CtState::New);
    assert_eq!(lab.ct.len(), 1);
    let counters = lab.ct.counters();
    assert_eq!((counters.clash_resolve, counters.insert_failed), (1, 0));
}

#[test]
fn a_flow_that_both_ends_open_at_once_is_one() {
    let lab = Lab::new(&[]);
    let packets = [Packet::udp(A, 5, B, 53), Packet::udp(B, 53, A, 5)];
    let mut pair = packets.each_ref().map(|packet| lab.track(packet).unwrap());
    for tracking in &mut pair {
        assert!(lab.ct.bind_tuple(tracking.conn.unwrap(), None, DST_NAT_DONE | SRC_NAT_DONE));
        lab.ct.confirm(tracking, lab.now).unwrap();
    }
    assert_eq!(pair[0].conn, pair[1].conn);
    assert_eq!((pair[1].state, pair[1].direction), (CtState::Established, Direction::Reply));
    assert_eq!(lab.state(&packets[0]), CtState::Established);
    assert_eq!(lab.ct.len(), 1);
}

#[test]
fn nat_changes_the_reply_before_confirmation_only() {
    let lab = Lab::new(&[]);
    let mut first = lab.track(&Packet::udp(A, 5, B, 53)).unwrap();
    let id = first.conn.unwrap();
    let mut reply = lab.ct.view(id).unwrap().reply;
    reply.dst = 0xc000_0201;
    assert!(lab.ct.bind_tuple(id, Some(&reply), SRC_NAT | SRC_NAT_DONE));
    let source = lab.ct.face(id).unwrap();
    let mapping = || lab.ct.mapping_of(&source, |address, port| Some((address, port)));
    let other = lab.track(&Packet::udp(A, 6, B, 53)).unwrap();
    let other = lab.ct.face(other.conn.unwrap()).unwrap();
    let taken = |face: &Face| lab.ct.is_taken(&lab.ct.answer(&reply, face), face, lab.now);
    assert!(!taken(&other));
    assert_eq!(mapping(), None);
    lab.ct.confirm(&mut first, lab.now).unwrap();
    assert!(taken(&other));
    let own = lab.ct.face(id).unwrap();
    assert!(!taken(&own), "the same flow");
    assert_eq!(mapping(), Some((0xc000_0201, 5)));
    assert!(!lab.ct.bind_tuple(id, Some(&reply), DST_NAT));
    let back = lab.pass(&Packet::udp(B, 53, "192.0.2.1", 5)).unwrap();
    assert_eq!((back.conn, back.direction), (Some(id), Direction::Reply));
    assert_eq!(lab.denied(&Packet::udp(B, 53, A, 5)), CtState::New, "not the reply any more");
    assert!(lab.ct.remove(id));
    assert_eq!(mapping(), None);
}

#[test]
fn marks_stay_with_their_connection() {
    let lab = Lab::new(&[]);
    let id = lab.pass(&Packet::udp(A, 5, B, 53)).unwrap().conn.unwrap();
    assert!(lab.ct.set_mark(id, 0x17));
    let back = lab.pass(&Packet::udp(B, 53, A, 5)).unwrap().conn.unwrap();
    assert_eq!(lab.ct.mark(back), 0x17);
    assert!(lab.ct.remove(id));
    assert!(lab.ct.set_mark(id, 0x18), "the packet that ended it may be under way");
    assert_eq!(lab.ct.mark(id), 0x18);
    let other = lab.pass(&Packet::udp(A, 6, B, 53)).unwrap().conn.unwrap();
    assert_eq!(lab.ct.mark(other), 0);
}

#[test]
fn a_reset_that_ends_its_connection_still_sees_it() {
    let lab = Lab::new(&[]);
    lab.pass(&Packet::tcp(A, 5, B, 80, SYN)).unwrap();
    let reset = Packet::tcp(B, 80, A, 5, RST | ACK).seq(0, 1001);
    let tracking = lab.pass(&reset).unwrap();
    assert_eq!(tracking.state, CtState::Established);
    assert!(lab.ct.is_empty());
    assert_eq!(lab.ct.view(tracking.conn.unwrap()).unwrap().original.sport, 5);
}

#[test]
fn the_sweep_collects_what_expired_a_bit_at_a_time() {
    let mut lab = Lab::new(&[]);
    for port in 0..100 {
        lab.pass(&Packet::udp(A, port, B, 53)).unwrap();
    }
    lab.pass(&Packet::tcp(A, 1, B, 53, SYN)).unwrap();
    lab.wait(31);
    assert_eq!(lab.ct.len(), 101);
    assert!(lab.ct.sweep(lab.now, 10) <= 10);
    let mut collected = 0;
    while lab.ct.len() > 1 {
        collected += lab.ct.sweep(lab.now, 500);
    }
    assert!(collected >= 90);
    assert_eq!(lab.ct.counters().early_drop, 0);
}

#[test]
fn under_pressure_the_sweep_evicts_connections_that_are_closing() {
    let lab = Lab::new(&[("max", 20)]);
    for port in 0..20 {
        for packet in [
            Packet::tcp(A, port, B, 80, SYN).seq(100, 0),
            Packet::tcp(B, 80, A, port, SYN | ACK).seq(500, 101),
            Packet::tcp(A, port, B, 80, ACK).seq(101, 501),
        ] {
            lab.pass(&packet).unwrap();
        }
        if port < 5 {
            lab.pass(&Packet::tcp(A, port, B, 80, RST).seq(101, 0)).unwrap();
        }
    }
    assert_eq!(lab.ct.sweep(lab.now, 1 << 20), 0, "no pressure yet");
    assert!(lab.pass(&Packet::udp(A, 5, B, 53)).is_err());
    assert!(lab.ct.sweep(lab.now, 1 << 20) > 0);
    assert!(lab.pass(&Packet::udp(A, 5, B, 53)).is_ok());
    let open = lab.ct.rows(lab.now).filter(|row| row.to_string().contains("ESTABLISHED")).count();
    assert_eq!(open, 15);
}

/// Every `nf_conntrack_*` of Linux 6.18 is honoured, or refused with a reason.
#[test]
fn each_of_the_kernel_s_settings_has_an_answer() {
    const OTHERS: &[&str] =
        &["buckets", "count", "frag6_low_thresh", "log_invalid", "helper", "dccp_loose"];
    let honoured = "acct checksum events expect_max frag6_high_thresh frag6_timeout \
        generic_timeout gre_timeout gre_timeout_stream icmp_timeout icmpv6_timeout max \
        sctp_timeout_closed sctp_timeout_cookie_echoed sctp_timeout_cookie_wait \
        sctp_timeout_established sctp_timeout_heartbeat_sent sctp_timeout_shutdown_ack_sent \
        sctp_timeout_shutdown_recd sctp_timeout_shutdown_sent tcp_be_liberal \
        tcp_ignore_invalid_rst tcp_loose tcp_max_retrans tcp_timeout_close \
        tcp_timeout_close_wait tcp_timeout_established tcp_timeout_fin_wait \
        tcp_timeout_last_ack tcp_timeout_max_retrans tcp_timeout_syn_recv \
        tcp_timeout_syn_sent tcp_timeout_time_wait tcp_timeout_unacknowledged timestamp \
        udp_timeout udp_timeout_stream";
    for short in honoured.split_whitespace() {
        for before in ["", "nf_conntrack_", "net.netfilter.nf_conntrack_"] {
            assert_eq!(setting_name(&format!("{before}{short}")), Ok(short));
        }
    }
    assert_eq!(setting_name("net.nf_conntrack_max"), Ok("max"));
    let mut config = Config::new([0; 16]);
    let whole = OTHERS.iter().map(|short| format!("net.netfilter.nf_conntrack_{short}"));
    let elsewhere = ["net.ipv4.ipfrag_low_thresh", "net.ipv6.ip6frag_time"].map(str::to_owned);
    for name in whole.chain(elsewhere) {
        let refused = config.set(&name, 0);
        assert!(matches!(refused, Err(ConfigError::NotHonoured { .. })), "{name}: {refused:?}");
    }
    for name in ["tcp_lose", "net.ipv4.buckets", "net.ipv4.ip_forward", "ipv6.ip6frag_time"] {
        assert_eq!(setting_name(name), Err(ConfigError::Unknown(name.into())));
    }
}

#[test]
fn settings_are_the_kernels_and_nothing_else() {
    let mut config = Config::new([0; 16]);
    config.set("tcp_timeout_established", 5).unwrap();
    assert_eq!(config.get("tcp_timeout_established"), Some(5));
    assert_eq!(config.set("tcp_lose", 1), Err(ConfigError::Unknown("tcp_lose".into())));
    assert!(matches!(config.set("tcp_loose", 2), Err(ConfigError::OutOfRange { .. })));
    assert!(matches!(config.set("max", 0), Err(ConfigError::OutOfRange { .. })));
    config.set("max", 100).unwrap();
    let table = Conntrack::new(config).unwrap();
    assert!(table.set("max", 50).is_ok());
    assert!(matches!(table.set("max", 101), Err(ConfigError::OutOfRange { high: 100, .. })));
    let text = ConntrackError::Capacity { asked: 0, most: 9 }.to_string();
    assert_eq!(text, "a conntrack table holds 1 to 9 connections, not 0");
}

#[test]
fn a_redirect_from_the_link_about_a_known_flow_is_related() {
    let flow = Packet::udp(A6, 5, B6, 53);
    let quoted = flow.build()[14..].to_vec();
    let redirect = |from: &str, kind: u8| {
        let mut body = vec![0; 32];
        body.extend([kind, (quoted.len() / 8 + 1) as u8, 0, 0, 0, 0, 0, 0]);
        body.extend(&quoted);
        Packet::icmp(from, A6, 137, 0, 0).payload(&body).ttl(255)
    };
    let lab = Lab::new(&[]);
    lab.state(&flow);
    assert_eq!(lab.state(&redirect("fe80::1", 4)), CtState::Related);
    assert_eq!(lab.state(&redirect("fe80::1", 2)), CtState::Invalid);
    assert_eq!(lab.state(&redirect("2001:db8::99", 4)), CtState::Invalid);
    assert_eq!(lab.state(&redirect("fe80::1", 4).ttl(254)), CtState::Invalid);
}

#[test]
fn a_connection_to_itself_is_found_as_the_reply() {
    let lab = Lab::new(&[]);
    let land = Packet::udp(A, 5, A, 5);
    assert_eq!(lab.state(&land), CtState::New);
    let again = lab.pass(&land).unwrap();
    assert_eq!((again.state, again.direction), (CtState::Established, Direction::Reply));
    assert!(lab.ct.remove(again.conn.unwrap()));
    assert_eq!(lab.state(&land), CtState::New);
}
