//! A worker's side of the host road: what this machine sends, and what it is given.

use super::{Origin, Pipeline, Worker};
use crate::clock::Nanos;
use crate::packet::PortId;
use crate::port::host::Account;
use crate::port::{Frame, Port};
use crate::stats::WorkerStats;
use crate::verdict::DropReason;

impl<P: Port, L: Pipeline> Worker<P, L> {
    /// Sends what this machine itself puts out.
    pub(super) fn host_turn(&mut self, now: Nanos, busy: bool) -> usize {
        let Some(host) = &mut self.host else { return 0 };
        host.receive(&mut self.pool, now, busy, &mut self.burst, &mut self.arrived_on);
        let received = self.burst.len();
        if received > 0 {
            self.process(now, Origin::Host);
        }
        received
    }

    /// Hands a frame to this machine. Without a host road it is only counted.
    pub(super) fn deliver(&mut self, frame: Frame, arrived_on: Option<PortId>) {
        let (memory, free) = self.pool.split();
        if let Some(host) = &mut self.host {
            return host.deliver(memory, free, arrived_on, frame);
        }
        self.stats.delivered.add(1);
        free.put(frame);
    }
}

impl<P, L> Worker<P, L> {
    /// Sends off what was delivered in this turn.
    pub(super) fn flush_host(&mut self) {
        if let Some(host) = &mut self.host {
            let account = host.flush(self.pool.split().1);
            self.account(account);
        }
    }

    /// Ends what is under way, while the pool is there to take the frames.
    pub(super) fn close_host(&mut self) {
        if let Some(host) = &mut self.host {
            let account = host.close(self.pool.split().1);
            self.account(account);
        }
    }

    /// Counts what became of deliveries.
    fn account(&mut self, Account { delivered, refused }: Account) {
        self.stats.delivered.add(delivered);
        for _ in 0..refused {
            WorkerStats::drop(&self.stats, DropReason::HostRefused);
        }
    }
}
