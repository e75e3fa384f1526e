//! Settings and places of the system that decide what happens around the engine.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dataplane::fib::Mode;
use rustix::fs::{Access, access, statvfs};

use super::kernel::number;
use super::{Code, Command, Finding, Sight, Unseen, Wanted, netlink, rules};
use crate::daemon::sandbox::numbers_of;

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// `net.ipv4.ip_forward`.
    pub(super) forwarding4: Sight<u64>,
    /// `net.ipv6.conf.all.forwarding`.
    pub(super) forwarding6: Sight<u64>,
    /// Whether an IPv6 default route was learned from a router: forwarding would lose it.
    pub(super) learned_route: bool,
    /// Ethernet devices that are up, and no port.
    pub(super) others: Vec<String>,
    /// By port: `rp_filter` in force, the higher of the port's and `all`.
    pub(super) reverse_path: Vec<(String, u64)>,
    pub(super) rules: rules::Seen,
    pub(super) state: Option<(PathBuf, Sight<Place>)>,
    pub(super) log: Option<(PathBuf, Sight<Place>)>,
}

/// A directory, or the nearest one above it that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) writable: bool,
    /// Bytes free for this user.
    pub(super) free: u64,
}

/// Looks.
pub(super) fn observe(wanted: &Wanted) -> Seen {
    let all = number("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or(0);
    let reverse_path = wanted.ports.iter().filter_map(|port| {
        let own = number(&format!("/proc/sys/net/ipv4/conf/{port}/rp_filter")).ok()?;
        Some((port.clone(), own.max(all)))
    });
    // A user that does not exist is told of elsewhere.
    let user = wanted.user.as_deref().and_then(|user| numbers_of(user).ok());
    let directory = |file: &PathBuf| {
        let directory = file.parent().unwrap_or(Path::new("/")).to_path_buf();
        // A file that is there is appended to, or replaced in its directory.
        let place = place(&directory, user.as_ref());
        (directory, place)
    };
    Seen {
        forwarding4: number("/proc/sys/net/ipv4/ip_forward"),
        forwarding6: number("/proc/sys/net/ipv6/conf/all/forwarding"),
        learned_route: learned_route(),
        others: others(&wanted.ports),
        reverse_path: reverse_path.collect(),
        rules: rules::observe(),
        state: wanted.state.as_ref().map(directory),
        log: wanted.log.as_ref().map(directory),
    }
}

fn place(directory: &Path, user: Option<&(u32, Vec<u32>)>) -> Sight<Place> {
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let info = statvfs(existing).map_err(|error| Unseen::of(existing.display(), &error.into()))?;
    let mut writable = access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    // What is missing is made by root, and given to the user.
    if let Some((uid, groups)) = user.filter(|(uid, _)| *uid != 0 && existing == directory) {
        let of = std::fs::metadata(existing);
        writable &= of.is_ok_and(|of| is_writable(of.uid(), of.gid(), of.mode(), *uid, groups));
    }
    Ok(Place { writable, free: info.f_bavail.saturating_mul(info.f_frsize) })
}

/// Whether a user may make files in a directory, by its owner, group and mode.
pub(super) fn is_writable(owner: u32, group: u32, mode: u32, uid: u32, groups: &[u32]) -> bool {
    const WRITE_AND_ENTER: u32 = 0o3;
    let shift = match () {
        () if owner == uid => 6,
        () if groups.contains(&group) => 3,
        () => 0,
    };
    mode >> shift & WRITE_AND_ENTER == WRITE_AND_ENTER
}

/// Whether a default route in `/proc/net/ipv6_route` came from a router's advertisement.
fn learned_route() -> bool {
    const RTF_DEFAULT: u32 = 0x1_0000;
    let text = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    text.lines().any(|line| {
        let flags = line.split_whitespace().nth(8);
        let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & RTF_DEFAULT != 0)
    })
}

