//! What TRACE and NFLOG report, against the kernel: the lines about traced packets, and
//! the messages that listeners of a group get. Needs root, and reads the kernel's log.

mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use dataplane::clock::Nanos;
use dataplane::packet::{Family, Mac, PortId};
use dataplane::wire::build::Packet;
use lab::nflog::{PacketLog, attributes};
use lab::{Lab, address, host_mac, mac_text, port_mac};
use portcullis::iptables::{self, TableNames};
use portcullis::replay::topology::TopologyFile;
use portcullis::replay::{Fed, Replay, Setup, Source};

/// The lab's router for replay.
fn topology() -> String {
    let mut text = String::from("mode = \"routed\"\n");
    for port in 0..lab::PORTS {
        let (v4, v6) = (address(false, port, 1), address(true, port, 1));
        let mac = mac_text(port_mac(port));
        write!(
            text,
            "[[port]]\nname = \"eth{port}\"\nmac = \"{mac}\"\naddresses = [\"{v4}/24\", \"{v6}/64\"]\n"
        )
        .expect("writing to a string");
    }
    for (port, host) in (0..lab::PORTS).flat_map(|port| lab::NEIGHBOURS.map(|host| (port, host))) {
        for v6 in [false, true] {
            let (ip, mac) = (address(v6, port, host), mac_text(host_mac(port, host)));
            write!(
                text,
                "[[neighbour]]\ndev = \"eth{port}\"\naddress = \"{ip}\"\nmac = \"{mac}\"\n"
            )
            .expect("writing to a string");
        }
    }
    text
}

fn replay(v6: bool, rules: &str) -> Replay {
    let file = TopologyFile::parse(Path::new("topo.toml"), &topology()).expect("a topology");
    let mut setup = Setup::new(file.topology, 1);
    let family = if v6 { Family::V6 } else { Family::V4 };
    let names = TableNames::of_host();
    let parsed = iptables::parse(rules, "rules", family, &names).expect("rules load");
    match v6 {
        false => setup.v4 = parsed.ruleset,
        true => setup.v6 = parsed.ruleset,
    }
    Replay::new(setup).expect("rules compile")
}

/// Source ports that are ours alone: other labs write to the same log.
fn own_port() -> u16 {
    20_000 + (std::process::id() % 40_000) as u16
}

fn packets(v6: bool) -> Vec<Packet> {
    let [a, b, router] = [(0, 10), (1, 11), (0, 1)].map(|(port, host)| {
        let address = address(v6, port, host);
        address.to_string()
    });
    let sport = own_port();
    let mut all = Vec::new();
    for to in [&b, &router] {
        for dport in [22, 53, 80, 443, 4000] {
            all.push(Packet::udp(&a, sport, to, dport).payload_len(40));
            all.push(Packet::tcp(&a, sport, to, dport, 2).tcp_options(&[2, 4, 5, 0xb4]));
            all.push(Packet::tcp(&a, sport, to, dport, 0x10).seq(7, 8));
        }
    }
    all.push(Packet::udp(&a, sport, &b, 9).ttl(1));
    all.push(Packet::udp(&a, sport, &b, 9).payload_len(1400));
    all
}

/// Puts a packet into both; gives what ours did.
fn feed(lab: &Lab, ours: &mut Replay, packet: &Packet, at: u64) -> Fed {
    let frame = packet.clone().macs(Mac(host_mac(0, 10)), Mac(port_mac(0))).build();
    lab.inject(0, &frame);
    ours.feed(Source::Port(PortId(0)), Nanos(1_700_000_000_000_000_000 + at), &frame)
}

fn traces(v6: bool) -> String {
    let reject = if v6 { "icmp6-adm-prohibited" } else { "icmp-admin-prohibited" };
    format!(
        "*raw\n:PREROUTING ACCEPT [0:0]\n:R - [0:0]\n:T - [0:0]\n\
         -A PREROUTING -p udp -j R\n-A PREROUTING -p tcp --dport 22:443 -g T\n\
         -A PREROUTING -m comment --comment x -j ACCEPT\n\
         -A R -p udp --dport 53\n-A R -j TRACE\n-A R\n-A T -j TRACE\n-A T -j RETURN\nCOMMIT\n\
         *mangle\n:PREROUTING ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:M - [0:0]\n\
         -A PREROUTING -j M\n-A PREROUTING -j MARK --set-xmark 0x7/0xff\n\
         -A FORWARD -m mark --mark 0x7 -j ACCEPT\n-A M -p tcp -j RETURN\n-A M -j RETURN\nCOMMIT\n\
         *nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 443\n\
         -A POSTROUTING -p udp --dport 53 -j ACCEPT\n-A POSTROUTING -j ACCEPT\nCOMMIT\n\
         *filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:F - [0:0]\n:G - [0:0]\n\
         -A INPUT -p tcp -j F\n-A INPUT -p udp --dport 22 -j DROP\n-A INPUT -j ACCEPT\n\
         -A FORWARD -m conntrack --ctstate INVALID -j DROP\n-A FORWARD -p udp -g G\n\
         -A FORWARD -j F\n-A FORWARD -p tcp --dport 22 -j REJECT --reject-with {reject}\n\
         -A FORWARD -p tcp -j ACCEPT\n\
         -A F -p tcp --dport 443 -j RETURN\n-A F -j G\n-A F\n\
         -A G -p udp --dport 80 -j ACCEPT\n-A G -i eth0\nCOMMIT\n\
         *security\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
    )
}

