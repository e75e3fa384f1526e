//! AF_XDP: real network devices as ports.
//!
//! [`open`] loads the XDP program, attaches it to every device, and gives each
//! worker a pool registered with all its sockets: worker *i* owns queue *i* of
//! every port. A device must therefore have exactly as many queues as there are
//! workers; a queue without a socket would lose its flows, a worker without a
//! queue could not send on that port.
//!
//! Limits: one frame, one chunk (no `XDP_USE_SG`). A device that strips VLAN tags
//! hides them from us ([`LinkInfo::strips_vlan_tags`]), in either attach mode.
//!
//! Life cycle: while the program is attached and a socket is not yet bound, or
//! bound no more, what is configured for failure applies. Dropping
//! [`Program`] detaches it first; a process that dies does the same.

mod beat;
mod error;
pub mod ethtool;
mod floor;
mod ledger;
mod link;
mod links;
mod opener;
mod pins;
mod port;
mod program;
mod ring;
mod socket;
mod sys;
#[cfg(test)]
pub(crate) mod tests;
mod umem;

use std::net::Ipv4Addr;

pub use beat::Beat;
pub use error::AfxdpError;
pub use floor::Floor;
pub use link::LinkInfo;
pub use opener::PortOpener;
pub use pins::{PinError, PinKind, Pinned, Pins};
pub use port::AfxdpPort;
pub use program::blocklist;
pub use program::{
    Blocklist, BlocklistSize, BpfError, OnFailure, Program, ProgramConfig, ProgramCounters,
};
pub use ring::RingLayoutError;
pub use socket::{BoundSocket, Closed, Closing, Observer};

use super::host::{HostChoice, HostQueue};
use super::management::List;
use super::{CHUNK, MAX_FRAME, Pool};
use crate::clock::{Nanos, monotonic};
use crate::packet::{MAX_PORTS, PortId};
use ledger::Ledger;
use umem::{Place, Umem};

/// Bytes of Ethernet header and two VLAN tags on top of the layer 3 MTU.
const LINK_OVERHEAD: u32 = 14 + 8;
/// The largest MTU whose frames fit a chunk, in bytes.
pub const MAX_MTU: u32 = MAX_FRAME as u32 - LINK_OVERHEAD;
/// The largest MTU of a veth's peer with which its driver takes the program.
pub const MAX_VETH_PEER_MTU: u32 = 3506;

/// How the program may be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachChoice {
    /// By the driver, else by the network stack.
    #[default]
    Auto,
    /// By the driver only.
    Native,
    /// By the network stack only.
    Generic,
}

/// How frames may be received and sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// Zero-copy, else copy; per port.
    #[default]
    Auto,
    /// Copy only.
    Copy,
    /// Zero-copy only.
    ZeroCopy,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct Config {
    /// Device names; positions become [`PortId`]s.
    pub devices: Vec<String>,
    /// Workers, each with one queue of every device.
    pub workers: usize,
    /// Entries in each ring: a power of two.
    pub ring_size: u32,
    /// Whether to try huge pages for frames.
    pub huge_pages: bool,
    /// How the program may be attached.
    pub attach: AttachChoice,
    /// How frames may be received and sent.
    pub copy: CopyMode,
    /// Routed mode; else bridge mode.
    pub routed: bool,
    /// What happens to frames while the daemon is away.
    pub on_failure: OnFailure,
    /// A worker that has not turned for longer is away; zero: it is never asked.
    pub beat_limit: Nanos,
    /// Who reaches which service of this machine whatever the policy says.
    pub management: List,
    /// What [`Program::set_broadcasts`] is given before the first attachment.
    pub broadcasts: Vec<Ipv4Addr>,
    /// Room for blocked sources; `None` switches the blocklist off. Without memory for it,
    /// it is off too: see [`Program::take_blocklist`].
    pub blocklist: Option<BlocklistSize>,
    /// Whether this machine's own packets take the host road through the engine,
    /// Not in bridge mode.
    pub host: HostChoice,
    /// Whether somebody asks whose packets of this machine are: opening fails if nobody
    /// can tell.
    pub needs_owners: bool,
}

impl Config {
    /// Routed mode with what is best on each device, open on failure.
    pub fn new(devices: impl IntoIterator<Item = String>, workers: usize) -> Self {
        Self {
            devices: devices.into_iter().collect(),
            workers,
            ring_size: 2048,
            huge_pages: true,
            attach: AttachChoice::Auto,
            copy: CopyMode::Auto,
            routed: true,
            on_failure: OnFailure::Open,
            beat_limit: Nanos(0),
            management: List::default(),
            broadcasts: Vec::new(),
            blocklist: None,
            host: HostChoice::Off,
            needs_owners: false,
        }
    }
    /// Frames that one worker's pool needs: every fill and transmit ring full,
    /// and bursts, waiting frames and replies in hand beside them.
    fn chunks(&self) -> usize {
        let rings = self.devices.len() * 2 * self.ring_size as usize;
        // A whole number of huge pages.
        (rings + super::host::frames(self.devices.len()) + 1024).next_multiple_of(512)
    }
    /// Bytes of frame memory that one worker's pool takes.
    pub fn pool_bytes(&self) -> u64 {
        self.chunks() as u64 * CHUNK as u64
    }
}

/// One worker's share: a pool and one port object for every device, by [`PortId`].
#[derive(Debug)]
pub struct WorkerPorts {
    /// Frames of this worker.
    pub pool: Pool,
    /// One queue of every device.
    pub ports: Vec<AfxdpPort>,
    /// Its end of the host road, if there is one.
    pub host: Option<HostQueue>,
    /// Where it says that it turns.
    pub beat: Beat,
}

