//! The host road over one io_uring: reads stay posted, writes go out together.
//!
//! Every port's TAP has one multishot read, which puts what the kernel sends into
//! buffers lent to it (chunks of the worker's pool, behind the usual headroom). Its
//! work is deferred: the kernel only raises a flag in shared memory, and runs the reads
//! when the worker, having seen the flag, enters the kernel. So nothing interrupts the
//! worker, asking costs no system call, and one call brings up to a TAP's whole depth.
//! Deliveries are queued, and go out with one call when the burst is done.
//!
//! A [`Frame`] that the kernel may read or write lies in `lent` or `writes`: nobody else
//! can look at its bytes. The pool's memory is kept as long as a request is unfinished,
//! even when the pool goes first.
//!
//! Concurrency: made by any thread, then used by one alone. Limits: [`depth`] frames a
//! TAP wait at most, [`WRITES_MAX`] deliveries are on their way at most; the queues have
//! room for all of that, so none can overflow.

#![allow(unsafe_code, reason = "the kernel reads and writes frames that io_uring was told of")]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use memmap2::{MmapOptions, MmapRaw};

use super::{Account, Ports, READS_MAX, RETRY};
use crate::clock::Nanos;
use crate::packet::PortId;
use crate::port::pool::{FreeList, HEADROOM, MAX_FRAME, Memory};
use crate::port::{Area, Burst, Frame, Pool};
use crate::wire::ethernet;

/// Deliveries on their way at once.
pub(super) const WRITES_MAX: usize = 128;
/// Among them, datagrams put together that are longer than a chunk.
const LONG_MAX: usize = 4;
/// The longest of these, in bytes.
const LONG: usize = ethernet::HEADER + 65_535 + 40;
/// Frames that may wait for the worker, over all TAPs of a few ports.
const READS_TOTAL: usize = 256;
/// The kernel is entered every so many turns even if it raised no flag.
const TURNS_UNASKED: u32 = 64;
/// How often, and how long each time, the end waits for requests to be given up.
const FAREWELLS: u32 = 20;
const FAREWELL: Timespec = Timespec::new().nsec(50_000_000);
/// What a request was; the low half of its `user_data` says which.
const READ: u64 = 0;
const WRITE: u64 = 1 << 32;
const CANCEL: u64 = 2 << 32;

/// Frames that one of `ports` TAPs may have waiting: a power of two.
pub(in crate::port) fn depth(ports: usize) -> usize {
    let fair = (READS_TOTAL / ports.max(1)).clamp(8, 64);
    1 << fair.ilog2()
}

/// Buffers of one TAP that the kernel may fill, and whether it does.
struct Reader {
    /// Where the kernel is told of them: `lent.len()` entries.
    ring: MmapRaw,
    tail: u16,
    /// By buffer number; `None`: not with the kernel.
    lent: Box<[Option<Frame>]>,
    /// The numbers that are not.
    missing: Vec<u16>,
    /// The read is posted.
    posted: bool,
    /// When to post it again after an error.
    retry_at: Nanos,
}

impl Reader {
    fn new(ring: &IoUring, group: u16, depth: usize) -> io::Result<Self> {
        let memory = MmapOptions::new().len(depth * size_of::<BufRingEntry>()).map_anon()?;
        let memory = MmapRaw::from(memory);
        let at = memory.as_mut_ptr() as u64;
        // SAFETY: page-aligned memory for that many entries, which the kernel pins; it
        // is written only by `lend`.
        unsafe { ring.submitter().register_buf_ring_with_flags(at, depth as u16, group, 0) }?;
        Ok(Self {
            ring: memory,
            tail: 0,
            lent: (0..depth).map(|_| None).collect(),
            missing: (0..depth as u16).rev().collect(),
            posted: false,
            retry_at: Nanos::default(),
        })
    }

