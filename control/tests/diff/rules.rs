//! Generated rulesets: every table and chain, every match and target of the
//! language that is in, as text in pieces that the shrinker can take away.

use std::fmt::Write as _;

use super::rng::Rng;
use super::world;
use crate::lab;

/// One rule: `-A CHAIN parts... target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// Options, each removable by itself.
    pub parts: Vec<String>,
    /// `-j ...`, `-g ...` or nothing.
    pub target: String,
}

/// One chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainText {
    /// Name.
    pub name: String,
    /// `ACCEPT` or `DROP`, for built-in chains.
    pub policy: Option<&'static str>,
    /// Rules.
    pub rules: Vec<RuleText>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableText {
    /// Name.
    pub name: &'static str,
    /// Chains, built-in ones first.
    pub chains: Vec<ChainText>,
}

/// A ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesetText {
    /// Family.
    pub v6: bool,
    /// All five tables, so that loading it replaces everything.
    pub tables: Vec<TableText>,
}

/// The tables with their built-in chains.
pub const TABLES: [(&str, &[&str]); 5] = [
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
    ("security", &["INPUT", "FORWARD", "OUTPUT"]),
];

impl RulesetText {
    /// Nothing but ACCEPT policies.
    pub fn empty(v6: bool) -> Self {
        let tables = TABLES.iter().map(|&(name, builtin)| {
            let chain = |&name: &&str| ChainText {
                name: name.to_owned(),
                policy: Some("ACCEPT"),
                rules: Vec::new(),
            };
            TableText { name, chains: builtin.iter().map(chain).collect() }
        });
        Self { v6, tables: tables.collect() }
    }
    /// As `iptables-restore` reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            writeln!(text, "*{}", table.name).expect("writing to a string");
            for chain in &table.chains {
                let policy = chain.policy.unwrap_or("-");
                writeln!(text, ":{} {policy} [0:0]", chain.name).expect("writing to a string");
            }
            for chain in &table.chains {
                for rule in &chain.rules {
                    let line =
                        format!("-A {} {} {}", chain.name, rule.parts.join(" "), rule.target);
                    let words: Vec<&str> =
                        line.split(' ').filter(|word| !word.is_empty()).collect();
                    writeln!(text, "{}", words.join(" ")).expect("writing to a string");
                }
            }
            text.push_str("COMMIT\n");
        }
        text.replace(TAG, &log_tag())
    }
    /// Without empty tables, for people.
    pub fn brief(&self) -> String {
        let mut brief = self.clone();
        brief.tables.retain(|table| {
            table.chains.iter().any(|chain| {
                !chain.rules.is_empty() || chain.policy.is_none() || chain.policy == Some("DROP")
            })
        });
        brief.text()
    }
    /// Number of rules.
    pub fn rules(&self) -> usize {
        self.tables.iter().flat_map(|table| &table.chains).map(|chain| chain.rules.len()).sum()
    }
}

/// What a rule may use where it stands.
pub struct Place<'p> {
    /// Family.
    pub v6: bool,
    /// Table.
    pub table: &'p str,
    /// Chain.
    pub chain: &'p str,
    /// Whether conntrack may be used at all (fragments are only sent without).
    pub conntrack: bool,
    /// User chains that may be jumped to.
    pub below: &'p [String],
}

impl Place<'_> {
    /// Whether only packets that know their way out come here.
    pub fn outward(&self) -> bool {
        self.chain == "FORWARD" || !self.inward()
    }
    /// Whether packets here came from outside.
    pub fn inward(&self) -> bool {
        !matches!(self.chain, "OUTPUT" | "POSTROUTING") && !self.chain.starts_with('o')
    }
}

