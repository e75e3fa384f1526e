//! `-m hashlimit`, `recent`, `connlimit` as written.

use dataplane::policy::tally::{ConnRule, HashSettings, RecentRule};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TallySpec {
    /// `-m recent`.
    Recent {
        /// `--name`.
        name: Box<str>,
        /// The rest.
        rule: RecentRule,
    },
    /// `-m hashlimit`.
    Hash {
        /// `--hashlimit-name`.
        name: Box<str>,
        /// `--hashlimit-above` instead of `--hashlimit-upto`.
        above: bool,
        /// The table's settings, if this rule is the first to name it.
        settings: HashSettings,
    },
    /// `-m connlimit`.
    Conn {
        /// What it says.
        rule: ConnRule,
    },
}

impl TallySpec {
    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        match self {
            Self::Recent { .. } | Self::Hash { .. } => false,
            Self::Conn { .. } => true,
        }
    }
}
