//! Links that outlive the process: names in a bpffs, one for each device and hook.
//!
//! ```text
//!   DIRECTORY/netns-4026531840/xdp-3       the XDP program on what device 3 receives
//!   DIRECTORY/netns-4026531840/egress-3    the tcx program on what it sends
//! ```
//!
//! Index and namespace belong together: daemons in several network namespaces may
//! share a bpffs. A link is ours if it lies here under the name of what the kernel
//! says that it is, and, where the kernel tells us, if its program bears our name.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::links::{self, Facts, Hook};

/// Where a link is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PinKind {
    /// What a device receives.
    Xdp,
    /// What this machine itself sends there.
    Egress,
}

impl PinKind {
    const ALL: [Self; 2] = [Self::Xdp, Self::Egress];

    const fn word(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Egress => "egress",
        }
    }
    const fn hook(self) -> Hook {
        match self {
            Self::Xdp => Hook::Xdp,
            Self::Egress => Hook::TcxEgress,
        }
    }
    /// What its program is called.
    const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "portcullis",
            Self::Egress => "host_out",
        }
    }
    fn file(self, ifindex: u32) -> String {
        format!("{}-{ifindex}", self.word())
    }
    /// What a file's name stands for.
    fn of_file(name: &str) -> Option<(Self, u32)> {
        let (word, ifindex) = name.split_once('-')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.word() == word)?;
        Some((kind, ifindex.parse().ok()?))
    }
}

/// Why pins cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// Something cannot be done with a file or directory.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A name is taken by something that is not ours.
    #[error(
        "{} is not a link of ours on that device ({found}): look at it with `bpftool link show \
         pinned {0}`, and remove it with `rm {0}`",
        path.display()
    )]
    Foreign {
        /// The name.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The kernel would not exchange a program.
    #[error(
        "the program of {} cannot be exchanged: {source}; `portcullis release` takes it off, and \
         the next start attaches anew",
        path.display()
    )]
    Exchange {
        /// The link's name.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EACCES) => " (it belongs to another user: chown it to the daemon's)",
        Some(libc::EPERM) => " (is that a bpffs? `mount -t bpf bpf DIRECTORY`)",
        Some(libc::EROFS) => " (the bpffs is mounted read-only)",
        _ => "",
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PinError {
    move |source| PinError::File { action, path: path.to_owned(), source }
}

/// One pinned link.
#[derive(Debug)]
pub struct Pinned {
    kind: PinKind,
    ifindex: u32,
    program: u32,
    path: PathBuf,
    link: OwnedFd,
}

impl Pinned {
    /// Where it is attached.
    pub fn kind(&self) -> PinKind {
        self.kind
    }
    /// The device's index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }
    /// The id of its program.
    pub fn program(&self) -> u32 {
        self.program
    }
    /// Puts `program` in the place of the one that is attached.
    pub(super) fn exchange(&self, program: BorrowedFd<'_>) -> Result<(), PinError> {
        links::update(self.link.as_fd(), program)
            .map_err(|source| PinError::Exchange { path: self.path.clone(), source })
    }
    /// The link, which keeps its name.
    pub(super) fn into_link(self) -> OwnedFd {
        self.link
    }
    /// Takes the program off the device, and the name away.
    ///
    /// # Errors
    /// [`PinError`]; the name is still there then.
    pub fn release(self) -> Result<(), PinError> {
        match links::detach(self.link.as_fd()) {
            // A device that has gone has taken the program with it.
            Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
                return Err(failed("detach", &self.path)(error));
            }
            _ => {}
        }
        remove(&self.path)
    }
    /// Takes the name away; whoever has the link open keeps the program attached.
    ///
    /// # Errors
    /// [`PinError`] when the directory does not allow it.
    pub fn forget(self) -> Result<(), PinError> {
        remove(&self.path)
    }
}

fn remove(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// The pinned links of this network namespace.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    found: Vec<Pinned>,
    stale: Vec<String>,
}

