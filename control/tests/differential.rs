//! Portcullis against netfilter: the same rules, the same packets, the same
//! outcome: frames byte for byte, counters, connections, the rules as printed.
//!
//! The run is set by `PORTCULLIS_DIFF_RULESETS`, `PORTCULLIS_DIFF_PACKETS` and
//! `PORTCULLIS_DIFF_SEED`; `scripts/differential` sets them from options.

mod diff;
mod lab;

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diff::packets::{Entry, Packet};
use diff::rng::Rng;
use diff::rules::RulesetText;
use diff::{Case, Observation, compare, corpus, kernel, replay, shrink};
use lab::Lab;
use lab::frames::{self, Ip};

/// The usual lab, with what is said to links.
fn new_lab() -> Lab {
    let mut lab = Lab::new();
    lab.join_links();
    lab
}

/// One lab at a time: the kernel's log is the machine's, so a lab beside this
/// one would write its LOG lines into our comparison.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs in which a difference must show before it counts.
const ATTEMPTS: usize = 3;

/// Failing cases that are shrunk and shown before the run gives up.
const SHOWN: usize = 6;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// What replay says when it does not take the rules: not a mismatch, where the
/// rules are not our own.
fn is_refusal(difference: &str) -> bool {
    difference.starts_with("replay: exit status: 1")
}

/// The kernel's limit on errors of routing (`net.ipv4.route.error_burst`), which no namespace
/// has of its own: what earlier cases have spent comes back within this time.
const ROUTE_ERRORS: Duration = Duration::from_secs(5);

/// Both sides of a case, and how they differ. `None`: the kernel refuses the rules.
fn try_case(lab: &Lab, case: &Case) -> Option<(Observation, Vec<String>)> {
    let (theirs, times) = kernel::run(lab, case).ok()?;
    let differences = match replay::run(case, &times) {
        Ok(ours) => compare::differences(case, &theirs, &ours),
        Err(complaint) => vec![complaint],
    };
    Some((theirs, differences))
}

/// Like [`try_case`], but a difference must come back in every one of
/// [`ATTEMPTS`] runs: the kernel's clock is the real one, and its log everybody's,
/// while a wrong verdict depends on neither. What went away is printed.
fn judge(lab: &Lab, case: &Case) -> Option<(Observation, Vec<String>)> {
    let mut outcome = try_case(lab, case)?;
    for _ in 1..ATTEMPTS {
        if outcome.1.is_empty() || outcome.1.iter().any(|difference| is_refusal(difference)) {
            break;
        }
        eprintln!("seen in one run, tried again: {}", outcome.1[0]);
        std::thread::sleep(ROUTE_ERRORS);
        outcome = try_case(lab, case)?;
    }
    Some(outcome)
}

/// The kind of a difference: what shrinking must keep.
fn kind(difference: &str) -> &str {
    let words = difference.split([':', '(']).next().unwrap_or_default();
    words.split(' ').next().unwrap_or_default()
}

fn show(lab: &Lab, case: &Case, differences: &[String]) -> String {
    let wanted = kind(&differences[0]).to_owned();
    let small = shrink::shrink(case, |candidate| {
        try_case(lab, candidate).is_some_and(|(_, found)| found.iter().any(|d| kind(d) == wanted))
    });
    let found = try_case(lab, &small).map(|(_, found)| found).unwrap_or_default();
    let mut text =
        format!("{}rules:\n{}", if small.rules.v6 { "v6 " } else { "v4 " }, small.rules.brief());
    for (index, packet) in small.packets.iter().enumerate() {
        let bytes = compare::hex(&packet.bytes);
        writeln!(text, "packet {index} into {:?}: {}\n    {bytes}", packet.entry, packet.note)
            .expect("writing to a string");
    }
    for difference in found.iter().take(12) {
        writeln!(text, "- {difference}").expect("writing to a string");
    }
    text
}

