//! `portcullis doctor`: what of this machine helps or hinders, and what mends it.
//!
//! Every group of checks is a file: what it saw of the machine as plain data
//! (`observe`, which changes nothing), and what that means (`judge`, which is a
//! pure function of the data). [`fix`] alone changes the machine, by running the
//! commands of findings that are marked safe.
//!
//! What cannot be seen (for lack of privilege, or because the kernel has no such
//! file here) is said as a note with the reason, never assumed to be well.

mod clock;
mod code;
mod config;
mod cpu;
mod daemon;
mod finding;
pub mod fix;
mod kernel;
mod memory;
mod netlink;
mod offloads;
mod peer;
mod ports;
mod probe;
mod rules;
mod spread;
mod sys;
mod system;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use dataplane::fib::Mode;

pub use code::{Code, Group, table};
pub use finding::{Command, Finding, Severity};

/// What was seen, or why it could not be.
pub type Sight<T> = Result<T, Unseen>;

/// Why something could not be seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// It takes privilege.
    #[error("not visible without {0}")]
    Privilege(&'static str),
    /// The kernel has no such thing here.
    #[error("{0} is not there (another network namespace, or not built into this kernel)")]
    Absent(String),
    /// It answered with an error.
    #[error("{0}")]
    Failed(String),
}

impl Unseen {
    /// From the answer of a system call about `what`.
    pub fn of(what: impl fmt::Display, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Absent(what.to_string()),
            _ => Self::Failed(format!("{what}: {error}")),
        }
    }
}

/// What the operator has, or means to have, in force.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Port names.
    pub ports: Vec<String>,
    /// What to do with frames.
    pub mode: Mode,
    /// Workers, if they are fixed.
    pub workers: Option<usize>,
    /// Whether INPUT and OUTPUT shall be enforced.
    pub host_road: bool,
    /// Whether traffic shall stop while the daemon is away.
    pub closed: bool,
    /// Where programs are pinned.
    pub pin_directory: PathBuf,
    /// Connections at most.
    pub conntrack_max: usize,
    /// Whom the daemon is to become, if anybody.
    pub user: Option<String>,
    /// Whether there is a management list.
    pub management: bool,
    /// The state file.
    pub state: Option<PathBuf>,
    /// The log file.
    pub log: Option<PathBuf>,
    /// The control socket.
    pub socket: PathBuf,
    /// The IPv4 policy.
    pub rules: Option<PathBuf>,
    /// The IPv6 policy.
    pub rules6: Option<PathBuf>,
}

impl Wanted {
    fn is_bridge(&self) -> bool {
        matches!(self.mode, Mode::Bridge(_))
    }
}

/// Everything seen of the machine at one moment.
#[derive(Debug)]
struct Seen {
    kernel: kernel::Seen,
    ports: Vec<ports::Seen>,
    memory: memory::Seen,
    clock: clock::Seen,
    cpu: cpu::Seen,
    system: system::Seen,
    daemon: daemon::Seen,
    config: config::Seen,
}

/// Looks at everything and says what it means. Asks the daemon at
/// `wanted.socket`, if one answers, for what is really in force, and for the ports
/// when none are given.
pub fn examine(wanted: &Wanted) -> Vec<Finding> {
    let mut wanted = wanted.clone();
    let daemon = daemon::observe(&wanted);
    if let Some(running) = daemon.running() {
        running.complete(&mut wanted);
    }
    let ports: Vec<_> =
        wanted.ports.iter().map(|name| ports::observe(name, &wanted.pin_directory)).collect();
    let workers = workers(&wanted, &ports, &daemon);
    let seen = Seen {
        kernel: kernel::observe(&wanted),
        memory: memory::observe(),
        clock: clock::observe(),
        cpu: cpu::observe(&wanted.ports, daemon.pid()),
        system: system::observe(&wanted),
        config: config::observe(&wanted),
        ports,
        daemon,
    };
    judge(&wanted, workers, &seen)
}

/// Problems first; within a severity the order of the groups and of the ports stays.
pub fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
}

/// Workers that run, or would.
fn workers(wanted: &Wanted, ports: &[ports::Seen], daemon: &daemon::Seen) -> usize {
    let running = daemon.running().map(|running| running.stats.workers.len());
    let queues = || ports.iter().find_map(ports::Seen::queues).unwrap_or(1) as usize;
    running.or(wanted.workers).unwrap_or_else(queues).max(1)
}

fn judge(wanted: &Wanted, workers: usize, seen: &Seen) -> Vec<Finding> {
    let running = seen.daemon.running().is_some();
    let mut findings = kernel::judge(wanted, workers, &seen.kernel, running);
    if seen.ports.is_empty() {
        let found = "no port is given and no daemon runs: ports were not looked at";
        let advice = "portcullis doctor --port DEV --port DEV";
        findings.push(Finding::note(Code::NotSeen, "ports", found).advise(advice));
    }
    for port in &seen.ports {
        findings.extend(ports::judge(wanted, workers, port, seen.daemon.running()));
    }
    findings.extend(memory::judge(wanted, workers, &seen.memory, running));
    findings.extend(clock::judge(&seen.clock));
    findings.extend(cpu::judge(workers, &seen.cpu, seen.daemon.running()));
    findings.extend(system::judge(wanted, &seen.system));
    findings.extend(daemon::judge(wanted, &seen.daemon));
    findings.extend(config::judge(wanted, &seen.config));
    findings
}

/// The worst of them.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}
