//! What only some connections carry, and what CT rules and settings do to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{Account, ConfigError, Event, EventKind, SctpState, change};
use super::*;
use crate::wire::build::L4;
use crate::wire::tcp::flags::{ACK, FIN, SYN};

/// A packet under a CT rule that the policy accepts.
fn pass_with(lab: &Lab, packet: &Packet, target: &CtTarget, extensions: Extensions) -> Tracking {
    let timeouts = target.timeout.as_ref().and_then(|name| lab.ct.timeouts_named(name));
    let terms = Template::of(target, timeouts).terms(0, extensions);
    let frame = packet.build();
    let parsed = parsed(&frame);
    let subject = lab.ct.subject(&parsed, &frame, terms.zones.original);
    let tracked = lab.ct.track_subject(&subject, &parsed, &frame, false, &terms, lab.now);
    let mut tracking = tracked.unwrap();
    lab.ct.confirm(&mut tracking, lab.now).unwrap();
    tracking
}

fn handshake(lab: &Lab) {
    for packet in [
        Packet::tcp(A, 1000, B, 80, SYN).seq(1, 0),
        Packet::tcp(B, 80, A, 1000, SYN | ACK).seq(9, 2),
        Packet::tcp(A, 1000, B, 80, ACK).seq(2, 10),
    ] {
        lab.pass(&packet).unwrap();
    }
}

#[test]
fn packets_and_bytes_are_counted_where_that_was_on_at_the_start() {
    let mut lab = Lab::new(&[("acct", 1), ("timestamp", 1)]);
    lab.pass(&Packet::udp(A, 5, B, 53).payload_len(10)).unwrap();
    let reply = lab.pass(&Packet::udp(B, 53, A, 5).payload_len(20)).unwrap();
    lab.pass(&Packet::udp(A, 5, B, 53)).unwrap();
    let account = |packets, bytes| Account { packets, bytes };
    assert_eq!(lab.ct.accounting(reply.conn.unwrap()), Some([account(2, 66), account(1, 48)]));
    lab.wait(3);
    assert_eq!(
        lab.row().to_string(),
        "udp      17 27 src=198.51.100.1 dst=203.0.113.9 sport=5 dport=53 packets=2 bytes=66 \
         src=203.0.113.9 dst=198.51.100.1 sport=53 dport=5 packets=1 bytes=48 mark=0 \
         delta-time=3 use=1"
    );
    lab.ct.set("acct", 0).unwrap();
    let plain = lab.pass(&Packet::udp(A, 6, B, 53)).unwrap().conn.unwrap();
    lab.ct.set("acct", 1).unwrap();
    lab.pass(&Packet::udp(A, 6, B, 53)).unwrap();
    assert_eq!(lab.ct.accounting(plain), None, "not counted from the middle on");
}

#[test]
fn what_tcp_lets_pass_without_a_refresh_is_not_counted() {
    let lab = Lab::new(&[("acct", 1)]);
    lab.pass(&Packet::tcp(A, 1000, B, 80, SYN).seq(1, 0)).unwrap();
    lab.pass(&Packet::tcp(A, 1000, B, 80, SYN).seq(1, 0)).unwrap();
    assert_eq!(lab.row().details.accounting.unwrap()[0].packets, 1);
}

#[test]
fn labels_are_there_when_a_rule_uses_them() {
    let lab = Lab::new(&[]);
    let (packet, target) = (Packet::udp(A, 5, B, 53), CtTarget::default());
    let without = pass_with(&lab, &packet, &target, Extensions::default()).conn.unwrap();
    assert_eq!((lab.ct.labels(without), lab.ct.set_label(without, 5)), (None, false));
    let labels = Extensions { labels: true, ..Extensions::default() };
    let with = pass_with(&lab, &Packet::udp(A, 6, B, 53), &target, labels).conn.unwrap();
    assert_eq!(lab.ct.labels(with), Some(0));
    assert!(
        lab.ct.set_label(with, 127) && lab.ct.set_label(with, 0) && !lab.ct.set_label(with, 128)
    );
    assert_eq!(lab.ct.labels(with), Some(1 << 127 | 1));
}

