//! Which rules are proven, and which near misses are not.

use dataplane::sets::{CreateSpec, Registry, SetName, SetType};

use super::*;
use crate::compile::{DynamicState, Input, Limits, compile};
use crate::iptables::{self, TableNames};
use crate::model::Ruleset;

const ETH0: u64 = 1;
const ETH1: u64 = 2;

fn registry() -> Arc<Registry> {
    let registry = Registry::new(1);
    let create = |name: &str, kind, family| {
        let spec = CreateSpec { family, ..CreateSpec::new(kind) };
        registry.create(SetName::new(name).unwrap(), spec, false).unwrap();
    };
    create("bad", SetType::HashIp, Family::V4);
    create("nets", SetType::HashNet, Family::V4);
    create("pairs", SetType::HashIpPort, Family::V4);
    create("bad6", SetType::HashIp, Family::V6);
    Arc::new(registry)
}

/// What is said of the rules of an IPv4 policy, of those of interest: its number, and its
/// ports or why it is not proven.
fn said_of(text: &str, family: Family) -> Vec<(TableId, u32, Result<u64, Hindrance>)> {
    let rules = iptables::parse(text, "rules", family, &TableNames::well_known());
    let rules = rules.unwrap_or_else(|findings| panic!("{text}: {findings:?}")).ruleset;
    let other = Ruleset::empty(if family == Family::V4 { Family::V6 } else { Family::V4 });
    let (v4, v6) = match family {
        Family::V4 => (&rules, &other),
        Family::V6 => (&other, &rules),
    };
    let ports = ["eth0".to_owned(), "eth1".to_owned()];
    let input = Input { v4, v6, ports: &ports, limits: Limits::default() };
    let compiled = compile(input, &DynamicState::with_sets(registry())).unwrap();
    let found = survey(&compiled.policy, 2);
    assert!(found.iter().all(|it| it.family == family));
    found.into_iter().map(|it| (it.table, it.number, it.proven)).collect()
}

fn raw(rules: &[&str]) -> Vec<(u32, Result<u64, Hindrance>)> {
    let rules: String = rules.iter().map(|rule| format!("-A PREROUTING {rule}\n")).collect();
    let text = format!("*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{rules}COMMIT\n");
    let found = said_of(&text, Family::V4);
    let one = |(table, number, said): (_, _, Result<u64, _>)| {
        assert_eq!(table, TableId::Raw);
        (number, said)
    };
    found.into_iter().map(one).collect()
}

const DROPS: &str = "-m set --match-set bad src -j DROP";
const BOTH: Result<u64, Hindrance> = Ok(ETH0 | ETH1);

#[test]
fn rules_that_come_first_are_proven() {
    for rule in [
        DROPS,
        "-m comment --comment \"a list\" -m set --match-set bad src -j DROP",
        "-m set --match-set nets src -j DROP",
        "-m set --match-set bad src,dst -j DROP",
        "-m set --match-set bad src ! --update-counters -j DROP",
        "-i eth+ -m set --match-set bad src -j DROP",
        "-s 0.0.0.0/0 -d 0.0.0.0/0 -p all -m set --match-set bad src -j DROP",
    ] {
        assert_eq!(raw(&[rule]), [(1, BOTH)], "{rule}");
    }
    let inside = "-i eth0 -m set --match-set bad src -j DROP";
    assert_eq!(raw(&[inside]), [(1, Ok(ETH0))]);
    assert_eq!(raw(&["! -i eth0 -m set --match-set bad src -j DROP"]), [(1, Ok(ETH1))]);
    let nets = "-m set --match-set nets src -j DROP";
    assert_eq!(raw(&[DROPS, nets, inside]), [(1, BOTH), (2, BOTH), (3, Ok(ETH0))]);
    // What cannot match a port's packets does nothing to them.
    for before in ["-i lo -j ACCEPT", "-i wlan0 -j NOTRACK", "-i lo -p tcp -m tcp --syn -j LOG"] {
        assert_eq!(raw(&[before, DROPS]), [(2, BOTH)], "{before}");
    }
    // What matches those of one port leaves the others.
    for before in ["-i eth0 -j ACCEPT", "-i eth0 -m limit -j LOG", "-i eth0", "-i eth0 -j NOTRACK"]
    {
        assert_eq!(raw(&[before, DROPS]), [(2, Ok(ETH1))], "{before}");
    }
}

