//! Stateful policies in the shapes that operators write, with rules that count
//! every packet by what connection tracking says about it.

use super::nat;
use crate::diff::rng::Rng;

/// A policy and the settings that go with it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// As in [`super::script::Batch`].
    pub rules: Vec<String>,
    /// As in [`super::script::Batch`].
    pub sysctls: Vec<(String, u64)>,
    /// Whether it translates.
    pub nat: bool,
}

/// Any policy.
pub fn generate(rng: &mut Rng, v6: bool) -> Policy {
    let mut policy = Policy { rules: Vec::new(), sysctls: sysctls(rng), nat: rng.chance(60) };
    if policy.nat {
        policy.rules.extend(nat::rules(rng, v6));
    }
    if rng.chance(30) {
        raw(rng, v6, policy.nat, &mut policy.rules);
    }
    if rng.chance(30) {
        headers(rng, v6, &mut policy.rules);
    }
    counters(&mut policy.rules);
    marks(rng, &mut policy.rules);
    filter(rng, v6, &mut policy.rules);
    policy
}

/// Exemptions and zones.
fn raw(rng: &mut Rng, v6: bool, nat: bool, rules: &mut Vec<String>) {
    let icmp = if v6 { "ipv6-icmp" } else { "icmp" };
    let mut rule = |text: &str| rules.push(format!("raw -A {text}"));
    match rng.below(6) {
        0 => {
            rule("PREROUTING -p udp -m udp --dport 53 -j NOTRACK");
            rule("OUTPUT -p udp -m udp --sport 53 -j CT --notrack");
        }
        1 => rule(&format!("PREROUTING -i eth1 -p {icmp} -j CT --notrack")),
        2 => {
            rule("PREROUTING -i eth1 -j CT --zone 3");
            rule("PREROUTING -i eth0 -j CT --zone 3");
        }
        3 if !nat => rule("PREROUTING -i eth0 -j CT --zone-orig 5"),
        4 => rule("OUTPUT -p tcp -j CT --zone 9"),
        _ => rule("PREROUTING -p tcp -m tcp --dport 443 -j CT --notrack"),
    }
}

/// Targets that change headers.
fn headers(rng: &mut Rng, v6: bool, rules: &mut Vec<String>) {
    let (hops, hop) = if v6 { ("HL", "hl") } else { ("TTL", "ttl") };
    let rule = match rng.below(7) {
        0 => {
            "FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu".to_owned()
        }
        1 => "POSTROUTING -p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 1200".to_owned(),
        2 => format!("PREROUTING -i eth0 -j {hops} --{hop}-inc 3"),
        3 => format!("POSTROUTING -o eth2 -j {hops} --{hop}-set 40"),
        4 => "FORWARD -m conntrack --ctstate ESTABLISHED -j TOS --set-tos 0x10/0x3f".to_owned(),
        5 => "POSTROUTING -p udp -j DSCP --set-dscp 46".to_owned(),
        _ if v6 => "PREROUTING -j DSCP --set-dscp 8".to_owned(),
        _ => "POSTROUTING -p tcp -j ECN --ecn-tcp-remove".to_owned(),
    };
    rules.push(format!("mangle -A {rule}"));
}

/// Rules without a target: what each packet was, read from the counters.
fn counters(rules: &mut Vec<String>) {
    for chain in ["PREROUTING", "OUTPUT"] {
        for state in ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"] {
            rules.push(format!("mangle -A {chain} -m conntrack --ctstate {state}"));
        }
        for status in ["NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"] {
            rules.push(format!("mangle -A {chain} -m conntrack --ctstatus {status}"));
        }
        for direction in ["ORIGINAL", "REPLY"] {
            rules.push(format!("mangle -A {chain} -m conntrack --ctdir {direction}"));
        }
    }
    for chain in ["FORWARD", "INPUT", "POSTROUTING"] {
        for state in ["NEW", "ESTABLISHED", "RELATED", "INVALID"] {
            rules.push(format!("mangle -A {chain} -m state --state {state}"));
        }
    }
}

