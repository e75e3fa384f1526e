//! `create NAME TYPE ...`: types by name, and the options each of them has.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::Family;
use dataplane::sets::{CreateSpec, Part, SetType};

use super::fault::Fault;
use super::lexer::Word;
use super::value::{self, number};
use crate::diagnostics::Code;
use crate::iptables::Names;

/// Names of types from before ipset 5, which the tool still takes.
const OLD_NAMES: &[(&str, SetType)] = &[
    ("ipmap", SetType::BitmapIp),
    ("macipmap", SetType::BitmapIpMac),
    ("portmap", SetType::BitmapPort),
    ("iphash", SetType::HashIp),
    ("machash", SetType::HashMac),
    ("ipmachash", SetType::HashIpMac),
    ("nethash", SetType::HashNet),
    ("netnethash", SetType::HashNetNet),
    ("ipporthash", SetType::HashIpPort),
    ("netporthash", SetType::HashNetPort),
    ("ipportiphash", SetType::HashIpPortIp),
    ("ipportnethash", SetType::HashIpPortNet),
    ("netportnethash", SetType::HashNetPortNet),
    ("netifacehash", SetType::HashNetIface),
    ("ipmarkhash", SetType::HashIpMark),
    ("setlist", SetType::ListSet),
];

/// A type by either of its names.
pub(super) fn kind(word: &Word<'_>) -> Result<SetType, Fault> {
    let text = word.text.as_ref();
    let old = || OLD_NAMES.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    SetType::named(text).or_else(old).ok_or_else(|| {
        let names: Vec<_> = SetType::ALL.iter().map(|kind| kind.name()).collect();
        let near = super::nearest(text, names.iter().copied());
        let remedy = near.map_or_else(
            || format!("the types are {}", names.join(" ")),
            |near| format!("did you mean `{near}'?"),
        );
        word.fault(Code::UnknownSetType, format!("`{text}' is no type of set")).remedy(remedy)
    })
}

/// An option of `create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    Family,
    Inet,
    Inet6,
    HashSize,
    MaxElem,
    Netmask,
    Bitmask,
    MarkMask,
    Range,
    From,
    To,
    Network,
    Size,
    Timeout,
    Counters,
    Comment,
    SkbInfo,
    ForceAdd,
    BucketSize,
    InitVal,
    /// Read, with its operand, and without effect: `probes`, `resize`, `gc` and others.
    Old,
}

const OPTIONS: &[(&str, Opt)] = &[
    ("family", Opt::Family),
    ("-4", Opt::Inet),
    ("-6", Opt::Inet6),
    ("hashsize", Opt::HashSize),
    ("maxelem", Opt::MaxElem),
    ("netmask", Opt::Netmask),
    ("bitmask", Opt::Bitmask),
    ("markmask", Opt::MarkMask),
    ("range", Opt::Range),
    ("from", Opt::From),
    ("to", Opt::To),
    ("network", Opt::Network),
    ("size", Opt::Size),
    ("timeout", Opt::Timeout),
    ("counters", Opt::Counters),
    ("comment", Opt::Comment),
    ("skbinfo", Opt::SkbInfo),
    ("forceadd", Opt::ForceAdd),
    ("bucketsize", Opt::BucketSize),
    ("initval", Opt::InitVal),
    ("probes", Opt::Old),
    ("resize", Opt::Old),
    ("gc", Opt::Old),
];

/// Whether a type has an option.
fn has(kind: SetType, opt: Opt) -> bool {
    use SetType::{BitmapIp, BitmapPort, HashIp, HashIpMark, HashIpPort, HashNetNet, ListSet};
    let bitmap = !kind.is_hash() && kind != ListSet;
    match opt {
        Opt::Family | Opt::Inet | Opt::Inet6 => kind.is_hash() && kind.has_addresses(),
        Opt::HashSize | Opt::MaxElem | Opt::ForceAdd | Opt::BucketSize | Opt::InitVal => {
            kind.is_hash()
        }
        Opt::Netmask => matches!(kind, BitmapIp | HashIp | HashIpPort | HashNetNet),
        Opt::Bitmask => matches!(kind, HashIp | HashIpPort | HashNetNet),
        Opt::MarkMask => kind == HashIpMark,
        Opt::Range | Opt::From | Opt::To => bitmap,
        Opt::Network => bitmap && kind != BitmapPort,
        Opt::Size => kind == ListSet,
        Opt::Timeout | Opt::Counters | Opt::Comment | Opt::SkbInfo => true,
        Opt::Old => kind != ListSet,
    }
}

