//! What becomes of the ports of a running daemon when their devices go down, up,
//! away and back, and when routes and neighbours change under traffic. Needs root.

#[path = "ports_life/lab.rs"]
mod lab;
mod netns;

use dataplane::clock::monotonic;
use lab::{Lab, OPEN, alone, spread};

#[test]
fn a_deleted_device_comes_back_by_itself_fifty_times() {
    let _alone = alone();
    let mut lab = Lab::new(1);
    lab.start(OPEN, &[]);
    assert!(lab.pings());
    let frames = lab.frames();
    let (descriptors, resident) = (lab.descriptors(), lab.resident());
    let stream = lab.stream(&lab.server, "198.18.2.2");
    let mut back = Vec::new();
    for cycle in 0..50 {
        lab.gateway.run("ip link del g1");
        if cycle % 10 == 0 {
            lab.until_in_service(1, false);
            assert_eq!(lab.out(1).as_deref(), Some("there is no device g1"));
            assert_eq!(lab.port(1)["xdp"], "none");
            assert!(lab.out(0).is_none(), "the other one is there");
            let (free, lent, held) = lab.frames();
            assert_eq!(held, frames.2, "{free} free, {lent} lent");
            assert!(lent < frames.1, "what g1 had is free: {lent} of {}", frames.1);
        }
        lab.wire(1);
        let made = monotonic();
        let arrived = stream.next(made, None);
        let arrived = arrived.unwrap_or_else(|| panic!("cycle {cycle}: {}", lab.errors()));
        back.push(arrived - made);
    }
    drop(stream);
    let (middle, longest) = spread(&mut back);
    println!("device made to first datagram: median {middle:.1} ms, longest {longest:.1} ms");
    assert!(longest < 3000.0);
    lab.until("the frames come to rest", || lab.frames() == frames);
    lab.until("descriptors are closed", || lab.descriptors() <= descriptors);
    let grown = lab.resident().saturating_sub(resident);
    println!("resident memory: {resident} KiB and {grown} more");
    assert!(grown < 2048, "{grown} KiB more");
    let lines = lab.errors().lines().count();
    assert!(lines < 40, "{lines} lines for 100 changes:\n{}", lab.errors());
    assert!(lab.pings());
}
