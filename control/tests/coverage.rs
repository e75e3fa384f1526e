//! Every match and target, from a table of valid and invalid uses: what the kernel's
//! tools load (legacy or nft, into a namespace of our own) loads here and prints alike,
//! what both refuse is refused. Each use is also put into wrong company: a wrong operand,
//! an unknown option, a doubled option, no operand, a rule without the protocol it needs.
//!
//! `PORTCULLIS_COVERAGE_LINES` sets the lines for each module and family (default 24),
//! `PORTCULLIS_TEST_SEED` another seed.

mod netns;
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::sets::Registry;
use netns::Namespace;
use portcullis::check;
use portcullis::diagnostics::Severity;
use portcullis::ipset::{self, Stage};
use portcullis::iptables::{TableNames, parse, print};
use tools::Picker;

/// Differences that are meant and documented: words of the line, words of what we say.
const ON_PURPOSE: &[(&str, &str, &str)] = &[
    ("ANYCAST", "--limit-iface-in and --limit-iface-out", "routes by interface are not mirrored"),
    ("--weekdays 8", "is no such day", "the tools take it for no day at all"),
    ("-opts", "is no option", "the tools keep the low bits"),
    ("-m limit", "limit overflows", "nft takes what legacy and the kernel's arithmetic refuse"),
    ("--limit-burst 0", "is no burst", "nft ignores it"),
    ("-j CT", "there is no timeout policy", "the kernel loads it without effect"),
    ("--notrack", "cannot be used together", "nothing is tracked that the option speaks of"),
    ("-j NETMAP", "is no network mask", "stored as a single address"),
    ("-m nfacct", "--nfacct-name  web", "the tools print two blanks"),
    ("--nfacct-name nosuch", "theirs: []", "rules make the accounts that they name"),
    ("-j SET", "cannot be inverted", "the tools forget the exclamation mark"),
    ("--connlimit-mask", "is no mask", "the tools take a longer one for the longest"),
    ("-j CLASSIFY", "is no class", "numbers above 16 bits are cut by the tools"),
];

/// The sets that rules name.
const SETS: &str = "create ips4 hash:ip
create nets4 hash:net counters
create pairs4 hash:ip,port,ip
create ifaces4 hash:net,iface
create ips6 hash:ip family inet6
create nets6 hash:net family inet6 counters
create pairs6 hash:ip,port,ip family inet6
create ports bitmap:port range 0-1024 timeout 9
create marks4 hash:ip skbinfo
create marks6 hash:ip family inet6 skbinfo
create some list:set
";

