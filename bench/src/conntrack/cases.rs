//! Insertion, expiry, hits, misses and a full table.

use dataplane::clock::Nanos;
use dataplane::conntrack::{CtState, Direction, Presence, Tuple};
use serde_json::json;

use super::flows::{BURST, Made, Role, STRANGERS};
use super::table::{Bed, Error, Samples, Setup, Work, burst, on_threads, random_packets};
use super::{Report, merge};
use crate::clock::Stopwatch;
use crate::sets::Rng;

/// Beyond every timeout of a flow that was not answered.
const FORGOTTEN: Nanos = Nanos::from_secs(600);
/// Records a call of the sweep.
const SWEPT: usize = 4096;
/// No crowd: quotas do not hold.
const ROOM: fn(usize) -> usize = |entries| entries + entries / 4 + BURST;

/// Fills the table, lets all expire, and fills it again: memory that was never used
/// is a matter of its own.
pub(super) fn insert(setup: &Setup, report: &mut Report) -> Result<(), Error> {
    let mut bed = Bed::new(setup, ROOM(setup.entries))?;
    let (mut fresh, mut again) = (Samples::new()?, Samples::new()?);
    let mut expired = Samples::new()?;
    for round in 0..=setup.rounds {
        let samples = if round == 0 { &mut fresh } else { &mut again };
        fill(&bed, setup, samples)?;
        if bed.table.len() != setup.entries {
            return Err(format!("{} of {} inserted", bed.table.len(), setup.entries).into());
        }
        bed.now = bed.now + FORGOTTEN;
        let memory = bed.memory(setup.entries)?;
        expire(&bed, setup, &mut expired)?;
        if round == 0 {
            let mut what = setup.about("insert, records never used before");
            merge(&mut what, &memory);
            report.line(&what, &mut fresh);
        }
    }
    report.line(&setup.about("insert"), &mut again);
    let mut what = setup.about("expire");
    merge(&mut what, &json!({"burst": format!("a sweep of {SWEPT} records")}));
    report.line(&what, &mut expired);
    Ok(())
}

fn fill(bed: &Bed, setup: &Setup, samples: &mut Samples) -> Result<(), Error> {
    on_threads(setup.threads, samples, |thread| {
        let share = setup.share(thread);
        let (mut packets, mut seen) = (Vec::new(), Vec::new());
        let mut work = Work { ns: 0, ops: 0, bursts: Vec::new() };
        for first in share.clone().step_by(BURST) {
            let flows = first..(first + BURST as u64).min(share.end);
            packets.clear();
            packets.extend(flows.map(|flow| bed.maker.make(flow, Role::Opens)));
            let ns = burst(&bed.table, &packets, bed.stages, bed.now, &mut seen);
            let new = |it: &&_| matches!(it, Ok::<_, _>(t) if is_new(t));
            if seen.iter().filter(new).count() != packets.len() {
                return Err(format!("not all of flows {first}.. were new"));
            }
            work.bursts.push(ns);
            (work.ns, work.ops) = (work.ns + ns, work.ops + packets.len() as u64);
        }
        Ok(work)
    })
}

fn is_new(tracking: &dataplane::conntrack::Tracking) -> bool {
    tracking.state == CtState::New
}

/// The sweep over a table in which everything has expired.
fn expire(bed: &Bed, setup: &Setup, samples: &mut Samples) -> Result<(), Error> {
    let (mut ns, mut ended) = (0, 0);
    while ended < setup.entries {
        let clock = Stopwatch::start();
        ended += bed.table.sweep(bed.now, SWEPT);
        let taken = clock.elapsed_ns();
        samples.bursts.record(taken)?;
        ns += taken;
    }
    if !bed.table.is_empty() {
        return Err("the sweep left something".into());
    }
    samples.add(ns, ended as u64);
    Ok(())
}

/// Packets of established flows. Two threads have flows of their own, share them all,
/// or see one direction each.
pub(super) fn hit(setup: &Setup, report: &mut Report) -> Result<(), Error> {
    let bed = Bed::established(setup, ROOM(setup.entries))?;
    let memory = bed.memory(setup.entries)?;
    let sharings: &[&str] =
        if setup.threads == 1 { &["own"] } else { &["own", "shared", "one direction each"] };
    for &sharing in sharings {
        let mut samples = Samples::new()?;
        for round in 0..setup.rounds {
            on_threads(setup.threads, &mut samples, |thread| {
                let from = match sharing {
                    "own" => setup.share(thread),
                    _ => 0..setup.entries as u64,
                };
                let one_way = match (sharing, thread % 2) {
                    ("own" | "shared", _) => None,
                    (_, 0) => Some(Direction::Original),
                    _ => Some(Direction::Reply),
                };
                let seed = setup.seed << 32 | (round << 8 | thread) as u64;
                hits(&bed, setup, &from, one_way, &mut Rng(seed))
            })?;
        }
        bed.check(setup.entries)?;
        let mut what = setup.about("hit");
        merge(&mut what, &memory);
        merge(&mut what, &json!({"flows": sharing}));
        report.line(&what, &mut samples);
    }
    Ok(())
}

fn hits(
    bed: &Bed,
    setup: &Setup,
    from: &std::ops::Range<u64>,
    one_way: Option<Direction>,
    rng: &mut Rng,
) -> Result<Work, String> {
    let (mut packets, mut seen) = (Vec::new(), Vec::new());
    let mut work = Work { ns: 0, ops: 0, bursts: Vec::new() };
    while (work.ops as usize) < setup.lookups {
        random_packets(&bed.maker, from, one_way, rng, &mut packets);
        let ns = burst(&bed.table, &packets, bed.stages, bed.now, &mut seen);
        let wrong = seen.iter().find(|it| !it.is_ok_and(|it| it.state == CtState::Established));
        if let Some(wrong) = wrong {
            return Err(format!("a packet of an established flow is {wrong:?}"));
        }
        work.bursts.push(ns);
        (work.ns, work.ops) = (work.ns + ns, work.ops + packets.len() as u64);
    }
    Ok(work)
}

