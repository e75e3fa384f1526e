//! The language of the scripts: flows, and packets about them that leave open
//! what only a side's own translation decides. A script is a JSON file, a
//! packet a line, so that a finding can be read, edited, kept and run again.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::diff::rules::TABLES;

/// Independent conversations under one ruleset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Family.
    pub v6: bool,
    /// `TABLE -A CHAIN ...` and `TABLE -P CHAIN POLICY`.
    pub rules: Vec<String>,
    /// Settings of connection tracking, by their short names.
    pub sysctls: Vec<(String, u64)>,
    /// Who talks with whom.
    pub flows: Vec<Flow>,
    /// What is sent, in order.
    pub steps: Vec<Step>,
}

/// One conversation, as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Layer 4 protocol.
    pub proto: u8,
    /// Who opens.
    pub client: End,
    /// Whom the client addresses.
    pub server: End,
    /// The client's port; an echo's identifier.
    pub sport: u16,
    /// The port that the client addresses.
    pub dport: u16,
}

/// A host, or the router itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its address.
    pub address: IpAddr,
    /// Where its packets enter.
    pub place: Place,
}

/// Where a packet enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// On a port, from that link-layer address.
    Port(usize, [u8; 6]),
    /// From the router's own stack.
    Router,
}

/// Direction of a packet in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dir {
    /// From the client.
    Original,
    /// From whoever the client's packets reached.
    Reply,
}

impl Dir {
    /// The other one.
    pub fn flip(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A packet of a flow.
    Packet(Packet),
    /// An ICMP error about the last packet of a flow.
    Complaint(Complaint),
}

impl Step {
    /// The flow it belongs to.
    pub fn flow(&self) -> usize {
        match self {
            Self::Packet(packet) => packet.flow,
            Self::Complaint(complaint) => complaint.flow,
        }
    }
    /// Moves it to another flow.
    pub fn set_flow(&mut self, flow: usize) {
        match self {
            Self::Packet(packet) => packet.flow = flow,
            Self::Complaint(complaint) => complaint.flow = flow,
        }
    }
}

/// A packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Index of the flow.
    pub flow: usize,
    /// Direction.
    pub dir: Dir,
    /// Layer 4.
    pub body: Body,
    /// TTL or hop limit.
    #[serde(default = "full_ttl", skip_serializing_if = "is_full_ttl")]
    pub ttl: u8,
    /// Type of service or traffic class.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub harm: Harm,
    /// Sent in these pieces, in this order: offset and end in bytes of layer 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<(usize, usize)>,
}

fn full_ttl() -> u8 {
    64
}
fn is_full_ttl(ttl: &u8) -> bool {
    *ttl == 64
}
fn is_zero(tos: &u8) -> bool {
    *tos == 0
}
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Layer 4 without what NAT may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A TCP segment.
    Tcp(Segment),
    /// A UDP (or UDP-Lite) datagram with that many bytes.
    Udp(usize),
    /// A UDP datagram without checksum.
    UdpUnsummed(usize),
    /// An ICMP message with the flow's identifier: type, code, sequence number, bytes.
    Icmp(u8, u8, u16, usize),
    /// An SCTP packet: verification tag and chunks.
    Sctp(u32, Vec<u8>),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

/// A TCP segment without ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flag byte.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Options, padded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<u8>,
    /// Bytes of payload.
    #[serde(default, skip_serializing_if = "is_default")]
    pub payload: usize,
}

/// Deliberate damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Harm {
    /// None.
    #[default]
    None,
    /// The last word of layer 4 is one more than the checksum knows.
    Checksum,
    /// Layer 4 is cut to that many bytes.
    Cut(usize),
}

/// An ICMP error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// Index of the flow complained about.
    pub flow: usize,
    /// Which of its packets: the last one that came out in this direction.
    pub about: Dir,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The second word.
    pub word: [u8; 4],
    /// Who complains.
    pub reporter: Reporter,
    /// To whom, when not to the source of what is quoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// Bytes of layer 4 that are quoted.
    pub keep: usize,
    /// What is wrong with the quotation.
    #[serde(default, skip_serializing_if = "is_default")]
    pub twist: Twist,
}

/// Who sends an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reporter {
    /// The receiver of the packet.
    Receiver,
    /// The gateway of the network where it came out.
    Gateway,
    /// A host of that number behind that port.
    Host(usize, u8),
}

/// A quotation that is not what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Twist {
    /// It is.
    #[default]
    None,
    /// Two hops further on.
    Older,
    /// The word of layer 4 around this byte is one more.
    Byte(usize),
    /// The last byte of the source address is changed.
    Source,
    /// The last byte of the destination address is changed.
    Destination,
    /// It says it is a later fragment (IPv4).
    Fragment,
    /// It says that more fragments follow (IPv4).
    FirstFragment,
    /// The checksum of the error itself is wrong.
    Checksum,
}

impl Batch {
    /// The rules as `iptables-restore` reads them: all tables, so that loading
    /// them replaces everything.
    pub fn ruleset(&self) -> String {
        let mut text = String::new();
        for (table, builtin) in TABLES {
            let own = |rule: &&String| rule.split(' ').next() == Some(table);
            let words = |rule: &String| -> Vec<String> {
                rule.split(' ').skip(1).map(str::to_owned).collect()
            };
            let rules: Vec<Vec<String>> = self.rules.iter().filter(own).map(words).collect();
            writeln!(text, "*{table}").expect("writing to a string");
            for chain in builtin {
                let policy = rules.iter().find(|rule| rule[0] == "-P" && rule[1] == *chain);
                let policy = policy.map_or("ACCEPT", |rule| &rule[2]);
                writeln!(text, ":{chain} {policy} [0:0]").expect("writing to a string");
            }
            for rule in rules.iter().filter(|rule| rule[0] == "-N") {
                writeln!(text, ":{} - [0:0]", rule[1]).expect("writing to a string");
            }
            for rule in rules.iter().filter(|rule| rule[0] == "-A") {
                writeln!(text, "{}", rule.join(" ")).expect("writing to a string");
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// The script as a file: JSON, a rule, flow or step a line.
    pub fn to_text(&self) -> String {
        fn lines<T: Serialize>(text: &mut String, name: &str, items: &[T], last: bool) {
            let items: Vec<String> =
                items.iter().map(|item| serde_json::to_string(item).expect("plain data")).collect();
            let end = if last { "" } else { "," };
            writeln!(text, "\"{name}\": [\n  {}\n]{end}", items.join(",\n  "))
                .expect("writing to a string");
        }
        let mut text = format!("{{\"v6\": {},\n", self.v6);
        lines(&mut text, "rules", &self.rules, false);
        lines(&mut text, "sysctls", &self.sysctls, false);
        lines(&mut text, "flows", &self.flows, false);
        lines(&mut text, "steps", &self.steps, true);
        text.push_str("}\n");
        text
    }

    /// Reads what [`Batch::to_text`] wrote.
    pub fn from_text(text: &str) -> Self {
        serde_json::from_str(text).expect("a script as it was printed")
    }
}
