//! Lists of connections: who is on them, who is forgotten when.

use super::*;
use crate::conntrack::Config;
use crate::wire::build::{ETH_DST, Packet};
use crate::wire::{Frame, parse};

struct Lab {
    conntrack: Conntrack,
    table: ConnTable,
    tick: u64,
}

impl Lab {
    fn new(len: u8) -> Self {
        let conntrack = Conntrack::new(Config::new([7; 16])).unwrap();
        Self { conntrack, table: ConnTable::new(len), tick: 1000 }
    }

    fn now(&self) -> Nanos {
        Nanos(self.tick * super::super::TICK_NS)
    }

    /// One datagram of the connection from `sport`, some ticks later.
    fn udp(&mut self, ticks: u64, sport: u16, confirm: bool) -> u32 {
        self.tick += ticks;
        let frame = Packet::udp("198.51.100.1", sport, "203.0.113.9", 53).build();
        let Ok(Frame::Ip(parsed)) = parse(&frame, ETH_DST) else { panic!("not IP") };
        let mut tracking = self.conntrack.track(&parsed, &frame, false, self.now()).unwrap();
        let view = self.conntrack.view(tracking.conn.unwrap()).unwrap();
        let asker = Asker {
            conntrack: &self.conntrack,
            tuple: view.original,
            confirmed: view.status & status::CONFIRMED != 0,
            assured: view.status & status::ASSURED != 0,
            worker: 0,
            tick: self.tick,
            now: self.now(),
        };
        let count = self.table.count(7, &asker).unwrap();
        if confirm {
            let _ = self.conntrack.confirm(&mut tracking, self.now());
        } else {
            self.conntrack.discard(tracking);
        }
        count
    }

    fn end(&self, sport: u16) {
        let row = self.conntrack.rows(self.now()).find(|row| row.view.original.sport == sport);
        assert!(self.conntrack.remove(row.unwrap().view.id));
    }
}

#[test]
fn connections_are_counted_once_and_forgotten_in_order() {
    for len in [32, 0] {
        let mut lab = Lab::new(len);
        assert_eq!([1, 2, 3].map(|sport| lab.udp(2, sport, true)), [1, 2, 3]);
        assert_eq!((lab.udp(1, 1, true), lab.udp(0, 3, true)), (3, 3));
        lab.end(3);
        // Its own connection is found before the one that is over.
        assert_eq!((lab.udp(2, 1, true), lab.udp(2, 2, true)), (3, 3));
        assert_eq!(lab.udp(2, 4, true), 3);
        assert_eq!(lab.table.len(), (1, 3));
    }
}

#[test]
fn what_was_dropped_does_not_count_from_the_next_tick_on() {
    let mut lab = Lab::new(32);
    assert_eq!(lab.udp(2, 1, true), 1);
    assert_eq!([lab.udp(1, 2, false), lab.udp(1, 3, false), lab.udp(1, 4, true)], [2, 2, 2]);
    // Within a tick nobody looks again.
    let found: Vec<u32> = (0..5).map(|at| lab.udp(u64::from(at == 0), 10 + at, false)).collect();
    assert_eq!(found, [3, 4, 5, 6, 7]);
}

#[test]
fn one_look_forgets_a_bounded_number() {
    let mut lab = Lab::new(32);
    for sport in 1..=103 {
        lab.udp(1, sport, true);
    }
    (1..=103).for_each(|sport| lab.end(sport));
    // As seen of the kernel: 65 are forgotten, and the new one is counted.
    assert_eq!(lab.udp(1, 200, true), 39);
    assert_eq!((lab.udp(1, 200, true), lab.udp(1, 201, true)), (1, 2));
}
