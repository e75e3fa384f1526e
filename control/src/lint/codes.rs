//! What lint can find: each finding's code, usual level, cause, example and remedy; and the
//! levels of a site.

use std::collections::BTreeMap;

use crate::diagnostics::{Code, Finding, Severity};

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// It is not shown.
    Allow,
    /// It is worth knowing.
    Note,
    /// It is shown.
    Warn,
    /// It makes lint fail.
    Deny,
}

impl Level {
    /// All levels.
    pub const ALL: [Self; 4] = [Self::Allow, Self::Note, Self::Warn, Self::Deny];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }

    /// The level of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    fn severity(self) -> Option<Severity> {
        match self {
            Self::Allow => None,
            Self::Note => Some(Severity::Note),
            Self::Warn => Some(Severity::Warning),
            Self::Deny => Some(Severity::Error),
        }
    }
}

/// One kind of finding.
#[derive(Clone, Copy, Debug)]
pub struct Lint {
    /// Its code.
    pub code: Code,
    /// What becomes of it unless a site says otherwise.
    pub level: Level,
    /// What it means.
    pub cause: &'static str,
    /// Rules that have it.
    pub example: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Lint {
    /// For people who meet it for the first time.
    pub fn explained(&self) -> String {
        let Self { code, level, cause, example, remedy } = self;
        let example: String = example.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "{} (usually: {})\n\nCause: {cause}\n\nExample:\n{example}\nRemedy: {remedy}\n",
            code.name(),
            level.name()
        )
    }
}

macro_rules! lints {
    ($($code:ident $level:ident $cause:literal $example:literal $remedy:literal;)*) => {
        /// Every kind of finding, in the order of the reference.
        pub static LINTS: &[Lint] = &[$(Lint {
            code: Code::$code,
            level: Level::$level,
            cause: $cause,
            example: $example,
            remedy: $remedy,
        },)*];
    };
}

