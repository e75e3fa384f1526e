//! Privileged tests of the AF_XDP ports, in namespaces of their own.
//!
//! They fail, never skip, when they cannot run: root and a kernel with AF_XDP
//! are needed.

mod beats;
mod blocklist;
mod closed;
mod hostile;
mod lab;
mod management;
mod program;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dataplane::clock::{Nanos, monotonic};
use dataplane::packet::PortId;
use dataplane::port::afxdp::{
    AfxdpError, AfxdpPort, AttachChoice, Config, CopyMode, LinkInfo, MAX_MTU, OnFailure, Opened,
    Program, open,
};
use dataplane::port::fault::{FaultPort, Faults, PerMillion};
use dataplane::port::{
    AttachMode, Burst, Description, LinkState, MAX_FRAME, Pool, Port, PortError,
};
use dataplane::stats::WorkerStats;
use dataplane::verdict::DropReason;
use dataplane::worker::{CrossConnect, Idle, Outlets, PortEvent, Worker};
use lab::{Lab, attempt, inside, run};

const A: PortId = PortId(0);
const B: PortId = PortId(1);

/// The tests share two cores: one at a time keeps their timing sane.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bridge mode (every frame comes to us), small rings.
fn config(devices: &[&str]) -> Config {
    Config {
        ring_size: 512,
        routed: false,
        ..Config::new(devices.iter().map(|name| (*name).to_owned()), 1)
    }
}

fn routed(devices: &[&str]) -> Config {
    Config { routed: true, ..config(devices) }
}

fn open_in(namespace: &str, config: &Config) -> Result<Opened, AfxdpError> {
    inside(namespace, || open(config, []))
}

/// A host beside the box: one device, all its frames ours.
struct Peer {
    _program: Program,
    queues: Vec<(Pool, AfxdpPort)>,
}

impl Peer {
    fn new(namespace: &str, device: &str, queues: usize) -> Self {
        let config = Config { workers: queues, ..config(&[device]) };
        let opened = open_in(namespace, &config).expect("the peer opens");
        let take =
            |mut worker: dataplane::port::afxdp::WorkerPorts| (worker.pool, worker.ports.remove(0));
        let queues = opened.workers.into_iter().map(take).collect();
        Self { _program: opened.program, queues }
    }
    /// Sends as many of the frames as the ring takes; returns how many.
    fn send<'f>(&mut self, queue: usize, frames: impl IntoIterator<Item = &'f [u8]>) -> usize {
        let (pool, port) = &mut self.queues[queue];
        port.reap(pool);
        let mut sent = 0;
        for bytes in frames {
            let Some(frame) = pool.copy_in(bytes) else { break };
            if let Err(frame) = port.transmit(pool, frame) {
                pool.put(frame);
                break;
            }
            sent += 1;
        }
        port.flush(pool, Nanos::default()).expect("the peer's device is there");
        sent
    }
    /// Calls `seen` for every frame that has arrived; returns how many.
    fn receive(&mut self, queue: usize, mut seen: impl FnMut(&[u8])) -> usize {
        let (pool, port) = &mut self.queues[queue];
        let mut burst = Burst::new();
        let mut total = 0;
        loop {
            port.fill(pool);
            let count = port.receive(pool, Nanos::default(), &mut burst);
            total += burst.len();
            for frame in burst.drain(..) {
                seen(pool.memory().bytes(&frame));
                pool.put(frame);
            }
            if count.expect("the peer's device is there") == 0 {
                return total;
            }
        }
    }
    fn collect(&mut self, queue: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        self.receive(queue, |bytes| frames.push(bytes.to_vec()));
        frames
    }
}

/// The box: its program and its workers, which join ports A and B.
struct Gateway {
    program: Program,
    workers: Vec<Worker<AfxdpPort, CrossConnect>>,
    outlets: Outlets,
}

