//! The kernel as oracle: a router in a network namespace of its own, with
//! netfilter in force, whose every port is watched from the other end.
//!
//! ```text
//!   namespace `gw`                          namespace `far`
//!   eth0 198.18.1.1 2001:db8:1::1  ------  p0    hosts .10 .11 .254 (static
//!   eth1 198.18.2.1 2001:db8:2::1  ------  p1    neighbours, nobody answers)
//!   eth2 198.18.3.1 2001:db8:3::1  ------  p2    203.0.113.0/24 and
//!                                                2001:db8:ffff::/48 via .254
//! ```
//!
//! Everything that would speak by itself is silenced, every rate limit of the
//! router is lifted and all offloads are off, so what comes out of a port was
//! caused by what was put in. veth delivers on the sending core before `send`
//! returns, and the lab's thread stays on one core: nothing has to be waited for.
//!
//! What INPUT accepts ends in a sink that runs after conntrack's confirmation:
//! it is counted, and the local stack never answers.

#![allow(dead_code, reason = "each test binary uses its part of the lab")]
#![allow(unreachable_pub, reason = "the interface of a module that several binaries include")]

pub mod clock;
pub mod frames;
pub mod kmsg;
pub mod namespace;
pub mod nflog;
pub mod sys;

use std::net::{IpAddr, UdpSocket};

use namespace::Namespace;
use sys::{PacketSocket, RawSocket};

/// Ports of the router.
pub const PORTS: usize = 3;

/// The NFLOG group of the sink for the local stack's packets.
const SINK_GROUP: u16 = 77;

/// Host parts of the neighbours on every port's network.
pub const NEIGHBOURS: [u8; 3] = [10, 11, 254];

/// The groups of the router's ports.
pub const DEVICE_GROUPS: [u32; PORTS] = [0, 5, 0x15];

/// The realms, FROM/TO, of the IPv4 routes to [`REMOTE`], of the default route, and of
/// the rule for [`MARKED`].
pub const REMOTE_REALMS: &str = "3/5";
pub const DEFAULT_REALMS: &str = "0/9";
pub const MARKED_REALMS: &str = "4/2";
/// Those of the route that the rule leads to, and rules with their own, FROM, TO and realms:
/// for some of [`REMOTE`], and for a neighbour.
pub const MARKED_ROUTE_REALMS: &str = "0/8";
pub const TOWARDS: [(&str, &str, &str); 2] =
    [("0.0.0.0/0", "203.0.113.4/30", "6/11"), ("203.0.113.0/24", "198.18.1.10/32", "0/13")];

/// MAC address of a router port.
pub const fn port_mac(port: usize) -> [u8; 6] {
    [2, 0, 0, 0, port as u8 + 1, 1]
}

/// MAC address of a neighbour on a port's network.
pub const fn host_mac(port: usize, host: u8) -> [u8; 6] {
    [2, 0, 0, 0, port as u8 + 1, host]
}

/// Address of a host (or, with 1, of the router) on a port's network.
pub fn address(v6: bool, port: usize, host: u8) -> IpAddr {
    if v6 {
        IpAddr::from([0x2001, 0xdb8, port as u16 + 1, 0, 0, 0, 0, u16::from(host)])
    } else {
        IpAddr::from([198, 18, port as u8 + 1, host])
    }
}

/// Link-local address of a host (or, with 1, of the router) on a port's network.
pub fn link_local(port: usize, host: u8) -> IpAddr {
    IpAddr::from([0xfe80, 0, 0, 0, 0, 0, port as u16 + 1, u16::from(host)])
}

/// Prints a MAC address.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The families' loaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontEnd {
    /// `iptables-legacy-restore`, `ip6tables-legacy-restore`.
    Legacy,
    /// `iptables-nft-restore`, `ip6tables-nft-restore`.
    Nft,
}

impl FrontEnd {
    fn tool(self, v6: bool, action: &str) -> String {
        let family = if v6 { "ip6tables" } else { "iptables" };
        let back = match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        };
        format!("{family}-{back}-{action}")
    }
}

/// A frame that came out, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// Port of the router.
    pub port: usize,
    /// The frame from its Ethernet header on.
    pub frame: Vec<u8>,
}

/// The router and the far ends of its ports.
#[derive(Debug)]
pub struct Lab {
    peers: Vec<PacketSocket>,
    raw: [RawSocket; 2],
    front_end: FrontEnd,
    log: std::cell::RefCell<kmsg::KernelLog>,
    received: nflog::PacketLog,
    /// Sockets that hold the groups.
    ears: Vec<UdpSocket>,
    gw: Namespace,
    far: Namespace,
}