/// Old options of `ipporthash` and its like that the tool ignores.
fn is_ignored(kind: SetType, opt: Opt) -> bool {
    use SetType::{HashIpPort, HashIpPortIp, HashIpPortNet};
    matches!(kind, HashIpPort | HashIpPortIp | HashIpPortNet)
        && matches!(opt, Opt::From | Opt::To | Opt::Network)
}

/// Reads the options after the type.
pub(super) struct Reader<'r, 't> {
    pub(super) names: &'r dyn Names,
    pub(super) warnings: &'r mut Vec<Fault>,
    pub(super) kind_word: &'r Word<'t>,
}

/// What is read in one pass, and only means something at the end.
#[derive(Default)]
struct Pending<'r, 't> {
    seen: Vec<Opt>,
    bitmask: Option<&'r Word<'t>>,
    netmask: Option<&'r Word<'t>>,
    from: Option<&'r Word<'t>>,
    to: Option<&'r Word<'t>>,
}

impl<'t> Reader<'_, 't> {
    /// The whole specification.
    pub(super) fn read(&mut self, kind: SetType, words: &[Word<'t>]) -> Result<CreateSpec, Fault> {
        let mut spec = CreateSpec::new(kind);
        let mut pending = Pending::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let text = word.text.strip_prefix("--").unwrap_or(&word.text);
            let found = OPTIONS.iter().find(|(name, _)| *name == text).map(|(_, opt)| *opt);
            let opt = found
                .filter(|opt| has(kind, *opt) || is_ignored(kind, *opt))
                .ok_or_else(|| unknown(word, kind, found.is_some()))?;
            match opt {
                Opt::Counters => spec.counters = true,
                Opt::Comment => spec.comment = true,
                Opt::SkbInfo => spec.skbinfo = true,
                Opt::ForceAdd => spec.forceadd = true,
                Opt::Inet | Opt::Inet6 => {
                    once(&mut pending.seen, Opt::Family, word)?;
                    spec.family = if opt == Opt::Inet { Family::V4 } else { Family::V6 };
                }
                _ => {
                    let operand = rest.next().filter(|operand| !operand.text.is_empty());
                    let operand = operand.ok_or_else(|| needs_operand(word))?;
                    if opt == Opt::Old || is_ignored(kind, opt) {
                        let message = format!("`{text}' has no effect on this type any more");
                        self.warnings
                            .push(word.fault(Code::NoEffect, message).remedy("leave it out"));
                        continue;
                    }
                    once(&mut pending.seen, opt, word)?;
                    self.operand(opt, operand, &mut spec, &mut pending)?;
                }
            }
        }
        self.finish(spec, &pending)
    }

    fn operand<'r>(
        &self,
        opt: Opt,
        operand: &'r Word<'t>,
        spec: &mut CreateSpec,
        pending: &mut Pending<'r, 't>,
    ) -> Result<(), Fault> {
        match opt {
            Opt::Family => {
                spec.family = match operand.text.as_ref() {
                    "inet" | "ipv4" => Family::V4,
                    "inet6" | "ipv6" => Family::V6,
                    other => {
                        let message = format!("`{other}' is no family");
                        let fault = operand.fault(Code::BadValue, message);
                        return Err(fault.remedy("write inet or inet6"));
                    }
                }
            }
            Opt::HashSize => spec.hashsize = hash_size(operand)?,
            Opt::MaxElem => spec.maxelem = below(operand, u32::MAX)?,
            Opt::MarkMask => spec.markmask = below(operand, u32::MAX)?,
            Opt::BucketSize => spec.bucketsize = below(operand, 255)? as u8,
            Opt::InitVal => spec.initval = Some(below(operand, u32::MAX)?),
            Opt::Size => spec.size = below(operand, u32::MAX)?,
            Opt::Timeout => spec.timeout = Some(timeout(operand)?),
            Opt::Netmask => pending.netmask = Some(operand),
            Opt::Bitmask => pending.bitmask = Some(operand),
            Opt::From => pending.from = Some(operand),
            Opt::To => pending.to = Some(operand),
            Opt::Range | Opt::Network => spec.range = Some(self.range(spec.kind, operand)?),
            Opt::Inet
            | Opt::Inet6
            | Opt::Counters
            | Opt::Comment
            | Opt::SkbInfo
            | Opt::ForceAdd
            | Opt::Old => {}
        }
        Ok(())
    }

    /// What depends on options that may stand in any order.
    fn finish(&self, mut spec: CreateSpec, pending: &Pending<'_, 't>) -> Result<CreateSpec, Fault> {
        if let (Some(_), Some(second)) = (pending.netmask, pending.bitmask) {
            let message = "netmask and bitmask exclude each other";
            return Err(second.fault(Code::ConflictingOptions, message).remedy("give one of them"));
        }
        if let Some(word) = pending.netmask {
            let width = u64::from(value::width(spec.family));
            let len = number(&word.text, width).filter(|len| *len > 0).ok_or_else(|| {
                let message = format!("`{}' is no netmask", word.text);
                word.fault(Code::BadValue, message)
                    .remedy(format!("write a prefix length from 1 to {width}"))
            })?;
            spec.netmask = Some(len as u8).filter(|len| u64::from(*len) < width);
        }
        if let Some(word) = pending.bitmask {
            spec.bitmask = bitmask(word, spec.family)?;
        }
        match (pending.from, pending.to) {
            (Some(from), Some(to)) => {
                let (low, high) = (self.end(spec.kind, from)?, self.end(spec.kind, to)?);
                spec.range = Some((low.min(high), low.max(high)));
            }
            (Some(word), None) | (None, Some(word)) => {
                let message = "`from' and `to' need each other";
                return Err(word.fault(Code::MissingOption, message));
            }
            (None, None) => {}
        }
        let bitmap = has(spec.kind, Opt::Range);
        if bitmap && spec.range.is_none() {
            let message = format!("{} needs a range", spec.kind.name());
            let example = if spec.kind == SetType::BitmapPort {
                "write range 0-1023 or the like"
            } else {
                "write range 192.0.2.0/24 or the like"
            };
            return Err(self.kind_word.fault(Code::MissingOption, message).remedy(example));
        }
        Ok(spec)
    }

    /// The range of a bitmap.
    fn range(&self, kind: SetType, word: &Word<'_>) -> Result<(u32, u32), Fault> {
        let bad = || {
            let message = format!("`{}' is no range of {}", word.text, kind.name());
            let remedy = if kind == SetType::BitmapPort {
                "write FROM-TO, as 0-1023"
            } else {
                "write ADDRESS/LENGTH or FROM-TO with IPv4 addresses"
            };
            word.fault(Code::BadValue, message).remedy(remedy)
        };
        if kind.parts() == [Part::Port] {
            let (proto, text) = port_protocol(&word.text, self.names).ok_or_else(bad)?;
            let (low, high) = super::element::split_ports(text).ok_or_else(bad)?;
            let high = high.ok_or_else(bad)?;
            let low = value::port(low, proto, self.names).ok_or_else(bad)?;
            let high = value::port(high, proto, self.names).ok_or_else(bad)?;
            return Ok((u32::from(low.min(high)), u32::from(low.max(high))));
        }
        let v4 = |text: &str| value::address(text, Family::V4).map(|(address, _)| address as u32);
        if let Some((address, len)) = word.text.split_once('/') {
            let address = v4(address).ok_or_else(bad)?;
            let len = number(len, 31).ok_or_else(bad)? as u8;
            let low = value::masked(u128::from(address), len, Family::V4) as u32;
            let high = low | u32::MAX.checked_shr(u32::from(len)).unwrap_or(0);
            return Ok((low, high));
        }
        let (low, high) = word.text.split_once('-').ok_or_else(bad)?;
        let (low, high) = (v4(low).ok_or_else(bad)?, v4(high).ok_or_else(bad)?);
        Ok((low.min(high), low.max(high)))
    }

    /// `from` or `to`.
    fn end(&self, kind: SetType, word: &Word<'_>) -> Result<u32, Fault> {
        let read = if kind == SetType::BitmapPort {
            value::port(&word.text, 6, self.names).map(u32::from)
        } else {
            value::address(&word.text, Family::V4).map(|(address, _)| address as u32)
        };
        read.ok_or_else(|| {
            word.fault(Code::BadValue, format!("`{}' is no end of a range", word.text))
        })
    }
}

