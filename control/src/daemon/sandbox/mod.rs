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
use dataplane::port::afxdp::OnFailure;
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

/// The number of a user and those of its groups, as the daemon would take them.
///
/// # Errors
/// [`SandboxError`]: there is no such user or group.
pub fn numbers_of(user: &str) -> Result<(u32, Vec<u32>), SandboxError> {
    user.parse::<Identity>().map(Identity::numbers)
}

/// The daemon's own directories, with the modes that they are made with.
pub(super) fn places(config: &Config) -> Vec<(&Path, u32)> {
    let socket = config.socket.parent().map(|directory| (directory, 0o755));
    let state = config.state.as_deref().and_then(Path::parent).map(|directory| (directory, 0o700));
    let pins = (config.failure.on_failure == OnFailure::Closed)
        .then_some((config.failure.pin_dir.as_path(), 0o700));
    let captures = config.logging.captures.as_ref();
    let captures = captures.map(|captures| (captures.directory.as_path(), 0o750));
    let history = config.changes.history.as_deref().map(|directory| (directory, 0o700));
    socket.into_iter().chain(state).chain(pins).chain(captures).chain(history).collect()
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use super::*;

    /// Set in the process that is to be sealed: `SECCOMP,WHAT`.
    const ROLE: &str = "PORTCULLIS_TEST_SEALED";

    /// Runs this very test in a process of its own, which is sealed and then does `what`.
    fn sealed(seccomp: &str, what: &str) -> ExitStatus {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "daemon::sandbox::tests::what_is_not_on_the_list_ends_the_process"]);
        child.env("RUST_BACKTRACE", "full");
        child.env(ROLE, format!("{seccomp},{what}"));
        child.output().unwrap().status
    }

    /// What the sealed process does.
    fn act(role: &str) {
        let (seccomp, what) = role.split_once(',').unwrap();
        seal(Seccomp::from_str(seccomp, false).unwrap()).unwrap();
        match what {
            "thread" => assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7),
            "panic" => assert!(std::panic::catch_unwind(|| panic!("with a backtrace")).is_err()),
            "path" => assert!(std::path::absolute("here").unwrap().is_absolute()),
            "file" => assert!(!std::fs::read("/proc/self/status").unwrap().is_empty()),
            "execute" => assert!(Command::new("true").status().unwrap().success()),
            "become" => drop(rustix::thread::set_thread_uid(rustix::process::getuid())),
            "another family" => {
                use rustix::net::{AddressFamily, SocketType, socket};
                drop(socket(AddressFamily::VSOCK, SocketType::DGRAM, None));
            }
            "executable memory" => {
                drop(memmap2::MmapOptions::new().len(4096).map_anon().map(|memory| {
                    drop(memory.make_exec());
                }))
            }
            "give away" => drop(std::os::unix::fs::chown("/nowhere", None, None)),
            _ => panic!("{what}"),
        }
    }

    #[test]
    fn what_is_not_on_the_list_ends_the_process() {
        if let Ok(role) = std::env::var(ROLE) {
            return act(&role);
        }
        for what in ["thread", "file", "path", "panic"] {
            let status = sealed("enforce", what);
            assert!(status.success(), "{what}: {status}");
        }
        for what in ["execute", "become", "another family", "executable memory", "give away"] {
            let status = sealed("enforce", what);
            assert_eq!(status.signal(), Some(libc::SIGSYS), "{what}: {status}");
            for lenient in ["log", "off"] {
                let status = sealed(lenient, what);
                assert!(status.success(), "{lenient}: {what}: {status}");
            }
        }
    }
}
