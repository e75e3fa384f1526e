//! Amounts that rules spend or collect: `-m statistic --mode nth`, `-m quota`, `-m nfacct`.
//!
//! Life cycle: made by the policy compiler, shared by every snapshot in which the rule,
//! or the name, survives. Concurrency: any worker may take or add at any time; each is
//! one atomic word, so nothing is counted twice or lost.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// `--mode nth`: one packet of every so many.
#[derive(Debug)]
pub struct Nth {
    every: u32,
    /// How many have gone by since one was taken, up to `every - 1`.
    passed: AtomicU32,
}

impl Nth {
    /// Takes one of `every` packets, the first of them after `packet` others.
    /// `packet` is below `every`.
    pub fn new(every: u32, packet: u32) -> Self {
        let every = every.max(1);
        let passed = AtomicU32::new((every - 1).saturating_sub(packet));
        Self { every, passed }
    }

    /// Whether the packet is one to take.
    pub fn take(&self) -> bool {
        let last = self.every - 1;
        let next = |passed| Some(if passed >= last { 0 } else { passed + 1 });
        let before = self.passed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.is_ok_and(|passed| passed >= last)
    }

    /// Of how many packets it takes one.
    pub fn every(&self) -> u32 {
        self.every
    }

    /// Packets that went by since one was taken.
    pub fn passed(&self) -> u32 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Goes on from what [`Nth::passed`] said.
    pub fn restore(&self, passed: u32) {
        self.passed.store(passed.min(self.every - 1), Ordering::Relaxed);
    }
}

/// `-m quota`: bytes that may still pass.
#[derive(Debug)]
pub struct Quota(AtomicU64);

impl Quota {
    /// A full one.
    pub const fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Whether a packet of that length still fits. Once one does not, none does.
    pub fn take(&self, length: u64) -> bool {
        let next = |left: u64| Some(left.saturating_sub(length));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.is_ok_and(|left| left >= length)
    }

    /// Bytes left.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets what is left.
    pub fn restore(&self, left: u64) {
        self.0.store(left, Ordering::Relaxed);
    }
}

/// `-m nfacct`: packets and bytes under a name.
#[derive(Debug, Default)]
pub struct Account {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Account {
    /// One more packet.
    pub fn add(&self, length: u64) {
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(length, Ordering::Relaxed);
    }

    /// Packets and bytes so far.
    pub fn counted(&self) -> (u64, u64) {
        (self.packets.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Starts again from zero; what it was. Nothing in between is lost.
    pub fn reset(&self) -> (u64, u64) {
        (self.packets.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }

    /// Adds what was counted elsewhere.
    pub fn restore(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_every_so_many_beginning_with_the_given() {
        let taken = |every, packet| {
            let nth = Nth::new(every, packet);
            (0..7).map(|_| nth.take()).collect::<Vec<_>>()
        };
        assert_eq!(taken(3, 0), [true, false, false, true, false, false, true]);
        assert_eq!(taken(3, 2), [false, false, true, false, false, true, false]);
        assert_eq!(taken(1, 0), [true; 7]);
        let (nth, other) = (Nth::new(3, 1), Nth::new(3, 1));
        assert_eq!([nth.take(), nth.take()], [false, true]);
        other.restore(nth.passed());
        assert_eq!([other.take(), other.take(), other.take()], [false, false, true]);
    }

    #[test]
    fn a_quota_ends_with_the_first_packet_that_does_not_fit() {
        let quota = Quota::new(250);
        assert!(quota.take(100) && quota.take(100));
        assert!(!quota.take(100), "50 are left");
        assert!(!quota.take(40), "and gone");
        assert!(Quota::new(100).take(100));
    }

    #[test]
    fn workers_never_take_more_than_there_is() {
        let (quota, nth, account) = (Quota::new(100_000), Nth::new(4, 0), Account::default());
        let work = || {
            let mut taken = (0, 0);
            for _ in 0..5_000 {
                taken.0 += u64::from(quota.take(10));
                taken.1 += u64::from(nth.take());
                account.add(10);
            }
            taken
        };
        let taken: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().map(|taken| taken.0).sum::<u64>(), 10_000);
        assert_eq!(taken.iter().map(|taken| taken.1).sum::<u64>(), 5_000);
        assert_eq!(account.reset(), (20_000, 200_000));
        assert_eq!(account.counted(), (0, 0));
    }
}
