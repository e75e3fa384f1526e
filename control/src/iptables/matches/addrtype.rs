//! `-m addrtype`.

use dataplane::packet::Family;
use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::place::{AddrTypeMatch, Limit, PlaceMatch, address_type as kind};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const SRC: u8 = 0;
const DST: u8 = 1;
const LIMIT_IN: u8 = 2;
const LIMIT_OUT: u8 = 3;

const OPTIONS: &[Opt] = &[
    negatable("src-type", SRC),
    negatable("dst-type", DST),
    flag("limit-iface-in", LIMIT_IN).excluding(bit(LIMIT_OUT)),
    flag("limit-iface-out", LIMIT_OUT).excluding(bit(LIMIT_IN)),
];

/// The kinds in the order in which they are listed.
pub(crate) const KINDS: [(&str, u16); 12] = [
    ("UNSPEC", kind::UNSPEC),
    ("UNICAST", kind::UNICAST),
    ("LOCAL", kind::LOCAL),
    ("BROADCAST", kind::BROADCAST),
    ("ANYCAST", kind::ANYCAST),
    ("MULTICAST", kind::MULTICAST),
    ("BLACKHOLE", kind::BLACKHOLE),
    ("UNREACHABLE", kind::UNREACHABLE),
    ("PROHIBIT", kind::PROHIBIT),
    ("THROW", kind::THROW),
    ("NAT", kind::NAT),
    ("XRESOLVE", kind::XRESOLVE),
];

/// What the kernel has for IPv6.
const KINDS_V6: u16 = kind::UNSPEC
    | kind::UNICAST
    | kind::LOCAL
    | kind::ANYCAST
    | kind::MULTICAST
    | kind::UNREACHABLE;

/// Those of them that depend on the route to the address.
const ROUTED_V6: u16 = kind::ANYCAST | kind::UNREACHABLE;

pub(super) struct AddrType {
    family: Family,
    found: AddrTypeMatch,
    /// Where the types stand.
    types: [Option<Span>; 2],
}

impl AddrType {
    pub(super) fn new(family: Family) -> Self {
        Self { family, found: AddrTypeMatch::default(), types: [None; 2] }
    }

    /// A list of kinds; each may be cut short.
    fn kinds(&self, operand: &Operand<'_>) -> Result<u16, Problem> {
        let mut all = 0;
        for part in operand.text.split(',') {
            let named = |(name, _): &&(&str, u16)| {
                let start = name.as_bytes().get(..part.len());
                start.is_some_and(|start| start.eq_ignore_ascii_case(part.as_bytes()))
            };
            let found = KINDS.iter().find(named).filter(|_| !part.is_empty());
            let Some((name, bit)) = found else {
                return Err(operand
                    .bad(format!("`{part}' is no type of address"))
                    .remedy("the types are UNSPEC, UNICAST, LOCAL, BROADCAST, ANYCAST, MULTICAST, BLACKHOLE, UNREACHABLE, PROHIBIT, THROW, NAT, XRESOLVE"));
            };
            if self.family == Family::V6 && KINDS_V6 & bit == 0 {
                return Err(operand.bad(format!("no IPv6 address has the type {name}")).remedy(
                    "IPv6 has UNSPEC, UNICAST, LOCAL, ANYCAST, MULTICAST and UNREACHABLE",
                ));
            }
            all |= bit;
        }
        Ok(all)
    }
}

impl Module for AddrType {
    fn name(&self) -> &'static str {
        "addrtype"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        match id {
            LIMIT_IN => self.found.limit = Some(Limit::Input),
            LIMIT_OUT => self.found.limit = Some(Limit::Output),
            _ => {
                let wanted = Neg { negated: operand.negated, value: self.kinds(operand)? };
                self.types[usize::from(id)] = Some(operand.span);
                match id {
                    SRC => self.found.src = Some(wanted),
                    _ => self.found.dst = Some(wanted),
                }
            }
        }
        Ok(())
    }
}

impl MatchModule for AddrType {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let found = self.found;
        if found.src.is_none() && found.dst.is_none() {
            return Err(required(at, "addrtype", "--src-type or --dst-type"));
        }
        if self.family == Family::V6 && found.limit.is_some() {
            let routed = |side: Option<Neg<u16>>| side.is_some_and(|s| s.value & ROUTED_V6 != 0);
            let at = match (routed(found.src), routed(found.dst)) {
                (true, _) => self.types[0],
                (_, true) => self.types[1],
                _ => None,
            };
            if let Some(at) = at {
                let message = "--limit-iface-in and --limit-iface-out: with ANYCAST and \
                    UNREACHABLE the kernel looks for IPv6 routes of that interface only, which \
                    are not mirrored apart";
                return Err(Problem::new(Code::UnsupportedMatch, at, message)
                    .remedy("leave the limit away, or compare LOCAL with it"));
            }
        }
        Ok(MatchBody::Plain(Match::Place(PlaceMatch::AddrType(found))))
    }
}
