//! One line of a connection table.

/// The mark of connections that are there only to fill a table.
pub const FILLER: &str = "mark=4242";

/// A connection as both listings tell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Protocol, state, tuples, flags, mark and zone, in one fixed form.
    pub facts: String,
    /// Seconds left.
    pub timeout_s: u64,
}

impl Flow {
    /// Reads a line of `/proc/net/nf_conntrack` or of `conntrack -L`.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if words.contains(&FILLER) {
            return None;
        }
        if matches!(words.first(), Some(&"ipv4" | &"ipv6")) {
            words.drain(..2);
        }
        let proto: u8 = words.get(1)?.parse().ok()?;
        let timeout_s = words.get(2)?.parse().ok()?;
        let facts = words[3..].iter().filter_map(|word| match word.split_once('=') {
            Some(("use" | "secctx" | "timeout" | "stream_timeout" | "helper", _)) => None,
            Some(("zone" | "mark", "0")) => None,
            Some((name @ ("src" | "dst"), value)) => {
                let address: std::net::IpAddr = value.parse().ok()?;
                Some(format!("{name}={address}"))
            }
            _ => Some((*word).to_owned()),
        });
        let facts = std::iter::once(proto.to_string()).chain(facts).collect::<Vec<_>>().join(" ");
        Some(Self { facts, timeout_s })
    }

    /// Whether all these words are in it.
    pub fn has(&self, words: &str) -> bool {
        words.split(' ').all(|word| self.facts.split(' ').any(|fact| fact == word))
    }
    /// TCP's state, or nothing.
    pub fn state(&self) -> &str {
        let word = self.facts.split(' ').nth(1).unwrap_or_default();
        if word.contains('=') { "" } else { word }
    }
    /// Whether it has seen both directions.
    pub fn replied(&self) -> bool {
        !self.has("[UNREPLIED]")
    }
    /// Whether it is ASSURED.
    pub fn assured(&self) -> bool {
        self.has("[ASSURED]")
    }
    /// The value of the `n`th word of that name: 0 in the original direction, 1 in the reply's.
    pub fn field(&self, name: &str, n: usize) -> &str {
        let mut found =
            self.facts.split(' ').filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.nth(n).unwrap_or_default()
    }
    /// That state, with that timeout (a loaded machine may take seconds).
    #[track_caller]
    pub fn is(&self, state: &str, timeout_s: u64) {
        assert_eq!(self.state(), state, "{self:?}");
        let near = self.timeout_s <= timeout_s && self.timeout_s + 5 > timeout_s;
        assert!(near, "timeout {timeout_s} expected: {self:?}");
    }
}
