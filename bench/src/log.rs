//! `log`: what a flood that meets LOG costs forwarding.
//!
//! One worker over ports in memory forwards bursts through a policy with connection
//! tracking; subjects take turns in every round, so that what else the machine does
//! meets all of them. A thread takes records from the queue and makes lines of them, but
//! for the last subject: what is left then is the worker's own work for a record that is
//! lost.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack};
use dataplane::engine::BURST;
use dataplane::fib::{Mode, Network, PortInfo, Topology};
use dataplane::logbook::Rate;
use dataplane::packet::{Family, Mac, PortId};
use dataplane::port::Pool;
use dataplane::port::memory::MemoryPort;
use dataplane::publish::Publisher;
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::wire::build::Packet;
use dataplane::worker::{EnginePipeline, Outlets, Rates, Worker};
use portcullis::compile::{self, DynamicState, Input, Limits};
use portcullis::iptables::{self, TableNames};
use portcullis::log;
use portcullis::model::Ruleset;

use crate::clock::Stopwatch;

const EXAMPLES: &str = "Examples:
  portcullis-bench log
  portcullis-bench log --bursts 50000 --rounds 9";

/// How much.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Bursts of 64 packets that a subject forwards in one round.
    #[arg(long, default_value_t = 20_000)]
    bursts: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

/// The rate and burst of a rule that the daemon has by default.
const DEFAULT: (u32, u32) = (100, 1000);
/// And those of all rules together.
const BUDGET: (u32, u32) = (20_000, QUEUE as u32);
/// Records that may wait, as in the daemon.
const QUEUE: usize = 4096;
/// Rules that packets pass before they are accepted.
const RULES: usize = 20;

/// What takes turns.
struct Turn {
    name: &'static str,
    /// The first rule, if there is one more.
    rule: &'static str,
    /// Lines a second that a rule may cause, and at once.
    rate: Option<(u32, u32)>,
    /// The same for all rules together.
    budget: Option<(u32, u32)>,
    /// Whether anybody takes records from the queue.
    drained: bool,
}

const LOG: &str = "-A FORWARD -p udp -j LOG --log-prefix \"flood: \"\n";
const COUNT: &str = "-A FORWARD -p udp\n";

impl Turn {
    const fn new(name: &'static str, rate: Option<(u32, u32)>, budget: Option<(u32, u32)>) -> Self {
        Self { name, rule: LOG, rate, budget, drained: true }
    }
}

const SUBJECTS: [Turn; 6] = [
    Turn { rule: "", ..Turn::new("no LOG", None, None) },
    Turn { rule: COUNT, ..Turn::new("a rule that only counts", None, None) },
    Turn::new("LOG", Some(DEFAULT), Some(BUDGET)),
    Turn::new("LOG without limit", None, Some(BUDGET)),
    Turn::new("LOG without limit and budget", None, None),
    Turn { drained: false, ..Turn::new("LOG, nobody takes records", None, None) },
];

type Error = Box<dyn std::error::Error>;

fn rules(first: &str) -> String {
    let mut text = "*filter\n:FORWARD DROP [0:0]\n".to_owned() + first;
    for port in 0..RULES {
        text += &format!("-A FORWARD -p udp -m udp --dport {} -j DROP\n", 10_000 + port);
    }
    text += "-A FORWARD -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT\nCOMMIT\n";
    text
}

fn snapshot(first: &str) -> Result<Snapshot, Error> {
    let names = TableNames::of_host();
    let parsed = iptables::parse(&rules(first), "bench", Family::V4, &names)
        .map_err(|findings| format!("{findings:?}"))?;
    let ports = ["a".to_owned(), "b".to_owned()];
    let v6 = Ruleset::empty(Family::V6);
    let input = Input { v4: &parsed.ruleset, v6: &v6, ports: &ports, limits: Limits::default() };
    let compiled = compile::compile(input, &DynamicState::default())?;
    Ok(Snapshot::new(1, compiled.policy, 1))
}

fn network() -> Result<Arc<Network>, Error> {
    let port = |name: &str, last| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: name.to_owned(),
        mac: Mac([2, 0, 0, 0, 0, last]),
        mtu: 1500,
        addresses: Vec::new(),
        up: true,
    };
    let topology = Topology {
        mode: Mode::Bridge(vec![(PortId(0), PortId(1))]),
        ports: vec![port("a", 1), port("b", 2)],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: Vec::new(),
    };
    Ok(Arc::new(Network::build(&topology)?))
}

/// A worker with its policy, and the queue that its records go to.
struct Subject {
    worker: Worker<MemoryPort, EnginePipeline>,
    outlets: Outlets,
    stats: Arc<WorkerStats>,
    frames: Vec<Vec<u8>>,
    now: Nanos,
    // Kept, so that the worker's subscriptions stay open.
    _published: (Publisher<Snapshot>, Publisher<Network>),
}