/// Everything opened.
#[derive(Debug)]
pub struct Opened {
    /// The attached program; keep it as long as frames shall flow.
    pub program: Program,
    /// Each worker's share.
    pub workers: Vec<WorkerPorts>,
    /// The devices as they were when opened.
    pub links: Vec<LinkInfo>,
    /// Whether there is a host road.
    pub host_road: bool,
    /// What opens ports anew when devices come back; in bridge mode, what makes the
    /// devices take every frame: keep it likewise.
    pub opener: PortOpener,
}

/// Loads and attaches the program, makes the pools, and binds every queue.
/// `local` is what [`Program::set_local`] is given before the first attachment.
/// Frames flow to the sockets when this returns.
///
/// # Errors
/// [`AfxdpError`]; nothing stays attached then.
pub fn open(
    config: &Config,
    local: impl IntoIterator<Item = (std::net::IpAddr, u8)>,
) -> Result<Opened, AfxdpError> {
    open_pinned(config, local, None)
}

/// The same with links that outlive the process: those that an earlier one left in `pins`
/// are adopted, their programs in force until everything else is ready, and when closed
/// new ones are pinned there. [`Program::settle`] is to follow.
///
/// # Errors
/// [`AfxdpError`]; what was adopted stays attached then, and nothing else.
pub fn open_pinned(
    config: &Config,
    local: impl IntoIterator<Item = (std::net::IpAddr, u8)>,
    pins: Option<Pins>,
) -> Result<Opened, AfxdpError> {
    let local: Vec<_> = local.into_iter().collect();
    let links = inspect(config)?;
    let has_host = config.routed && config.host != HostChoice::Off;
    let mut wanted = ProgramConfig {
        routed: config.routed,
        host: has_host,
        on_failure: config.on_failure,
        beat_limit: config.beat_limit,
        queues: config.workers as u32,
        blocklist: config.blocklist,
    };
    let mut program = match Program::load(wanted) {
        // There may be no memory for it.
        Err(_) if wanted.blocklist.take().is_some() => Program::load(wanted),
        loaded => loaded,
    }?;
    if let Some(why) = program.owners_untold().filter(|_| config.needs_owners) {
        return Err(AfxdpError::OwnersUntold { why: why.to_owned() });
    }
    program.set_local(local.iter().copied())?;
    program.set_broadcasts(config.broadcasts.iter().copied())?;
    program.set_management(&config.management)?;
    if let Some(pins) = pins {
        program.keep_links(pins);
    }
    let mut modes = Vec::with_capacity(links.len());
    for (index, link) in links.iter().enumerate() {
        modes.push(program.attach(PortId(index as u8), link, config.attach)?);
    }
    let mut workers = Vec::with_capacity(config.workers);
    let mut umems = Vec::with_capacity(config.workers);
    for queue in 0..config.workers as u32 {
        let mut pool = Pool::new(config.chunks(), config.huge_pages)?;
        let mut umem = Umem::new(pool.memory().area());
        let mut ports = Vec::with_capacity(links.len());
        for (link, attach) in links.iter().zip(&modes) {
            let place = Place { link, attach: *attach, queue, ring_size: config.ring_size };
            let mut ledger = Ledger::new(pool.total());
            let bound = umem.open(Some((&mut pool, &mut ledger)), place, config.copy)?;
            ports.push(AfxdpPort::new(&pool, bound, ledger));
        }
        umems.push(umem);
        // The first beat is struck here: the worker's own comes when it runs.
        let mut beat = program.beat(queue as usize);
        beat.strike(monotonic());
        workers.push(WorkerPorts { pool, ports, host: None, beat });
    }
    let mut opener = PortOpener::new(config.clone(), umems, has_host);
    for (index, link) in links.iter().enumerate() {
        opener.take_every_frame(PortId(index as u8), link)?;
    }
    if has_host {
        super::host::open_loopback()?;
        let queues = super::host::open(&mut program, &links, config.workers, config.host)?;
        for (worker, queue) in workers.iter_mut().zip(queues) {
            worker.host = Some(queue);
        }
    }
    // Last, so that no socket takes frames before all can send them on.
    for worker in &workers {
        for (index, port) in worker.ports.iter().enumerate() {
            let Some(socket) = port.socket() else { continue };
            program.set_socket(PortId(index as u8), socket.queue(), socket.fd())?;
        }
    }
    program.exchange()?;
    Ok(Opened { program, workers, links, host_road: has_host, opener })
}

/// Looks at every device before anything is changed.
fn inspect(config: &Config) -> Result<Vec<LinkInfo>, AfxdpError> {
    let count = config.devices.len();
    if !(1..=MAX_PORTS).contains(&count) {
        return Err(AfxdpError::PortCount { count });
    }
    if !config.ring_size.is_power_of_two() || !(64..=65_536).contains(&config.ring_size) {
        return Err(AfxdpError::RingSize { size: config.ring_size });
    }
    let mut links: Vec<LinkInfo> = Vec::with_capacity(count);
    for device in &config.devices {
        let link = LinkInfo::of(device)
            .map_err(|source| AfxdpError::NoDevice { device: device.clone(), source })?;
        if links.iter().any(|other| other.ifindex == link.ifindex) {
            return Err(AfxdpError::Twice { device: device.clone() });
        }
        opener::fit(&link, config.workers)?;
        links.push(link);
    }
    Ok(links)
}
