//! The generator and the sink: one thread over two ports that share a pool.

use dataplane::clock::{Nanos, monotonic};
use dataplane::port::afxdp::{AfxdpPort, Config, PortOpener, Program, open};
use dataplane::port::{Burst, Description, Pool, Port};
use serde_json::{Value, json};

use super::frames::Traffic;
use super::tally::{Tally, stamp};
use crate::lab::{GENERATOR, Lab, Outcome, inside};

/// How long the sink waits for frames that are on their way.
const LINGER: Nanos = Nanos::from_millis(20);
/// And at most, however many still arrive.
const LINGER_MAX: Nanos = Nanos::from_millis(500);
/// Pause of a polite generator that has nothing to do.
const PAUSE: std::time::Duration = std::time::Duration::from_micros(20);
/// Bursts that the sink takes before the generator sends again.
const SINK_BURSTS: usize = 8;

/// How much to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Packets a second; `None` for as many as go.
    pub(crate) rate: Option<f64>,
    /// For how long.
    pub(crate) time: Nanos,
    /// Frames sent with one system call at most.
    pub(crate) batch: usize,
    /// Whether to sleep when nothing is to do, for others on the same core.
    pub(crate) polite: bool,
}

impl Load {
    /// At full speed.
    pub(crate) fn full(seconds: f64, batch: usize) -> Self {
        Self { rate: None, time: Nanos((seconds * 1e9) as u64), batch, polite: false }
    }
    /// At a rate.
    pub(crate) fn at(self, rate: f64) -> Self {
        Self { rate: Some(rate), ..self }
    }
    /// Sleeping in between.
    pub(crate) fn polite(self) -> Self {
        Self { polite: true, ..self }
    }
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) sent: u64,
    pub(crate) seconds: f64,
    tally: Tally,
}

impl Sent {
    pub(crate) fn received(&self) -> u64 {
        self.tally.received
    }
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.tally.received)
    }
    pub(crate) fn sent_rate(&self) -> f64 {
        self.sent as f64 / self.seconds
    }
    pub(crate) fn received_rate(&self) -> f64 {
        self.tally.received as f64 / self.seconds
    }
    /// Loss, rates, and latency in microseconds.
    pub(crate) fn report(&self) -> Value {
        let us = |quantile| self.tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        json!({
            "seconds": (self.seconds * 1e3).round() / 1e3,
            "sent": self.sent, "received": self.tally.received, "lost": self.lost(),
            "duplicates": self.tally.duplicates, "reordered": self.tally.reordered,
            "foreign": self.tally.foreign,
            "sent_pps": self.sent_rate().round(), "received_pps": self.received_rate().round(),
            "latency_us": {
                "min": self.tally.latency.min() as f64 / 1e3,
                "p50": us(0.5), "p90": us(0.9), "p99": us(0.99), "p999": us(0.999),
                "max": self.tally.latency.max() as f64 / 1e3,
            },
        })
    }
}

/// Both ports of the generator. See the head of this file.
#[derive(Debug)]
pub(crate) struct Station {
    pool: Pool,
    ports: [AfxdpPort; 2],
    burst: Burst,
    next_number: u64,
    // Dropped last: frames flow as long as they are there.
    _program: Program,
    _opener: PortOpener,
}

