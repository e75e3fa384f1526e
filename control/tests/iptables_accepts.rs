//! Generated rule lines, good and bad, through `iptables-restore` (legacy and
//! nft, both families) in namespaces of our own: we load what either loads and
//! print what it prints, and refuse what both refuse.

mod accepts;
mod netns;
mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dataplane::packet::Family;
use netns::Namespace;
use portcullis::diagnostics::Severity;
use portcullis::iptables::{TableNames, parse, print};
use tools::Picker;

/// Names a variable that holds another seed, for longer runs by hand.
const SEED: &str = "PORTCULLIS_TEST_SEED";

/// Lines a family.
const LINES: usize = 1_200;

/// Parts of a line by slot; one of each slot is chosen. The first of a slot is
/// "nothing" and chosen half of the time.
const BASE: &[&[&str]] = &[
    &[
        "",
        "-p tcp",
        "-p tcp",
        "-p tcp",
        "-p udp",
        "-p udp",
        "! -p tcp",
        "-p 6",
        "-p sctp",
        "-p all",
        "-p nosuch",
        "-p udplite",
        "-p 17",
        "! -p 132",
        "-p TCP",
        "-p 256",
        "-p dccp",
    ],
    &["", "-i eth0", "! -i eth+", "-o eth1", "-i +", "-i averyveryverylongname", "! -o w0"],
];

const V4: &[&[&str]] = &[
    &[
        "",
        "-s 192.0.2.1",
        "! -s 192.0.2.0/24",
        "-s 198.51.100.7/255.255.0.255",
        "-s 192.0.2.1,192.0.2.2",
        "-s 300.1.1.1",
        "-s 192.0.2.1/33",
        "-s ! 192.0.2.1",
        "--src 192.0.2.1",
        "--source 10/8",
        "-s 0/0",
        "! -s 192.0.2.1,192.0.2.2",
        "-s 192.0.2.1/0",
    ],
    &["", "-d 203.0.113.9", "-d 203.0.113.9/0.0.0.255", "--dst 203.0.113.0/25,192.0.2.3", "-d x/y"],
    &["", "-f", "! -f", "-p icmp"],
];

const V6: &[&[&str]] = &[
    &[
        "",
        "-s 2001:db8::1",
        "! -s 2001:db8::/32",
        "-s 2001:db8::7/ffff::ffff",
        "-s 2001:db8::1,2001:db8::2",
        "-s 192.0.2.1",
        "-s 2001:db8::1/129",
        "-s ::1.2.3.4",
        "-s ::ffff:1.2.3.4",
        "-s ::/0",
        "-s 2001:db8:0:0:1::",
    ],
    &["", "-d 2001:db8::9", "-d 2001:db8::9/127", "--dst fe80::/10,2001:db8::3", "-d :::1"],
    &["", "-f", "-p icmpv6"],
];

