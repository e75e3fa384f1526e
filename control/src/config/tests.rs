//! Places, errors all at once, and which layer beats which.

use std::path::{Path, PathBuf};

use dataplane::port::afxdp::OnFailure;

use super::*;

const FILE: &str = "/etc/portcullis/portcullis.toml";

fn parsed(text: &str) -> Layer {
    read(text, Path::new(FILE)).unwrap_or_else(|findings| panic!("{findings:#?}"))
}

/// `line:column+len code message | remedy` of every finding.
fn refused(text: &str) -> Vec<String> {
    let findings = read(text, Path::new(FILE)).expect_err("it is refused");
    let said = |it: &Finding| {
        let remedy = it.remedy.as_deref().unwrap_or("-");
        let code = it.code.name();
        format!("{}:{}+{} {code} {} | {remedy}", it.line, it.column, it.len, it.message)
    };
    findings.iter().map(said).collect()
}

const WHOLE: &str = r#"
ports = ["eth0", "eth1"]
mode = "bridge"
bridge = [["eth0", "eth1"]]
workers = 2

[policy]
rules = "rules.v4"
rules6 = "/rules.v6"
sets = ["sets", "/more.save"]
counters = true

[xdp]
attach = "native"
zero-copy = "force"
blocklist = 12

[host]
road = "off"

[engine]
plans = false

[failure]
on-failure = "closed"
pin-dir = "/sys/fs/bpf/it"
watchdog = 250

[conntrack]
max = 4_096
settings = { tcp_loose = 0, "net.netfilter.nf_conntrack_udp_timeout" = 10 }

[conntrack.timeouts.patient]
protocol = "tcp"
established = 864000

[state]
file = "none"
interval = 7

[history]
dir = "history"
keep = 100
days = 30

[change]
require = ["reason", "ticket"]
probes = ["192.0.2.1:443", "[2001:db8::1]:22"]

[log]
file = "log/it"
json = "log/json"
rate = 5
burst = 6
budget = 20
rotate-mib = 7
rotate-hours = 8
keep = 9
top = 10
trace-rate = 11

[nflog]
dir = "captures"
files = "one"
link = "ethernet"
rate = 12
rotate-mib = 13
keep = 14

[control]
socket = "/run/it.sock"
group = 0x10

[management]
allow = ["198.51.100.0/24 tcp 22,443", "2001:db8::/48 icmp"]

[service]
user = "998:997"
seccomp = "log"
[lint]
accept-any = "deny"
[matrix]
file = "matrix.toml"
interval = 60

[metrics]
listen = "[::1]:9649"
rules = 12

[[alert]]
url = "http://192.0.2.1/hook"
events = ["rollback"]

[[pressure]]
name = "siege"
enter = { cpu = 90 }
timeouts = { udp_timeout = 5 }
"#;

#[test]
fn every_key_is_read() {
    let layer = parsed(WHOLE);
    let settings = Settings::of(&Layer::default(), &layer);
    for key in KEYS {
        for line in key.lines(&settings) {
            assert!(matches!(line.origin, Origin::File(_)), "{} is not in the text", key.name);
        }
        assert!(!key.lines(&settings).is_empty(), "{} is not in the text", key.name);
    }
    assert_eq!(settings.rules.value, Some(PathBuf::from("/etc/portcullis/rules.v4")));
    assert_eq!(settings.rules6.value, Some(PathBuf::from("/rules.v6")));
    assert_eq!(settings.log.value, Some(PathBuf::from("/etc/portcullis/log/it")));
    assert_eq!(settings.state_file.value, Some(StateFile::Nowhere));
    assert_eq!(settings.socket_group.value, Some(Whole(16)));
    let Origin::File(at) = settings.state_interval.origin else { panic!() };
    assert_eq!((at.line, at.column, at.len), (39, 12, 1));
    let named: Vec<_> = settings.settings.value.values().collect();
    assert_eq!(named, [("tcp_loose", 0), ("udp_timeout", 10)]);
    let timeouts = &settings.timeouts.value.0[0].value;
    assert_eq!((timeouts.name.as_str(), timeouts.protocol.as_str()), ("patient", "tcp"));
    assert_eq!(timeouts.values, [("established".to_owned(), 864_000)]);
}