#[test]
fn generated_rules_and_packets() {
    let _alone = alone();
    let rulesets = setting("PORTCULLIS_DIFF_RULESETS", 20);
    let packets = setting("PORTCULLIS_DIFF_PACKETS", 100) as usize;
    let seed = setting("PORTCULLIS_DIFF_SEED", 1);
    // Without what the groups of `extra` add.
    let core = setting("PORTCULLIS_DIFF_CORE", 0) == 1;
    let lab = new_lab();
    let (mut failures, mut refused, mut rules, mut forwarded) = (Vec::new(), 0, 0, 0);
    for number in 0..rulesets {
        let case_seed = seed.wrapping_add(number);
        let case = match core {
            true => Case::core(case_seed, packets),
            false => Case::generate(case_seed, packets),
        };
        let (theirs, differences) = match judge(&lab, &case) {
            Some(outcome) => outcome,
            None => {
                let complaint = kernel::run(&lab, &case).err().unwrap_or_default();
                refused += 1;
                let line = complaint.split("line").nth(1).and_then(|rest| {
                    let digits: String =
                        rest.chars().filter(char::is_ascii_digit).take(3).collect();
                    case.rules
                        .text()
                        .lines()
                        .nth(digits.parse::<usize>().ok()? - 1)
                        .map(str::to_owned)
                });
                eprintln!("seed {case_seed}: the kernel refuses {line:?}: {complaint}");
                continue;
            }
        };
        rules += case.rules.rules();
        forwarded += theirs.sent.iter().map(Vec::len).sum::<usize>();
        if !differences.is_empty() {
            let shown = if failures.len() < SHOWN {
                show(&lab, &case, &differences)
            } else {
                differences[0].clone()
            };
            let only = if core { " --core" } else { "" };
            let again = format!(
                "scripts/differential --rulesets 1 --packets {packets} --seed {case_seed}{only}"
            );
            eprintln!("MISMATCH, again with: {again}\n{shown}");
            failures.push(case_seed);
        }
    }
    println!(
        "{rulesets} rulesets ({rules} rules), {} packets, {forwarded} frames out; seeds {seed}..; \
         {} mismatches, {refused} rulesets refused by the kernel",
        packets as u64 * rulesets,
        failures.len()
    );
    assert!(failures.is_empty(), "mismatches at seeds {failures:?}");
    assert!(refused * 20 <= rulesets, "the generator makes too many rulesets the kernel refuses");
    // A single ruleset may well let nothing pass.
    assert!(forwarded > 0 || rulesets < 5, "nothing came out: the lab is not wired");
}

/// Cases of [`Case::core`] that differed from the kernel once, by what was wrong:
/// each has a test in the engine too, which outlives a change of the generator.
const ONCE_DIFFERED: &[(&str, &[u64])] = &[
    (
        "an error about a packet between own addresses came from its source; IPv6 frames in \
         our own name were martian; a mark's gateway was not asked for link-local addresses",
        &[20_020, 20_035, 20_048, 20_104, 20_154, 20_180, 20_198, 20_247, 20_272, 20_313, 20_340],
    ),
    ("IGMP from nobody was martian", &[30_078]),
    ("::1, where OUTPUT redirects to, answered nobody", &[30_137, 30_414, 30_441, 31_040]),
    ("resets were quoted summed up, and confirmed nothing", &[30_788, 31_011]),
    ("127.0.0.1 answered others", &[31_206]),
    ("an answer in the name of a group was received", &[31_666, 31_856]),
    ("a mark's gateway was not asked for what is forwarded on one link", &[31_768]),
];

