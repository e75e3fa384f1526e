//! The kernel: its version, the features that are used, tried for real, the
//! privileges and limits of this process.

use std::io;
use std::path::Path;

use dataplane::port::{afxdp, host};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::probe::{self, Probes};
use super::{Code, Command, Finding, Severity, Sight, Unseen, Wanted};
use crate::daemon::failure::shares_mounts;
use crate::daemon::preflight::{MIN_KERNEL, kernel_version, missing_capabilities};

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) release: String,
    /// Capabilities that the daemon needs and this process lacks.
    pub(super) missing: Vec<&'static str>,
    /// Whether this process may pin as much memory as it likes.
    pub(super) may_pin: bool,
    pub(super) af_xdp: Sight<()>,
    pub(super) probes: Probes,
    pub(super) tun: Sight<()>,
    /// A ring as the host road's, tried.
    pub(super) io_uring: Sight<()>,
    /// `kernel.io_uring_disabled`: 0 for nobody, 1 for the unprivileged, 2 for all.
    pub(super) io_uring_disabled: Sight<u64>,
    /// `net.core.bpf_jit_enable`.
    pub(super) jit: Sight<u64>,
    /// Whether programs can be pinned where they are to be.
    pub(super) bpffs: Sight<bool>,
    /// Whether what is mounted here stays when this process is gone.
    pub(super) mounts_stay: bool,
    /// Bytes that may be pinned; `None` for no limit.
    pub(super) memlock: Option<u64>,
    /// Files that may be open; `None` for no limit.
    pub(super) open_files: Option<u64>,
}

/// A number from a file of `/proc` or `/sys`.
pub(super) fn number(path: &str) -> Sight<u64> {
    let text = std::fs::read_to_string(path).map_err(|error| Unseen::of(path, &error))?;
    let text = text.trim();
    text.parse().map_err(|_| Unseen::Failed(format!("{path} says `{text}`")))
}

/// Looks.
pub(super) fn observe(wanted: &Wanted) -> Seen {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let af_xdp = socket(AddressFamily::XDP, SocketType::RAW, None).map(|_| ());
    // Opening it makes no device.
    let tun = std::fs::File::options().read(true).write(true).open("/dev/net/tun");
    Seen {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        missing: missing_capabilities(held),
        may_pin: held.contains(CapabilitySet::IPC_LOCK),
        af_xdp: match af_xdp.map_err(io::Error::from) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Unseen::Privilege("CAP_NET_RAW"))
            }
            other => other.map_err(|error| Unseen::Failed(error.to_string())),
        },
        probes: probe::run(),
        tun: match tun {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Unseen::Privilege("CAP_NET_ADMIN"))
            }
            Err(error) => Err(Unseen::Failed(error.to_string())),
        },
        io_uring: host::probe_io_uring().map_err(|error| Unseen::Failed(error.to_string())),
        io_uring_disabled: number("/proc/sys/kernel/io_uring_disabled"),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        bpffs: bpffs(&wanted.pin_directory),
        mounts_stay: shares_mounts(),
        memlock: getrlimit(Resource::Memlock).current,
        open_files: getrlimit(Resource::Nofile).current,
    }
}

/// Whether a directory, or the nearest above it that exists, is on a BPF file system.
fn bpffs(directory: &Path) -> Sight<bool> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let info = rustix::fs::statfs(existing)
        .map_err(|error| Unseen::of(existing.display(), &error.into()))?;
    Ok(info.f_type & 0xffff_ffff == BPF_FS_MAGIC)
}

