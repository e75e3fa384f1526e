//! Real rulesets: their normal form as pieces, and packets drawn from the
//! constants they name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::packets::{Entry, Packet};
use super::rng::Rng;
use super::rules::{ChainText, RuleText, RulesetText, TABLES, TableText};
use super::world;
use crate::lab::frames::{self, Ip, Tcp};
use crate::lab::{self, host_mac, port_mac};

/// A ruleset of the corpus that `iptables-legacy-restore` accepts.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// The file.
    pub path: PathBuf,
    /// Family.
    pub v6: bool,
}

/// The corpus, if it is there.
pub fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    folder.is_dir().then_some(folder)
}

/// Every ruleset that the kernel accepts, by its manifest.
pub fn accepted(folder: &Path) -> Vec<Ruleset> {
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.tsv")).expect("a manifest");
    let rows = manifest.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row.last() == Some(&"ok") && row[0].ends_with(".rules"))
        .map(|row| Ruleset { path: folder.join(row[0]), v6: row[6] == "v6" })
        .filter(|entry| entry.path.is_file())
        .collect()
}

/// Takes `iptables-save` output apart.
pub fn parse(v6: bool, saved: &str) -> RulesetText {
    let mut ruleset = RulesetText::empty(v6);
    let mut table = 0;
    for line in saved.lines() {
        let line = line.split_once("] -A ").map_or(line, |(_, rule)| rule);
        let line = line.strip_prefix("-A ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('*') {
            table = TABLES.iter().position(|&(known, _)| known == name).expect("a known table");
        } else if let Some(chain) = line.strip_prefix(':') {
            let words: Vec<&str> = chain.split(' ').collect();
            declare(&mut ruleset.tables[table], words[0], words[1]);
        } else if let Some((chain, rule)) = line.split_once(' ').filter(|_| !line.starts_with('#'))
        {
            let (rule, target) = match rule.rfind(" -j ").or_else(|| rule.rfind(" -g ")) {
                Some(at) => rule.split_at(at),
                None if rule.starts_with("-j ") || rule.starts_with("-g ") => ("", rule),
                None => (rule, ""),
            };
            let text = RuleText { parts: vec![rule.to_owned()], target: target.trim().to_owned() };
            let chains = &mut ruleset.tables[table].chains;
            let own = chains.iter_mut().find(|known| known.name == chain);
            own.expect("a declared chain").rules.push(text);
        }
    }
    ruleset
}

fn declare(table: &mut TableText, name: &str, policy: &str) {
    let policy = match policy {
        "ACCEPT" => Some("ACCEPT"),
        "DROP" => Some("DROP"),
        _ => None,
    };
    match table.chains.iter_mut().find(|chain| chain.name == name) {
        Some(chain) => chain.policy = policy,
        None => {
            table.chains.push(ChainText { name: name.to_owned(), policy, rules: Vec::new() });
        }
    }
}

/// What one rule says about the packets it means.
#[derive(Default)]
struct Hints {
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    sport: Option<u16>,
    dport: Option<u16>,
    proto: Option<u8>,
    input: Option<usize>,
    chain: String,
}