impl Gateway {
    fn new(opened: Opened) -> Self {
        let outlets = Outlets::new(16, 16);
        let pipeline = CrossConnect::new(&[(A, B)]);
        let worker = |(index, share): (usize, dataplane::port::afxdp::WorkerPorts)| {
            Worker::new(index, share.pool, share.ports, pipeline.clone(), outlets.clone())
                .with_beat(Some(share.beat))
        };
        let workers = opened.workers.into_iter().enumerate().map(worker).collect();
        Self { program: opened.program, workers, outlets: outlets.clone() }
    }
    fn open(lab: &Lab, config: &Config) -> Self {
        Self::new(open_in(&lab.boxed(), config).expect("the box opens"))
    }
    fn turn(&mut self) -> usize {
        let now = monotonic();
        self.workers.iter_mut().map(|worker| worker.turn(now)).sum()
    }
    fn stats(&self) -> std::sync::Arc<WorkerStats> {
        self.workers[0].stats()
    }
    fn describe(&mut self, port: PortId) -> Description {
        self.workers[0].parts().1[port.index()].description()
    }
}

/// Repeats until `done` or two seconds have passed; says whether it was done.
fn soon(mut done: impl FnMut() -> bool) -> bool {
    let deadline = monotonic() + Nanos::from_secs(2);
    while !done() {
        if monotonic() > deadline {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A frame of experimental EtherType whose bytes all depend on `number`.
fn pattern(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len.max(18)];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    for (index, byte) in frame[18..].iter_mut().enumerate() {
        *byte = (number as usize * 7 + index * 13) as u8;
    }
    frame
}

fn number_of(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().expect("four bytes"))
}

/// Sends one frame through the box and waits for it on the other side.
fn crosses(gateway: &mut Gateway, from: &mut Peer, to: &mut Peer, queue: usize) -> bool {
    let frame = pattern(77, 60);
    to.collect(queue);
    let sent = from.send(queue, [&frame[..]]);
    sent == 1
        && soon(|| {
            gateway.turn();
            to.collect(queue).contains(&frame)
        })
}

/// Sends frames through the box until one arrives.
fn crosses_again(gateway: &mut Gateway, from: &mut Peer, to: &mut Peer) -> bool {
    let frame = pattern(78, 60);
    soon(|| {
        from.send(0, [&frame[..]]);
        gateway.turn();
        to.collect(0).contains(&frame)
    })
}

#[test]
fn native_copy_mode_forwards_both_ways_with_shared_memory() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
    for port in [A, B] {
        let description = gateway.describe(port);
        println!("{description}: {description:?}");
        let Description::AfXdp { attach, zero_copy, need_wakeup, tx_budget, .. } = description
        else {
            panic!("not an AF_XDP port");
        };
        assert_eq!((attach, zero_copy, need_wakeup), (AttachMode::Native, false, true));
        assert_eq!(tx_budget, Some(512), "this kernel can raise the budget");
    }
    assert!(lab.show(&lab.boxed(), "f0").contains("prog/xdp id"));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    assert!(crosses(&mut gateway, &mut left, &mut right, 0));
    assert!(crosses(&mut gateway, &mut right, &mut left, 0));
    let stats = gateway.stats();
    assert_eq!(stats.port(A).rx.get(), (1, 60));
    assert_eq!(stats.port(B).tx.get(), (1, 60));
    let counters = gateway.program.counters(A).expect("the counters are read");
    assert_eq!((counters.redirected, counters.no_socket), (1, 0));
}

/// Sends `count` frames of many lengths from one peer to the other and checks each byte.
fn integrity(
    gateway: &mut Gateway,
    from: &mut Peer,
    to: &mut Peer,
    base: u32,
    count: u32,
) -> Nanos {
    let (mut sent, mut seen, mut busy) = (0u32, 0u32, Nanos::default());
    let length = |number: u32| 60 + (number as usize * 31) % 1440;
    let done = {
        let deadline = monotonic() + Nanos::from_secs(60);
        loop {
            // At most as many in flight as the smallest ring holds.
            let batch = (count - sent).min(256 - (sent - seen).min(256));
            let frames: Vec<_> =
                (0..batch).map(|i| pattern(base + sent + i, length(base + sent + i))).collect();
            sent += from.send(0, frames.iter().map(Vec::as_slice)) as u32;
            let start = monotonic();
            while gateway.turn() > 0 {}
            busy = busy + (monotonic() - start);
            to.receive(0, |frame| {
                assert_eq!(number_of(frame), base + seen, "in order, none lost");
                assert_eq!(frame, pattern(base + seen, length(base + seen)));
                seen += 1;
            });
            if seen == count {
                break true;
            }
            if monotonic() > deadline {
                break false;
            }
        }
    };
    assert!(done, "{seen} of {sent} frames arrived");
    busy
}