/// `tcp:` or `udp:` before a port of a bitmap, which only helps to find a service.
pub(super) fn port_protocol<'t>(text: &'t str, names: &dyn Names) -> Option<(u8, &'t str)> {
    match text.split_once(':') {
        None => Some((6, text)),
        Some((proto, ports)) => {
            let proto = value::protocol(proto, names)?;
            matches!(proto, 6 | 17).then_some((proto, ports))
        }
    }
}

fn unknown(word: &Word<'_>, kind: SetType, elsewhere: bool) -> Fault {
    let message = format!("`{}' is no option of {}", word.text, kind.name());
    let known = OPTIONS.iter().filter(|(_, opt)| has(kind, *opt) && *opt != Opt::Old);
    let names: Vec<_> = known.map(|(name, _)| *name).collect();
    let near = if elsewhere { None } else { super::nearest(&word.text, names.iter().copied()) };
    let remedy = near.map_or_else(
        || format!("it has {}", names.join(" ")),
        |near| format!("did you mean `{near}'?"),
    );
    word.fault(Code::UnknownOption, message).remedy(remedy)
}

pub(super) fn needs_operand(word: &Word<'_>) -> Fault {
    word.fault(Code::MissingOption, format!("`{}' needs a value", word.text))
}

fn once(seen: &mut Vec<Opt>, opt: Opt, word: &Word<'_>) -> Result<(), Fault> {
    if seen.contains(&opt) {
        let message = format!("`{}' is given twice", word.text);
        return Err(word.fault(Code::RepeatedOption, message).remedy("give it once"));
    }
    seen.push(opt);
    Ok(())
}

