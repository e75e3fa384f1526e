//! The other end of a veth, wherever it is: it decides what is in the frames that
//! we receive, and may live in another network namespace.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dataplane::port::afxdp::ethtool::{self, Offload};
use netlink_packet_route::link::LinkAttribute;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Sight, Unseen, netlink};

/// Where named namespaces are.
const DIRECTORIES: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// Processes whose namespaces are looked at.
const PROCESSES_MAX: usize = 4096;

/// A veth's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) mtu: u32,
    /// The words that make a command run where it is; none when it is here.
    pub(super) prefix: Vec<String>,
    pub(super) offloads: Vec<Offload>,
}

/// Finds the peer with this index, in the namespace that we know by `id`, or in ours.
pub(super) fn find(index: u32, id: Option<i32>) -> Sight<Peer> {
    let Some(id) = id else { return look(index, Vec::new()) };
    for (path, prefix) in candidates() {
        let Ok(file) = File::open(&path) else { continue };
        if netlink::namespace_id(file.as_fd()).ok().flatten() == Some(id) {
            return inside(&file, move || look(index, prefix));
        }
    }
    Err(Unseen::Failed("its peer is in a network namespace that cannot be found here".to_owned()))
}

/// Files that stand for network namespaces, with how to run a command in each.
fn candidates() -> Vec<(PathBuf, Vec<String>)> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    let mut add = |path: PathBuf, prefix: Vec<String>| {
        let Ok(metadata) = std::fs::metadata(&path) else { return };
        if known.insert(metadata.ino()) {
            found.push((path, prefix));
        }
    };
    for directory in DIRECTORIES {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let prefix = match directory {
                "/run/netns" => words(&["ip", "netns", "exec", &name]),
                _ => words(&["nsenter", &format!("--net={}", path.display())]),
            };
            add(path, prefix);
        }
    }
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for process in numbers.take(PROCESSES_MAX) {
        let path = Path::new("/proc").join(process.to_string()).join("ns/net");
        add(path, words(&["nsenter", "-t", &process.to_string(), "-n"]));
    }
    found
}

/// Runs `body` on a thread that has entered a namespace.
fn inside<T: Send>(file: &File, body: impl FnOnce() -> Sight<T> + Send) -> Sight<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| Unseen::of("its peer's network namespace", &error.into()))?;
            body()
        });
        thread.join().unwrap_or_else(|_| Err(Unseen::Failed("looking there failed".to_owned())))
    })
}

fn look(index: u32, prefix: Vec<String>) -> Sight<Peer> {
    let failed = |error: io::Error| Unseen::of("its peer", &error);
    let links = netlink::links().map_err(failed)?;
    let link = links.iter().find(|link| link.header.index == index);
    let gone = || Unseen::Failed("its peer is gone".to_owned());
    let link = link.ok_or_else(gone)?;
    let name = netlink::link_name(link).ok_or_else(gone)?.to_owned();
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    let offloads = ethtool::offloads(&name).map_err(failed)?;
    Ok(Peer { name, mtu: mtu.unwrap_or(0), prefix, offloads })
}
