//! Portcullis's side of a case: `portcullis replay`, by its documented contract.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::extra::sets;
use super::packets::Entry;
use super::rules::log_tag;
use super::{Case, Observation, kernel, read_connection, read_saved};
use crate::lab::{self, Sent, address, host_mac, mac_text, port_mac};

/// The captures' clock starts here (nanoseconds since 1970).
const EPOCH_NS: u64 = 1_700_000_000_000_000_000;

/// The lab's router, in the form that replay reads; `links` after [`lab::Lab::join_links`].
pub fn topology(default_routes: bool, links: bool) -> String {
    let mut text = String::from("mode = \"routed\"\n");
    text += "[icmp]\nicmp_ratelimit = 0\nicmp_msgs_per_sec = 0\nicmpv6_ratelimit = 0\n";
    for port in 0..lab::PORTS {
        let (v4, v6) = (address(false, port, 1), address(true, port, 1));
        let (mac, group) = (mac_text(port_mac(port)), lab::DEVICE_GROUPS[port]);
        write!(
            text,
            "[[port]]\nname = \"eth{port}\"\nmac = \"{mac}\"\ngroup = {group}\n\
             addresses = [\"{v4}/24\", \"{v6}/64\"{}]\ngroups = {:?}\n",
            if links { format!(", \"{}/64\"", lab::link_local(port, 1)) } else { String::new() },
            lab::GROUPS
                .iter()
                .filter(|(on, _)| links && *on == port)
                .map(|(_, group)| group)
                .collect::<Vec<_>>()
        )
        .expect("writing to a string");
    }
    for (to, via) in lab::REMOTE {
        write!(
            text,
            "[[route]]\nto = \"{to}\"\nvia = \"{via}\"\ndev = \"eth2\"\nmtu = {}\n",
            lab::REMOTE_MTU
        )
        .expect("writing to a string");
        if !to.contains(':') {
            writeln!(text, "realms = \"{}\"", lab::REMOTE_REALMS).expect("writing to a string");
        }
    }
    for (v6, to) in [(false, "0.0.0.0/0"), (true, "::/0")] {
        if default_routes {
            let via = address(v6, 2, 254);
            write!(text, "[[route]]\nto = \"{to}\"\nvia = \"{via}\"\ndev = \"eth2\"\n")
                .expect("writing to a string");
            if !v6 {
                writeln!(text, "realms = \"{}\"", lab::DEFAULT_REALMS)
                    .expect("writing to a string");
            }
        }
    }
    for (kind, to, port) in lab::SPECIAL.into_iter().filter(|_| links) {
        let device = port.map_or(String::new(), |port| format!("dev = \"eth{port}\"\n"));
        write!(text, "[[route]]\nto = \"{to}\"\ntype = \"{kind}\"\n{device}")
            .expect("writing to a string");
    }
    if links {
        text += &rules();
    }
    for (port, host) in (0..lab::PORTS).flat_map(|port| lab::NEIGHBOURS.map(|host| (port, host))) {
        let near = links.then(|| lab::link_local(port, host));
        for ip in [address(false, port, host), address(true, port, host)].into_iter().chain(near) {
            let mac = mac_text(host_mac(port, host));
            write!(
                text,
                "[[neighbour]]\ndev = \"eth{port}\"\naddress = \"{ip}\"\nmac = \"{mac}\"\n"
            )
            .expect("writing to a string");
        }
    }
    text
}

/// Its policy rules, and the routes that they lead to.
fn rules() -> String {
    let mut text = String::new();
    for v6 in [false, true].into_iter() {
        let (mark, table) = lab::MARKED;
        let (to, via) = (if v6 { "::/0" } else { "0.0.0.0/0" }, address(v6, 1, 254));
        let realms =
            if v6 { String::new() } else { format!("realms = \"{}\"\n", lab::MARKED_REALMS) };
        write!(
            text,
            "[[rule]]\n{realms}fwmark = \"{mark}\"\ntable = {table}\npriority = 1000\nfamily = \"{}\"\n\
             [[route]]\nto = \"{to}\"\nvia = \"{via}\"\ndev = \"eth1\"\ntable = {table}\n",
            if v6 { "v6" } else { "v4" }
        )
        .expect("writing to a string");
        if !v6 {
            writeln!(text, "realms = \"{}\"", lab::MARKED_ROUTE_REALMS).expect("a string");
            for (from, to, own) in lab::TOWARDS {
                write!(
                    text,
                    "[[rule]]\nfrom = \"{from}\"\nto = \"{to}\"\ntable = 254\n\
                     priority = 1100\nrealms = \"{own}\"\n"
                )
                .expect("writing to a string");
            }
        }
    }
    text
}

/// A directory that goes away with its owner.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ptl-diff-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }
    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Half of all cases: the others take the plain road alone.
