//! The host road: this machine's own packets on their way through the engine.
//!
//! Every port has a TAP beside it, and loopback has one. A tcx program on the
//! port sends what the kernel puts out there (IP only) to the TAP, where a
//! worker reads it: that is OUTPUT. What INPUT accepts is written to the TAP,
//! where another tcx program lets it be received as if on the port, so that
//! sockets see it come in by the real interface.
//!
//! Frames move by io_uring (`uring.rs`), or where the kernel has none for us, by plain
//! reads and writes (`plain.rs`).
//!
//! Life cycle: programs are attached by `bpf_link` and TAPs are not persistent:
//! both are gone when the process is. Concurrency: a TAP has one queue for each
//! worker; nothing is shared. Limits: at most [`READS_MAX`] packets of this machine's a
//! turn, beside a burst of the ports', so that neither starves the other. What is delivered
//! on a link with a generic XDP program meets that program again, and is known there by the
//! sender that the tcx program writes (`is_delivered` in `xdp.h`).

mod looped;
mod owners;
mod plain;
mod sys;
mod tcx;
#[cfg(test)]
mod tests;
mod uring;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
pub(in crate::port) use looped::Looped;
pub(in crate::port) use owners::OwnerMap;
pub use tcx::{PROGRAMS, TcxProgram, tcx_programs};

use super::afxdp::{BpfError, LinkInfo, PinError, Program};
use super::pool::{FreeList, copy_in};
use super::{Burst, Frame, MAX_FRAME, Memory, Pool};
use crate::clock::Nanos;
use crate::effects::Answer;
use crate::engine::BURST;
use crate::packet::{MAX_PORTS, PortId};
use crate::policy::scene::Sender;
use owners::Owners;
use plain::Plain;
use uring::Ring;

/// Packets read from the kernel in one turn at most.
pub const READS_MAX: usize = 32;

/// Names that TAPs get; the kernel puts the number in.
const TAP_NAME: &str = "portc%d";

/// Whether there shall be a host road.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostChoice {
    /// The kernel keeps this machine's own packets: no INPUT, no OUTPUT.
    Off,
    /// By plain reads and writes.
    Plain,
    /// By io_uring where the kernel lets us.
    #[default]
    Auto,
}

/// How frames move on the host road that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostWay {
    /// There is none.
    Off = 0,
    /// By plain reads and writes.
    Plain,
    /// By io_uring.
    IoUring,
}

impl HostWay {
    /// Its name in what is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Plain => "plain",
            Self::IoUring => "io-uring",
        }
    }
    /// From its number, as workers publish it.
    pub fn from_number(number: u64) -> Self {
        [Self::Off, Self::Plain, Self::IoUring][number.min(2) as usize]
    }
}

