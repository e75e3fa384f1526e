//! A packet from words such as `src=198.18.1.2 proto=tcp dport=22 flags=SYN`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::conntrack::CtState;
use dataplane::packet::{Family, Mac};
use dataplane::wire::build::{L4, Packet, Tcp};

/// Sequence numbers of described TCP segments.
const SEQ: (u32, u32) = (10_001, 20_001);

/// Why words describe no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// Not KEY=VALUE.
    #[error("`{0}` is not KEY=VALUE")]
    Shape(String),
    /// A key that does not exist.
    #[error("unknown key `{0}` (known: {known})", known = KEYS.join(", "))]
    Key(String),
    /// The same key again.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A value that the key cannot take.
    #[error("{key}={value}: expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Source and destination of two families.
    #[error("src and dst are of different families")]
    Families,
    /// A packet needs both addresses, unless it is given whole.
    #[error("src and dst are needed (or hex=FRAME)")]
    NoAddresses,
    /// Neither input nor output is known.
    #[error("in or out is needed: where does the packet come from?")]
    NoInterface,
    /// `hex` stands for all that describes the packet itself.
    #[error("hex gives the whole packet: `{0}` cannot be given with it")]
    WithHex(&'static str),
}

pub(crate) const KEYS: [&str; 18] = [
    "in", "out", "src", "dst", "proto", "sport", "dport", "flags", "type", "code", "id", "ttl",
    "tos", "length", "mac", "state", "dir", "hex",
];

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Input interface; `None`: the machine itself sends it.
    pub input: Option<String>,
    /// Output interface, where no routes are known.
    pub output: Option<String>,
    /// The frame, with the Ethernet addresses still open.
    pub frame: Vec<u8>,
    /// `--ctstate` to bring about; `None`: whatever tracking says of a first packet.
    pub state: Option<CtState>,
    /// Whether it goes in the connection's original direction.
    pub original: bool,
    /// Family.
    pub family: Family,
}

struct Words<'w>(Vec<(&'static str, &'w str)>);

impl<'w> Words<'w> {
    fn new(words: &'w [String]) -> Result<Self, DescribeError> {
        let mut found: Vec<(&'static str, &str)> = Vec::new();
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(DescribeError::Shape(word.clone()));
            };
            let Some(&key) = KEYS.iter().find(|&&known| known == key) else {
                return Err(DescribeError::Key(key.to_owned()));
            };
            if found.iter().any(|&(known, _)| known == key) {
                return Err(DescribeError::Twice(key.to_owned()));
            }
            found.push((key, value));
        }
        Ok(Self(found))
    }

    fn get(&self, key: &'static str) -> Option<&'w str> {
        self.0.iter().find(|&&(known, _)| known == key).map(|&(_, value)| value)
    }

    fn parse<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, DescribeError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let refused = || DescribeError::Value { key, value: value.to_owned(), expected };
        parse(value).ok_or_else(refused).map(Some)
    }

    fn number<T: TryFrom<u32>>(&self, key: &'static str) -> Result<Option<T>, DescribeError> {
        let parse = |text: &str| {
            let number = match text.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => text.parse().ok()?,
            };
            T::try_from(number).ok()
        };
        self.parse(key, "a number in range", parse)
    }
}

impl Description {
    /// Reads the words.
    pub fn parse(words: &[String]) -> Result<Self, DescribeError> {
        let words = Words::new(words)?;
        let (input, output) = (words.get("in"), words.get("out"));
        if input.is_none() && output.is_none() {
            return Err(DescribeError::NoInterface);
        }
        let frame = match words.get("hex") {
            Some(_) => whole(&words)?,
            None => built(&words)?,
        };
        let family = if frame.get(12) == Some(&0x86) { Family::V6 } else { Family::V4 };
        let original = words.parse("dir", "original or reply", |text| match text {
            "original" => Some(true),
            "reply" => Some(false),
            _ => None,
        })?;
        Ok(Self {
            input: input.map(str::to_owned),
            output: output.map(str::to_owned),
            frame,
            state: words.parse("state", "NEW, ESTABLISHED, RELATED or INVALID", state)?,
            original: original.unwrap_or(true),
            family,
        })
    }
}

fn state(text: &str) -> Option<CtState> {
    let states = [CtState::New, CtState::Established, CtState::Related, CtState::Invalid];
    states.into_iter().find(|state| state.name().eq_ignore_ascii_case(text))
}

fn whole(words: &Words<'_>) -> Result<Vec<u8>, DescribeError> {
    let described =
        KEYS.into_iter().filter(|key| !["in", "out", "state", "dir", "hex"].contains(key));
    if let Some(key) = described.into_iter().find(|key| words.get(key).is_some()) {
        return Err(DescribeError::WithHex(key));
    }
    let parse = |text: &str| {
        let digits: Vec<u8> = text.bytes().filter(|byte| !b": ".contains(byte)).collect();
        let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let whole = digits.len().is_multiple_of(2) && digits.len() >= 28;
        if whole { digits.chunks(2).map(pair).collect() } else { None }
    };
    words.parse("hex", "an Ethernet frame in hexadecimal", parse).map(Option::unwrap_or_default)
}