fn marks(rng: &mut Rng, rules: &mut Vec<String>) {
    if rng.chance(25) {
        let rule = |text: &str| format!("mangle -A PREROUTING {text}");
        rules.push(rule("-j CONNMARK --restore-mark"));
        rules.push(rule("-m mark ! --mark 0 -j ACCEPT"));
        rules.push(rule("-m conntrack --ctstate NEW -i eth0 -j MARK --set-mark 7"));
        rules.push(rule("-p udp -j MARK --or-mark 0x100"));
        rules.push(rule("-j CONNMARK --save-mark"));
    }
    if rng.chance(20) {
        rules.push("mangle -A POSTROUTING -m connmark --mark 0x7/0xf".to_owned());
        let set = "-m conntrack --ctstate ESTABLISHED -j CONNMARK --set-xmark 0x10/0x30";
        rules.push(format!("mangle -A FORWARD {set}"));
    }
}

fn filter(rng: &mut Rng, v6: bool, rules: &mut Vec<String>) {
    let icmp = if v6 { "ipv6-icmp" } else { "icmp" };
    let admin = if v6 { "icmp6-adm-prohibited" } else { "icmp-admin-prohibited" };
    let style = rng.below(7);
    for chain in ["FORWARD", "INPUT"] {
        let mut rule = |text: &str| rules.push(format!("filter -A {chain} {text}"));
        match style {
            0 => {}
            1 | 2 => {
                rule("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
                rule("-m conntrack --ctstate INVALID -j DROP");
                rule("-i eth0 -m conntrack --ctstate NEW -j ACCEPT");
                rule("-p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j ACCEPT");
                rule(&format!("-p {icmp} -j ACCEPT"));
            }
            3 => {
                rule("-m state --state INVALID -j DROP");
                rule("-m state --state ESTABLISHED -j ACCEPT");
                rule("-p tcp -m tcp --syn -j ACCEPT");
                rule("-p udp -j ACCEPT");
            }
            4 => {
                rule("-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT");
                rule("-i eth0 -j ACCEPT");
                if chain == "FORWARD" {
                    rule("-p tcp -j REJECT --reject-with tcp-reset");
                    rule(&format!("-j REJECT --reject-with {admin}"));
                }
            }
            5 => {
                rule("-m conntrack --ctstate RELATED -j DROP");
                rule("-m conntrack --ctdir REPLY -m conntrack ! --ctstatus ASSURED -j ACCEPT");
                rule("-p tcp -m conntrack --ctstate INVALID -j ACCEPT");
            }
            _ => {
                rule("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK RST -j DROP");
                rule("-m conntrack --ctstate NEW -p tcp -m tcp ! --syn -j DROP");
            }
        }
    }
    if matches!(style, 1..=3) {
        rules.push("filter -P FORWARD DROP".to_owned());
        rules.push("filter -P INPUT DROP".to_owned());
    }
}

/// At most one setting that is not the kernel's own.
fn sysctls(rng: &mut Rng) -> Vec<(String, u64)> {
    if rng.chance(65) {
        return Vec::new();
    }
    let (name, value) = match rng.below(9) {
        0 => ("tcp_loose", 0),
        1 => ("checksum", 0),
        2 => ("tcp_be_liberal", 1),
        3 => ("tcp_ignore_invalid_rst", 1),
        4 => ("tcp_max_retrans", rng.pick(&[0, 1, 2, 255])),
        5 => ("tcp_timeout_syn_sent", rng.pick(&[20, 77, 500])),
        6 => ("tcp_timeout_unacknowledged", rng.pick(&[20, 77, 500])),
        7 => ("tcp_timeout_max_retrans", rng.pick(&[20, 77, 500])),
        _ => ("udp_timeout", rng.pick(&[20, 77, 500])),
    };
    vec![(name.to_owned(), value)]
}