    /// Lends free frames in the place of those that came back.
    fn refill(&mut self, memory: &Memory, free: &mut FreeList) {
        if self.missing.is_empty() {
            return;
        }
        while let Some(&number) = self.missing.last() {
            let Some(mut frame) = free.take() else { break };
            let room = &mut memory.buffer(&mut frame)[HEADROOM..];
            self.lend(number, room);
            self.lent[usize::from(number)] = Some(frame);
            self.missing.pop();
        }
        self.publish();
    }

    fn lend(&mut self, number: u16, room: &mut [u8]) {
        let index = usize::from(self.tail) & (self.lent.len() - 1);
        let entry = self.ring.as_mut_ptr().cast::<BufRingEntry>().wrapping_add(index);
        // SAFETY: `index` is below the number of entries that the mapping holds, and the
        // kernel does not read an entry beyond the tail that it was shown.
        let entry = unsafe { &mut *entry };
        entry.set_addr(room.as_mut_ptr() as u64);
        entry.set_len(room.len() as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was lent.
    fn publish(&mut self) {
        let entries = self.ring.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the first entry lies in the mapping, which is zeroed when it is made.
        let tail = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: aligned, inside the mapping, and only accessed atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// A buffer that the kernel filled. Its number is missing once the frame is taken.
    fn filled(&mut self, number: u16, len: usize) -> Option<Frame> {
        let mut frame = self.lent.get_mut(usize::from(number))?.take()?;
        frame.set_extent(HEADROOM, len.min(MAX_FRAME));
        Some(frame)
    }
}

/// What is being written.
enum Load {
    Frame(Frame),
    /// The first bytes of one of the long buffers.
    Long(Box<[u8]>, usize),
}

impl Load {
    fn bytes<'a>(&'a self, memory: &'a Memory) -> &'a [u8] {
        match self {
            Self::Frame(frame) => memory.bytes(frame),
            Self::Long(buffer, len) => &buffer[..*len],
        }
    }
    fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Long(_, len) => *len,
        }
    }
}

/// See the head of this file.
pub(super) struct Ring {
    ring: IoUring,
    readers: Vec<Reader>,
    /// Deliveries on their way, and whether they count; the others are `idle`.
    writes: Box<[Option<(Load, bool)>]>,
    idle: Vec<u16>,
    long: Vec<Box<[u8]>>,
    /// Read, but not yet taken by the worker: port, buffer number, frame.
    arrived: VecDeque<(PortId, u16, Frame)>,
    queued: bool,
    turns: u32,
    running: bool,
    /// Keeps the pool's memory.
    area: Option<Area>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Ring").field("readers", &self.readers.len()).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for `ports` TAPs that will be read.
    ///
    /// # Errors
    /// The kernel has no io_uring for us, or one without what is needed.
    pub(super) fn new(ports: usize) -> io::Result<Self> {
        let depth = depth(ports);
        let completions = (ports * (depth + 1) + WRITES_MAX + 1).next_power_of_two();
        let ring = IoUring::builder()
            .setup_cqsize(completions as u32)
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_r_disabled()
            .build((WRITES_MAX + ports + 1).next_power_of_two() as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::ReadMulti::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let readers = (0..ports).map(|group| Reader::new(&ring, group as u16, depth));
        let readers = readers.collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            ring,
            readers,
            writes: (0..WRITES_MAX).map(|_| None).collect(),
            idle: (0..WRITES_MAX as u16).rev().collect(),
            long: (0..LONG_MAX).map(|_| vec![0; LONG].into()).collect(),
            arrived: VecDeque::with_capacity(ports * depth),
            queued: false,
            turns: 0,
            running: false,
            area: None,
        })
    }

    /// Makes the calling thread the ring's own; once.
    pub(super) fn start(&mut self, memory: &Memory) -> io::Result<()> {
        if !self.running {
            self.ring.submitter().register_enable_rings()?;
            self.area = Some(memory.area());
            self.running = true;
        }
        Ok(())
    }

