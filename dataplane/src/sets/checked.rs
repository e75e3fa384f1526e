//! What is possible: creation parameters and elements before they get into a set.

use super::element::{Element, Extras};
use super::error::SetError;
use super::set::{Body, Set};
use super::spec::{CreateSpec, Part, SetType};
use crate::packet::Family;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// TCP, UDP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 4] = [6, 17, 132, 136];
/// Smallest `size` of a list.
const MIN_SIZE: u32 = 4;
/// Longest comment, in bytes.
const MAX_COMMENT: usize = 255;

impl CreateSpec {
    /// The same with what the type does not have at its default.
    pub(super) fn checked(&self) -> Result<Self, SetError> {
        let mut spec = *self;
        let kind = spec.kind;
        let bits = match spec.family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        if spec.family == Family::V6 && !(kind.is_hash() && kind.has_addresses()) {
            return Err(SetError::NoSuchParameter("family"));
        }
        let masks = matches!(kind, SetType::HashIp | SetType::HashIpPort | SetType::HashNetNet);
        if spec.netmask.is_some() && !masks && kind != SetType::BitmapIp {
            return Err(SetError::NoSuchParameter("netmask"));
        }
        if spec.bitmask.is_some() && !masks {
            return Err(SetError::NoSuchParameter("bitmask"));
        }
        if spec.netmask.is_some_and(|netmask| netmask == 0 || netmask > bits) {
            return Err(SetError::Parameter("netmask"));
        }
        // A mask of all bits masks nothing, and is not listed.
        spec.netmask = spec.netmask.filter(|netmask| *netmask < bits);
        if spec.bitmask == Some(0) || (spec.bitmask.is_some() && spec.netmask.is_some()) {
            return Err(SetError::Parameter("bitmask"));
        }
        if spec.timeout.is_some_and(|timeout| timeout > CreateSpec::MAX_TIMEOUT_S) {
            return Err(SetError::Parameter("timeout"));
        }
        if spec.markmask == 0 {
            return Err(SetError::Parameter("markmask"));
        }
        if !kind.is_hash() {
            let plain = Self::new(kind);
            (spec.hashsize, spec.maxelem) = (plain.hashsize, plain.maxelem);
            (spec.bucketsize, spec.initval) = (plain.bucketsize, None);
        }
        // The kernel lists no less, and lets a list grow beyond it.
        spec.size = match kind {
            SetType::ListSet => spec.size.max(MIN_SIZE),
            _ => Self::new(kind).size,
        };
        Ok(spec)
    }

    /// An address as the set keeps it.
    #[inline]
    pub(super) fn keeps(&self, ip: u128, all: u128) -> u128 {
        match (self.netmask, self.bitmask) {
            (Some(netmask), _) => {
                let host = all.count_ones() - u32::from(netmask);
                if host == 128 { 0 } else { ip >> host << host }
            }
            (None, Some(bitmask)) => ip & bitmask,
            (None, None) => ip,
        }
    }
}

impl Set {
    /// Refuses what the set has no extension for.
    pub(super) fn check_extras(&self, extras: &Extras) -> Result<(), SetError> {
        let spec = self.spec();
        let said = [
            (extras.timeout_s.is_some() && spec.timeout.is_none(), "timeout"),
            (extras.packets.or(extras.bytes).is_some() && !spec.counters, "counters"),
            (extras.comment.is_some() && !spec.comment, "comment"),
            (extras.skb.is_some() && !spec.skbinfo, "skbinfo"),
            (extras.nomatch && spec.kind.networks() == 0, "nomatch"),
        ];
        if let Some((_, what)) = said.into_iter().find(|(refused, _)| *refused) {
            return Err(SetError::NoExtension(what));
        }
        if extras.timeout_s.is_some_and(|timeout| timeout > CreateSpec::MAX_TIMEOUT_S) {
            return Err(SetError::Parameter("timeout"));
        }
        if extras.comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT) {
            return Err(SetError::Parameter("comment"));
        }
        Ok(())
    }

    /// The element as the set keeps it.
    pub(super) fn checked(&self, element: &Element) -> Result<Element, SetError> {
        let spec = self.spec();
        let Body::Hash(store) = &self.body else { return Ok(*element) };
        let shape = &store.shape;
        let (longest, all) = (shape.longest(), shape.mask(shape.longest()));
        let mut kept = *element;
        let mut second = false;
        let from_zero = matches!(
            spec.kind,
            SetType::HashNetIface | SetType::HashNetNet | SetType::HashNetPortNet
        );
        for part in spec.kind.parts() {
            match part {
                Part::Ip | Part::Net => {
                    let (ip, cidr) = match second {
                        false => (&mut kept.ip, &mut kept.cidr),
                        true => (&mut kept.ip2, &mut kept.cidr2),
                    };
                    second = true;
                    if *ip & !all != 0 {
                        return Err(SetError::WrongFamily);
                    }
                    *ip = spec.keeps(*ip, all);
                    let length = cidr.unwrap_or(longest);
                    let possible = match part {
                        Part::Net => length <= longest && (length > 0 || from_zero),
                        _ => length == longest,
                    };
                    if !possible {
                        return Err(SetError::Cidr);
                    }
                    *ip &= shape.mask(length);
                    *cidr = (*part == Part::Net).then_some(length);
                    if spec.kind == SetType::HashIp && *ip == 0 {
                        return Err(SetError::NullElement);
                    }
                }
                Part::Port => {
                    let with_ports = WITH_PORTS.contains(&kept.proto);
                    if kept.proto == 0 {
                        return Err(SetError::Protocol);
                    }
                    if !with_ports && !matches!(kept.proto, ICMP | ICMPV6) {
                        kept.port = 0;
                    }
                }
                Part::Mac => {
                    let mac = kept.mac.ok_or(SetError::Missing("MAC address"))?;
                    if mac == [0; 6] {
                        return Err(SetError::NullElement);
                    }
                }
                Part::Mark => kept.mark &= spec.markmask,
                Part::Iface => {
                    kept.iface.ok_or(SetError::Missing("interface"))?;
                }
            }
        }
        Ok(kept)
    }
}
