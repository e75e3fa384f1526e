//! Regions and packets in words that people and `explain` know.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::{Family, L4Class, PortId};
use dataplane::policy::{NO_INTERFACE, state_class};
use dataplane::wire::proto;

use super::{Bytes, Point, Ranges, Region, Space, real};

/// Most ranges or values that are listed of one field.
const LISTED: usize = 6;

const STATES: [(u64, &str); 5] = [
    (state_class::INVALID, "INVALID"),
    (state_class::NEW, "NEW"),
    (state_class::ESTABLISHED, "ESTABLISHED"),
    (state_class::RELATED, "RELATED"),
    (state_class::UNTRACKED, "UNTRACKED"),
];
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

/// Puts regions into words.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'s> {
    /// The space that they are of.
    pub space: &'s Space,
    /// Names of its ports.
    pub ports: &'s [String],
    /// What packets have anyway, of which nothing is said.
    pub given: &'s Region,
}

impl Speaker<'_> {
    /// A region in words; what is said of atoms is left out.
    pub fn words(&self, region: &Region) -> String {
        let mut words = String::new();
        let family = self.space.family;
        let bits = self.space.address_bits();
        for (name, set) in [("src", &region.src), ("dst", &region.dst)] {
            if *set != Ranges::all(bits) {
                add(&mut words, name, &listed(set.ranges(), |it| addresses(family, *it)));
            }
        }
        let one = protocol(region.proto);
        let kinds = region.classes[3];
        if kinds == L4Class::LaterFragment.bit() {
            add(&mut words, "fragments", "not the first");
        }
        if let Some(one) = one {
            add(&mut words, "proto", &name_of(one));
        } else if region.proto != Bytes::ALL && !self.is_kind(region.proto) {
            let values: Vec<u8> = (0..=u8::MAX).filter(|it| region.proto.contains(*it)).collect();
            add(&mut words, "proto", &listed(&values, |it| name_of(*it)));
        }
        let icmp = matches!(one, Some(proto::ICMP | proto::ICMPV6));
        let names = if icmp { ["type", "code"] } else { ["sport", "dport"] };
        let all = if icmp { Ranges::all(8) } else { Ranges::all(16) };
        for (name, set) in names.into_iter().zip([&region.sport, &region.dport]) {
            if *set != all && *set != Ranges::of(0, 0) {
                add(&mut words, name, &listed(set.ranges(), |(low, high)| span(low, high)));
            }
        }
        if one == Some(proto::TCP) && region.flags != Bytes::ALL {
            let values: Vec<u8> = (0..=u8::MAX).filter(|it| region.flags.contains(*it)).collect();
            let text = match values.len() {
                0..=LISTED => listed(&values, |it| flags(*it)),
                count => format!("one of {count} combinations"),
            };
            add(&mut words, "flags", &text);
        }
        for (at, name) in ["in", "out"].into_iter().enumerate() {
            if region.classes[at] != self.given.classes[at] {
                add(&mut words, name, &self.interfaces(region.classes[at]));
            }
        }
        if region.classes[2] != self.given.classes[2] {
            let names = STATES.iter().filter(|(bit, _)| region.classes[2] & bit != 0);
            let names: Vec<&str> = names.map(|(_, name)| *name).collect();
            add(&mut words, "state", &names.join(","));
        }
        if words.is_empty() { "everything".to_owned() } else { words }
    }

    /// Addresses in words, range by range; no word for all of them.
    pub fn addresses(&self, set: &Ranges) -> Vec<String> {
        if *set == Ranges::all(self.space.address_bits()) {
            return Vec::new();
        }
        set.ranges().iter().map(|it| addresses(self.space.family, *it)).collect()
    }

    /// The names of interfaces, by their bits; no word for all that there are, `others` for those
    /// that no rule names.
    pub fn names(&self, bits: u64, all: u64) -> Vec<String> {
        if bits & all == all {
            return Vec::new();
        }
        let of = |at: u32| self.port(1 << at).filter(|_| bits & all >> at << at & 1 << at != 0);
        let named = (0..64).filter_map(of);
        named.map(|it| if it == "*" { "others".to_owned() } else { it.to_owned() }).collect()
    }

    /// Protocols by name; no word for all of a kind of [`real`] regions with many.
    pub fn protocols(&self, set: Bytes) -> Vec<String> {
        if set == Bytes::ALL || self.is_kind(set) {
            return Vec::new();
        }
        (0..=u8::MAX).filter(|it| set.contains(*it)).map(name_of).collect()
    }

    /// Whether it is all protocols of one kind of [`real`] regions.
    fn is_kind(&self, proto: Bytes) -> bool {
        real(self.space).iter().any(|it| it.proto == proto && proto.len() > LISTED as u32)
    }

    fn interfaces(&self, bits: u64) -> String {
        let named = self.ports.iter().enumerate();
        let mut names: Vec<&str> = named
            .filter(|(at, _)| bits & PortId(*at as u8).bit() != 0)
            .map(|(_, name)| name.as_str())
            .collect();
        if bits & PortId::LOOPBACK.bit() != 0 {
            names.push("lo");
        }
        if bits & NO_INTERFACE != 0 {
            names.push("none");
        }
        listed(&names, |it| if *it == "*" { "others".to_owned() } else { (*it).to_owned() })
    }

    /// A port's name by its bit, if it is one.
    pub fn port(&self, bit: u64) -> Option<&str> {
        if bit == NO_INTERFACE {
            return None;
        }
        if bit == PortId::LOOPBACK.bit() {
            return Some("lo");
        }
        self.ports.get(bit.trailing_zeros() as usize).map(String::as_str)
    }
}