fn follows_plans(case: &Case) -> bool {
    let bytes = case.packets.iter().flat_map(|packet| &packet.bytes);
    bytes.fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) & 1 == 0
}

/// Runs the case, each packet at the time the kernel saw it.
///
/// # Errors
/// What the command wrote, when it does not exit with 0.
pub fn run(case: &Case, times: &[u64]) -> Result<Observation, String> {
    let scratch = Scratch::new();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(scratch.join(name), bytes).expect("writing a scratch file");
    };
    let rules_name = if case.rules.v6 { "rules.v6" } else { "rules.v4" };
    write("topo.toml", topology(case.default_routes, true).as_bytes());
    write(rules_name, case.rules.text().as_bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("replay").arg("--topology").arg(scratch.join("topo.toml"));
    let rules_option = if case.rules.v6 { "--rules6" } else { "--rules" };
    command.arg(rules_option).arg(scratch.join(rules_name));
    if sets::are_named(&case.rules.text()) {
        write("sets.in", sets::text(false).as_bytes());
        command.arg("--sets").arg(scratch.join("sets.in"));
    }
    for port in (0..lab::PORTS).map(Some).chain([None]) {
        let name = port.map_or("host".to_owned(), |port| format!("eth{port}"));
        let enters = |entry: Entry| match (port, entry) {
            (Some(port), Entry::Port(entry)) => port == entry,
            (None, Entry::Own | Entry::OwnOn(_)) => true,
            _ => false,
        };
        let file = format!("in-{name}.pcap");
        write(&file, &capture(case, times, enters));
        command.arg("--in").arg(format!("{name}={}", scratch.join(&file).display()));
    }
    command.args(["--plans", if follows_plans(case) { "true" } else { "false" }]);
    let out = scratch.join("out");
    command.arg("--out").arg(&out);
    let output = command.output().expect("the binary runs");
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("replay: {}\n{complaint}", output.status));
    }
    Ok(observe(&out, times, rules_name))
}

fn capture(case: &Case, times: &[u64], enters: impl Fn(Entry) -> bool) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    let all = case.packets.iter().zip(times);
    for (packet, time) in all.filter(|(packet, _)| enters(packet.entry)) {
        let bytes = match packet.entry {
            Entry::Port(_) => packet.bytes.clone(),
            Entry::Own | Entry::OwnOn(_) => lab::frames::ip_frame([0; 6], [0; 6], &packet.bytes),
        };
        let at = EPOCH_NS + time;
        for word in [at / 1_000_000_000, at % 1_000_000_000, bytes.len() as u64, bytes.len() as u64]
        {
            file.extend((word as u32).to_le_bytes());
        }
        file.extend(bytes);
    }
    file
}

/// Time and bytes of every frame in a little-endian pcap file.
fn read_capture(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let Ok(file) = std::fs::read(path) else { return Vec::new() };
    let word = |at: usize| {
        let bytes = file.get(at..at + 4).expect("a whole pcap record");
        u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    };
    if file.is_empty() {
        return Vec::new();
    }
    let unit = match word(0) {
        0xa1b2_3c4d => 1,
        0xa1b2_c3d4 => 1_000,
        other => panic!("{}: magic {other:#x}", path.display()),
    };
    let (mut at, mut all) = (24, Vec::new());
    while at < file.len() {
        let time = word(at) * 1_000_000_000 + word(at + 4) * unit;
        let len = word(at + 8) as usize;
        all.push((time, file[at + 16..at + 16 + len].to_vec()));
        at += 16 + len;
    }
    all
}

fn observe(out: &Path, times: &[u64], rules_name: &str) -> Observation {
    let mut sent: Vec<Vec<Sent>> = vec![Vec::new(); times.len()];
    for port in 0..lab::PORTS {
        for (time, frame) in read_capture(&out.join(format!("eth{port}.pcap"))) {
            let cause = times.binary_search(&(time.wrapping_sub(EPOCH_NS)));
            let cause = cause.expect("an output has the time of the input that caused it");
            sent[cause].push(kernel::normalised(Sent { port, frame }));
        }
    }
    let saved = std::fs::read_to_string(out.join(rules_name)).expect("the rules with counters");
    let (counters, printed) = read_saved(&saved);
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap_or_default();
    let (table, log) = (read("conntrack.txt"), read("log.txt"));
    let tag = log_tag();
    let tagged = log.lines().filter_map(|line| line.find(&tag).map(|at| &line[at..]));
    Observation {
        logged: tagged.map(kernel::normalised_line).collect(),
        sent,
        counters,
        connections: table.lines().filter_map(read_connection).collect(),
        delivered: read_capture(&out.join("host.pcap")).len() as u64,
        printed,
        elements: sets::elements(&read("sets.save")),
    }
}