/// Makes a ruleset. Without conntrack, nothing in it makes the kernel track.
pub fn generate(rng: &mut Rng, v6: bool, conntrack: bool) -> RulesetText {
    let mut ruleset = RulesetText::empty(v6);
    for table in &mut ruleset.tables {
        let (users, rules) = match table.name {
            "filter" => (1 + rng.below(4), 6),
            "mangle" => (rng.below(3), 4),
            _ => (rng.below(2) * rng.below(2), 2),
        };
        if table.name != "filter" && rng.chance(35) {
            continue;
        }
        // Chains that only OUTPUT and POSTROUTING reach are separate: some
        // matches are legal only on the way in.
        let names =
            |kind: char| -> Vec<String> { (0..users).map(|n| format!("{kind}{n}")).collect() };
        let (inward, outward) = (names('u'), names('o'));
        for chain in &mut table.chains {
            let out = matches!(chain.name.as_str(), "OUTPUT" | "POSTROUTING");
            let below: &[String] = if out { &outward } else { &inward };
            let droppable = table.name == "filter" && chain.name != "OUTPUT";
            if rng.chance(if droppable { 15 } else { 2 }) && table.name != "nat" {
                chain.policy = Some("DROP");
            }
            let place = Place { v6, table: table.name, chain: &chain.name, conntrack, below };
            let count = rng.below(rules + 1);
            chain.rules = (0..count).map(|_| rule(rng, &place)).collect();
        }
        for own in [&inward, &outward] {
            for (n, name) in own.iter().enumerate() {
                let below = &own[n + 1..];
                let place = Place { v6, table: table.name, chain: name, conntrack, below };
                let rules = (0..rng.below(5)).map(|_| rule(rng, &place)).collect();
                table.chains.push(ChainText { name: name.clone(), policy: None, rules });
            }
        }
    }
    ruleset
}

/// Protocols of `-p`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proto {
    Any,
    Tcp,
    Udp,
    Icmp,
    Other,
    NotTcp,
}

fn rule(rng: &mut Rng, place: &Place<'_>) -> RuleText {
    let mut parts = Vec::new();
    base(rng, place, &mut parts);
    let proto = rng.weighted(&[
        (45, Proto::Any),
        (28, Proto::Tcp),
        (24, Proto::Udp),
        (14, Proto::Icmp),
        (6, Proto::Other),
        (3, Proto::NotTcp),
    ]);
    match proto {
        Proto::Any => {}
        Proto::Tcp => {
            parts.push("-p tcp".to_owned());
            if rng.chance(70) {
                tcp(rng, &mut parts);
            }
        }
        Proto::Udp => {
            parts.push("-p udp".to_owned());
            if rng.chance(60) {
                ports(rng, "udp", &mut parts);
            }
        }
        Proto::Icmp => {
            parts.push(format!("-p {}", if place.v6 { "ipv6-icmp" } else { "icmp" }));
            if rng.chance(75) {
                parts.push(icmp(rng, place.v6));
            }
        }
        Proto::Other => {
            let number =
                rng.pick(&["47", "50", "51", "132", "gre", "esp", "sctp", "udplite", "255"]);
            parts.push(format!("{}-p {number}", not(rng)));
        }
        Proto::NotTcp => parts.push("! -p tcp".to_owned()),
    }
    if matches!(proto, Proto::Tcp | Proto::Udp) && rng.chance(15) {
        multiport(rng, &mut parts);
    }
    for _ in 0..rng.weighted(&[(45, 0), (42, 1), (10, 2), (3, 3)]) {
        parts.push(extension(rng, place));
    }
    let target = target(rng, place, proto);
    let enters = place.below.iter().any(|chain| target.ends_with(&format!(" {chain}")));
    // Chains that hardly anything enters test nothing.
    if enters && rng.chance(65) {
        parts.clear();
    }
    // Nor do rules behind an end that everything meets.
    let ends = ["ACCEPT", "DROP", "RETURN"].iter().any(|end| target.ends_with(end));
    if parts.is_empty() && ends {
        parts.push(extension(rng, place));
    }
    if target.contains("TCPMSS") {
        parts.push(format!("-m tcp --tcp-flags {} SYN", rng.pick(&["SYN,RST", "SYN", "SYN,ACK"])));
    }
    RuleText { parts, target }
}

fn not(rng: &mut Rng) -> &'static str {
    if rng.chance(20) { "! " } else { "" }
}