impl Pins {
    /// Looks at what lies under `root` for the calling thread's network namespace.
    /// Links whose device is gone are removed.
    ///
    /// # Errors
    /// [`PinError`] when something there is not ours, or cannot be read.
    pub fn survey(root: &Path) -> Result<Self, PinError> {
        let directory = directory(root)?;
        let mut pins = Self { directory, found: Vec::new(), stale: Vec::new() };
        let entries = match fs::read_dir(&pins.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(pins),
            entries => entries.map_err(failed("read", &pins.directory))?,
        };
        for entry in entries {
            let path = entry.map_err(failed("read", &pins.directory))?.path();
            let named = path.file_name().and_then(|name| name.to_str()).and_then(PinKind::of_file);
            // What has no name of ours is nobody's business here.
            let Some((kind, ifindex)) = named else { continue };
            let link = links::open(&path).map_err(failed("open", &path))?;
            let facts = links::facts(link.as_fd()).map_err(failed("ask about", &path))?;
            if facts.hook == kind.hook() && facts.ifindex == 0 {
                remove(&path)?;
                pins.stale.push(format!("{} was removed: its device is gone", path.display()));
                continue;
            }
            check(kind, ifindex, facts, &path)?;
            pins.found.push(Pinned { kind, ifindex, program: facts.program, path, link });
        }
        pins.found.sort_by_key(|pinned| (pinned.ifindex, pinned.kind));
        Ok(pins)
    }

    /// What lies under `root` for the calling thread's network namespace, by its names
    /// alone: nothing is opened, and nothing removed.
    ///
    /// # Errors
    /// [`PinError`] when the directory cannot be read. One that does not exist is empty.
    pub fn names(root: &Path) -> Result<Vec<(PinKind, u32)>, PinError> {
        let directory = directory(root)?;
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("read", &directory))?,
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        Ok(names.filter_map(|name| PinKind::of_file(name.to_str()?)).collect())
    }

    /// What was found and not taken yet.
    pub fn found(&self) -> &[Pinned] {
        &self.found
    }
    /// What was removed because its device is gone, a sentence each.
    pub fn stale(&self) -> &[String] {
        &self.stale
    }
    /// Whether `program` is attached to a device by a link that is pinned here.
    pub fn holds(&self, ifindex: u32, program: u32) -> bool {
        self.found.iter().any(|pinned| pinned.ifindex == ifindex && pinned.program == program)
    }
    /// Takes one out.
    pub fn take(&mut self, kind: PinKind, ifindex: u32) -> Option<Pinned> {
        let mine = |pinned: &Pinned| (pinned.kind, pinned.ifindex) == (kind, ifindex);
        let at = self.found.iter().position(mine)?;
        Some(self.found.remove(at))
    }
    /// Takes out all of one device.
    pub fn take_all(&mut self, ifindex: u32) -> Vec<Pinned> {
        PinKind::ALL.into_iter().filter_map(|kind| self.take(kind, ifindex)).collect()
    }

    /// Makes the directory, so that links can be pinned.
    ///
    /// # Errors
    /// [`PinError`] when it cannot be made, as outside of a bpffs.
    pub fn prepare(&self) -> Result<(), PinError> {
        fs::create_dir_all(&self.directory).map_err(failed("make", &self.directory))
    }

    /// Gives a link its name.
    pub(super) fn pin(
        &self,
        kind: PinKind,
        ifindex: u32,
        link: BorrowedFd<'_>,
    ) -> Result<(), PinError> {
        let path = self.directory.join(kind.file(ifindex));
        self.prepare()?;
        links::pin(link, &path).map_err(failed("pin a link as", &path))
    }
    /// Takes its name away.
    pub(super) fn unpin(&self, kind: PinKind, ifindex: u32) -> Result<(), PinError> {
        remove(&self.directory.join(kind.file(ifindex)))
    }
}

/// Where this namespace's links lie.
fn directory(root: &Path) -> Result<PathBuf, PinError> {
    let own = Path::new("/proc/thread-self/ns/net");
    let namespace = fs::metadata(own).map_err(failed("look at", own))?;
    Ok(root.join(format!("netns-{}", namespace.ino())))
}

fn check(kind: PinKind, ifindex: u32, facts: Facts, path: &Path) -> Result<(), PinError> {
    let foreign = |found: String| Err(PinError::Foreign { path: path.to_owned(), found });
    if facts.hook != kind.hook() {
        return foreign("a link of another kind".to_owned());
    }
    if facts.ifindex != ifindex {
        return foreign(format!("it is attached to device {}", facts.ifindex));
    }
    match links::program_name(facts.program) {
        Ok(name) if name != kind.program() => foreign(format!("its program is called {name}")),
        // Without CAP_SYS_ADMIN nobody may ask; that it lies here must do then.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_hook_of_which_device() {
        for (kind, name) in [(PinKind::Xdp, "xdp-17"), (PinKind::Egress, "egress-17")] {
            assert_eq!(kind.file(17), name);
            assert_eq!(PinKind::of_file(name), Some((kind, 17)));
        }
        for other in ["xdp", "xdp-", "xdp-x", "ingress-3", "xdp-3-4", ""] {
            assert_eq!(PinKind::of_file(other), None, "{other}");
        }
    }
}
