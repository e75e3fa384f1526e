//! Targets that report a packet and let the walk go on: NFLOG, AUDIT, TRACE.

/// `-j NFLOG`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NflogTarget {
    /// `--nflog-group`.
    pub group: u16,
    /// `--nflog-prefix`, at most 63 bytes.
    pub prefix: Box<str>,
    /// `--nflog-size`: bytes of the packet that are reported at most.
    pub size: Option<u32>,
    /// `--nflog-range`, which never did anything; zero is as good as not given.
    pub range: u32,
    /// `--nflog-threshold`: how many packets a netlink message may gather.
    pub threshold: u16,
}

/// `-j AUDIT --type`. It says nothing about the packet's fate, and no record shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditKind {
    /// `accept`.
    Accept,
    /// `drop`.
    Drop,
    /// `reject`.
    Reject,
}

impl AuditKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Drop, Self::Reject];
    /// The word that `--type` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReportTarget {
    /// To listeners of a group.
    Nflog(NflogTarget),
    /// An audit record.
    Audit(AuditKind),
    /// Every rule that the packet matches from now on is reported.
    Trace,
}

impl ReportTarget {
    /// The name that `-j` takes.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Nflog(_) => "NFLOG",
            Self::Audit(_) => "AUDIT",
            Self::Trace => "TRACE",
        }
    }
}
