//! Generated `ipset` files, good and bad, through the real tool in a namespace of our own:
//! we load what it loads and print what it prints, and refuse what it refuses. The shared
//! corpus's files of sets likewise, where they are there.

mod netns;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use dataplane::clock::monotonic;
use netns::Namespace;
use portcullis::diagnostics::{Severity, has_errors};
use portcullis::ipset::{self, Stage, print};
use portcullis::iptables::TableNames;

/// Names a variable that holds another seed, for longer runs by hand.
const SEED: &str = "PORTCULLIS_TEST_SEED";
/// Files.
const FILES: usize = 800;

/// Types with a range where they need one, and elements, good and bad.
const TYPES: &[(&str, &[&str])] = &[
    ("hash:ip", ADDRESSES),
    ("hash:ip netmask 24", ADDRESSES),
    ("hash:ip bitmask 255.255.0.255", PLAIN),
    ("hash:ip family inet6", ADDRESSES_V6),
    ("hash:ip family inet6 netmask 64", ADDRESSES_V6),
    ("hash:net", NETWORKS),
    ("nethash", NETWORKS),
    ("hash:net family inet6", NETWORKS_V6),
    ("hash:ip,port", PORTS),
    ("hash:ip,port family inet6", PORTS_V6),
    ("hash:net,port", NET_PORTS),
    ("hash:ip,port,ip", TRIPLES),
    ("hash:ip,port,net", NET_TRIPLES),
    ("hash:net,iface", IFACES),
    ("bitmap:ip range 10.0.0.0/24", BITMAP),
    ("bitmap:ip range 10.0.0.5-10.0.0.200", BITMAP),
    ("bitmap:ip range 10.0.0.0/16 netmask 24", BITMAP),
    ("bitmap:ip,mac range 10.0.0.0/24", MACS),
    ("bitmap:port range 0-1000", BITMAP_PORTS),
    ("list:set", &["z", "y", "z before y", "y after z", "x", "a", "y before z"]),
];

