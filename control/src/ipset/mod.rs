//! Files and commands of `ipset`: text to sets, and sets to text.
//!
//! A line goes `lexer -> command (create, element, extras) -> stage`. A [`Stage`] is what
//! the sets would be: every line of a file is tried out there, and only if nothing was
//! wrong with any of them it is put in force as a whole.

mod command;
mod create;
mod element;
mod extras;
mod fault;
mod icmp;
mod lexer;
pub mod print;
mod reader;
mod single;
mod stage;
#[cfg(test)]
mod tests;
mod twin;
mod value;
mod written;

use dataplane::sets::SetName;

use crate::diagnostics::Code;
use fault::Fault;
use lexer::Word;

pub(crate) use command::{Form, Options, command_name};
pub(crate) use print::quoted;
pub(crate) use reader::{LeftOut, read_saved};
pub use reader::{MAX_FILE_BYTES, files, read, read_file};
pub use single::{Outcome, command};
pub use stage::Stage;
pub(crate) use stage::{members, put_list};
pub use twin::twin;

/// A set's name.
fn set_name(word: &Word<'_>) -> Result<SetName, Fault> {
    SetName::new(&word.text).map_err(|_| {
        let message = format!("`{}' is no name of a set", word.text);
        let remedy = format!("a name has 1 to {} bytes", SetName::MAX);
        word.fault(Code::BadValue, message).remedy(remedy)
    })
}

/// The likeliest of some names for a misspelt one.
fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|name| (strsim::jaro_winkler(word, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}
