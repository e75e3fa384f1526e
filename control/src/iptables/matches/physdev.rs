//! `-m physdev`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::place::{PhysdevMatch, PlaceMatch};

use crate::iptables::address;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, flag, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const IN: u8 = 0;
const OUT: u8 = 1;
const IS_IN: u8 = 2;
const IS_OUT: u8 = 3;
const IS_BRIDGED: u8 = 4;

const OPTIONS: &[Opt] = &[
    negatable("physdev-in", IN),
    negatable("physdev-out", OUT),
    Opt { negatable: true, ..flag("physdev-is-in", IS_IN) },
    Opt { negatable: true, ..flag("physdev-is-out", IS_OUT) },
    Opt { negatable: true, ..flag("physdev-is-bridged", IS_BRIDGED) },
];

#[derive(Default)]
pub(super) struct Physdev {
    found: PhysdevMatch,
}

fn name(operand: &Operand<'_>) -> Result<Option<Neg<Box<str>>>, Problem> {
    address::parse_interface(operand.text, operand.span)?;
    Ok(Some(Neg { negated: operand.negated, value: operand.text.into() }))
}

impl Module for Physdev {
    fn name(&self) -> &'static str {
        "physdev"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let negated = Some(operand.negated);
        match id {
            IN => self.found.input = name(operand)?,
            OUT => self.found.output = name(operand)?,
            IS_IN => self.found.is_in = negated,
            IS_OUT => self.found.is_out = negated,
            _ => self.found.is_bridged = negated,
        }
        Ok(())
    }
}

impl MatchModule for Physdev {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        if self.found == PhysdevMatch::default() {
            return Err(required(at, "physdev", "one of its options"));
        }
        let found = Box::new(self.found.clone());
        Ok(MatchBody::Plain(Match::Place(PlaceMatch::Physdev(found))))
    }
}
