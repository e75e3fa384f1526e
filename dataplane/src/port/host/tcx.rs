//! Which tcx programs a device has, ours or not.

use std::io;

use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

/// Names of the host road's own programs, as the kernel shows them.
pub const PROGRAMS: [&str; 3] = ["host_out", "host_in", "host_loop"];

/// A tcx program that is attached to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcxProgram {
    /// The kernel's number of it.
    pub id: u32,
    /// Its name; empty when it has none.
    pub name: String,
    /// Whether it sees what the device sends; else what it receives.
    pub egress: bool,
}

/// The tcx programs on a device, in the order in which they run.
///
/// # Errors
/// The kernel's answer: it takes CAP_NET_ADMIN to ask.
pub fn tcx_programs(device: &str) -> io::Result<Vec<TcxProgram>> {
    let mut found = Vec::new();
    for (hook, egress) in [(TcAttachType::Ingress, false), (TcAttachType::Egress, true)] {
        let (_, programs) = SchedClassifier::query_tcx(device, hook).map_err(answer)?;
        found.extend(programs.iter().map(|program| TcxProgram {
            id: program.id(),
            name: program.name_as_str().unwrap_or_default().to_owned(),
            egress,
        }));
    }
    Ok(found)
}

/// The kernel's answer within the library's.
fn answer(error: ProgramError) -> io::Error {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = next {
        if let Some(answer) = cause.downcast_ref::<io::Error>() {
            return io::Error::new(answer.kind(), error.to_string());
        }
        next = cause.source();
    }
    io::Error::other(error)
}
