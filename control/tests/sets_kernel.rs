//! Sets before the kernel and before Portcullis: random sets of every type that this
//! kernel has, filled by `ipset`, random rules with `-m set` and `-j SET`, random packets.
//! What rules count and what the sets hold afterwards must agree. Needs root.

#[allow(dead_code, unreachable_pub, reason = "shared with another test binary")]
#[path = "diff/rng.rs"]
mod rng;

mod lab;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arrayvec::ArrayString;
use dataplane::clock::Nanos;
use dataplane::packet::{Family, PortId};
use dataplane::policy::TableId;
use dataplane::sets::{
    CreateSpec, Cursor, Element, Entry, Extras, Iface, Part, Registry, SetName, SetType, SkbInfo,
};
use lab::clock::Clock;
use lab::frames::{Ip, Tcp, icmp, ip_frame, udp};
use lab::{Lab, PORTS, address, host_mac, mac_text, port_mac};
use portcullis::iptables::{self, TableNames};
use portcullis::replay::topology::TopologyFile;
use portcullis::replay::{Replay, Setup, Source};
use rng::Rng;

/// What this kernel has modules for.
const TYPES: [SetType; 11] = [
    SetType::BitmapIp,
    SetType::BitmapIpMac,
    SetType::BitmapPort,
    SetType::HashIp,
    SetType::HashNet,
    SetType::HashIpPort,
    SetType::HashNetPort,
    SetType::HashIpPortIp,
    SetType::HashIpPortNet,
    SetType::HashNetIface,
    SetType::ListSet,
];
/// Chains whose rules are compared.
const CHAINS: [&str; 2] = ["PREROUTING", "FORWARD"];