/// A number from 0 to `max`.
pub(super) fn below(word: &Word<'_>, max: u32) -> Result<u32, Fault> {
    number(&word.text, u64::from(max)).map(|value| value as u32).ok_or_else(|| {
        let message = format!("`{}' is no number from 0 to {max}", word.text);
        word.fault(Code::BadValue, message)
    })
}

/// Seconds.
pub(super) fn timeout(word: &Word<'_>) -> Result<u32, Fault> {
    below(word, MAX_TIMEOUT_S)
        .map_err(|fault| fault.remedy("write seconds; 0 means that it never expires"))
}

/// Longest timeout that ipset takes.
pub(super) const MAX_TIMEOUT_S: u32 = 2_147_483;

/// The kernel rounds up to a power of two, and begins with 64.
fn hash_size(word: &Word<'_>) -> Result<u32, Fault> {
    let size = below(word, u32::MAX)?.max(64);
    size.checked_next_power_of_two().filter(|size| *size <= 1 << 26).ok_or_else(|| {
        let message = format!("a hash of {size} buckets does not fit into memory");
        let remedy = "leave it out: the table grows as elements come";
        word.fault(Code::BadValue, message).remedy(remedy)
    })
}

/// Which bits of addresses count; all ones are the same as none.
fn bitmask(word: &Word<'_>, family: Family) -> Result<Option<u128>, Fault> {
    let bad = || {
        let message = format!("`{}' is no bitmask of this family", word.text);
        word.fault(Code::BadValue, message).remedy("write an address with the bits that count")
    };
    let text = word.text.split_once('/').map_or(word.text.as_ref(), |(mask, _)| mask);
    let mask = match family {
        Family::V4 => value::address(text, family)
            .map(|(mask, _)| mask)
            .or_else(|| text.parse::<Ipv4Addr>().ok().map(|it| u128::from(u32::from(it)))),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
    };
    let mask = mask.filter(|mask| *mask != 0).ok_or_else(bad)?;
    let all = value::masked(u128::MAX, value::width(family), family);
    let all = if family == Family::V4 { u128::from(u32::MAX) } else { all };
    Ok(Some(mask).filter(|mask| *mask != all))
}
