//! The queue over sockets that keep frames apart as a TAP does.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use super::*;

/// A queue of `ports` ports and the kernel's ends.
fn rig(ports: usize) -> (HostQueue, Vec<UnixDatagram>) {
    let pairs = (0..=ports).map(|_| UnixDatagram::pair().unwrap());
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.unzip();
    for socket in ours.iter().chain(&theirs) {
        socket.set_nonblocking(true).unwrap();
    }
    let files = ours.into_iter().map(|socket| File::from(OwnedFd::from(socket))).collect();
    (HostQueue::new(files), theirs)
}

#[test]
fn frames_keep_their_bounds_and_their_port() {
    let (queue, kernel) = rig(2);
    assert!(queue.deliver(Some(PortId(1)), b"second"));
    assert!(queue.deliver(None, b"loopback"));
    assert!(!queue.deliver(Some(PortId(9)), b"nowhere"));
    let mut buffer = [0; 64];
    assert_eq!(kernel[1].recv(&mut buffer).unwrap(), 6);
    assert_eq!(kernel[2].recv(&mut buffer).unwrap(), 8);
    assert!(kernel[0].recv(&mut buffer).is_err());
}

#[test]
fn reading_is_bounded_and_takes_turns() {
    let (mut queue, kernel) = rig(2);
    let mut pool = Pool::new(128, false).unwrap();
    for socket in &kernel[..2] {
        for number in 0..20_u8 {
            socket.send(&[number; 60]).unwrap();
        }
    }
    let (mut burst, mut ports) = (Burst::new(), ArrayVec::new());
    assert_eq!(queue.receive(&mut pool, &mut burst, &mut ports), READS_MAX);
    assert_eq!(pool.memory().bytes(&burst[20]), [0; 60], "then the second port");
    assert_eq!((ports[19], ports[20]), (PortId(0), PortId(1)));
    for frame in burst.drain(..) {
        pool.put(frame);
    }
    ports.clear();
    assert_eq!(queue.receive(&mut pool, &mut burst, &mut ports), 8, "what was left of the second");
    assert_eq!(pool.memory().bytes(&burst[0]), [12; 60]);
    for frame in burst.drain(..) {
        pool.put(frame);
    }
    assert_eq!(queue.receive(&mut pool, &mut burst, &mut ports), 0);
    assert_eq!(pool.held(), 0, "no frame is lost");
}
