//! `gen`: the generator alone, over a veth pair.

use serde_json::json;

use super::{Load, Size, Station, Traffic};
use crate::lab::{Between, Lab, Outcome, mac, pin};

const EXAMPLES: &str = "Examples:
  portcullis-bench gen --secs 2
  portcullis-bench gen --rate 100000 --size imix --flows 10000

One thread sends and counts, on the first core. A frame carries a sequence number and the
time at which its batch was begun; latency ends when the sink takes the frame.";

/// Arguments of `gen`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) shape: Shape,
    /// Packets a second; as many as go without.
    #[arg(long)]
    rate: Option<f64>,
    /// Runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What is sent, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shape {
    /// Flows, in turn.
    #[arg(long, default_value_t = 1000)]
    pub(crate) flows: usize,
    /// Bytes of a frame without its checksum, or `imix`.
    #[arg(long, default_value = "60")]
    pub(crate) size: Size,
    /// Seconds of each run.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) secs: f64,
    /// Frames that the generator sends with one system call at most.
    #[arg(long, default_value_t = 64)]
    pub(crate) batch: usize,
    /// Entries of each ring.
    #[arg(long, default_value_t = 2048)]
    pub(crate) ring_size: u32,
    /// Whether to try huge pages for frames.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) huge_pages: bool,
    /// Whether the subject `portcullis` follows plans; as it does by itself without.
    #[arg(long)]
    pub(crate) plans: Option<bool>,
}

impl Shape {
    /// At full speed.
    pub(crate) fn load(&self) -> Load {
        Load::full(self.secs, self.batch.clamp(1, 1024))
    }
}

/// Prints one JSON object a run.
///
/// # Errors
/// Namespaces or sockets that cannot be had.
pub(crate) fn run(args: &Args) -> Outcome<()> {
    let shape = &args.shape;
    let lab = Lab::new(Between::Wire)?;
    let mut station = Station::open(&lab, shape.ring_size, shape.huge_pages)?;
    pin(0)?;
    let traffic = Traffic::new(shape.flows, shape.size, mac("b0"));
    for round in 0..args.rounds {
        let load = args.rate.map_or(shape.load(), |rate| shape.load().at(rate));
        let sent = station.run(&traffic, load)?;
        let line = json!({
            "bench": "gen", "round": round, "flows": traffic.len(), "rate": args.rate,
            "size": format!("{:?}", shape.size), "batch": shape.batch, "ring_size": shape.ring_size,
            "result": sent.report(),
        });
        println!("{line}");
    }
    Ok(())
}