fn base(rng: &mut Rng, place: &Place<'_>, parts: &mut Vec<String>) {
    if rng.chance(14) {
        parts.push(format!("{}-s {}", not(rng), world::masked_address(rng, place.v6)));
    }
    if rng.chance(14) {
        parts.push(format!("{}-d {}", not(rng), world::masked_address(rng, place.v6)));
    }
    let interfaces = ["eth0", "eth1", "eth2", "eth+", "e+", "eth9", "et", "lo"];
    if !matches!(place.chain, "OUTPUT" | "POSTROUTING") && rng.chance(10) {
        parts.push(format!("{}-i {}", not(rng), rng.pick(&interfaces)));
    }
    if !matches!(place.chain, "INPUT" | "PREROUTING") && rng.chance(10) {
        parts.push(format!("{}-o {}", not(rng), rng.pick(&interfaces)));
    }
    if !place.v6 && rng.chance(if place.conntrack { 2 } else { 12 }) {
        parts.push(format!("{}-f", not(rng)));
    }
}

fn ports(rng: &mut Rng, module: &str, parts: &mut Vec<String>) {
    let mut part = format!("-m {module}");
    if rng.chance(35) {
        write!(part, " {}--sport {}", not(rng), world::port_range(rng, ':')).expect("string");
    }
    if rng.chance(75) {
        write!(part, " {}--dport {}", not(rng), world::port_range(rng, ':')).expect("string");
    }
    parts.push(part);
}

fn tcp(rng: &mut Rng, parts: &mut Vec<String>) {
    match rng.below(10) {
        0 | 1 => parts.push(format!("-m tcp {}--syn", not(rng))),
        2 => {
            let mask =
                rng.pick(&["SYN,ACK", "ALL", "FIN,RST", "SYN,RST,ACK,FIN", "PSH", "URG,PSH"]);
            let compare = rng.pick(&["SYN", "NONE", "ACK", "FIN,RST", "PSH", "ALL"]);
            parts.push(format!("-m tcp {}--tcp-flags {mask} {compare}", not(rng)));
        }
        3 => {
            let kind = rng.pick(&[2, 3, 4, 5, 8, 1, 30]);
            parts.push(format!("-m tcp {}--tcp-option {kind}", not(rng)));
        }
        _ => ports(rng, "tcp", parts),
    }
}

fn multiport(rng: &mut Rng, parts: &mut Vec<String>) {
    let side = rng.pick(&["--sports", "--dports", "--ports"]);
    let list: Vec<String> = (0..1 + rng.below(5)).map(|_| world::port_range(rng, ':')).collect();
    parts.push(format!("-m multiport {}{side} {}", not(rng), list.join(",")));
}

fn icmp(rng: &mut Rng, v6: bool) -> String {
    if v6 {
        let kind = rng.pick(&[
            "echo-request",
            "echo-reply",
            "destination-unreachable",
            "port-unreachable",
            "packet-too-big",
            "time-exceeded",
            "ttl-zero-during-transit",
            "parameter-problem",
            "neighbour-solicitation",
            "1/4",
            "128",
            "129/0",
            "3/1",
        ]);
        format!("-m icmp6 {}--icmpv6-type {kind}", not(rng))
    } else {
        let kind = rng.pick(&[
            "any",
            "echo-request",
            "echo-reply",
            "destination-unreachable",
            "port-unreachable",
            "fragmentation-needed",
            "time-exceeded",
            "ttl-zero-during-transit",
            "redirect",
            "parameter-problem",
            "timestamp-request",
            "3/3",
            "3/4",
            "8",
            "0/0",
            "11/1",
            "5",
        ]);
        format!("-m icmp {}--icmp-type {kind}", not(rng))
    }
}

fn states(rng: &mut Rng) -> String {
    let all = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];
    let mut chosen: Vec<&str> = all.into_iter().filter(|_| rng.chance(35)).collect();
    if chosen.is_empty() {
        chosen.push(rng.pick(&all));
    }
    chosen.join(",")
}

