//! The two example profiles of `docs/examples`, unchanged, with real programs around
//! them: a machine that serves, and a gateway at the edge. Needs root.

mod netns;
#[path = "profiles/stage.rs"]
mod stage;

use netns::{Namespace, Process, join};
use stage::{Machine, address, said, spawn, until, until_open};

/// A host behind a router, an administrator and somebody far away over a narrow link.
struct Host {
    host: Machine,
    _router: Namespace,
    admin: Namespace,
    far: Namespace,
    _services: Vec<Process>,
}

const NARROW: u32 = 1280;

impl Host {
    fn new() -> Self {
        let host = Machine::new("host", "service-host");
        let [router, admin, far] = ["r", "adm", "far"].map(Namespace::new);
        join((&host.namespace, "eth0"), (&router, "r0"), 1);
        join((&admin, "a0"), (&router, "r1"), 1);
        join((&far, "f0"), (&router, "r2"), 1);
        address(&host.namespace, "eth0", "192.0.2.2/24 2001:db8:2::2/64");
        address(&router, "r0", "192.0.2.1/24 2001:db8:2::1/64");
        address(&router, "r1", "198.51.100.1/24 2001:db8:100::1/64");
        address(&router, "r2", "198.18.1.1/24 2001:db8:1::1/64");
        address(&admin, "a0", "198.51.100.10/24 2001:db8:100::10/64");
        address(&far, "f0", "198.18.1.9/24 2001:db8:1::9/64");
        // The far one asks for more than its link takes: senders must learn it by errors.
        let narrow = format!("mtu {NARROW} advmss 1400");
        for (of, v4, v6, more) in [
            (&host.namespace, "192.0.2.1", "2001:db8:2::1", ""),
            (&admin, "198.51.100.1", "2001:db8:100::1", ""),
            (&far, "198.18.1.1", "2001:db8:1::1", &narrow),
        ] {
            of.run(&format!("ip route add default via {v4} {more}"));
            of.run(&format!("ip -6 route add default via {v6} {more}"));
        }
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (of, device) in [(&router, "r2"), (&far, "f0")] {
            of.run(&format!("ip link set {device} mtu {NARROW}"));
        }
        std::fs::write(host.directory.join("page"), "served\n").unwrap();
        let big: Vec<u8> = (0..2_000_000_u32).map(|byte| (byte % 251) as u8).collect();
        std::fs::write(host.directory.join("big"), big).unwrap();
        // SSH, the web, and what nobody should reach: a database, and SNMP.
        let services = ["22", "80", "443", "5432"].map(|port| {
            let line = format!("/usr/bin/python3 -m http.server --bind :: {port}");
            spawn(&host.namespace, &host.directory, &line)
        });
        let mut services = Vec::from(services);
        services.push(spawn(&host.namespace, &host.directory, "nc -6 -l -u -k 161"));
        services.push(spawn(&far, &host.directory, "/usr/bin/python3 -m http.server --bind :: 80"));
        for port in ["22", "80", "443", "5432", "161"] {
            until_open(&host.namespace, port);
        }
        until_open(&far, "80");
        Self { host, _router: router, admin, far, _services: services }
    }
}

/// The TCP ports that nmap calls open, of a list that has those of `Host` among others.
fn open_ports(from: &Namespace, options: &str, target: &str) -> Vec<u16> {
    let line = format!(
        "nmap {options} -Pn -n --max-retries 1 -T4 -oG - -p 20-25,53,79-81,161,179,440-445,5430-5434,8080 {target}"
    );
    let report = from.run(&line);
    let mut open: Vec<u16> = report
        .split(['\t', ' ', ','])
        .filter(|word| word.contains("/open/"))
        .filter_map(|word| word.split('/').next()?.parse().ok())
        .collect();
    open.sort_unstable();
    open
}

