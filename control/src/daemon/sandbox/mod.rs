//! What the daemon gives up: root's identity, capabilities, system calls.
//!
//! Three steps, each before the next thing that could be turned against us.
//! [`enter`], the first thing of all: become the configured user, keep the few
//! capabilities that starting needs, never gain any again. [`narrow`], once the BPF
//! programs are loaded and before the first thread: keep what running needs.
//! [`seal`], once all threads run: only the system calls that running needs.
//!
//! Capabilities belong to threads, so the first two must come while there is one;
//! the filter is put on all threads at once.

mod privileges;
mod syscalls;
mod user;

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use thiserror::Error;

use super::Config;
use user::Identity;

/// What to give up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Whom to become, as `NAME`, `UID`, `NAME:GROUP` or `UID:GID`; by default the daemon
    /// stays who started it.
    pub user: Option<String>,
    /// What becomes of system calls that running does not need.
    pub seccomp: Seccomp,
}

/// What becomes of a system call that is not on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Seccomp {
    /// The kernel ends the process (SIGSYS), and says so in its log.
    #[default]
    Enforce,
    /// It is made, and the kernel's log names it.
    Log,
    /// There is no list.
    Off,
}

/// Why something could not be given up.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// There is no such user.
    #[error("there is no user {0}")]
    NoUser(String),
    /// There is no such group.
    #[error("there is no group {0}")]
    NoGroup(String),
    /// Names cannot be looked up.
    #[error("cannot look up {name}: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Only root can become somebody else.
    #[error("only root can become user {0}: start as root, or as that user with capabilities")]
    NotRoot(u32),
    /// A directory cannot be made for the user.
    #[error("cannot make {path} for the daemon's user: {source}")]
    Directory {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A step was refused by the kernel.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The filter of system calls was refused.
    #[error("cannot filter system calls: {0}")]
    Seccomp(#[source] seccompiler::Error),
    /// The list of system calls is wrong: a fault of ours.
    #[error("the list of system calls is wrong: {0}")]
    List(#[source] seccompiler::BackendError),
}

/// The daemon's own directories, with the modes that they are made with.
pub(super) fn places(config: &Config) -> Vec<(&Path, u32)> {
    let socket = config.socket.parent().map(|directory| (directory, 0o755));
    let state = config.state.as_deref().and_then(Path::parent).map(|directory| (directory, 0o700));
    socket.into_iter().chain(state).collect()
}

/// Becomes the user and keeps what starting needs. `places` are the daemon's own
/// directories, with their modes: one that does not exist is made, and is the user's. `group` is one
/// more group to belong to, so that the control socket can be given to it.
///
/// # Errors
/// [`SandboxError`]; the process should end then.
pub(super) fn enter(
    sandbox: &Sandbox,
    places: &[(&Path, u32)],
    group: Option<u32>,
) -> Result<(), SandboxError> {
    let identity = sandbox.user.as_deref().map(str::parse::<Identity>).transpose()?;
    if let Some(identity) = identity.filter(|identity| !identity.is_ours()) {
        identity.check()?;
        places.iter().try_for_each(|(place, mode)| identity.make_directory(place, *mode))?;
        privileges::keep_over_change_of_user()?;
        identity.assume(group)?;
    }
    privileges::begin()
}

/// Keeps what running needs. To be called with everything loaded, before threads.
///
/// # Errors
/// [`SandboxError`]; the process should end then.
pub(super) fn narrow() -> Result<(), SandboxError> {
    privileges::run()
}

/// Restricts all threads to the system calls that running needs.
///
/// # Errors
/// [`SandboxError`]; the process should end then.
pub(super) fn seal(seccomp: Seccomp) -> Result<(), SandboxError> {
    for filter in syscalls::filters(seccomp).map_err(SandboxError::List)? {
        seccompiler::apply_filter_all_threads(&filter).map_err(SandboxError::Seccomp)?;
    }
    Ok(())
}

fn step(step: &'static str) -> impl Fn(rustix::io::Errno) -> SandboxError {
    move |error| SandboxError::Step { step, source: error.into() }
}
