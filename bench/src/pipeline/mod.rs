//! `pipeline`: what a packet costs from its bytes in a buffer to its bytes ready to be
//! sent, over ports in memory.
//!
//! Scenarios have the names of the budgets they are measured against. `ns` is a round's
//! time with the engine less the time of the same round without it, which restores
//! heads and hands out bursts (`copy_ns`); every frame's way and bytes are checked
//! before anything is timed. `instructions` come from callgrind, in the same way.

mod count;
mod drive;
mod frames;
mod report;
mod rounds;
mod rules;
mod scenario;
mod traffic;
mod world;

use std::path::PathBuf;

use dataplane::packet::Family;

use rules::{Nat, Shape};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Forwarding through empty tables.
    Plain,
    /// Both directions of known connections, past a filter and tracking.
    Established,
    /// The same, translated.
    Nat,
    /// First packets of connections: the rules, insertion, confirmation.
    First,
    /// A filter set as one chain without state.
    Stateless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Ip {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Proto {
    Udp,
    Tcp,
}

/// What callgrind is to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Counted {
    /// The engine, and all around it.
    Work,
    /// All around it.
    Copy,
}

/// Arguments of `pipeline`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What is measured; all by turns unless said.
    #[arg(value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Flows (connections, or different packets where nothing is tracked).
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    flows: Vec<usize>,
    /// Frame sizes in bytes, frame check sequence included.
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    sizes: Vec<usize>,
    /// Version of IP.
    #[arg(long, value_enum, default_value = "v4")]
    family: Ip,
    /// Protocol of the flows (a filter set's packets have that of their rules).
    #[arg(long, value_enum, default_value = "udp")]
    proto: Proto,
    /// An iptables-save file in the place of generated rules. It must let pass what
    /// clients in 10.0.0.0/8 (2001:db8:a::/48) send.
    #[arg(long)]
    rules: Option<PathBuf>,
    /// Generated rules; unless said 1000, and 10000 for first packets and filter sets.
    #[arg(long)]
    generate: Option<usize>,
    /// How generated rules hang together.
    #[arg(long, value_enum, default_value = "flat")]
    shape: Shape,
    /// ClassBench filter sets (plain text, or compressed by xz) for `stateless`.
    #[arg(long)]
    classbench: Vec<PathBuf>,
    /// What is translated: by `nat` (SNAT unless said), and by `first`.
    #[arg(long, value_enum)]
    nat: Option<Nat>,
    /// Share of packets between known ones that open connections.
    #[arg(long, default_value_t = 0.0)]
    new_rate: f64,
    /// Share of flows that meet a generated rule (others pass by the last rule or the policy).
    #[arg(long, default_value_t = 1.0)]
    hit_ratio: f64,
    /// More routes.
    #[arg(long, default_value_t = 0)]
    routes: usize,
    /// Threads with an engine each. They share the connection table.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Answers go to the other worker.
    #[arg(long)]
    asymmetric: bool,
    /// Seed of flows, rules and order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Most rounds.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// No new round after so many seconds of rounds.
    #[arg(long, default_value_t = 5.0)]
    secs: f64,
    /// Packets in a round, at least, for each worker.
    #[arg(long, default_value_t = 262_144)]
    packets: usize,
    /// Nanoseconds from one packet to the next, for the connections' timeouts.
    #[arg(long, default_value_t = 100)]
    gap_ns: u64,
    /// Buffers that frames arrive in, for each worker.
    #[arg(long, default_value_t = 512)]
    buffers: usize,
    /// Bytes from one buffer to the next.
    #[arg(long, default_value_t = dataplane::port::CHUNK)]
    stride: usize,
    /// Without plans: every packet walks the rules.
    #[arg(long)]
    no_plans: bool,
    /// Count instructions instead of time (needs valgrind; choose few flows).
    #[arg(long)]
    instructions: bool,
    /// What a run under callgrind counts; for `--instructions` itself.
    #[arg(long, value_enum, hide = true)]
    counted: Option<Counted>,
}

/// One thing to measure.
#[derive(Clone, Debug)]
struct Point {
    scenario: Scenario,
    family: Family,
    proto: u8,
    flows: usize,
    size: usize,
    nat: Option<Nat>,
    /// The filter set's file, for `stateless`.
    classbench: Option<PathBuf>,
}

impl Point {
    /// Bytes of a frame as the engine sees it.
    fn frame_len(&self) -> usize {
        self.size.saturating_sub(4).max(frames::headers(self.family, self.proto))
    }
}

/// Runs the measurement and prints one JSON object for each point.
///
/// # Errors
/// A file that cannot be read, rules that do not load, a packet that goes astray.
pub(crate) fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    if args.workers == 0 || args.asymmetric && args.workers < 2 {
        return Err("answers need another worker to go to".into());
    }
    for point in points(args) {
        let outcome = match args.instructions {
            true => count::measure(args, &point),
            false => scenario::measure(args, &point),
        };
        println!("{}", outcome.map_err(|error| error.to_string())?);
    }
    Ok(())
}

fn points(args: &Args) -> Vec<Point> {
    use Scenario::{Established, First, Nat as Translated, Plain, Stateless};
    let all = [Plain, Established, Translated, First, Stateless];
    let chosen = if args.scenarios.is_empty() { &all[..] } else { &args.scenarios };
    let mut points = Vec::new();
    for &scenario in chosen {
        let files: Vec<Option<PathBuf>> = match scenario {
            Stateless if !args.classbench.is_empty() => {
                args.classbench.iter().cloned().map(Some).collect()
            }
            _ => vec![None],
        };
        for classbench in files {
            for &flows in &args.flows {
                for &size in &args.sizes {
                    let point = Point {
                        scenario,
                        family: if args.family == Ip::V4 { Family::V4 } else { Family::V6 },
                        proto: if args.proto == Proto::Udp { frames::UDP } else { frames::TCP },
                        flows,
                        size,
                        nat: match scenario {
                            Translated => args.nat.or(Some(Nat::Snat)),
                            First => args.nat,
                            _ => None,
                        },
                        classbench: classbench.clone(),
                    };
                    points.push(point);
                }
            }
        }
    }
    points
}
