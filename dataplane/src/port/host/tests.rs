//! The queue, both ways, over sockets that keep frames apart as a TAP does.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::*;
use crate::port::poll_readable;

const BOTH: [HostChoice; 2] = [HostChoice::Plain, HostChoice::Auto];

/// A queue of `ports` ports, the kernel's ends, and a pool.
struct Rig {
    queue: HostQueue,
    kernel: Vec<UnixDatagram>,
    pool: Pool,
    now: Nanos,
}

fn rig(ports: usize, choice: HostChoice) -> Rig {
    let pairs = (0..=ports).map(|_| UnixDatagram::pair().unwrap());
    let (ours, kernel): (Vec<_>, Vec<_>) = pairs.unzip();
    for socket in &kernel {
        socket.set_nonblocking(true).unwrap();
    }
    let files = ours.into_iter().map(|socket| File::from(OwnedFd::from(socket))).collect();
    let queue = HostQueue::new(files, choice).unwrap();
    let way = if choice == HostChoice::Auto { HostWay::IoUring } else { HostWay::Plain };
    assert_eq!(queue.way(), way, "this kernel has io_uring");
    Rig { queue, kernel, pool: Pool::new(512, false).unwrap(), now: Nanos::SECOND }
}

impl Rig {
    fn deliver(&mut self, port: Option<PortId>, bytes: &[u8]) {
        let (memory, free) = self.pool.split();
        self.queue.deliver_copy(memory, free, port, bytes);
    }
    fn flush(&mut self) -> (u64, u64) {
        let Account { delivered, refused } = self.queue.flush(self.pool.split().1);
        (delivered, refused)
    }
    /// One turn's packets: port and first byte.
    fn receive(&mut self) -> Vec<(u8, u8)> {
        let (mut burst, mut ports) = (Burst::new(), Ports::new());
        self.now = self.now + Nanos::from_millis(1);
        self.queue.receive(&mut self.pool, self.now, false, &mut burst, &mut ports);
        assert_eq!(burst.len(), ports.len());
        let mut seen = Vec::new();
        for (frame, port) in burst.drain(..).zip(ports) {
            let bytes = self.pool.memory().bytes(&frame);
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "frames are whole");
            assert_eq!((frame.start(), frame.len()), (crate::port::HEADROOM, 60));
            seen.push((port.0, bytes[0]));
            self.pool.put(frame);
        }
        seen
    }
    fn close(mut self) {
        self.queue.close(self.pool.split().1);
        assert_eq!((self.pool.held(), self.pool.lent()), (0, 0), "no frame is lost");
    }
}

#[test]
fn frames_keep_their_bounds_and_their_port() {
    for choice in BOTH {
        let mut rig = rig(2, choice);
        rig.deliver(Some(PortId(1)), b"second");
        rig.deliver(None, b"loopback");
        rig.deliver(Some(PortId(9)), b"nowhere");
        rig.deliver(Some(PortId(1)), b"third");
        assert_eq!(rig.flush(), (3, 1));
        assert_eq!(rig.flush(), (0, 0), "it is said once");
        for port in [0, 9] {
            let (memory, free) = rig.pool.split();
            let frame = copy_in(memory, free, b"shown").unwrap();
            rig.queue.show(memory, free, PortId(port), frame);
        }
        assert_eq!(rig.flush(), (0, 0), "what is shown does not count");
        let mut buffer = [0; 64];
        assert_eq!(rig.kernel[1].recv(&mut buffer).unwrap(), 6);
        assert_eq!(rig.kernel[2].recv(&mut buffer).unwrap(), 8);
        assert_eq!(rig.kernel[1].recv(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"third", "in order");
        assert_eq!(rig.kernel[0].recv(&mut buffer).unwrap(), 5);
        assert!(rig.kernel[0].recv(&mut buffer).is_err());
        rig.close();
    }
}

#[test]
fn whole_datagrams_are_delivered_in_their_turn() {
    for choice in BOTH {
        let mut rig = rig(1, choice);
        for round in 0..3_u8 {
            for number in 0..6 {
                let bytes = vec![round << 4 | number; if number % 2 == 0 { 20_000 } else { 60 }];
                rig.deliver(Some(PortId(0)), &bytes);
            }
            assert_eq!(rig.flush(), (6, 0));
            let mut buffer = vec![0; 65_536];
            for number in 0..6 {
                let len = rig.kernel[0].recv(&mut buffer).unwrap();
                assert_eq!(len, if number % 2 == 0 { 20_000 } else { 60 }, "{choice:?}");
                assert!(buffer[..len].iter().all(|byte| *byte == round << 4 | number));
            }
        }
        if choice == HostChoice::Auto {
            rig.deliver(Some(PortId(0)), &[0; 70_000]);
            assert_eq!(rig.flush(), (0, 1), "no IP packet is as long as that");
        }
        rig.close();
    }
}

#[test]
fn reading_is_bounded_and_no_port_waits_for_another() {
    for choice in BOTH {
        let mut rig = rig(2, choice);
        // A socket holds few datagrams: the flooded one is topped up every turn.
        let mut waited = 0;
        let mut second = Vec::new();
        for number in 0..20_u8 {
            while rig.kernel[0].send(&[9; 60]).is_ok() {}
            rig.kernel[1].send(&[number; 60]).unwrap();
            let seen = rig.receive();
            assert!(seen.len() <= READS_MAX);
            waited += usize::from(seen.iter().all(|(port, _)| *port == 0));
            second.extend(seen.iter().filter(|(port, _)| *port == 1).map(|(_, number)| *number));
        }
        for _ in 0..10 {
            second.extend(rig.receive().iter().filter(|seen| seen.0 == 1).map(|seen| seen.1));
        }
        assert_eq!(second, (0..20).collect::<Vec<_>>(), "{choice:?}");
        assert!(waited < 15, "{choice:?}: the second port waited {waited} turns of 20");
        rig.close();
    }
}

#[test]
fn everything_that_is_put_out_arrives_in_order() {
    for choice in BOTH {
        let mut rig = rig(1, choice);
        let (mut sent, mut seen) = (0_u32, Vec::new());
        while seen.len() < 2000 {
            while sent < 2000 && rig.kernel[0].send(&[sent as u8; 60]).is_ok() {
                sent += 1;
            }
            seen.extend(rig.receive().iter().map(|(_, number)| *number));
        }
        assert_eq!(seen, (0..2000_u32).map(|number| number as u8).collect::<Vec<_>>());
        assert!(rig.receive().is_empty());
        rig.close();
    }
}

#[test]
fn a_sleeper_is_woken() {
    for choice in BOTH {
        let mut rig = rig(2, choice);
        assert!(rig.receive().is_empty());
        let quiet = crate::clock::monotonic();
        let readable: Vec<_> = rig.queue.pollable().collect();
        poll_readable(&readable, Duration::from_millis(30));
        let slept = crate::clock::monotonic().saturating_sub(quiet);
        assert!(slept >= Nanos::from_millis(25), "{choice:?}: nothing was there");

        let sender = rig.kernel.remove(1);
        let start = crate::clock::monotonic();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                sender.send(&[1; 60]).unwrap();
            });
            poll_readable(&readable, Duration::from_secs(10));
        });
        let slept = crate::clock::monotonic().saturating_sub(start);
        assert!(slept < Nanos::from_secs(5), "{choice:?}: it slept on");
        drop(readable);
        assert_eq!(rig.receive(), [(1, 1)]);
        rig.close();
    }
}

