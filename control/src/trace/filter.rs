//! The words for which packets are traced: a small, strict part of what tcpdump takes.
//!
//! ```text
//! filter      = alternative { "or" alternative }
//! alternative = term { ["and"] term }
//! term        = ["not"] ( "any" | "ip" | "ip6" | "arp" | "tcp" | "udp" | "icmp" | "icmp6"
//!               | "sctp" | "proto" NAME-OR-NUMBER | [side] ["host"] ADDRESS | [side] "net" PREFIX
//!               | [side] "port" PORT[-PORT] | "in" INTERFACE | "own" )
//! side        = "src" | "dst"
//! ```
//!
//! There are no parentheses: `or` binds less than `and`, and `not` holds for one term.

use std::net::IpAddr;

use dataplane::packet::{Family, PortId};
use dataplane::tap::{Filter, Side, TERMS_MAX, Term, What};
use dataplane::wire::proto;
use thiserror::Error;

use crate::iptables::Names;

/// Longest filter, in bytes.
const TEXT_MAX: usize = 1024;

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("filter, column {column}: {message}\n    {text}\n    {}^", " ".repeat(*column - 1))]
pub struct FilterError {
    /// The filter.
    pub text: String,
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads a filter; `port` knows the ports by name.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn parse(
    text: &str,
    names: &impl Names,
    port: impl Fn(&str) -> Option<PortId>,
) -> Result<Filter, FilterError> {
    let mut parser = Parser { text, words: words(text), at: 0, names };
    if text.len() > TEXT_MAX {
        return Err(parser.wrong(0, format!("it is longer than {TEXT_MAX} bytes")));
    }
    let (mut alternatives, mut terms) = (Vec::new(), Vec::new());
    let mut count = 0;
    loop {
        terms.push(parser.term(&port)?);
        count += 1;
        if count > TERMS_MAX {
            return Err(parser.wrong(parser.at - 1, format!("more than {TERMS_MAX} terms")));
        }
        match parser.peek() {
            None => break,
            Some("or" | "||") => {
                parser.at += 1;
                alternatives.push(std::mem::take(&mut terms));
            }
            Some("and" | "&&") => parser.at += 1,
            Some(_) => {}
        }
    }
    alternatives.push(terms);
    Ok(Filter::new(alternatives))
}

/// Words and the columns that they begin at.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut begin = None;
    for (column, (index, letter)) in text.char_indices().enumerate() {
        match (letter.is_whitespace(), begin) {
            (false, None) => begin = Some((column + 1, index)),
            (true, Some((column, from))) => {
                words.push((column, &text[from..index]));
                begin = None;
            }
            _ => {}
        }
    }
    words.extend(begin.map(|(column, from)| (column, &text[from..])));
    words
}

struct Parser<'t, N> {
    text: &'t str,
    words: Vec<(usize, &'t str)>,
    at: usize,
    names: &'t N,
}

impl<'t, N: Names> Parser<'t, N> {
    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).map(|word| word.1)
    }

    /// Complains of word number `index`, or of the end.
    fn wrong(&self, index: usize, message: impl Into<String>) -> FilterError {
        let end = || self.text.chars().count() + 1;
        let column = self.words.get(index).map_or_else(end, |word| word.0);
        FilterError { text: self.text.to_owned(), column, message: message.into() }
    }

    /// The next word, which is to be `what`.
    fn word(&mut self, what: &str) -> Result<&'t str, FilterError> {
        let word = self.peek().ok_or_else(|| self.wrong(self.at, format!("{what} is missing")))?;
        self.at += 1;
        Ok(word)
    }

    fn term(&mut self, port: &impl Fn(&str) -> Option<PortId>) -> Result<Term, FilterError> {
        let mut negated = false;
        while matches!(self.peek(), Some("not" | "!")) {
            self.at += 1;
            negated = !negated;
        }
        let at = self.at;
        let word = self.word("a term such as `tcp', `host 198.18.1.2' or `in eth0'")?;
        let what = match word {
            "any" => What::Any,
            "ip" | "ip4" => What::Family(Family::V4),
            "ip6" => What::Family(Family::V6),
            "arp" => What::Arp,
            "tcp" => What::Proto(proto::TCP),
            "udp" => What::Proto(proto::UDP),
            "icmp" => What::Proto(proto::ICMP),
            "icmp6" => What::Proto(proto::ICMPV6),
            "sctp" => What::Proto(proto::SCTP),
            "own" => What::Own,
            "proto" => self.protocol()?,
            "in" => {
                let name = self.word("an interface")?;
                let known = port(name);
                What::Input(known.ok_or_else(|| {
                    self.wrong(at + 1, format!("`{name}' is no port of this firewall"))
                })?)
            }
            "src" => self.sided(Side::Source)?,
            "dst" => self.sided(Side::Destination)?,
            "(" | ")" => {
                return Err(self.wrong(at, "there are no parentheses: write the alternatives out"));
            }
            _ => {
                self.at = at;
                self.sided(Side::Either)?
            }
        };
        Ok(Term { negated, what })
    }

    fn protocol(&mut self) -> Result<What, FilterError> {
        let word = self.word("a protocol")?;
        let number = word.parse().ok().or_else(|| self.names.protocol_number(word));
        let number = number.ok_or_else(|| {
            self.wrong(self.at - 1, format!("`{word}' is no protocol: write a name or 0-255"))
        })?;
        Ok(What::Proto(number))
    }

    /// What may follow `src` and `dst`.
    fn sided(&mut self, side: Side) -> Result<What, FilterError> {
        let at = self.at;
        match self.word("`host', `net' or `port'")? {
            "host" => {
                let word = self.word("an address")?;
                self.address(side, word, at + 1)
            }
            "net" => self.network(side),
            "port" | "portrange" => self.ports(side),
            word => self.address(side, word, at),
        }
    }

    fn address(&self, side: Side, word: &str, at: usize) -> Result<What, FilterError> {
        let address: IpAddr = word.parse().map_err(|_| match word.contains('/') {
            true => self.wrong(at, format!("`{word}' is no address: a prefix goes with `net'")),
            false => self.wrong(at, format!("`{word}' is no term, and no address")),
        })?;
        Ok(net(side, address, width(address)))
    }

    fn network(&mut self, side: Side) -> Result<What, FilterError> {
        let word = self.word("a prefix")?;
        let wrong = |message: String| self.wrong(self.at - 1, message);
        let (address, bits) = word.split_once('/').unwrap_or((word, ""));
        let address: IpAddr = address
            .parse()
            .map_err(|_| wrong(format!("`{word}' is no prefix such as 198.18.0.0/15")))?;
        let most = width(address);
        let bits = match bits {
            "" => most,
            bits => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| wrong(format!("`{bits}' is no prefix length: 0 to {most}")))?,
        };
        let net = net(side, address, bits);
        match net {
            What::Net { address, mask, .. } if address & !mask != 0 => {
                Err(wrong(format!("`{word}' has bits set beyond its prefix length")))
            }
            net => Ok(net),
        }
    }

    fn ports(&mut self, side: Side) -> Result<What, FilterError> {
        let word = self.word("a port")?;
        let (low, high) = match word.split_once('-') {
            Some((low, high)) if low.parse::<u16>().is_ok() => (low, high),
            _ => (word, word),
        };
        let port = |text: &str| {
            let known = || self.names.service_port(text, None);
            text.parse().ok().or_else(known).ok_or_else(|| {
                self.wrong(self.at - 1, format!("`{text}' is no port: write a name or 0-65535"))
            })
        };
        let (low, high) = (port(low)?, port(high)?);
        if low > high {
            return Err(self.wrong(self.at - 1, format!("{low} is above {high}")));
        }
        Ok(What::Ports { side, low, high })
    }
}

const fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn net(side: Side, address: IpAddr, bits: u32) -> What {
    let (family, address, all) = match address {
        IpAddr::V4(address) => (Family::V4, u128::from(address.to_bits()), u128::from(u32::MAX)),
        IpAddr::V6(address) => (Family::V6, address.to_bits(), u128::MAX),
    };
    let host = width(match family {
        Family::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }) - bits;
    let mask = all & u128::MAX.checked_shl(host).unwrap_or(0);
    What::Net { side, family, address, mask }
}

#[cfg(test)]
mod tests {
    use dataplane::wire::build::Packet;

    use super::*;
    use crate::iptables::TableNames;

    fn read(text: &str) -> Result<Filter, FilterError> {
        let port = |name: &str| (name == "eth1").then_some(PortId(1));
        parse(text, &TableNames::well_known(), port)
    }

    #[test]
    fn filters_take_what_they_say() {
        let tcp = Packet::tcp("198.18.1.2", 4000, "203.0.113.9", 443, 2).build();
        let six = Packet::udp("2001:db8:1::2", 5353, "2001:db8:2::9", 53).build();
        for (text, takes) in [
            ("any", [true, true]),
            ("tcp", [true, false]),
            ("ip6", [false, true]),
            ("not tcp", [false, true]),
            ("! ! tcp", [true, false]),
            ("198.18.1.2", [true, false]),
            ("src host 198.18.1.2 and dst port 443", [true, false]),
            ("src 198.18.1.2 dst 203.0.113.9 tcp port 443", [true, false]),
            ("dst host 198.18.1.2", [false, false]),
            ("net 198.18.0.0/15", [true, false]),
            ("net 0.0.0.0/0", [true, false]),
            ("src net 2001:db8:1::/48", [false, true]),
            ("port domain", [false, true]),
            ("port 50-60 or dst port 443-443", [true, true]),
            ("udp port 53 && in eth1 || tcp", [true, true]),
            ("in eth1", [true, true]),
            ("proto 6", [true, false]),
            ("proto udp", [false, true]),
            ("own", [false, false]),
        ] {
            let filter = read(text).unwrap_or_else(|error| panic!("{error}"));
            let taken = [&tcp, &six].map(|frame| filter.matches(frame, Some(PortId(1))));
            assert_eq!(taken, takes, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_column() {
        for (text, column, message) in [
            ("", 1, "is missing"),
            ("tcp and", 8, "is missing"),
            ("tcp or or udp", 8, "no term"),
            ("host", 5, "an address is missing"),
            ("src host 198.18.1", 10, "no address"),
            ("198.18.1.0/24", 1, "goes with `net'"),
            ("net 198.18.1.1/24", 5, "beyond its prefix length"),
            ("net 198.18.1.0/33", 5, "0 to 32"),
            ("in eth9", 4, "no port of this firewall"),
            ("port 70000", 6, "no port"),
            ("port 9-5", 6, "9 is above 5"),
            ("proto nonsense", 7, "no protocol"),
            ("( tcp )", 1, "no parentheses"),
            ("tcp  häh?", 6, "no term"),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.column, column, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
        }
        let many = ["tcp"; TERMS_MAX + 1].join(" ");
        assert!(read(&many).unwrap_err().message.contains("terms"));
        assert!(read(&"tcp ".repeat(400)).unwrap_err().message.contains("longer"));
    }
}
