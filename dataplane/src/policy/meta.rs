//! Targets that change what is known of a packet, not the packet, and let the walk go
//! on: CLASSIFY, IDLETIMER, HMARK.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::eval::PacketView;
use super::hmark::HmarkTarget;
use super::measure::Estimator;
use crate::clock::Nanos;

/// One of them.
#[derive(Clone, Debug)]
pub enum MetaTarget {
    /// `CLASSIFY --set-class`: major number in the high half.
    Classify(u32),
    /// `IDLETIMER`.
    IdleTimer {
        /// What is started anew, shared by its label.
        timer: Arc<IdleTimer>,
        /// `--timeout`.
        timeout: Nanos,
    },
    /// RATEEST.
    Rateest(Arc<Estimator>),
    /// HMARK.
    Hmark(Box<HmarkTarget>),
}

/// A timer that runs out when no packet came for a while.
#[derive(Debug, Default)]
pub struct IdleTimer {
    /// When it runs out; 0: never started.
    deadline: AtomicU64,
}

impl IdleTimer {
    /// Starts it anew.
    pub fn start(&self, now: Nanos, timeout: Nanos) {
        self.deadline.store((now + timeout).0, Ordering::Relaxed);
    }

    /// Starts it, unless it has been before.
    pub fn begin(&self, now: Nanos, timeout: Nanos) {
        let deadline = (now + timeout).0;
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // Whoever was first has started it later than `now`.
        let _ = self.deadline.compare_exchange(0, deadline, success, failure);
    }

    /// What is left of it; `None` once it has run out.
    pub fn left(&self, now: Nanos) -> Option<Nanos> {
        let deadline = Nanos(self.deadline.load(Ordering::Relaxed));
        (deadline > now).then(|| deadline.saturating_sub(now))
    }
}

impl MetaTarget {
    /// The name that `-j` takes.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Classify(_) => "CLASSIFY",
            Self::IdleTimer { .. } => "IDLETIMER",
            Self::Rateest(_) => "RATEEST",
            Self::Hmark(_) => "HMARK",
        }
    }

    /// Carries it out.
    pub fn apply(&self, packet: &mut PacketView<'_>) {
        match self {
            Self::Classify(class) => packet.priority = *class,
            Self::IdleTimer { timer, timeout } => timer.start(packet.now, *timeout),
            Self::Rateest(estimator) => {
                estimator.add(u64::from(packet.parsed.l3_len), packet.now);
            }
            Self::Hmark(target) => {
                if let Some(mark) = target.mark(packet) {
                    packet.mark = mark;
                }
            }
        }
    }
}
