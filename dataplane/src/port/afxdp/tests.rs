//! Ports over rings in plain memory, with a kernel that is a few lines here: what
//! happens to frames when sockets fail, close and are replaced.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use memmap2::MmapRaw;
use proptest::prelude::*;

use super::ring::{Consumer, Layout, Producer};
use super::socket::{Rings, Socket};
use super::umem::Place;
use super::*;
use crate::clock::Nanos;
use crate::port::{AttachMode, Burst, Frame, Port, PortError};

const SIZE: u32 = 64;
const CHUNKS: usize = 512;

/// The kernel's ends of a socket's rings, and the chunks that it has in hand.
pub(crate) struct Kernel {
    fill: Consumer<u64>,
    completion: Producer<u64>,
    receive: Producer<libc::xdp_desc>,
    transmit: Consumer<libc::xdp_desc>,
    filled: Vec<u64>,
    sending: Vec<u64>,
    /// The other end of what stands for the socket.
    _peer: Option<UnixDatagram>,
}

/// Two mappings of the same memory.
fn shared() -> (MmapRaw, MmapRaw) {
    let fd = rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
    let file = std::fs::File::from(fd);
    file.set_len(4096).expect("it can grow");
    let map = || MmapRaw::map_raw(&file).expect("it can be mapped");
    (map(), map())
}

const LAYOUT: Layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192 };

macro_rules! ends {
    () => {{
        let (one, other) = shared();
        let producer = Producer::new(one, LAYOUT, SIZE).expect("the layout fits");
        (producer, Consumer::new(other, LAYOUT, SIZE).expect("the layout fits"))
    }};
}

/// A socket that is none, over rings in memory. One that `works` answers that there is
/// nothing to receive; another one fails.
pub(crate) fn socket(works: bool) -> (BoundSocket, Kernel) {
    let (ours, peer) = UnixDatagram::pair().expect("a pair of sockets");
    let file = || std::fs::File::open("/dev/null").expect("it is there");
    let fd = if works { OwnedFd::from(ours) } else { OwnedFd::from(file()) };
    let (fill, kernel_fill) = ends!();
    let (kernel_completion, completion) = ends!();
    let (kernel_receive, receive) = ends!();
    let (transmit, kernel_transmit) = ends!();
    let rings = Rings { fill, completion, receive, transmit };
    let link = LinkInfo::nowhere();
    let place = Place { link: &link, attach: AttachMode::Native, queue: 0, ring_size: SIZE };
    let kernel = Kernel {
        fill: kernel_fill,
        completion: kernel_completion,
        receive: kernel_receive,
        transmit: kernel_transmit,
        filled: Vec::new(),
        sending: Vec::new(),
        _peer: Some(peer),
    };
    (BoundSocket::of(Arc::new(Socket::of(fd)), rings, place), kernel)
}

/// A port on such a socket.
pub(crate) fn port(pool: &Pool, works: bool) -> (AfxdpPort, Kernel) {
    let (bound, kernel) = socket(works);
    (AfxdpPort::new(pool, bound, Ledger::new(pool.total())), kernel)
}

impl Kernel {
    /// Takes up to `count` chunks to receive into.
    pub(crate) fn take(&mut self, count: usize) {
        for _ in 0..count {
            self.filled.extend(self.fill.pop());
        }
        self.fill.release();
    }
    /// Receives up to `count` frames of `len` bytes.
    pub(crate) fn receive(&mut self, count: usize, len: u32) {
        for _ in 0..count.min(self.filled.len()) {
            let addr = self.filled.remove(0) + 256;
            self.push(libc::xdp_desc { addr, len, options: 0 });
        }
    }
    fn push(&mut self, descriptor: libc::xdp_desc) {
        assert!(self.receive.push(descriptor), "the port reads what it is given");
        self.receive.publish();
    }
    /// Takes up to `count` frames to send.
    fn begin_sending(&mut self, count: usize) {
        for _ in 0..count {
            self.sending.extend(self.transmit.pop().map(|descriptor| descriptor.addr));
        }
        self.transmit.release();
    }
    /// Is done with up to `count` of them, as far as the port has read what it was told.
    fn complete(&mut self, count: usize) {
        let told = self.sending.iter().take(count).take_while(|address| {
            // Full: the kernel keeps the frame until there is room.
            self.completion.push(**address)
        });
        let told = told.count();
        self.sending.drain(..told);
        self.completion.publish();
    }
}

/// One step of a port's life.
#[derive(Clone, Copy, Debug)]
enum Step {
    Fill,
    Take(usize),
    Arrive(usize),
    Receive,
    Send,
    BeginSending(usize),
    Complete(usize),
    Reap,
    Replace,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Fill),
        (1..64usize).prop_map(Step::Take),
        (1..32usize).prop_map(Step::Arrive),
        Just(Step::Receive),
        Just(Step::Send),
        (1..32usize).prop_map(Step::BeginSending),
        (1..32usize).prop_map(Step::Complete),
        Just(Step::Reap),
        Just(Step::Replace),
    ]
}

/// A pool, a port, its kernel, and frames in hand.
struct Life {
    pool: Pool,
    port: AfxdpPort,
    kernel: Kernel,
    hand: Vec<Frame>,
}

impl Life {
    fn new() -> Self {
        let pool = Pool::new(CHUNKS, false).expect("memory");
        let (port, kernel) = port(&pool, true);
        Self { pool, port, kernel, hand: Vec::new() }
    }

