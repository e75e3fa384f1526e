//! Mismatches in words.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::Family;

use crate::interpret::{Actual, Mismatch, Selector, Subject};
use crate::iptables::{DCCP_TYPES, HEADER_NAMES};
use crate::model::{MatchBody, MeasureSpec, Rule, TallySpec};

/// Why the rule did not match, with the packet's value.
pub(super) fn why(mismatch: &Mismatch, rule: &Rule, subject: &Subject<'_>) -> String {
    let option = option(mismatch, rule);
    if mismatch.hotdrop {
        let what = mismatch.option;
        return format!("{option}: the packet is malformed here ({what}) and dropped");
    }
    let value = match mismatch.actual {
        Actual::Absent | Actual::Inverted => return absent(&option, mismatch),
        Actual::Number(number) if mismatch.option == "-p" => protocol(number),
        Actual::Bits(bits) if mismatch.option == "--icmp-type" => {
            format!("{}/{}", bits >> 8, bits & 0xff)
        }
        Actual::Bits(bits)
            if matches!(mismatch.option, "--tcp-flags" | "--ecn-tcp-ece" | "--ecn-tcp-cwr") =>
        {
            tcp_flags(bits as u8)
        }
        Actual::Bits(bits) if mismatch.option == "--header" => headers(bits as u8),
        Actual::Number(kind) if mismatch.option == "--dccp-types" => {
            let name = DCCP_TYPES.get(kind as usize);
            name.map_or_else(|| format!("type {kind}"), |&name| name.to_owned())
        }
        Actual::Number(number) => number.to_string(),
        Actual::Bits(bits) => format!("{bits:#x}"),
        Actual::Address(bits) => match subject.packet.family {
            Family::V4 => Ipv4Addr::from_bits(bits as u32).to_string(),
            Family::V6 => Ipv6Addr::from_bits(bits).to_string(),
        },
        Actual::Count(number) if mismatch.option.starts_with("--connlimit") => {
            return format!("{option}: its address has {number} connections");
        }
        Actual::Count(number) => number.to_string(),
        Actual::Mac(octets) => octets.map(|octet| format!("{octet:02x}")).join(":"),
        Actual::State(name) => name.to_owned(),
        Actual::Interface => match mismatch.selector {
            Selector::Input => interface(subject.input),
            _ => interface(subject.output),
        },
    };
    format!("{option}: the packet has {value}")
}

fn interface(name: &str) -> String {
    if name.is_empty() { "no interface".to_owned() } else { name.to_owned() }
}

/// The option, with its module where the rule has several.
fn option(mismatch: &Mismatch, rule: &Rule) -> String {
    match mismatch.selector {
        Selector::Match(index) if mismatch.hotdrop => format!("-m, match {}", index + 1),
        Selector::Match(index) if rule.matches.len() > 1 => {
            format!("match {}, {}", index + 1, mismatch.option)
        }
        Selector::Match(_) => mismatch.option.to_owned(),
        _ if is_negated(mismatch.selector, rule) => format!("! {}", mismatch.option),
        _ => mismatch.option.to_owned(),
    }
}

fn is_negated(selector: Selector, rule: &Rule) -> bool {
    match selector {
        Selector::Source => rule.src.is_some_and(|neg| neg.negated),
        Selector::Destination => rule.dst.is_some_and(|neg| neg.negated),
        Selector::Input => rule.input.as_ref().is_some_and(|(_, negated)| *negated),
        Selector::Output => rule.output.as_ref().is_some_and(|(_, negated)| *negated),
        Selector::Protocol => rule.proto.is_some_and(|neg| neg.negated),
        Selector::Fragment => rule.fragment == Some(false),
        Selector::Match(_) => false,
    }
}

fn absent(option: &str, mismatch: &Mismatch) -> String {
    match mismatch.option {
        "--limit" => format!("{option}: the limit is used up"),
        "--hashlimit-upto" => format!("{option}: the limit is used up"),
        "--hashlimit-above" => format!("{option}: the limit is not reached"),
        "--set" | "--remove" => format!("{option}: by the list of addresses"),
        "--rcheck" | "--update" => {
            format!("{option}: the address was not seen as lately and as often (or was, with `!')")
        }
        "--tcp-option" => format!("{option}: by the packet's TCP options"),
        "connection" => "the packet has no connection".to_owned(),
        "later fragment" => "a later fragment has no layer 4 header".to_owned(),
        "--mac-source" => format!("{option}: the packet has no link-layer address"),
        "--helper" => format!("{option}: no helper expected the connection"),
        "--connbytes" => format!("{option}: the connection is not counted"),
        "--string" => format!("{option}: by the bytes of the packet"),
        "--u32" => format!("{option}: by the numbers in the packet, or it is too short for them"),
        "--bytecode" => format!("{option}: the program returns nothing for the packet"),
        "--probability" => format!("{option}: by chance"),
        "--every" => format!("{option}: not this packet's turn"),
        "--quota" => format!("{option}: by what is left of the quota"),
        "--rateest" => format!("{option}: by the rates measured so far"),
        "--datestart" | "--datestop" | "--timestart" | "--timestop" => {
            format!("{option}: by the time at which the packet came")
        }
        "--match-set" => format!("{option}: by what the set holds, and the packet's sides"),
        "--label" => format!("{option}: by the connection's labels"),
        _ => format!("{option}: the packet has no connection"),
    }
}

fn protocol(number: u32) -> String {
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "ipv6-icmp",
        132 => "sctp",
        _ => return format!("protocol {number}"),
    };
    name.to_owned()
}

/// Names of IPv6 headers, as `--header` takes them.
fn headers(found: u8) -> String {
    let named = HEADER_NAMES.iter().filter(|(_, _, _, bit)| found & bit != 0);
    let names: Vec<_> = named.map(|(name, _, _, _)| *name).collect();
    names.join(",")
}

/// Flag names, as `--tcp-flags` takes them.
pub(super) fn tcp_flags(flags: u8) -> String {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    let set = (0..8).filter(|bit| flags & 1 << bit != 0).map(|bit| NAMES[bit]);
    let names: Vec<_> = set.collect();
    if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
}

/// Whether a failed rule spent something all the same.
pub(super) fn spent(mismatch: &Mismatch, rule: &Rule) -> bool {
    let Selector::Match(failed) = mismatch.selector else { return false };
    let limits = |spec: &crate::model::MatchSpec| {
        use MeasureSpec::{Nth, Quota};
        let measured = matches!(spec.body, MatchBody::Measure(Nth { .. } | Quota { .. }));
        let tallied = matches!(spec.body, MatchBody::Tally(TallySpec::Hash { .. }));
        measured || tallied || matches!(spec.body, MatchBody::Limit(_))
    };
    rule.matches[..failed].iter().any(limits)
}
