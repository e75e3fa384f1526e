//! `-m hashlimit`, `recent`, `connlimit` as written.

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TallySpec {}

impl TallySpec {
    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        match *self {}
    }
}
