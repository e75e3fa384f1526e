//! The lab itself: what the kernel is asked, it answers, and nothing else.

mod lab;

use std::net::IpAddr;

use lab::frames::{self, Ip, Tcp};
use lab::{FrontEnd, Lab, address, host_mac, port_mac};

const SYN: u8 = 2;

/// A UDP datagram from host 10 on eth0.
fn udp_to(dst: IpAddr, dport: u16, ttl: u8) -> Vec<u8> {
    let ip = Ip { ttl, ..Ip::new(address(dst.is_ipv6(), 0, 10), dst, 17) };
    let l4 = frames::udp(&ip, 4000, dport, 20);
    frames::ip_frame(port_mac(0), host_mac(0, 10), &ip.packet(&l4))
}

fn syn_to(dst: IpAddr, dport: u16) -> Vec<u8> {
    let ip = Ip::new(address(dst.is_ipv6(), 0, 10), dst, 6);
    let tcp = Tcp {
        sport: 4001,
        dport,
        seq: 7,
        ack: 0,
        flags: SYN,
        window: 1000,
        options: Vec::new(),
        payload: 0,
    };
    frames::ip_frame(port_mac(0), host_mac(0, 10), &ip.packet(&tcp.build(&ip)))
}

fn rules(v6: bool) -> String {
    let unreachable = if v6 { "icmp6-port-unreachable" } else { "icmp-port-unreachable" };
    format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         -A FORWARD -p udp -m udp --dport 53 -j DROP\n\
         -A FORWARD -p udp -m udp --dport 54 -j REJECT --reject-with {unreachable}\n\
         -A FORWARD -p tcp -m tcp --dport 23 -j REJECT --reject-with tcp-reset\n\
         -A FORWARD -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
    )
}

fn check_family(front_end: FrontEnd, v6: bool) {
    let lab = Lab::with_front_end(front_end);
    lab.restore(v6, &rules(v6)).expect("rules load");
    let server = address(v6, 1, 11);

    let passed = lab.inject(0, &udp_to(server, 80, 64));
    assert_eq!(passed.len(), 1, "{passed:?}");
    assert_eq!(passed[0].port, 1);
    assert_eq!(passed[0].frame[..6], host_mac(1, 11));
    assert_eq!(passed[0].frame[6..12], port_mac(1));
    let ttl = passed[0].frame[14 + if v6 { 7 } else { 8 }];
    assert_eq!(ttl, 63);

    assert_eq!(lab.inject(0, &udp_to(server, 53, 64)), []);

    let kind_at = 14 + if v6 { 40 } else { 20 };
    for (frame, kind) in [
        (udp_to(server, 80, 1), if v6 { 3 } else { 11 }),
        (udp_to(server, 54, 64), if v6 { 1 } else { 3 }),
    ] {
        let answer = lab.inject(0, &frame);
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!((answer[0].port, answer[0].frame[kind_at]), (0, kind));
    }
    let reset = lab.inject(0, &syn_to(server, 23));
    assert_eq!((reset.len(), reset[0].port, reset[0].frame[kind_at + 13]), (1, 0, 0x14));

    let before = lab.delivered();
    assert_eq!(lab.inject(0, &udp_to(address(v6, 0, 1), 99, 64)), [], "the sink answers nothing");
    assert_eq!(lab.delivered(), before + 1);

    let own = Ip::new(address(v6, 1, 1), server, 17);
    let sent = lab.emit(v6, &own.packet(&frames::udp(&own, 1, 2, 3)));
    assert_eq!((sent.len(), sent[0].port), (1, 1));

    let saved = lab.save(v6);
    for (counter, dport) in [("[1:", "53"), ("[1:", "54"), ("[1:", "23")] {
        let found = saved
            .lines()
            .any(|line| line.starts_with(counter) && line.contains(&format!("--dport {dport} ")));
        assert!(found, "{counter} for port {dport} in\n{saved}");
    }
    // The forwarded flow, the one to the router itself, the router's own; of the
    // dropped, rejected and expired packets nothing is left.
    let table = lab.conntrack();
    assert_eq!(table.len(), 3, "{table:#?}");
    assert!(table.iter().any(|row| row.contains(" sport=4000 dport=80 ")), "{table:#?}");
    lab.flush_conntrack();
    assert_eq!(lab.conntrack(), Vec::<String>::new());
}

#[test]
fn the_kernel_answers_v4() {
    check_family(FrontEnd::Legacy, false);
}

#[test]
fn the_kernel_answers_v6() {
    check_family(FrontEnd::Legacy, true);
}

#[test]
fn the_nft_front_end_answers_the_same() {
    check_family(FrontEnd::Nft, false);
    check_family(FrontEnd::Nft, true);
}

#[test]
fn a_bad_ruleset_is_refused_with_a_complaint() {
    let lab = Lab::new();
    let complaint = lab.restore(false, "*filter\n-A FORWARD -j NOWHERE\nCOMMIT\n").unwrap_err();
    assert!(complaint.contains("NOWHERE"), "{complaint}");
}

#[test]
fn namespaces_go_with_their_owner_even_in_a_panic() {
    let name = std::sync::Mutex::new(String::new());
    let outcome = std::panic::catch_unwind(|| {
        let lab = Lab::new();
        name.lock().expect("unpoisoned").push_str(lab.router().name());
        panic!("on purpose");
    });
    assert!(outcome.is_err());
    let name = name.into_inner().expect("unpoisoned");
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
}