#[test]
fn a_named_policy_holds_for_the_connections_given_it() {
    let mut config = Config::new([7; 16]);
    config.set("max", 64).unwrap();
    config.add_timeouts("patient", "udp", &[("unreplied", 77)]).unwrap();
    config.add_timeouts("tcp", "tcp", &[("syn_sent", 5), ("established", 1000)]).unwrap();
    let taken = config.add_timeouts("tcp", "udp", &[]);
    assert_eq!(taken, Err(ConfigError::PolicyTaken("tcp".into())));
    assert!(config.add_timeouts("x", "dccp", &[]).is_err());
    assert!(config.add_timeouts("x", "udp", &[("established", 1)]).is_err());
    let mut lab = Lab::new(&[]);
    lab.ct = Conntrack::new(config).unwrap();
    let policy = |name: &str| CtTarget { timeout: Some(name.into()), ..CtTarget::default() };
    let udp = Packet::udp(A, 5, B, 53);
    pass_with(&lab, &udp, &policy("patient"), Extensions::default());
    assert_eq!(lab.entry(), "77 - [UNREPLIED]");
    lab.wait(10);
    lab.pass(&udp).unwrap();
    assert_eq!(lab.entry(), "77 - [UNREPLIED]", "for later packets too");
    lab.ct.remove(lab.row().view.id);
    pass_with(
        &lab,
        &Packet::tcp(A, 1000, B, 80, SYN).seq(1, 0),
        &policy("tcp"),
        Extensions::default(),
    );
    assert_eq!(lab.entry(), "5 SYN_SENT [UNREPLIED]");
    handshake(&lab);
    assert_eq!(lab.entry(), "1000 ESTABLISHED [ASSURED]");
}

#[test]
fn settings_go_by_all_of_the_kernels_names() {
    let lab = Lab::new(&[("nf_conntrack_udp_timeout", 7), ("net.ipv4.ipfrag_time", 3)]);
    assert_eq!((lab.ct.get("udp_timeout"), lab.ct.get("ipfrag_time")), (Some(7), Some(3)));
    lab.ct.set("net.netfilter.nf_conntrack_udp_timeout", 8).unwrap();
    assert_eq!(lab.ct.get("nf_conntrack_udp_timeout"), Some(8));
    for unknown in ["", "nf_conntrack_", "net.ipv4.udp_timeout", "nf_conntrack_ipfrag_time", "udp"]
    {
        assert!(matches!(lab.ct.set(unknown, 1), Err(ConfigError::Unknown(_))), "{unknown}");
    }
    assert!(lab.ct.set("tcp_loose", 2).is_err());
    let (v4, revision) = (lab.ct.fragment_settings(crate::packet::Family::V4), lab.ct.revision());
    assert_eq!(v4.timeout, Nanos::from_secs(3));
    lab.ct.set("ipfrag_max_dist", 0).unwrap();
    assert!(lab.ct.revision() > revision);
    assert_eq!(lab.ct.fragment_settings(crate::packet::Family::V4).max_dist, 0);
}

#[test]
fn sctp_states_are_listed() {
    let lab = Lab::new(&[]);
    let init = [1, 0, 0, 20, 0, 0, 0, 7, 0, 0, 255, 255, 0, 1, 0, 1, 0, 0, 0, 1];
    let sctp = L4::Sctp { sport: 5000, dport: 2905, tag: 0 };
    lab.pass(&Packet::new(A, B, sctp).payload(&init)).unwrap();
    assert_eq!(lab.row().view.sctp, Some(SctpState::Closed));
    assert_eq!(
        lab.row().to_string(),
        "sctp     132 10 CLOSED src=198.51.100.1 dst=203.0.113.9 sport=5000 dport=2905 \
         [UNREPLIED] src=203.0.113.9 dst=198.51.100.1 sport=2905 dport=5000 mark=0 use=1"
    );
}

fn told(events: impl Iterator<Item = Event>) -> Vec<(EventKind, u32)> {
    events.map(|event| (event.kind, event.changes)).collect()
}

/// A lab whose table can be listened to.
fn watched(settings: &[(&str, u64)]) -> (Arc<Conntrack>, Lab) {
    let ct = Arc::new(Lab::new(settings).ct);
    (ct, Lab::new(settings))
}

fn pass(ct: &Conntrack, packet: &Packet, target: &CtTarget, now: Nanos) -> Tracking {
    let terms = Template::of(target, None).terms(0, Extensions::default());
    let frame = packet.build();
    let parsed = parsed(&frame);
    let subject = ct.subject(&parsed, &frame, 0);
    let tracked = ct.track_subject(&subject, &parsed, &frame, false, &terms, now);
    let mut tracking = tracked.unwrap();
    ct.confirm(&mut tracking, now).unwrap();
    tracking
}

