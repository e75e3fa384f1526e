//! What can be wrong with an operation on sets, as the kernel tells it apart.

use super::name::SetName;

/// Why a set or an element is not made, changed or found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A name that is empty, longer than 31 bytes, or holds a NUL.
    #[error("set name {0:?} is not 1 to 31 bytes long")]
    Name(String),
    /// No set of that name.
    #[error("no set is called {0}")]
    NoSuchSet(SetName),
    /// A set of that name is there already (and is another one, with `-exist`).
    #[error("a set called {0} is there already")]
    SetExists(SetName),
    /// More sets than can be numbered.
    #[error("no more than {0} sets are possible")]
    TooManySets(usize),
    /// The set cannot be destroyed or renamed: rules or lists refer to it.
    #[error("set {0} is in use")]
    InUse(SetName),
    /// The sets cannot be swapped: they hold different things.
    #[error("sets {0} and {1} are of different types")]
    TypeMismatch(SetName, SetName),
    /// A creation parameter out of its range.
    #[error("{0} is not a value that this type of set takes")]
    Parameter(&'static str),
    /// A creation parameter that the type does not have.
    #[error("this type of set has no {0}")]
    NoSuchParameter(&'static str),
    /// A bitmap's range along with a netmask.
    #[error("with a netmask, the range is a network that holds several of that mask")]
    NetmaskRange,
    /// A bitmap's range that is inverted or holds more than 65536 elements.
    #[error("the range holds more than a bitmap can")]
    RangeSize,
    /// The set was created without the extension that the element asks for.
    #[error("the set was created without {0}")]
    NoExtension(&'static str),
    /// The element lacks a part that the type needs.
    #[error("the element has no {0}")]
    Missing(&'static str),
    /// An address of the other family.
    #[error("the address is of the other family")]
    WrongFamily,
    /// A prefix length that is not possible here.
    #[error("the prefix length is not possible here")]
    Cidr,
    /// A protocol without ports where a port is given.
    #[error("the protocol has no ports")]
    Protocol,
    /// An element that a hash cannot hold: all zeros.
    #[error("the all-zero element cannot be stored")]
    NullElement,
    /// The element lies outside the bitmap's range.
    #[error("the element lies outside the range of the set")]
    OutOfRange,
    /// The element is there already.
    #[error("the element is in the set already")]
    Exists,
    /// The element is not there.
    #[error("the element is not in the set")]
    NotThere,
    /// `maxelem` or `size` elements are there already.
    #[error("the set is full")]
    Full,
    /// No room was set aside for another element that a packet adds.
    #[error("no room is set aside for another element")]
    NoRoom,
    /// A `list:set` cannot hold a `list:set`.
    #[error("a list of sets cannot be put into a list of sets")]
    Nested,
    /// The member is of the other family than those that are there.
    #[error("before or after which element?")]
    Before,
    /// The set named by `before` or `after` is not a member.
    #[error("the set that `before` or `after` names is not in the list")]
    NoReference,
}
