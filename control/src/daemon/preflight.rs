//! What must hold before anything is touched: privilege, kernel, ports.
//!
//! Every refusal names what is missing and, where it is known, what to do.

use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use dataplane::fib::Mode;
use dataplane::packet::MAX_PORTS;
use dataplane::port::afxdp::{LinkInfo, OnFailure, Pins};
use dataplane::port::management::List;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{CapabilitySet, capabilities};
use thiserror::Error;

use super::Config;
use crate::net::{Link, View};

/// Oldest kernel that has everything used: `bpf_link` for XDP, need-wakeup and
/// shared UMEM came earlier, multi-buffer AF_XDP here.
pub const MIN_KERNEL: (u32, u32) = (6, 6);

/// Why the daemon cannot run here.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// Capabilities are missing.
    #[error("missing privilege: {}; run as root", missing.join(", "))]
    Privilege {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The kernel is too old.
    #[error(
        "kernel {found} is too old: {}.{} or later is needed", MIN_KERNEL.0, MIN_KERNEL.1
    )]
    Kernel {
        /// Its release.
        found: String,
    },
    /// The kernel was built without AF_XDP.
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS): {0}")]
    NoAfXdp(#[source] io::Error),
    /// No such interface.
    #[error("port {port} does not exist{}", known(existing))]
    NoPort {
        /// The port.
        port: String,
        /// What there is instead.
        existing: Vec<String>,
    },
    /// Not an Ethernet device.
    #[error("port {0} is not an Ethernet device")]
    NotEthernet(String),
    /// Part of a bridge, bond or VRF.
    #[error("port {port} belongs to {controller}; take it out first: ip link set {port} nomaster")]
    Enslaved {
        /// The port.
        port: String,
        /// Its controller.
        controller: String,
    },
    /// Given twice.
    #[error("port {0} is given twice")]
    Duplicate(String),
    /// More than the data plane has room for.
    #[error("{0} ports are given, {MAX_PORTS} are possible")]
    TooManyPorts(usize),
    /// The mode does not fit the ports.
    #[error("{0}")]
    Mode(&'static str),
    /// Another portcullis has it.
    #[error("port {port} is held by another portcullis{}", pid_text(*pid))]
    Held {
        /// The port.
        port: String,
        /// That process.
        pid: Option<i32>,
    },
    /// Somebody else's XDP program is attached.
    #[error(
        "port {port} already has XDP program {program} attached, and not by a running portcullis; \
         `bpftool prog show id {program}` says what it is"
    )]
    ForeignProgram {
        /// The port.
        port: String,
        /// The program's id.
        program: u32,
    },
    /// A dead daemon has left a port closed that is not to be a port.
    #[error(
        "port {port} is kept closed by a portcullis that runs no more, and is not among the \
         ports: add it, or open it with `portcullis release {port}`"
    )]
    PinnedElsewhere {
        /// The port.
        port: String,
    },
    /// The hold on a port cannot be taken.
    #[error("port {port}: {source}")]
    Hold {
        /// The port.
        port: String,
        /// Why.
        source: io::Error,
    },
}

fn known(existing: &[String]) -> String {
    match existing {
        [] => String::new(),
        names => format!("; there is {}", names.join(", ")),
    }
}

fn pid_text(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// Privilege and kernel.
pub fn machine() -> Result<(), PreflightError> {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let missing = missing_capabilities(held);
    if !missing.is_empty() {
        return Err(PreflightError::Privilege { missing });
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if kernel_version(&release).is_none_or(|version| version < MIN_KERNEL) {
        return Err(PreflightError::Kernel { found: release });
    }
    match socket(AddressFamily::XDP, SocketType::RAW, None) {
        Ok(_) => Ok(()),
        Err(error) => Err(PreflightError::NoAfXdp(error.into())),
    }
}

/// CAP_SYS_ADMIN stands in for CAP_BPF and CAP_PERFMON, as the kernel has it.
pub fn missing_capabilities(held: CapabilitySet) -> Vec<&'static str> {
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    [
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN, false),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW, false),
        ("CAP_BPF", CapabilitySet::BPF, admin),
        ("CAP_PERFMON", CapabilitySet::PERFMON, admin),
    ]
    .into_iter()
    .filter(|(_, capability, excused)| !excused && !held.contains(*capability))
    .map(|(name, ..)| name)
    .collect()
}

/// `6.18.4-rc1+` is `(6, 18)`.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The ports as the kernel has them, in the order given.
pub fn ports<'v>(view: &'v View, names: &[String]) -> Result<Vec<&'v Link>, PreflightError> {
    if names.len() > MAX_PORTS {
        return Err(PreflightError::TooManyPorts(names.len()));
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(PreflightError::Duplicate(name.clone()));
        }
    }
    names.iter().map(|name| port(view, name)).collect()
}

fn port<'v>(view: &'v View, name: &str) -> Result<&'v Link, PreflightError> {
    let port = name.to_owned();
    let Some(link) = view.link_by_name(name) else {
        let existing = view.ethernet_names();
        return Err(PreflightError::NoPort { port, existing });
    };
    if !link.ethernet {
        return Err(PreflightError::NotEthernet(port));
    }
    if let Some(index) = link.controller {
        let controller = view.link_by_index(index).map_or("another device", |link| &link.name);
        return Err(PreflightError::Enslaved { port, controller: controller.to_owned() });
    }
    Ok(link)
}