#[test]
fn whatever_may_act_first_is_a_hindrance() {
    for before in [
        "-s 192.0.2.1 -j ACCEPT",
        "-p tcp -m tcp --dport 22 -j ACCEPT",
        "-j LOG",
        "-j NOTRACK",
        "-j CT --zone 7",
        "-m limit --limit 1/s -j LOG",
        "-p icmp",
        "-j TRACE",
        "-m set --match-set bad dst -j DROP",
        "-m set ! --match-set bad src -j DROP",
        "-m set --match-set bad src -j ACCEPT",
        "-m set --match-set bad src",
        "-p udp -m set --match-set bad src -j DROP",
        "-j SET --add-set bad src",
        "-s 192.0.2.0/24 -j DROP",
        "-f -j DROP",
        "! -i lo -j RETURN",
    ] {
        let found = raw(&[before, DROPS]);
        assert_eq!(found.last(), Some(&(2, Err(Hindrance::After(1)))), "{before}");
    }
}

#[test]
fn near_misses_are_not_proven() {
    use Hindrance::{Asks, NoPort, Options};
    for (rule, why) in [
        ("-p tcp -m set --match-set bad src -j DROP", Asks),
        ("-s 192.0.2.0/24 -m set --match-set bad src -j DROP", Asks),
        ("! -s 192.0.2.0/24 -m set --match-set bad src -j DROP", Asks),
        ("-d 192.0.2.0/24 -m set --match-set bad src -j DROP", Asks),
        ("-f -m set --match-set bad src -j DROP", Asks),
        ("! -f -m set --match-set bad src -j DROP", Asks),
        ("-m set --match-set bad src -m mark --mark 1 -j DROP", Asks),
        ("-m set --match-set bad src -m set --match-set nets src -j DROP", Asks),
        ("-p udp -m udp --dport 1 -m set --match-set bad src -j DROP", Asks),
        ("-m limit -m set --match-set bad src -j DROP", Asks),
        ("-m set ! --match-set bad src -j DROP", Options),
        ("-m set --match-set bad dst -j DROP", Options),
        ("-m set --match-set bad dst,src -j DROP", Options),
        ("-m set --match-set nets src --return-nomatch -j DROP", Options),
        ("-m set --match-set bad src --packets-gt 3 -j DROP", Options),
        ("-m set --match-set bad src --bytes-lt 3 -j DROP", Options),
        ("-i wlan0 -m set --match-set bad src -j DROP", NoPort),
        ("-i lo -m set --match-set bad src -j DROP", NoPort),
    ] {
        assert_eq!(raw(&[rule]), [(1, Err(why))], "{rule}");
    }
    for no_candidate in ["-m set --match-set bad src -j ACCEPT", "-s 192.0.2.1 -j DROP"] {
        assert_eq!(raw(&[no_candidate]), [], "{no_candidate}");
    }
}

#[test]
fn only_the_first_chain_will_do() {
    let raw = "*raw\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n";
    let output =
        "*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -m set --match-set bad src -j DROP\nCOMMIT\n";
    let mangle = "*mangle\n:PREROUTING ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
         -A PREROUTING -m set --match-set bad src -j DROP\n\
         -A FORWARD -m set --match-set bad src -j DROP\nCOMMIT\n";
    let filter = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set bad src -j DROP\n\
         COMMIT\n";
    let tracked = "*filter\n:FORWARD ACCEPT [0:0]\n\
         -A FORWARD -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n";
    let called = "*raw\n:PREROUTING ACCEPT [0:0]\n:LIST - [0:0]\n-A PREROUTING -j LIST\n\
         -A LIST -m set --match-set bad src -j DROP\nCOMMIT\n";
    let told = |texts: &[&str]| -> Vec<_> {
        let found = said_of(&texts.concat(), Family::V4);
        found.into_iter().map(|(_, number, said)| (number, said.map(drop))).collect()
    };
    let place = Err(Hindrance::Place);
    assert_eq!(told(&[mangle]), [(1, Ok(())), (1, place)]);
    assert_eq!(told(&[mangle, tracked]), [(1, Err(Hindrance::Tracked)), (1, place)]);
    // A raw PREROUTING counts by its policy, though it has no rule.
    assert_eq!(told(&[raw, mangle]), [(1, place), (1, place)]);
    assert_eq!(told(&[output, mangle]), [(1, place), (1, place), (1, place)]);
    assert_eq!(told(&[filter]), [(1, place)]);
    assert_eq!(told(&[called]), [(1, place)]);
}

#[test]
fn each_family_is_judged_by_itself() {
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m set --match-set bad6 src -j DROP\n\
         COMMIT\n";
    let found = said_of(text, Family::V6);
    assert_eq!(found, [(TableId::Raw, 1, Ok(ETH0 | ETH1))]);
}

#[test]
fn hindrances_are_told_in_words() {
    for why in [Hindrance::Place, Hindrance::Tracked, Hindrance::After(7), Hindrance::Asks] {
        let said = why.to_string();
        assert!(!said.is_empty() && !said.ends_with('.'), "{said}");
    }
    assert!(Hindrance::After(7).to_string().contains("rule 7"));
}