#[test]
fn nmap_sees_exactly_what_the_service_host_allows() {
    let mut lab = Host::new();
    // Without a firewall all of them are there: the scan can tell.
    assert_eq!(open_ports(&lab.admin, "-sS", "192.0.2.2"), [22, 80, 443, 5432]);
    lab.host.start();
    for (from, allowed) in [(&lab.admin, &[22, 80, 443][..]), (&lab.far, &[80, 443])] {
        for (options, target) in [("-sS", "192.0.2.2"), ("-sT -6", "2001:db8:2::2")] {
            assert_eq!(open_ports(from, options, target), allowed, "{} {target}", from.name());
        }
        // Scans that no connection begins with find nothing at all.
        for options in ["-sF", "-sX", "-sA"] {
            let found = open_ports(from, options, "192.0.2.2");
            assert!(found.is_empty() || options == "-sA", "{options}: {found:?}");
        }
    }
    let udp = lab.far.run("nmap -sU -Pn -n --max-retries 1 -oG - -p 53,161,123 192.0.2.2");
    assert!(!udp.contains("/open/"), "{udp}");
    assert!(lab.host.log().contains("host denied in: IN=eth0 OUT= "), "{}", lab.host.log());
    // Management does not depend on the rules: what they say of port 22 may go.
    let rules = lab.host.directory.join("rules.v4");
    let text = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, text.replace("--dport 22", "--dport 2222")).unwrap();
    lab.host.apply_again();
    assert_eq!(open_ports(&lab.admin, "-sS", "192.0.2.2"), [22, 80, 443]);
}

#[test]
fn the_service_host_reaches_out_and_is_answered() {
    let mut lab = Host::new();
    lab.host.start();
    let (host, far) = (&lab.host.namespace, &lab.far);
    // Out, with names of connections that tell how its replies came in.
    for target in ["198.18.1.9", "[2001:db8:1::9]"] {
        let page = host.run(&format!("curl --max-time 10 -sS http://{target}/page"));
        assert_eq!(page, "served\n");
    }
    let table = lab.host.cli(&["conntrack", "-L", "-p", "tcp", "--dport", "80"]);
    assert!(table.contains("dst=198.18.1.9") && table.contains("[ASSURED]"), "{table}");
    let rules = lab.host.cli(&["show", "rules", "--chain", "INPUT", "--json"]);
    let rules: serde_json::Value = serde_json::from_str(&rules).unwrap();
    for chain in rules["chains"].as_array().unwrap() {
        let established = chain["rules"].as_array().unwrap().iter().find(|rule| {
            rule["text"].as_str().is_some_and(|text| text.contains("replies and errors"))
        });
        let packets = &established.unwrap()["packets"];
        assert!(packets.as_u64().unwrap() >= 4, "replies come in as ESTABLISHED: {rules}");
    }
    // What the policy does not let out stays in.
    let output = host.attempt("curl --max-time 2 -sS http://198.18.1.9:8080/page");
    assert!(!output.status.success(), "{}", said(&output));
    assert!(lab.host.log().contains("host denied out: IN= OUT=eth0 "), "{}", lab.host.log());
    // Ping both ways; large ones travel in fragments.
    for (from, target) in [(far, "192.0.2.2"), (host, "198.18.1.9")] {
        from.run(&format!("ping -c 2 -i 0.2 -W 2 {target}"));
        from.run(&format!("ping -c 2 -i 0.2 -W 2 -s 3000 {target}"));
    }
    for (from, target) in [(far, "2001:db8:2::2"), (host, "2001:db8:1::9")] {
        from.run(&format!("ping -c 2 -i 0.2 -W 2 -s 3000 {target}"));
    }
    // The link to the far side is narrow: sockets here learn it from errors that are RELATED.
    let (copy, big) = (lab.host.directory.join("copy"), lab.host.directory.join("big"));
    for target in ["192.0.2.2", "[2001:db8:2::2]"] {
        let path = copy.display();
        far.run(&format!("curl --max-time 20 -sS -o {path} http://{target}/big"));
        assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&big).unwrap());
    }
    let learnt = host.run("ip route get 198.18.1.9; ip -6 route get 2001:db8:1::9");
    assert_eq!(learnt.matches(&format!("mtu {NARROW}")).count(), 2, "{learnt}");
    // Traceroute in and out.
    let hops = |from: &Namespace, target: &str| -> Vec<String> {
        let report = from.run(&format!("traceroute -n -q 1 -w 2 {target}"));
        let hop = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
        report.lines().skip(1).filter_map(hop).collect()
    };
    assert_eq!(hops(host, "198.18.1.9"), ["192.0.2.1", "198.18.1.9"]);
    assert_eq!(hops(far, "192.0.2.2"), ["198.18.1.1", "192.0.2.2"]);
    assert_eq!(hops(far, "2001:db8:2::2"), ["2001:db8:1::1", "2001:db8:2::2"]);
}

