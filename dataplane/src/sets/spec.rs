//! Types of sets, and what is said when one is created.

use crate::packet::Family;

/// What a set holds and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of ipset")]
pub enum SetType {
    BitmapIp,
    BitmapIpMac,
    BitmapPort,
    HashIp,
    HashMac,
    HashIpMac,
    HashNet,
    HashNetNet,
    HashIpPort,
    HashNetPort,
    HashIpPortIp,
    HashIpPortNet,
    HashNetPortNet,
    HashNetIface,
    HashIpMark,
    ListSet,
}

/// One part of an element, in the order in which `src,dst` flags name the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// A single address.
    Ip,
    /// A network.
    Net,
    /// Protocol and port.
    Port,
    /// A link-layer address.
    Mac,
    /// An interface.
    Iface,
    /// A packet mark.
    Mark,
}

impl SetType {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::BitmapIp,
        Self::BitmapIpMac,
        Self::BitmapPort,
        Self::HashIp,
        Self::HashMac,
        Self::HashIpMac,
        Self::HashNet,
        Self::HashNetNet,
        Self::HashIpPort,
        Self::HashNetPort,
        Self::HashIpPortIp,
        Self::HashIpPortNet,
        Self::HashNetPortNet,
        Self::HashNetIface,
        Self::HashIpMark,
        Self::ListSet,
    ];

    /// As `ipset` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BitmapIp => "bitmap:ip",
            Self::BitmapIpMac => "bitmap:ip,mac",
            Self::BitmapPort => "bitmap:port",
            Self::HashIp => "hash:ip",
            Self::HashMac => "hash:mac",
            Self::HashIpMac => "hash:ip,mac",
            Self::HashNet => "hash:net",
            Self::HashNetNet => "hash:net,net",
            Self::HashIpPort => "hash:ip,port",
            Self::HashNetPort => "hash:net,port",
            Self::HashIpPortIp => "hash:ip,port,ip",
            Self::HashIpPortNet => "hash:ip,port,net",
            Self::HashNetPortNet => "hash:net,port,net",
            Self::HashNetIface => "hash:net,iface",
            Self::HashIpMark => "hash:ip,mark",
            Self::ListSet => "list:set",
        }
    }

    /// By the name that `ipset` spells.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The parts of an element; none for a list.
    pub const fn parts(self) -> &'static [Part] {
        use Part::{Iface, Ip, Mac, Mark, Net, Port};
        match self {
            Self::BitmapIp | Self::HashIp => &[Ip],
            Self::BitmapIpMac | Self::HashIpMac => &[Ip, Mac],
            Self::BitmapPort => &[Port],
            Self::HashMac => &[Mac],
            Self::HashNet => &[Net],
            Self::HashNetNet => &[Net, Net],
            Self::HashIpPort => &[Ip, Port],
            Self::HashNetPort => &[Net, Port],
            Self::HashIpPortIp => &[Ip, Port, Ip],
            Self::HashIpPortNet => &[Ip, Port, Net],
            Self::HashNetPortNet => &[Net, Port, Net],
            Self::HashNetIface => &[Net, Iface],
            Self::HashIpMark => &[Ip, Mark],
            Self::ListSet => &[],
        }
    }

    /// Whether it is one of the `hash` types.
    pub const fn is_hash(self) -> bool {
        !matches!(self, Self::BitmapIp | Self::BitmapIpMac | Self::BitmapPort | Self::ListSet)
    }

    /// Whether elements hold addresses: then the set is of one family.
    pub fn has_addresses(self) -> bool {
        self.parts().iter().any(|part| matches!(part, Part::Ip | Part::Net))
    }

    /// Whether a set of the other type can stand where one of this does (`ipset swap`):
    /// the same things in an element, be they addresses or networks, in any number of
    /// each but addresses, and exceptions in both or in none.
    pub fn holds_as(self, other: Self) -> bool {
        let features = |kind: Self| {
            let count =
                |wanted: &[Part]| kind.parts().iter().filter(|part| wanted.contains(part)).count();
            let parts = [
                count(&[Part::Ip, Part::Net]),
                count(&[Part::Port]),
                count(&[Part::Mac]),
                count(&[Part::Iface]),
                count(&[Part::Mark]),
            ];
            (parts, kind.networks() > 0, kind == Self::ListSet)
        };
        features(self) == features(other)
    }

    /// How many networks an element has.
    pub fn networks(self) -> usize {
        self.parts().iter().filter(|part| **part == Part::Net).count()
    }
}

/// What is said when a set is created. [`CreateSpec::new`] gives the defaults; what a
/// type does not have is ignored, or refused by [`super::Registry::create`] where its
/// value is not the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateSpec {
    /// Type.
    pub kind: SetType,
    /// `family` (hash types with addresses; others are V4).
    pub family: Family,
    /// `hashsize`: a power of two.
    pub hashsize: u32,
    /// `maxelem`.
    pub maxelem: u32,
    /// `bucketsize`.
    pub bucketsize: u8,
    /// `initval`, if it was given; listed, and not used.
    pub initval: Option<u32>,
    /// `netmask` (`hash:ip`, `bitmap:ip`, `hash:ip,port`, `hash:net,net`): prefix length.
    pub netmask: Option<u8>,
    /// `bitmask`, in the common form; not along with `netmask`.
    pub bitmask: Option<u128>,
    /// `markmask` (`hash:ip,mark`).
    pub markmask: u32,
    /// `range` of a bitmap: first and last address or port.
    pub range: Option<(u32, u32)>,
    /// `size` (`list:set`).
    pub size: u32,
    /// `timeout`: the set's default in seconds, 0 for none; `None` without the extension.
    pub timeout: Option<u32>,
    /// `counters`.
    pub counters: bool,
    /// `comment`.
    pub comment: bool,
    /// `skbinfo`.
    pub skbinfo: bool,
    /// `forceadd`.
    pub forceadd: bool,
}

impl CreateSpec {
    /// Longest timeout, in seconds: half of what 32 bits of milliseconds hold.
    pub const MAX_TIMEOUT_S: u32 = 2_147_483;
    /// Elements of the largest bitmap.
    pub const MAX_BITMAP: u32 = 1 << 16;

    /// The defaults.
    pub const fn new(kind: SetType) -> Self {
        Self {
            kind,
            family: Family::V4,
            hashsize: 1024,
            maxelem: 65_536,
            bucketsize: 12,
            initval: None,
            netmask: None,
            bitmask: None,
            markmask: u32::MAX,
            range: None,
            size: 8,
            timeout: None,
            counters: false,
            comment: false,
            skbinfo: false,
            forceadd: false,
        }
    }
}