#[test]
fn seeds_that_once_differed() {
    let _alone = alone();
    let lab = new_lab();
    let mut failures = Vec::new();
    for (wrong, seeds) in ONCE_DIFFERED {
        for &seed in *seeds {
            let case = Case::core(seed, 80);
            let (_, differences) = judge(&lab, &case).expect("the kernel takes these rules");
            if let Some(first) = differences.first() {
                failures.push(format!("seed {seed}, kept because {wrong}: {first}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What random cases with what `extra` adds came down to: why, whether IPv6, rules by
/// table, where the packet enters, and the packet. The engine has tests of its own
/// (`dataplane/src/engine/tests/rewritten.rs`).
const CASES_THAT_ONCE_DIFFERED: &[(&str, bool, &str, Entry, &str)] = &[
    (
        "a copy on a foreign link for a broadcast address was for one neighbour",
        false,
        "*mangle\n:PREROUTING ACCEPT\n-A PREROUTING -j TEE --gateway 198.18.3.11 --oif eth0\nCOMMIT\n",
        Entry::Port(1),
        "ffffffffffff02000000020b08004528002c7fed400001676827c612020bc61202ff\
         000000000000000000000000000000000000000000000000",
    ),
    (
        "REJECT did not believe what tracking had summed up before TCPMSS",
        true,
        "*mangle\n:PREROUTING ACCEPT\n\
         -A PREROUTING -p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 1221\nCOMMIT\n\
         *filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n-A INPUT -m state --state RELATED\n\
         -A FORWARD -j REJECT --reject-with icmp6-adm-prohibited\nCOMMIT\n",
        Entry::Port(2),
        "0200000003010200000003fe86dd60000000001c064020010db8ffff00000000000000000006\
         20010db800020000000000000000000b00519c48d828c2b1c8728d2b70122000590c0000\
         0102042328010101",
    ),
    (
        "an error of our own that SNPT made wrong was dropped by nat",
        true,
        "*mangle\n:POSTROUTING ACCEPT\n-A POSTROUTING -j SNPT --src-pfx 2001:db8:2::/64 \
         --dst-pfx 2001:db8:2::/64\nCOMMIT\n*nat\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n\
         *filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n-A INPUT -m conntrack --ctproto 1\n\
         -A FORWARD -j REJECT --reject-with icmp6-no-route\nCOMMIT\n",
        Entry::Port(0),
        "02000000010102000000010a86dd628000000014064020010db800010000000000000000000a\
         20010db800010000000000000000000b9c420016fd4fbb062ec64b255010200065b10000",
    ),
    (
        "a routing header cut short hid ESP from tracking, which reads two bytes of it",
        true,
        TRACKED_V6,
        Entry::Port(0),
        "02000000010102000000010a86dd6000000000022b4020010db800010000000000000000000a\
         20010db800020000000000000000000b3200",
    ),
    (
        "a routing header cut short hid DCCP from tracking, which reads two bytes of it",
        true,
        TRACKED_V6,
        Entry::Port(0),
        "02000000010102000000010a86dd6000000000032b4020010db800010000000000000000000a\
         20010db800020000000000000000000b210000",
    ),
    (
        "a routing header cut short hid GRE from tracking, which reads two bytes of it",
        true,
        TRACKED_V6,
        Entry::Port(0),
        "02000000010102000000010a86dd6000000000032b4020010db800010000000000000000000a\
         20010db800020000000000000000000b2f0000",
    ),
    (
        "a routing header cut short hid TCP from tracking, which reads two bytes of it",
        true,
        TRACKED_V6,
        Entry::Port(0),
        "02000000010102000000010a86dd6000000000022b4020010db800010000000000000000000a\
         20010db800020000000000000000000b0600",
    ),
];

const TRACKED_V6: &str = "*filter\n:FORWARD ACCEPT\n-A FORWARD -m conntrack --ctstate NEW\n\
    -A FORWARD -m conntrack --ctstate INVALID\nCOMMIT\n";

#[test]
fn cases_that_once_differed() {
    let _alone = alone();
    let lab = new_lab();
    for (wrong, v6, rules, entry, hex) in CASES_THAT_ONCE_DIFFERED {
        let digits: Vec<u8> =
            hex.bytes().map(|byte| (byte as char).to_digit(16).unwrap() as u8).collect();
        let bytes = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        let packet = Packet { entry: *entry, bytes, note: (*wrong).to_owned() };
        let rules = corpus::parse(*v6, rules);
        let case = Case { rules, packets: vec![packet], conntrack: true, default_routes: false };
        let (theirs, differences) = judge(&lab, &case).expect("the kernel takes these rules");
        assert!(!theirs.sent[0].is_empty(), "{wrong}: nothing came out");
        assert_eq!(differences, Vec::<String>::new(), "{wrong}");
    }
}

/// Every realm and device group that the lab has, asked for at every hook that knows it, of
/// packets that come and go by every kind of route.
#[test]
fn realms_and_device_groups_are_the_kernels() {
    let _alone = alone();
    let lab = new_lab();
    lab.add_default_routes();
    let mut text = String::from("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n");
    let whole = [
        0, 5, 9, 0xb, 0x3_0005, 0x5_0006, 0x5_0009, 0x9_0000, 0x9_0005, 0x4_0008, 0x4_0002,
        0x9_0008, 0xb_0008, 0x5_0008, 0xd, 0xd_0000, 0xd_0005, 0xd_0009, 0xd_0008,
    ];
    for (chain, realm) in
        ["INPUT", "FORWARD", "OUTPUT"].into_iter().flat_map(|chain| whole.map(|it| (chain, it)))
    {
        writeln!(text, "-A {chain} -m realm --realm {realm:#x}").expect("a string");
        writeln!(text, "-A {chain} -m realm ! --realm {realm:#x}/0xffff").expect("a string");
    }
    for group in ["0x0/0xf", "0x5", "0x10/0x10"] {
        writeln!(text, "-A INPUT -m devgroup --src-group {group}").expect("a string");
        writeln!(text, "-A FORWARD -m devgroup --src-group {group} ! --dst-group {group}")
            .expect("a string");
        writeln!(text, "-A OUTPUT -m devgroup --dst-group {group}").expect("a string");
    }
    text += "-A FORWARD -p udp -m udp --dport 9 -j REJECT\nCOMMIT\n*mangle\n\
        :PREROUTING ACCEPT\n-A PREROUTING -p udp -m udp --dport 7 -j MARK --set-mark 0x10\nCOMMIT\n";
    let rules = corpus::parse(false, &text);
    let packets = diff::packets::every_way();
    let case = Case { rules, packets, conntrack: true, default_routes: true };
    let (theirs, differences) = judge(&lab, &case).expect("the kernel takes these rules");
    assert_eq!(differences, Vec::<String>::new());
    // Of what was asked for, most is there.
    let hit = |chain: &str| {
        let of = |(key, count): &(&diff::CounterKey, &(u64, u64))| key.1 == chain && count.0 > 0;
        theirs.counters.iter().filter(of).count()
    };
    assert!(hit("FORWARD") >= 12 && hit("INPUT") >= 8 && hit("OUTPUT") >= 8, "{theirs:?}");
}

/// DSCP in OUTPUT makes the kernel route anew what REJECT then refuses.
#[test]
fn errors_about_our_own_packets_to_a_link() {
    let _alone = alone();
    let lab = new_lab();
    let text = "*mangle\n:OUTPUT ACCEPT\n-A OUTPUT -p udp -j DSCP --set-dscp 0x2e\nCOMMIT\n\
         *filter\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n-A INPUT -m state --state RELATED\n\
         -A OUTPUT -p udp -j REJECT --reject-with icmp6-adm-prohibited\nCOMMIT\n";
    let groups = ["ff02::5", "ff05::1:3"].map(|group| group.parse().expect("a group"));
    let ends = |port| {
        let hosts = [1, 10].map(|host| lab::link_local(port, host));
        hosts.into_iter().chain([lab::address(true, port, 1), lab::address(true, port, 10)])
    };
    let mut packets = Vec::new();
    for (port, other) in [(0, 0), (0, 1), (1, 1), (2, 0)] {
        let own = |from: &std::net::IpAddr| {
            *from == lab::address(true, port, 1)
                || port == other && *from == lab::link_local(port, 1)
        };
        for (from, to) in ends(port)
            .filter(own)
            .flat_map(|from| ends(other).chain(groups).map(move |to| (from, to)))
        {
            let ip = Ip::new(from, to, 17);
            let bytes = ip.packet(&frames::udp(&ip, 1_000, 2_000, 5));
            let entry = Entry::OwnOn(other);
            packets.push(Packet { entry, bytes, note: format!("{from} > {to} on {other}") });
        }
    }
    for text in [text.to_owned(), text.replace("-m state --state RELATED", "-p tcp")] {
        let rules = corpus::parse(true, &text);
        let packets = packets.clone();
        let case = Case { rules, packets, conntrack: true, default_routes: false };
        let (_, differences) = judge(&lab, &case).expect("the kernel takes these rules");
        assert_eq!(differences, Vec::<String>::new());
    }
}

/// Real rulesets, where both sides load them.
#[test]
fn rulesets_of_the_corpus() {
    let _alone = alone();
    let Some(folder) = corpus::folder() else { return };
    let packets = setting("PORTCULLIS_DIFF_PACKETS", 100) as usize;
    let seed = setting("PORTCULLIS_DIFF_SEED", 1);
    // Of files whose names have this in them.
    let only = std::env::var("PORTCULLIS_DIFF_FILE").unwrap_or_default();
    let lab = new_lab();
    lab.add_default_routes();
    let (mut compared, mut kernel_refused, mut we_refused) = (0, 0, 0);
    let (mut drawn, mut copied) = (0, 0);
    let mut failures = Vec::new();
    for ruleset in corpus::accepted(&folder) {
        if !ruleset.path.to_string_lossy().contains(&only) {
            continue;
        }
        let text = std::fs::read(&ruleset.path).expect("a corpus file");
        kernel::reset(&lab, ruleset.v6).expect("empty tables load");
        if lab.restore(ruleset.v6, &String::from_utf8_lossy(&text)).is_err() {
            // It names a set that does not exist here.
            kernel_refused += 1;
            continue;
        }
        let saved = lab.save(ruleset.v6);
        if saved.contains("--mode random") {
            // Each side throws its own dice.
            drawn += 1;
            continue;
        }
        if saved.lines().any(|rule| rule.contains("-A INPUT ") && rule.contains("-j TEE")) {
            // Copies that OUTPUT marks come round over `lo`, again and again.
            copied += 1;
            continue;
        }
        let rules = corpus::parse(ruleset.v6, &saved);
        let packets = corpus::packets(&mut Rng(seed), &rules, packets);
        let case = Case { rules, packets, conntrack: true, default_routes: true };
        let (_, differences) = judge(&lab, &case).expect("what was saved loads again");
        if differences.iter().any(|difference| is_refusal(difference)) {
            we_refused += 1;
        } else if differences.is_empty() {
            compared += 1;
        } else {
            let name = ruleset.path.strip_prefix(&folder).expect("a file of the corpus").display();
            let shown = if failures.len() < SHOWN {
                show(&lab, &case, &differences)
            } else {
                differences[0].clone()
            };
            eprintln!("MISMATCH in {name}\n{shown}");
            failures.push(name.to_string());
        }
    }
    println!(
        "corpus: {compared} rulesets agree, {} differ, {we_refused} refused by Portcullis, \
         {kernel_refused} need sets, {drawn} throw dice, {copied} copy to themselves",
        failures.len()
    );
    assert!(failures.is_empty(), "mismatches in {failures:?}");
}

/// Five errors about a missing route at once, then one a second, for each source.
#[test]
fn errors_about_missing_routes() {
    let _alone = alone();
    for v6 in [false, true] {
        let packets = diff::packets::to_nowhere(v6, 8);
        let case =
            Case { rules: RulesetText::empty(v6), packets, conntrack: true, default_routes: false };
        let expected = (if v6 { 16 } else { 10 }, Vec::new());
        // The kernel's buckets outlive a run: each attempt needs a lab of its own.
        let attempt = |_| {
            let (theirs, differences) = try_case(&new_lab(), &case).expect("empty tables load");
            (theirs.sent.iter().filter(|sent| !sent.is_empty()).count(), differences)
        };
        let seen: Vec<_> = (0..ATTEMPTS).map(attempt).collect();
        assert!(seen.contains(&expected), "{expected:?} in none of {seen:?}");
    }
}

#[test]
fn generation_repeats_itself() {
    let (one, two) = (Case::generate(7, 50), Case::generate(7, 50));
    assert_eq!(one.rules, two.rules);
    assert_eq!(one.packets, two.packets);
    assert_ne!(Case::generate(8, 50).packets, one.packets);
}

/// The oracle's answers must not depend on the moment: the same case twice
/// through the kernel gives the same frames, counters and connections.
#[test]
fn the_kernel_repeats_itself() {
    let _alone = alone();
    let lab = new_lab();
    for seed in 100..130 {
        let case = Case::generate(seed, 80);
        let Ok((first, _)) = kernel::run(&lab, &case) else { continue };
        let (second, _) = kernel::run(&lab, &case).expect("it loaded before");
        assert_eq!(first.logged.len(), second.logged.len());
        let differences = compare::differences(&case, &first, &second);
        assert_eq!(differences, Vec::<String>::new(), "seed {seed}\n{}", case.rules.brief());
        assert_eq!(kernel::reset(&lab, case.rules.v6), Ok(()));
    }
}

#[test]
fn shrinking_keeps_what_matters() {
    let case = Case::generate(3, 60);
    let wanted = case.packets[17].clone();
    let small = shrink::shrink(&case, |candidate| candidate.packets.contains(&wanted));
    assert_eq!(small.packets, [wanted]);
    assert_eq!(small.rules, RulesetText::empty(case.rules.v6));
}
