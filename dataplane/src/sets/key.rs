//! Elements packed into as few words as their type needs.

use arrayvec::ArrayString;

use super::element::{Element, Iface};
use super::spec::{CreateSpec, Part, SetType};
use crate::packet::Family;

/// Most words that a key has.
pub(super) const WORDS: usize = 5;

/// A packed key; words beyond its shape's are zero.
pub(super) type Key = [u64; WORDS];

/// Bits of a prefix length.
const CIDR_BITS: u32 = 8;
/// Bits of protocol and port.
const PORT_BITS: u32 = 24;
const MAC_BITS: u32 = 48;
const MARK_BITS: u32 = 32;
/// Interface name, and whether it is a bridge port, a beginning.
const NAME_BITS: u32 = 120;
const NAME_BYTES: usize = 15;

/// How the keys of one set look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    kind: SetType,
    /// Bits of an address.
    pub(super) address_bits: u32,
    /// Bits of a key.
    bits: u32,
}

impl Shape {
    pub(super) fn of(spec: &CreateSpec) -> Self {
        let address_bits = match spec.family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let bits = |part: &Part| match part {
            Part::Ip => address_bits,
            Part::Net => address_bits + CIDR_BITS,
            Part::Port => PORT_BITS,
            Part::Mac => MAC_BITS,
            Part::Iface => NAME_BITS + 2,
            Part::Mark => MARK_BITS,
        };
        let bits = spec.kind.parts().iter().map(bits).sum();
        Self { kind: spec.kind, address_bits, bits }
    }

    /// Words of a key.
    pub(super) fn words(&self) -> usize {
        self.bits.div_ceil(64) as usize
    }

    /// All ones under a prefix length.
    pub(super) fn mask(&self, cidr: u8) -> u128 {
        let all = u128::MAX >> (128 - self.address_bits);
        let host = self.address_bits - u32::from(cidr).min(self.address_bits);
        if host == 128 { 0 } else { all >> host << host }
    }

    /// The longest prefix.
    pub(super) fn longest(&self) -> u8 {
        self.address_bits as u8
    }

    /// Packs an element whose addresses are masked already.
    pub(super) fn pack(&self, element: &Element) -> Key {
        let mut packer = Packer { words: [0; WORDS], at: 0 };
        let mut second = false;
        for part in self.kind.parts() {
            match part {
                Part::Ip | Part::Net => {
                    let (ip, cidr) = match second {
                        false => (element.ip, element.cidr),
                        true => (element.ip2, element.cidr2),
                    };
                    second = true;
                    packer.push(ip, self.address_bits);
                    if *part == Part::Net {
                        packer.push(u128::from(cidr.unwrap_or(self.longest())), CIDR_BITS);
                    }
                }
                Part::Port => {
                    packer.push(
                        u128::from(element.proto) << 16 | u128::from(element.port),
                        PORT_BITS,
                    );
                }
                Part::Mac => packer.push(mac_number(element.mac.unwrap_or_default()), MAC_BITS),
                Part::Mark => packer.push(u128::from(element.mark), MARK_BITS),
                Part::Iface => {
                    if let Some(iface) = element.iface {
                        packer.push(u128::from(iface.physdev), 1);
                        packer.push(name_number(&iface.name), NAME_BITS);
                        packer.push(u128::from(iface.wildcard), 1);
                    }
                }
            }
        }
        packer.words
    }

    /// Packs the only address of an element, or its only network: what packets ask most.
    #[inline]
    pub(super) fn pack_ip(&self, ip: u128, cidr: Option<u8>) -> Key {
        let mut key = [ip as u64, (ip >> 64) as u64, 0, 0, 0];
        if let Some(cidr) = cidr {
            let (word, shift) = ((self.address_bits / 64) as usize, self.address_bits % 64);
            key[word] |= u64::from(cidr) << shift;
        }
        key
    }

    /// Whether keys hold an interface, and so may be alike without being the same.
    pub(super) fn has_iface(&self) -> bool {
        self.kind == SetType::HashNetIface
    }

    /// Whether a key is no longer than a hash.
    pub(super) fn is_short(&self) -> bool {
        self.bits <= 32
    }

    /// What was packed.
    pub(super) fn unpack(&self, key: &Key) -> Element {
        let mut packer = Packer { words: *key, at: 0 };
        let mut element = Element::default();
        let mut second = false;
        for part in self.kind.parts() {
            match part {
                Part::Ip | Part::Net => {
                    let ip = packer.pull(self.address_bits);
                    let cidr = (*part == Part::Net).then(|| packer.pull(CIDR_BITS) as u8);
                    match second {
                        false => (element.ip, element.cidr) = (ip, cidr),
                        true => (element.ip2, element.cidr2) = (ip, cidr),
                    }
                    second = true;
                }
                Part::Port => {
                    let both = packer.pull(PORT_BITS);
                    (element.proto, element.port) = ((both >> 16) as u8, both as u16);
                }
                Part::Mac => element.mac = Some(number_mac(packer.pull(MAC_BITS))),
                Part::Mark => element.mark = packer.pull(MARK_BITS) as u32,
                Part::Iface => {
                    let physdev = packer.pull(1) != 0;
                    let name = number_name(packer.pull(NAME_BITS));
                    let wildcard = packer.pull(1) != 0;
                    element.iface = Some(Iface { name, physdev, wildcard });
                }
            }
        }
        element
    }

