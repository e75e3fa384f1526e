//! `blocklist`: what a source blocklist costs where it is carried out: in the XDP program,
//! in the engine, and in a kernel with `iptables` and `ipset`, in the same run.
//!
//! Frames of listed sources flood one end of a veth pair; the other end drops them on
//! the sending core before the sender goes on. `path_ns` is the sender's time for a frame,
//! with the veth's share in it: differences within a side count. The line `none` is a receiver
//! that drops everything without a set: by its first rule, or at the end of the program. `program_ns` is one run of the XDP program on a
//! frame, as `bpftool prog run` measures it. Needs root, `iptables-legacy`, `ipset`, `bpftool`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use dataplane::packet::{Family, Mac, PortId};
use dataplane::port::Port;
use dataplane::port::afxdp::blocklist::{BlockRule, Meaning};
use dataplane::port::afxdp::{BlocklistSize, Config, LinkInfo, OnFailure, Opened, open};
use dataplane::sets::{Element, SetType};
use dataplane::wire::build::Packet;
use serde_json::{Value, json};

use crate::clock::Stopwatch;
use crate::ipsets::{command, element};
use crate::lab::{Outcome, inside};
use crate::{engine, sets::Rng};

/// Arguments of `blocklist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Addresses on the list.
    #[arg(long, default_value_t = 1_000_000)]
    addresses: usize,
    /// Networks on the list.
    #[arg(long, default_value_t = 50_000)]
    networks: usize,
    /// Frames that are measured, each time.
    #[arg(long, default_value_t = 500_000)]
    frames: usize,
    /// Floods of each kind; the fastest counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seed of the elements.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) const OWN: Mac = Mac([2, 0, 0, 0, 1, 1]);
/// Different frames in a flood.
const FRAMES: usize = 16_384;
const TABLES: [u32; 2] = [1, 2];

/// What is on the list.
pub(crate) struct List {
    pub(crate) hosts: Vec<Element>,
    pub(crate) nets: Vec<Element>,
}

impl List {
    fn new(args: &Args) -> Self {
        let all = |kind, count| (0..count).map(|n| element(kind, n, args.seed, true)).collect();
        Self {
            hosts: all(SetType::HashIp, args.addresses),
            nets: all(SetType::HashNet, args.networks),
        }
    }

    /// A listed source.
    fn source(&self, rng: &mut Rng, net: bool) -> Ipv4Addr {
        let from = if net { &self.nets } else { &self.hosts };
        Ipv4Addr::from(rng.pick(from).ip as u32)
    }

    /// Frames of listed sources.
    pub(crate) fn frames(&self, seed: u64, net: bool) -> Vec<Vec<u8>> {
        let mut rng = Rng(seed);
        (0..FRAMES).map(|_| frame(self.source(&mut rng, net))).collect()
    }
}

pub(crate) fn frame(source: Ipv4Addr) -> Vec<u8> {
    let packet = Packet::udp(&source.to_string(), 9, "198.18.2.99", 9).payload_len(18);
    packet.macs(Mac([2, 0, 0, 0, 1, 9]), OWN).build()
}

/// Runs the measurement and prints one JSON object a line.
///
/// # Errors
/// A tool that is missing, a kernel that refuses.
pub(crate) fn run(args: &Args) -> Outcome<()> {
    let list = List::new(args);
    for line in engine::measure(&list, args.frames, args.rounds, args.seed)? {
        println!("{line}");
    }
    let stage = Stage::new()?;
    for line in stage.program(&list, args)? {
        println!("{line}");
    }
    for line in stage.kernel(&list, args)? {
        println!("{line}");
    }
    Ok(())
}

/// A sender, and two receivers: `g0` for the program, `k0` for the kernel.
struct Stage {
    name: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for part in ["c", "g", "k"] {
            let _ = command(&["ip", "netns", "del", &self.namespace(part)], "");
        }
    }
}

impl Stage {
    fn new() -> Outcome<Self> {
        let stage = Self { name: format!("ptl-block-{}", std::process::id()) };
        for part in ["c", "g", "k"] {
            command(&["ip", "netns", "add", &stage.namespace(part)], "")?;
        }
        for (ours, theirs, part) in [("c0", "g0", "g"), ("c1", "k0", "k")] {
            let (sender, receiver) = (stage.namespace("c"), stage.namespace(part));
            let make = format!(
                "ip -n {sender} link add {ours} type veth peer name {theirs} netns {receiver} && \
                 ip -n {receiver} link set {theirs} address 02:00:00:00:01:01 && \
                 ip -n {sender} link set {ours} up && ip -n {receiver} link set {theirs} up && \
                 ip -n {receiver} addr add 198.18.1.1/24 dev {theirs} && \
                 ip netns exec {receiver} sysctl -qw net.ipv4.ip_forward=1 \
                 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{theirs}.rp_filter=0"
            );
            command(&["sh", "-c", &make], "")?;
        }
        Ok(stage)
    }

