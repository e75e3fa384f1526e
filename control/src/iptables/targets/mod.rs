//! The target modules, one file each.

mod connmark;
mod log;
mod mark;
mod reject;

use super::extension::TargetModule;

pub(crate) use reject::{NAMES_V4 as REJECT_V4, NAMES_V6 as REJECT_V6};

/// A fresh module of that name, if we support it.
pub(crate) fn load(name: &str) -> Option<Box<dyn TargetModule>> {
    Some(match name {
        "REJECT" => Box::new(reject::Reject::default()),
        "LOG" => Box::new(log::Log::default()),
        "MARK" => Box::new(mark::Mark::default()),
        "CONNMARK" => Box::new(connmark::Connmark::default()),
        _ => return None,
    })
}
