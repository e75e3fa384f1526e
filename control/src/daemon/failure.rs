//! What is configured for the time when the daemon is away or stuck, and what must be
//! there for it: a bpffs in which links stay when the process is gone.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dataplane::clock::{Nanos, monotonic};
use dataplane::packet::PortId;
use dataplane::port::afxdp::{OnFailure, PinError, Pins};
use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};
use thiserror::Error;

use super::ProgramSight;
use super::fleet::WorkerSight;
use super::preflight::{self, PreflightError};
use crate::api::protocol::{FailureInfo, PinInfo, StuckInfo};
use crate::net::{Link, View};

/// What happens when the daemon fails.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What becomes of the traffic while the daemon is away.
    pub on_failure: OnFailure,
    /// A worker that has not turned for longer is away: the kernel side does what holds
    /// without a daemon. Zero: nobody watches.
    pub watchdog: Nanos,
    /// Where links are kept, below a directory for the network namespace.
    pub pin_dir: PathBuf,
}

impl Failure {
    /// What becomes of traffic while the daemon is away.
    pub(super) fn word(&self) -> &'static str {
        match self.on_failure {
            OnFailure::Open => "left to the kernel",
            OnFailure::Closed => "dropped",
        }
    }
}

/// Why links cannot be kept.
#[derive(Debug, Error)]
pub enum FailureError {
    /// The directory is not in a bpffs, and none can be mounted for it.
    #[error(
        "on-failure = closed keeps links in {}, which is not in a bpffs: `mount -t bpf bpf {}` \
         first, name another place with --pin-dir, or choose --on-failure open{hint}",
        pin_dir.display(), mount_point.display()
    )]
    NoBpffs {
        /// Where links were to be.
        pin_dir: PathBuf,
        /// Where one could be mounted.
        mount_point: PathBuf,
        /// More that is known.
        hint: String,
    },
    /// Something is wrong with the pins themselves.
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// Where a system has its bpffs.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const MAGIC: u64 = 0xcafe_4a11;

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|about| about.f_type as u64 & 0xffff_ffff == MAGIC)
}

/// Makes sure that links can be kept, if they are to be, and looks for those that an
/// earlier process has left. Returns what there is to say, too.
///
/// # Errors
/// [`FailureError`]; nothing was changed then.
pub(super) fn survey(failure: &Failure) -> Result<(Pins, Option<String>), FailureError> {
    let mounted = match failure.on_failure {
        OnFailure::Open => None,
        OnFailure::Closed => bpffs(&failure.pin_dir)?,
    };
    Ok((Pins::survey(&failure.pin_dir)?, mounted))
}

/// Mounts the usual bpffs when `pin_dir` is to be in it and it is not there. Says so.
fn bpffs(pin_dir: &Path) -> Result<Option<String>, FailureError> {
    let existing = pin_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if is_bpffs(existing) {
        return Ok(None);
    }
    let usual = Path::new(BPFFS);
    let refuse = |mount_point: &Path, hint: &str| FailureError::NoBpffs {
        pin_dir: pin_dir.to_owned(),
        mount_point: mount_point.to_owned(),
        hint: hint.to_owned(),
    };
    if !pin_dir.starts_with(usual) || !usual.is_dir() {
        return Err(refuse(existing, ""));
    }
    // A mount in a namespace of our own would end with us, and with it every link.
    if !shares_mounts() {
        let hint = " (this process has mounts of its own, as under `ip netns exec`: the bpffs \
                    must be mounted outside)";
        return Err(refuse(usual, hint));
    }
    match mount("bpf", usual, "bpf", MountFlags::NOSUID | MountFlags::NODEV, None) {
        Ok(()) => Ok(Some(format!("no bpffs was mounted: one is now on {BPFFS}"))),
        Err(error) => Err(refuse(usual, &format!(" ({})", io::Error::from(error)))),
    }
}

/// Whether this process sees the mounts of the first one.
pub(crate) fn shares_mounts() -> bool {
    let of = |process: &str| std::fs::metadata(format!("/proc/{process}/ns/mnt"));
    match (of("self"), of("1")) {
        (Ok(own), Ok(first)) => own.ino() == first.ino(),
        _ => false,
    }
}

/// Refuses to leave behind a closed port that nobody would ever open.
///
/// # Errors
/// [`PreflightError::PinnedElsewhere`] for a pinned device that is not among `links`
/// and that no running daemon holds.
pub(super) fn no_strays(pins: &Pins, links: &[&Link], view: &View) -> Result<(), PreflightError> {
    let ours = |ifindex| links.iter().any(|link| link.index == ifindex);
    for pinned in pins.found().iter().filter(|pinned| !ours(pinned.ifindex())) {
        let ifindex = pinned.ifindex();
        if preflight::is_held(ifindex) {
            continue;
        }
        let port = view.link_by_index(ifindex).map(|link| link.name.clone());
        let port = port.unwrap_or_else(|| format!("of index {ifindex}"));
        return Err(PreflightError::PinnedElsewhere { port });
    }
    Ok(())
}

/// What holds, for whoever asks.
pub(super) fn info(
    failure: &Failure,
    ports: &[String],
    program: &ProgramSight,
    workers: &[WorkerSight],
) -> FailureInfo {
    let stuck = |(worker, sight): (usize, &WorkerSight)| {
        let since = sight.still_since()?;
        Some(StuckInfo {
            worker,
            core: sight.core,
            still_ms: monotonic().saturating_sub(since).0 / Nanos::MILLISECOND.0,
            stage: sight.stats.stage().name().to_owned(),
        })
    };
    let pin = |(index, name): (usize, &String)| {
        let (pinned, adopted) = program.pin(PortId(index as u8));
        PinInfo { port: name.clone(), pinned, adopted }
    };
    FailureInfo {
        on_failure: match failure.on_failure {
            OnFailure::Open => "open".to_owned(),
            OnFailure::Closed => "closed".to_owned(),
        },
        watchdog_ms: failure.watchdog.0 / Nanos::MILLISECOND.0,
        pin_dir: failure.pin_dir.display().to_string(),
        ports: ports.iter().enumerate().map(pin).collect(),
        stuck: workers.iter().enumerate().filter_map(stuck).collect(),
    }
}