    /// Whether an element that is there is the one meant: the same, or, for interfaces, a
    /// beginning of the same.
    #[inline]
    pub(super) fn same(&self, there: &Key, meant: &Key) -> bool {
        match self.kind {
            SetType::HashNetIface => self.same_net(there, meant) && self.same_iface(there, meant),
            _ => there == meant,
        }
    }

    /// `hash:net,iface`: whether both are of one network (and both of a bridge port or not).
    pub(super) fn same_net(&self, one: &Key, other: &Key) -> bool {
        self.hashed(one) == self.hashed(other)
    }

    fn same_iface(&self, there: &Key, meant: &Key) -> bool {
        let (there, meant) = (self.unpack(there), self.unpack(meant));
        let (Some(there), Some(meant)) = (there.iface, meant.iface) else { return false };
        match there.wildcard {
            true => meant.name.starts_with(there.name.as_str()),
            false => there.name == meant.name,
        }
    }

    /// The part of a key that decides where it is kept.
    #[inline]
    pub(super) fn hashed(&self, key: &Key) -> Key {
        if self.kind != SetType::HashNetIface {
            return *key;
        }
        let mut packer = Packer { words: *key, at: 0 };
        let net = packer.pull(self.address_bits);
        let rest = packer.pull(CIDR_BITS + 1) as u64;
        [net as u64, (net >> 64) as u64, rest, 0, 0]
    }
}

pub(super) fn mac_number(mac: [u8; 6]) -> u128 {
    mac.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
}

fn number_mac(number: u128) -> [u8; 6] {
    std::array::from_fn(|at| (number >> (40 - 8 * at)) as u8)
}

fn name_number(name: &ArrayString<NAME_BYTES>) -> u128 {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    u128::from_le_bytes(bytes)
}

fn number_name(number: u128) -> ArrayString<NAME_BYTES> {
    let bytes = number.to_le_bytes();
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(NAME_BYTES);
    let text = std::str::from_utf8(&bytes[..end.min(NAME_BYTES)]).unwrap_or_default();
    ArrayString::from(text).unwrap_or_default()
}

/// Bits put one behind the other.
struct Packer {
    words: Key,
    at: u32,
}

impl Packer {
    #[inline]
    fn push(&mut self, value: u128, bits: u32) {
        let (low, high) = (value as u64, (value >> 64) as u64);
        self.push_word(low, bits.min(64));
        if bits > 64 {
            self.push_word(high, bits - 64);
        }
    }

    #[inline]
    fn push_word(&mut self, value: u64, bits: u32) {
        let (word, shift) = ((self.at / 64) as usize, self.at % 64);
        self.words[word] |= value << shift;
        if shift + bits > 64 {
            self.words[word + 1] |= value >> (64 - shift);
        }
        self.at += bits;
    }

    #[inline]
    fn pull(&mut self, bits: u32) -> u128 {
        let low = self.pull_word(bits.min(64));
        let high = if bits > 64 { self.pull_word(bits - 64) } else { 0 };
        u128::from(high) << 64 | u128::from(low)
    }

    #[inline]
    fn pull_word(&mut self, bits: u32) -> u64 {
        let (word, shift) = ((self.at / 64) as usize, self.at % 64);
        let mut value = self.words[word] >> shift;
        if shift + bits > 64 {
            value |= self.words[word + 1] << (64 - shift);
        }
        self.at += bits;
        if bits == 64 { value } else { value & ((1 << bits) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            (ip, ip2) in any::<(u128, u128)>(), (cidr, cidr2) in (0u8..=128, 0u8..=128),
            (proto, port, mac, mark) in any::<(u8, u16, [u8; 6], u32)>(), name in "[a-z]{1,15}",
            (physdev, wildcard, v6) in any::<(bool, bool, bool)>(),
        ) {
            let iface = ArrayString::from(&name).unwrap();
            for kind in SetType::ALL {
                let family = if v6 { Family::V6 } else { Family::V4 };
                let shape = Shape::of(&CreateSpec { family, ..CreateSpec::new(kind) });
                let all = shape.mask(shape.longest());
                let parts = kind.parts();
                let nets = parts.iter().filter(|p| matches!(p, Part::Ip | Part::Net)).count();
                let has = |part| parts.contains(&part);
                let element = Element {
                    ip: if nets > 0 { ip & all } else { 0 },
                    cidr: (parts.first() == Some(&Part::Net)).then_some(cidr.min(shape.longest())),
                    ip2: if nets > 1 { ip2 & all } else { 0 },
                    cidr2: (parts.len() > 1 && parts.last() == Some(&Part::Net))
                        .then_some(cidr2.min(shape.longest())),
                    proto: if has(Part::Port) { proto } else { 0 },
                    port: if has(Part::Port) { port } else { 0 },
                    mac: has(Part::Mac).then_some(mac),
                    mark: if has(Part::Mark) { mark } else { 0 },
                    iface: has(Part::Iface).then_some(Iface { name: iface, physdev, wildcard }),
                    ..Element::default()
                };
                prop_assert_eq!(shape.unpack(&shape.pack(&element)), element, "{}", kind.name());
                if matches!(kind, SetType::HashIp | SetType::HashNet) {
                    prop_assert_eq!(shape.pack_ip(element.ip, element.cidr), shape.pack(&element));
                }
            }
        }
    }
}
