//! `-m owner`.

use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::place::{OwnerMatch, PlaceMatch};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, flag, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const UID: u8 = 0;
const GID: u8 = 1;
const SOCKET: u8 = 2;
const GROUPS: u8 = 3;

const OPTIONS: &[Opt] = &[
    negatable("uid-owner", UID),
    negatable("gid-owner", GID),
    Opt { negatable: true, ..flag("socket-exists", SOCKET) },
    flag("suppl-groups", GROUPS),
];

/// The number that stands for nobody.
const NO_ID: u64 = u32::MAX as u64;

#[derive(Default)]
pub(super) struct Owner {
    found: OwnerMatch,
}

/// A name, a number or a range of numbers.
fn ids(operand: &Operand<'_>, named: Option<u32>, what: &str) -> Result<Neg<Range<u32>>, Problem> {
    let number = |text: &str| value::number(text, 0, NO_ID - 1).map(|number| number as u32);
    let range = operand.text.split_once(['-', ':']);
    let range = match (named, range) {
        (Some(id), _) => Some((id, id)),
        (None, Some((low, high))) => number(low).zip(number(high)),
        (None, None) => number(operand.text).map(|id| (id, id)),
    };
    let Some((low, high)) = range else {
        let message = format!("`{}' is no {what} of this host and no number", operand.text);
        return Err(operand.bad(message).remedy("write a number, a range LOW-HIGH or a name"));
    };
    if low > high {
        return Err(operand.bad(format!("`{}' is reversed", operand.text)));
    }
    Ok(Neg { negated: operand.negated, value: Range { low, high } })
}

impl Module for Owner {
    fn name(&self) -> &'static str {
        "owner"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let names = context.names;
        match id {
            UID => self.found.uid = Some(ids(operand, names.user(operand.text), "user")?),
            GID => self.found.gid = Some(ids(operand, names.group(operand.text), "group")?),
            SOCKET => self.found.socket = Some(operand.negated),
            _ if self.found.gid.is_none() => {
                let message = "--suppl-groups needs --gid-owner before it";
                return Err(Problem::new(Code::MissingOption, operand.span, message.to_owned())
                    .remedy("write --gid-owner GROUP --suppl-groups"));
            }
            _ => self.found.supplementary = true,
        }
        Ok(())
    }
}

impl MatchModule for Owner {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        if self.found == OwnerMatch::default() {
            return Err(required(at, "owner", "--uid-owner, --gid-owner or --socket-exists"));
        }
        Ok(MatchBody::Plain(Match::Place(PlaceMatch::Owner(self.found))))
    }
}
