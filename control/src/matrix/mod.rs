//! Which flows must pass, and which must not: a file that says so, run against a policy.
//!
//! `file` reads it, `talk` makes its packets, `run` sends them through the engine that forwards
//! (the one of `explain` and `replay`), `judge` compares, `report` tells; `init` proposes a first file, `learn` another from
//! what was seen. Each flow begins with
//! nothing that another has left behind, so their order means nothing.

mod expect;
mod file;
mod init;
mod judge;
mod learn;
mod load;
mod report;
mod run;
mod talk;
#[cfg(test)]
mod tests;

pub use expect::{By, Expectation, Place, WantedLog, WantedNat, WantedVerdict};
pub use file::{Flow, MAX_FILE_BYTES, Matrix, Step, read, read_file};
pub use init::propose;
pub use learn::{Seen, learn, seen};
pub use load::{Loaded, NetworkFault, network};
pub use report::{FlowResult, Report, StepResult, junit, render};
pub use run::{RunError, Scene, run, run_with};