    /// Whether to sleep on a TAP: one with a read posted. (A ring's own descriptor does not
    /// wake anybody for work that the kernel deferred.)
    pub(super) fn is_posted(&self, port: usize) -> bool {
        self.readers[port].posted
    }

    /// Appends what has been read, and the ports.
    pub(super) fn receive(
        &mut self,
        taps: &[File],
        pool: &mut Pool,
        now: Nanos,
        (burst, ports): (&mut Burst, &mut Ports),
        account: &mut Account,
    ) {
        let (memory, free) = pool.split();
        for (port, reader) in self.readers.iter_mut().enumerate() {
            reader.refill(memory, free);
            if !reader.posted && now >= reader.retry_at && reader.missing.len() < reader.lent.len()
            {
                let read = opcode::ReadMulti::new(Fd(taps[port].as_raw_fd()), 0, port as u16);
                let entry = read.build().user_data(READ | port as u64);
                reader.retry_at = now + RETRY;
                // SAFETY: the buffers of this group stay lent until they come back.
                reader.posted = unsafe { push(&mut self.ring, &entry) };
                self.queued |= reader.posted;
            }
        }
        self.turns = self.turns.wrapping_add(1);
        let due = self.turns.is_multiple_of(TURNS_UNASKED);
        if self.queued || due || self.ring.submission().taskrun() {
            self.enter();
        }
        self.harvest(|frame| free.put(frame), account);
        for _ in 0..READS_MAX.min(burst.remaining_capacity()) {
            let Some((port, number, frame)) = self.arrived.pop_front() else { break };
            self.readers[port.index()].missing.push(number);
            ports.push(port);
            burst.push(frame);
        }
    }

    /// Queues a frame for the TAP. What became of it goes to the account if it `counts`.
    pub(super) fn deliver(
        &mut self,
        tap: &File,
        (memory, free): (&Memory, &mut FreeList),
        (frame, counts): (Frame, bool),
        account: &mut Account,
    ) {
        if self.idle.is_empty() {
            self.enter();
            self.harvest(|frame| free.put(frame), account);
        }
        if let Err(load) = self.write(tap, memory, Load::Frame(frame), counts) {
            account.refused += u64::from(counts);
            self.put_back(load, |frame| free.put(frame));
        }
    }

    /// Queues a copy of a frame that is longer than a chunk.
    pub(super) fn deliver_long(
        &mut self,
        tap: &File,
        (memory, free): (&Memory, &mut FreeList),
        bytes: &[u8],
        account: &mut Account,
    ) {
        if self.long.is_empty() || self.idle.is_empty() {
            self.enter();
            self.harvest(|frame| free.put(frame), account);
        }
        let buffer = if bytes.len() <= LONG { self.long.pop() } else { None };
        let Some(mut buffer) = buffer else {
            account.refused += 1;
            return;
        };
        buffer[..bytes.len()].copy_from_slice(bytes);
        if let Err(load) = self.write(tap, memory, Load::Long(buffer, bytes.len()), true) {
            account.refused += 1;
            self.put_back(load, |frame| free.put(frame));
        }
    }