#[test]
fn a_hundred_thousand_frames_cross_unharmed_and_in_order() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    let busy = integrity(&mut gateway, &mut left, &mut right, 0, 50_000);
    let back = integrity(&mut gateway, &mut right, &mut left, 1 << 20, 50_000);
    let nanos = (busy + back).0 / 100_000;
    println!("raw forwarder, copy mode, 60 to 1500 bytes: {nanos} ns a frame in the worker");
    println!("{:?}", gateway.workers[0].parts().1[1].statistics());
    let (pool, ports) = gateway.workers[0].parts();
    assert!(soon(|| ports.iter_mut().all(|port| {
        port.reap(pool);
        port.fill(pool);
        true
    }) && pool.lent() == 2 * 512));
    assert_eq!(pool.held(), 0, "only the fill rings hold frames");
    for port in ports {
        let statistics = port.statistics();
        assert_eq!(statistics.bad_address + statistics.tx_invalid + statistics.rx_ring_full, 0);
    }
}

#[test]
fn the_rate_of_a_raw_forwarder_is_shown() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut gateway = Gateway::open(&lab, &Config { ring_size: 2048, ..config(&["f0", "f1"]) });
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    let frame = pattern(1, 60);
    let (mut busy, mut forwarded) = (Nanos::default(), 0u64);
    let deadline = monotonic() + Nanos::from_secs(1);
    while monotonic() < deadline {
        left.send(0, std::iter::repeat_n(&frame[..], 256));
        let start = monotonic();
        loop {
            let received = gateway.turn() as u64;
            forwarded += received;
            if received == 0 {
                break;
            }
        }
        busy = busy + (monotonic() - start);
        right.receive(0, |_| {});
    }
    assert!(forwarded > 1000, "only {forwarded} frames");
    let wakeups = gateway.workers[0].parts().1[1].statistics().tx_wakeups;
    println!(
        "raw forwarder, native copy mode, 60 bytes: {} kpps in the worker ({} ns a frame), {:.1} frames a wakeup",
        forwarded * 1_000_000 / busy.0,
        busy.0 / forwarded,
        forwarded as f64 / wakeups as f64
    );
}

#[test]
fn generic_mode_forwards() {
    let _alone = alone();
    let lab = Lab::new(1);
    let generic = Config { attach: AttachChoice::Generic, ..config(&["f0", "f1"]) };
    let mut gateway = Gateway::open(&lab, &generic);
    let Description::AfXdp { attach, zero_copy, .. } = gateway.describe(A) else {
        panic!("not an AF_XDP port");
    };
    assert_eq!((attach, zero_copy), (AttachMode::Generic, false));
    assert!(lab.show(&lab.boxed(), "f0").contains("xdpgeneric"));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    integrity(&mut gateway, &mut left, &mut right, 5, 2000);
    integrity(&mut gateway, &mut right, &mut left, 9, 2000);
}

#[test]
fn two_workers_own_two_queues() {
    let _alone = alone();
    let lab = Lab::new(2);
    let error = open_in(&lab.boxed(), &config(&["f0", "f1"])).expect_err("one worker is too few");
    assert!(matches!(error, AfxdpError::Queues { queues: 2, workers: 1, .. }), "{error}");
    assert!(error.to_string().contains("ethtool -L f0 combined 1"), "{error}");
    assert!(error.to_string().contains("--workers 2"), "{error}");
    let two = Config { workers: 2, ..config(&["f0", "f1"]) };
    let mut gateway = Gateway::open(&lab, &two);
    let mut left = Peer::new(&lab.left(), "l0", 2);
    let mut right = Peer::new(&lab.right(), "r0", 2);
    for queue in [0, 1] {
        assert!(crosses(&mut gateway, &mut left, &mut right, queue), "queue {queue}");
        assert!(crosses(&mut gateway, &mut right, &mut left, queue), "queue {queue}");
        let stats = gateway.workers[queue].stats();
        assert_eq!((stats.port(A).rx.get().0, stats.port(B).rx.get().0), (1, 1));
    }
    // Fewer queues than workers leaves a worker without a way out: refused as well.
    drop(gateway);
    // The kernel refuses while it still releases the sockets.
    let fewer = format!("ip netns exec {} ethtool -L f0 rx 1 tx 1", lab.boxed());
    assert!(soon(|| attempt(&fewer).status.success()));
    let error = open_in(&lab.boxed(), &two).expect_err("one queue is too few");
    assert!(matches!(error, AfxdpError::Queues { queues: 1, workers: 2, .. }), "{error}");
}