/// Matches of both families; zero to two of them are chosen.
const MATCHES: &[&str] = &[
    "--dport 80",
    "--sport 1024:",
    "! --dport :1023",
    "--dport https",
    "--dport 99999",
    "--dport 5:1",
    "--sport 1 --dport 2",
    "--syn",
    "! --syn",
    "--tcp-flags SYN,ACK SYN",
    "--tcp-flags ALL NONE",
    "--tcp-flags SYN",
    "--tcp-flags FOO SYN",
    "--tcp-option 8",
    "--tcp-option 0",
    "-m tcp",
    "-m udp",
    "-m tcp --dport 22",
    "-m udp ! --sport 53",
    "-m multiport --dports 80,443,8000:8080",
    "-m multiport ! --ports 1,2",
    "-m multiport",
    "-m multiport --sports 5:4",
    "-m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14:16",
    "-m multiport --dport 25",
    "-m multiport --dports http,ssh",
    "-m multiport --sports 1 --dports 2",
    "-m string --string foo --algo bm",
    "-m string ! --hex-string \"|0d0a|GET\" --algo kmp --from 20 --to 200 --icase",
    "-m string --string foo --algo fsm",
    "-m string --hex-string \"|0d0|\" --algo bm",
    "-m string --string foo --algo bm --from 9 --to 8",
    "-m u32 --u32 \"0>>22&0x3C@12>>26&0x3C@0=0x47455420\"",
    "-m u32 ! --u32 6&0xFF=1,17:18",
    "-m u32 --u32 0<<32=1",
    "-m u32 --u32 0&=1",
    "-m bpf --bytecode \"4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0\"",
    "-m bpf --bytecode \"1,22 0 0 0,6 0 0 0\"",
    "-m bpf --bytecode \"2,52 0 0 0,6 0 0 0\"",
    "-m statistic --mode random ! --probability 0.333",
    "-m statistic --mode nth --every 4 --packet 3",
    "-m statistic --mode nth --every 4 --packet 4",
    "-m statistic --mode random --probability 1.5",
    "-m quota --quota 100000",
    "-m quota ! --quota 0x10",
    "-m time --timestart 08:00 --timestop 18:30 --weekdays Mon,Tue,Fr",
    "-m time --datestart 2026-01-01T10 --datestop 2027-01 ! --monthdays 1,31 --kerneltz",
    "-m time --timestart 23:00 --timestop 01:00 --contiguous",
    "-m time --timestart 01:00 --timestop 23:00 --contiguous",
    "-m time --timestart 25:00",
    "-m cpu ! --cpu 1",
    "-m cluster --cluster-total-nodes 4 ! --cluster-local-node 2 --cluster-hash-seed 0xabc",
    "-m cluster --cluster-total-nodes 4 --cluster-local-node 5 --cluster-hash-seed 1",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate ESTABLISHED,RELATED",
    "-m conntrack ! --ctstate INVALID",
    "-m conntrack --ctstate NEW,FOO",
    "-m conntrack",
    "-m conntrack --ctstate DNAT,SNAT,UNTRACKED",
    "-m conntrack --ctproto tcp --ctdir REPLY",
    "-m conntrack --ctstatus ASSURED,CONFIRMED",
    "-m conntrack --ctstatus NONE",
    "-m conntrack --ctexpire 5:10",
    "-m conntrack --ctorigdstport 80",
    "-m conntrack ! --ctdir REPLY",
    "-m conntrack ! --ctexpire 7",
    "-m conntrack --ctreplsrcport 1:2 --ctstate new",
    "-m state --state NEW,RELATED",
    "-m state ! --state est",
    "-m state --state SNAT",
    "-m state",
    "-m mark --mark 1",
    "-m mark ! --mark 0xff/0xf0",
    "-m mark --mark 1/",
    "-m mark --mark x",
    "-m connmark --mark 7/7",
    "-m connmark",
    "-m mark --mark 010",
    "-m mac --mac-source 02:00:00:00:00:01",
    "-m mac --mac-source 2:0:0:0:0:1",
    "-m mac --mac-source 02:00",
    "-m length --length 100",
    "-m length ! --length 100:",
    "-m length --length 9:3",
    "-m length --length 65536",
    "-m dscp --dscp 10",
    "-m dscp ! --dscp-class EF",
    "-m dscp --dscp 64",
    "-m dscp --dscp-class zz",
    "-m tos --tos 0x10",
    "-m tos --tos Minimize-Delay",
    "-m tos ! --tos 4/12",
    "-m tos --tos 256",
    "-m pkttype --pkt-type multicast",
    "-m pkttype ! --pkt-type host",
    "-m pkttype --pkt-type any",
    "-m comment --comment word",
    "-m comment --comment \"two words\"",
    "-m comment --comment it's",
    "-m comment --comment \"a \\\"b\\\" \\\\ c\"",
    "-m comment --comment \"\"",
    "-m comment",
    "-m limit",
    "-m limit --limit 5/s",
    "-m limit --limit 90/min --limit-burst 7",
    "-m limit --limit 0/s",
    "-m limit --limit 3000/sec",
    "-m limit --limit 10001/s",
    "-m limit --limit 7/hour",
    "-m limit ! --limit 1/s",
    "-m limit --limit 20/day",
    "-m limit --limit-burst 10001",
    "-m nosuch",
    "-m",
    "--nosuch 1",
    "stray",
    "!",
    "-m mark --mark 1 -m connmark --mark 2",
    "-m state -m comment --comment x --state NEW",
];

const MATCHES_V4: &[&str] = &[
    "--icmp-type 8",
    "--icmp-type 3/4",
    "! --icmp-type any",
    "--icmp-type source",
    "--icmp-type echo-request",
    "-m icmp --icmp-type redirect",
    "--icmp-type 256",
    "-m icmp",
    "--icmp-type TOS-host-redirect",
    "-m iprange --src-range 192.0.2.1-192.0.2.9",
    "-m iprange ! --dst-range 192.0.2.1",
    "-m iprange",
    "-m iprange --src-range 192.0.2.9-192.0.2.1",
    "-m iprange --dst-range 1-2-3",
    "-m ttl --ttl-eq 64",
    "-m ttl ! --ttl 1",
    "-m ttl --ttl-gt 300",
    "-m ttl --ttl-lt 5 --ttl-gt 3",
    "-m conntrack --ctorigsrc 192.0.2.0/24 ! --ctrepldst 192.0.2.1",
    "-m hl --hl-eq 5",
];