impl Lab {
    /// Builds the router. Takes about a quarter of a second; needs root.
    pub fn new() -> Self {
        Self::with_front_end(FrontEnd::Legacy)
    }

    /// The same, with the rules loaded through the given front end.
    pub fn with_front_end(front_end: FrontEnd) -> Self {
        sys::pin_to_this_cpu().expect("pinning a thread");
        let (gw, far) = (Namespace::new("gw"), Namespace::new("far"));
        silence(&gw, &far);
        plug(&gw, &far);
        let open = |port: usize| {
            far.enter(|| PacketSocket::open(&format!("p{port}"))).expect("packet socket")
        };
        let peers = (0..PORTS).map(open).collect();
        let raw = [false, true].map(|v6| gw.enter(|| RawSocket::open(v6)).expect("raw socket"));
        let log = kmsg::KernelLog::open().into();
        let received = gw.enter(|| nflog::PacketLog::open(SINK_GROUP)).expect("netlink socket");
        let lab = Self { peers, raw, front_end, log, received, ears: Vec::new(), gw, far };
        lab.wait_for_silence();
        lab
    }

    /// Adds default routes of both families by way of the last host on eth2.
    pub fn add_default_routes(&self) {
        for (v6, option) in [(false, "-4"), (true, "-6")] {
            let gateway = address(v6, 2, 254).to_string();
            let mut args = vec![option, "route", "add", "default", "via", &gateway, "dev", "eth2"];
            args.extend(["realms", DEFAULT_REALMS].iter().filter(|_| !v6));
            self.gw.run("ip", &args, "").expect("a default route");
        }
        self.drain();
    }

    /// Gives the router link-local addresses and neighbours, [`GROUPS`], and policy
    /// routing by mark ([`MARKED`]): for what is said to a link, and what OUTPUT reroutes.
    pub fn join_links(&mut self) {
        use std::fmt::Write as _;
        let quiet = "table inet sink {\n chain reports {\n ip daddr 224.0.0.22 drop\n \
            ip6 daddr ff02::16 drop\n \
            icmpv6 type { nd-redirect, nd-neighbor-solicit } drop\n }\n}\n";
        self.gw.run("nft", &["-f", "-"], quiet).expect("nft");
        let mut batch = String::new();
        for port in 0..PORTS {
            writeln!(batch, "addr add {}/64 dev eth{port} nodad", link_local(port, 1))
                .expect("string");
            for host in NEIGHBOURS {
                let (ip, mac) = (link_local(port, host), mac_text(host_mac(port, host)));
                writeln!(batch, "neigh replace {ip} lladdr {mac} dev eth{port} nud permanent")
                    .expect("writing to a string");
            }
        }
        for (v6, option) in [(false, "-4"), (true, "-6")] {
            let via = address(v6, 1, 254);
            let (mark, table) = MARKED;
            let realms = if v6 { String::new() } else { format!(" realms {MARKED_REALMS}") };
            let rule =
                format!("{option} rule add fwmark {mark} table {table} priority 1000{realms}");
            let realms = if v6 { "" } else { MARKED_ROUTE_REALMS };
            let words = if v6 { "" } else { " realms " };
            let route = format!(
                "{option} route add default via {via} dev eth1 table {table}{words}{realms}"
            );
            let towards = TOWARDS.map(|(from, to, realms)| {
                format!("rule add from {from} to {to} table main priority 1100 realms {realms}")
            });
            for line in [rule, route].into_iter().chain(towards.into_iter().filter(|_| !v6)) {
                let words: Vec<&str> = line.split(' ').collect();
                self.gw.run("ip", &words, "").expect("policy routing");
            }
        }
        for (kind, to, port) in SPECIAL {
            let device = port.map_or(String::new(), |port| format!(" dev eth{port}"));
            writeln!(batch, "route add {kind} {to}{device}").expect("writing to a string");
        }
        self.gw.run("ip", &["-batch", "-"], &batch).expect("link-local addresses");
        for (port, group) in GROUPS {
            let ear = self.gw.enter(|| {
                let index = sys::interface_index(&format!("eth{port}"))?;
                let group: IpAddr = group.parse().expect("a group");
                match (group, address(false, port, 1)) {
                    (IpAddr::V4(group), IpAddr::V4(own)) => {
                        let ear = UdpSocket::bind("0.0.0.0:0")?;
                        ear.join_multicast_v4(&group, &own).map(|()| ear)
                    }
                    (IpAddr::V6(group), _) => {
                        let ear = UdpSocket::bind("[::]:0")?;
                        ear.join_multicast_v6(&group, index).map(|()| ear)
                    }
                    _ => unreachable!("the first is IPv4"),
                }
            });
            self.ears.push(ear.expect("joining a group"));
        }
        self.wait_for_silence();
    }

