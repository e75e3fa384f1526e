//! Flows that come and go: bursts of established packets and first ones, while time
//! passes at the pace that keeps the table at its size, and the sweep follows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use dataplane::clock::Nanos;
use dataplane::conntrack::CtState;
use serde_json::json;

use super::flows::{BURST, Role};
use super::table::{Bed, Error, Samples, Setup, burst};
use super::{Report, merge};
use crate::clock::Stopwatch;
use crate::sets::Rng;

/// First packets in a burst.
const NEW: usize = 16;
/// How long an unanswered flow of UDP lives, which all churning ones are.
const LIFE_S: u64 = 30;
/// The daemon's sweep goes round in this time.
const ROUND_S: u64 = 10;
/// The daemon's pause between two calls of the sweep.
const PAUSE: Nanos = Nanos::from_millis(50);

/// Half of the table is established, half comes and goes. With one thread the sweep is
/// called between bursts and timed by itself, with two it runs beside them.
pub(super) fn run(setup: &Setup, report: &mut Report) -> Result<(), Error> {
    let half = Setup { entries: setup.entries / 2, ..*setup };
    let mut bed = Bed::established(&half, setup.entries * 2 + 1024)?;
    bed.stages = setup.stages;
    let (mut bursts, mut sweeps) = (Samples::new()?, Samples::new()?);
    // Time a burst, so that the churning half is born in one life.
    let step = LIFE_S * 1_000_000_000 * NEW as u64 / half.entries.max(NEW) as u64;
    let clock = AtomicU64::new(bed.now.0);
    let over = AtomicBool::new(false);
    let beside = setup.threads > 1;
    let mut swept = 0;
    std::thread::scope(|scope| -> Result<(), Error> {
        let sweeper = beside.then(|| {
            let (bed, clock, over) = (&bed, &clock, &over);
            scope.spawn(move || sweep_beside(bed, clock, over))
        });
        let outcome = churn(&bed, &half, step, &clock, &mut bursts, |now, last| {
            if !beside && now.saturating_sub(last) >= PAUSE {
                swept += sweep(&bed, now, last, &mut sweeps)?;
                return Ok(now);
            }
            Ok(if beside { now } else { last })
        });
        over.store(true, Ordering::Relaxed);
        if let Some(sweeper) = sweeper {
            let (all, ended) = sweeper.join().map_err(|_| "the sweeper panicked")??;
            (sweeps, swept) = (all, ended);
        }
        outcome
    })?;
    bed.now = Nanos(clock.load(Ordering::Relaxed));
    let mut what = setup.about("churn: a burst of 48 established and 16 new");
    merge(&mut what, &json!({"live": bed.table.len(), "swept": swept, "sweep_beside": beside}));
    report.line(&what, &mut bursts);
    let mut what = setup.about("churn: the sweep, by record");
    merge(&mut what, &json!({"burst": "what one call of the sweep takes"}));
    report.line(&what, &mut sweeps);
    Ok(())
}

fn churn(
    bed: &Bed,
    half: &Setup,
    step: u64,
    clock: &AtomicU64,
    samples: &mut Samples,
    mut between: impl FnMut(Nanos, Nanos) -> Result<Nanos, Error>,
) -> Result<(), Error> {
    let mut rng = Rng(half.seed);
    let (mut packets, mut seen) = (Vec::new(), Vec::new());
    let mut born = half.entries as u64;
    let mut last = bed.now;
    let (mut now, start) = (bed.now, Stopwatch::start());
    // Three lives of the churning half; but in bounded time.
    let most = (half.entries * 3 / NEW).clamp(20_000, 400_000);
    let (mut ns, mut ops) = (0, 0);
    for _ in 0..most {
        packets.clear();
        for at in 0..BURST {
            packets.push(if at % (BURST / NEW) == 0 {
                born += 1;
                bed.maker.make(born & 0xff_ffff | super::flows::STRANGERS, Role::Opens)
            } else {
                let flow = rng.bits() % half.entries as u64;
                bed.maker.make(flow, Role::Goes)
            });
        }
        let taken = burst(&bed.table, &packets, bed.stages, now, &mut seen);
        samples.bursts.record(taken)?;
        (ns, ops) = (ns + taken, ops + BURST as u64);
        for (at, outcome) in seen.iter().enumerate() {
            let wanted = if at % (BURST / NEW) == 0 { CtState::New } else { CtState::Established };
            if !outcome.is_ok_and(|it| it.state == wanted) {
                return Err(format!("packet {at} of a burst is {outcome:?}, not {wanted:?}").into());
            }
        }
        now = Nanos(now.0 + step);
        clock.store(now.0, Ordering::Relaxed);
        last = between(now, last)?;
        if start.elapsed_ns() > 10 * Nanos::SECOND.0 {
            break;
        }
    }
    samples.add(ns, ops);
    Ok(())
}

/// The daemon's share for the time since `last`.
fn sweep(bed: &Bed, now: Nanos, last: Nanos, samples: &mut Samples) -> Result<usize, Error> {
    let elapsed = u128::from(now.saturating_sub(last).0.min(Nanos::SECOND.0));
    let budget = elapsed * bed.table.places() as u128 / u128::from(ROUND_S * Nanos::SECOND.0);
    let clock = Stopwatch::start();
    let ended = bed.table.sweep(now, budget as usize);
    let ns = clock.elapsed_ns();
    samples.bursts.record(ns)?;
    samples.add(ns, budget as u64);
    Ok(ended)
}

fn sweep_beside(
    bed: &Bed,
    clock: &AtomicU64,
    over: &AtomicBool,
) -> Result<(Samples, usize), String> {
    let mut samples = Samples::new().map_err(|error| error.to_string())?;
    let (mut last, mut swept) = (bed.now, 0);
    while !over.load(Ordering::Relaxed) {
        let now = Nanos(clock.load(Ordering::Relaxed));
        if now.saturating_sub(last) < PAUSE {
            std::hint::spin_loop();
            continue;
        }
        swept += sweep(bed, now, last, &mut samples).map_err(|error| error.to_string())?;
        last = now;
    }
    Ok((samples, swept))
}
