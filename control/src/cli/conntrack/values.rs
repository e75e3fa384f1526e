//! The values of options.

use std::net::IpAddr;

use super::options::ParseError;
use crate::api::protocol::{AddressFilter, FamilyName, MarkFilter, StatusName};
use crate::iptables::Names;

/// Which events (`-e`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventMask {
    pub(super) new: bool,
    pub(super) update: bool,
    pub(super) destroy: bool,
}

pub(super) fn bad(value: &str, what: &'static str, remedy: &'static str) -> ParseError {
    ParseError::Bad { value: value.to_owned(), what, remedy }
}

/// A number in decimal, hexadecimal (0x) or octal (0).
pub(super) fn number<T: TryFrom<u64>>(
    text: &str,
    what: &'static str,
    remedy: &'static str,
) -> Result<T, ParseError> {
    let lower = text.to_ascii_lowercase();
    let value = match (lower.strip_prefix("0x"), lower.strip_prefix('0')) {
        (Some(digits), _) => u64::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) if !digits.is_empty() => u64::from_str_radix(digits, 8).ok(),
        _ => lower.parse().ok(),
    };
    let plain = !lower.contains(['+', '-']);
    value
        .filter(|_| plain)
        .and_then(|value| value.try_into().ok())
        .ok_or_else(|| bad(text, what, remedy))
}

pub(super) fn address(text: &str) -> Result<IpAddr, ParseError> {
    text.parse().map_err(|_| bad(text, "address", "write 198.51.100.7 or 2001:db8::7"))
}

pub(super) fn network(text: &str) -> Result<AddressFilter, ParseError> {
    let (host, length) = match text.split_once('/') {
        Some((host, length)) => (host, Some(length)),
        None => (text, None),
    };
    let address = address(host)?;
    let bits: u32 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => bits,
        Some(digits) => digits.parse().ok().filter(|length| *length <= bits).ok_or_else(|| {
            bad(text, "network", "write the length of the prefix behind the slash")
        })?,
    };
    let mask = match address {
        IpAddr::V4(_) => IpAddr::from(u32::MAX.checked_shl(32 - length).unwrap_or(0).to_be_bytes()),
        IpAddr::V6(_) => {
            IpAddr::from(u128::MAX.checked_shl(128 - length).unwrap_or(0).to_be_bytes())
        }
    };
    Ok(AddressFilter { address, mask })
}

pub(super) fn protocol(text: &str, names: &impl Names) -> Result<u8, ParseError> {
    let known = [
        ("icmp", 1),
        ("tcp", 6),
        ("udp", 17),
        ("dccp", 33),
        ("gre", 47),
        ("icmpv6", 58),
        ("sctp", 132),
        ("udplite", 136),
    ];
    let lower = text.to_ascii_lowercase();
    let named = known.iter().find(|(name, _)| *name == lower).map(|(_, number)| *number);
    let named = named.or_else(|| text.parse().ok()).or_else(|| names.protocol_number(&lower));
    named.ok_or_else(|| {
        bad(text, "protocol", "write tcp, udp, icmp, icmpv6, sctp, gre, udplite or a number")
    })
}

pub(super) fn port(text: &str, proto: Option<u8>, names: &impl Names) -> Result<u16, ParseError> {
    let protocol = proto.map(crate::conntrack::protocol_name);
    match number(text, "port", "write one port from 0 to 65535, or the name of a service") {
        Ok(port) => Ok(port),
        Err(error) => names.service_port(text, protocol).ok_or(error),
    }
}

pub(super) fn family(text: &str) -> Result<FamilyName, ParseError> {
    match text {
        "ipv4" => Ok(FamilyName::V4),
        "ipv6" => Ok(FamilyName::V6),
        _ => Err(bad(text, "family", "write ipv4 or ipv6")),
    }
}

pub(super) fn mark(text: &str) -> Result<MarkFilter, ParseError> {
    let one = |text| number::<u32>(text, "mark", "write VALUE or VALUE/MASK, as 0x10/0xff");
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (one(value)?, one(mask)?),
        None => (one(text)?, u32::MAX),
    };
    Ok(MarkFilter { value, mask })
}

pub(super) fn statuses(text: &str) -> Result<Vec<StatusName>, ParseError> {
    let name = |word: &str| match word.to_ascii_uppercase().as_str() {
        "EXPECTED" => Ok(StatusName::Expected),
        "SEEN_REPLY" => Ok(StatusName::SeenReply),
        "UNREPLIED" => Ok(StatusName::Unreplied),
        "ASSURED" => Ok(StatusName::Assured),
        "FIXED_TIMEOUT" => Ok(StatusName::FixedTimeout),
        "SRC_NAT" => Ok(StatusName::SrcNat),
        "DST_NAT" => Ok(StatusName::DstNat),
        _ => Err(bad(
            word,
            "status",
            "there are ASSURED, SEEN_REPLY, UNREPLIED, FIXED_TIMEOUT, EXPECTED, SRC_NAT and DST_NAT",
        )),
    };
    text.split(',').map(name).collect()
}

pub(super) fn label(text: &str, names: &impl Names) -> Result<u8, ParseError> {
    let number = text.parse().ok().filter(|bit: &u8| *bit < 128);
    names.label(text).or(number).ok_or_else(|| {
        bad(
            text,
            "label",
            "write a number from 0 to 127, or a name that /etc/xtables/connlabel.conf gives one",
        )
    })
}

pub(super) fn state(text: &str, proto: Option<u8>) -> Result<String, ParseError> {
    const TCP: [&str; 11] = [
        "NONE",
        "SYN_SENT",
        "SYN_RECV",
        "ESTABLISHED",
        "FIN_WAIT",
        "CLOSE_WAIT",
        "LAST_ACK",
        "TIME_WAIT",
        "CLOSE",
        "SYN_SENT2",
        "LISTEN",
    ];
    const SCTP: [&str; 9] = [
        "NONE",
        "CLOSED",
        "COOKIE_WAIT",
        "COOKIE_ECHOED",
        "ESTABLISHED",
        "SHUTDOWN_SENT",
        "SHUTDOWN_RECD",
        "SHUTDOWN_ACK_SENT",
        "HEARTBEAT_SENT",
    ];
    let upper = text.to_ascii_uppercase();
    let known: &[&str] = if proto == Some(6) { &TCP } else { &SCTP };
    match upper.as_str() {
        // The tool's old name of it.
        "LISTEN" if proto == Some(6) => Ok("SYN_SENT2".to_owned()),
        state if known.contains(&state) => Ok(upper),
        _ => Err(bad(text, "state", "use one that the listing shows, as ESTABLISHED")),
    }
}

pub(super) fn events(text: &str) -> Result<EventMask, ParseError> {
    let mut mask = EventMask { new: false, update: false, destroy: false };
    for word in text.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "ALL" => mask = EventMask { new: true, update: true, destroy: true },
            "NEW" => mask.new = true,
            "UPDATES" | "UPDATE" => mask.update = true,
            "DESTROY" => mask.destroy = true,
            _ => return Err(bad(word, "event", "there are ALL, NEW, UPDATES and DESTROY")),
        }
    }
    Ok(mask)
}
