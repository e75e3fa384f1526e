//! Names of sets.

use std::fmt;

use arrayvec::ArrayString;

use super::error::SetError;

/// A set's name: 1 to 31 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(ArrayString<{ Self::MAX }>);

impl SetName {
    /// Longest name, in bytes.
    pub const MAX: usize = 31;

    /// Checks the length.
    ///
    /// # Errors
    /// [`SetError::Name`].
    pub fn new(name: &str) -> Result<Self, SetError> {
        let possible = !name.is_empty() && !name.contains('\0');
        let held = possible.then(|| ArrayString::from(name).ok()).flatten();
        held.map(Self).ok_or_else(|| SetError::Name(name.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
