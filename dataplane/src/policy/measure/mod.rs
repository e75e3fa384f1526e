//! Matches on time, chance and amounts: time, statistic, quota, nfacct, rateest, cluster, cpu.

pub mod amounts;
pub mod cluster;
pub mod estimator;
pub mod time;

use std::sync::Arc;

use super::eval::{Outcome, PacketView};
use super::matches::Neg;

pub use amounts::{Account, Nth, Quota};
pub use cluster::ClusterMatch;
pub use estimator::{Estimator, RateestMatch};
pub use time::TimeMatch;

/// One of them.
#[derive(Clone, Debug)]
pub enum MeasureMatch {
    /// `-m time`.
    Time(TimeMatch),
    /// `-m statistic --mode random`: holds when 31 thrown bits lie below the number.
    Random(Neg<u32>),
    /// `-m statistic --mode nth`.
    Nth(Neg<Arc<Nth>>),
    /// `-m quota`.
    Quota(Neg<Arc<Quota>>),
    /// `-m cpu`.
    Cpu(Neg<u32>),
    /// `-m cluster`.
    Cluster(ClusterMatch),
    /// `-m nfacct`: counts, and always holds.
    Nfacct(Arc<Account>),
    /// `-m rateest`.
    Rateest(RateestMatch),
}

impl MeasureMatch {
    /// Bits of a throw that `--probability` is compared with.
    pub const CHANCES: u32 = 1 << 31;

    /// What the match says of the packet. A dynamic match changes its state here.
    pub fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let length = u64::from(packet.parsed.l3_len);
        let holds = match self {
            Self::Time(time) => time.matches(packet.now, &packet.scene),
            Self::Random(below) => {
                below.apply(packet.scene.dice.throw() & (Self::CHANCES - 1) < below.value)
            }
            Self::Nth(nth) => nth.apply(nth.value.take()),
            Self::Quota(quota) => quota.apply(quota.value.take(length)),
            Self::Cpu(cpu) => cpu.apply(packet.scene.cpu == cpu.value),
            Self::Cluster(cluster) => return cluster.matches(packet).into(),
            Self::Nfacct(account) => {
                account.add(length);
                true
            }
            Self::Rateest(rateest) => rateest.matches(packet.now),
        };
        holds.into()
    }

    /// Whether evaluating it may do more than answer: change state, or drop a packet
    /// whose fixed header is whole. Matches behind it must not be moved in front of it.
    pub fn has_effect(&self) -> bool {
        match self {
            // A throw is one throw less for the next who asks.
            Self::Random(_) | Self::Nth(_) | Self::Quota(_) | Self::Nfacct(_) => true,
            Self::Time(_) | Self::Cpu(_) | Self::Cluster(_) | Self::Rateest(_) => false,
        }
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}