#[test]
fn traced_packets_tell_what_the_kernels_tell() {
    let lab = Lab::new();
    // A packet from the net is told with its link-layer header: that of answers is not.
    let own = format!("SPT={} ", own_port());
    let mac = format!(":{}:", mac_text(host_mac(0, 10)));
    let mine = |line: &String| line.contains(&own) && line.contains(&mac);
    let mut lines = 0;
    for v6 in [false, true] {
        let rules = traces(v6);
        lab.restore(v6, &rules).expect("the kernel takes the rules");
        let mut ours = replay(v6, &rules);
        for (at, packet) in packets(v6).iter().enumerate() {
            drop(lab.logged("TRACE: "));
            let fed = feed(&lab, &mut ours, packet, at as u64);
            let mut kernel = lab.logged("TRACE: ");
            kernel.retain(&mine);
            let mut told = fed.log;
            told.retain(&mine);
            assert_eq!(kernel, told, "kernel, then ours: {packet:?}");
            lines += told.len();
        }
        lab.restore(v6, "*raw\nCOMMIT\n").expect("empty rules");
    }
    assert!(lines > 200, "{lines} lines");
}

const GROUP: u16 = 9;

fn captures() -> String {
    let log = format!("-j NFLOG --nflog-group {GROUP} --nflog-threshold 1");
    format!(
        "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {log} --nflog-prefix \"first one\"\nCOMMIT\n\
         *mangle\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n\
         -A PREROUTING -p tcp -j MARK --set-xmark 0xbeef/0xffffffff\n\
         -A PREROUTING {log} --nflog-size 0\n\
         -A POSTROUTING {log} --nflog-size 33 --nflog-prefix {}\nCOMMIT\n\
         *filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
         -A INPUT {log} --nflog-size 60\n-A FORWARD {log} --nflog-range 20\n\
         -A FORWARD -j NFLOG --nflog-group 10\n-A FORWARD -m mark --mark 0xbeef {log}\nCOMMIT\n",
        "x".repeat(63)
    )
}

/// A message without what differs between machines: indices, times.
fn comparable(message: &[u8]) -> (Vec<u8>, BTreeMap<u16, Vec<u8>>) {
    const TIMESTAMP: u16 = 3;
    const INDICES: [u16; 2] = [4, 5];
    let mut found: BTreeMap<u16, Vec<u8>> =
        attributes(message).map(|(kind, value)| (kind, value.to_vec())).collect();
    for kind in INDICES.into_iter().chain([TIMESTAMP]) {
        if let Some(value) = found.get_mut(&kind) {
            value.fill(0);
        }
    }
    (message[..4].to_vec(), found)
}

#[test]
fn captured_packets_are_what_listeners_of_the_kernel_get() {
    let lab = Lab::new();
    let listener = lab.router().enter(|| PacketLog::open(GROUP)).expect("netlink socket");
    let mut messages = 0;
    for v6 in [false, true] {
        let rules = captures();
        lab.restore(v6, &rules).expect("the kernel takes the rules");
        let mut ours = replay(v6, &rules);
        for (at, packet) in packets(v6).iter().enumerate() {
            drop(listener.messages());
            let fed = feed(&lab, &mut ours, packet, at as u64);
            let kernel: Vec<_> = listener.messages().iter().map(|it| comparable(it)).collect();
            // An answer of the router itself passes POSTROUTING too.
            let from_net = |(_, found): &(Vec<u8>, BTreeMap<u16, Vec<u8>>)| found.contains_key(&4);
            let kernel: Vec<_> = kernel.into_iter().filter(from_net).collect();
            let group = fed.captured.iter().filter(|captured| captured.group == GROUP);
            let told: Vec<_> = group.map(|captured| comparable(&captured.record[16..])).collect();
            let told: Vec<_> = told.into_iter().filter(from_net).collect();
            assert_eq!(kernel, told, "kernel, then ours: {packet:?}");
            messages += told.len();
        }
    }
    assert!(messages > 200, "{messages} messages");
}