    /// Hands it back when too much is on its way.
    fn write(&mut self, tap: &File, memory: &Memory, load: Load, counts: bool) -> Result<(), Load> {
        let Some(slot) = self.idle.pop() else { return Err(load) };
        let bytes = load.bytes(memory);
        let write = opcode::Write::new(Fd(tap.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32);
        let entry = write.build().user_data(WRITE | u64::from(slot));
        // SAFETY: what is written lies in `writes` until the request is finished.
        if unsafe { push(&mut self.ring, &entry) } {
            self.queued = true;
            self.writes[usize::from(slot)] = Some((load, counts));
            Ok(())
        } else {
            self.idle.push(slot);
            Err(load)
        }
    }

    fn put_back(&mut self, load: Load, put: impl FnOnce(Frame)) {
        match load {
            Load::Frame(frame) => put(frame),
            Load::Long(buffer, _) => self.long.push(buffer),
        }
    }

    /// Sends what was queued.
    pub(super) fn flush(&mut self, free: &mut FreeList, account: &mut Account) {
        if self.queued {
            self.enter();
            self.harvest(|frame| free.put(frame), account);
        }
    }

    /// One system call: submits what is queued and lets the kernel do what it deferred.
    fn enter(&mut self) {
        const GET_EVENTS: u32 = 1;
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        // SAFETY: as many as are queued, no waiting, no argument.
        let submitted = unsafe { submitter.enter::<()>(queued, 0, GET_EVENTS, None) };
        // What the kernel had no room for is submitted with the next call.
        self.queued = submitted.map_or(true, |count| count < queued as usize);
    }

    /// Takes note of what is finished. Costs no system call.
    fn harvest(&mut self, mut put: impl FnMut(Frame), account: &mut Account) {
        let Self { ring, readers, writes, idle, long, arrived, .. } = self;
        for done in ring.completion() {
            let (kind, which) = (done.user_data() & !0xffff_ffff, done.user_data() as u32 as usize);
            if kind == WRITE {
                let write = writes.get_mut(which).and_then(Option::take);
                let Some((load, counts)) = write else { continue };
                let whole = usize::try_from(done.result()).is_ok_and(|len| len == load.len());
                if counts {
                    account.settle(whole);
                }
                idle.push(which as u16);
                match load {
                    Load::Frame(frame) => put(frame),
                    Load::Long(buffer, _) => long.push(buffer),
                }
            } else if kind == READ
                && let Some(reader) = readers.get_mut(which)
            {
                let len = usize::try_from(done.result()).unwrap_or(0);
                if let Some(number) = cqueue::buffer_select(done.flags())
                    && let Some(frame) = reader.filled(number, len)
                {
                    arrived.push_back((PortId(which as u8), number, frame));
                }
                if !cqueue::more(done.flags()) {
                    reader.posted = false;
                    if len > 0 || done.result() == -libc::ENOBUFS {
                        reader.retry_at = Nanos::default();
                    }
                }
            }
        }
    }

    fn unfinished(&self) -> bool {
        self.idle.len() < self.writes.len() || self.readers.iter().any(|reader| reader.posted)
    }

    /// Gives up every request; false when the kernel did not let go of all.
    fn quiesce(&mut self, mut put: impl FnMut(Frame), account: &mut Account) -> bool {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(CANCEL);
        for _ in 0..FAREWELLS {
            if !self.unfinished() {
                return true;
            }
            // SAFETY: it refers to no memory.
            unsafe { push(&mut self.ring, &cancel) };
            let args = SubmitArgs::new().timespec(&FAREWELL);
            if let Err(error) = self.ring.submitter().submit_with_args(1, &args)
                && !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY))
            {
                return false;
            }
            self.harvest(&mut put, account);
        }
        !self.unfinished()
    }

    /// Ends every request and gives every frame back.
    pub(super) fn close(&mut self, free: &mut FreeList, account: &mut Account) {
        if !self.running || !self.quiesce(|frame| free.put(frame), account) {
            return;
        }
        for (port, number, frame) in self.arrived.drain(..) {
            self.readers[port.index()].missing.push(number);
            free.put(frame);
        }
        for reader in &mut self.readers {
            for (number, frame) in reader.lent.iter_mut().enumerate() {
                if let Some(frame) = frame.take() {
                    free.put(frame);
                    reader.missing.push(number as u16);
                }
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.running && !self.quiesce(drop, &mut Account::default()) {
            // The kernel may still use that memory: it is never given up.
            std::mem::forget((self.area.take(), std::mem::take(&mut self.writes)));
        }
    }
}

/// Queues a request; false when there is no room, which the sizes rule out.
///
/// # Safety
/// What `entry` refers to must live until it is finished.
unsafe fn push(ring: &mut IoUring, entry: &squeue::Entry) -> bool {
    // SAFETY: as promised by the caller.
    unsafe { ring.submission().push(entry) }.is_ok()
}
