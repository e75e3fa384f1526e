//! The oracle's own `-m limit`: credit in the kernel's units, 250 ticks a second.

use std::collections::HashMap;

use dataplane::clock::Nanos;
use dataplane::policy::TableId;

use crate::model::LimitSpec;

const TICKS_PER_SECOND: u32 = 250;
/// Nanoseconds of one tick.
const TICK: u64 = 1_000_000_000 / TICKS_PER_SECOND as u64;
/// `--limit` averages are in 1/10000 s.
const SCALE: u32 = 10_000;
/// The largest power of two with which a day's worth of credit fits 32 bits.
const CREDIT_PER_TICK: u32 = {
    let most = u32::MAX / (TICKS_PER_SECOND * 60 * 60 * 24);
    1 << (31 - most.leading_zeros())
};

/// Where a limit stands: table, chain, rule, match.
pub(super) type Place = (TableId, String, usize, usize);

/// Every bucket that was met so far; one that was not is full.
#[derive(Clone, Debug, Default)]
pub(super) struct Buckets {
    known: HashMap<Place, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tick: u64,
    credit: u32,
}

fn credits(user: u32) -> u32 {
    let per_second = TICKS_PER_SECOND * CREDIT_PER_TICK;
    if user > u32::MAX / per_second {
        (user / SCALE).wrapping_mul(per_second)
    } else {
        user * per_second / SCALE
    }
}

impl Buckets {
    /// Spends one packet's worth of credit if there is enough.
    pub(super) fn spend(&mut self, place: Place, spec: LimitSpec, now: Nanos) -> bool {
        let tick = now.0 / TICK;
        let full = credits(spec.avg.wrapping_mul(spec.burst));
        let cost = credits(spec.avg);
        let bucket = self.known.entry(place).or_insert(Bucket { tick, credit: full });
        let elapsed = tick.wrapping_sub(bucket.tick) as u32;
        let earned = elapsed.wrapping_mul(CREDIT_PER_TICK);
        bucket.tick = tick;
        bucket.credit = bucket.credit.wrapping_add(earned).min(full);
        let enough = bucket.credit >= cost;
        if enough {
            bucket.credit -= cost;
        }
        enough
    }
}