/// Why there is no host road.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A TAP cannot be made.
    #[error("no TAP can be made for this machine's own packets ({call}): {source}")]
    Tap {
        /// What failed.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The tcx programs.
    #[error("the host road: {0}")]
    Bpf(#[from] BpfError),
    /// A link cannot be kept.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A tcx program cannot be attached.
    #[error("the host road cannot be attached to {device}: {source}")]
    Attach {
        /// The device.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Makes TAPs for `links` and loopback, and attaches the programs to them; returns
/// one queue for each of `workers`. From now on the kernel's own packets wait there.
///
/// # Errors
/// [`HostError`]; what was attached goes with `program`.
pub fn open(
    program: &mut Program,
    links: &[LinkInfo],
    workers: usize,
    choice: HostChoice,
) -> Result<Vec<HostQueue>, HostError> {
    let mut queues: Vec<Vec<File>> = (0..workers).map(|_| Vec::new()).collect();
    let loopback = LinkInfo::of("lo").map_err(tap_error("loopback"))?;
    for (link, own) in links.iter().map(|link| (link, true)).chain([(&loopback, false)]) {
        let mut name = TAP_NAME.to_owned();
        for queue in &mut queues {
            let (file, actual) = sys::open_tap(&name).map_err(tap_error("TUNSETIFF"))?;
            name = actual;
            queue.push(file);
        }
        // No addresses of its own, and nothing that the kernel would say there by itself.
        let quiet = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        match std::fs::write(quiet, "1") {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(HostError::Tap { call: "disable_ipv6", source });
            }
            _ => {}
        }
        sys::set_up(&name).map_err(tap_error("SIOCSIFFLAGS"))?;
        let tap = LinkInfo::of(&name).map_err(tap_error("asking for it"))?;
        program.join(link, &tap, own)?;
    }
    let (looped, owners) = (program.looped(), program.owners());
    let queue =
        |taps| HostQueue::new(taps, choice).map(|it| it.with_maps(looped.clone(), owners.clone()));
    let queues = queues.into_iter().map(queue);
    queues.collect::<io::Result<_>>().map_err(tap_error("fcntl"))
}

/// Lets loopback receive what this machine sends to itself: the kernel takes what comes
/// in there without the route that it left with for a martian otherwise.
///
/// # Errors
/// [`HostError::Tap`] when a setting can neither be read as set nor be set.
pub(super) fn open_loopback() -> Result<(), HostError> {
    for name in ["accept_local", "route_localnet"] {
        let setting = format!("/proc/sys/net/ipv4/conf/lo/{name}");
        if std::fs::read_to_string(&setting).is_ok_and(|value| value.trim() == "1") {
            continue;
        }
        std::fs::write(setting, "1")
            .map_err(|source| HostError::Tap { call: "accept_local, route_localnet", source })?;
    }
    Ok(())
}

/// Whether io_uring can do here what the host road asks of it.
///
/// # Errors
/// The kernel's answer.
pub fn probe_io_uring() -> io::Result<()> {
    Ring::new(1).map(|_| ())
}

fn tap_error(call: &'static str) -> impl Fn(io::Error) -> HostError {
    move |source| HostError::Tap { call, source }
}

/// The ports that frames were put out on.
pub type Ports = ArrayVec<PortId, BURST>;

/// A TAP that answered with an error is asked again after this.
const RETRY: Nanos = Nanos::from_millis(100);

/// What came of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Frames that the kernel took.
    pub delivered: u64,
    /// Frames that it did not take, or that found no room on the way.
    pub refused: u64,
}

impl Account {
    fn settle(&mut self, taken: bool) {
        match taken {
            true => self.delivered += 1,
            false => self.refused += 1,
        }
    }
}

#[derive(Debug)]
enum Way {
    Ring(Box<Ring>),
    Plain(Plain),
}

/// One worker's ends of all TAPs. Made by any thread, then used by one alone.
#[derive(Debug)]
pub struct HostQueue {
    // Before the TAPs, which its requests name.
    way: Way,
    /// By port; loopback's is the last one.
    taps: Vec<File>,
    /// Where loopback's program learns of answers.
    looped: Option<Looped>,
    /// Whose packets these are.
    owners: Option<Owners>,
    account: Account,
}

impl HostQueue {
    /// `taps`: whole frames are read from and written to these, one by one, by
    /// port and then loopback.
    ///
    /// # Errors
    /// When one of them cannot be made (not) to block.
    ///
    /// # Panics
    /// When there is none, or more than there can be ports.
    pub fn new(taps: Vec<File>, choice: HostChoice) -> io::Result<Self> {
        assert!((1..=MAX_PORTS + 1).contains(&taps.len()), "loopback has one, as every port");
        let ring = match choice {
            HostChoice::Auto => Ring::new(taps.len()).ok(),
            HostChoice::Plain | HostChoice::Off => None,
        };
        let way = match ring {
            Some(ring) => Way::Ring(Box::new(ring)),
            None => Way::Plain(Plain::new(taps.len())),
        };
        for tap in &taps {
            // io_uring waits by itself, but tells whoever does not want to wait.
            sys::set_blocking(tap, matches!(way, Way::Ring(_)))?;
        }
        Ok(Self { way, taps, looped: None, owners: None, account: Account::default() })
    }

    /// With the map in which loopback's program looks answers up, and that of owners.
    #[must_use]
    fn with_maps(self, looped: Looped, owners: OwnerMap) -> Self {
        Self { looped: Some(looped), owners: Some(Owners::new(owners)), ..self }
    }

    /// Who the owner with this number is.
    pub fn sender(&mut self, number: u16) -> Sender {
        match &mut self.owners {
            Some(owners) => owners.sender(number),
            None => Sender::Untold,
        }
    }

    /// What loopback will carry is to be read by a worker.
    pub fn expect_looped(&self, answer: &Answer) {
        if let Some(looped) = &self.looped {
            looped.expect(answer);
        }
    }

    /// How frames move.
    pub fn way(&self) -> HostWay {
        match self.way {
            Way::Ring(_) => HostWay::IoUring,
            Way::Plain(_) => HostWay::Plain,
        }
    }

    /// Makes the ring this thread's. A kernel that gives one and then forbids its use
    /// is one without.
    fn start(&mut self, memory: &Memory) {
        if let Way::Ring(ring) = &mut self.way
            && ring.start(memory).is_err()
        {
            self.way = Way::Plain(Plain::new(self.taps.len()));
            for tap in &self.taps {
                // A descriptor of ours does not refuse this.
                let _ = sys::set_blocking(tap, false);
            }
        }
    }

    /// Appends what the kernel has put out, with the ports: [`READS_MAX`] frames at most.
    /// Where asking costs a system call, it is not done in every turn if `busy`.
    pub fn receive(
        &mut self,
        pool: &mut Pool,
        now: Nanos,
        busy: bool,
        burst: &mut Burst,
        ports: &mut Ports,
    ) {
        self.start(pool.memory());
        let (taps, account, first) = (&self.taps, &mut self.account, ports.len());
        match &mut self.way {
            Way::Ring(ring) => ring.receive(taps, pool, now, (burst, ports), account),
            Way::Plain(plain) => plain.receive(taps, pool, (now, busy), (burst, ports)),
        }
        for port in &mut ports[first..] {
            if port.index() == self.taps.len() - 1 {
                *port = PortId::LOOPBACK;
            }
        }
    }

    /// Lets the kernel receive a frame as if on `port`, or through loopback; at the next
    /// [`HostQueue::flush`] at the latest. What became of it is in the account then.
    pub fn deliver(
        &mut self,
        memory: &Memory,
        free: &mut FreeList,
        port: Option<PortId>,
        frame: Frame,
    ) {
        self.hand_over((memory, free), port, frame, true);
    }

    /// Delivers a frame that nobody but packet sockets will look at; it is in no account.
    pub fn show(&mut self, memory: &Memory, free: &mut FreeList, port: PortId, frame: Frame) {
        self.hand_over((memory, free), Some(port), frame, false);
    }

    fn hand_over(
        &mut self,
        (memory, free): (&Memory, &mut FreeList),
        port: Option<PortId>,
        frame: Frame,
        counts: bool,
    ) {
        self.start(memory);
        let (mut unseen, own) = (Account::default(), &mut self.account);
        let account = if counts { own } else { &mut unseen };
        let Some(tap) = self.taps.get(port.map_or(self.taps.len() - 1, PortId::index)) else {
            account.refused += 1;
            return free.put(frame);
        };
        match &mut self.way {
            Way::Ring(ring) => {
                ring.deliver(tap, (memory, free), (frame, counts), &mut self.account);
            }
            Way::Plain(_) => {
                Plain::deliver(tap, memory.bytes(&frame), account);
                free.put(frame);
            }
        }
    }

    /// Delivers a copy of `bytes`, which may be a datagram longer than any frame.
    pub fn deliver_copy(
        &mut self,
        memory: &Memory,
        free: &mut FreeList,
        port: Option<PortId>,
        bytes: &[u8],
    ) {
        if bytes.len() <= MAX_FRAME {
            match copy_in(memory, free, bytes) {
                Some(frame) => self.deliver(memory, free, port, frame),
                None => self.account.refused += 1,
            }
            return;
        }
        self.start(memory);
        let Some(tap) = self.taps.get(port.map_or(self.taps.len() - 1, PortId::index)) else {
            self.account.refused += 1;
            return;
        };
        match &mut self.way {
            Way::Ring(ring) => ring.deliver_long(tap, (memory, free), bytes, &mut self.account),
            Way::Plain(_) => Plain::deliver(tap, bytes, &mut self.account),
        }
    }

    /// Sends off what was queued; returns what has become of deliveries since it was
    /// last asked.
    pub fn flush(&mut self, free: &mut FreeList) -> Account {
        if let Way::Ring(ring) = &mut self.way {
            ring.flush(free, &mut self.account);
        }
        std::mem::take(&mut self.account)
    }

    /// Ends everything that is under way and gives the frames back. To be called by
    /// the thread that used it.
    pub fn close(&mut self, free: &mut FreeList) -> Account {
        if let Way::Ring(ring) = &mut self.way {
            ring.close(free, &mut self.account);
        }
        std::mem::take(&mut self.account)
    }

    /// Descriptors that become readable when the kernel puts something out; without
    /// those of TAPs that went away, which always are.
    pub fn pollable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let there = |&(port, _): &(usize, &File)| match &self.way {
            Way::Ring(ring) => ring.is_posted(port),
            Way::Plain(plain) => plain.is_there(port),
        };
        self.taps.iter().enumerate().filter(there).map(|(_, tap)| tap.as_fd())
    }
}

/// Frames that one worker's queue may hold, for `ports` ports and loopback.
pub(super) fn frames(ports: usize) -> usize {
    let taps = ports + 1;
    taps * uring::depth(taps) + uring::WRITES_MAX
}