#[test]
fn deliveries_that_find_no_room_are_refused_and_none_is_lost() {
    for choice in BOTH {
        let mut rig = rig(1, choice);
        let mut settled = (0, 0);
        for _ in 0..600 {
            rig.deliver(Some(PortId(0)), &[7; 60]);
            let (delivered, refused) = rig.flush();
            settled = (settled.0 + delivered, settled.1 + refused);
        }
        let mut buffer = [0; 64];
        let mut heard = 0;
        loop {
            while rig.kernel[0].recv(&mut buffer).is_ok() {
                heard += 1;
            }
            // What waited for room goes out as room comes.
            rig.receive();
            let (delivered, refused) = rig.flush();
            settled = (settled.0 + delivered, settled.1 + refused);
            if settled.0 + settled.1 == 600 && heard == settled.0 {
                break;
            }
            assert!(heard <= 600);
        }
        assert!(settled.1 > 100, "{choice:?}: {settled:?}");
        rig.close();
    }
}

#[test]
fn what_is_under_way_at_the_end_is_given_up() {
    let mut rig = rig(3, HostChoice::Auto);
    for socket in &rig.kernel {
        while socket.send(&[5; 60]).is_ok() {}
    }
    assert_eq!(rig.receive().len(), READS_MAX, "and no more");
    for _ in 0..350 {
        rig.deliver(Some(PortId(2)), &[7; 60]);
    }
    assert!(rig.flush().0 < 350, "some wait for room");
    assert!(rig.pool.held() > 3 * 64, "posted reads and waiting writes");
    rig.close();
}

#[test]
fn a_tap_that_goes_away_is_only_asked_now_and_then_and_the_others_go_on() {
    for choice in BOTH {
        let mut rig = rig(2, choice);
        rig.receive();
        drop(rig.kernel.remove(0));
        for number in 0..5 {
            rig.kernel[0].send(&[number; 60]).unwrap();
            let mut seen = rig.receive();
            seen.extend(rig.receive());
            assert_eq!(seen, [(1, number)]);
        }
        rig.deliver(Some(PortId(0)), &[1; 60]);
        rig.deliver(Some(PortId(1)), &[1; 60]);
        assert_eq!(rig.flush(), (1, 1));
        rig.close();
    }
}

#[test]
fn an_empty_pool_stops_reading_until_frames_are_back() {
    for choice in BOTH {
        let mut rig = rig(1, choice);
        let taken: Vec<_> = std::iter::from_fn(|| rig.pool.take()).collect();
        rig.kernel[0].send(&[3; 60]).unwrap();
        assert!(rig.receive().is_empty());
        rig.deliver(Some(PortId(0)), &[1; 60]);
        assert_eq!(rig.flush(), (0, 1));
        for frame in taken {
            rig.pool.put(frame);
        }
        assert_eq!(rig.receive(), [(0, 3)]);
        rig.close();
    }
}

#[test]
fn memory_outlives_a_pool_that_goes_first() {
    let Rig { queue, kernel, pool, .. } = {
        let mut rig = rig(1, HostChoice::Auto);
        rig.receive();
        rig
    };
    let area = pool.memory().area();
    drop(pool);
    kernel[0].send(&[1; 60]).unwrap();
    assert_eq!(area.holders(), 2, "the posted read keeps it");
    drop(queue);
    assert_eq!(area.holders(), 1, "and has ended");
}

#[test]
fn depths_are_powers_of_two_and_bounded() {
    for ports in 0..=MAX_PORTS {
        let depth = uring::depth(ports);
        assert!(depth.is_power_of_two() && (8..=64).contains(&depth));
        assert!(frames(ports) <= 256 + MAX_PORTS * 8 + uring::WRITES_MAX);
    }
}
