//! Names of protocols and services, as the host defines them.
//!
//! The kernel's tools look them up in `/etc/protocols` and `/etc/services`, so
//! the same file can mean different ports on different hosts. The parser asks
//! a [`Names`] and never reads files itself.

use std::collections::HashMap;
use std::path::Path;

use super::value;

/// Most bytes read of either file.
const MAX_FILE: u64 = 4 << 20;

/// Where the parser and the printer ask for names.
pub trait Names {
    /// The number of a protocol name. The parser has already tried numbers.
    fn protocol_number(&self, name: &str) -> Option<u8>;
    /// The name that the tools print for a protocol number.
    fn protocol_name(&self, number: u8) -> Option<&str>;
    /// The port of a service under a protocol name, or under any protocol.
    fn service_port(&self, name: &str, protocol: Option<&str>) -> Option<u16>;
    /// The connection label of that name.
    fn label(&self, name: &str) -> Option<u8>;
    /// The name of a connection label.
    fn label_name(&self, label: u8) -> Option<&str>;
    /// The number of a user.
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }
    /// The number of a group of users.
    fn group(&self, _name: &str) -> Option<u32> {
        None
    }
    /// The protocol of a timeout policy that `-j CT --timeout` can name.
    fn timeout_policy(&self, name: &str) -> Option<u8>;
}

/// Highest connection label.
const MAX_LABEL: u64 = 127;

/// Names that the tools know without any file.
const FIXED_PROTOCOLS: &[(&str, u8)] = &[
    ("all", 0),
    ("tcp", 6),
    ("sctp", 132),
    ("udp", 17),
    ("udplite", 136),
    ("icmp", 1),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-mh", 135),
    ("mh", 135),
];

/// Well-known protocols, for hosts without `/etc/protocols`: name, number, alias.
const WELL_KNOWN_PROTOCOLS: &[(&str, u8, &str)] = &[
    ("ip", 0, "IP"),
    ("hopopt", 0, "HOPOPT"),
    ("icmp", 1, "ICMP"),
    ("igmp", 2, "IGMP"),
    ("ipencap", 4, "IP-ENCAP"),
    ("tcp", 6, "TCP"),
    ("egp", 8, "EGP"),
    ("udp", 17, "UDP"),
    ("dccp", 33, "DCCP"),
    ("ipv6", 41, "IPv6"),
    ("ipv6-route", 43, "IPv6-Route"),
    ("ipv6-frag", 44, "IPv6-Frag"),
    ("rsvp", 46, "RSVP"),
    ("gre", 47, "GRE"),
    ("esp", 50, "IPSEC-ESP"),
    ("ah", 51, "IPSEC-AH"),
    ("ipv6-icmp", 58, "IPv6-ICMP"),
    ("ipv6-nonxt", 59, "IPv6-NoNxt"),
    ("ipv6-opts", 60, "IPv6-Opts"),
    ("ospf", 89, "OSPFIGP"),
    ("pim", 103, "PIM"),
    ("ipcomp", 108, "IPCOMP"),
    ("vrrp", 112, "VRRP"),
    ("l2tp", 115, "L2TP"),
    ("sctp", 132, "SCTP"),
    ("mobility-header", 135, "Mobility-Header"),
    ("udplite", 136, "UDPLite"),
];

/// A few services, for hosts without `/etc/services`: name, port, protocols.
const WELL_KNOWN_SERVICES: &[(&str, u16, &[&str])] = &[
    ("ftp-data", 20, &["tcp"]),
    ("ftp", 21, &["tcp"]),
    ("ssh", 22, &["tcp"]),
    ("telnet", 23, &["tcp"]),
    ("smtp", 25, &["tcp"]),
    ("domain", 53, &["tcp", "udp"]),
    ("bootps", 67, &["udp"]),
    ("bootpc", 68, &["udp"]),
    ("tftp", 69, &["udp"]),
    ("http", 80, &["tcp"]),
    ("pop3", 110, &["tcp"]),
    ("sunrpc", 111, &["tcp", "udp"]),
    ("ntp", 123, &["udp"]),
    ("imap2", 143, &["tcp"]),
    ("snmp", 161, &["tcp", "udp"]),
    ("ldap", 389, &["tcp", "udp"]),
    ("https", 443, &["tcp", "udp"]),
    ("syslog", 514, &["tcp", "udp"]),
    ("submission", 587, &["tcp"]),
    ("imaps", 993, &["tcp"]),
    ("pop3s", 995, &["tcp"]),
];