const MATCHES_V6: &[&str] = &[
    "--icmpv6-type 128",
    "--icmpv6-type 1/4",
    "! --icmpv6-type echo-reply",
    "--icmpv6-type any",
    "-m icmp6 --icmpv6-type router",
    "-m icmpv6 --icmpv6-type neighbour-solicitation",
    "-m icmp6",
    "-m iprange --src-range 2001:db8::1-2001:db8::9",
    "-m iprange --dst-range 2001:db8::1-x",
    "-m hl --hl-eq 64",
    "-m hl ! --hl-eq 1",
    "-m hl --hl-gt 5",
    "-m ttl --ttl-eq 5",
    "-m conntrack --ctorigsrc 2001:db8::/32 ! --ctrepldst 2001:db8::1",
];

const TARGETS: &[&str] = &[
    "",
    "-j ACCEPT",
    "-j DROP",
    "-j RETURN",
    "-j U",
    "-g U",
    "-j NOPE",
    "-g NOPE",
    "! -j DROP",
    "-j INPUT",
    "-j REJECT",
    "-j REJECT --reject-with tcp-reset",
    "-j REJECT --reject-with nosuch",
    "-j LOG",
    "-j LOG --log-prefix \"in: \" --log-level info",
    "-j LOG --log-level 7 --log-uid",
    "-j LOG --log-level 8",
    "-j LOG --log-prefix \"\"",
    "-j LOG --log-tcp-options --log-ip-options --log-tcp-sequence",
    "-j MARK --set-mark 1",
    "-j MARK --set-xmark 0x10/0xf0",
    "-j MARK --or-mark 4",
    "-j MARK --and-mark 4",
    "-j MARK --xor-mark 0xff",
    "-j MARK",
    "-j MARK --set-mark 0xff/0xf --or-mark 1",
    "-j MARK --set-mark 0xff/0xf",
    "-j CONNMARK --save-mark",
    "-j CONNMARK --restore-mark --mask 0xff",
    "-j CONNMARK --set-mark 5/7",
    "-j CONNMARK --save-mark --nfmask 0xf --ctmask 0xf0",
    "-j CONNMARK",
    "-j CONNMARK --xor-mark 3",
    "-j CONNMARK --set-xmark 5 --restore-mark",
    "-j ACCEPT -j DROP",
    "--jump DROP",
];

const REJECT_V4: &[&str] = &[
    "-j REJECT --reject-with icmp-host-prohibited",
    "-j REJECT --reject-with net-unreach",
    "-j REJECT --reject-with icmp-admin",
    "-j REJECT --reject-with icmp6-no-route",
];
const REJECT_V6: &[&str] = &[
    "-j REJECT --reject-with icmp6-adm-prohibited",
    "-j REJECT --reject-with no-route",
    "-j REJECT --reject-with icmp6-pol",
    "-j REJECT --reject-with icmp-port-unreachable",
];

/// Lines out of the lists above.
struct Lines(Picker);

impl Lines {
    /// One of the lists, by weight.
    fn weighted<'l>(
        &mut self,
        lists: &[&'l [&'static str]],
        weights: &[usize],
    ) -> &'l [&'static str] {
        let mut at = self.0.below(weights.iter().sum());
        for (list, weight) in lists.iter().zip(weights) {
            match at.checked_sub(*weight) {
                None => return list,
                Some(rest) => at = rest,
            }
        }
        lists[0]
    }

    /// Table and line.
    fn line(&mut self, family: Family) -> (&'static str, String) {
        let (own, matches, rejects) = match family {
            Family::V4 => (V4, MATCHES_V4, REJECT_V4),
            Family::V6 => (V6, MATCHES_V6, REJECT_V6),
        };
        let (table, chain) = match self.0.below(24) {
            0 | 1 => ("mangle", self.0.of(&["PREROUTING", "POSTROUTING", "FORWARD"])),
            2..5 => ("raw", self.0.of(&["PREROUTING", "OUTPUT", "U"])),
            5..12 => ("nat", self.0.of(&["PREROUTING", "POSTROUTING", "INPUT", "OUTPUT", "U"])),
            12 => ("security", "FORWARD"),
            _ => ("filter", self.0.of(&["INPUT", "FORWARD", "FORWARD", "FORWARD", "OUTPUT", "U"])),
        };
        let mut words = vec!["-A", chain];
        for slot in BASE.iter().chain(own) {
            if self.0.below(2) == 0 {
                words.push(self.0.of(slot));
            }
        }
        for _ in 0..self.0.below(3) {
            let lists = [MATCHES, accepts::MATCHES, accepts::place::MATCHES, matches];
            let place = accepts::place::MATCHES.len();
            let weights = [MATCHES.len(), accepts::MATCHES.len(), 2 * place, 3 * matches.len()];
            let list = self.weighted(&lists, &weights);
            words.push(self.0.of(list));
        }
        let own = match (table, family) {
            ("nat", Family::V4) => [accepts::NAT, accepts::NAT_V4],
            ("nat", Family::V6) => [accepts::NAT, accepts::NAT_V6],
            ("raw", _) => [accepts::RAW, accepts::RAW],
            _ => [rejects, accepts::ANYWHERE],
        };
        // A target of another table every now and then.
        let everything = [TARGETS, own[0], own[1], accepts::RAW, accepts::NAT, accepts::ANYWHERE];
        let weights = match table {
            "nat" | "raw" => [2, 6, 6, 1, 1, 1],
            _ => [24, 3, 3, 1, 1, 1],
        };
        let list = self.weighted(&everything, &weights);
        words.push(self.0.of(list));
        if self.0.below(6) == 0 {
            // Options may stand in any order.
            let (a, b) = (2 + self.0.below(words.len() - 2), 2 + self.0.below(words.len() - 2));
            words.swap(a, b);
        }
        words.retain(|word| !word.is_empty());
        let line = words.join(" ");
        if chain != "U" || self.0.below(2) == 0 {
            return (table, line);
        }
        // Hooks count through user chains.
        let caller = match table {
            "nat" => self.0.of(&["PREROUTING", "POSTROUTING", "INPUT", "OUTPUT"]),
            _ => "OUTPUT",
        };
        (table, format!("{line}\n-A {caller} -j U"))
    }
}

