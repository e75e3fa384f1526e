//! Policies as gateways have them, as `iptables-save` text of any length: chains by
//! subnet, comments, counters, sets, states, translations.

use std::fmt::Write;

use dataplane::packet::Family;

use crate::sets::Rng;

/// Rules of a user chain.
const CHAIN: usize = 200;

/// How generated rules hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// All in FORWARD.
    Flat,
    /// A chain for each subnet, with comments and counters, and a nat table.
    Chains,
}

/// The sets that rules of [`Shape::Chains`] name, as `ipset save` prints them.
pub(crate) fn sets(family: Family) -> &'static str {
    match family {
        Family::V4 => "create banned hash:ip\ncreate offices hash:net\n",
        Family::V6 => "create banned hash:ip family inet6\ncreate offices hash:net family inet6\n",
    }
}

/// So many rules.
pub(crate) fn text(shape: Shape, family: Family, rules: usize, seed: u64) -> String {
    let mut maker = Maker { rng: Rng(seed), family, text: String::new() };
    match shape {
        Shape::Flat => maker.flat(rules),
        Shape::Chains => maker.chains(rules),
    }
    maker.text
}

/// The same with the port of one rule in the middle changed.
pub(crate) fn edited(text: &str) -> String {
    const PORT: &str = "--dport ";
    let middle = text.len() / 2;
    match text[middle..].find(PORT) {
        None => text.to_owned(),
        Some(at) => {
            let (front, rest) = text.split_at(middle + at + PORT.len());
            let end = rest.find(' ').unwrap_or(rest.len());
            format!("{front}4711{}", &rest[end..])
        }
    }
}

struct Maker {
    rng: Rng,
    family: Family,
    text: String,
}

impl Maker {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let written = self.text.write_fmt(line).and_then(|()| self.text.write_char('\n'));
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }

    fn source(&mut self) -> String {
        let bits = self.rng.bits() as u16;
        match self.family {
            Family::V4 => format!("10.{}.{}.0/24", bits >> 8, bits & 255),
            Family::V6 => format!("2001:db8:a:{bits:x}::/64"),
        }
    }

    fn host(&mut self) -> String {
        let bits = self.rng.bits() as u16;
        match self.family {
            Family::V4 => format!("198.18.{}.{}/32", bits >> 8, bits & 255),
            Family::V6 => format!("2001:db8:b::{bits:x}/128"),
        }
    }

    /// Mostly exact hosts and ports, some ranges, lists and interfaces.
    fn rule(&mut self, chain: &str, comments: bool) {
        let (source, target, port) = (self.source(), self.host(), self.rng.bits() as u16);
        let tail = match self.rng.below(8) {
            0 => format!("-p tcp -m multiport --dports 80,443,{port} -j ACCEPT"),
            1 => format!("-p udp -m udp --dport {}:{} -j ACCEPT", port / 2, port / 2 + 100),
            2 => "-i eth0 -o eth1 -j DROP".to_owned(),
            _ => format!("-p tcp -m tcp --dport {port} -j ACCEPT"),
        };
        let (count, comment) = match comments {
            true => {
                let ticket = self.rng.below(9_000);
                let packets = self.rng.below(100_000);
                (
                    format!("[{packets}:{}] ", packets * 64),
                    format!("-m comment --comment \"ticket {ticket}, owner=net\" "),
                )
            }
            false => (String::new(), String::new()),
        };
        self.line(format_args!("{count}-A {chain} -s {source} -d {target} {comment}{tail}"));
    }

    fn flat(&mut self, rules: usize) {
        self.line(format_args!("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]"));
        self.line(format_args!(":OUTPUT ACCEPT [0:0]"));
        self.line(format_args!("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
        (1..rules).for_each(|_| self.rule("FORWARD", false));
        self.line(format_args!("COMMIT"));
    }

    fn chains(&mut self, rules: usize) {
        let translations = rules / 20;
        self.line(format_args!("*nat\n:PREROUTING ACCEPT [5:300]\n:POSTROUTING ACCEPT [0:0]"));
        for _ in 0..translations {
            let (target, port) = (self.host(), self.rng.bits() as u16);
            let to = self.host();
            let to = to.split('/').next().unwrap_or_default();
            self.line(format_args!(
                "[0:0] -A PREROUTING -d {target} -p tcp -m tcp --dport {port} -j DNAT \
                 --to-destination {to}"
            ));
        }
        self.line(format_args!("COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]"));
        self.line(format_args!(":OUTPUT ACCEPT [0:0]"));
        let chains = rules.div_ceil(CHAIN);
        (0..chains).for_each(|chain| self.line(format_args!(":net-{chain} - [0:0]")));
        self.line(format_args!(
            "[9:500] -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        ));
        self.line(format_args!("[0:0] -A FORWARD -m set --match-set banned src -j DROP"));
        self.line(format_args!("[0:0] -A FORWARD -m set --match-set offices dst -j ACCEPT"));
        for chain in 0..chains {
            let source = self.source();
            self.line(format_args!("[0:0] -A FORWARD -s {source} -j net-{chain}"));
        }
        let left = rules.saturating_sub(3 + chains + translations);
        for rule in 0..left {
            self.rule(&format!("net-{}", rule / CHAIN), true);
        }
        self.line(format_args!("COMMIT"));
    }
}