/// An edge gateway, a client and a web server inside, the provider's router, a far host.
struct Edge {
    gateway: Machine,
    _switch: Namespace,
    web: Namespace,
    client: Namespace,
    provider: Namespace,
    far: Namespace,
    processes: Vec<Process>,
}

const BIRD: &str = "router id ROUTER;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; interface \"far0\", \"inside\"; }
protocol kernel { ipv4 { import none; export all; }; }
protocol kernel { ipv6 { import none; export all; }; }
protocol bgp peer4 { local OWN4 as OWNAS; neighbor PEER4 as PEERAS; hold time 9; connect retry time 1; connect delay time 1;
  ipv4 { import all; export all; }; }
protocol bgp peer6 { local OWN6 as OWNAS; neighbor PEER6 as PEERAS; hold time 9; connect retry time 1; connect delay time 1;
  ipv6 { import all; export all; }; }
";

impl Edge {
    fn new() -> Self {
        let gateway = Machine::new("gw", "edge-gateway");
        let [switch, web, client, provider, far] =
            ["sw", "web", "c", "isp", "far"].map(Namespace::new);
        switch.run("ip link add br0 type bridge && ip link set br0 up");
        join((&gateway.namespace, "inside"), (&switch, "p0"), 1);
        join((&web, "w0"), (&switch, "p1"), 1);
        join((&client, "c0"), (&switch, "p2"), 1);
        join((&gateway.namespace, "outside"), (&provider, "r0"), 1);
        join((&far, "f0"), (&provider, "far0"), 1);
        for port in ["p0", "p1", "p2"] {
            switch.run(&format!("ip link set {port} master br0"));
        }
        address(&gateway.namespace, "inside", "10.7.0.1/24 2001:db8:7::1/64");
        address(&gateway.namespace, "outside", "198.18.2.1/24 2001:db8:2::1/64");
        address(&web, "w0", "10.7.0.2/24 2001:db8:7::2/64");
        address(&client, "c0", "10.7.0.3/24 2001:db8:7::3/64");
        address(&provider, "r0", "198.18.2.254/24 2001:db8:2::fe/64");
        address(&provider, "far0", "198.18.3.254/24 2001:db8:3::fe/64");
        address(&far, "f0", "198.18.3.2/24 2001:db8:3::2/64");
        for (of, v4, v6) in [
            (&web, "10.7.0.1", "2001:db8:7::1"),
            (&client, "10.7.0.1", "2001:db8:7::1"),
            (&far, "198.18.3.254", "2001:db8:3::fe"),
        ] {
            of.run(&format!("ip route add default via {v4} && ip -6 route add default via {v6}"));
        }
        provider.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let mut lab =
            Self { gateway, _switch: switch, web, client, provider, far, processes: Vec::new() };
        std::fs::write(lab.gateway.directory.join("page"), "published\n").unwrap();
        lab.serve();
        lab
    }

    fn serve(&mut self) {
        let directory = &self.gateway.directory;
        let http = |port: &str| format!("/usr/bin/python3 -m http.server --bind :: {port}");
        for (host, port) in [
            (&self.web, "80"),
            (&self.web, "8080"),
            (&self.far, "80"),
            (&self.gateway.namespace, "22"),
            (&self.gateway.namespace, "8081"),
        ] {
            self.processes.push(spawn(host, directory, &http(port)));
            until_open(host, port);
        }
    }

    /// Starts BGP between the gateway and the provider.
    fn route(&mut self) {
        let ends = [
            (&self.gateway.namespace, "gw", "198.18.2.1", "2001:db8:2::1", "64501"),
            (&self.provider, "isp", "198.18.2.254", "2001:db8:2::fe", "64502"),
        ];
        for (own, peer) in [(0, 1), (1, 0)] {
            let (host, name, v4, v6, number) = ends[own];
            let text = BIRD
                .replace("ROUTER", v4)
                .replace("OWN4", v4)
                .replace("OWN6", v6)
                .replace("OWNAS", number)
                .replace("PEER4", ends[peer].2)
                .replace("PEER6", ends[peer].3)
                .replace("PEERAS", ends[peer].4);
            let path = self.gateway.directory.join(format!("{name}.conf"));
            std::fs::write(&path, text).unwrap();
            let line = format!("bird -f -c {name}.conf -s {name}.ctl -P {name}.pid");
            self.processes.push(spawn(host, &self.gateway.directory, &line));
        }
    }