#[test]
fn a_restart_works_at_once() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    for round in 0..10 {
        let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
        assert!(crosses(&mut gateway, &mut left, &mut right, 0), "round {round}");
    }
    assert!(!lab.show(&lab.boxed(), "f0").contains("xdp"), "nothing stays attached");
}

#[test]
fn what_a_device_is_comes_from_the_kernel() {
    let _alone = alone();
    let lab = Lab::new(2);
    let f = lab.boxed();
    let info = || inside(&lab.boxed(), || LinkInfo::of("f0")).expect("it exists");
    let before = info();
    assert_eq!((before.name.as_str(), before.mtu, before.queues), ("f0", 1500, 2));
    assert_eq!((before.up, before.strips_vlan_tags, before.attached), (true, true, None));
    run(&format!("ip netns exec {f} ethtool -K f0 rxvlan off"));
    run(&format!("ip netns exec {f} ethtool -L f0 rx 1 tx 1"));
    run(&format!("ip -n {f} link set f0 down mtu 1400"));
    let after = info();
    assert_eq!(
        (after.mtu, after.queues, after.up, after.strips_vlan_tags),
        (1400, 1, false, false)
    );
    let missing = inside(&f, || LinkInfo::of("f9")).expect_err("there is none");
    assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
}

#[test]
fn a_queue_that_is_being_released_is_waited_for() {
    let _alone = alone();
    let lab = Lab::new(1);
    let config = config(&["f0", "f1"]);
    let Opened { program, workers, .. } = open_in(&lab.boxed(), &config).expect("it opens");
    drop(program);
    let error = open_in(&lab.boxed(), &config).expect_err("the sockets are still there");
    assert!(matches!(error, AfxdpError::QueueBusy { queue: 0, .. }), "{error}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(300));
            drop(workers);
        });
        open_in(&lab.boxed(), &config).expect("it waits for them to go");
    });
}

#[test]
fn a_second_daemon_on_the_same_ports_is_refused() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
    let error = open_in(&lab.boxed(), &config(&["f1", "f0"])).expect_err("the ports are taken");
    assert!(matches!(&error, AfxdpError::ProgramBusy { device } if device == "f1"), "{error}");
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    assert!(crosses(&mut gateway, &mut left, &mut right, 0), "the first is unharmed");
}

#[test]
fn what_cannot_work_is_refused_with_its_remedy() {
    let _alone = alone();
    let lab = Lab::new(1);
    let refused = |config: &Config| open_in(&lab.boxed(), config).expect_err("it cannot work");
    let error = refused(&config(&["f0", "nowhere"]));
    assert!(
        matches!(&error, AfxdpError::NoDevice { device, .. } if device == "nowhere"),
        "{error}"
    );
    let error = refused(&config(&["f0", "f0"]));
    assert!(matches!(error, AfxdpError::Twice { .. }), "{error}");
    let error = refused(&config(&[]));
    assert!(matches!(error, AfxdpError::PortCount { count: 0 }), "{error}");
    let error = refused(&Config { ring_size: 100, ..config(&["f0"]) });
    assert!(matches!(error, AfxdpError::RingSize { size: 100 }), "{error}");
    let error = refused(&Config { copy: CopyMode::ZeroCopy, ..config(&["f0"]) });
    assert!(matches!(error, AfxdpError::NoZeroCopy { .. }), "{error}");
    run(&format!("ip -n {} link set f0 mtu 9000", lab.boxed()));
    let error = refused(&config(&["f0"]));
    assert!(matches!(error, AfxdpError::Mtu { mtu: 9000, .. }), "{error}");
    assert!(error.to_string().contains(&format!("mtu {MAX_MTU}")), "{error}");
    run(&format!("ip -n {} link set f0 mtu 1500", lab.boxed()));
    run(&format!("ip -n {} link set l0 mtu 9000", lab.left()));
    let native = Config { attach: AttachChoice::Native, ..config(&["f0"]) };
    let error = refused(&native);
    assert!(matches!(error, AfxdpError::Attach { .. }), "{error}");
    assert!(error.to_string().contains("3506"), "{error}");
    let opened = open_in(&lab.boxed(), &config(&["f0"])).expect("generic mode takes it");
    assert_eq!(opened.workers[0].ports.len(), 1);
    let description = opened.workers[0].ports[0].description();
    assert!(matches!(description, Description::AfXdp { attach: AttachMode::Generic, .. }));
    drop(opened);
    assert!(!lab.show(&lab.boxed(), "f0").contains("xdp"), "nothing stays attached");
}