impl Station {
    /// Opens the generator's devices.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) fn open(lab: &Lab, ring_size: u32, huge_pages: bool) -> Outcome<Self> {
        let mut config = Config::new(GENERATOR.map(str::to_owned), 1);
        (config.ring_size, config.huge_pages, config.routed) = (ring_size, huge_pages, false);
        let mut opened =
            inside(&lab.namespace("g"), || open(&config, []).map_err(|e| e.to_string()))?;
        let share = opened.workers.remove(0);
        let ports = <[AfxdpPort; 2]>::try_from(share.ports).map_err(|_| "two ports")?;
        Ok(Self {
            pool: share.pool,
            ports,
            burst: Burst::new(),
            next_number: 1,
            _program: opened.program,
            _opener: opened.opener,
        })
    }

    /// How its sockets run.
    pub(crate) fn descriptions(&self) -> [Description; 2] {
        [self.ports[0].description(), self.ports[1].description()]
    }

    /// Sends from `a0`, counts at `b0`.
    ///
    /// # Errors
    /// A port that fails.
    pub(crate) fn run(&mut self, traffic: &Traffic, load: Load) -> Outcome<Sent> {
        self.empty()?;
        if load.polite {
            rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        }
        let mut tally = Tally::new(self.next_number)?;
        let start = monotonic();
        let (mut sent, mut at) = (0u64, 0);
        let mut now = start;
        while now.saturating_sub(start) < load.time {
            let due = match load.rate {
                None => load.batch,
                Some(rate) => {
                    let due = now.saturating_sub(start).0 as f64 * rate / 1e9 - sent as f64;
                    (due.max(0.0) as usize).min(load.batch)
                }
            };
            self.keep_house();
            for _ in 0..due {
                if !self.send(0, &traffic.frames[at], now)? {
                    break;
                }
                sent += 1;
                at = if at + 1 == traffic.frames.len() { 0 } else { at + 1 };
            }
            self.ports[0].flush(&mut self.pool, now)?;
            let received = self.collect(1, &mut tally)?;
            if load.polite && due == 0 && received == 0 {
                std::thread::sleep(PAUSE);
            }
            now = monotonic();
        }
        let seconds = now.saturating_sub(start).0 as f64 / 1e9;
        self.linger(1, &mut tally, sent)?;
        Ok(Sent { sent, seconds, tally })
    }

    /// Sends every frame once from port `from`; returns how many arrived at the other.
    ///
    /// # Errors
    /// A port that fails.
    pub(crate) fn exchange(&mut self, traffic: &Traffic, from: usize) -> Outcome<u64> {
        let to = 1 - from;
        self.empty()?;
        let mut tally = Tally::new(self.next_number)?;
        for frames in traffic.frames.chunks(64) {
            self.keep_house();
            for frame in frames {
                self.send(from, frame, monotonic())?;
            }
            self.ports[from].flush(&mut self.pool, monotonic())?;
            // Not faster than anybody could take them.
            let until = monotonic() + Nanos(frames.len() as u64 * 10_000);
            while monotonic() < until {
                self.collect(to, &mut tally)?;
            }
        }
        self.linger(to, &mut tally, traffic.frames.len() as u64)?;
        Ok(tally.received)
    }

    fn keep_house(&mut self) {
        for port in &mut self.ports {
            port.reap(&mut self.pool);
            port.fill(&mut self.pool);
        }
    }

    /// Queues one stamped frame; false when the ring is full.
    fn send(&mut self, port: usize, bytes: &[u8], now: Nanos) -> Outcome<bool> {
        let Some(mut frame) = self.pool.copy_in(bytes) else { return Ok(false) };
        stamp(self.pool.memory().bytes_mut(&mut frame), self.next_number, now.0);
        if let Err(frame) = self.ports[port].transmit(&mut self.pool, frame) {
            self.pool.put(frame);
            return Ok(false);
        }
        self.next_number += 1;
        Ok(true)
    }

    /// Takes what has arrived, a few bursts at most.
    fn collect(&mut self, port: usize, tally: &mut Tally) -> Outcome<usize> {
        let mut count = 0;
        for _ in 0..SINK_BURSTS {
            let now = monotonic();
            let received = self.ports[port].receive(&mut self.pool, now, &mut self.burst)?;
            for frame in self.burst.drain(..) {
                tally.note(self.pool.memory().bytes(&frame), now.0);
                self.pool.put(frame);
            }
            if received == 0 {
                break;
            }
            self.ports[port].fill(&mut self.pool);
            count += received;
        }
        Ok(count)
    }

    /// Waits for what is on its way.
    fn linger(&mut self, port: usize, tally: &mut Tally, sent: u64) -> Outcome<()> {
        let start = monotonic();
        let mut last = start;
        while tally.received < sent {
            let now = monotonic();
            self.keep_house();
            self.ports[1 - port].flush(&mut self.pool, now)?;
            if self.collect(port, tally)? > 0 {
                last = now;
            }
            if now.saturating_sub(last) > LINGER || now.saturating_sub(start) > LINGER_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Throws away what others sent meanwhile.
    fn empty(&mut self) -> Outcome<()> {
        for port in 0..2 {
            let mut nobody = Tally::new(u64::MAX)?;
            while self.collect(port, &mut nobody)? > 0 {}
        }
        Ok(())
    }
}