fn compare(family: Family, prefix: &str, directory: &Path) -> (Vec<String>, usize) {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    let mut picker = Lines(Picker(seed + family as u64));
    let mut seen = BTreeSet::new();
    let mut lines = Vec::new();
    while lines.len() < LINES {
        let line = picker.line(family);
        if seen.insert(line.clone()) {
            lines.push(line);
        }
    }
    let texts: Vec<String> = lines
        .iter()
        .map(|(table, line)| format!("*{table}\n:U - [0:0]\n{line}\nCOMMIT\n"))
        .collect();
    for (index, text) in texts.iter().enumerate() {
        tools::write(directory, index, lines[index].0, text);
    }
    let namespace = Namespace::new("accepts");
    let told = ["legacy", "nft"]
        .map(|tool| tools::printed(&namespace, directory, &format!("{prefix}-{tool}"), LINES));
    let names = TableNames::of_host();
    let (mut wrong, mut loaded) = (Vec::new(), 0);
    for (index, text) in texts.iter().enumerate() {
        let ours = parse(text, "generated", family, &names);
        let theirs: Vec<&String> = told.iter().filter_map(|tool| tool[index].as_ref()).collect();
        let complaint = match &ours {
            Ok(parsed) => {
                loaded += 1;
                let printed = print(&parsed.ruleset, &names, None);
                let same = theirs.iter().any(|theirs| **theirs == printed);
                (!same).then(|| format!("ours:\n{printed}theirs: {theirs:#?}"))
            }
            Err(findings) => (!theirs.is_empty()).then(|| {
                let error = findings.iter().find(|one| one.severity == Severity::Error);
                let message = error.map_or("no error", |error| &error.message);
                format!("refused: {message}\ntheirs: {theirs:#?}")
            }),
        };
        if let Some(complaint) = complaint {
            wrong.push(format!("{text}{complaint}"));
        }
    }
    (wrong, loaded)
}

/// Differences that are meant: matches still to come, what the nft tool alone
/// takes and stores only in part, loops of jumps that no packet can get to, and
/// ports above 65535, which the tools cut to 16 bits in udp and conntrack, and directions
/// that the nft tool does not look for through user chains.
fn on_purpose(complaint: &str) -> bool {
    ["is not supported", "this jump closes a loop", "`99999' is no port"]
        .iter()
        .any(|known| complaint.contains(known))
        || ["refused: --dir ", "refused: --physdev-"].iter().any(|at| complaint.contains(at))
            && complaint.contains("-A U ")
        || complaint.contains("refused: the tcp match needs") && complaint.contains("! -p tcp")
}

fn run(family: Family, prefix: &str) {
    let directory =
        std::env::temp_dir().join(format!("portcullis-accepts-{}-{prefix}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let outcome = std::panic::catch_unwind(|| compare(family, prefix, &directory));
    fs::remove_dir_all(&directory).unwrap();
    let (mut wrong, loaded) = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    wrong.retain(|complaint| !on_purpose(complaint));
    println!("{prefix}: {LINES} lines, {loaded} load");
    assert!(wrong.is_empty(), "{} of {LINES}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(loaded > LINES / 20 && loaded < LINES, "{loaded} of {LINES} lines load");
}

#[test]
fn iptables_and_we_accept_the_same_lines() {
    run(Family::V4, "iptables");
}

#[test]
fn ip6tables_and_we_accept_the_same_lines() {
    run(Family::V6, "ip6tables");
}
