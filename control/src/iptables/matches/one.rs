//! Matches with a single option, which may be negated: `mark`, `length`, `mac` and others.

use dataplane::policy::matches::Neg;

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    required,
};
use crate::model::{MatchBody, Rule, Span};

/// One of them.
pub(super) struct Kind<T: 'static> {
    /// The name that `-m` takes.
    pub(super) name: &'static str,
    pub(super) options: &'static [Opt],
    /// The option as it is written.
    pub(super) option: &'static str,
    /// The protocol that the rule must ask for.
    pub(super) protocol: Option<(u8, &'static str)>,
    pub(super) read: fn(&Operand<'_>, &mut Context<'_>) -> Result<T, Problem>,
    pub(super) made: fn(Neg<T>) -> MatchBody,
}

/// A module of that kind.
pub(super) struct One<T: 'static> {
    kind: &'static Kind<T>,
    given: Option<Neg<T>>,
}

impl<T> One<T> {
    pub(super) fn new(kind: &'static Kind<T>) -> Self {
        Self { kind, given: None }
    }
}

impl<T> Module for One<T> {
    fn name(&self) -> &'static str {
        self.kind.name
    }

    fn options(&self) -> &'static [Opt] {
        self.kind.options
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let value = (self.kind.read)(operand, context)?;
        self.given = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

impl<T: Clone> MatchModule for One<T> {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        let Kind { name, option, .. } = *self.kind;
        let given = self.given.clone().ok_or_else(|| required(at, name, option))?;
        match self.kind.protocol {
            Some((number, protocol)) if !has_protocol(rule, number) => {
                Err(needs_protocol(at, &format!("the {name} match"), protocol))
            }
            _ => Ok((self.kind.made)(given)),
        }
    }
}