fn conntrack(rng: &mut Rng, v6: bool) -> String {
    let mut part = "-m conntrack".to_owned();
    let mut add = |text: String| part.push_str(&format!(" {text}"));
    // The tools print masks with holes wrongly in this match.
    let whole = |text: &String| !text.contains("/255.") && !text.contains("/ffff");
    let mut address = std::iter::repeat_with(|| world::masked_address(rng, v6));
    let address = address.find(whole).expect("endless");
    match rng.below(16) {
        0 => add(format!("{}--ctproto {}", not(rng), rng.pick(&["6", "17", "1", "58", "47"]))),
        1 => add(format!("{}--ctorigsrc {}", not(rng), address)),
        2 => add(format!("{}--ctorigdst {}", not(rng), address)),
        3 => add(format!("{}--ctreplsrc {}", not(rng), address)),
        4 => add(format!("{}--ctrepldst {}", not(rng), address)),
        5 => add(format!("{}--ctorigsrcport {}", not(rng), world::port_range(rng, ':'))),
        6 => add(format!("{}--ctorigdstport {}", not(rng), world::port_range(rng, ':'))),
        7 => add(format!("{}--ctreplsrcport {}", not(rng), world::port_range(rng, ':'))),
        8 => add(format!("{}--ctrepldstport {}", not(rng), world::port_range(rng, ':'))),
        9 => {
            let status = rng.pick(&[
                "NONE",
                "SEEN_REPLY",
                "ASSURED",
                "CONFIRMED",
                "EXPECTED",
                "SEEN_REPLY,ASSURED",
            ]);
            add(format!("{}--ctstatus {status}", not(rng)));
        }
        // Far from every timeout, so that a second more or less decides nothing.
        10 => {
            let range = rng.pick(&["0:45", "46:105", "106:250", "251:100000", "400000:4294967295"]);
            add(format!("{}--ctexpire {range}", not(rng)));
        }
        11 => add(format!("--ctdir {}", rng.pick(&["ORIGINAL", "REPLY"]))),
        12 => add(format!("{}--ctstate {}", not(rng), rng.pick(&["SNAT", "DNAT", "SNAT,NEW"]))),
        _ => {}
    }
    if part == "-m conntrack" || rng.chance(30) && !part.contains("--ctstate") {
        let (bang, states) = (not(rng), states(rng));
        part.push_str(&format!(" {bang}--ctstate {states}"));
    }
    part
}

fn mark(rng: &mut Rng) -> String {
    let value = rng.pick(&["0", "0x1", "0x2", "0x10", "0x11", "0xff", "0xffffffff"]);
    let mask = rng.pick(&["", "", "/0x1", "/0xf", "/0xf0", "/0xff"]);
    format!("{value}{mask}")
}

fn extension(rng: &mut Rng, place: &Place<'_>) -> String {
    let bang = not(rng);
    let tracked: usize = if place.conntrack { 22 } else { 0 };
    let kind = rng.weighted(&[
        (tracked, 0),
        (tracked / 3, 1),
        (tracked / 3, 2),
        (8, 3),
        (8, 4),
        (if place.inward() { 6 } else { 0 }, 5),
        (8, 6),
        (8, 7),
        (6, 8),
        (6, 9),
        (6, 10),
        (5, 11),
        (6, 12),
    ]);
    match kind {
        0 => conntrack(rng, place.v6),
        1 => format!("-m state {bang}--state {}", states(rng)),
        2 => format!("-m connmark {bang}--mark {}", mark(rng)),
        3 => format!("-m mark {bang}--mark {}", mark(rng)),
        4 => {
            let side = rng.pick(&["--src-range", "--dst-range"]);
            format!("-m iprange {bang}{side} {}", world::address_range(rng, place.v6))
        }
        5 => {
            let mac = lab::host_mac(rng.below(lab::PORTS), rng.pick(&[10, 11, 254]));
            format!("-m mac {bang}--mac-source {}", lab::mac_text(mac))
        }
        6 => {
            let range = rng.pick(&["0:60", "40", "28", "48", "40:48", "61:1500", "1000:65535"]);
            format!("-m length {bang}--length {range}")
        }
        7 if place.v6 => {
            format!(
                "-m hl {}",
                rng.pick(&["--hl-eq 64", "! --hl-eq 63", "--hl-lt 64", "--hl-gt 1"])
            )
        }
        7 => format!(
            "-m ttl {}",
            rng.pick(&["--ttl-eq 64", "! --ttl-eq 63", "--ttl-lt 64", "--ttl-gt 1"])
        ),
        8 => format!("-m dscp {bang}--dscp {}", rng.pick(&["0x00", "0x0a", "0x2e", "0x3f"])),
        9 => format!("-m tos {bang}--tos {}", rng.pick(&["0x10/0x3f", "0x00/0xff", "0xb8/0xff"])),
        10 => format!(
            "-m pkttype {bang}--pkt-type {}",
            rng.pick(&["unicast", "broadcast", "multicast"])
        ),
        11 => format!("-m comment --comment \"rule {}\"", rng.below(100)),
        _ => {
            // So slow that no credit comes back while the test runs.
            // (A day's credit times a larger burst overflows: the kernel refuses it.)
            let (rate, burst) =
                rng.pick(&[("1/hour", 6), ("3/hour", 6), ("1/day", 1), ("2/min", 6)]);
            format!("-m limit --limit {rate} --limit-burst {}", 1 + rng.below(burst))
        }
    }
}