#[test]
fn what_is_for_the_box_reaches_the_kernel() {
    let _alone = alone();
    let lab = Lab::new(1);
    run(&format!("ip netns exec {} sysctl -qw net.ipv4.ip_forward=1", lab.boxed()));
    assert!(lab.ping(&lab.left(), "198.18.2.2"), "the kernel forwards by itself");
    let local = ["198.18.1.1", "198.18.1.255"].map(|a| (a.parse().expect("an address"), 32));
    let config = routed(&["f0", "f1"]);
    let opened = inside(&lab.boxed(), || open(&config, local)).expect("the box opens");
    let mut gateway = Gateway::new(opened);
    run(&format!("ip -n {} neigh flush dev l0", lab.left()));
    assert!(lab.ping(&lab.left(), "198.18.1.1"), "ARP and ping of the box itself");
    assert!(!lab.ping(&lab.left(), "198.18.2.2"), "transit waits for the engine");
    assert!(!lab.ping(&lab.left(), "198.18.2.1"), "not yet a local address");
    let before = gateway.program.counters(A).expect("the counters are read");
    assert!(before.passed_local >= 3 && before.passed_link >= 1, "{before:?}");
    assert_eq!((before.redirected, before.no_socket), (6, 0), "{before:?}");
    assert_eq!(gateway.turn(), 6, "transit came to the socket");
    let network = ("198.18.2.0".parse().expect("an address"), 24);
    gateway.program.set_local([local[0], network]).expect("the maps take them");
    assert!(lab.ping(&lab.left(), "198.18.2.1"), "now it is local, by its prefix");
    gateway.program.set_local([local[1]]).expect("the maps take it");
    assert!(!lab.ping(&lab.left(), "198.18.1.1"), "no longer local");
    drop(gateway);
    assert!(lab.ping(&lab.left(), "198.18.2.2"), "on failure open: the kernel carries on");
}

#[test]
fn without_sockets_the_configured_verdict_applies() {
    let _alone = alone();
    let lab = Lab::new(1);
    run(&format!("ip netns exec {} sysctl -qw net.ipv4.ip_forward=1", lab.boxed()));
    for (on_failure, carried) in [(OnFailure::Open, true), (OnFailure::Closed, false)] {
        let config = Config { on_failure, ..routed(&["f0", "f1"]) };
        let Opened { program, workers, .. } = open_in(&lab.boxed(), &config).expect("it opens");
        drop(workers);
        // The kernel takes a closed socket out of the map when it releases it.
        assert!(soon(|| lab.ping(&lab.left(), "198.18.2.2") == carried), "{on_failure:?}");
        let counters = program.counters(A).expect("the counters are read");
        assert!(counters.no_socket >= 3, "{counters:?}");
    }
}

#[test]
fn a_deleted_device_gives_the_typed_error() {
    let _alone = alone();
    let lab = Lab::new(1);
    let opened = open_in(&lab.boxed(), &config(&["f0", "f1"])).expect("the box opens");
    let observer = opened.workers[0].ports[0].observer().expect("it has a socket");
    let mut gateway = Gateway::new(opened);
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    assert!(crosses(&mut gateway, &mut left, &mut right, 0));
    drop(right);
    run(&format!("ip -n {} link del f1", lab.boxed()));
    let (pool, ports) = gateway.workers[0].parts();
    let error = ports[1].check().expect_err("the device is gone");
    assert!(matches!(&error, PortError::DeviceGone { device } if device == "f1"), "{error}");
    let frame = pool.copy_in(&pattern(1, 60)).expect("a frame");
    ports[1].transmit(pool, frame).expect("the ring takes it");
    let error = ports[1].flush(pool, Nanos::default()).expect_err("the device is gone");
    assert!(matches!(error, PortError::DeviceGone { .. }), "{error}");
    // The worker takes it out of service, says so once, and goes on with the other.
    let frame = pattern(3, 60);
    assert!(soon(|| {
        left.send(0, [&frame[..]]);
        gateway.turn();
        gateway.stats().drops(DropReason::PortDown) > 0
    }));
    let event = gateway.outlets.events.pop().expect("it was reported");
    assert_eq!((event.worker, event.port), (0, B));
    assert!(matches!(event.event, PortEvent::Failed(PortError::DeviceGone { .. })));
    assert!(gateway.outlets.events.pop().is_none(), "once");
    assert!(observer.statistics().is_some());
    drop(gateway);
    assert!(observer.statistics().is_none(), "an observer does not keep the port open");
}