    /// What bird says of a session on the gateway.
    fn session(&self, name: &str) -> String {
        let control = self.gateway.directory.join("gw.ctl");
        let line = format!("birdc -s {} show protocols all {name}", control.display());
        said(&self.gateway.namespace.attempt(&line))
    }
}

#[test]
fn nmap_sees_exactly_what_the_edge_gateway_publishes() {
    let mut lab = Edge::new();
    lab.gateway.namespace.run("ip route add default via 198.18.2.254");
    lab.gateway.namespace.run("ip -6 route add default via 2001:db8:2::fe");
    lab.provider.run("ip -6 route add 2001:db8:7::/64 via 2001:db8:2::1");
    lab.gateway.start();
    // Outside: the web server behind NAT, no SSH, nothing of the gateway's own.
    assert_eq!(open_ports(&lab.far, "-sS", "198.18.2.1"), [80]);
    assert_eq!(open_ports(&lab.far, "-sT -6", "2001:db8:7::2"), [80]);
    assert!(open_ports(&lab.far, "-sT -6", "2001:db8:2::1").is_empty());
    // Inside: SSH.
    assert_eq!(open_ports(&lab.client, "-sS", "10.7.0.1"), [22]);
    let page = lab.far.run("curl --max-time 10 -sS http://198.18.2.1/page");
    assert_eq!(page, "published\n");
    for target in ["198.18.3.2", "[2001:db8:3::2]"] {
        let page = lab.client.run(&format!("curl --max-time 10 -sS http://{target}/page"));
        assert_eq!(page, "published\n");
        let page =
            lab.gateway.namespace.run(&format!("curl --max-time 10 -sS http://{target}/page"));
        assert_eq!(page, "published\n");
    }
    lab.client.run("ping -c 2 -i 0.2 -W 2 198.18.3.2");
    lab.client.run("ping -c 2 -i 0.2 -W 2 2001:db8:3::2");
    lab.far.run("ping -c 2 -i 0.2 -W 2 198.18.2.1");
    let table = lab.gateway.cli(&["conntrack", "-L", "-p", "tcp", "-s", "10.7.0.3"]);
    assert!(table.contains("dst=198.18.2.1"), "masqueraded: {table}");
    let report = lab.client.run("traceroute -n -q 1 -w 2 198.18.3.2");
    assert_eq!(report.lines().count(), 4, "gateway, provider, far: {report}");
}

/// Sessions with a hold time of nine seconds, IPv4 and IPv6, stay up over hot swaps, a
/// restart, and a crash; the routes they brought stay.
#[test]
fn bgp_stays_up_over_swaps_restarts_and_crashes() {
    let mut lab = Edge::new();
    lab.gateway.start();
    lab.route();
    let up = |lab: &Edge, name: &str| lab.session(name).contains("Established");
    for name in ["peer4", "peer6"] {
        let took = until("a BGP session", 30, || up(&lab, name));
        println!("{name} established after {} ms", took.0 / 1_000_000);
    }
    until("routes", 10, || {
        let routes = lab.gateway.namespace.run("ip route; ip -6 route");
        routes.contains("198.18.3.0/24") && routes.contains("2001:db8:3::/64")
    });
    let page = || lab.client.attempt("curl --max-time 5 -sS http://198.18.3.2/page");
    until("traffic by the learnt route", 5, || said(&page()) == "published\n");
    let since = |session: &str| -> Option<String> {
        let line = session.lines().find(|line| line.starts_with("peer"))?;
        line.split_whitespace().nth(4).map(str::to_owned)
    };
    let before = ["peer4", "peer6"].map(|name| since(&lab.session(name)));
    assert!(before.iter().all(Option::is_some), "{}", lab.session("peer4"));
    for _ in 0..20 {
        lab.gateway.apply_again();
    }
    for signal in ["TERM", "KILL"] {
        std::thread::sleep(std::time::Duration::from_secs(6));
        lab.gateway.end(signal);
        lab.gateway.start();
    }
    // Longer than the hold time: what was cut would be gone by now.
    std::thread::sleep(std::time::Duration::from_secs(10));
    let after = ["peer4", "peer6"].map(|name| since(&lab.session(name)));
    assert_eq!(before, after, "{}{}", lab.session("peer4"), lab.session("peer6"));
    assert!(up(&lab, "peer4") && up(&lab, "peer6"));
}
