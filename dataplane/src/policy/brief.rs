//! A rule in brief: what is needed of it when the classifier has found it and nothing is
//! left to ask. Briefs of a chain lie side by side, so that walking past a few of ten
//! thousand rules does not fetch the rules themselves.

use super::{ChainId, CompiledRule, CounterId, Target};

/// What a target does, where that is said in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Only counts.
    Count,
    /// Ends the table's walk.
    Accept,
    /// Ends the packet.
    Drop,
    /// Back to where the chain was called.
    Return,
    /// Calls a chain.
    Jump(ChainId),
    /// Goes on in a chain.
    Goto(ChainId),
    /// [`CompiledRule::target`] says.
    Other,
}

/// A rule in brief.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Brief {
    /// The rule's counter.
    pub(crate) counter: CounterId,
    /// What it does.
    pub(crate) deed: Deed,
    /// Whether a packet that the classifier finds it for matches it, with nothing left to
    /// ask. (Odd packets are asked everything.)
    pub(crate) sure: bool,
}

impl Brief {
    /// Of a rule.
    pub(super) fn of<A>(rule: &CompiledRule<A>) -> Self {
        let deed = match rule.target {
            Target::Count => Deed::Count,
            Target::Accept => Deed::Accept,
            Target::Drop => Deed::Drop,
            Target::Return => Deed::Return,
            Target::Jump(chain) => Deed::Jump(chain),
            Target::Goto(chain) => Deed::Goto(chain),
            _ => Deed::Other,
        };
        let sure = !rule.check_base && rule.residual.is_empty();
        Self { counter: rule.counter, deed, sure }
    }

    /// Whether a packet that the classifier finds it for ends here.
    pub(crate) fn is_final(&self) -> bool {
        self.sure && matches!(self.deed, Deed::Accept | Deed::Drop)
    }
}