#[test]
fn listeners_are_told_what_happens() {
    let (ct, lab) = watched(&[]);
    let plain = CtTarget::default();
    let send = |packet: Packet| pass(&ct, &packet, &plain, lab.now);
    send(Packet::udp(A, 9, B, 9));
    let mut watch = ct.watch().unwrap();
    send(Packet::tcp(A, 1000, B, 80, SYN).seq(1, 0));
    send(Packet::tcp(B, 80, A, 1000, SYN | ACK).seq(9, 2));
    send(Packet::tcp(A, 1000, B, 80, ACK).seq(2, 10));
    let id = send(Packet::tcp(A, 1000, B, 80, ACK).seq(2, 10)).conn.unwrap();
    assert!(ct.set_mark(id, 7) && ct.set_mark(id, 7));
    send(Packet::tcp(A, 1000, B, 80, FIN | ACK).seq(2, 10));
    assert!(ct.remove(id));
    let events: Vec<Event> = std::iter::from_fn(|| watch.take()).collect();
    assert_eq!(events.last().unwrap().row.view.mark, 7);
    assert_eq!(events[0].at, lab.now);
    use EventKind::{Destroy, New, Update};
    assert_eq!(
        told(events.into_iter()),
        [
            (New, change::NEW),
            (Update, change::REPLY | change::PROTOINFO),
            (Update, change::ASSURED | change::PROTOINFO),
            (Update, change::MARK),
            (Update, change::PROTOINFO),
            (Destroy, change::DESTROY),
        ]
    );
    assert_eq!(watch.lost(), 0);
}

#[test]
fn events_can_be_chosen_and_switched_off_and_listeners_are_few() {
    let (ct, lab) = watched(&[("events", 0)]);
    let mut watch = ct.watch().unwrap();
    pass(&ct, &Packet::udp(A, 5, B, 53), &CtTarget::default(), lab.now);
    assert_eq!(watch.take(), None);
    let ends = CtTarget { events: Some(change::DESTROY), ..CtTarget::default() };
    let chosen = pass(&ct, &Packet::udp(A, 6, B, 53), &ends, lab.now).conn.unwrap();
    assert!(ct.remove(chosen));
    assert_eq!(told(std::iter::from_fn(|| watch.take())), [(EventKind::Destroy, change::DESTROY)]);
    let mut others: Vec<_> = (0..3).map(|_| ct.watch().unwrap()).collect();
    assert!(ct.watch().is_err());
    others.pop();
    assert!(ct.watch().is_ok());
}

#[test]
fn a_slow_listener_loses_events_and_knows_how_many() {
    let (ct, lab) = watched(&[]);
    let watch = ct.watch().unwrap();
    for _ in 0..5000 {
        let id = pass(&ct, &Packet::udp(A, 5, B, 53), &CtTarget::default(), lab.now).conn.unwrap();
        ct.remove(id);
    }
    assert_eq!(watch.lost(), 10_000 - 8192);
}

#[test]
fn events_of_many_threads_balance_while_listeners_come_and_go() {
    const EACH: u16 = 1500;
    let (ct, lab) = watched(&[]);
    let mut watch = ct.watch().unwrap();
    let over = AtomicBool::new(false);
    let (mut begun, mut ended) = (0, 0);
    let (ct, now, over) = (&ct, lab.now, &over);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2_u16)
            .map(|me| {
                scope.spawn(move || {
                    for nth in 0..EACH {
                        let packet = Packet::udp(A, 1000 + nth, B, me + 1);
                        let tracking = pass(ct, &packet, &CtTarget::default(), now);
                        assert!(ct.remove(tracking.conn.unwrap()));
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut guest = ct.watch().unwrap();
                while guest.take().is_none() && !over.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
        });
        while workers.iter().any(|worker| !worker.is_finished()) {
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
    });
    while let Some(event) = watch.take() {
        match event.kind {
            EventKind::New => begun += 1,
            EventKind::Destroy => ended += 1,
            EventKind::Update => panic!("{event:?}"),
        }
    }
    assert_eq!((begun, ended, watch.lost()), (2 * u32::from(EACH), 2 * u32::from(EACH), 0));
}
