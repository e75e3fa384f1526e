//! Live traces: the one tap that may be open, and what its client is told. It is closed when
//! the client goes away, and ends by itself whatever becomes of us.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane::clock::{Nanos, monotonic, utc_offset};
use dataplane::logbook::Rate;
use dataplane::packet::PortId;
use dataplane::publish::{Publisher, Subscription};
use dataplane::tap::{FRAME_BYTES, Tap, Terms};

use crate::api::protocol::{PacketTrace, Traced};
use crate::api::{Code, Failure, Feed, Response};
use crate::apply::PolicyStore;
use crate::iptables::TableNames;
use crate::trace::filter;
use crate::trace::tell::{Teller, Words};

/// Unless the client says otherwise.
const COUNT: u64 = 100;
const FOR: Nanos = Nanos::from_secs(10);
const RATE: u32 = 1000;
/// And at most.
const COUNT_MAX: u64 = 1_000_000;
const FOR_MAX: Nanos = Nanos::from_secs(3600);
const RATE_MAX: u32 = 50_000;
/// Records that may wait to be told: some 4 KiB each.
const ROOM: usize = 4096;
/// Packets in one answer at most.
const BATCH: usize = 256;

/// The desk at which traces are asked for.
#[derive(Debug)]
pub(super) struct TapDesk {
    taps: Mutex<Publisher<Tap>>,
}

impl Default for TapDesk {
    fn default() -> Self {
        Self { taps: Mutex::new(Publisher::new(Arc::new(Tap::closed()))) }
    }
}

impl TapDesk {
    /// A worker's view.
    pub(super) fn subscribe(&self) -> Subscription<Tap> {
        self.taps().subscribe()
    }

    /// Frees what the workers have let go of.
    pub(super) fn reclaim(&self) {
        if let Ok(mut taps) = self.taps.try_lock() {
            taps.reclaim();
        }
    }

    fn taps(&self) -> MutexGuard<'_, Publisher<Tap>> {
        // Nothing panics half-way through a change of it.
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, terms: Terms, now: Nanos) -> Result<Arc<Tap>, Failure> {
        let mut taps = self.taps();
        let current = taps.current();
        if current.is_on(now) {
            let left = current.terms().until.saturating_sub(now).0.div_ceil(Nanos::SECOND.0);
            let message = format!(
                "another trace is under way, for {left} s at most: wait for it, or end it there"
            );
            return Err(Failure::new(Code::Busy, message));
        }
        current.close();
        let tap = Arc::new(Tap::open(terms));
        drop(taps.publish(Arc::clone(&tap)));
        Ok(tap)
    }

    /// Ends a tap, unless another is open already.
    fn close(&self, tap: &Arc<Tap>) {
        tap.close();
        let mut taps = self.taps();
        if Arc::ptr_eq(&taps.current(), tap) {
            drop(taps.publish(Arc::new(Tap::closed())));
        }
    }

    /// Begins to follow packets.
    ///
    /// # Errors
    /// The filter makes no sense, a bound is out of range, or another trace is under way.
    pub(super) fn begin(
        self: &Arc<Self>,
        wanted: &PacketTrace,
        ports: &[String],
        store: &Arc<PolicyStore>,
    ) -> Result<Trace, Failure> {
        let now = monotonic();
        let tap = self.open(terms(wanted, ports, now)?, now)?;
        Ok(Trace {
            desk: Arc::clone(self),
            tap,
            ports: ports.to_vec(),
            store: Arc::clone(store),
            frames: wanted.snaplen.is_some(),
            words: Words::default(),
            told: Traced::default(),
        })
    }
}

fn terms(wanted: &PacketTrace, ports: &[String], now: Nanos) -> Result<Terms, Failure> {
    let refused = |message: String| Failure::new(Code::Refused, message);
    let port = |name: &str| {
        let index = ports.iter().position(|known| known == name)?;
        Some(PortId(index as u8))
    };
    let filter = filter::parse(&wanted.filter, &TableNames::of_host(), port)
        .map_err(|error| refused(error.to_string()))?;
    let within = |what: &str, value: u64, most: u64| match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(refused(format!("{what} is {value}: 1 to {most} is possible"))),
    };
    let count = within("count", wanted.count.unwrap_or(COUNT), COUNT_MAX)?;
    let for_ms = wanted.for_ms.unwrap_or(FOR.0 / Nanos::MILLISECOND.0);
    let for_ms = within("the time in ms", for_ms, FOR_MAX.0 / Nanos::MILLISECOND.0)?;
    let rate = wanted.rate.map_or(RATE.into(), u64::from);
    let rate = within("rate", rate, RATE_MAX.into())? as u32;
    let snaplen = wanted.snaplen.map_or(1, u64::from);
    let snaplen = within("snaplen", snaplen, FRAME_BYTES as u64)? as usize;
    Ok(Terms {
        filter,
        count,
        until: now + Nanos(for_ms * Nanos::MILLISECOND.0),
        rate: Rate::new(rate, rate),
        snaplen: if wanted.snaplen.is_some() { snaplen } else { 0 },
        room: ROOM,
    })
}

/// One client's trace.
pub(super) struct Trace {
    desk: Arc<TapDesk>,
    tap: Arc<Tap>,
    ports: Vec<String>,
    store: Arc<PolicyStore>,
    frames: bool,
    words: Words,
    /// What was told last, without packets.
    told: Traced,
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.desk.close(&self.tap);
    }
}

impl Feed for Trace {
    fn next(&mut self) -> Option<Response> {
        if self.told.done {
            return None;
        }
        // Asked before the ring: what is in there afterwards was all there will be.
        let ended = !self.tap.is_on(monotonic());
        let teller = Teller {
            ports: &self.ports,
            store: &self.store,
            utc_offset: utc_offset(),
            frames: self.frames,
        };
        let records = std::iter::from_fn(|| self.tap.take()).take(BATCH);
        let packets: Vec<_> = records.map(|record| teller.tell(&record, &mut self.words)).collect();
        let counts = self.tap.counts();
        let now = Traced {
            packets: Vec::new(),
            matched: counts.matched,
            limited: counts.limited,
            lost: counts.lost,
            done: ended && packets.is_empty(),
        };
        if packets.is_empty() && now == self.told {
            return None;
        }
        self.told = now.clone();
        Some(Response::Traced(Traced { packets, ..now }))
    }

    fn idle(&self) -> Response {
        Response::Traced(self.told.clone())
    }
}