    /// Namespace of the router.
    pub fn router(&self) -> &Namespace {
        &self.gw
    }

    /// Joining groups makes the kernel send a few reports; they are dropped, but late.
    fn wait_for_silence(&self) {
        let mut quiet = 0;
        for _ in 0..100 {
            clock::pause_ms(5);
            quiet = if self.drain().is_empty() { quiet + 1 } else { 0 };
            if quiet == 10 {
                return;
            }
        }
        panic!("the router does not fall silent");
    }

    /// Loads a ruleset; `Err` is the tool's complaint. Counters start from the file's.
    pub fn restore(&self, v6: bool, text: &str) -> Result<(), String> {
        let tool = self.front_end.tool(v6, "restore");
        self.gw.run(&tool, &["-c"], text).map(drop)
    }

    /// The rules with their counters, as the tool prints them.
    pub fn save(&self, v6: bool) -> String {
        let tool = self.front_end.tool(v6, "save");
        self.gw.run(&tool, &["-c"], "").expect("saving")
    }

    /// The connection table, one entry a line, in the form of `/proc/net/nf_conntrack`.
    pub fn conntrack(&self) -> Vec<String> {
        self.gw.proc_net("nf_conntrack").lines().map(str::to_owned).collect()
    }

    /// Empties the connection table.
    pub fn flush_conntrack(&self) {
        self.gw.run("conntrack", &["-F"], "").expect("flushing conntrack");
    }

    /// LOG lines since the last call that contain `tag`, from the tag on. The
    /// kernel's log is everybody's: tags should be one's own.
    pub fn logged(&self, tag: &str) -> Vec<String> {
        self.log.borrow_mut().take(tag)
    }

    /// Packets that the local stack was given since the lab was built.
    pub fn delivered(&self) -> u64 {
        let listing = self.gw.run("nft", &["list", "table", "inet", "sink"], "").expect("nft");
        let mut words = listing.split_whitespace().skip_while(|&word| word != "packets").skip(1);
        words.next().and_then(|count| count.parse().ok()).expect("a counter in the sink")
    }

    /// Packets that the local stack was given since the last call, from the IP header on.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.take()
    }

    /// Puts a frame on the wire towards a port; gives all that came out.
    pub fn inject(&self, port: usize, frame: &[u8]) -> Vec<Sent> {
        self.peers[port].send(frame).expect("a frame of legal length");
        self.drain()
    }

    /// Sends an IP packet from the router's own stack; gives all that came out.
    /// A packet that OUTPUT drops is an error to its sender: not to us.
    pub fn emit(&self, v6: bool, packet: &[u8]) -> Vec<Sent> {
        drop(self.raw[usize::from(v6)].send(packet));
        self.drain()
    }

    /// The same for a packet to a group or a link-local address, out of a port.
    pub fn emit_on(&self, v6: bool, packet: &[u8], port: usize) -> Vec<Sent> {
        let index = self.gw.enter(|| sys::interface_index(&format!("eth{port}")));
        drop(self.raw[usize::from(v6)].send_on(packet, index.expect("a port")));
        self.drain()
    }

    /// Frames that came out since the last call, whatever caused them.
    pub fn drain(&self) -> Vec<Sent> {
        let mut all = Vec::new();
        for (port, peer) in self.peers.iter().enumerate() {
            while let Some(frame) = peer.receive() {
                all.push(Sent { port, frame });
            }
        }
        all
    }
}

/// Sysctls, before any interface is up.
fn silence(gw: &Namespace, far: &Namespace) {
    for conf in ["default", "all"] {
        far.sysctl(&format!("ipv6/conf/{conf}/disable_ipv6"), "1");
        for (name, value) in [
            ("accept_dad", "0"),
            ("dad_transmits", "0"),
            ("accept_ra", "0"),
            ("router_solicitations", "0"),
            ("addr_gen_mode", "1"),
            ("mldv1_unsolicited_report_interval", "1"),
            ("mldv2_unsolicited_report_interval", "1"),
            ("forwarding", "1"),
        ] {
            gw.sysctl(&format!("ipv6/conf/{conf}/{name}"), value);
        }
        gw.sysctl(&format!("ipv4/conf/{conf}/rp_filter"), "0");
        gw.sysctl(&format!("ipv4/conf/{conf}/send_redirects"), "0");
        gw.sysctl(&format!("ipv4/conf/{conf}/forwarding"), "1");
    }
    for (path, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv4/icmp_msgs_per_sec", "1000000"),
        ("ipv4/icmp_msgs_burst", "1000000"),
        ("ipv6/icmp/ratelimit", "0"),
        // Flow labels of the router's own packets would be hashes under a secret.
        ("ipv6/auto_flowlabels", "0"),
    ] {
        gw.sysctl(path, value);
    }
    // Reports about groups joined come whenever the kernel finds the time: they
    // are dropped before any rule counts them.
    // Before any rule needs conntrack: equal priorities run in reverse order of
    // registration, so conntrack's confirmation comes before this sink.
    let sink = "table inet sink {\n chain in {\n \
        type filter hook input priority 2147483647; policy drop;\n \
        log group 77 snaplen 65535 queue-threshold 1 counter drop\n }\n \
        chain reports {\n type filter hook output priority -500; policy accept;\n \
        ip6 saddr :: drop\n }\n}\n";
    gw.run("nft", &["-f", "-"], sink).expect("nft");
}

