//! A burst from which a tap takes packets: those are decided one by one on the full road, the
//! frames between them as ever. The engine decides packets one after the other whatever burst
//! they come in, so that cutting a burst in pieces changes nothing.

use std::sync::Arc;

use super::{Record, Tap, Tracer};
use crate::effects::Effects;
use crate::engine::{Engine, Slot, World};

/// Decides `burst`, which this machine itself sends if `own`.
pub(crate) fn decide<E: Effects>(
    engine: &mut Engine,
    world: &World<'_>,
    tap: &Tap,
    (burst, own): (&mut [Slot<'_>], bool),
    effects: &mut E,
) {
    let mut rest = burst;
    if tap.is_on(world.now) {
        let taken =
            |slot: &Slot<'_>| tap.admits(slot.frame(), (!own).then_some(slot.port), world.now);
        while let Some(index) = rest.iter().position(&taken) {
            let (before, behind) = rest.split_at_mut(index);
            let (one, behind) = behind.split_at_mut(1);
            usual(engine, world, (before, own), effects);
            take(engine, world, tap, (one, own), effects);
            rest = behind;
        }
    }
    usual(engine, world, (rest, own), effects);
}

fn usual<E: Effects>(
    engine: &mut Engine,
    world: &World<'_>,
    (burst, own): (&mut [Slot<'_>], bool),
    effects: &mut E,
) {
    match own {
        _ if burst.is_empty() => {}
        true => engine.output(world, burst, effects),
        false => engine.process(world, burst, effects),
    }
}

/// Decides a single frame, and leaves the record of it.
fn take<E: Effects>(
    engine: &mut Engine,
    world: &World<'_>,
    tap: &Tap,
    (one, own): (&mut [Slot<'_>], bool),
    effects: &mut E,
) {
    let Some(slot) = one.first() else { return };
    let input = (!own).then_some(slot.port);
    let (when, book) = ((world.now, world.worker), Arc::clone(&world.snapshot.log));
    let mut record = Record::begin(slot.frame(), input, when, tap.snaplen(), &book);
    let mut tracer = Tracer { effects, record: &mut record };
    match own {
        true => engine.output(world, one, &mut tracer),
        false => engine.process_in_full(world, one, &mut tracer),
    }
    if let Some(slot) = one.first() {
        record.end(slot.frame(), slot.disposition, world.conntrack);
    }
    tap.leave(record);
}
