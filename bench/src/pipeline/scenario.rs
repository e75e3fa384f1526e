//! One point: builds its world, opens its flows, checks every frame, and times rounds.

use std::path::Path;

use classifier::Address;
use dataplane::packet::Family;
use serde_json::Value;

use super::drive::{Clock, Lane, Trace};
use super::frames::Flow;
use super::report;
use super::rounds::{self, Race};
use super::rules::{self, Generated};
use super::traffic;
use super::world::{Bed, Time};
use super::{Args, Counted, Error, Point, Scenario};
use crate::sets::{self, Rng};

/// Rules and the flows that are to meet them.
struct Setting {
    text: Option<String>,
    rules: usize,
    flows: Vec<Flow>,
    /// Flows that are opened while others go on.
    fresh: Vec<Flow>,
}

/// Measures one point.
pub(super) fn measure(args: &Args, point: &Point) -> Result<Value, Error> {
    let setting = setting(args, point)?;
    let fresh = setting.fresh.len();
    let room = (point.flows + fresh) + (point.flows + fresh) / 4 + 4096;
    let rules = setting.text.as_deref().map(|text| (point.family, text));
    let bed = Bed::new(rules, args.routes, room, args.workers)?;
    let mut clock = Clock { time: Time::START, gap: args.gap_ns };
    let traces = {
        let mut lane = Lane::new(&bed, 0, args.buffers, args.stride).with_plans(!args.no_plans);
        traces(&mut lane, args, point, &setting, &mut clock)?
    };
    let counts = (setting.rules, setting.flows.len());
    drop(setting);
    if let Some(counted) = args.counted {
        return once(args, point, &bed, &traces, clock, counted);
    }
    let rounds = Race::new(args, point, &bed, clock).run(&traces)?;
    Ok(report::line(args, point, counts, &rounds, &bed))
}

fn setting(args: &Args, point: &Point) -> Result<Setting, Error> {
    if point.scenario == Scenario::Stateless {
        return stateless(args, point);
    }
    let count = match point.scenario {
        Scenario::First => args.generate.unwrap_or(10_000),
        _ => args.generate.unwrap_or(1000),
    };
    let generated = Generated::new(count, point.family, args.seed);
    let (text, rules) = match (&args.rules, point.scenario) {
        (_, Scenario::Plain) => (None, 0),
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)?;
            let rules = text.lines().filter(|line| line.starts_with("-A ")).count();
            (Some(text), rules)
        }
        (None, _) => (Some(generated.text(args.shape, point.nat)), count),
    };
    let mut rng = Rng(args.seed ^ 0xf10e);
    let hits = share(args.hit_ratio);
    let mut flow = |_| {
        let hit = rng.below(1000) < hits;
        Some(generated.flow(&mut rng, point.proto, hit))
    };
    let fresh = match point.scenario {
        Scenario::Established | Scenario::Nat if args.new_rate > 0.0 => {
            let packets = args.packets.max(2 * point.flows) as f64;
            (packets * args.new_rate / (1.0 - args.new_rate.min(0.99))) as usize
        }
        _ => 0,
    };
    let mut flows = traffic::distinct(point.flows + fresh, &mut flow)?;
    let fresh = flows.split_off(point.flows);
    Ok(Setting { text, rules, flows, fresh })
}

fn share(ratio: f64) -> usize {
    (ratio.clamp(0.0, 1.0) * 1000.0) as usize
}

fn stateless(args: &Args, point: &Point) -> Result<Setting, Error> {
    let rules = match &point.classbench {
        Some(path) => {
            let text = read(path)?;
            sets::parse_classbench(&text).map_err(|e| format!("{}: {e}", path.display()))?
        }
        None => sets::generate(args.generate.unwrap_or(10_000), args.seed),
    };
    match point.family {
        Family::V4 => corners(args, point, &rules),
        Family::V6 => corners(args, point, &sets::widen(&rules)),
    }
}

fn corners<A: Address>(
    args: &Args,
    point: &Point,
    rules: &[classifier::Rule<A>],
) -> Result<Setting, Error> {
    let (text, kept) = rules::stateless(rules);
    let (mut rng, hits) = (Rng(args.seed ^ 0xc0a7), share(args.hit_ratio));
    // Corners of few rules are few: a packet may come twice.
    let flows = (0..point.flows).map(|_| {
        let hit = rng.below(1000) < hits;
        rules::corner(&mut rng, &kept, hit).ok_or_else(|| "no packet meets these rules".into())
    });
    let flows = flows.collect::<Result<Vec<Flow>, Error>>()?;
    Ok(Setting { text: Some(text), rules: kept.len(), flows, fresh: Vec::new() })
}