const PLAIN: &[&str] = &["10.0.0.1", "10.0.3.1", "10.0.4.2", "192.0.2.77", "::1", "0.0.0.0"];
const ADDRESSES: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.0/30",
    "10.0.0.9/31",
    "10.0.0.3-10.0.0.1",
    "10.0.1.0/24",
    "10.0.0.1/32",
    "10.0.0.1/0",
    "10.0.0.1/33",
    "0.0.0.0",
    "10.1",
    "010.0.0.1",
    "[10.0.0.7]",
    "10.0.0.1,80",
    "::1",
    "10.0.0.1/255.255.255.0",
    "10.0.0.1-10.0.0.2-10.0.0.3",
    "10.0.0.1.",
    "0xa.0.0.1",
    "256",
    "-10.0.0.1",
    "10.0.0.1-",
    "10.0.5.7-10.0.7.1",
    "255.255.255.255",
];
const ADDRESSES_V6: &[&str] = &[
    "2001:db8::1",
    "2001:DB8::0:1",
    "2001:db8::/127",
    "2001:db8::/128",
    "::",
    "10.0.0.1",
    "::ffff:10.0.0.1",
    "[2001:db8::2]",
    "2001:db8::1-2001:db8::3",
    "2001:db8:1::1",
    "::1.2.3.4",
    "2001:db8::1/129",
    "fe80::1%eth0",
];
const NETWORKS: &[&str] = &[
    "10.0.0.0/24",
    "10.0.1.5",
    "10.0.2.7/24",
    "0.0.0.0/0",
    "10.0.0.1-10.0.0.6",
    "10.0.0.0-10.0.3.255",
    "10.0.0.0/024",
    "10.0.0.0/24/3",
    "10.0.0.0/",
    "/24",
    "0.0.0.0/1",
    "0.0.0.0-255.255.255.255",
    "128.0.0.0-255.255.255.255",
    "10.0.0.0/24-10.0.1.0/24",
    "0.0.0.0",
    "[10.9.0.0]/24",
    "[10.9.0.0/24]",
    "192.0.2.3-192.0.2.9",
    "10.0.2.0/32",
    "10.0.0.0/25",
];
const NETWORKS_V6: &[&str] = &[
    "2001:db8::/32",
    "::/0",
    "2001:db8::1/32",
    "2001:db8::1",
    "2001:db8::1-2001:db8::4",
    "::/1",
    "2001:db8::/129",
    "::",
    "10.0.0.0/8",
    "fc00::/7",
];
const PORTS: &[&str] = &[
    "10.0.0.1,80",
    "10.0.0.1,tcp:81",
    "10.0.0.1,udp:53-55",
    "10.0.0.1,sctp:9",
    "10.0.0.1,132:7",
    "10.0.0.1,http",
    "10.0.0.1,udp:domain",
    "10.0.0.1,82-80",
    "10.0.0.0/31,tcp:1-2",
    "10.0.0.1",
    "10.0.0.1,icmp:echo-request",
    "10.0.0.1,icmp:ping",
    "10.0.0.2,icmp:8/0",
    "10.0.0.1,icmp:99/3",
    "10.0.0.1,icmp:5",
    "10.0.0.1,icmp:256/0",
    "10.0.0.1,icmpv6:echo-request",
    "10.0.0.1,gre:0",
    "10.0.0.1,47:0",
    "10.0.0.1,255:0",
    "10.0.0.1,gre:5",
    "10.0.0.1,gre",
    "10.0.0.1,0:0",
    "10.0.0.1,256:0",
    "10.0.0.1,tcp:65536",
    "10.0.0.1,tcp:",
    "10.0.0.1,TCP:5",
    "10.0.0.1,:5",
    "10.0.0.1,80,3",
    "10.0.0.1,",
    ",80",
    "10.0.0.1,0x50",
    "10.0.0.1,010",
    "10.0.0.1,nosuch",
    "10.0.0.1,tcp:ftp-data",
    "10.0.0.1,[ftp-data]",
    "10.0.0.1,[ftp-data]-[ftp]",
    "10.0.0.1,tcp:80:90",
    "10.0.0.1,tcp:80-90-100",
    "10.0.0.1,tcp:0",
    "10.0.0.1,dccp:0",
    "10.0.0.1,dccp:5",
    "10.0.0.1,58:1/1",
    "0.0.0.0,80",
    "10.0.0.1,icmp:ECHO-request",
    "[10.0.0.1]-[10.0.0.2],80",
    "10.0.0.1,tcp:[80]",
    "10.0.0.1,udplite:7",
];
const PORTS_V6: &[&str] = &[
    "2001:db8::1,tcp:80",
    "2001:db8::/64,80",
    "2001:db8::1,icmpv6:echo-request",
    "2001:db8::1,icmpv6:1/3",
    "2001:db8::1,icmp:echo-request",
    "[2001:db8::1],udp:5-6",
    "2001:db8::1,ipv6-icmp:redirect",
    "2001:db8::1,esp:0",
    "10.0.0.1,80",
];
const NET_PORTS: &[&str] = &[
    "10.0.0.0/24,80",
    "10.0.1.1,udp:5-7",
    "10.0.9.1-10.0.9.3,9",
    "0.0.0.0/0,80",
    "10.0.0.7/24,80",
    "10.0.0.0/24,icmp:3/1",
    "10.0.0.0/24",
    "10.0.0.0/24,80,1",
];
const TRIPLES: &[&str] = &[
    "10.0.0.1,80,10.0.0.2",
    "10.0.0.0/31,tcp:1-2,1.1.1.1",
    "10.0.0.1,80,10.0.0.2/31",
    "10.0.0.1,80,10.0.0.2-10.0.0.3",
    "10.0.0.1,80",
    "0.0.0.0,tcp:80,0.0.0.0",
    "10.0.0.1,80,::1",
    "10.0.0.1,80,10.0.0.2/32",
    "10.0.0.1,80,10.0.0.2,1",
];
const NET_TRIPLES: &[&str] = &[
    "10.0.0.1,80,10.0.0.0/24",
    "10.0.0.1-10.0.0.2,tcp:1,10.1.0.0-10.1.0.2",
    "10.0.0.1,80",
    "10.0.0.1,80,0.0.0.0/0",
    "10.0.0.1,udp:80,10.0.0.9",
    "10.0.0.1,80,10.0.0.77/24",
];
const IFACES: &[&str] = &[
    "10.0.0.0/24,eth0",
    "10.0.0.0/24,physdev:eth1",
    "10.0.0.0/24,eth1",
    "0.0.0.0/0,wan",
    "10.0.0.0/24,abcdefghijklmno",
    "10.0.0.0/24,abcdefghijklmnop",
    "10.0.0.0/24,",
    "10.0.0.0/24,eth wildcard",
    "10.0.0.1-10.0.0.2,eth0",
    "10.0.0.0/24,a,b",
    "10.1.1.1,eth0",
];
const BITMAP: &[&str] = &[
    "10.0.0.6",
    "10.0.0.8/30",
    "10.0.0.20-10.0.0.22",
    "10.0.1.0",
    "10.0.0.250-10.0.1.3",
    "10.0.0.7",
    "10.0.0.0/31",
    "9.0.0.1",
    "10.0.0.6,1",
];
const MACS: &[&str] = &[
    "10.0.0.1",
    "10.0.0.2,02:00:00:00:00:0A",
    "10.0.0.3,2:0:0:0:0:a",
    "10.0.0.1,02:00:00:00:00:0b",
    "10.0.0.1,02:00:00:00:00",
    "10.0.0.1,02-00-00-00-00-0a",
    "10.0.0.0/30",
    "10.0.1.1",
    "10.0.0.4,02:00:00:00:00:0A:01",
    "10.0.0.5,g2:00:00:00:00:0A",
];
const BITMAP_PORTS: &[&str] =
    &["5", "7-9", "http", "udp:domain", "tcp:ftp", "1001", "990-1001", "gre:0", "9-8", "0x10", ""];

