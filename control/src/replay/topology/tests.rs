//! Tests of topology files: the contract's example, and every kind of mistake.

use super::*;

const GOOD: &str = r#"
mode = "routed"
[[port]]
name = "eth0"
mac = "02:00:00:00:01:01"
addresses = ["198.18.1.1/24", "2001:db8:1::1/64"]
[[port]]
name = "eth1"
mac = "02:00:00:00:01:02"
mtu = 1400
[[route]]
to = "0.0.0.0/0"
via = "198.18.2.254"
dev = "eth1"
[[route]]
to = "203.0.113.0/24"
type = "blackhole"
table = 100
[[rule]]
fwmark = "0x20/0xff"
table = 100
priority = 1000
[[neighbour]]
dev = "eth1"
address = "198.18.2.254"
mac = "02:00:00:00:02:02"
[limits]
conntrack_max = 1000
[icmp]
icmp_ratelimit = 0
[conntrack]
tcp_loose = 0
tcp_be_liberal = true
"#;

fn parse(text: &str) -> Result<TopologyFile, TopologyError> {
    TopologyFile::parse(Path::new("topo.toml"), text)
}

#[test]
fn the_contract_s_example_is_read() {
    let file = parse(GOOD).unwrap();
    let topology = &file.topology;
    assert_eq!(topology.mode, Mode::Routed);
    assert_eq!((topology.ports[0].mtu, topology.ports[1].mtu), (1500, 1400));
    assert_eq!(topology.ports[0].addresses.len(), 2);
    assert_eq!(topology.routes[0].kind, RouteKind::Unicast(PortId(1)));
    assert_eq!(topology.routes[0].table, MAIN);
    assert_eq!(topology.routes[1].kind, RouteKind::Blackhole);
    let v4 = topology.rules.iter().filter(|rule| rule.family == Family::V4);
    let v4: Vec<_> = v4.map(|rule| (rule.priority, rule.table, rule.fwmark)).collect();
    let marked = (1000, 100, Some((0x20, 0xff)));
    let defaults = [(32766, 254, None), (32767, 253, None)];
    assert_eq!(v4, [(0, 255, None), marked, defaults[0], defaults[1]]);
    assert_eq!(topology.neighbours[0].port, PortId(1));
    assert_eq!(file.limits.conntrack_max, Some(1000));
    let limits = Settings { icmp_ratelimit_ms: 0, ..Settings::default() };
    assert_eq!(file.icmp, limits);
    let sysctls: Vec<_> = file.conntrack.iter().map(|s| (s.name.as_str(), s.value)).collect();
    assert_eq!(sysctls, [("tcp_be_liberal", 1), ("tcp_loose", 0)]);
    assert_eq!(file.conntrack[1].at, Position { line: 32, column: 1 });
}

#[test]
fn mistakes_are_refused_where_they_stand() {
    let cases: &[(&str, &str, (usize, usize), &str)] = &[
        ("mtu = 1400", "mut = 1400", (10, 1), "unknown field `mut`"),
        ("mtu = 1400", "mtu = 40", (10, 7), "MTU of 40"),
        ("02:00:00:00:01:02", "03:00:00:00:01:02", (9, 7), "no unicast MAC"),
        ("198.18.1.1/24", "198.18.1.1/33", (6, 14), "no ADDRESS/LENGTH"),
        ("0.0.0.0/0", "1.0.0.0/0", (12, 6), "beyond the prefix"),
        ("\"198.18.2.254\"\ndev", "\"2001:db8::9\"\ndev", (13, 7), "both IPv4 and IPv6"),
        ("dev = \"eth1\"\naddress", "dev = \"eth2\"\naddress", (24, 7), "no port `eth2`"),
        ("\"blackhole\"", "\"nat\"", (17, 8), "unknown route type"),
        ("0x20/0xff", "0x20/0xfg", (20, 10), "no mark"),
        ("\"routed\"", "\"router\"", (2, 8), "unknown mode"),
        ("\"routed\"", "\"host\"", (2, 8), "takes one port"),
        ("\"routed\"", "\"bridge\"", (2, 8), "goes with"),
        ("name = \"eth1\"", "name = \"eth0\"", (8, 8), "defined twice"),
        ("tcp_loose = 0", "tcp_loose = \"no\"", (32, 13), "whole number"),
        ("conntrack_max", "conntrack_mux", (28, 1), "unknown field"),
        ("priority = 1000", "priority = -1", (22, 12), "invalid value"),
    ];
    for (good, bad, (line, column), words) in cases {
        let error = parse(&GOOD.replacen(good, bad, 1)).expect_err(bad);
        assert_eq!(error.at, Position { line: *line, column: *column }, "{bad}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("topo.toml:") && text.contains(words), "{bad}: {text}");
    }
}