/// What it means.
pub(super) fn judge(wanted: &Wanted, workers: usize, seen: &Seen, running: bool) -> Vec<Finding> {
    let mut findings = vec![version(seen), privilege(seen)];
    findings.push(match &seen.af_xdp {
        Ok(()) => Finding::ok(Code::AfXdp, "", "AF_XDP sockets can be opened"),
        Err(why @ Unseen::Privilege(_)) => Finding::unseen(Code::AfXdp, "", why),
        Err(why) => {
            Finding::error(Code::AfXdp, "", format!("AF_XDP sockets cannot be opened: {why}"))
                .advise("a kernel with CONFIG_XDP_SOCKETS is needed")
        }
    });
    findings.push(tried(Code::BpfLoad, "the XDP program", &seen.probes.program));
    findings.push(tried(Code::XdpLink, "a link of an XDP program", &seen.probes.xdp_link));
    if wanted.host_road {
        findings.push(tun(seen));
        let what = "a TAP with a tcx program";
        findings.push(tried(Code::HostRoadLink, what, &seen.probes.host_road));
        findings.push(owners(&seen.probes.owners));
        findings.push(io_uring(seen));
    }
    findings.push(jit(seen));
    findings.extend(pins(wanted, seen));
    // A daemon that runs has what it needs, and limits of its own.
    if !running {
        findings.push(memlock(wanted, workers, seen));
        findings.push(open_files(wanted, workers, seen));
    }
    findings
}

fn version(seen: &Seen) -> Finding {
    let (release, (major, minor)) = (&seen.release, MIN_KERNEL);
    if kernel_version(release).is_some_and(|version| version >= MIN_KERNEL) {
        return Finding::ok(Code::KernelVersion, "", format!("kernel {release}"));
    }
    let found = format!("kernel {release}, and {major}.{minor} or later is needed");
    Finding::error(Code::KernelVersion, "", found)
}

fn privilege(seen: &Seen) -> Finding {
    if seen.missing.is_empty() {
        return Finding::ok(Code::Privilege, "", "this process has every capability needed");
    }
    let missing = seen.missing.join(", ");
    let found = format!("this process lacks {missing}: it sees less, and could not be the daemon");
    Finding::note(Code::Privilege, "", found).advise("run doctor as root to see everything")
}

/// Something that was tried for real.
fn tried(code: Code, what: &str, outcome: &Sight<()>) -> Finding {
    match outcome {
        Ok(()) => Finding::ok(code, "", format!("{what} works, tried for real")),
        Err(why @ Unseen::Privilege(_)) => Finding::unseen(code, "", why),
        Err(why) => Finding::error(code, "", format!("{what} does not work: {why}")),
    }
}

/// Only `-m owner` asks for them.
fn owners(outcome: &Sight<()>) -> Finding {
    let code = Code::Owners;
    match outcome {
        Ok(()) => Finding::ok(code, "", "the programs see whose packets of this machine are"),
        Err(why @ Unseen::Privilege(_)) => Finding::unseen(code, "", why),
        Err(why) => {
            let found = format!(
                "the programs cannot see whose packets of this machine are, so that `-m owner` \
                 is refused: {why}"
            );
            Finding::warning(code, "", found).advise(
                "a kernel with CONFIG_DEBUG_INFO_BTF is needed, not locked for confidentiality",
            )
        }
    }
}

fn tun(seen: &Seen) -> Finding {
    match &seen.tun {
        Ok(()) => Finding::ok(Code::Tun, "", "/dev/net/tun can be opened"),
        Err(why @ Unseen::Privilege(_)) => Finding::unseen(Code::Tun, "", why),
        Err(why) => Finding::error(Code::Tun, "", format!("/dev/net/tun cannot be opened: {why}"))
            .mend(Command::new("modprobe tun")),
    }
}

fn io_uring(seen: &Seen) -> Finding {
    let why = match &seen.io_uring {
        Ok(()) => return Finding::ok(Code::IoUring, "", "io_uring works, tried for real"),
        Err(why) => why,
    };
    let finding = Finding::warning(Code::IoUring, "", format!("io_uring does not work: {why}"));
    match seen.io_uring_disabled {
        Ok(value @ 1..) => finding
            .mend(Command::new("sysctl -w kernel.io_uring_disabled=0"))
            .advise(format!("kernel.io_uring_disabled is {value}")),
        _ => finding,
    }
}

