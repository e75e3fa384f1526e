//! `-j SNAT`, `-j DNAT`, `-j MASQUERADE`, `-j REDIRECT` and `-j NETMAP`.

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::Family;
use dataplane::policy::TableId;
use dataplane::policy::matches::{AddressMask, Range};
use dataplane::policy::target::{NatRange, NatTarget};

use super::wrong_table;
use crate::diagnostics::Code;
use crate::iptables::address;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, bit, flag, plain, required,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const TO: u8 = 0;
const RANDOM: u8 = 1;
const RANDOM_FULLY: u8 = 2;
const PERSISTENT: u8 = 3;

const SNAT: &[Opt] = &[
    plain("to-source", TO),
    flag("random", RANDOM),
    flag("random-fully", RANDOM_FULLY),
    flag("persistent", PERSISTENT),
];
const DNAT: &[Opt] =
    &[plain("to-destination", TO), flag("random", RANDOM), flag("persistent", PERSISTENT)];
const MASQUERADE: &[Opt] =
    &[plain("to-ports", TO), flag("random", RANDOM), flag("random-fully", RANDOM_FULLY)];
const REDIRECT: &[Opt] = &[plain("to-ports", TO), flag("random", RANDOM)];
const NETMAP: &[Opt] = &[plain("to", TO)];

/// Which of the five.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Snat,
    Dnat,
    Masquerade,
    Redirect,
    Netmap,
}

pub(super) struct Nat {
    kind: Kind,
    range: NatRange,
    network: AddressMask,
}

impl Nat {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, range: NatRange::default(), network: AddressMask { address: 0, mask: 0 } }
    }

    fn ports(
        &mut self,
        text: &str,
        operand: &Operand<'_>,
        context: &Context<'_>,
    ) -> Result<(), Problem> {
        // The tools look at the protocol when they read the ports: it must stand before them.
        if !context.proto.is_some_and(|(proto, _)| has_ports(proto)) {
            let message = format!("{}: ports need their protocol before them", self.name());
            return Err(Problem::new(Code::NeedsProtocol, operand.span, message)
                .remedy("write `-p tcp' (udp, sctp, dccp, icmp) in front of `-j'"));
        }
        let (ports, base) = port_range(text, operand, context)?;
        if base.is_some() && self.kind != Kind::Dnat {
            let message =
                format!("{}: ports cannot be shifted, only chosen from a range", self.name());
            return Err(operand.bad(message).remedy("leave out `/' and what follows it"));
        }
        self.range.ports = Some(ports);
        self.range.base_port = base;
        Ok(())
    }

    /// `ADDRESS[-ADDRESS][:PORTS]`; for IPv6 with ports `[ADDRESS[-ADDRESS]]:PORTS`.
    fn addresses_and_ports(
        &mut self,
        operand: &Operand<'_>,
        context: &Context<'_>,
    ) -> Result<(), Problem> {
        let (addresses, ports) = match context.family {
            Family::V4 => match operand.text.split_once(':') {
                Some((addresses, ports)) if !ports.contains(':') => (addresses, Some(ports)),
                _ => (operand.text, None),
            },
            Family::V6 => split_v6(operand)?,
        };
        if let Some(ports) = ports {
            self.ports(ports, operand, context)?;
        }
        if !addresses.is_empty() || ports.is_none() {
            self.range.addresses = Some(address_range(addresses, operand, context.family)?);
        }
        Ok(())
    }
}

/// Protocols whose ports (ICMP: identifiers) a translation may choose.
fn has_ports(proto: u8) -> bool {
    matches!(proto, 1 | 6 | 17 | 33 | 132)
}