/// Makes the nfacct object `web` in the kernel, as `nfacct add web` does: here is a tool
/// that few have.
const ACCOUNT: &str = "
import socket, struct
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.bind((0, 0))
name = struct.pack(\"HH8s\", 8, 1, b\"web\")[:8]
head = struct.pack(\"IHHII\", 20 + len(name), 0x700, 0x405, 1, 0)
s.send(head + b\"\\0\\0\\0\\0\" + name)
assert struct.unpack(\"i\", s.recv(4096)[16:20])[0] == 0
";

fn sets(names: &TableNames) -> Arc<Registry> {
    let mut stage = Stage::empty(1, Nanos(0));
    let findings = ipset::read(&mut stage, SETS.as_bytes(), "sets", names);
    assert!(findings.is_empty(), "{findings:?}");
    Arc::new(stage.into_registry())
}

/// One module of the table.
struct Module {
    target: bool,
    name: &'static str,
    families: Vec<Family>,
    table: &'static str,
    chains: Vec<&'static str>,
    needs: &'static str,
    /// Options without which it means nothing.
    always: &'static str,
    /// A rule that must come before.
    before: &'static str,
    options: Vec<Options>,
}

struct Options {
    name: &'static str,
    negatable: bool,
    good: Vec<&'static str>,
    bad: Vec<&'static str>,
}

fn modules() -> Vec<Module> {
    let lines = include_str!("coverage/uses.txt").lines();
    lines.filter(|line| !line.starts_with('#') && !line.is_empty()).map(module).collect()
}

fn module(line: &'static str) -> Module {
    let mut fields = line.split(" ;").map(str::trim);
    let head: Vec<&str> = fields.next().unwrap_or_default().split(' ').collect();
    let [kind, name, families, table, chains] = head[..] else { panic!("bad line: {line}") };
    let family = |digit| if digit == '4' { Family::V4 } else { Family::V6 };
    let needs = fields.next().unwrap_or_default();
    let (needs, before) = needs.split_once('^').unwrap_or((needs, ""));
    let (needs, always) = needs.split_once('+').unwrap_or((needs, ""));
    let needs = needs.trim();
    Module {
        target: kind == "t",
        name,
        families: families.chars().map(family).collect(),
        table,
        chains: chains.split(',').collect(),
        needs: if needs == "-" { "" } else { needs },
        always: always.trim(),
        before: before.trim(),
        options: fields.filter(|field| !field.is_empty()).map(options).collect(),
    }
}

fn options(field: &'static str) -> Options {
    let (good, bad) = field.split_once("//").unwrap_or((field, ""));
    let (name, good) = good.trim().split_once(' ').unwrap_or((good.trim(), "-"));
    let list = |text: &'static str| -> Vec<&'static str> {
        let operand = |one: &'static str| if one == "-" { "" } else { one };
        text.split(" | ").map(str::trim).filter(|one| !one.is_empty()).map(operand).collect()
    };
    let negatable = name.starts_with('!');
    Options { name: name.trim_start_matches('!'), negatable, good: list(good), bad: list(bad) }
}

/// Rules out of the table.
struct Rules(Picker);

impl Rules {
    /// A rule with this module, most often as it should be.
    fn rule(&mut self, module: &Module) -> String {
        let mut used = Vec::new();
        let count = module.options.len().min(1 + self.0.below(3));
        while used.len() < count {
            let at = self.0.below(module.options.len());
            if !used.contains(&at) || self.0.below(12) == 0 {
                used.push(at);
            }
        }
        let wrong = (self.0.below(4) == 0).then(|| self.0.below(used.len().max(1)));
        let mut words = vec![format!("-A {}", self.0.of(&module.chains))];
        if !module.needs.is_empty() && self.0.below(10) != 0 {
            words.push(module.needs.to_owned());
        }
        words.push(format!("{} {}", if module.target { "-j" } else { "-m" }, module.name));
        if !module.always.is_empty() && self.0.below(8) != 0 {
            words.push(module.always.to_owned());
        }
        for (index, at) in used.into_iter().enumerate() {
            let option = &module.options[at];
            let bad = wrong == Some(index) && !option.bad.is_empty();
            let operand = self.0.of(if bad { &option.bad } else { &option.good });
            let negated = self.0.below(6) == 0 && (option.negatable || self.0.below(4) == 0);
            let missing = self.0.below(40) == 0;
            let bang = if negated { "! " } else { "" };
            let operand = if missing { "" } else { operand };
            words.push(format!("{bang}{} {operand}", option.name).trim().to_owned());
        }
        if self.0.below(25) == 0 {
            words.push("--nosuch".to_owned());
        }
        if !module.target && self.0.below(3) != 0 {
            words.push("-j ACCEPT".to_owned());
        }
        words.join(" ")
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Files of one family: table, module, text.
fn files(family: Family) -> Vec<(&'static str, &'static str, String)> {
    let seed = setting("PORTCULLIS_TEST_SEED", 0xc0ffee) + family as u64;
    let mut rules = Rules(Picker(seed));
    let lines = setting("PORTCULLIS_COVERAGE_LINES", 24) as usize;
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for module in modules().iter().filter(|module| module.families.contains(&family)) {
        for _ in 0..lines {
            let rule = rules.rule(module);
            if seen.insert(rule.clone()) {
                let before = if module.before.is_empty() { "" } else { "\n" };
                let before = format!("{}{before}", module.before);
                let text = format!("*{}\n{before}{rule}\nCOMMIT\n", module.table);
                files.push((module.table, module.name, text));
            }
        }
    }
    files
}

fn run(family: Family, prefix: &str) {
    let directory =
        std::env::temp_dir().join(format!("portcullis-coverage-{}-{prefix}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let files = files(family);
    for (index, (table, _, text)) in files.iter().enumerate() {
        tools::write(&directory, index, table, text);
    }
    let namespace = Namespace::new("coverage");
    fs::write(directory.join("sets"), SETS).unwrap();
    namespace.run(&format!("ipset restore < {}", directory.join("sets").display()));
    namespace.run(&format!("python3 -c '{ACCOUNT}'"));
    let told = ["legacy", "nft"].map(|tool| {
        tools::printed(&namespace, &directory, &format!("{prefix}-{tool}"), files.len())
    });
    fs::remove_dir_all(&directory).unwrap();
    let names = TableNames::of_host();
    let sets = sets(&names);
    let mut sums: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (index, (_, module, text)) in files.iter().enumerate() {
        let theirs: Vec<&String> = told.iter().filter_map(|tool| tool[index].as_ref()).collect();
        let sum = sums.entry(module).or_default();
        let complaint = match load(text, family, &names, &sets) {
            Ok(printed) => {
                sum.0 += 1;
                let same = theirs.iter().any(|theirs| **theirs == printed);
                (!same).then(|| format!("ours:\n{printed}theirs: {theirs:#?}"))
            }
            Err(message) => {
                sum.1 += 1;
                (!theirs.is_empty()).then(|| format!("refused: {message}\ntheirs: {theirs:#?}"))
            }
        };
        wrong.extend(complaint.map(|complaint| format!("{text}{complaint}")));
    }
    wrong.retain(|complaint| {
        !ON_PURPOSE
            .iter()
            .any(|(line, said, _)| complaint.contains(line) && complaint.contains(said))
    });
    println!("{prefix}: {} lines", files.len());
    for (module, (loaded, refused)) in &sums {
        println!("  {module:<12} {loaded:>3} load, {refused:>3} refused");
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), files.len(), wrong.join("\n"));
    let never: Vec<_> = sums.iter().filter(|(_, sum)| sum.0 == 0).collect();
    assert!(never.is_empty(), "no use of these loads: {never:?}");
}

/// Reads and compiles; what it prints, or why not.
fn load(
    text: &str,
    family: Family,
    names: &TableNames,
    sets: &Arc<Registry>,
) -> Result<String, String> {
    let parsed = parse(text, "coverage", family, names).map_err(|findings| {
        let error = findings.iter().find(|one| one.severity == Severity::Error);
        error.map_or("no error".to_owned(), |error| error.message.clone())
    })?;
    match check::compiles(&parsed.ruleset, "coverage", sets) {
        Some(finding) => Err(finding.message),
        None => Ok(print(&parsed.ruleset, names, None)),
    }
}

#[test]
fn every_module_of_iptables_is_used_well_and_badly() {
    run(Family::V4, "iptables");
}

#[test]
fn every_module_of_ip6tables_is_used_well_and_badly() {
    run(Family::V6, "ip6tables");
}

/// What has no wrong operand that fits on a line.
const NEVER_BAD: &[&str] = &["comment", "helper"];

/// Names in the first cells of the table below that head in the documentation.
fn documented(section: &str, head: &str) -> BTreeSet<String> {
    let text = include_str!("../../docs/compatibility.md");
    let section = text.split(section).nth(1).expect("the section");
    let rows = section.split(head).nth(1).expect("the table").lines().skip(2);
    let rows = rows.take_while(|row| row.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[test]
fn no_documented_match_or_target_is_forgotten() {
    let modules = modules();
    let used = |target| -> BTreeSet<String> {
        let names = modules.iter().filter(|module| module.target == target);
        names.map(|module| module.name.to_owned()).collect()
    };
    let matches = documented("\n## Matches\n", "\n| match | options |");
    let known = used(false);
    let missing: Vec<_> = matches.difference(&known).collect();
    assert!(missing.is_empty(), "matches without uses in coverage/uses.txt: {missing:?}");
    let mut targets = documented("\n## Targets\n", "\n| target | options | where |");
    // Those of the sentence above the table.
    let text = include_str!("../../docs/compatibility.md");
    let sentence = text.split("\n## Targets\n").nth(1).and_then(|rest| rest.split("\n|").next());
    let words = sentence.unwrap_or_default().split(|c: char| !c.is_ascii_alphanumeric());
    let name = |word: &&str| word.len() > 1 && word.bytes().all(|b| b.is_ascii_uppercase());
    targets.extend(words.filter(name).map(str::to_owned));
    let plain = ["ACCEPT", "DROP", "RETURN"];
    targets.retain(|name| !plain.contains(&&**name));
    let known = used(true);
    let missing: Vec<_> = targets.difference(&known).collect();
    assert!(missing.is_empty(), "targets without uses in coverage/uses.txt: {missing:?}");
    assert!(matches.len() > 50 && targets.len() > 25, "{matches:?} {targets:?}");
    for module in &modules {
        let operands = module.options.iter().any(|option| option.good != [""]);
        let bad = module.options.iter().any(|option| !option.bad.is_empty());
        let never = NEVER_BAD.contains(&module.name);
        assert_eq!(bad, operands && !never, "{}: needs invalid uses as well", module.name);
    }
}
