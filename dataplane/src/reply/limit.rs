//! How many ICMP errors may be sent: the kernel's global token bucket and its
//! bucket per destination, with time as an argument.
//!
//! One limiter belongs to one worker. The table of destinations has a fixed
//! size; a newcomer takes the place of the least recently used entry of its
//! set, which only ever gives a destination a fresh burst.

use crate::clock::Nanos;
use crate::packet::Family;
use crate::reply::Message;

/// The kernel's tick: buckets count in it, as `CONFIG_HZ=250` does.
const TICK: u64 = 4_000_000;
/// Ticks in a second.
const HZ: u64 = 250;
/// Messages that a destination may save up.
const BURST: u64 = 6;
/// Entries of one set of the table.
const WAYS: usize = 4;

/// The kernel's settings, under their sysctl names. Zero turns a limit off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `net.ipv4.icmp_ratelimit`: milliseconds per message and destination.
    pub icmp_ratelimit_ms: u32,
    /// `net.ipv4.icmp_ratemask`: bit per ICMP type that is limited.
    pub icmp_ratemask: u32,
    /// `net.ipv6.icmp.ratelimit`: milliseconds per message and destination.
    pub icmpv6_ratelimit_ms: u32,
    /// `net.ipv6.icmp.ratemask`: bit per ICMPv6 type below 128 that is limited.
    pub icmpv6_ratemask: u128,
    /// `net.ipv4.icmp_msgs_per_sec`, both families together.
    pub icmp_msgs_per_sec: u32,
    /// `net.ipv4.icmp_msgs_burst`.
    pub icmp_msgs_burst: u32,
    /// `net.ipv4.route.error_cost`, ticks: a further cost of "no route" errors over IPv4.
    pub route_error_cost: u32,
    /// `net.ipv4.route.error_burst`, ticks.
    pub route_error_burst: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            icmp_ratelimit_ms: 1000,
            icmp_ratemask: 0x1818,
            icmpv6_ratelimit_ms: 100,
            icmpv6_ratemask: !(1 << 2),
            icmp_msgs_per_sec: 1000,
            icmp_msgs_burst: 50,
            route_error_cost: HZ as u32,
            route_error_burst: 5 * HZ as u32,
        }
    }
}

impl Settings {
    /// No limit at all.
    pub fn off() -> Self {
        Self {
            icmp_ratelimit_ms: 0,
            icmpv6_ratelimit_ms: 0,
            icmp_msgs_per_sec: 0,
            route_error_cost: 0,
            ..Self::default()
        }
    }
}

/// The saved-up ticks of one destination.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    address: u128,
    family: Option<Family>,
    tokens: u64,
    last: u64,
}

/// The limiter.
#[derive(Debug)]
pub struct Limiter {
    settings: Settings,
    credit: u32,
    stamp: u64,
    buckets: Box<[Bucket]>,
}

impl Limiter {
    /// A limiter that remembers at least `destinations` destinations.
    pub fn new(settings: Settings, destinations: usize) -> Self {
        let sets = destinations.div_ceil(WAYS).next_power_of_two();
        Self {
            credit: settings.icmp_msgs_burst,
            stamp: 0,
            settings,
            buckets: vec![Bucket::default(); sets * WAYS].into(),
        }
    }
    /// Whether an error may now be sent to `to`; if so, it is paid for.
    /// `prefix_len` is that of the route to `to`: wider IPv6 routes get more.
    pub fn allow(
        &mut self,
        now: Nanos,
        family: Family,
        message: Message,
        to: u128,
        prefix_len: u8,
    ) -> bool {
        if !self.limited(family, message) {
            return true;
        }
        let now = now.0 / TICK;
        if !self.global(now) {
            return false;
        }
        let cost = match family {
            Family::V4 => ticks(self.settings.icmp_ratelimit_ms),
            Family::V6 => {
                let wider = u32::from(128 - prefix_len.min(128)) >> 5;
                ticks(self.settings.icmpv6_ratelimit_ms) >> wider
            }
        };
        let allowed = cost == 0 || self.bucket(now, family, to).take(now, cost, BURST * cost);
        if allowed {
            self.credit = self.credit.saturating_sub(1);
        }
        allowed
    }
    /// As [`Limiter::allow`] for an unreachable that routing sends over IPv4,
    /// which the kernel charges to the same bucket a second time.
    pub fn allow_route_error(&mut self, now: Nanos, message: Message, to: u128) -> bool {
        let ticks = now.0 / TICK;
        let cost = u64::from(self.settings.route_error_cost);
        let burst = u64::from(self.settings.route_error_burst);
        let paid = cost == 0 || self.bucket(ticks, Family::V4, to).take(ticks, cost, burst);
        paid && self.allow(now, Family::V4, message, to, 32)
    }

    fn limited(&self, family: Family, message: Message) -> bool {
        match (family, message.kind, message.code) {
            // Path MTU discovery is never limited.
            (Family::V4, 3, 4) | (Family::V6, 2, _) => false,
            (Family::V4, kind @ 0..=18, _) => self.settings.icmp_ratemask >> kind & 1 == 1,
            (Family::V6, kind @ 0..=127, _) => self.settings.icmpv6_ratemask >> kind & 1 == 1,
            _ => false,
        }
    }

    /// Whether the global bucket has credit, refilling it when it is empty and
    /// a fiftieth of a second has passed.
    fn global(&mut self, now: u64) -> bool {
        let rate = u64::from(self.settings.icmp_msgs_per_sec);
        if rate == 0 || self.credit > 0 {
            return true;
        }
        let passed = now.saturating_sub(self.stamp).min(HZ);
        let earned = rate * passed / HZ;
        if passed < HZ / 50 || earned == 0 {
            return false;
        }
        self.stamp = now;
        self.credit = earned.min(self.settings.icmp_msgs_burst.into()) as u32;
        true
    }

    /// The bucket of a destination; a new one is full.
    fn bucket(&mut self, now: u64, family: Family, address: u128) -> &mut Bucket {
        let folded = (address ^ address >> 64) as u64;
        let hash = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let set = (hash as usize % (self.buckets.len() / WAYS)) * WAYS;
        let ways = &mut self.buckets[set..set + WAYS];
        let held = ways.iter().position(|b| b.family == Some(family) && b.address == address);
        let way = held.unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|&way| (ways[way].family.is_some(), ways[way].last));
            let way = oldest.unwrap_or(0);
            let last = now.saturating_sub(60 * HZ);
            ways[way] =
                Bucket { address, family: Some(family), tokens: 60 * HZ - (now - last), last };
            way
        });
        &mut ways[way]
    }
}

impl Bucket {
    fn take(&mut self, now: u64, cost: u64, burst: u64) -> bool {
        self.tokens = (self.tokens + now.saturating_sub(self.last)).min(burst);
        self.last = now;
        let paid = self.tokens >= cost;
        if paid {
            self.tokens -= cost;
        }
        paid
    }
}

/// Milliseconds in ticks, rounded up as the kernel's conversion does.
fn ticks(ms: u32) -> u64 {
    (u64::from(ms) * 1_000_000).div_ceil(TICK)
}