/// Whether the mode can work with that many ports.
pub fn mode(mode: &Mode, ports: usize) -> Result<(), PreflightError> {
    match mode {
        Mode::Routed | Mode::Host => Ok(()),
        Mode::Bridge(pairs) if pairs.is_empty() => {
            Err(PreflightError::Mode("bridge mode needs at least one pair of ports"))
        }
        Mode::Bridge(pairs) => {
            let mut seen: Vec<_> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
            let before = seen.len();
            seen.sort_unstable();
            seen.dedup();
            match () {
                () if seen.len() < before => {
                    Err(PreflightError::Mode("a port may be in one bridge pair only"))
                }
                () if seen.len() < ports => {
                    Err(PreflightError::Mode("every port must be in a bridge pair: --bridge A,B"))
                }
                () => Ok(()),
            }
        }
    }
}

/// What the operator should know of the moment when the kernel takes over.
pub fn takeover_notes(config: &Config) -> Vec<String> {
    if config.mode != Mode::Routed || config.failure.on_failure == OnFailure::Closed {
        return Vec::new();
    }
    let off = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "0");
    [("IPv4", "net/ipv4/ip_forward"), ("IPv6", "net/ipv6/conf/all/forwarding")]
        .into_iter()
        .filter(|(_, file)| off(&format!("/proc/sys/{file}")))
        .map(|(family, file)| {
            let name = file.replace('/', ".");
            format!("{name} is 0: when portcullis ends, no {family} is forwarded until it is back")
        })
        .collect()
}

/// What there is to say when this machine's own packets stay with the kernel.
pub fn host_note(config: &Config, host_road: bool) -> Option<String> {
    if host_road || matches!(config.mode, Mode::Bridge(_)) {
        return None;
    }
    let note = "the host road is off: packets from and to this machine's own addresses stay with \
                the kernel, INPUT and OUTPUT are not enforced, and replies to NAT with those \
                addresses do not come back";
    Some(note.to_owned())
}

/// What is odd about the management list.
pub fn management_notes(config: &Config) -> Vec<String> {
    let written = &config.configured.settings.management.value.0;
    List::remarks(written).iter().map(ToString::to_string).collect()
}

/// What a bridge cannot see: tags that a port takes off before we get the frame.
pub fn bridge_note(mode: &Mode, link: &LinkInfo) -> Option<String> {
    let name = &link.name;
    (matches!(mode, Mode::Bridge(_)) && link.strips_vlan_tags).then(|| {
        format!(
            "port {name} strips VLAN tags in hardware: tagged frames are judged, and cross, \
             untagged; ethtool -K {name} rxvlan off"
        )
    })
}

/// Holds on ports: abstract Unix sockets, which belong to the network namespace
/// as ports do, vanish with the process however it ends, and know its id.
#[derive(Debug)]
pub struct Holds {
    sockets: Vec<UnixListener>,
}

impl Holds {
    /// The hold on each port, to be let go of one by one.
    pub fn into_sockets(self) -> Vec<UnixListener> {
        self.sockets
    }
}

/// Takes every port for this process, or none. What `pins` hold is our own program.
pub fn hold(links: &[&Link], pins: &Pins) -> Result<Holds, PreflightError> {
    let mut sockets = Vec::with_capacity(links.len());
    for link in links {
        sockets.push(hold_one(&link.name, link.index)?);
        if let Some(program) = link.xdp.filter(|program| !pins.holds(link.index, *program)) {
            return Err(PreflightError::ForeignProgram { port: link.name.clone(), program });
        }
    }
    Ok(Holds { sockets })
}

/// Takes the device of index `index`, which `port` is, for this process.
pub fn hold_one(port: &str, index: u32) -> Result<UnixListener, PreflightError> {
    let fail = |source| PreflightError::Hold { port: port.to_owned(), source };
    let address = address_of(index).map_err(fail)?;
    match UnixListener::bind_addr(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let pid = holder(&address);
            Err(PreflightError::Held { port: port.to_owned(), pid })
        }
        bound => bound.map_err(fail),
    }
}

fn address_of(ifindex: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("portcullis-port-{ifindex}"))
}

/// Whether a running daemon has a device.
pub fn is_held(ifindex: u32) -> bool {
    let taken = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
    address_of(ifindex).and_then(|it| UnixListener::bind_addr(&it)).err().is_some_and(taken)
}

fn holder(address: &SocketAddr) -> Option<i32> {
    let stream = UnixStream::connect_addr(address).ok()?;
    Some(socket_peercred(stream.as_fd()).ok()?.pid.as_raw_pid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::packet::PortId;

    #[test]
    fn kernel_releases_are_read_as_they_are_written() {
        assert_eq!(kernel_version("6.18.44-fc-v769"), Some((6, 18)));
        assert_eq!(kernel_version("5.10.0-8-amd64"), Some((5, 10)));
        assert_eq!(kernel_version("7.0-rc1"), Some((7, 0)));
        assert_eq!(kernel_version("next"), None);
        assert!(kernel_version("6.5.13").unwrap() < MIN_KERNEL);
        assert!(kernel_version("6.10.1").unwrap() > MIN_KERNEL);
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(
            missing_capabilities(CapabilitySet::empty()),
            ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"]
        );
        let network = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
        assert_eq!(missing_capabilities(network), ["CAP_BPF", "CAP_PERFMON"]);
        assert!(missing_capabilities(network | CapabilitySet::SYS_ADMIN).is_empty());
    }

    #[test]
    fn bridge_pairs_must_cover_every_port_once() {
        let pair = |a, b| (PortId(a), PortId(b));
        assert!(mode(&Mode::Bridge(vec![pair(0, 1)]), 2).is_ok());
        assert!(mode(&Mode::Bridge(vec![pair(0, 1)]), 3).is_err());
        assert!(mode(&Mode::Bridge(vec![pair(0, 1), pair(1, 2)]), 3).is_err());
        assert!(mode(&Mode::Bridge(vec![pair(0, 0)]), 1).is_err());
        assert!(mode(&Mode::Bridge(Vec::new()), 0).is_err());
        assert!(mode(&Mode::Host, 2).is_ok());
    }
}