fn target(rng: &mut Rng, place: &Place<'_>, proto: Proto) -> String {
    let rejects = place.table == "filter";
    let mangle = place.table == "mangle";
    let jumps = if place.below.is_empty() { 0 } else { 22 };
    let connmarks = if mangle && place.conntrack { 18 } else { 0 };
    let drops = match place.table {
        "nat" => 0,
        "filter" => 12,
        _ => 2,
    };
    let kind = rng.weighted(&[
        (16, 0),
        (drops, 1),
        (7, 2),
        (if rejects { 10 } else { 0 }, 3),
        (6, 4),
        (if mangle { 22 } else { 0 }, 5),
        (connmarks, 6),
        (jumps, 7),
        (jumps / 4, 8),
        (12, 9),
        (if mangle { 30 } else { 0 }, 10),
        (if proto == Proto::Tcp { 14 } else { 0 }, 11),
        (if place.table == "nat" && place.conntrack { 45 } else { 0 }, 12),
    ]);
    match kind {
        0 => "-j ACCEPT".to_owned(),
        1 => "-j DROP".to_owned(),
        2 => "-j RETURN".to_owned(),
        3 => reject(rng, place.v6, proto),
        4 => log(rng),
        5 => format!(
            "-j MARK {} {}",
            rng.pick(&["--set-xmark", "--set-mark", "--or-mark", "--and-mark", "--xor-mark"]),
            rng.pick(&["0x1", "0x2", "0x10", "0xff", "0xfffffff0"])
        ),
        6 => connmark(rng),
        7 => format!("-j {}", place.below[rng.below(place.below.len())]),
        8 => format!("-g {}", place.below[rng.below(place.below.len())]),
        10 => header(rng, place.v6, proto),
        12 => translate(rng, place, proto),
        11 if place.outward() && rng.chance(50) => "-j TCPMSS --clamp-mss-to-pmtu".to_owned(),
        11 => {
            let mss = rng.pick(&[0, 1, 535, 536, 537, 1219, 1220, 1221, 1400, 1460, 8_960]);
            format!("-j TCPMSS --set-mss {mss}")
        }
        _ => String::new(),
    }
}

/// DNAT, REDIRECT, SNAT or MASQUERADE, where they are legal: user chains (`o0`,
/// `u0`) are entered from two hooks, and a target for one of them is refused.
fn translate(rng: &mut Rng, place: &Place<'_>, proto: Proto) -> String {
    let hosts = world::hosts(place.v6);
    let address = hosts[rng.below(hosts.len())].address;
    let with_ports = matches!(proto, Proto::Tcp | Proto::Udp) && rng.chance(40);
    let port = rng.pick(&world::PORT_POOL);
    let to = match (with_ports, place.v6) {
        (false, _) => address.to_string(),
        (true, false) => format!("{address}:{port}"),
        (true, true) => format!("[{address}]:{port}"),
    };
    match place.chain {
        "PREROUTING" | "OUTPUT" if rng.chance(40) => match with_ports {
            true => format!("-j REDIRECT --to-ports {port}"),
            false => "-j REDIRECT".to_owned(),
        },
        "PREROUTING" | "OUTPUT" => {
            let own = world::router(place.v6, rng.below(lab::PORTS));
            let to = if rng.chance(20) { own.to_string() } else { to };
            format!("-j DNAT --to-destination {to}")
        }
        "POSTROUTING" if rng.chance(50) => "-j MASQUERADE".to_owned(),
        "POSTROUTING" | "INPUT" => format!("-j SNAT --to-source {address}"),
        _ => String::new(),
    }
}