const OPTIONS: &[&str] = &[
    "timeout 600000",
    "timeout 0",
    "counters",
    "comment",
    "skbinfo",
    "hashsize 128",
    "maxelem 3",
    "maxelem 0x10",
    "timeout 2147484",
    "hashsize x",
    "size 4",
    "nosuch",
    "counters",
    "comment",
    "skbinfo",
    "timeout 600000",
];

const EXTRAS: &[&str] = &[
    "timeout 300000",
    "timeout 0",
    "packets 5",
    "bytes 0x10",
    "comment \"hello world\"",
    "comment x\"y z\"",
    "comment a\\b",
    "skbmark 0x5/0xff",
    "skbmark 0x1",
    "skbmark 5",
    "skbprio 1:10",
    "skbprio 1",
    "skbqueue 7",
    "skbqueue 65536",
    "nomatch",
    "nomatch",
    "wildcard",
    "timeout",
    "timeout -1",
    "nosuch",
    "comment",
    "packets 18446744073709551615",
];

struct Picker(u64);

impl Picker {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((self.0 >> 33) % bound as u64) as usize
    }

    fn of<'t>(&mut self, list: &[&'t str]) -> &'t str {
        list[self.below(list.len())]
    }

    /// Lists begin with what is good: mostly that.
    fn likely<'t>(&mut self, list: &[&'t str]) -> &'t str {
        let first = (list.len() / 4).max(2).min(list.len());
        if self.below(8) > 0 { self.of(&list[..first]) } else { self.of(list) }
    }

    fn file(&mut self) -> String {
        let (kind, elements) = TYPES[self.below(TYPES.len())];
        let mut lines = vec!["create y hash:ip".to_owned(), "create z hash:net".to_owned()];
        let mut create = format!("create a {kind}");
        let mut given = BTreeSet::new();
        for _ in 0..self.below(3) {
            given.insert(self.likely(OPTIONS));
        }
        given.iter().for_each(|option| create += &format!(" {option}"));
        lines.push(create);
        // The tool joins lines, and what one of them tolerates then holds for others.
        let tolerant = self.below(4) == 0;
        let last = self.below(4);
        for at in 0..=last {
            // What the tool warns of, as of a test that succeeds, ends its reading.
            let verb = match self.below(10) {
                0 => "del",
                1..4 if at == last => "test",
                _ => "add",
            };
            let mut line = format!("{verb} a {}", self.likely(elements));
            if verb == "add" {
                for _ in 0..self.below(4) / 3 + self.below(4) / 3 {
                    line += &format!(" {}", self.likely(EXTRAS));
                }
            }
            lines.push(if tolerant { format!("-exist {line}") } else { line });
        }
        if self.below(6) == 0 && !lines[lines.len() - 1].contains("test a") {
            let more = [
                "rename a b",
                "swap y z",
                "flush a",
                "destroy y",
                "destroy a",
                "rename y z",
                "swap a b",
                "flush",
                "# end",
                "  ",
                "add b 10.0.0.1",
                "COMMIT",
            ];
            lines.push(self.of(&more).to_owned());
        }
        lines.join("\n") + "\n"
    }
}