/// A text file, or one that `xz` has compressed.
fn read(path: &Path) -> Result<String, Error> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(std::fs::read_to_string(path)?);
    }
    let output = std::process::Command::new("xz").arg("-dc").arg(path).output()?;
    if !output.status.success() {
        return Err(format!("{}: xz cannot read it", path.display()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What arrives at each worker, every frame checked once.
fn traces(
    lane: &mut Lane<'_>,
    args: &Args,
    point: &Point,
    setting: &Setting,
    clock: &mut Clock,
) -> Result<Vec<Trace>, Error> {
    let mut arriving: Vec<Vec<(Vec<u8>, usize)>> = vec![Vec::new(); args.workers];
    for (number, flow) in setting.flows.iter().enumerate() {
        let worker = number % args.workers;
        let mine = |arriving: &mut Vec<Vec<_>>, frame: Vec<u8>| arriving[worker].push((frame, 0));
        match point.scenario {
            Scenario::Established | Scenario::Nat => {
                let [there, back] = traffic::open(lane, flow, point, clock)?;
                let home = if args.asymmetric { (worker + 1) % args.workers } else { worker };
                mine(&mut arriving, there);
                arriving[home].push((back, 1));
            }
            Scenario::First => mine(&mut arriving, traffic::opening(flow, point)),
            Scenario::Plain | Scenario::Stateless => {
                let frame = traffic::lone(flow, point);
                let ends = traffic::cross(lane, &frame, 0, clock)?;
                (ends == *flow).then_some(()).ok_or("a packet changed its ends")?;
                mine(&mut arriving, frame);
            }
        }
    }
    let mut rng = Rng(args.seed ^ 0x5eed);
    for (number, frames) in arriving.iter_mut().enumerate() {
        let fresh = setting.fresh.iter().skip(number).step_by(args.workers);
        let fresh: Vec<_> = fresh.map(|flow| (traffic::opening(flow, point), 0)).collect();
        if !fresh.is_empty() {
            let known = frames.len();
            while frames.len() < args.packets {
                frames.push(frames[frames.len() % known].clone());
            }
            frames.extend(fresh);
        }
        traffic::shuffle(frames, &mut rng);
    }
    if point.scenario == Scenario::First {
        first_check(lane, point, &arriving, clock)?;
    }
    if lane.own_packets() != 0 {
        return Err("the engine sent packets of its own".into());
    }
    // Streams are streams by now, and stay so between rounds.
    clock.time.pass(3_000_000_000);
    Ok(arriving.iter().map(|frames| traffic::trace(point.family, frames)).collect())
}

/// Every opening frame's way, which leaves connections: they are collected.
fn first_check(
    lane: &mut Lane<'_>,
    point: &Point,
    arriving: &[Vec<(Vec<u8>, usize)>],
    clock: &mut Clock,
) -> Result<(), Error> {
    for (frame, port) in arriving.iter().flatten() {
        let before = super::frames::flow(frame);
        let after = traffic::cross(lane, frame, *port, clock)?;
        if !rules::Nat::allows(point.nat, &before, &after) {
            return Err(format!("{before:?} was translated to {after:?}").into());
        }
    }
    Ok(())
}

/// One round for callgrind, which counts one pass of one worker.
fn once(
    args: &Args,
    point: &Point,
    bed: &Bed,
    traces: &[Trace],
    mut clock: Clock,
    counted: Counted,
) -> Result<Value, Error> {
    let mut lane = Lane::new(bed, 0, args.buffers, args.stride).with_plans(!args.no_plans);
    let trace = &traces[0];
    let packets = match point.scenario {
        Scenario::First => trace.len(),
        _ => args.packets,
    };
    if point.scenario == Scenario::First {
        rounds::empty(&bed.conntrack, &mut clock)?;
    } else {
        lane.warm(trace, packets, &mut clock);
    }
    let took = lane.pass(trace, packets, &mut clock, counted == Counted::Work);
    if counted == Counted::Work && took.astray > 0 {
        return Err(format!("{} packets went astray", took.astray).into());
    }
    Ok(serde_json::json!({ "packets": packets }))
}
