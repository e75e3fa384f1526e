//! The target modules, one file each.

mod connmark;
mod ct;
mod ecn;
mod hmark;
mod log;
mod mark;
mod meta;
mod nat;
mod prefix;
mod rateest;
mod reject;
mod report;
mod set;
mod strip;
mod synproxy;
mod tcpmss;
mod tos;
mod ttl;

use dataplane::packet::Family;
use dataplane::policy::TableId;

use super::extension::{Problem, TargetModule};
use crate::diagnostics::Code;
use crate::model::Span;
use nat::{Kind, Nat};

pub(crate) use ct::{EVENT_NAMES, EXPECT_EVENT_NAMES};
pub(crate) use reject::{NAMES_V4 as REJECT_V4, NAMES_V6 as REJECT_V6};

/// A fresh module of that name, if this family has it and we support it.
pub(crate) fn load(name: &str, family: Family) -> Option<Box<dyn TargetModule>> {
    let v4 = family == Family::V4;
    Some(match name {
        "RATEEST" => Box::new(rateest::Rateest::default()),
        "REJECT" => Box::new(reject::Reject::default()),
        "LOG" => Box::new(log::Log::default()),
        "NFLOG" => Box::new(report::Nflog::default()),
        "AUDIT" => Box::new(report::Audit::default()),
        "TRACE" => Box::new(report::Trace),
        "MARK" => Box::new(mark::Mark::default()),
        "CONNMARK" => Box::new(connmark::Connmark::default()),
        "CT" => Box::new(ct::Ct::default()),
        "NOTRACK" => Box::new(ct::Ct::notrack()),
        "SET" => Box::new(set::Set::default()),
        "SYNPROXY" => Box::new(synproxy::Synproxy::default()),
        "SNAT" => Box::new(Nat::new(Kind::Snat)),
        "DNAT" => Box::new(Nat::new(Kind::Dnat)),
        "MASQUERADE" => Box::new(Nat::new(Kind::Masquerade)),
        "REDIRECT" => Box::new(Nat::new(Kind::Redirect)),
        "NETMAP" => Box::new(Nat::new(Kind::Netmap)),
        "TTL" if v4 => Box::new(ttl::Hops::new(false)),
        "HL" if !v4 => Box::new(ttl::Hops::new(true)),
        "TOS" => Box::new(tos::Tos::default()),
        "DSCP" => Box::new(tos::Dscp::default()),
        "ECN" if v4 => Box::new(ecn::Ecn::default()),
        "TCPOPTSTRIP" => Box::new(strip::Strip::default()),
        "CHECKSUM" => Box::new(strip::Fill),
        "SNPT" if !v4 => Box::new(prefix::Prefix::new(true)),
        "DNPT" if !v4 => Box::new(prefix::Prefix::new(false)),
        "HMARK" => Box::new(hmark::Hmark::default()),
        "CLASSIFY" => Box::new(meta::Classify::default()),
        "IDLETIMER" => Box::new(meta::Timer::default()),
        "TEE" => Box::new(meta::Tee::default()),
        "TCPMSS" => Box::new(tcpmss::Tcpmss::default()),
        _ => return None,
    })
}

/// The refusal of a target that belongs into another table.
fn wrong_table(at: Span, target: &str, belongs: &str, table: TableId) -> Problem {
    let message = format!("{target} works in the {belongs} table only, this is {}", table.name());
    Problem::new(Code::WrongTable, at, message)
        .remedy(format!("move the rule to the {belongs} table"))
}

/// Whether there is a module of that name for either family.
pub(crate) fn exists(name: &str) -> bool {
    load(name, Family::V4).or_else(|| load(name, Family::V6)).is_some()
}

/// Refuses a target of the mangle table in another.
fn in_mangle(at: Span, name: &str, table: TableId) -> Result<(), Problem> {
    match table {
        TableId::Mangle => Ok(()),
        _ => Err(wrong_table(at, name, "mangle", table)),
    }
}