fn others(ports: &[String]) -> Vec<String> {
    use netlink_packet_route::link::{LinkFlags, LinkLayerType};
    let links = netlink::links().unwrap_or_default();
    let up = links.iter().filter(|link| {
        link.header.link_layer_type == LinkLayerType::Ether
            && link.header.flags.contains(LinkFlags::Up)
    });
    // The host road's TAPs are ours.
    up.filter_map(netlink::link_name)
        .filter(|name| !ports.iter().any(|port| port == name) && !name.starts_with("portc"))
        .map(str::to_owned)
        .collect()
}

/// What it means.
pub(super) fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    if wanted.mode == Mode::Routed {
        findings.push(forwarding(wanted, seen, Code::Forwarding4));
        findings.push(forwarding(wanted, seen, Code::Forwarding6));
    }
    findings.extend(reverse_path(wanted, seen));
    findings.extend(rules::judge(wanted, &seen.rules));
    let kept = [(Code::StateDirectory, &seen.state), (Code::LogDirectory, &seen.log)];
    findings.extend(kept.into_iter().filter_map(|(code, seen)| directory(code, seen.as_ref()?)));
    findings
}

fn forwarding(wanted: &Wanted, seen: &Seen, code: Code) -> Finding {
    let (value, name) = match code {
        Code::Forwarding4 => (&seen.forwarding4, "net.ipv4.ip_forward"),
        _ => (&seen.forwarding6, "net.ipv6.conf.all.forwarding"),
    };
    let value = match value {
        Ok(value) => *value,
        Err(why) => return Finding::unseen(code, name, why),
    };
    let right = u64::from(!wanted.closed);
    let failure = if wanted.closed { "closed" } else { "open" };
    if value.min(1) == right {
        return Finding::ok(code, name, format!("is {value}, as on-failure {failure} wants it"));
    }
    let set = Command::new("sysctl -w").arg(format!("{name}={right}"));
    let found = format!("is {value}, and on-failure {failure} wants {right}");
    let finding = Finding::warning(code, name, found);
    match () {
        // Other devices may need it.
        () if wanted.closed && !seen.others.is_empty() => finding.mend(set).advise(format!(
            "not done by --fix: {} may be forwarded for, too",
            seen.others.join(", ")
        )),
        () if !wanted.closed && code == Code::Forwarding6 && seen.learned_route => {
            finding.mend(set).advise(
                "not done by --fix: it ends the default route that a router advertised, unless \
                 accept_ra is 2 on that device",
            )
        }
        () => finding.fix(set),
    }
}

fn reverse_path(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    const STRICT: u64 = 1;
    if !wanted.host_road {
        return Vec::new();
    }
    let strict = seen.reverse_path.iter().filter(|(_, value)| *value == STRICT);
    let findings = strict.map(|(port, _)| {
        let found = "rp_filter is strict: the kernel drops what it would not answer on this port";
        let loosen = format!("net.ipv4.conf.{}.rp_filter=2", port.replace('.', "/"));
        Finding::note(Code::ReversePath, port, found)
            .mend(Command::new("sysctl -w").arg(loosen))
            .advise("only where routes differ by direction")
    });
    findings.collect()
}

fn directory(code: Code, (directory, place): &(PathBuf, Sight<Place>)) -> Option<Finding> {
    /// A connection takes less than 300 bytes in the state file.
    const LITTLE: u64 = 256 << 20;
    let subject = directory.to_string_lossy();
    let place = match place {
        Ok(place) => place,
        Err(why) => return Some(Finding::unseen(code, subject, why)),
    };
    let free = place.free >> 20;
    Some(match place {
        // Root writes anywhere but on a file system that is read-only.
        Place { writable: false, .. } if !rustix::process::geteuid().is_root() => {
            let found = "cannot be written by this user";
            Finding::note(code, subject, found).advise("run doctor as the daemon's user")
        }
        Place { writable: false, .. } => Finding::error(code, subject, "cannot be written")
            .advise("it must be the daemon's user's, and not mounted read-only"),
        Place { free: 0, .. } => Finding::error(code, subject, "the disk is full"),
        Place { free: bytes, .. } if *bytes < LITTLE => {
            Finding::warning(code, subject, format!("only {free} MiB are free"))
        }
        Place { .. } => Finding::ok(code, subject, format!("can be written, {free} MiB free")),
    })
}
