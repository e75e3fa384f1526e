//! Management traffic: who may always reach which service of this machine. The
//! kernel gets it from the XDP program and sends its answers past the engine, so
//! that no rule, no full table and no absent daemon stands in between.
//!
//! A [`List`] is checked when it is made, and matches plainly ([`List::matching`]).
//! [`List::compile`] makes the contents of the BPF maps from it: every entry is a
//! bit, a packet is management when the bits of its remote's longest listed prefix
//! and those of its service have one in common. As a trie answers with the longest
//! prefix alone, every prefix has the bits of the wider ones too.
//!
//! Limits: [`ENTRIES_MAX`] entries of [`PORTS_MAX`] ports.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::wire::proto;

/// Entries in a list at most: bits of a word.
pub const ENTRIES_MAX: usize = 64;
/// Ports that one entry may name, ranges counted out.
pub const PORTS_MAX: usize = 64;

/// A protocol that management may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6, as the prefix is: echo requests and the like.
    Icmp,
}

/// One line of the list: a remote prefix and the services that it may reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    network: IpAddr,
    length: u8,
    protocol: Protocol,
    ports: BTreeSet<u16>,
}

/// Why a text is no entry. Every message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Too few or too many words.
    #[error("`{0}`: write PREFIX PROTOCOL PORTS, as in \"198.51.100.0/24 tcp 22,443\"")]
    Shape(String),
    /// Not an address with a length.
    #[error("`{0}` is no prefix: write 198.51.100.0/24, 2001:db8::/48 or a single address")]
    Prefix(String),
    /// Address bits beyond the length.
    #[error("`{given}` has address bits beyond its length: write {meant}, or {host} for that host")]
    HostBits {
        /// As written.
        given: String,
        /// Without those bits.
        meant: String,
        /// The address alone.
        host: String,
    },
    /// Addresses that no packet from outside has as its source.
    #[error("`{0}` is where no packet comes from: name the prefix that the managers are in")]
    NoSource(String),
    /// Not one of the three.
    #[error("`{0}` is no protocol for management: write tcp, udp or icmp")]
    Protocol(String),
    /// TCP or UDP without ports.
    #[error("{0} needs ports: write as in \"{0} 22\" or \"{0} 22,8000-8003\"")]
    NoPorts(String),
    /// ICMP with ports.
    #[error("icmp has no ports: leave out `{0}`")]
    IcmpPorts(String),
    /// Not a port or a range of ports.
    #[error("`{0}` is no port: write numbers from 1 to 65535 or ranges, as 22 or 8000-8003")]
    Port(String),
    /// More than [`PORTS_MAX`].
    #[error("{0} ports: an entry names at most {PORTS_MAX}; write another one, or fewer services")]
    TooManyPorts(usize),
}

/// Why entries make no list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// More than [`ENTRIES_MAX`].
    #[error(
        "{0} entries of management: at most {ENTRIES_MAX} are possible; join prefixes or ports"
    )]
    TooMany(usize),
}

/// What is odd about a list that is possible all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The entry is there already.
    Duplicate(Entry),
    /// Another entry admits all that this one does.
    Covered {
        /// The narrower one.
        entry: Entry,
        /// The wider one.
        by: Entry,
    },
    /// Anybody is a manager.
    Anybody(Entry),
}

impl fmt::Display for Remark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(entry) => write!(out, "management: \"{entry}\" is there twice"),
            Self::Covered { entry, by } => {
                write!(out, "management: \"{entry}\" adds nothing to \"{by}\"")
            }
            Self::Anybody(entry) => write!(
                out,
                "management: \"{entry}\" lets everybody past every rule: name the prefix that the \
                 managers are in"
            ),
        }
    }
}

impl Entry {
    /// The remote prefix.
    pub fn prefix(&self) -> (IpAddr, u8) {
        (self.network, self.length)
    }

    /// Whether it admits what `remote` sends to, or gets from, a port of this machine.
    /// The port does not matter for ICMP.
    pub fn admits(&self, remote: IpAddr, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol
            && (protocol == Protocol::Icmp || self.ports.contains(&port))
            && contains(self.prefix(), remote)
    }

    /// Whether it admits all that `other` does.
    fn covers(&self, other: &Self) -> bool {
        self.length <= other.length
            && contains(self.prefix(), other.network)
            && self.protocol == other.protocol
            && self.ports.is_superset(&other.ports)
    }

    /// Protocol number and port of its services, port 0 for ICMP.
    fn services(&self) -> impl Iterator<Item = (u8, u16)> + '_ {
        let number = match (self.protocol, self.network) {
            (Protocol::Tcp, _) => proto::TCP,
            (Protocol::Udp, _) => proto::UDP,
            (Protocol::Icmp, IpAddr::V4(_)) => proto::ICMP,
            (Protocol::Icmp, IpAddr::V6(_)) => proto::ICMPV6,
        };
        let portless = (self.protocol == Protocol::Icmp).then_some(0);
        portless.into_iter().chain(self.ports.iter().copied()).map(move |port| (number, port))
    }
}

/// The bits of an address that count, left-aligned in 128.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, length: u8) -> u128 {
    let beyond = 128 - u32::from(length);
    bits(address).checked_shr(beyond).unwrap_or(0)
}