fn add(words: &mut String, name: &str, value: &str) {
    let gap = if words.is_empty() { "" } else { " " };
    // Writing to a string cannot fail.
    let _ = write!(words, "{gap}{name} {value}");
}

fn listed<T>(values: &[T], tell: impl Fn(&T) -> String) -> String {
    let mut words: Vec<String> = values.iter().take(LISTED).map(tell).collect();
    if values.len() > LISTED {
        words.push(format!("... ({} in all)", values.len()));
    }
    words.join(",")
}

fn span(low: &u128, high: &u128) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

/// The only protocol of a set.
fn protocol(set: Bytes) -> Option<u8> {
    (set.len() == 1).then(|| set.pick(0)).flatten()
}

fn name_of(number: u8) -> String {
    match number {
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::ICMP => "icmp",
        proto::ICMPV6 => "icmpv6",
        proto::SCTP => "sctp",
        proto::UDPLITE => "udplite",
        proto::GRE => "gre",
        proto::ESP => "esp",
        proto::AH => "ah",
        _ => return number.to_string(),
    }
    .to_owned()
}

fn flags(byte: u8) -> String {
    let names = FLAGS.iter().enumerate().filter(|(bit, _)| byte >> bit & 1 != 0);
    let names: Vec<&str> = names.map(|(_, name)| *name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join("+") }
}

fn address(family: Family, value: u128) -> String {
    match family {
        Family::V4 => Ipv4Addr::from_bits(value as u32).to_string(),
        Family::V6 => Ipv6Addr::from_bits(value).to_string(),
    }
}

/// A range of addresses, as a prefix where it is one.
fn addresses(family: Family, (low, high): (u128, u128)) -> String {
    let bits = if family == Family::V4 { 32 } else { 128 };
    let span = high - low;
    let prefix = span & span.wrapping_add(1) == 0 && low & span == 0;
    match (span, prefix) {
        (0, _) => address(family, low),
        (_, true) => format!("{}/{}", address(family, low), bits - span.count_ones()),
        _ => format!("{}-{}", address(family, low), address(family, high)),
    }
}

/// A packet as words for `explain`.
pub fn point_words(speaker: &Speaker<'_>, point: &Point) -> Vec<String> {
    let family = speaker.space.family;
    let mut words = Vec::new();
    for (key, bit) in [("in", point.classes[0]), ("out", point.classes[1])] {
        if let Some(port) = speaker.port(bit) {
            words.push(format!("{key}={port}"));
        }
    }
    words.push(format!("src={}", address(family, point.src)));
    words.push(format!("dst={}", address(family, point.dst)));
    words.push(format!("proto={}", name_of(point.proto)));
    match point.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => {
            words.push(format!("sport={}", point.sport));
            words.push(format!("dport={}", point.dport));
        }
        proto::ICMP | proto::ICMPV6 => {
            words.push(format!("type={}", point.sport));
            words.push(format!("code={}", point.dport));
        }
        _ => {}
    }
    if point.proto == proto::TCP {
        words.push(format!("flags={}", flags(point.flags).replace('+', ",")));
    }
    if let Some((_, name)) = STATES.iter().find(|(bit, _)| *bit == point.classes[2]) {
        words.push(format!("state={name}"));
    }
    words
}