/// Names read from texts in the format of `/etc/protocols` and `/etc/services`.
#[derive(Clone, Debug)]
pub struct TableNames {
    protocols: HashMap<String, u8>,
    protocol_names: HashMap<u8, String>,
    services: HashMap<(String, String), u16>,
    /// First port of a name under any protocol.
    any_service: HashMap<String, u16>,
    labels: HashMap<String, u8>,
    label_names: HashMap<u8, String>,
    timeout_policies: HashMap<String, u8>,
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl TableNames {
    /// The small built-in table; the same everywhere.
    pub fn well_known() -> Self {
        let mut names = Self::empty();
        names.add_well_known_protocols();
        names.add_well_known_services();
        names
    }

    /// From the two texts. An empty one is replaced by the built-in table.
    pub fn from_texts(protocols: &str, services: &str) -> Self {
        let mut names = Self::empty();
        for words in entries(protocols) {
            let Some(number) = words.get(1).and_then(|word| word.parse().ok()) else { continue };
            let aliases = words[2..].iter().chain([&words[0]]);
            for alias in aliases {
                names.protocols.entry((*alias).to_string()).or_insert(number);
            }
            names.protocol_names.entry(number).or_insert_with(|| words[0].to_string());
        }
        if names.protocol_names.is_empty() {
            names.add_well_known_protocols();
        }
        for words in entries(services) {
            let Some((port, protocol)) = words.get(1).and_then(|word| word.split_once('/')) else {
                continue;
            };
            let Ok(port) = port.parse() else { continue };
            for alias in words[2..].iter().chain([&words[0]]) {
                names.add_service(alias, port, protocol);
            }
        }
        if names.services.is_empty() {
            names.add_well_known_services();
        }
        names
    }

    /// The host's own files; what is missing or unreadable is replaced by the
    /// built-in table.
    pub fn of_host() -> Self {
        let host = |path: &str| read(Path::new(path));
        Self::from_texts(&host("/etc/protocols"), &host("/etc/services"))
            .with_labels(&host("/etc/xtables/connlabel.conf"))
            .with_users(&host("/etc/passwd"))
            .with_groups(&host("/etc/group"))
    }

    fn empty() -> Self {
        Self {
            protocols: FIXED_PROTOCOLS.iter().map(|(name, n)| ((*name).to_string(), *n)).collect(),
            protocol_names: HashMap::new(),
            services: HashMap::new(),
            any_service: HashMap::new(),
            labels: HashMap::new(),
            label_names: HashMap::new(),
            timeout_policies: HashMap::new(),
            users: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    /// With connection labels from a text in the format of `connlabel.conf`: a number
    /// and a name of letters, digits, `-` and blanks on each line. Others are skipped.
    #[must_use]
    pub fn with_labels(mut self, text: &str) -> Self {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let Some(end) = line.find(char::is_whitespace) else { continue };
            let (number, name) = (&line[..end], line[end..].trim());
            let label = value::number(number, 0, MAX_LABEL).map(|label| label as u8);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ' ');
            let (Some(label), true) = (label, !name.is_empty() && name.chars().all(plain)) else {
                continue;
            };
            if !self.labels.contains_key(name) && !self.label_names.contains_key(&label) {
                self.labels.insert(name.to_string(), label);
                self.label_names.insert(label, name.to_string());
            }
        }
        self
    }

    /// With users from a text in the format of `/etc/passwd`.
    #[must_use]
    pub fn with_users(mut self, passwd: &str) -> Self {
        self.users = numbered(passwd);
        self
    }

    /// With groups of users from a text in the format of `/etc/group`.
    #[must_use]
    pub fn with_groups(mut self, group: &str) -> Self {
        self.groups = numbered(group);
        self
    }

    /// With timeout policies: names, and the number of the protocol of each.
    #[must_use]
    pub fn with_timeout_policies<'p>(
        mut self,
        policies: impl IntoIterator<Item = (&'p str, u8)>,
    ) -> Self {
        let policies = policies.into_iter().map(|(name, protocol)| (name.to_string(), protocol));
        self.timeout_policies.extend(policies);
        self
    }

    fn add_well_known_protocols(&mut self) {
        for (name, number, alias) in WELL_KNOWN_PROTOCOLS {
            self.protocols.entry((*name).to_string()).or_insert(*number);
            self.protocols.entry((*alias).to_string()).or_insert(*number);
            self.protocol_names.entry(*number).or_insert_with(|| (*name).to_string());
        }
    }

    fn add_well_known_services(&mut self) {
        for (name, port, protocols) in WELL_KNOWN_SERVICES {
            for protocol in *protocols {
                self.add_service(name, *port, protocol);
            }
        }
    }

    fn add_service(&mut self, name: &str, port: u16, protocol: &str) {
        self.services.entry((name.to_string(), protocol.to_string())).or_insert(port);
        self.any_service.entry(name.to_string()).or_insert(port);
    }
}

impl Names for TableNames {
    fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }

    fn protocol_number(&self, name: &str) -> Option<u8> {
        self.protocols.get(name).copied()
    }

    fn protocol_name(&self, number: u8) -> Option<&str> {
        self.protocol_names.get(&number).map(String::as_str)
    }

    fn service_port(&self, name: &str, protocol: Option<&str>) -> Option<u16> {
        match protocol {
            Some(protocol) => self.services.get(&(name.to_string(), protocol.to_string())).copied(),
            None => self.any_service.get(name).copied(),
        }
    }

    fn label(&self, name: &str) -> Option<u8> {
        self.labels.get(name).copied()
    }

    fn label_name(&self, label: u8) -> Option<&str> {
        self.label_names.get(&label).map(String::as_str)
    }

    fn timeout_policy(&self, name: &str) -> Option<u8> {
        self.timeout_policies.get(name).copied()
    }
}

/// The words of each line that has any, comments cut off.
fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter_map(|line| {
        let words: Vec<&str> = line.split('#').next()?.split_whitespace().collect();
        (words.len() >= 2).then_some(words)
    })
}

/// Names and the third fields of lines with colons. The first of a name counts.
fn numbered(text: &str) -> HashMap<String, u32> {
    let mut numbers = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let name = fields.next().unwrap_or_default();
        if let Some(number) = fields.nth(1).and_then(|number| number.parse().ok()) {
            numbers.entry(name.to_owned()).or_insert(number);
        }
    }
    numbers
}

fn read(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // A file that stops being readable half-way still gives what was read.
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