#[test]
fn all_errors_come_at_once_with_their_places() {
    let text = r#"prots = ["eth0"]
mode = "route"
workers = 0
rules = "x"
state-interval = 5
ports = ["eth0", "a/b", "eth0", 7]
policy = 3

[xdp]
zero_copy = "auto"
attach = 5

[conntrack]
settings = { tcp_lose = 0, max = 4, tcp_loose = 9, buckets = 1 }

[conntrack.timeouts]
a = { protocol = "tpc" }
b = { protocol = "tcp", established = 1, "näme" = 3 }

[nothing.like.it]
x = 1
"#;
    let expected = [
        "1:1+5 unknown-key there is no key `prots` | did you mean `ports`?",
        "2:8+7 bad-value there is no choice \"route\" | did you mean \"routed\"? It is \
         \"routed\", \"bridge\" or \"host\"",
        "3:11+1 bad-value 0 is out of range | write a whole number, 1 to 256",
        "4:1+5 unknown-key there is no key `rules` | did you mean `policy.rules`?",
        "5:1+14 unknown-key there is no key `state-interval` | did you mean `state.interval`?",
        "6:18+5 bad-value \"a/b\" is no interface name | `ip link` lists the names, at most 15 \
         bytes long",
        "6:25+6 bad-value eth0 again | a port is named once",
        "6:33+1 wrong-type expected interface name, as a string, found integer | -",
        "7:10+1 wrong-type expected table, as [policy], found integer | -",
        "10:1+9 unknown-key there is no key `xdp.zero_copy` | did you mean `xdp.zero-copy`?",
        "11:10+1 wrong-type expected \"auto\", \"native\" or \"generic\", found integer | -",
        "14:14+8 unknown-key unknown conntrack setting `tcp_lose` | did you mean `tcp_loose`?",
        "14:28+3 bad-value `max` has a key of its own | write `max` in [conntrack]",
        "14:49+1 bad-value conntrack setting `tcp_loose` must be 0 to 1, not 9 | write a number \
         in that range",
        "14:52+7 bad-value conntrack setting `buckets` has no counterpart here: the table has a \
         fixed shape, made at the start for `max` connections | `portcullis sysctl` lists them",
        "17:18+5 bad-value timeout policy `a`: unknown protocol `tpc` | tcp, udp, udplite, icmp, \
         icmpv6, gre, sctp or generic",
        "18:42+6 bad-value timeout policy `b`: its protocol has no timeout `näme` | the states \
         are those of `nfct`",
        "20:2+7 unknown-key there is no key `nothing` | `portcullis config keys` lists them all",
    ];
    let found = refused(text);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_syntax_error_has_a_place() {
    let found = refused("ports = [\"eth0\"]\nmode = \"routed\nworkers = = 2\n");
    assert!(found.iter().all(|it| it.contains("bad-syntax")), "{found:#?}");
    assert!(found[0].starts_with("2:"), "{found:#?}");
    assert!(found.iter().any(|it| it.starts_with("3:")), "{found:#?}");
    let twice = refused("mode = \"host\"\nmode = \"host\"\n");
    assert!(twice[0].starts_with("2:1+4 bad-syntax duplicate key"), "{twice:#?}");
    // Letters of several bytes count as one column each.
    let later = refused("# ü\n[log]\nfile = \"é\" x\n");
    assert!(later[0].starts_with("3:12+1 bad-syntax"), "{later:#?}");
}

#[test]
fn findings_end_somewhere() {
    let text: String = (0..1000).map(|n| format!("zzz{n} = 1\n")).collect();
    let found = refused(&text);
    assert_eq!(found.len(), 101);
    assert!(found[100].contains("too-many and 900 more"), "{}", found[100]);
}

#[test]
fn flags_beat_the_file_which_beats_the_defaults_key_by_key() {
    let file = parsed(
        "workers = 2\n[log]\nfile = \"/file\"\n[conntrack]\n\
         settings = { tcp_loose = 0, acct = 1 }\n\
         timeouts = { a = { protocol = \"tcp\" }, b = { protocol = \"udp\" } }\n",
    );
    let named = |name: &str| crate::daemon::NamedTimeouts {
        name: name.to_owned(),
        protocol: "gre".to_owned(),
        values: Vec::new(),
    };
    let flags = Layer {
        log: Given::flag(Some(Some("/flag".into()))),
        settings: Given::flag(Some(SettingTable::of_flags(vec![
            ("nf_conntrack_acct".to_owned(), 0),
            ("udp_timeout".to_owned(), 9),
        ]))),
        timeouts: Given::flag(Some(TimeoutTable::of_flags(vec![named("b")]))),
        ..Layer::default()
    };
    let settings = Settings::of(&flags, &file);
    assert_eq!((settings.log.value, settings.log.origin), (Some("/flag".into()), Origin::Flag));
    assert_eq!(settings.workers.value, Some(Whole(2)));
    assert_eq!(settings.mode, Given { value: ModeName::Routed, origin: Origin::Default });
    let values: Vec<_> = settings.settings.value.values().collect();
    assert_eq!(values, [("acct", 0), ("tcp_loose", 0), ("udp_timeout", 9)]);
    let timeouts: Vec<_> = settings.timeouts.value.0.iter().map(|it| &it.value).collect();
    let protocols: Vec<_> =
        timeouts.iter().map(|it| (it.name.as_str(), it.protocol.as_str())).collect();
    assert_eq!(protocols, [("b", "gre"), ("a", "tcp")]);
}

#[test]
fn keys_that_contradict_each_other_are_refused_with_the_place() {
    let resolve = |text: &str| {
        let settings = Settings::of(&Layer::default(), &parsed(text));
        let configured = Configured { source: Source::default(), settings, text: None };
        configured.resolve().map_err(|conflict| {
            let found = conflict.finding(Path::new(FILE));
            (conflict.key, conflict.problem, found.map(|it| (it.line, it.column)))
        })
    };
    let problem = |text: &str| resolve(text).expect_err("it is refused");
    let pairs = "pairs need mode = \"bridge\" (--mode bridge)".to_owned();
    let text = "ports = [\"a\", \"b\"]\nbridge = [[\"a\", \"b\"]]\n";
    assert_eq!(problem(text), ("bridge", pairs, Some((2, 10))));
    let text = "ports = [\"a\", \"b\"]\nbridge = [[\"a\", \"c\"]]\nmode = \"bridge\"\n";
    assert_eq!(problem(text), ("bridge", "c is no port".to_owned(), Some((2, 10))));
    let (key, _, place) = problem("ports = []\n");
    assert_eq!((key, place), ("ports", Some((1, 9))));
    assert_eq!(problem("").2, None);
    let config = resolve("ports = [\"a\", \"b\"]\nmode = \"bridge\"\n").unwrap();
    assert_eq!(config.state, Some(DEFAULT_STATE.into()));
    assert_eq!(config.failure.on_failure, OnFailure::Open);
    let config = resolve("ports = [\"a\"]\n[control]\nsocket = \"x\"\n").unwrap();
    assert_eq!(config.state, None);
    assert_eq!(config.failure.on_failure, OnFailure::Closed, "a gateway");
}

#[test]
fn the_reference_in_the_manual_is_the_table_of_keys() {
    let manual = include_str!("../../../docs/operations.md");
    let begin = "<!-- keys: `portcullis config keys --markdown` prints this table -->\n";
    let (_, rest) = manual.split_once(begin).expect("the manual has the table");
    let (table, _) = rest.split_once("<!-- end of keys -->").expect("the table ends");
    assert!(table == reference(), "docs/operations.md is stale: put there\n{}", reference());
}

#[test]
fn every_key_is_documented_has_a_flag_and_can_be_looked_up() {
    let command = crate::cli::command();
    let run = command.find_subcommand("run").expect("run is a command");
    let flags: Vec<String> = run
        .get_arguments()
        .filter_map(|argument| argument.get_long().map(|long| format!("--{long}")))
        .collect();
    for key in KEYS {
        assert!(key.summary().ends_with('.'), "{} is not documented", key.name);
        // What `run` has nothing to do with has no flag of it.
        let flagged = key.flag.is_empty() || flags.iter().any(|flag| flag == key.flag);
        assert!(flagged, "{} is no flag of run", key.flag);
        assert_eq!(KEYS.iter().filter(|other| other.name == key.name).count(), 1, "{}", key.name);
        assert!(key.name.chars().all(|c| c.is_ascii_lowercase() || "-.6".contains(c)));
    }
    // And the other way round: flags that are no setting are few.
    let not_settings = ["--config", "--inject-faults", "--json"];
    for flag in flags.iter().filter(|flag| !not_settings.contains(&flag.as_str())) {
        assert!(KEYS.iter().any(|key| key.flag == flag), "{flag} has no key");
    }
}

fn set(text: &str) -> Settings {
    Settings::of(&Layer::default(), &parsed(text))
}

fn paths(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| change.key.as_str()).collect()
}

