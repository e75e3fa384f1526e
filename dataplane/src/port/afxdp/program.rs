//! The BPF programs: loading them, their maps, and their attachment to devices.
//!
//! One loaded instance serves all ports and their maps are shared, so a
//! change of local addresses is written once. Attachment is by
//! `bpf_link` only: it ends with this process, whatever ends it, unless the link is
//! pinned (`keeping.rs`). `host.rs` attaches the programs of the host road,
//! `management.rs` writes the management list, `blocklist.rs` the sources to drop.

pub mod blocklist;
mod host;
mod keeping;
mod management;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, XskMap};
use aya::programs::{ProgramError, Xdp};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};

pub use blocklist::{Blocklist, BlocklistSize};
use management::ManagementMaps;

use super::beat::{Beat, Beats};
use super::pins::PinKind;
use super::{AfxdpError, AttachChoice, LinkInfo, sys};
use crate::clock::Nanos;
use crate::packet::{MAX_PORTS, PortId};
use crate::port::AttachMode;
use crate::port::host::{Looped, OwnerMap};

/// The built program; `scripts/build-bpf` makes it from its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/portcullis.bpf.o");

/// Counters per port in the program.
const CAUSES: u32 = 8;

/// Why the program cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BpfError {
    /// The kernel or the library refused the object.
    #[error("the XDP program cannot be loaded: {0}")]
    Load(#[from] EbpfError),
    /// The kernel's verifier refused the program.
    #[error("the XDP program is refused: {0}")]
    Verify(#[from] ProgramError),
    /// A map could not be read or written.
    #[error("a map of the XDP program: {0}")]
    Map(#[from] MapError),
    /// The object lacks a part that this code expects.
    #[error("the XDP program has no {0}: it is of another version")]
    Missing(&'static str),
    /// More than the map was made for.
    #[error("the map {0} of the XDP program is full")]
    Full(&'static str),
    /// The beats, or the answers on loopback, cannot be mapped.
    #[error("an array of the programs cannot be mapped: {0}")]
    Beats(#[source] io::Error),
    /// There are no random numbers.
    #[error("random numbers: {0}")]
    Random(#[source] io::Error),
}

/// What happens to what the engine would decide while the daemon is away: no socket takes
/// it, or the worker does not turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The kernel carries on by itself.
    #[default]
    Open,
    /// It is dropped.
    Closed,
}

/// What is fixed when the program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Leaves to the kernel what a router's own stack needs; else (bridge mode)
    /// every frame goes to the sockets.
    pub routed: bool,
    /// Whether packets to the machine's own addresses go to the sockets too.
    pub host: bool,
    /// What holds while the daemon is away.
    pub on_failure: OnFailure,
    /// A worker that has not turned for longer is away; zero: it is never asked.
    pub beat_limit: Nanos,
    /// Queues that a port can have at most.
    pub queues: u32,
    /// Room for blocked sources; without any, none is looked up.
    pub blocklist: Option<BlocklistSize>,
}

/// Frames of one port by what the program did with them, since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCounters {
    /// Redirected to a socket. Those whose ring is full are counted by the socket.
    pub redirected: u64,
    /// Left to the kernel: not plain IPv4 or IPv6.
    pub passed_link: u64,
    /// Left to the kernel: to an address of this machine.
    pub passed_local: u64,
    /// Left to the kernel: broadcast, multicast, neighbour discovery.
    pub passed_group: u64,
    /// Dropped for a rule: the source is on its blocklist.
    pub blocked: u64,
    /// No socket was bound, or its worker had not begun: passed or dropped as configured.
    pub no_socket: u64,
    /// Left to the kernel: management traffic.
    pub passed_management: u64,
    /// The worker had stopped turning: passed or dropped as configured.
    pub silent: u64,
}

/// The loaded program. Dropping it detaches it from every device whose link is not pinned.
pub struct Program {
    // Before the programs that they hold in place.
    links: Vec<(u32, OwnedFd)>,
    host_links: Vec<(u32, OwnedFd)>,
    keeping: Option<keeping::Keeping>,
    /// The device that each port is attached to.
    devices: BTreeMap<PortId, u32>,
    joined: Vec<host::Joined>,
    ebpf: Ebpf,
    taps: HashMap<MapData, u32, u32>,
    tap_ports: HashMap<MapData, u32, u64>,
    ports: HashMap<MapData, u32, u32>,
    sockets: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    local: Addresses,
    blocklist: Option<Blocklist>,
    management: ManagementMaps,
    current_local: BTreeSet<(IpAddr, u8)>,
    beats: Beats,
    looped: Looped,
    owners: OwnerMap,
    egress: host::Egress,
    config: ProgramConfig,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Program").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Program {
    /// Loads the program for up to [`MAX_PORTS`] ports.
    ///
    /// # Errors
    /// [`BpfError`] when the kernel refuses it.
    pub fn load(config: ProgramConfig) -> Result<Self, BpfError> {
        let (mut ebpf, untold) = match Btf::from_sys_fs() {
            Ok(kernel) => match prepare(config, Some(&kernel)) {
                Ok(ebpf) => (ebpf, None),
                // It may lack what only the host road asks for.
                Err(error) => (prepare(config, None)?, Some(host::reason(&error))),
            },
            Err(error) => (prepare(config, None)?, Some(host::reason(&error))),
        };
        program(&mut ebpf)?.load()?;
        let egress = host::Egress::choose(&mut ebpf, config.host, untold)?;
        let local = Addresses::take(&mut ebpf, ["local4", "local6", "local4_net", "local6_net"])?;
        let blocklist =
            config.blocklist.map(|size| Blocklist::take(&mut ebpf, size)).transpose()?;
        // It stays where it is: the tcx programs, loaded later, refer to it.
        let [Some(Map::Array(beats)), Some(Map::Array(looped))] =
            ["beats", "looped"].map(|name| ebpf.map(name))
        else {
            return Err(BpfError::Missing("arrays to be mapped"));
        };
        let beats = Beats::map(beats.fd(), config.beat_limit).map_err(BpfError::Beats)?;
        let looped = Looped::map(looped.fd()).map_err(BpfError::Beats)?;
        Ok(Self {
            beats,
            looped,
            owners: Arc::new(take(&mut ebpf, "owners")?.try_into()?),
            egress,
            links: Vec::new(),
            host_links: Vec::new(),
            keeping: None,
            devices: BTreeMap::new(),
            joined: Vec::new(),
            taps: take(&mut ebpf, "taps")?.try_into()?,
            tap_ports: take(&mut ebpf, "tap_ports")?.try_into()?,
            ports: take(&mut ebpf, "ports")?.try_into()?,
            sockets: take(&mut ebpf, "sockets")?.try_into()?,
            counters: take(&mut ebpf, "counters")?.try_into()?,
            local,
            blocklist,
            management: ManagementMaps::take(&mut ebpf)?,
            ebpf,
            current_local: BTreeSet::new(),
            config,
        })
    }

    /// Attaches the program to a device as port `port`; returns how the kernel
    /// says it is attached.
    ///
    /// # Errors
    /// [`AfxdpError`]: another program is there, the mode is not possible, or
    /// a privilege is missing.
    pub fn attach(
        &mut self,
        port: PortId,
        link: &LinkInfo,
        choice: AttachChoice,
    ) -> Result<AttachMode, AfxdpError> {
        // The link may be there and hold nothing: detached by hand, or of a device that was
        // deleted and had the same index.
        if self.is_attached(port, link)
            && let Some(mode) = link.attached
        {
            return Ok(mode);
        }
        self.detach(port);
        // Known before the first frame is.
        self.ports.insert(link.ifindex, u32::from(port.0), 0).map_err(BpfError::from)?;
        self.devices.insert(port, link.ifindex);
        if let Some(mode) = self.adopt_xdp(link, choice)? {
            return Ok(mode);
        }
        let program = program(&mut self.ebpf)?.fd().map_err(BpfError::from)?.as_fd();
        let fd = attach(program, link, choice)?;
        self.keep(PinKind::Xdp, link.ifindex, fd.as_fd())?;
        self.links.push((link.ifindex, fd));
        // Asked, not assumed; by name, as the index is not enough for the library.
        let now = LinkInfo::of(&link.name)
            .map_err(|source| AfxdpError::NoDevice { device: link.name.clone(), source })?;
        now.attached.ok_or_else(|| AfxdpError::NotAttached { device: link.name.clone() })
    }

    /// Why packets of this machine's own are not told whose they are, if so.
    pub fn owners_untold(&self) -> Option<&str> {
        self.egress.untold.as_deref()
    }

    /// What the numbers of owners mean.
    pub(in crate::port) fn owners(&self) -> OwnerMap {
        Arc::clone(&self.owners)
    }

    /// Where workers say which answers they expect on loopback.
    pub(in crate::port) fn looped(&self) -> Looped {
        self.looped.clone()
    }

    /// Where worker `worker` says that it turns.
    pub(super) fn beat(&self, worker: usize) -> Beat {
        self.beats.of_worker(worker)
    }

    /// Lets frames of a port's queue go to a socket.
    pub(super) fn set_socket(
        &mut self,
        port: PortId,
        queue: u32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), BpfError> {
        use std::os::fd::AsRawFd;
        if queue >= self.config.queues {
            return Err(BpfError::Full("sockets"));
        }
        let index = u32::from(port.0) * self.config.queues + queue;
        Ok(self.sockets.set(index, socket.as_raw_fd(), 0)?)
    }

    /// Says which destinations stay with the kernel: its local and broadcast
    /// addresses and prefixes. What was there before and is not in `prefixes` goes.
    ///
    /// # Errors
    /// [`BpfError`] when a map is full; what fitted is in force.
    pub fn set_local(
        &mut self,
        prefixes: impl IntoIterator<Item = (IpAddr, u8)>,
    ) -> Result<(), BpfError> {
        let wanted: BTreeSet<_> = prefixes.into_iter().collect();
        for gone in self.current_local.difference(&wanted) {
            self.local.remove(*gone)?;
        }
        self.current_local.retain(|prefix| wanted.contains(prefix));
        for prefix in wanted {
            if !self.current_local.contains(&prefix) {
                self.local.insert(prefix)?;
                self.current_local.insert(prefix);
            }
        }
        Ok(())
    }

    /// Gives away the maps of the blocklist, once, if it was switched on.
    pub fn take_blocklist(&mut self) -> Option<Blocklist> {
        self.blocklist.take()
    }

    /// What the program did with the frames of a port, over all CPUs.
    ///
    /// # Errors
    /// [`BpfError`] when the map cannot be read.
    pub fn counters(&self, port: PortId) -> Result<ProgramCounters, BpfError> {
        let count = |cause: u32| -> Result<u64, BpfError> {
            let values = self.counters.get(&(u32::from(port.0) * CAUSES + cause), 0)?;
            Ok(values.iter().sum())
        };
        // The order of the list in xdp.h.
        Ok(ProgramCounters {
            redirected: count(0)?,
            passed_link: count(1)?,
            passed_local: count(2)?,
            passed_group: count(3)?,
            blocked: count(4)?,
            no_socket: count(5)?,
            passed_management: count(6)?,
            silent: count(7)?,
        })
    }
}

/// The object with its settings. `kernel`: how it describes itself, for what reads it.
fn prepare(config: ProgramConfig, kernel: Option<&Btf>) -> Result<Ebpf, BpfError> {
    let routed = u32::from(config.routed);
    let host = u32::from(config.host);
    let closed = u32::from(config.on_failure == OnFailure::Closed);
    let blocklist = u32::from(config.blocklist.is_some());
    let size = config.blocklist.unwrap_or_default();
    let passport = if config.host { passport()? } else { 0 };
    let ebpf = EbpfLoader::new()
        .btf(kernel)
        .override_global("ROUTED", &routed, true)
        .override_global("HOST", &host, true)
        .override_global("CLOSED", &closed, true)
        .override_global("PASSPORT", &passport, true)
        .override_global("BEAT_LIMIT", &config.beat_limit.0, true)
        .override_global("QUEUES", &config.queues, true)
        .override_global("BLOCKLIST", &blocklist, true)
        .map_max_entries("sockets", MAX_PORTS as u32 * config.queues)
        .map_max_entries("block4", size.hosts[0].max(1))
        .map_max_entries("block6", size.hosts[1].max(1))
        .map_max_entries("block4_net", size.nets.max(1))
        .map_max_entries("block6_net", size.nets.max(1))
        .load(OBJECT)?;
    Ok(ebpf)
}

/// A sender's address that nobody can guess, for frames that are delivered by way of a
/// generic program.
fn passport() -> Result<u64, BpfError> {
    const ADDRESS: u64 = (1 << 48) - 1;
    let number = getrandom::u64().map_err(|error| BpfError::Random(io::Error::other(error)))?;
    Ok((number & ADDRESS).max(1))
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, BpfError> {
    let program = ebpf.program_mut("portcullis").ok_or(BpfError::Missing("program"))?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing(name))
}

/// Creates the link in the chosen mode.
fn attach(
    program: BorrowedFd<'_>,
    link: &LinkInfo,
    choice: AttachChoice,
) -> Result<OwnedFd, AfxdpError> {
    let native = || sys::attach_link(program, link.ifindex, sys::XDP_FLAGS_DRV_MODE);
    let generic = || sys::attach_link(program, link.ifindex, sys::XDP_FLAGS_SKB_MODE);
    let result = match choice {
        AttachChoice::Native => native(),
        AttachChoice::Generic => generic(),
        AttachChoice::Auto => native().or_else(|error| match error.raw_os_error() {
            // These would stop the other mode too, or must be seen by the operator.
            Some(libc::EBUSY | libc::EPERM | libc::EACCES | libc::ENODEV) => Err(error),
            _ => generic(),
        }),
    };
    result.map_err(|source| attach_error(link, choice, source))
}

fn attach_error(link: &LinkInfo, choice: AttachChoice, source: io::Error) -> AfxdpError {
    let device = link.name.clone();
    match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => AfxdpError::ProgramBusy { device },
        Some(libc::ENODEV) => AfxdpError::NoDevice { device, source },
        _ => AfxdpError::Attach { device, choice, source },
    }
}

/// A set of addresses and prefixes of both families, in four maps.
#[derive(Debug)]
struct Addresses {
    names: [&'static str; 4],
    hosts4: HashMap<MapData, [u8; 4], u8>,
    hosts6: HashMap<MapData, [u8; 16], u8>,
    nets4: LpmTrie<MapData, [u8; 4], u8>,
    nets6: LpmTrie<MapData, [u8; 16], u8>,
}

impl Addresses {
    fn take(ebpf: &mut Ebpf, names: [&'static str; 4]) -> Result<Self, BpfError> {
        Ok(Self {
            names,
            hosts4: take(ebpf, names[0])?.try_into()?,
            hosts6: take(ebpf, names[1])?.try_into()?,
            nets4: take(ebpf, names[2])?.try_into()?,
            nets6: take(ebpf, names[3])?.try_into()?,
        })
    }
    fn insert(&mut self, prefix: (IpAddr, u8)) -> Result<(), BpfError> {
        let (name, result) = match prefix {
            (IpAddr::V4(a), 32) => (self.names[0], self.hosts4.insert(a.octets(), 1, 0)),
            (IpAddr::V6(a), 128) => (self.names[1], self.hosts6.insert(a.octets(), 1, 0)),
            (IpAddr::V4(a), len) => {
                let key = Key::new(u32::from(len), a.octets());
                (self.names[2], self.nets4.insert(&key, 1, 0))
            }
            (IpAddr::V6(a), len) => {
                let key = Key::new(u32::from(len), a.octets());
                (self.names[3], self.nets6.insert(&key, 1, 0))
            }
        };
        result.map_err(|error| if is_full(&error) { BpfError::Full(name) } else { error.into() })
    }
    fn remove(&mut self, prefix: (IpAddr, u8)) -> Result<(), BpfError> {
        let result = match prefix {
            (IpAddr::V4(a), 32) => self.hosts4.remove(&a.octets()),
            (IpAddr::V6(a), 128) => self.hosts6.remove(&a.octets()),
            (IpAddr::V4(a), len) => self.nets4.remove(&Key::new(u32::from(len), a.octets())),
            (IpAddr::V6(a), len) => self.nets6.remove(&Key::new(u32::from(len), a.octets())),
        };
        match result {
            Err(error) if !is_absent(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(call) => call.io_error.raw_os_error(),
        _ => None,
    }
}

/// Hash maps answer `E2BIG` when they are full, tries `ENOSPC`.
fn is_full(error: &MapError) -> bool {
    matches!(errno(error), Some(libc::E2BIG | libc::ENOSPC))
}

fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || errno(error) == Some(libc::ENOENT)
}