#[test]
fn a_link_that_goes_down_and_up_recovers() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    assert!(crosses(&mut gateway, &mut left, &mut right, 0));
    for _ in 0..3 {
        run(&format!("ip -n {} link set f1 down", lab.boxed()));
        assert_eq!(gateway.workers[0].parts().1[1].check().ok(), Some(LinkState::Down));
        let frame = pattern(3, 60);
        let before = gateway.stats().drops(DropReason::PortDown);
        assert!(soon(|| {
            left.send(0, [&frame[..]]);
            gateway.turn();
            gateway.stats().drops(DropReason::PortDown) > before
        }));
        run(&format!("ip -n {} link set f1 up", lab.boxed()));
        assert!(crosses_again(&mut gateway, &mut left, &mut right));
        assert!(crosses_again(&mut gateway, &mut right, &mut left));
    }
}

#[test]
fn malformed_and_truncated_frames_do_no_harm() {
    let _alone = alone();
    let lab = Lab::new(1);
    let Opened { program: _program, workers, .. } =
        open_in(&lab.boxed(), &config(&["f0", "f1"])).expect("the box opens");
    let share = workers.into_iter().next().expect("one worker");
    let faults = Faults {
        corruption: PerMillion(300_000),
        truncation: PerMillion(300_000),
        duplication: PerMillion(100_000),
        loss: PerMillion(100_000),
        ..Faults::default()
    };
    let ports: Vec<_> = share
        .ports
        .into_iter()
        .enumerate()
        .map(|(index, port)| FaultPort::new(port, index as u64, faults, faults))
        .collect();
    let pipeline = CrossConnect::new(&[(A, B)]);
    let mut worker = Worker::new(0, share.pool, ports, pipeline, Outlets::new(1, 4));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    let (mut arrived, mut empty) = (0, 0);
    for round in 0..200u32 {
        let frames: Vec<_> = (0..32)
            .map(|index| {
                let mut frame = pattern(round * 32 + index, 14 + (index as usize * 97) % 1480);
                let types = [[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0x88, 0xa8], [0, 3]];
                frame[12..14].copy_from_slice(&types[(round + index) as usize % types.len()]);
                frame.truncate(1 + (index as usize * 97) % 1500);
                frame
            })
            .collect();
        left.send(0, frames.iter().map(Vec::as_slice));
        for _ in 0..4 {
            worker.turn(monotonic());
        }
        right.receive(0, |frame| {
            arrived += 1;
            empty += u32::from(frame.is_empty());
        });
    }
    println!("{arrived} frames arrived, {empty} empty");
    assert!(arrived > 1000, "{arrived} frames arrived");
    let (pool, ports) = worker.parts();
    for port in ports.iter_mut() {
        port.reap(pool);
    }
    let held: usize = ports.iter().map(FaultPort::held).sum();
    assert_eq!(pool.held(), held, "no frame is lost");
}