#[test]
fn a_plan_parts_what_is_live_from_what_needs_a_restart() {
    let old =
        set("workers = 2\n[conntrack]\nsettings = { acct = 1, expect_max = 9, udp_timeout = 3 }\n");
    let new = set("mode = \"host\"\n[state]\ninterval = 9\n[conntrack]\n\
         settings = { acct = 0, expect_max = 99, icmp_timeout = 3 }\n");
    let hindered = |change: &Change| {
        let hindered = change.key.ends_with("expect_max");
        hindered.then(|| "too many".to_owned())
    };
    let plan = plan(&old, &new, hindered);
    let live = ["acct", "icmp_timeout", "udp_timeout"].map(|it| format!("conntrack.settings.{it}"));
    let mut live: Vec<&str> = live.iter().map(String::as_str).collect();
    live.push("state.interval");
    assert_eq!(paths(&plan.live), live);
    assert_eq!(paths(&plan.restart), ["mode", "workers", "conntrack.settings.expect_max"]);
    assert_eq!(plan.restart[2].why.as_deref(), Some("too many"));
    let workers = &plan.restart[1];
    assert_eq!((&workers.old, &workers.new), (&Some(toml::Value::Integer(2)), &None));
    let values: Vec<_> = plan.next.settings.value.values().collect();
    assert_eq!(values, [("acct", 0), ("expect_max", 9), ("icmp_timeout", 3)]);
    assert_eq!(plan.next.mode.value, ModeName::Routed);
    assert_eq!(plan.next.workers.value, Some(Whole(2)));
    assert_eq!(plan.next.state_interval.value, Whole(9));
    // What stays is found again the next time.
    let again = super::plan(&plan.next, &new, hindered);
    assert_eq!((again.live.len(), paths(&again.restart)), (0, paths(&plan.restart)));
}