/// TTL, HL, TOS, DSCP, ECN.
fn header(rng: &mut Rng, v6: bool, proto: Proto) -> String {
    match rng.below(if v6 { 3 } else { 4 }) {
        0 => {
            let (name, option) = if v6 { ("HL", "hl") } else { ("TTL", "ttl") };
            let change = rng.pick(&[
                "set 64", "set 63", "set 1", "set 0", "set 2", "inc 1", "inc 255", "dec 1",
                "dec 63", "dec 200",
            ]);
            format!("-j {name} --{option}-{change}")
        }
        1 => format!(
            "-j TOS {}",
            rng.pick(&[
                "--set-tos 0x10",
                "--set-tos 0xb8/0xfc",
                "--set-tos 0xff/0x0f",
                "--set-tos 0",
                "--and-tos 0xfe",
                "--or-tos 0x03",
                "--xor-tos 0xff",
            ])
        ),
        2 => format!("-j DSCP --set-dscp {}", rng.pick(&["0x00", "0x0a", "0x2e", "0x3f"])),
        _ if proto == Proto::Tcp => format!(
            "-j ECN {}",
            rng.pick(&[
                "--ecn-tcp-remove",
                "--ecn-tcp-ece 1",
                "--ecn-tcp-ece 1 --ecn-tcp-cwr 0",
                "--ecn-tcp-cwr 1 --ecn-ip-ect 3",
            ])
        ),
        _ => format!("-j ECN --ecn-ip-ect {}", rng.below(4)),
    }
}

/// Stands for [`log_tag`] in a prefix, so that a case does not depend on its process.
const TAG: &str = "@TAG@";

/// What the prefixes of this process's LOG rules begin with.
pub fn log_tag() -> String {
    format!("ptl{}.", std::process::id())
}

fn log(rng: &mut Rng) -> String {
    let option = rng.pick(&[
        "",
        "",
        " --log-tcp-options --log-tcp-sequence",
        " --log-ip-options",
        " --log-level 7",
        " --log-level info --log-tcp-options --log-ip-options",
        " --log-macdecode",
    ]);
    format!("-j LOG --log-prefix \"{TAG}{} \"{option}", rng.below(10))
}

fn reject(rng: &mut Rng, v6: bool, proto: Proto) -> String {
    if proto == Proto::Tcp && rng.chance(50) {
        return "-j REJECT --reject-with tcp-reset".to_owned();
    }
    let kind = if v6 {
        rng.pick(&[
            "icmp6-no-route",
            "icmp6-adm-prohibited",
            "icmp6-addr-unreachable",
            "icmp6-port-unreachable",
            "icmp6-policy-fail",
            "icmp6-reject-route",
        ])
    } else {
        rng.pick(&[
            "icmp-net-unreachable",
            "icmp-host-unreachable",
            "icmp-port-unreachable",
            "icmp-proto-unreachable",
            "icmp-net-prohibited",
            "icmp-host-prohibited",
            "icmp-admin-prohibited",
        ])
    };
    format!("-j REJECT --reject-with {kind}")
}

fn connmark(rng: &mut Rng) -> String {
    match rng.below(5) {
        0 => "-j CONNMARK --save-mark".to_owned(),
        1 => "-j CONNMARK --restore-mark".to_owned(),
        2 => "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xf0".to_owned(),
        3 => "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0x0f".to_owned(),
        _ => format!("-j CONNMARK --set-xmark {}", mark(rng)),
    }
}