impl Subject {
    fn new(turn: &Turn) -> Result<Self, Error> {
        let snapshots = Publisher::new(Arc::new(snapshot(turn.rule)?));
        let networks = Publisher::new(network()?);
        let conntrack = Arc::new(Conntrack::new(Config::new([7; 16]))?);
        let stats = Arc::new(WorkerStats::default());
        let (policy, net) = (snapshots.subscribe(), networks.subscribe());
        let pipeline = EnginePipeline::new(0, policy, net, conntrack, Arc::clone(&stats));
        let limit = |it: Option<(u32, u32)>| it.and_then(|(rate, burst)| Rate::new(rate, burst));
        let rates = Rates::new(limit(turn.rate), None, None).within(limit(turn.budget));
        let outlets = Outlets::new(QUEUE, 64).with_rates(rates);
        let pool = Pool::new(1024, false)?;
        let ports = vec![MemoryPort::new(2 * BURST), MemoryPort::new(2 * BURST)];
        let worker = Worker::new(0, pool, ports, pipeline, outlets.clone());
        let worker = worker.with_stats(Arc::clone(&stats));
        let frame = |flow: usize| {
            Packet::udp("198.18.1.2", 1024 + flow as u16, "198.18.2.2", 53).payload_len(18).build()
        };
        let frames = (0..BURST).map(frame).collect();
        let now = Nanos::from_secs(1000);
        Ok(Self { worker, outlets, stats, frames, now, _published: (snapshots, networks) })
    }

    /// Forwards bursts; nanoseconds a packet.
    fn forward(&mut self, bursts: u64) -> Result<f64, Error> {
        let watch = Stopwatch::start();
        let start = self.now;
        for _ in 0..bursts {
            let (pool, ports) = self.worker.parts();
            if !self.frames.iter().all(|frame| ports[0].inject(pool, frame)) {
                return Err("no room to inject".into());
            }
            self.now = start + Nanos(watch.elapsed_ns());
            self.worker.turn(self.now);
            let (pool, ports) = self.worker.parts();
            let mut sent = 0;
            while let Some(frame) = ports[1].collect_frame() {
                pool.put(frame);
                sent += 1;
            }
            if sent != self.frames.len() {
                return Err(format!("{sent} of {} frames came out", self.frames.len()).into());
            }
        }
        Ok(watch.elapsed_ns() as f64 / (bursts * self.frames.len() as u64) as f64)
    }
}

/// Makes lines of records until told to stop; returns how many.
fn drain(outlets: &Outlets, stop: &AtomicBool, lines: &AtomicU64) {
    let Ok(mut out) = std::fs::File::options().write(true).open("/dev/null") else { return };
    loop {
        let last = stop.load(Ordering::Relaxed);
        while let Some(entry) = outlets.log.pop() {
            let line = log::line(&log::Entry::copy(&entry.record()), |_| "eth0");
            lines.fetch_add(u64::from(writeln!(out, "{line}").is_ok()), Ordering::Relaxed);
        }
        if last {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints a line for each subject.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let mut subjects = Vec::new();
    for turn in &SUBJECTS {
        subjects.push(Subject::new(turn)?);
    }
    let lines = [const { AtomicU64::new(0) }; SUBJECTS.len()];
    let stop = AtomicBool::new(false);
    let mut times = vec![Vec::new(); SUBJECTS.len()];
    let queues: Vec<Outlets> = subjects.iter().map(|subject| subject.outlets.clone()).collect();
    std::thread::scope(|scope| -> Result<(), Error> {
        for ((outlets, lines), turn) in queues.iter().zip(&lines).zip(&SUBJECTS) {
            let stop = &stop;
            if turn.rule == LOG && turn.drained {
                scope.spawn(move || drain(outlets, stop, lines));
            }
        }
        let mut measure = || -> Result<(), Error> {
            for round in 0..=args.rounds {
                for (subject, times) in subjects.iter_mut().zip(&mut times) {
                    let time = subject.forward(args.bursts)?;
                    // The first warms up.
                    if round > 0 {
                        times.push(time);
                    }
                }
            }
            Ok(())
        };
        let outcome = measure();
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    let base = times[0].clone();
    for (at, turn) in SUBJECTS.iter().enumerate() {
        let ratios = base.iter().zip(&times[at]).map(|(base, time)| base / time).collect();
        let stats = &subjects[at].stats;
        let [logged, suppressed, lost] =
            [&stats.logged, &stats.log_suppressed, &stats.log_lost].map(|cell| cell.get());
        let written = lines[at].load(Ordering::Relaxed);
        let line = serde_json::json!({
            "subject": turn.name,
            "ns_per_packet": median(times[at].clone()),
            "forwarding_ratio": median(ratios),
            "emitted": logged + suppressed + lost,
            "written": written,
            "suppressed": suppressed,
            "dropped": lost,
            "exact": written + if turn.drained { 0 } else { QUEUE as u64 } == logged,
        });
        println!("{line}");
    }
    Ok(())
}