fn contains((network, length): (IpAddr, u8), address: IpAddr) -> bool {
    network.is_ipv4() == address.is_ipv4() && masked(network, length) == masked(address, length)
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (prefix, protocol, ports) = match words[..] {
            [prefix, protocol] => (prefix, protocol, None),
            [prefix, protocol, ports] => (prefix, protocol, Some(ports)),
            _ => return Err(EntryError::Shape(text.to_owned())),
        };
        let (network, length) = read_prefix(prefix)?;
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            "icmpv6" | "ipv6-icmp" if network.is_ipv6() => Protocol::Icmp,
            other => return Err(EntryError::Protocol(other.to_owned())),
        };
        let ports = match (protocol, ports) {
            (Protocol::Icmp, None) => BTreeSet::new(),
            (Protocol::Icmp, Some(ports)) => return Err(EntryError::IcmpPorts(ports.to_owned())),
            (_, None) => return Err(EntryError::NoPorts(words[1].to_owned())),
            (_, Some(ports)) => read_ports(ports)?,
        };
        Ok(Self { network, length, protocol, ports })
    }
}

fn read_prefix(text: &str) -> Result<(IpAddr, u8), EntryError> {
    let refused = || EntryError::Prefix(text.to_owned());
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| refused())?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = match length {
        None => full,
        Some(length) => length.parse().ok().filter(|&it| it <= full).ok_or_else(refused)?,
    };
    let meant = network(address, length);
    if meant != address {
        let (given, meant) = (text.to_owned(), format!("{meant}/{length}"));
        return Err(EntryError::HostBits { given, meant, host: address.to_string() });
    }
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let nowhere = address.is_unspecified() && length == full;
    if address.is_multicast() || address.is_loopback() || nowhere || mapped && length >= 96 {
        return Err(EntryError::NoSource(text.to_owned()));
    }
    Ok((address, length))
}

fn network(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

fn read_ports(text: &str) -> Result<BTreeSet<u16>, EntryError> {
    let mut ports = BTreeSet::new();
    for part in text.split(',') {
        let refused = || EntryError::Port(part.to_owned());
        // Digits alone: the standard library would take a sign.
        let port = |word: &str| -> Result<u16, EntryError> {
            let digits = word.bytes().all(|byte| byte.is_ascii_digit());
            let port = word.parse().ok().filter(|&port| port > 0 && digits);
            port.ok_or_else(refused)
        };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(refused());
        }
        ports.extend(first..=last);
    }
    match ports.len() {
        count @ 0..=PORTS_MAX if count > 0 => Ok(ports),
        count => Err(EntryError::TooManyPorts(count)),
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        };
        write!(out, "{}/{} {protocol}", self.network, self.length)?;
        let mut ports = self.ports.iter().copied().peekable();
        let mut separator = ' ';
        while let Some(first) = ports.next() {
            let mut last = first;
            while let Some(next) = ports.next_if(|next| Some(*next) == last.checked_add(1)) {
                last = next;
            }
            write!(out, "{separator}{first}")?;
            if last > first {
                write!(out, "-{last}")?;
            }
            separator = ',';
        }
        Ok(())
    }
}

/// A list that is possible, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    entries: Vec<Entry>,
}

impl List {
    /// Takes entries in order, the second of two equal ones left out.
    ///
    /// # Errors
    /// [`ListError`] when there are too many.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Result<Self, ListError> {
        let mut seen = BTreeSet::new();
        let entries: Vec<Entry> =
            entries.into_iter().filter(|entry| seen.insert(entry.clone())).collect();
        match entries.len() {
            0..=ENTRIES_MAX => Ok(Self { entries }),
            count => Err(ListError::TooMany(count)),
        }
    }

    /// What the operator should know of these entries.
    pub fn remarks(entries: &[Entry]) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            if entries[..at].contains(entry) {
                remarks.push(Remark::Duplicate(entry.clone()));
                continue;
            }
            if entry.length == 0 {
                remarks.push(Remark::Anybody(entry.clone()));
            }
            let wider = entries.iter().find(|other| *other != entry && other.covers(entry));
            remarks
                .extend(wider.map(|by| Remark::Covered { entry: entry.clone(), by: by.clone() }));
        }
        remarks
    }

    /// The entries.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether nobody is a manager.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry that admits what `remote` sends to, or gets from, a port of
    /// this machine.
    pub fn matching(&self, remote: IpAddr, protocol: Protocol, port: u16) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.admits(remote, protocol, port))
    }

    /// The maps' contents, entry `i` being bit `slots[i]`.
    ///
    /// # Panics
    /// When there is not one slot for each entry.
    pub fn compile(&self, slots: &[u8]) -> Compiled {
        assert_eq!(slots.len(), self.entries.len(), "an entry, a slot");
        let mut compiled = Compiled::default();
        for entry in &self.entries {
            let admitting = self.entries.iter().zip(slots);
            let admitting = admitting.filter(|(wider, _)| {
                wider.length <= entry.length && contains(wider.prefix(), entry.network)
            });
            let bits = admitting.map(|(_, &slot)| 1 << slot).sum();
            compiled.prefixes.insert(entry.prefix(), bits);
        }
        for (entry, &slot) in self.entries.iter().zip(slots) {
            for service in entry.services() {
                *compiled.services.entry(service).or_default() |= 1 << slot;
            }
        }
        compiled
    }
}

/// A list as the BPF maps hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Entry bits of each prefix, those of wider ones included.
    pub prefixes: BTreeMap<(IpAddr, u8), u64>,
    /// Entry bits of each protocol number and port.
    pub services: BTreeMap<(u8, u16), u64>,
}

impl Compiled {
    /// Whether an entry has an IPv6 prefix.
    pub fn has_ipv6(&self) -> bool {
        self.prefixes.keys().any(|(network, _)| network.is_ipv6())
    }
}

/// An entry and what it admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The entry.
    pub entry: Entry,
    /// Packets to this machine.
    pub inbound: u64,
    /// Packets from this machine.
    pub outbound: u64,
}