fn rounds(default: u64) -> u64 {
    std::env::var("PORTCULLIS_SETS_ROUNDS").map_or(default, |text| text.parse().expect("a number"))
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn ip(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

/// A set of one case.
#[derive(Clone, Debug)]
struct Made {
    name: String,
    spec: CreateSpec,
    elements: Vec<(Element, Extras)>,
}

struct World<'r> {
    rng: &'r mut Rng,
    v6: bool,
}

impl World<'_> {
    fn bits(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    /// Any of few addresses, so that packets and elements meet.
    fn ip(&mut self) -> u128 {
        let low = self.rng.below(14) as u8;
        match self.rng.below(4) {
            0 => number(address(self.v6, 1, [10, 11][self.rng.below(2)])),
            _ if self.v6 => number(format!("2001:db8:aa::{low:x}").parse().unwrap()),
            _ => number(IpAddr::from([10, 0, 0, low])),
        }
    }

    fn net(&mut self, from_zero: bool) -> (u128, u8) {
        let longest = self.bits();
        let cidr = match self.rng.below(10) {
            0 if from_zero => 0,
            0..=1 => longest - 24,
            2..=3 => longest - 8,
            4..=6 => longest - self.rng.below(4) as u8,
            _ => longest,
        };
        let host = u32::from(longest - cidr);
        let ip = self.ip();
        (if host == 128 { 0 } else { ip >> host << host }, cidr)
    }

    fn port(&mut self) -> (u8, u16) {
        let port = [53, 80, 443, 1000][self.rng.below(4)];
        let echo = if self.v6 { (58, 128 << 8) } else { (1, 8 << 8) };
        match self.rng.below(8) {
            0..=2 => (6, port),
            3..=5 => (17, port),
            6 => echo,
            _ => (47, 0),
        }
    }

    fn mac(&mut self) -> [u8; 6] {
        host_mac(0, [10, 11, 254][self.rng.below(3)])
    }

    fn element(&mut self, kind: SetType) -> Element {
        let mut element = Element::default();
        let mut second = false;
        for part in kind.parts() {
            match part {
                Part::Ip | Part::Net => {
                    let (ip, cidr) = match part {
                        Part::Net => {
                            let (ip, cidr) = self.net(kind == SetType::HashNetIface);
                            (ip, Some(cidr))
                        }
                        _ => (self.ip(), None),
                    };
                    match second {
                        false => (element.ip, element.cidr) = (ip, cidr),
                        true => (element.ip2, element.cidr2) = (ip, cidr),
                    }
                    second = true;
                }
                Part::Port if kind == SetType::BitmapPort => {
                    element.port = [53, 80, 443, 1000][self.rng.below(4)];
                }
                Part::Port => (element.proto, element.port) = self.port(),
                Part::Mac => element.mac = self.rng.chance(70).then(|| self.mac()),
                Part::Mark => element.mark = self.rng.below(4) as u32,
                Part::Iface => {
                    let (name, wildcard) = self.rng.pick(&[
                        ("eth0", false),
                        ("eth1", false),
                        ("eth", true),
                        ("e", true),
                    ]);
                    let physdev = self.rng.chance(10);
                    let name = ArrayString::from(name).unwrap();
                    element.iface = Some(Iface { name, physdev, wildcard });
                }
            }
        }
        element
    }

    fn extras(&mut self, spec: &CreateSpec) -> Extras {
        let rng = &mut *self.rng;
        let mut said = |percent, there: bool| there && rng.chance(percent);
        let timeout = said(60, spec.timeout.is_some());
        let counters = said(50, spec.counters);
        let comment = said(50, spec.comment);
        let skb = said(80, spec.skbinfo);
        let nomatch = said(25, spec.kind.networks() > 0);
        let rng = &mut *self.rng;
        Extras {
            timeout_s: timeout.then(|| [0, 600, 5000][rng.below(3)]),
            packets: counters.then(|| rng.below(4) as u64),
            bytes: counters.then(|| rng.below(300) as u64),
            skb: skb.then(|| SkbInfo {
                mark: Some((rng.below(256) as u32, [u32::MAX, 0xff][rng.below(2)])),
                priority: rng.chance(50).then_some(0x1_0010),
                queue: rng.chance(50).then_some(3),
            }),
            nomatch,
            comment: comment.then(|| "said".into()),
        }
    }

    fn set(&mut self, name: &str, kind: SetType) -> Made {
        let mut spec = CreateSpec::new(kind);
        if self.v6 && kind.is_hash() {
            spec.family = Family::V6;
        }
        let rng = &mut *self.rng;
        spec.timeout = rng.chance(40).then(|| [0, 300, 900][rng.below(3)]);
        spec.counters = rng.chance(60);
        spec.comment = rng.chance(20);
        spec.skbinfo = rng.chance(40);
        match kind {
            SetType::BitmapPort => spec.range = Some((0, 500)),
            SetType::BitmapIp | SetType::BitmapIpMac => {
                spec.range = Some((0x0a00_0000, 0x0a00_00ff));
                if kind == SetType::BitmapIp && rng.chance(30) {
                    spec.netmask = Some(30);
                }
            }
            SetType::HashIp if rng.chance(30) => {
                spec.netmask = Some(if self.v6 { 126 } else { 30 });
            }
            kind if kind.is_hash() && rng.chance(30) => spec.maxelem = 5,
            _ => {}
        }
        Made { name: name.to_owned(), spec, elements: Vec::new() }
    }

    fn fill(&mut self, made: &mut Made, count: usize) {
        for _ in 0..count {
            let element = self.element(made.spec.kind);
            let extras = self.extras(&made.spec);
            made.elements.push((element, extras));
        }
    }
}

fn port_text(proto: u8, port: u16) -> String {
    match (proto, port) {
        (6, port) => format!("tcp:{port}"),
        (17, port) => format!("udp:{port}"),
        (1, 0x800) => "icmp:echo-request".to_owned(),
        (58, 0x8000) => "ipv6-icmp:echo-request".to_owned(),
        (1, port) => format!("icmp:{}/{}", port >> 8, port & 0xff),
        (58, port) => format!("icmpv6:{}/{}", port >> 8, port & 0xff),
        (47, _) => "gre:0".to_owned(),
        (132, port) => format!("sctp:{port}"),
        (proto, port) => format!("{proto}:{port}"),
    }
}

/// An element as `ipset` writes it.
fn element_text(element: &Element, spec: &CreateSpec) -> String {
    let v6 = spec.family == Family::V6;
    let longest = if v6 { 128 } else { 32 };
    let net = |address: u128, cidr: Option<u8>| match cidr {
        Some(cidr) if cidr != longest => format!("{}/{cidr}", ip(address, v6)),
        _ => ip(address, v6).to_string(),
    };
    let mut second = false;
    let mut parts = Vec::new();
    for part in spec.kind.parts() {
        match part {
            Part::Ip | Part::Net => {
                parts.push(match second {
                    false => net(element.ip, element.cidr),
                    true => net(element.ip2, element.cidr2),
                });
                second = true;
            }
            Part::Port if spec.kind == SetType::BitmapPort => parts.push(element.port.to_string()),
            Part::Port => parts.push(port_text(element.proto, element.port)),
            Part::Mac => parts.extend(element.mac.map(|mac| mac_text(mac).to_uppercase())),
            Part::Mark => parts.push(format!("0x{:08x}", element.mark)),
            Part::Iface => parts.extend(element.iface.map(|iface| {
                format!("{}{}", if iface.physdev { "physdev:" } else { "" }, iface.name)
            })),
        }
    }
    match element.set {
        Some(set) => set.to_string(),
        None => parts.join(","),
    }
}

fn extras_text(element: &Element, extras: &Extras) -> String {
    let mut text = String::new();
    let mut put = |what: String| write!(text, " {what}").unwrap();
    extras.timeout_s.into_iter().for_each(|value| put(format!("timeout {value}")));
    if extras.nomatch {
        put("nomatch".to_owned());
    }
    if element.iface.is_some_and(|iface| iface.wildcard) {
        put("wildcard".to_owned());
    }
    extras.packets.into_iter().for_each(|value| put(format!("packets {value}")));
    extras.bytes.into_iter().for_each(|value| put(format!("bytes {value}")));
    extras.comment.iter().for_each(|value| put(format!("comment \"{value}\"")));
    let skb = extras.skb.unwrap_or_default();
    match skb.mark {
        Some((mark, u32::MAX)) => put(format!("skbmark 0x{mark:x}")),
        Some((mark, mask)) => put(format!("skbmark 0x{mark:x}/0x{mask:x}")),
        None => {}
    }
    skb.priority
        .into_iter()
        .for_each(|prio| put(format!("skbprio {:x}:{:x}", prio >> 16, prio as u16)));
    skb.queue.into_iter().for_each(|queue| put(format!("skbqueue {queue}")));
    text
}

fn create_text(made: &Made) -> String {
    let spec = &made.spec;
    let mut text = format!("create {} {}", made.name, spec.kind.name());
    let v6 = spec.family == Family::V6;
    if spec.kind.is_hash() {
        write!(text, " family {}", if v6 { "inet6" } else { "inet" }).unwrap();
        write!(text, " maxelem {}", spec.maxelem).unwrap();
    }
    if let Some((low, high)) = spec.range {
        match spec.kind {
            SetType::BitmapPort => write!(text, " range {low}-{high}").unwrap(),
            _ => {
                write!(text, " range {}-{}", Ipv4Addr::from(low), Ipv4Addr::from(high)).unwrap();
            }
        }
    }
    spec.netmask.iter().for_each(|netmask| write!(text, " netmask {netmask}").unwrap());
    spec.timeout.iter().for_each(|timeout| write!(text, " timeout {timeout}").unwrap());
    for (given, what) in
        [(spec.counters, "counters"), (spec.comment, "comment"), (spec.skbinfo, "skbinfo")]
    {
        if given {
            write!(text, " {what}").unwrap();
        }
    }
    text + "\n"
}

/// Both sides with the same sets.
struct Twins {
    lab: Lab,
    topology: String,
}

fn topology() -> String {
    let mut text = String::from("mode = \"routed\"\n");
    for port in 0..PORTS {
        let (v4, v6, mac) =
            (address(false, port, 1), address(true, port, 1), mac_text(port_mac(port)));
        write!(
            text,
            "[[port]]\nname = \"eth{port}\"\nmac = \"{mac}\"\naddresses = [\"{v4}/24\", \"{v6}/64\"]\n"
        )
        .unwrap();
        for (host, v6) in [10, 11, 254].into_iter().flat_map(|host| [(host, false), (host, true)]) {
            let (address, mac) = (address(v6, port, host), mac_text(host_mac(port, host)));
            write!(
                text,
                "[[neighbour]]\ndev = \"eth{port}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n"
            )
            .unwrap();
        }
    }
    text
}

fn rule(rng: &mut Rng, sets: &[Made], negatable: bool) -> String {
    let made = &sets[rng.below(sets.len())];
    let dimensions = made.spec.kind.parts().len().max(1);
    let count = match rng.below(12) {
        0 => dimensions + 1,
        1 if dimensions > 1 => dimensions - 1,
        _ => dimensions.max(if made.spec.kind == SetType::ListSet { 3 } else { 1 }),
    };
    let sides: Vec<&str> = (0..count).map(|_| rng.pick(&["src", "src", "dst"])).collect();
    let bang = if negatable && rng.chance(20) { "! " } else { "" };
    let mut text = format!("-m set {bang}--match-set {} {}", made.name, sides.join(","));
    if rng.chance(20) {
        text += " --return-nomatch";
    }
    for (percent, option) in [(25, " ! --update-counters"), (25, " ! --update-subcounters")] {
        if rng.chance(percent) {
            text += option;
        }
    }
    for (what, most) in [("packets", 5), ("bytes", 300)] {
        if rng.chance(20) {
            let how = rng.pick(&["--{}-eq", "! --{}-eq", "--{}-lt", "--{}-gt"]).replace("{}", what);
            write!(text, " {how} {}", rng.below(most)).unwrap();
        }
    }
    text
}

fn target(rng: &mut Rng, sets: &[Made]) -> String {
    let named = |rng: &mut Rng| {
        let made = &sets[rng.below(sets.len())];
        let count =
            made.spec.kind.parts().len().max(1).max(if made.spec.kind == SetType::ListSet {
                3
            } else {
                1
            });
        let sides: Vec<&str> = (0..count).map(|_| rng.pick(&["src", "src", "dst"])).collect();
        format!("{} {}", made.name, sides.join(","))
    };
    let mut text = String::from("-j SET");
    match rng.below(4) {
        0 => {
            write!(text, " --map-set {} --map-mark", named(rng)).unwrap();
            return text;
        }
        1 => write!(text, " --del-set {}", named(rng)).unwrap(),
        _ => {
            write!(text, " --add-set {}", named(rng)).unwrap();
            if rng.chance(50) {
                text += " --exist";
            }
            if rng.chance(40) {
                write!(text, " --timeout {}", [0, 700, 4000][rng.below(3)]).unwrap();
            }
        }
    }
    text
}

fn rules(rng: &mut Rng, sets: &[Made]) -> String {
    let mut text = String::from("*mangle\n");
    for chain in CHAINS {
        for _ in 0..8 {
            let line = match rng.below(10) {
                0..=5 => rule(rng, sets, true),
                6..=7 => format!("{} {}", rule(rng, sets, true), target(rng, sets)),
                8 => target(rng, sets),
                _ => format!("-m mark ! --mark {}/0xff", rng.below(256)),
            };
            writeln!(text, "-A {chain} {line}").unwrap();
        }
    }
    text + "COMMIT\n"
}

fn frame(world: &mut World<'_>) -> Vec<u8> {
    let (src, dst) = (world.ip(), world.ip());
    let (src, dst) = (ip(src, world.v6), ip(dst, world.v6));
    let (proto, port) = world.port();
    let (_, other) = world.port();
    let mut head = Ip::new(src, dst, proto);
    if !world.v6 && world.rng.chance(8) {
        head.frag = 0x0003;
    }
    let mut l4 = match proto {
        6 => Tcp {
            sport: port,
            dport: other,
            seq: 1,
            ack: 0,
            flags: 2,
            window: 100,
            options: Vec::new(),
            payload: world.rng.below(20),
        }
        .build(&head),
        17 => udp(&head, other, port, world.rng.below(20)),
        1 => icmp(&head, 8, 0, [0, 1, 0, 1], &[]),
        58 => icmp(&head, 128, 0, [0, 1, 0, 1], &[]),
        _ => vec![0, 0, 8, 0],
    };
    if world.rng.chance(6) {
        l4.truncate(world.rng.below(8));
    }
    let mac = world.mac();
    ip_frame(port_mac(0), mac, &head.packet(&l4))
}

/// A line of a listing, apart: the element, and what it carries by name.
fn fields(line: &str) -> (String, BTreeMap<String, String>) {
    let mut words = line.split_whitespace();
    let element = words.next().unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    while let Some(word) = words.next() {
        let value = match word {
            "nomatch" | "wildcard" => "",
            _ => words.next().unwrap_or_default(),
        };
        found.insert(word.to_owned(), value.to_owned());
    }
    (element, found)
}

type Listing = BTreeMap<(String, String), BTreeMap<String, String>>;

fn kernel_listing(lab: &Lab) -> Listing {
    let text = lab.router().run("ipset", &["save"], "").expect("ipset save");
    let adds = text.lines().filter_map(|line| line.strip_prefix("add "));
    adds.map(|line| {
        let (set, rest) = line.split_once(' ').expect("a set and an element");
        let (element, found) = fields(rest);
        ((set.to_owned(), element), found)
    })
    .collect()
}

fn entries(registry: &Registry, name: &str, now: Nanos) -> Vec<Entry> {
    let slot = registry.get(&SetName::new(name).unwrap()).expect("the set");
    slot.set().entries(Cursor::default(), usize::MAX, now).0
}

fn our_listing(registry: &Registry, now: Nanos) -> Listing {
    let mut all = Listing::new();
    for slot in registry.list() {
        let (name, spec) = (slot.name().to_string(), *slot.set().spec());
        for entry in entries(registry, &name, now) {
            let text = element_text(&entry.element, &spec);
            let line = format!("{text}{}", extras_text(&entry.element, &entry.extras));
            let (element, found) = fields(&line);
            all.insert((name.clone(), element), found);
        }
    }
    all
}

/// Differences; timeouts may be one second apart.
fn compare(theirs: &Listing, ours: &Listing) -> Vec<String> {
    let mut differences = Vec::new();
    for key in theirs.keys().chain(ours.keys()) {
        let (theirs, ours) = (theirs.get(key), ours.get(key));
        let same = match (theirs, ours) {
            (Some(theirs), Some(ours)) => {
                let left = |found: &BTreeMap<String, String>| {
                    found.get("timeout").map_or(0, |text| text.parse::<i64>().unwrap())
                };
                let rest = |found: &BTreeMap<String, String>| {
                    let mut found = found.clone();
                    found.remove("timeout");
                    found
                };
                (left(theirs) - left(ours)).abs() <= 1 && rest(theirs) == rest(ours)
            }
            _ => false,
        };
        if !same {
            differences.push(format!("{key:?}: kernel {theirs:?}, ours {ours:?}"));
        }
    }
    differences.sort();
    differences.dedup();
    differences
}

impl Twins {
    fn new() -> Self {
        Self { lab: Lab::new(), topology: topology() }
    }

    /// One case; gives the differences.
    fn case(&self, seed: u64, kind: SetType, v6: bool) -> Vec<String> {
        let mut rng = Rng(seed);
        let mut world = World { rng: &mut rng, v6 };
        // Bitmaps of addresses are IPv4's, and their rules are refused in an IPv6 file.
        let members = if v6 { &TYPES[2..10] } else { &TYPES[..10] };
        let of = if kind == SetType::ListSet { world.rng.pick(members) } else { kind };
        let mut sets = vec![world.set("full", of), world.set("dyn", of), world.set("third", kind)];
        let count = world.rng.below(12);
        world.fill(&mut sets[0], count);
        world.fill(&mut sets[1], 2);
        if kind == SetType::ListSet {
            for member in ["full", "dyn"] {
                let element =
                    Element { set: Some(SetName::new(member).unwrap()), ..Element::default() };
                let spec = sets[2].spec;
                let extras = world.extras(&spec);
                sets[2].elements.push((element, extras));
            }
        } else {
            world.fill(&mut sets[2], 4);
        }
        let rules = rules(world.rng, &sets);
        let frames: Vec<Vec<u8>> = (0..40).map(|_| frame(&mut world)).collect();
        let clock = Clock::start();
        let now = || Nanos::from_secs(1000) + Nanos(clock.now_ns());
        let router = self.lab.router();
        let registry = Arc::new(Registry::new(seed));
        for made in &sets {
            router.run("ipset", &["restore"], &create_text(made)).expect("creating a set");
            let name = SetName::new(&made.name).unwrap();
            registry.create(name, made.spec, false).expect("creating a set");
            let slot = registry.get(&name).unwrap();
            for (element, extras) in &made.elements {
                let line = format!(
                    "add {} {}{}\n",
                    made.name,
                    element_text(element, &made.spec),
                    extras_text(element, extras)
                );
                let theirs = router.run("ipset", &["restore"], &line);
                let ours = registry.add(&slot, element, extras, false, now());
                assert_eq!(theirs.is_ok(), ours.is_ok(), "{line} {theirs:?} {ours:?}");
            }
        }
        let differences = self.run(&rules, &frames, &registry, v6, &now);
        self.lab.restore(v6, "*mangle\nCOMMIT\n").expect("no rules");
        router.run("ipset", &["flush"], "").expect("emptying all sets");
        router.run("ipset", &["destroy"], "").expect("destroying all sets");
        match differences.is_empty() {
            true => differences,
            false => {
                let made = sets.iter().map(create_text).collect::<String>();
                let head = format!("seed {seed} {} v6 {v6}\n{made}{rules}", kind.name());
                [head].into_iter().chain(differences).collect()
            }
        }
    }

    fn run(
        &self,
        rules: &str,
        frames: &[Vec<u8>],
        registry: &Arc<Registry>,
        v6: bool,
        now: &impl Fn() -> Nanos,
    ) -> Vec<String> {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let parsed = iptables::parse(rules, "rules", family, &TableNames::well_known());
        let parsed = parsed.unwrap_or_else(|findings| panic!("{findings:?}\n{rules}"));
        let file = TopologyFile::parse(std::path::Path::new("topology"), &self.topology).unwrap();
        let mut setup = Setup::new(file.topology, 1);
        setup.sets = Arc::clone(registry);
        *(if v6 { &mut setup.v6 } else { &mut setup.v4 }) = parsed.ruleset;
        let mut ours = Replay::new(setup).unwrap_or_else(|error| panic!("{error}\n{rules}"));
        self.lab.restore(v6, rules).unwrap_or_else(|error| panic!("{error}\n{rules}"));
        let before = compare(&kernel_listing(&self.lab), &our_listing(registry, now()));
        if !before.is_empty() {
            return before;
        }
        for frame in frames {
            self.lab.inject(0, frame);
            ours.feed(Source::Port(PortId(0)), now(), frame);
        }
        let mut differences = Vec::new();
        let saved = self.lab.save(v6);
        let lines = saved.lines().filter(|line| line.starts_with('['));
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for line in lines {
            let (counted, rule) = line.split_once(' ').expect("counters and a rule");
            let chain = rule.split(' ').nth(1).expect("a chain");
            let index = counts.entry(chain).or_default();
            let count = ours.counted(family, TableId::Mangle, chain, Some(*index));
            *index += 1;
            let text = format!("[{}:{}]", count.packets, count.bytes);
            if text != counted {
                differences.push(format!("{rule}: kernel {counted}, ours {text}"));
            }
        }
        differences.extend(compare(&kernel_listing(&self.lab), &our_listing(registry, now())));
        differences
    }
}

#[test]
fn random_sets_rules_and_packets() {
    let twins = Twins::new();
    let start = std::env::var("PORTCULLIS_SETS_SEED").map_or(1, |text| text.parse().unwrap());
    let mut wrong = Vec::new();
    for seed in start..start + rounds(3) {
        for (at, kind) in TYPES.into_iter().enumerate() {
            for v6 in [false, true] {
                if v6 && matches!(kind, SetType::BitmapIp | SetType::BitmapIpMac) {
                    continue;
                }
                let differences = twins.case(seed * 64 + at as u64, kind, v6);
                if !differences.is_empty() {
                    wrong.push(differences.join("\n"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(4)].join("\n\n")
    );
}