/// Tuples that are not there; and first packets that a policy refuses.
pub(super) fn miss(setup: &Setup, report: &mut Report) -> Result<(), Error> {
    let bed = Bed::established(setup, ROOM(setup.entries))?;
    for refuse in [false, true] {
        let mut samples = Samples::new()?;
        for round in 0..setup.rounds {
            on_threads(setup.threads, &mut samples, |thread| {
                let mut rng = Rng(setup.seed << 32 | (round << 8 | thread) as u64);
                let mut work = Work { ns: 0, ops: 0, bursts: Vec::new() };
                while (work.ops as usize) < setup.lookups {
                    let stranger = |_| {
                        let flow = STRANGERS + (rng.bits() & 0xff_ffff);
                        bed.maker.make(flow, Role::Opens)
                    };
                    let packets: Vec<Made> = (0..BURST).map(stranger).collect();
                    let ns =
                        if refuse { refused(&bed, &packets)? } else { absent(&bed, &packets)? };
                    work.bursts.push(ns);
                    (work.ns, work.ops) = (work.ns + ns, work.ops + BURST as u64);
                }
                Ok(work)
            })?;
        }
        bed.check(setup.entries)?;
        let op = if refuse { "first packet refused" } else { "miss" };
        report.line(&setup.about(op), &mut samples);
    }
    Ok(())
}

fn absent(bed: &Bed, packets: &[Made]) -> Result<u64, String> {
    let tuples: Vec<Tuple> =
        packets.iter().filter_map(|it| Tuple::of(&it.parsed, it.frame(), 0)).collect();
    let clock = Stopwatch::start();
    let there =
        tuples.iter().filter(|it| bed.table.presence(it, bed.now) != Presence::Absent).count();
    let ns = clock.elapsed_ns();
    if there == 0 { Ok(ns) } else { Err("a stranger was found".to_owned()) }
}

fn refused(bed: &Bed, packets: &[Made]) -> Result<u64, String> {
    let clock = Stopwatch::start();
    let subjects: Vec<_> =
        packets.iter().map(|it| bed.table.subject(&it.parsed, it.frame(), 0)).collect();
    if bed.stages > 0 {
        subjects.iter().for_each(|subject| bed.table.prefetch(subject));
    }
    if bed.stages > 1 {
        bed.table.prefetch_records(&subjects, false);
    }
    let terms = dataplane::conntrack::Terms::default();
    for (made, subject) in packets.iter().zip(&subjects) {
        let (parsed, frame) = (&made.parsed, made.frame());
        let tracked = bed.table.track_subject(subject, parsed, frame, false, &terms, bed.now);
        let tracking = tracked.map_err(|reason| format!("{reason:?}"))?;
        bed.table.discard(tracking);
    }
    Ok(clock.elapsed_ns())
}

/// A flood at a table full of established flows: what a refused packet costs, what an
/// established one costs meanwhile, and that none of those is lost.
pub(super) fn full(setup: &Setup, report: &mut Report) -> Result<(), Error> {
    let bed = Bed::established(setup, setup.entries)?;
    let (mut flood, mut others) = (Samples::new()?, Samples::new()?);
    for round in 0..setup.rounds {
        let mut established = Work { ns: 0, ops: 0, bursts: Vec::new() };
        let hits_of = std::sync::Mutex::new(&mut established);
        on_threads(setup.threads, &mut flood, |thread| {
            let mut rng = Rng(setup.seed << 32 | (round << 8 | thread) as u64);
            let (mut packets, mut seen) = (Vec::new(), Vec::new());
            let mut work = Work { ns: 0, ops: 0, bursts: Vec::new() };
            let mut kept = Work { ns: 0, ops: 0, bursts: Vec::new() };
            while (work.ops as usize) < setup.lookups {
                let stranger =
                    |_| bed.maker.make(STRANGERS + (rng.bits() & 0xff_ffff), Role::Opens);
                packets.clear();
                packets.extend((0..BURST).map(stranger));
                let ns = burst(&bed.table, &packets, bed.stages, bed.now, &mut seen);
                if seen.iter().any(Result::is_ok) {
                    return Err("room in a full table".to_owned());
                }
                work.bursts.push(ns);
                (work.ns, work.ops) = (work.ns + ns, work.ops + BURST as u64);
                let all = 0..setup.entries as u64;
                random_packets(&bed.maker, &all, None, &mut rng, &mut packets);
                let ns = burst(&bed.table, &packets, bed.stages, bed.now, &mut seen);
                if !seen.iter().all(|it| it.is_ok_and(|it| it.state == CtState::Established)) {
                    return Err("an established flow was lost to the flood".to_owned());
                }
                kept.bursts.push(ns);
                (kept.ns, kept.ops) = (kept.ns + ns, kept.ops + BURST as u64);
            }
            let mut all = hits_of.lock().map_err(|_| "a thread panicked")?;
            (all.ns, all.ops) = (all.ns + kept.ns, all.ops + kept.ops);
            all.bursts.extend(kept.bursts);
            Ok(work)
        })?;
        others.add(established.ns, established.ops);
        established.bursts.iter().try_for_each(|&ns| others.bursts.record(ns))?;
    }
    bed.check(setup.entries)?;
    report.line(&setup.about("refused by a full table"), &mut flood);
    report.line(&setup.about("hit in a full table"), &mut others);
    Ok(())
}
