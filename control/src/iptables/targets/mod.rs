//! The target modules, one file each.

mod connmark;
mod ct;
mod log;
mod mark;
mod nat;
mod reject;
mod synproxy;

use dataplane::policy::TableId;

use super::extension::{Problem, TargetModule};
use crate::diagnostics::Code;
use crate::model::Span;
use nat::{Kind, Nat};

pub(crate) use ct::{EVENT_NAMES, EXPECT_EVENT_NAMES};
pub(crate) use reject::{NAMES_V4 as REJECT_V4, NAMES_V6 as REJECT_V6};

/// A fresh module of that name, if we support it.
pub(crate) fn load(name: &str) -> Option<Box<dyn TargetModule>> {
    Some(match name {
        "REJECT" => Box::new(reject::Reject::default()),
        "LOG" => Box::new(log::Log::default()),
        "MARK" => Box::new(mark::Mark::default()),
        "CONNMARK" => Box::new(connmark::Connmark::default()),
        "CT" => Box::new(ct::Ct::default()),
        "NOTRACK" => Box::new(ct::Ct::notrack()),
        "SYNPROXY" => Box::new(synproxy::Synproxy::default()),
        "SNAT" => Box::new(Nat::new(Kind::Snat)),
        "DNAT" => Box::new(Nat::new(Kind::Dnat)),
        "MASQUERADE" => Box::new(Nat::new(Kind::Masquerade)),
        "REDIRECT" => Box::new(Nat::new(Kind::Redirect)),
        "NETMAP" => Box::new(Nat::new(Kind::Netmap)),
        _ => return None,
    })
}

/// The refusal of a target that belongs into another table.
fn wrong_table(at: Span, target: &str, belongs: &str, table: TableId) -> Problem {
    let message = format!("{target} works in the {belongs} table only, this is {}", table.name());
    Problem::new(Code::WrongTable, at, message)
        .remedy(format!("move the rule to the {belongs} table"))
}