fn split_v6<'t>(operand: &Operand<'t>) -> Result<(&'t str, Option<&'t str>), Problem> {
    let text = operand.text;
    let Some(inner) = text.strip_prefix('[') else {
        // One colon only can be no address: what follows it are ports.
        return Ok(match text.split_once(':') {
            Some((addresses, ports)) if !ports.contains(':') => (addresses, Some(ports)),
            _ => (text, None),
        });
    };
    let shape = || {
        operand
            .bad(format!("`{text}' is no address and port"))
            .remedy("write [ADDRESS]:PORT or [ADDRESS-ADDRESS]:PORT-PORT")
    };
    let (addresses, rest) = inner.split_once(']').ok_or_else(shape)?;
    match rest.strip_prefix(':') {
        Some(ports) => Ok((addresses, Some(ports))),
        // The tools would ignore what follows the bracket.
        None if rest.is_empty() => Ok((addresses, None)),
        None => Err(shape()),
    }
}

fn address_range(
    text: &str,
    operand: &Operand<'_>,
    family: Family,
) -> Result<Range<u128>, Problem> {
    let one = |part: &str| strict_address(part, family).ok_or_else(|| bad_address(part, operand));
    let (low, high) = match text.split_once('-') {
        None => (one(text)?, one(text)?),
        Some((low, high)) => (one(low)?, one(high)?),
    };
    if low > high {
        return Err(operand
            .bad(format!("`{text}' is reversed: no address lies in it"))
            .remedy("write the lower address first"));
    }
    Ok(Range { low, high })
}

/// Only the full form: no shorthand, no names.
fn strict_address(text: &str, family: Family) -> Option<u128> {
    match family {
        Family::V4 => text.parse::<Ipv4Addr>().ok().map(|address| address.to_bits().into()),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
    }
}

fn bad_address(part: &str, operand: &Operand<'_>) -> Problem {
    let problem = operand.bad(format!("`{part}' is no address"));
    if part.contains('/') {
        problem.remedy("a range is written LOW-HIGH; -j NETMAP maps whole networks")
    } else if part.contains(',') {
        problem.remedy("a range is written LOW-HIGH; for a list write one rule each")
    } else {
        problem.remedy("write ADDRESS, ADDRESS-ADDRESS or either with :PORT")
    }
}

/// `PORT`, `LOW-HIGH` or `LOW-HIGH/BASE`; one port may be a service, as may the base.
fn port_range(
    text: &str,
    operand: &Operand<'_>,
    context: &Context<'_>,
) -> Result<(Range<u16>, Option<u16>), Problem> {
    let number = |text: &str| value::number(text, 0, 0xffff).map(|port| port as u16);
    let bad = |part: &str| operand.bad(format!("`{part}' is no port or service"));
    let low = text.split_once('-').and_then(|(low, rest)| Some((number(low)?, rest)));
    let Some((low, rest)) = low else {
        if text.contains(':') {
            return Err(bad(text).remedy("a range is written LOW-HIGH"));
        }
        let port = value::port(text, None, context.names).ok_or_else(|| {
            bad(text).remedy("write a number from 0 to 65535, a service, or LOW-HIGH in numbers")
        })?;
        return Ok((Range { low: port, high: port }, None));
    };
    let (high, base) = match rest.split_once('/') {
        None => (rest, None),
        Some((high, base)) => (high, Some(base)),
    };
    let high = number(high)
        .ok_or_else(|| bad(high).remedy("both ends of a range are numbers from 0 to 65535"))?;
    if high < low {
        return Err(operand
            .bad(format!("`{text}' is reversed: no port lies in it"))
            .remedy("write the lower port first"));
    }
    let base = match base {
        None => None,
        Some(base) => Some(base_port(base, operand, context)?),
    };
    if base.is_some() && low == high {
        let message = format!("`{text}': a single port has nowhere to be shifted to");
        return Err(operand.bad(message).remedy("leave out `/' and what follows it"));
    }
    Ok((Range { low, high }, base))
}