mod properties {
    //! What is shown loads again as the same.

    use proptest::prelude::*;

    use super::*;
    use crate::daemon::NamedTimeouts;

    fn path() -> impl Strategy<Value = PathBuf> {
        "/[^\0/]{1,12}".prop_map(PathBuf::from)
    }

    fn port() -> impl Strategy<Value = String> {
        "[a-z\"'#\\\\é]{1,7}"
    }

    fn given<T: Clone + std::fmt::Debug>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Option<Given<T>>> {
        prop::option::of(value).prop_map(Given::flag)
    }

    fn settings() -> impl Strategy<Value = SettingTable> {
        let pairs = prop::sample::subsequence(vec!["tcp_loose", "acct", "udp_timeout"], 0..=3);
        (pairs, 0u64..=1).prop_map(|(names, value)| {
            SettingTable::of_flags(names.into_iter().map(|it| (it.to_owned(), value)).collect())
        })
    }

    fn timeouts() -> impl Strategy<Value = TimeoutTable> {
        let named = ("[^\0]{0,6}", 0u64..100, 0u64..100).prop_map(|(name, a, b)| NamedTimeouts {
            name,
            protocol: "tcp".to_owned(),
            values: vec![("close".to_owned(), a), ("established".to_owned(), b)],
        });
        prop::collection::vec(named, 0..4).prop_map(|mut all| {
            all.sort_by(|one, other| one.name.cmp(&other.name));
            all.dedup_by(|one, other| one.name == other.name);
            TimeoutTable::of_flags(all)
        })
    }

    prop_compose! {
        fn layer()(
            ports in given(prop::collection::btree_set(port(), 0..5)),
            bridge in given(prop::collection::vec((port(), port()), 0..3)),
            workers in given(prop::option::of((1u64..=256).prop_map(Whole))),
            rules in given(prop::option::of(path())),
            counters in given(any::<bool>()),
            max in given(prop::option::of((1u64..1000).prop_map(Whole))),
            settings in given(settings()),
            timeouts in given(timeouts()),
            state in given(prop::option::of(path())),
            log in given(prop::option::of(path())),
            group in given(prop::option::of((0u64..=4_294_967_294).prop_map(Whole))),
        ) -> Layer {
            Layer {
                ports: ports.map(|it| Given { value: Ports(it.value.into_iter().collect()), origin: it.origin }),
                bridge: bridge.map(|it| Given { value: Pairs(it.value), origin: it.origin }),
                workers,
                rules,
                counters,
                conntrack_max: max,
                settings,
                timeouts,
                state_file: state.map(|it| Given { value: it.value.map(StateFile::from), origin: it.origin }),
                log,
                socket_group: group,
                ..Layer::default()
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_loads_again_as_the_same(layer in layer(), file in "[^\0]{0,9}") {
            let settings = Settings::of(&layer, &Layer::default());
            let text = settings.text(Some(Path::new(&file)));
            let read = read(&text, Path::new(FILE));
            let read = read.unwrap_or_else(|findings| panic!("{text}\n{findings:#?}"));
            let again = Settings::of(&Layer::default(), &read);
            for key in KEYS {
                prop_assert!(!key.differs(&settings, &again), "{}: {text}", key.name);
            }
        }

        #[test]
        fn no_text_breaks_the_reader(text in "[\\PC\n]{0,200}") {
            let _ = read(&text, Path::new(FILE));
        }

        #[test]
        fn no_mutation_of_a_file_breaks_the_reader(
            at in 0..WHOLE.len(), len in 0usize..9, with in "[a-z0-9=\\[\\]{}\"'.,\n]{0,5}",
        ) {
            let end = (at + len).min(WHOLE.len());
            let text = format!("{}{with}{}", &WHOLE[..at], &WHOLE[end..]);
            if let Err(findings) = read(&text, Path::new(FILE)) {
                for finding in &findings {
                    prop_assert!(finding.line as usize <= text.split('\n').count());
                    crate::diagnostics::render(finding, Some(&text));
                }
            }
        }
    }
}