fn hints(chain: &str, rule: &RuleText) -> Hints {
    let text = rule.parts.join(" ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut hints = Hints { chain: chain.to_owned(), ..Hints::default() };
    for pair in words.windows(2) {
        let first = pair[1].split([',', ':', '/', '-']).next().unwrap_or_default();
        let address = || pair[1].split('/').next().and_then(|text| text.parse().ok());
        match pair[0] {
            "-s" => hints.src = address(),
            "-d" => hints.dst = address(),
            "--sport" | "--sports" => hints.sport = first.parse().ok(),
            "--dport" | "--dports" | "--ports" => hints.dport = first.parse().ok(),
            "-i" => hints.input = pair[1].strip_prefix("eth").and_then(|n| n.parse().ok()),
            "-p" => {
                hints.proto = match first {
                    "tcp" => Some(6),
                    "udp" => Some(17),
                    "icmp" => Some(1),
                    "ipv6" | "icmpv6" => Some(58),
                    "esp" => Some(50),
                    "gre" => Some(47),
                    number => number.parse().ok(),
                };
            }
            _ => {}
        }
    }
    hints
}

/// Packets that mean the ruleset's rules, nearly mean them, or answer such packets.
pub fn packets(rng: &mut Rng, ruleset: &RulesetText, count: usize) -> Vec<Packet> {
    let rules: Vec<Hints> = ruleset
        .tables
        .iter()
        .flat_map(|table| &table.chains)
        .flat_map(|chain| chain.rules.iter().map(|rule| hints(&chain.name, rule)))
        .collect();
    let mut all = Vec::new();
    while all.len() < count {
        let none = Hints::default();
        let hint =
            if rules.is_empty() || rng.chance(8) { &none } else { &rules[rng.below(rules.len())] };
        all.extend(exchange(rng, ruleset.v6, hint));
    }
    all.truncate(count);
    all
}

/// A packet that the rule means, and sometimes its answer and what follows.
fn exchange(rng: &mut Rng, v6: bool, hint: &Hints) -> Vec<Packet> {
    let hosts = world::hosts(v6);
    let host = hosts[rng.below(hosts.len())];
    let own = |rng: &mut Rng| world::router(v6, rng.below(lab::PORTS));
    let near = |rng: &mut Rng, address: IpAddr| match address {
        IpAddr::V4(v4) if rng.chance(25) => IpAddr::V4((v4.to_bits() ^ 1 << rng.below(10)).into()),
        IpAddr::V6(v6) if rng.chance(25) => IpAddr::V6((v6.to_bits() ^ 1 << rng.below(70)).into()),
        same => same,
    };
    // The lab's ports have no link-local addresses; a router's always have.
    let right_family = |address: &IpAddr| match address {
        IpAddr::V4(_) => !v6,
        IpAddr::V6(address) => v6 && !address.is_unicast_link_local(),
    };
    let src = hint.src.filter(right_family).map_or(host.address, |src| near(rng, src));
    let dst = match hint.dst.filter(right_family) {
        Some(dst) => near(rng, dst),
        None if hint.chain == "FORWARD" || rng.chance(35) => hosts[rng.below(hosts.len())].address,
        None => own(rng),
    };
    let port = |rng: &mut Rng, hint: Option<u16>| match hint {
        Some(port) if rng.chance(85) => port.wrapping_add(rng.pick(&[0, 0, 0, 1, u16::MAX])),
        _ => rng.pick(&[22, 25, 53, 80, 443, 1024, 33_434, 50_000]),
    };
    let (sport, dport) = (port(rng, hint.sport), port(rng, hint.dport));
    let icmp = if v6 { 58 } else { 1 };
    let proto = hint.proto.unwrap_or_else(|| rng.pick(&[6, 6, 17, icmp]));
    let input = hint.input.filter(|&input| input < lab::PORTS).unwrap_or(host.port);
    let forth = Talk { proto, from: src, to: dst, sport, dport };
    let back = Talk { proto, from: dst, to: src, sport: dport, dport: sport };
    let mut all = Vec::new();
    let first = rng.weighted(&[(80, 2), (5, 16), (5, 18), (3, 0), (3, 41), (2, 3), (2, 4)]);
    all.push(forth.packet(first, input, false));
    let local = (0..lab::PORTS).any(|port| dst == world::router(v6, port));
    if !local && rng.chance(60) {
        all.push(back.packet(18, 2, true));
        all.push(forth.packet(16, input, false));
    } else if rng.chance(20) {
        all.push(forth.packet(16, input, false));
    }
    all
}

/// One direction of an exchange.
struct Talk {
    proto: u8,
    from: IpAddr,
    to: IpAddr,
    sport: u16,
    dport: u16,
}

impl Talk {
    fn packet(&self, flags: u8, entry: usize, reply: bool) -> Packet {
        let ip = Ip::new(self.from, self.to, self.proto);
        let l4 = match self.proto {
            6 => {
                let (seq, ack) = if reply { (9_000, 1) } else { (u32::from(flags == 16), 9_001) };
                let ack = if flags & 16 == 0 { 0 } else { ack };
                let (sport, dport) = (self.sport, self.dport);
                let options = Vec::new();
                Tcp { sport, dport, seq, ack, flags, window: 5_000, options, payload: 0 }.build(&ip)
            }
            17 => frames::udp(&ip, self.sport, self.dport, 18),
            1 | 58 => {
                let kind = match (ip.v6(), reply) {
                    (false, false) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (true, true) => 129,
                };
                frames::icmp(&ip, kind, 0, [self.sport as u8, 1, 0, 1], &[0; 20])
            }
            _ => vec![0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        };
        let bytes = frames::ip_frame(port_mac(entry), host_mac(entry, 10), &ip.packet(&l4));
        let (proto, from, to) = (self.proto, self.from, self.to);
        let note =
            format!("protocol {proto} flags {flags} {from}:{} > {to}:{}", self.sport, self.dport);
        Packet { entry: Entry::Port(entry), bytes, note }
    }
}