fn base_port(text: &str, operand: &Operand<'_>, context: &Context<'_>) -> Result<u16, Problem> {
    value::port(text, None, context.names).filter(|port| *port != 0).ok_or_else(|| {
        operand
            .bad(format!("`{text}' is no port to shift from"))
            .remedy("write a number from 1 to 65535 or a service")
    })
}

/// `NETMAP --to`: an address (as the C library reads it, not as `-d` does) and a
/// length or mask.
fn network(operand: &Operand<'_>, family: Family) -> Result<AddressMask, Problem> {
    let text = operand.text;
    let (host, mask) = match text.split_once('/') {
        None => (text, address::full_mask(family)),
        Some((host, mask)) => (host, network_mask(mask, operand, family)?),
    };
    let address = match family {
        Family::V4 => address::parse_aton(host).map(u128::from),
        Family::V6 => host.parse::<Ipv6Addr>().ok().map(u128::from),
    };
    let address = address.ok_or_else(|| {
        operand
            .bad(format!("`{host}' is no address"))
            .remedy("write NETWORK/LENGTH; names are not resolved when rules load")
    })?;
    Ok(AddressMask { address: address & mask, mask })
}

/// What the tools do with a mask that is no prefix, or too long, is not what it says.
fn network_mask(text: &str, operand: &Operand<'_>, family: Family) -> Result<u128, Problem> {
    let written = match family {
        Family::V4 => {
            text.contains('.').then(|| address::parse_aton(text)).flatten().map(u128::from)
        }
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
    };
    let width = address::width(family);
    let mask = written.or_else(|| {
        let length = value::number(text, 0, width.into())?;
        Some(address::prefix_mask(family, length as u32))
    });
    mask.filter(|mask| *mask == address::prefix_mask(family, mask.count_ones())).ok_or_else(|| {
        operand
            .bad(format!("`{text}' is no network mask"))
            .remedy(format!("write a length from 0 to {width}"))
    })
}

impl Module for Nat {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Snat => "SNAT",
            Kind::Dnat => "DNAT",
            Kind::Masquerade => "MASQUERADE",
            Kind::Redirect => "REDIRECT",
            Kind::Netmap => "NETMAP",
        }
    }

    fn options(&self) -> &'static [Opt] {
        match self.kind {
            Kind::Snat => SNAT,
            Kind::Dnat => DNAT,
            Kind::Masquerade => MASQUERADE,
            Kind::Redirect => REDIRECT,
            Kind::Netmap => NETMAP,
        }
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match (id, self.kind) {
            (RANDOM, _) => self.range.random = true,
            (RANDOM_FULLY, _) => self.range.random_fully = true,
            (PERSISTENT, _) => self.range.persistent = true,
            (_, Kind::Snat | Kind::Dnat) => self.addresses_and_ports(operand, context)?,
            (_, Kind::Masquerade | Kind::Redirect) => self.ports(operand.text, operand, context)?,
            (_, Kind::Netmap) => self.network = network(operand, context.family)?,
        }
        Ok(())
    }
}

impl TargetModule for Nat {
    fn finish(
        &self,
        at: Span,
        seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        if table != TableId::Nat {
            return Err(wrong_table(at, self.name(), "nat", table));
        }
        let needed = match self.kind {
            Kind::Snat => Some("--to-source"),
            Kind::Dnat => Some("--to-destination"),
            Kind::Netmap => Some("--to"),
            Kind::Masquerade | Kind::Redirect => None,
        };
        if let Some(option) = needed.filter(|_| seen & bit(TO) == 0) {
            return Err(required(at, self.name(), option));
        }
        Ok(TargetSpec::Nat(match self.kind {
            Kind::Snat => NatTarget::Snat(self.range),
            Kind::Dnat => NatTarget::Dnat(self.range),
            Kind::Masquerade => NatTarget::Masquerade(self.range),
            Kind::Redirect => NatTarget::Redirect(self.range),
            Kind::Netmap => NatTarget::Netmap(self.network),
        }))
    }
}
