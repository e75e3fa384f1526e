//! The gateway's rules and its surroundings.

use dataplane::fib::{Mode, NeighbourEntry, Network, PortInfo, Topology};
use dataplane::packet::{Family, Mac, PortId};
use dataplane::snapshot::Snapshot;
use portcullis::compile::{DynamicState, Input, Limits, compile};
use portcullis::iptables::{TableNames, parse};
use portcullis::model::Ruleset;

pub const PORT_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 1, 1])];
pub const HOST_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 1, 2])];

/// One gateway.
pub struct Rules {
    pub snapshot: Snapshot,
    pub network: Network,
    /// Nothing tracked leaves with an inside address.
    pub masquerades: bool,
    /// TCPMSS leaves wrong sums behind where the kernel does.
    pub breaks_sums: bool,
}

const HELPERS: &str = "\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p tcp --dport 21 -j CT --helper ftp
-A PREROUTING -p tcp --dport 5060 -j CT --helper sip
-A PREROUTING -p udp --dport 5060 -j CT --helper sip
-A PREROUTING -p udp --dport 69 -j CT --helper tftp
-A PREROUTING -p udp --dport 10080 -j CT --helper amanda
-A PREROUTING -p tcp --dport 6566 -j CT --helper sane
";
/// What IPv6 does not have.
const V4_RAW: &str = "\
-A PREROUTING -p tcp --dport 6667 -j CT --helper irc
-A PREROUTING -p tcp --dport 1723 -j CT --helper pptp
-A PREROUTING -p udp --dport 161 -j CT --helper snmp
-A PREROUTING -p udp --dport 162 -j CT --helper snmp_trap
";
const V4_MANGLE: &str = "-A PREROUTING -p tcp --dport 91 -j ECN --ecn-tcp-remove\n";
const PROXIED: &str = "-A PREROUTING -p tcp --dport 80 --syn -j CT --notrack\n";
const ZONED: &str = "\
-A PREROUTING -i eth0 -p tcp --dport 90 -j CT --zone-orig 5
-A PREROUTING -i eth1 -p tcp --sport 91 -j CT --zone 7
-A PREROUTING -i eth0 -p tcp --dport 91 -j CT --zone 7
";
const MANGLE: &str = "\
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -p tcp --dport 91 -j TOS --set-tos 0x10/0x3f
-A POSTROUTING -p udp -j DSCP --set-dscp 0x2e
";
const NAT: &str = "\
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
";
const SYNPROXY: &str = "\
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p tcp --dport 80 -m conntrack --ctstate INVALID,UNTRACKED \
-j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460
-A FORWARD -p tcp --dport 99 -j REJECT --reject-with tcp-reset
";

/// The rules of one family.
fn texts(family: Family) -> [String; 3] {
    let v4 = family == Family::V4;
    let hop = if v4 { "TTL --ttl-dec 2" } else { "HL --hl-dec 2" };
    let (raw, ecn) = if v4 { (V4_RAW, V4_MANGLE) } else { ("", "") };
    let hops = format!("-A PREROUTING -p tcp --dport 91 -j {hop}\n{ecn}");
    let (web, mapped, to, pool) = match v4 {
        true => ("198.18.1.2:80", "203.0.113.0/24", "198.18.1.0/24", "198.18.2.1-198.18.2.1"),
        false => ("[2001:db8:1::2]:80", "2001:db8:9::/64", "2001:db8:1::/64", "2001:db8:2::1"),
    };
    let port = if v4 { ":5000-5003" } else { "" };
    let incoming = format!(
        "-A PREROUTING -i eth1 -p tcp --dport 8080 -j DNAT --to-destination {web}\n\
         -A PREROUTING -i eth0 -p tcp --dport 3128 -j REDIRECT --to-ports 3129\n\
         -A PREROUTING -i eth1 -d {mapped} -j NETMAP --to {to}\n"
    );
    let reject = if v4 { "icmp-admin-prohibited" } else { "icmp6-adm-prohibited" };
    let refused =
        format!("-A FORWARD -m conntrack --ctstate INVALID -j REJECT --reject-with {reject}\n");
    let masquerade = "-A POSTROUTING -o eth1 -j MASQUERADE\n";
    let snat = format!("-A POSTROUTING -o eth1 -p tcp -j SNAT --to-source {pool}{port}\n");
    let mss =
        "-A FORWARD -p tcp --dport 90 --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n";
    let end = "COMMIT\n";
    [
        [HELPERS, raw, PROXIED, MANGLE, &hops, NAT, &incoming, masquerade, SYNPROXY, end].concat(),
        [HELPERS, raw, ZONED, MANGLE, &hops, mss, NAT, &snat, SYNPROXY, &refused, end].concat(),
        [HELPERS, raw, PROXIED, MANGLE, &hops, SYNPROXY, &refused, end].concat(),
    ]
}

fn read(text: &str, family: Family) -> Ruleset {
    match parse(text, "gateway.rules", family, &TableNames::well_known()) {
        Ok(parsed) => parsed.ruleset,
        Err(findings) => panic!("{findings:?}\n{text}"),
    }
}

fn network() -> Network {
    let ip = |text: String| text.parse().expect("an address");
    let ports = (0..2).map(|index: usize| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: format!("eth{index}"),
        mac: PORT_MACS[index],
        mtu: 1500,
        addresses: vec![
            (ip(format!("198.18.{}.1", index + 1)), 24),
            (ip(format!("2001:db8:{}::1", index + 1)), 64),
        ],
        up: true,
    });
    let hosts = (0..2).flat_map(|index: usize| {
        [2, 9].into_iter().flat_map(move |host| {
            [
                (index, format!("198.18.{}.{host}", index + 1)),
                (index, format!("2001:db8:{}::{host}", index + 1)),
            ]
        })
    });
    let neighbours = hosts.map(|(index, address)| NeighbourEntry {
        port: PortId(index as u8),
        address: ip(address),
        mac: HOST_MACS[index],
    });
    let topology = Topology {
        mode: Mode::Routed,
        ports: ports.collect(),
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: neighbours.collect(),
    };
    Network::build(&topology).expect("a network")
}

/// All gateways: one that masquerades, one with a pool, zones and TCPMSS, and one
/// that translates nothing.
pub fn all() -> Vec<Rules> {
    let ports = ["eth0".to_owned(), "eth1".to_owned()];
    let [v4, v6] = [Family::V4, Family::V6].map(|family| texts(family).map(|it| read(&it, family)));
    v4.iter()
        .zip(&v6)
        .enumerate()
        .map(|(at, (v4, v6))| {
            let input = Input { v4, v6, ports: &ports, limits: Limits::default() };
            let compiled = compile(input, &DynamicState::default()).expect("rules that compile");
            Rules {
                snapshot: Snapshot::new(1, compiled.policy, 1),
                network: network(),
                masquerades: at == 0,
                breaks_sums: at == 1,
            }
        })
        .collect()
}