lints! {
    NeverMatches Warn
        "the conditions of the rule exclude each other, or ask for what no packet has; the kernel loads it, and never counts a packet"
        "-A INPUT -m conntrack --ctstate NEW -m state --state ESTABLISHED -j ACCEPT"
        "correct the conditions, or delete the rule";
    Unreachable Warn
        "rules before it end the chain for every packet that it matches, with the verdict that it has, or nothing that it matches enters the chain (set algebra over addresses, ports, protocols, flags, interfaces and states; other matches count as the same only if they ask the same and nothing between them can have changed the answer; true of every packet whose headers are whole)"
        "-A FORWARD -p tcp -j ACCEPT\n-A FORWARD -p tcp --dport 22 -j ACCEPT"
        "delete it, or move it up if it is meant";
    Contradicted Warn
        "rules before it end the chain for every packet that it matches, and do something else with them: one of the two is not what was meant"
        "-A FORWARD -s 198.18.0.0/16 -j ACCEPT\n-A FORWARD -s 198.18.7.0/24 -j DROP"
        "move it up if it is meant, or delete it";
    Redundant Note
        "packets that it matches meet the same verdict without it, by a rule behind it or the chain's policy, and no rule in between does anything to them"
        ":FORWARD DROP [0:0]\n-A FORWARD -s 198.18.7.0/24 -j DROP"
        "delete it, unless it is there to count or to be read";
    UnusedChain Warn
        "the chain has rules, but no rule of a chain in use jumps or goes to it"
        ":old - [0:0]\n-A old -j DROP"
        "jump to it, or delete it with its rules";
    LimitNeverFires Warn
        "what the limit lets pass meets the same verdict as what it holds back: a rule behind it, or the policy, does the same without a limit"
        "-A INPUT -p icmp -m limit --limit 5/s -j ACCEPT\n-A INPUT -p icmp -j ACCEPT"
        "put a DROP for the rest right behind it, or delete the limit";
    DnatWithoutForward Warn
        "the filter table drops every new packet to the translated destination: nobody can use the translation"
        "*nat\n-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.0.2.9:8080\n*filter\n:FORWARD DROP [0:0]"
        "accept the translated address and port in FORWARD (it sees destinations after DNAT), or delete the DNAT";
    ForwardWithoutDnat Warn
        "the rule is for packets whose destination was translated, and no rule of the nat table translates destinations"
        "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT"
        "add the DNAT, or delete the rule";
    NatWithoutReturn Warn
        "the filter table drops every answer to the translated connections: they never come to be"
        "*nat\n-A POSTROUTING -o wan0 -j MASQUERADE\n*filter\n:FORWARD DROP [0:0]\n-A FORWARD -o wan0 -j ACCEPT"
        "accept ESTABLISHED,RELATED at the head of FORWARD";
    MissingEstablished Warn
        "rules of this hook accept NEW packets, the rest is dropped, and no rule speaks of ESTABLISHED: connections end after their first packet"
        ":INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT"
        "accept ESTABLISHED,RELATED at the head of the chain";
    AcceptAny Warn
        "the rule accepts every packet, or every new connection, whoever sends it where"
        "-A FORWARD -j ACCEPT"
        "say what is accepted: interface, addresses, service";
    PolicyAccept Warn
        "what no rule of the chain takes is accepted"
        "*filter\n:FORWARD ACCEPT [0:0]"
        "set the policy to DROP, after a rule for every service that is meant";
    InvalidNotDropped Warn
        "a table translates connections, and packets that tracking calls INVALID pass FORWARD: they are not translated, so that inside addresses leave, and late resets do harm"
        "*nat\n-A POSTROUTING -o wan0 -j MASQUERADE\n*filter\n-A FORWARD -i lan0 -j ACCEPT"
        "drop INVALID before anything is accepted: -m conntrack --ctstate INVALID -j DROP";
    LogWithoutLimit Warn
        "whoever sends packets that the rule matches fills the log"
        "-A INPUT -j LOG --log-prefix \"drop \""
        "add -m limit --limit 5/min, or -m hashlimit by source";
    MarkNeverRead Note
        "no rule of the file asks for these bits of the mark; routing rules (ip rule fwmark) may"
        "*mangle\n-A PREROUTING -i wan0 -j MARK --set-xmark 0x1/0x1"
        "delete the rule, or match the mark; if a routing rule asks for it, say so in a comment and allow the code";
    MarkNeverSet Warn
        "no rule of the file sets these bits of the mark: the match always has the same answer"
        "-A FORWARD -m mark --mark 0x10/0x10 -j ACCEPT"
        "set the mark, or delete the match";
    ExceptionWithoutOwner Warn
        "a rule that calls itself an exception or has an expiry date names nobody who answers for it"
        "-m comment --comment \"exception ticket=OPS-7 review=2030-01-01\""
        "add owner=NAME to the comment";
    ExceptionWithoutTicket Warn
        "nobody can look up why the exception was made"
        "-m comment --comment \"exception owner=net review=2030-01-01\""
        "add ticket=ID to the comment";
    ExceptionWithoutReview Warn
        "nothing says when the exception is to be looked at again: it will be permanent"
        "-m comment --comment \"exception owner=net ticket=OPS-7\""
        "add review=YYYY-MM-DD or expires=YYYY-MM-DD to the comment";
    ReviewOverdue Warn
        "the date in review= is past"
        "-m comment --comment \"owner=net review=2001-01-01\""
        "look whether the rule is still needed; delete it, or set the next date";
    ExceptionExpired Deny
        "the date in expires= is past: the rule was to be gone"
        "-m comment --comment \"owner=net ticket=OPS-7 expires=2001-01-01\""
        "delete the rule, or have the exception renewed";
    BadDate Warn
        "the value of review= or expires= is no date, so that it never comes"
        "-m comment --comment \"review=31.12.2030\""
        "write it as YYYY-MM-DD";
    MissingPurpose Allow
        "the rule has no comment: whoever reads it has to guess what it is for"
        "-A FORWARD -s 198.18.3.9/32 -j ACCEPT"
        "add -m comment --comment \"what it is for owner=NAME\"";
    MissingScope Allow
        "neither the first rule of the chain nor a rule that leads to it has a comment: nothing says what the chain is for"
        ":tcp_in - [0:0]\n-A INPUT -p tcp -j tcp_in"
        "give the jump, or the chain's first rule, a comment";
    SecretInComment Deny
        "comments and log prefixes are shown to everybody who may list the rules, and are kept in histories and logs; this one looks like a password, token or key"
        "-m comment --comment \"vpn psk=hunter2\""
        "take it out, and change the secret: it has been seen";
    HostInComment Note
        "a name of a host tells readers of listings and logs how the network is built, and is wrong as soon as the host moves"
        "-m comment --comment \"backup to db7.example.internal\""
        "name the role, not the host";
    SlowChain Warn
        "a packet may be compared with many rules of the chain, one by one: no hash table suits them"
        "-A FORWARD -s 198.18.0.3/255.0.255.3 -j ACCEPT"
        "use masks of few lengths, a set in place of many networks, or user chains that a common selector leads to";
    RuleOrder Note
        "more packets meet this rule than those before it, and it may stand before them: it is disjoint from each, or does the same (proven; only with --hits)"
        "[10:600] -A INPUT -p udp --dport 53 -j ACCEPT\n[999999:59999940] -A INPUT -p tcp --dport 443 -j ACCEPT"
        "move it up to where the finding says; the kernel compares rule by rule (Portcullis finds it at the same cost anywhere)";
}

/// The kind of finding of that name.
pub fn named(name: &str) -> Option<&'static Lint> {
    LINTS.iter().find(|lint| lint.code.name() == name)
}

/// The levels of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels(BTreeMap<String, Level>);

impl Levels {
    /// Sets one; the last word counts. False: lint has no such code.
    pub fn set(&mut self, code: &str, level: Level) -> bool {
        let known = named(code).is_some();
        if known {
            self.0.insert(code.to_owned(), level);
        }
        known
    }

    /// The level of a code.
    pub fn of(&self, code: Code) -> Level {
        let name = code.name();
        let usual = || named(&name).map_or(Level::Warn, |lint| lint.level);
        self.0.get(&name).copied().unwrap_or_else(usual)
    }

    /// Gives findings their severity, and leaves out what is allowed.
    pub fn applied(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let judged = findings.into_iter().filter_map(|finding| {
            let severity = self.of(finding.code).severity()?;
            Some(Finding { severity, ..finding })
        });
        judged.collect()
    }
}

/// The table of codes in `docs/operations.md`.
pub fn reference() -> String {
    let mut text = "| code | usually | cause | remedy |\n|---|---|---|---|\n".to_owned();
    for Lint { code, level, cause, remedy, .. } in LINTS {
        text += &format!("| `{}` | {} | {cause} | {remedy} |\n", code.name(), level.name());
    }
    text
}
