//! Elements as people write them, with what they carry.

use arrayvec::ArrayString;

use super::name::SetName;

/// An interface of `hash:net,iface`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Iface {
    /// Without a trailing `+`.
    pub name: ArrayString<15>,
    /// `physdev:`: the bridge port.
    pub physdev: bool,
    /// Whether it ended in `+`: any interface whose name starts so.
    pub wildcard: bool,
}

/// Where a new member of a list goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Beside {
    /// `before`.
    Before(SetName),
    /// `after`.
    After(SetName),
}

/// One element; which parts count is the type's business ([`super::SetType::parts`]).
/// Ranges are expanded by whoever reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Element {
    /// The first address, in the common form.
    pub ip: u128,
    /// Its prefix length; `None`: a single address.
    pub cidr: Option<u8>,
    /// The second address.
    pub ip2: u128,
    /// Its prefix length.
    pub cidr2: Option<u8>,
    /// Protocol of `port`.
    pub proto: u8,
    /// Port, or ICMP type and code in one (`type << 8 | code`); 0 for other protocols.
    pub port: u16,
    /// Link-layer address (`bitmap:ip,mac` may leave it out).
    pub mac: Option<[u8; 6]>,
    /// Packet mark.
    pub mark: u32,
    /// Interface.
    pub iface: Option<Iface>,
    /// The member of a `list:set`.
    pub set: Option<SetName>,
    /// Where it goes in the list, or, deleting and testing, beside what it must stand.
    pub beside: Option<Beside>,
}

/// What SET and the kernel's other users make of a packet with an entry's `skbinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SkbInfo {
    /// `skbmark` value and mask.
    pub mark: Option<(u32, u32)>,
    /// `skbprio`: class as major << 16 | minor.
    pub priority: Option<u32>,
    /// `skbqueue`.
    pub queue: Option<u16>,
}

/// What an element carries besides its key. On `add`, `None` is the default of the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Seconds until it expires, 0 for never.
    pub timeout_s: Option<u32>,
    /// Packets that matched.
    pub packets: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// `skbmark`, `skbprio`, `skbqueue`.
    pub skb: Option<SkbInfo>,
    /// An exception: what lies in it is not in the set.
    pub nomatch: bool,
    /// At most 255 bytes.
    pub comment: Option<Box<str>>,
}

/// An element as it is listed. `timeout_s`, `packets`, `bytes` and `skb` are `Some` if the
/// set has the extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key.
    pub element: Element,
    /// The rest.
    pub extras: Extras,
}