    /// The device goes and comes back, whatever frames are where.
    fn replace(&mut self) {
        let lent = self.port.lent();
        let bound = self.port.detach().expect("it had a socket");
        assert!(self.port.detach().is_none(), "once");
        let closed = bound.close().expect("nobody else holds it");
        assert_eq!(self.port.recover(&mut self.pool, &closed), lent);
        assert_eq!(self.port.recover(&mut self.pool, &closed), 0, "once");
        let (bound, kernel) = socket(true);
        self.port.attach(Box::new(bound)).expect("it waits for one");
        self.kernel = kernel;
    }

    fn act(&mut self, step: Step) {
        let Self { pool, port, kernel, hand } = self;
        match step {
            Step::Fill => _ = port.fill(pool),
            Step::Take(count) => kernel.take(count),
            Step::Arrive(count) => kernel.receive(count, 60),
            Step::Receive => {
                let mut burst = Burst::new();
                port.receive(pool, Nanos(0), &mut burst).expect("it works");
                hand.extend(burst);
            }
            Step::Send => {
                for frame in hand.drain(..) {
                    if let Err(frame) = port.transmit(pool, frame) {
                        pool.put(frame);
                    }
                }
                port.flush(pool, Nanos(0)).expect("it works");
            }
            Step::BeginSending(count) => kernel.begin_sending(count),
            Step::Complete(count) => kernel.complete(count),
            Step::Reap => _ = port.reap(pool),
            Step::Replace => self.replace(),
        }
    }

    /// Every chunk is free, in hand, or in the ledger.
    fn check(&self) {
        assert_eq!(self.pool.lent(), self.port.lent());
        assert_eq!(self.pool.held(), self.hand.len());
        assert_eq!(self.pool.free() + self.hand.len() + self.port.lent(), CHUNKS);
    }
}

proptest! {
    #[test]
    fn every_frame_comes_back_exactly_once(steps in prop::collection::vec(step(), 1..400)) {
        let mut life = Life::new();
        for step in steps {
            life.act(step);
            life.check();
            prop_assert_eq!(life.port.statistics().bad_address, 0);
        }
        life.replace();
        life.hand.drain(..).for_each(|frame| life.pool.put(frame));
        prop_assert_eq!((life.pool.free(), life.pool.lent(), life.pool.held()), (CHUNKS, 0, 0));
    }
}

#[test]
fn a_kernel_that_hands_over_what_it_does_not_have_gets_no_token_made() {
    let mut life = Life::new();
    life.act(Step::Fill);
    life.kernel.take(4);
    let (mine, free) = (life.kernel.filled[0], CHUNKS as u64 * 4096 - 4096);
    let taken = life.kernel.filled[1];
    // Once, twice, never lent, beyond the pool, longer than a chunk.
    for (addr, len) in [(mine, 60), (mine, 60), (free, 60), (u64::MAX - 4095, 60), (taken, 5000)] {
        life.kernel.push(libc::xdp_desc { addr, len, options: 0 });
    }
    life.act(Step::Receive);
    assert_eq!(life.hand.len(), 1);
    assert_eq!(life.port.statistics().bad_address, 4);
    life.check();
    for address in [mine, free] {
        assert!(life.kernel.completion.push(address));
    }
    life.kernel.completion.publish();
    life.act(Step::Reap);
    assert_eq!(life.port.statistics().bad_address, 6);
    life.check();
    life.replace();
    assert_eq!(life.port.lent(), 0, "what a bad descriptor named is recovered too");
    life.check();
}

#[test]
fn a_proof_about_another_socket_recovers_nothing() {
    let mut life = Life::new();
    life.act(Step::Fill);
    let lent = life.port.lent();
    assert!(lent > 0);
    let (other, _kernel) = socket(true);
    let closed = other.close().expect("nobody else holds it");
    let bound = life.port.detach().expect("it had a socket");
    assert_eq!(life.port.recover(&mut life.pool, &closed), 0);
    assert_eq!(life.port.lent(), lent, "the kernel may have them still");
    let (next, _kernel) = socket(true);
    let refused = life.port.attach(Box::new(next));
    assert!(refused.is_err(), "before its frames are back it takes no other");
    let closed = bound.close().expect("nobody else holds it");
    assert_eq!(life.port.recover(&mut life.pool, &closed), lent);
    assert!(life.port.attach(refused.expect_err("it was refused")).is_ok());
    life.check();
}

#[test]
fn a_port_without_a_socket_hands_back_and_says_that_its_device_is_gone() {
    let mut life = Life::new();
    let closed = life.port.detach().expect("it had a socket").close().expect("nobody holds it");
    life.port.recover(&mut life.pool, &closed);
    let frame = life.pool.copy_in(&[1; 60]).expect("a frame");
    let frame = life.port.transmit(&mut life.pool, frame).expect_err("there is no ring");
    life.pool.put(frame);
    assert!(matches!(life.port.check(), Err(PortError::DeviceGone { .. })));
    assert_eq!(life.port.fill(&mut life.pool), 0);
    assert_eq!(life.port.reap(&mut life.pool), 0);
    assert!(life.port.flush(&mut life.pool, Nanos(0)).is_ok());
    assert!(life.port.pollable().is_none() && life.port.observer().is_none());
    life.check();
}

#[test]
fn an_observer_outlives_the_socket_and_does_not_keep_it_open() {
    let (bound, _kernel) = socket(true);
    let observer = bound.observer();
    assert!(observer.statistics().is_some());
    assert!(bound.socket().fd().as_fd().try_clone_to_owned().is_ok());
    let _closed = bound.close().expect("nobody else holds it");
    assert!(observer.statistics().is_none());
}