fn built(words: &Words<'_>) -> Result<Vec<u8>, DescribeError> {
    let address = |key| words.parse(key, "an IP address", |text| text.parse::<IpAddr>().ok());
    let (Some(src), Some(dst)) = (address("src")?, address("dst")?) else {
        return Err(DescribeError::NoAddresses);
    };
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(DescribeError::Families);
    }
    let v6 = src.is_ipv6();
    let proto =
        words.parse("proto", "tcp, udp, icmp, ... or a number", |text| protocol(text, v6))?;
    let l4 = layer4(words, proto.unwrap_or(6), v6)?;
    let mac = words.parse("mac", "a MAC address", mac)?;
    let quoted = state_is_related(words).then(|| quoted(src, dst, words)).transpose()?;
    let mut packet = Packet::between(src, dst, l4)
        .ttl(words.number("ttl")?.unwrap_or(64))
        .tos(words.number("tos")?.unwrap_or(0))
        .payload_len(words.number::<u16>("length")?.unwrap_or(0).into());
    if let Some(quoted) = quoted {
        packet = packet.payload(&quoted);
    }
    if let Some(mac) = mac {
        packet.eth_src = mac;
    }
    if words.get("state").and_then(state) == Some(CtState::Invalid) {
        packet = packet.bad_l4_checksum();
    }
    Ok(packet.build())
}

fn state_is_related(words: &Words<'_>) -> bool {
    words.get("state").and_then(state) == Some(CtState::Related)
}

/// The packet that a RELATED error is about: a datagram from the error's
/// destination, by way of whoever sends the error.
fn quoted(src: IpAddr, dst: IpAddr, words: &Words<'_>) -> Result<Vec<u8>, DescribeError> {
    let sport = words.number("sport")?.unwrap_or(40_000);
    let dport = words.number("dport")?.unwrap_or(53);
    let l4 = L4::Udp { sport, dport, length: None, lite: false };
    Ok(Packet::between(dst, src, l4).build()[14..].to_vec())
}

fn protocol(text: &str, v6: bool) -> Option<u8> {
    Some(match text {
        "tcp" => 6,
        "udp" => 17,
        "icmp" if v6 => 58,
        "icmp" => 1,
        "icmpv6" | "ipv6-icmp" => 58,
        "sctp" => 132,
        "udplite" => 136,
        "gre" => 47,
        "esp" => 50,
        "ah" => 51,
        number => return number.parse().ok(),
    })
}

fn layer4(words: &Words<'_>, proto: u8, v6: bool) -> Result<L4, DescribeError> {
    let sport = words.number("sport")?.unwrap_or(40_000);
    let dport = words.number("dport")?.unwrap_or(40_000);
    Ok(match proto {
        6 => {
            let flags = words.parse("flags", "TCP flags such as SYN,ACK", tcp_flags)?;
            let flags = flags.unwrap_or(match words.get("state").and_then(state) {
                Some(CtState::Established) => 0x10,
                _ => 0x02,
            });
            let (seq, ack) = SEQ;
            let ack = if flags & 0x10 == 0 { 0 } else { ack };
            L4::Tcp(Tcp { seq, ack, ..Tcp::new(sport, dport, flags) })
        }
        17 => L4::Udp { sport, dport, length: None, lite: false },
        136 => L4::Udp { sport, dport, length: None, lite: true },
        132 => L4::Sctp { sport, dport, tag: 0 },
        1 | 58 if (proto == 58) == v6 => {
            let default = match (state_is_related(words), v6) {
                (true, false) => 3,
                (true, true) => 1,
                (false, false) => 8,
                (false, true) => 128,
            };
            let kind = words.number("type")?.unwrap_or(default);
            let code = words.number("code")?.unwrap_or(0);
            let id = words.number::<u16>("id")?.unwrap_or(1);
            let word = if state_is_related(words) { 0 } else { u32::from(id) << 16 | 1 };
            L4::Icmp { kind, code, word }
        }
        other => L4::Raw(other),
    })
}

pub(crate) fn tcp_flags(text: &str) -> Option<u8> {
    const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
    if text.eq_ignore_ascii_case("none") {
        return Some(0);
    }
    text.split(',').try_fold(0, |flags, name| {
        let bit = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(flags | 1 << bit)
    })
}

fn mac(text: &str) -> Option<Mac> {
    let octets: Vec<u8> =
        text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect::<Option<_>>()?;
    octets.try_into().ok().map(Mac)
}

/// An address from its common form.
pub(crate) fn ip(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}