fn jit(seen: &Seen) -> Finding {
    match &seen.jit {
        Ok(0) => Finding::warning(Code::BpfJit, "", "net.core.bpf_jit_enable is 0")
            .fix(Command::new("sysctl -w net.core.bpf_jit_enable=1")),
        Ok(_) => Finding::ok(Code::BpfJit, "", "BPF programs are compiled"),
        Err(why) => Finding::unseen(Code::BpfJit, "", why),
    }
}

/// Only on-failure closed pins anything.
fn pins(wanted: &Wanted, seen: &Seen) -> Option<Finding> {
    if !wanted.closed {
        return None;
    }
    let directory = wanted.pin_directory.display();
    Some(match &seen.bpffs {
        Ok(true) => Finding::ok(Code::Bpffs, "", format!("{directory} is on a BPF file system")),
        Ok(false) => {
            let usual = Path::new("/sys/fs/bpf");
            let found = format!("{directory} is not on a BPF file system: nothing can be pinned");
            let mount =
                |place: &Path| Command::new("mount -t bpf bpf").arg(place.to_string_lossy());
            if !wanted.pin_directory.starts_with(usual) || !usual.is_dir() {
                return Some(
                    Finding::error(Code::Bpffs, "", found).mend(mount(&wanted.pin_directory)),
                );
            }
            if !seen.mounts_stay {
                let advice = "to be run outside: this process has mounts of its own, as under \
                              `ip netns exec`; or --pin-dir DIR on another BPF file system";
                let finding = Finding::error(Code::Bpffs, "", found).mend(mount(usual));
                return Some(finding.advise(advice));
            }
            Finding::note(Code::Bpffs, "", format!("{found}, until `run` mounts it"))
                .fix(mount(usual))
        }
        Err(why) => Finding::unseen(Code::Bpffs, "", why),
    })
}

/// Bytes of frame memory of all workers.
pub(super) fn frame_bytes(wanted: &Wanted, workers: usize) -> u64 {
    let config = afxdp::Config::new(wanted.ports.iter().cloned(), workers);
    config.pool_bytes() * workers as u64
}

fn memlock(wanted: &Wanted, workers: usize, seen: &Seen) -> Finding {
    let needed = frame_bytes(wanted, workers);
    match seen.memlock {
        _ if seen.may_pin => {
            Finding::ok(Code::Memlock, "", "CAP_IPC_LOCK: no limit on pinned memory")
        }
        Some(limit) if limit < needed => {
            let found = format!(
                "RLIMIT_MEMLOCK is {} KiB, frames take {} KiB, and this process has no CAP_IPC_LOCK",
                limit >> 10,
                needed >> 10
            );
            // Who lacks more than that is not the daemon's user anyway.
            let severity = if seen.missing.is_empty() { Severity::Error } else { Severity::Note };
            Finding::new(severity, Code::Memlock, "", found)
                .advise("give the daemon CAP_IPC_LOCK, or LimitMEMLOCK=infinity in its unit")
        }
        _ => Finding::ok(Code::Memlock, "", "RLIMIT_MEMLOCK is high enough"),
    }
}

fn open_files(wanted: &Wanted, workers: usize, seen: &Seen) -> Finding {
    /// Programs, maps, links, logs, and clients of the control socket.
    const BESIDE: u64 = 128;
    let ports = wanted.ports.len() as u64;
    // A socket and a TAP for each port and worker, one TAP more beside loopback.
    let needed = workers as u64 * (2 * ports + 1) + 4 * ports + BESIDE;
    match seen.open_files {
        Some(limit) if limit < needed => {
            let found = format!("{limit} files may be open, and {needed} are needed");
            Finding::warning(Code::OpenFiles, "", found)
                .advise(format!("LimitNOFILE={} in the unit, or ulimit -n", needed * 2))
        }
        _ => Finding::ok(Code::OpenFiles, "", "enough files may be open"),
    }
}