/// Cables, addresses, neighbours, routes.
fn plug(gw: &Namespace, far: &Namespace) {
    use std::fmt::Write as _;
    let mut batch = String::new();
    for port in 0..PORTS {
        writeln!(
            batch,
            "link add eth{port} netns {} address {} type veth peer name p{port} netns {}",
            gw.name(),
            mac_text(port_mac(port)),
            far.name()
        )
        .expect("writing to a string");
    }
    namespace::run("ip", &["-batch", "-"], &batch).expect("veth pairs");
    let mut far_batch = String::new();
    let mut gw_batch = String::from("link set lo up\n");
    for (port, group) in DEVICE_GROUPS.into_iter().enumerate() {
        writeln!(far_batch, "link set p{port} up").expect("writing to a string");
        writeln!(gw_batch, "link set eth{port} up group {group}").expect("writing to a string");
    }
    for (port, v6) in (0..PORTS).flat_map(|port| [(port, false), (port, true)]) {
        let own = address(v6, port, 1);
        let (len, nodad) = if v6 { (64, " nodad") } else { (24, "") };
        writeln!(gw_batch, "addr add {own}/{len} dev eth{port}{nodad}").expect("string");
        for host in NEIGHBOURS {
            let (ip, mac) = (address(v6, port, host), mac_text(host_mac(port, host)));
            writeln!(gw_batch, "neigh replace {ip} lladdr {mac} dev eth{port} nud permanent")
                .expect("writing to a string");
        }
    }
    for (net, gateway) in REMOTE {
        let v6 = net.contains(':');
        let realms = if v6 { String::new() } else { format!(" realms {REMOTE_REALMS}") };
        writeln!(gw_batch, "route add {net} via {gateway} dev eth2 mtu {REMOTE_MTU}{realms}")
            .expect("string");
    }
    for port in 0..PORTS {
        for (space, name) in [(far, format!("p{port}")), (gw, format!("eth{port}"))] {
            let off = ["tx", "rx", "sg", "tso", "gso", "gro", "rxvlan", "txvlan"];
            let mut args = vec!["-K", name.as_str()];
            args.extend(off.iter().flat_map(|&feature| [feature, "off"]));
            space.run("ethtool", &args, "").expect("ethtool");
        }
    }
    far.run("ip", &["-batch", "-"], &far_batch).expect("far ends");
    gw.run("ip", &["-batch", "-"], &gw_batch).expect("router");
}

/// Groups that the router has joined once [`Lab::join_links`] was called, by port.
pub const GROUPS: [(usize, &str); 4] =
    [(1, "224.0.0.5"), (1, "239.1.2.3"), (1, "ff02::5"), (1, "ff05::1:3")];

/// Routes that [`Lab::join_links`] adds: type, destination, and the port of what is on
/// a link.
pub const SPECIAL: [(&str, &str, Option<usize>); 7] = [
    ("blackhole", "192.0.2.0/26", None),
    ("unreachable", "192.0.2.64/26", None),
    ("prohibit", "192.0.2.128/26", None),
    ("blackhole", "2001:db8:c0::/64", None),
    ("unreachable", "2001:db8:c1::/64", None),
    ("prohibit", "2001:db8:c2::/64", None),
    ("unicast", "2001:db8:c3::/64", Some(1)),
];

/// The mark, with its mask, that then makes packets go by another table: by way of
/// the last host on eth1.
pub const MARKED: (&str, u32) = ("0x10/0x10", 100);

/// MTU in bytes of the routes to [`REMOTE`].
pub const REMOTE_MTU: u32 = 1400;

/// Networks behind the gateway .254 on eth2.
pub const REMOTE: [(&str, &str); 2] =
    [("203.0.113.0/24", "198.18.3.254"), ("2001:db8:ffff::/48", "2001:db8:3::fe")];