/// What the tool says, and what it then holds.
fn kernel(namespace: &Namespace, text: &str) -> (bool, String, Vec<String>) {
    // Lists refer to others: twice does it.
    namespace.run("ipset flush; ipset destroy; ipset destroy");
    let mut child = namespace
        .command("ipset")
        .arg("restore")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ipset runs");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    let saved = namespace.run("ipset save");
    (output.status.success(), said, normal(&saved))
}

fn ours(text: &str) -> Result<Vec<String>, String> {
    let names = TableNames::of_host();
    let mut stage = Stage::empty(7, monotonic());
    let findings = ipset::read(&mut stage, text.as_bytes(), "generated", &names);
    if has_errors(&findings) {
        let first = findings.iter().find(|one| one.severity == Severity::Error).unwrap();
        return Err(format!("{}:{}: {}", first.line, first.column, first.message));
    }
    let mut saved = String::new();
    for slot in stage.registry().list() {
        let written = print::save(&slot.name(), &slot.set(), &names, monotonic(), |piece| {
            saved.push_str(piece);
            Ok::<(), ()>(())
        });
        written.unwrap();
    }
    Ok(normal(&saved))
}

/// Without what depends on chance or growth (`hashsize`, `initval`) and on the second at
/// which one looks; in an order of its own.
fn normal(saved: &str) -> Vec<String> {
    let mut lines: Vec<String> = saved
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let mut kept = Vec::new();
            let mut at = 0;
            while at < words.len() {
                match words[at] {
                    "hashsize" | "initval" => at += 1,
                    "timeout" if words[0] == "add" => {
                        let left: u64 = words[at + 1].parse().unwrap();
                        kept.push(format!("timeout {}", left.div_ceil(100_000) * 100_000));
                        at += 1;
                    }
                    word => kept.push(word.to_owned()),
                }
                at += 1;
            }
            kept.join(" ")
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn generated_files_are_taken_as_the_tool_takes_them() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5e7);
    let mut picker = Picker(seed);
    let namespace = Namespace::new("sets");
    let (mut wrong, mut loaded, mut refused) = (Vec::new(), 0, 0);
    for _ in 0..FILES {
        let text = picker.file();
        let (accepted, said, theirs) = kernel(&namespace, &text);
        match (accepted, ours(&text)) {
            (true, Ok(ours)) if ours == theirs => loaded += 1,
            (true, Ok(ours)) => wrong.push(format!("{text}ours {ours:#?}\ntheirs {theirs:#?}")),
            (true, Err(error)) => wrong.push(format!("{text}we refuse: {error}")),
            (false, Ok(_)) => wrong.push(format!("{text}the tool refuses: {said}")),
            (false, Err(_)) => refused += 1,
        }
    }
    let shown = wrong.iter().take(25).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(wrong.is_empty(), "{} of {FILES} differ:\n{shown}", wrong.len());
    assert!(loaded > FILES / 10 && refused > FILES / 6, "{loaded} loaded, {refused} refused");
}

#[test]
fn the_corpus_prints_as_the_tool_prints_it() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus/ipset");
    let Ok(entries) = std::fs::read_dir(&directory) else { return };
    let mut seen = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "ipset") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let ours = ours(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let twin = path.with_extension("ipset.saved");
        if let Ok(theirs) = std::fs::read_to_string(&twin) {
            let theirs = normal(&theirs);
            let differ = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
            assert!(ours == theirs, "{}: {differ:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} files");
}
