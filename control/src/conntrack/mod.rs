//! The connection table as operators know it: what the `conntrack` tool's filters
//! mean, and how it prints a connection.
//!
//! `row` turns a connection into a value of the protocol, `filter` decides which ones
//! are meant (in the daemon), `text` prints them (wherever they are shown).

mod filter;
mod row;
#[cfg(test)]
mod tests;
mod text;

pub use filter::matches;
pub(crate) use row::tuple;
pub use row::{Rows, expectation};
pub use text::{Columns, Form, protocol_name, save_line};
