//! What a packet is expected to come to, as it is written.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use dataplane::conntrack::CtState;

use crate::replay::event::Verdict;

/// How a packet is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WantedVerdict {
    /// Exactly so.
    Exactly(Verdict),
    /// Not accepted, one way or another.
    Deny,
}

const VERDICTS: [(&str, WantedVerdict); 7] = [
    ("accept", WantedVerdict::Exactly(Verdict::Accept)),
    ("deny", WantedVerdict::Deny),
    ("drop", WantedVerdict::Exactly(Verdict::Drop)),
    ("reject", WantedVerdict::Exactly(Verdict::Reject)),
    ("invalid-drop", WantedVerdict::Exactly(Verdict::InvalidDrop)),
    ("consumed", WantedVerdict::Exactly(Verdict::Consumed)),
    ("stolen", WantedVerdict::Exactly(Verdict::Stolen)),
];

impl WantedVerdict {
    /// Whether this is it.
    pub fn is(self, verdict: Verdict) -> bool {
        match self {
            Self::Exactly(wanted) => wanted == verdict,
            Self::Deny => {
                matches!(verdict, Verdict::Drop | Verdict::Reject | Verdict::InvalidDrop)
            }
        }
    }
}

impl fmt::Display for WantedVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = VERDICTS.iter().find(|(_, it)| it == self);
        f.write_str(known.map_or("", |(name, _)| name))
    }
}

impl FromStr for WantedVerdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = VERDICTS.iter().find(|(name, _)| *name == text).map(|(_, it)| *it);
        found.ok_or_else(|| {
            let known: Vec<&str> = VERDICTS.iter().map(|(name, _)| *name).collect();
            format!("{text:?} is no verdict: {}", known.join(", "))
        })
    }
}

/// The name of a verdict in a matrix.
pub(super) fn verdict_name(verdict: Verdict) -> String {
    WantedVerdict::Exactly(verdict).to_string()
}

/// Where in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Anywhere.
    Chain,
    /// At this rule, from 1.
    Rule(u32),
    /// At its policy.
    Policy,
}

/// Who is to decide: `filter FORWARD`, `filter FORWARD 3` or `filter FORWARD policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// Where in it.
    pub place: Place,
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];
        let bad = || format!("{text:?} is no place in the rules, as \"filter FORWARD 3\"");
        let mut words = text.split_whitespace();
        let (table, chain) = words.next().zip(words.next()).ok_or_else(bad)?;
        let place = match words.next() {
            None => Place::Chain,
            Some("policy") => Place::Policy,
            Some(number) => match number.parse() {
                Ok(number) if number > 0 => Place::Rule(number),
                _ => return Err(bad()),
            },
        };
        if words.next().is_some() {
            return Err(bad());
        }
        if !TABLES.contains(&table) {
            return Err(format!("{table:?} is no table: {}", TABLES.join(", ")));
        }
        Ok(Self { table: table.to_owned(), chain: chain.to_owned(), place })
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.chain)?;
        match self.place {
            Place::Chain => Ok(()),
            Place::Rule(number) => write!(f, " {number}"),
            Place::Policy => f.write_str(" policy"),
        }
    }
}

/// Addresses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    first: IpAddr,
    last: IpAddr,
}

impl Addresses {
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && (self.first..=self.last).contains(&address)
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no address, nor a range as 192.0.2.1-192.0.2.9");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (IpAddr, IpAddr) =
            first.parse().ok().zip(last.parse().ok()).ok_or_else(bad)?;
        match first.is_ipv4() == last.is_ipv4() && first <= last {
            true => Ok(Self { first, last }),
            false => Err(bad()),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    pub(super) fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no port, nor a range as 1024-65535");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) =
            first.parse().ok().zip(last.parse().ok()).ok_or_else(bad)?;
        if first <= last { Ok(Self { first, last }) } else { Err(bad()) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// What translation is to make of a packet. What is not said is to stay as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedNat {
    /// Source address.
    pub src: Option<Addresses>,
    /// Source port.
    pub sport: Option<PortRange>,
    /// Destination address.
    pub dst: Option<Addresses>,
    /// Destination port.
    pub dport: Option<PortRange>,
}

/// Whether it is to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedLog {
    /// By nobody.
    No,
    /// By anybody.
    Yes,
    /// By a rule with a prefix that begins so.
    Prefix(String),
}

/// All that is expected of one packet; what is absent may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its end.
    pub verdict: WantedVerdict,
    /// What decides.
    pub by: Option<By>,
    /// What the comment of the deciding rule contains.
    pub comment: Option<String>,
    /// Translation.
    pub nat: Option<WantedNat>,
    /// Log lines.
    pub log: Option<WantedLog>,
    /// `--ctstate`.
    pub state: Option<CtState>,
}

impl Expectation {
    /// Accepted, whoever does it.
    pub fn accepted() -> Self {
        let verdict = WantedVerdict::Exactly(Verdict::Accept);
        Self { verdict, by: None, comment: None, nat: None, log: None, state: None }
    }
}

/// A `--ctstate` by its name.
pub(super) fn state(text: &str) -> Result<CtState, String> {
    let known = [
        CtState::New,
        CtState::Established,
        CtState::Related,
        CtState::Invalid,
        CtState::Untracked,
    ];
    let found = known.into_iter().find(|state| state.name().eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let known = known.map(CtState::name).join(", ");
        format!("{text:?} is no state: {known}")
    })
}