#[test]
fn frames_that_the_peer_cannot_take_do_not_stop_the_others() {
    let _alone = alone();
    let lab = Lab::new(1);
    run(&format!("ip -n {} link set f0 mtu 3000", lab.boxed()));
    run(&format!("ip -n {} link set l0 mtu 3000", lab.left()));
    let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    let frames: Vec<_> = (0..20).map(|n| pattern(n, if n % 2 == 0 { 2900 } else { 60 })).collect();
    assert_eq!(left.send(0, frames.iter().map(Vec::as_slice)), 20);
    let mut seen = Vec::new();
    assert!(soon(|| {
        gateway.turn();
        right.receive(0, |frame| seen.push(number_of(frame)));
        seen.len() >= 10
    }));
    assert_eq!(seen, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
    let statistics = gateway.workers[0].parts().1[1].statistics();
    println!("{statistics:?}");
    assert!(crosses(&mut gateway, &mut left, &mut right, 0));
    let (pool, _) = gateway.workers[0].parts();
    assert!(pool.memory().size() > MAX_FRAME && pool.held() == 0);
}

/// The process that a kill test kills: holds the ports of the namespace named
/// in the environment (none: where it is) until its input ends. By itself it is a test that
/// opened ports are attached and dropped ones are not.
#[test]
fn held_ports_are_attached_and_dropped_ones_are_not() {
    if let Ok(namespace) = std::env::var(HELD) {
        let config = config(&["f0", "f1"]);
        let opened =
            if namespace.is_empty() { open(&config, []) } else { open_in(&namespace, &config) };
        match &opened {
            Ok(_) => println!("\nheld"),
            Err(error) => println!("\nrefused, privilege {}: {error}", error.is_privilege()),
        }
        let mut line = String::new();
        let _end = std::io::stdin().read_line(&mut line);
        return;
    }
    let _alone = alone();
    let lab = Lab::new(1);
    let opened = open_in(&lab.boxed(), &config(&["f0", "f1"])).expect("the box opens");
    assert!(lab.show(&lab.boxed(), "f0").contains("xdp"));
    drop(opened);
    assert!(!lab.show(&lab.boxed(), "f0").contains("xdp"));
}

const HOLDER: &str = "held_ports_are_attached_and_dropped_ones_are_not";
const HELD: &str = "PORTCULLIS_TEST_HELD_NAMESPACE";

#[test]
fn a_killed_process_leaves_nothing_attached_and_a_restart_works_at_once() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("the test's own path"))
            .args(["--exact", HOLDER, "--nocapture"])
            .env(HELD, lab.boxed())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test can run itself");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let held = output.lines().map_while(Result::ok).any(|line| line == "held");
        assert!(held, "the child opened the ports");
        assert!(lab.show(&lab.boxed(), "f0").contains("xdp"));
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        assert!(!lab.show(&lab.boxed(), "f0").contains("xdp"), "nothing stays attached");
        let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
        assert!(crosses(&mut gateway, &mut left, &mut right, 0));
    }
}

#[test]
fn a_lost_privilege_is_named() {
    let _alone = alone();
    let lab = Lab::new(1);
    // Another process: the library remembers what this one may do.
    let output = Command::new("ip")
        .args(["netns", "exec", &lab.boxed(), "setpriv", "--bounding-set=-all", "--inh-caps=-all"])
        .arg(std::env::current_exe().expect("the test's own path"))
        .args(["--exact", HOLDER, "--nocapture"])
        .env(HELD, "")
        .output()
        .expect("the test can run itself");
    let output = String::from_utf8_lossy(&output.stdout);
    let refused = output.lines().find(|line| line.starts_with("refused")).expect(&output);
    println!("{refused}");
    assert!(refused.starts_with("refused, privilege true"), "{refused}");
}

/// Stops a worker also when an assertion fails: its thread is waited for.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_running_worker_sleeps_wakes_forwards_and_stops() {
    let _alone = alone();
    let lab = Lab::new(1);
    let mut gateway = Gateway::open(&lab, &config(&["f0", "f1"]));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    // Long against what a busy machine takes to wake a thread.
    let patience = std::time::Duration::from_secs(1);
    let idle = Idle::Sleep { spins: 4, timeout: patience };
    let mut worker = gateway.workers.remove(0).with_idle(idle);
    let stats = worker.stats();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopped = Stop(&stop);
        let thread = scope.spawn(|| worker.run_pinned(Some(0), &stop));
        assert!(soon(|| stats.turns.get() > 4));
        for number in 0..200 {
            let frame = pattern(number, 60);
            let start = monotonic();
            assert_eq!(left.send(0, [&frame[..]]), 1);
            assert!(soon(|| right.collect(0).contains(&frame)), "frame {number}");
            let took = (monotonic() - start).0;
            assert!(took < patience.as_nanos() as u64, "woken by the frame, not by the clock");
        }
        let turns = stats.turns.get();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(stats.turns.get() - turns < 20, "it sleeps when nothing arrives");
        drop(stopped);
        assert!(thread.join().expect("it does not panic"), "it could be pinned");
    });
    assert_eq!(stats.port(B).tx.get(), (200, 12_000));
}