    fn namespace(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    fn open(&self, part: &str, device: &str, room: Option<BlocklistSize>) -> Outcome<Opened> {
        let mut config = Config::new([device.to_owned()], 1);
        (config.huge_pages, config.blocklist) = (false, room);
        config.on_failure = OnFailure::Closed;
        let opened = inside(&self.namespace(part), || open(&config, []).map_err(|e| e.to_string()));
        Ok(opened?)
    }

    /// The XDP program.
    fn program(&self, list: &List, args: &Args) -> Outcome<Vec<Value>> {
        let (hosts, nets) = (list.hosts.len() as u32 * 2, list.nets.len() as u32 * 2 + 1024);
        let room = BlocklistSize { hosts: [hosts.max(1 << 16), 1], nets };
        let mut opened = self.open("g", "g0", Some(room))?;
        let mut maps = opened.program.take_blocklist().ok_or("there is no room for the maps")?;
        let before = memory()?;
        let loading = Stopwatch::start();
        for (table, elements) in TABLES.into_iter().zip([&list.hosts, &list.nets]) {
            for element in elements {
                let ip = IpAddr::V4((element.ip as u32).into());
                maps.put(table, (ip, element.cidr.unwrap_or(32)), Meaning::Listed)?;
            }
        }
        let load_ms = loading.elapsed_ns() as f64 / 1e6;
        let mut lines = vec![json!({
            "bench": "blocklist", "side": "xdp", "load_ms": load_ms,
            "addresses": list.hosts.len(), "networks": list.nets.len(),
            "memory_bytes": memory()?, "memory_empty_bytes": before,
        })];
        let mut rng = Rng(args.seed);
        let listed = [frame(list.source(&mut rng, false)), frame(list.source(&mut rng, true))];
        let unlisted = frame(Ipv4Addr::new(203, 0, 113, 2));
        lines.push(self.one_run("no rule", &unlisted, args)?);
        maps.set_mac(PortId(0), Some(OWN))?;
        for (at, table) in TABLES.into_iter().enumerate() {
            let rule = BlockRule { table, nets: at == 1, ports: 1 };
            maps.set_rule(Family::V4, at, Some(rule))?;
        }
        lines.push(self.one_run("listed address", &listed[0], args)?);
        lines.push(self.one_run("listed network", &listed[1], args)?);
        lines.push(self.one_run("not listed", &unlisted, args)?);
        let mut sender = self.open("c", "c0", None)?;
        for (kind, net) in [("listed address", false), ("listed network", true)] {
            let frames = list.frames(args.seed, net);
            let path_ns = flood(&mut sender, &frames, args)?;
            lines.push(json!({
                "bench": "blocklist", "side": "xdp", "frames": kind, "path_ns": path_ns,
            }));
        }
        let blocked = opened.program.counters(PortId(0))?.blocked;
        // Without rules and without a worker, it drops everything in the end.
        (0..TABLES.len()).try_for_each(|at| maps.set_rule(Family::V4, at, None))?;
        drop(std::mem::take(&mut opened.workers));
        let path_ns = flood(&mut sender, &list.frames(args.seed, false), args)?;
        let dropped = opened.program.counters(PortId(0))?.no_socket;
        lines.push(json!({
            "bench": "blocklist", "side": "xdp", "frames": "none", "path_ns": path_ns,
            "dropped": dropped, "blocked_before": blocked,
        }));
        Ok(lines)
    }

    /// One run of the program on a frame.
    fn one_run(&self, kind: &str, frame: &[u8], args: &Args) -> Outcome<Value> {
        let place = std::env::temp_dir().join(&self.name);
        std::fs::write(&place, frame)?;
        let context = std::env::temp_dir().join(format!("{}-ctx", self.name));
        let receiver = self.namespace("g");
        let device = inside(&receiver, || LinkInfo::of("g0").map_err(|e| e.to_string()))?;
        let words = [0, frame.len() as u32, 0, device.ifindex, 0, 0];
        std::fs::write(&context, words.iter().flat_map(|it| it.to_ne_bytes()).collect::<Vec<_>>())?;
        let shown = command(&["ip", "-n", &receiver, "-j", "-d", "link", "show", "g0"], "")?;
        let shown: Value = serde_json::from_str(&shown)?;
        let id = shown[0]["xdp"]["prog"]["id"].as_u64().ok_or("no program on g0")?.to_string();
        let repeat = args.frames.to_string();
        let (data, context) = (place.display().to_string(), context.display().to_string());
        let mut best = u64::MAX;
        let mut verdict = 0;
        for _ in 0..args.rounds {
            let inside = ["ip", "netns", "exec", &receiver, "bpftool", "-j", "prog", "run", "id"];
            let rest = [&*id, "data_in", &data, "ctx_in", &context, "repeat", &repeat];
            let told = command(&[&inside[..], &rest[..]].concat(), "")?;
            let told: Value = serde_json::from_str(&told)?;
            best = best.min(told["duration"].as_u64().unwrap_or(u64::MAX));
            verdict = told["retval"].as_u64().unwrap_or(0);
        }
        let _ = (std::fs::remove_file(data), std::fs::remove_file(context));
        Ok(json!({
            "bench": "blocklist", "side": "xdp", "frames": kind, "program_ns": best,
            "verdict": verdict,
        }))
    }

    /// The kernel's `ipset`, under rules in raw PREROUTING.
    fn kernel(&self, list: &List, args: &Args) -> Outcome<Vec<Value>> {
        let receiver = self.namespace("k");
        let inside = |words: &[&str], input: &str| {
            command(&[&["ip", "netns", "exec", &*receiver], words].concat(), input)
        };
        let mut lines = Vec::new();
        let sets = [(SetType::HashIp, &list.hosts), (SetType::HashNet, &list.nets)];
        for (kind, elements) in sets {
            let name = if kind == SetType::HashIp { "hosts" } else { "nets" };
            let room = elements.len() * 2 + 1024;
            let mut text = format!("create {name} {} maxelem {room}\n", kind.name());
            for element in elements {
                let (ip, cidr) = (Ipv4Addr::from(element.ip as u32), element.cidr.unwrap_or(32));
                writeln!(text, "add {name} {ip}/{cidr} -exist")?;
            }
            let loading = Stopwatch::start();
            inside(&["ipset", "restore"], &text)?;
            let load_ms = loading.elapsed_ns() as f64 / 1e6;
            let listing = inside(&["ipset", "list", "-t", name], "")?;
            let size = listing.lines().find_map(|line| line.strip_prefix("Size in memory:"));
            let memory_bytes = size.and_then(|size| size.trim().parse::<u64>().ok());
            lines.push(json!({
                "bench": "blocklist", "side": "kernel", "set": kind.name(),
                "elements": elements.len(), "load_ms": load_ms, "memory_bytes": memory_bytes,
            }));
        }
        let mut sender = self.open("c", "c1", None)?;
        let rules =
            "-m set --match-set hosts src -j DROP\n-A PREROUTING -m set --match-set nets src";
        for (kind, net, rule) in [
            ("none", false, "-j DROP"),
            ("listed address", false, &*format!("{rules} -j DROP")),
            ("listed network", true, &*format!("{rules} -j DROP")),
        ] {
            let text = format!("*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n");
            inside(&["iptables-legacy-restore"], &text)?;
            let path_ns = flood(&mut sender, &list.frames(args.seed, net), args)?;
            let counted = inside(&["iptables-legacy-save", "-c", "-t", "raw"], "")?;
            let rules = counted.lines().filter(|line| line.starts_with('['));
            lines.push(json!({
                "bench": "blocklist", "side": "kernel", "frames": kind, "path_ns": path_ns,
                "rules": rules.collect::<Vec<_>>(),
            }));
        }
        Ok(lines)
    }
}

/// Bytes of all hash maps and tries of this process, as the kernel counts them.
fn memory() -> Outcome<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        // BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE.
        if matches!(field("map_type:"), Some(1 | 11)) {
            sum += field("memlock:").unwrap_or(0);
        }
    }
    Ok(sum)
}

/// The sender's time for a frame, in nanoseconds, in the fastest round.
fn flood(sender: &mut Opened, frames: &[Vec<u8>], args: &Args) -> Outcome<f64> {
    const BURST: usize = 64;
    let share = &mut sender.workers[0];
    let (pool, port) = (&mut share.pool, &mut share.ports[0]);
    let mut best = f64::MAX;
    for _ in 0..args.rounds {
        let watch = Stopwatch::start();
        let mut sent = 0;
        while sent < args.frames {
            port.reap(pool);
            for at in 0..BURST {
                let Some(frame) = pool.copy_in(&frames[(sent + at) % frames.len()]) else { break };
                if let Err(frame) = port.transmit(pool, frame) {
                    pool.put(frame);
                    break;
                }
                sent += 1;
            }
            port.flush(pool, dataplane::clock::Nanos(0))?;
        }
        best = best.min(watch.elapsed_ns() as f64 / sent as f64);
    }
    Ok(best)
}
