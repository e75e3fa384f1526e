//! Amounts on their way to the state file and back. A piece is read and judged whole
//! before anything is changed.

use dataplane::clock::Nanos;
use dataplane::policy::Match;
use dataplane::policy::measure::estimator::{EstimatorParameters, EstimatorState};
use dataplane::policy::measure::{Account, Estimator, MeasureMatch};

use crate::compile::pieces::{Left, Piece, Reading, Words};

/// What is left of a rule's `-m quota`.
pub(in crate::compile) const QUOTA: &str = "quota";
/// The turns of a rule's `-m statistic --mode nth`.
pub(in crate::compile) const NTH: &str = "nth";
/// What `-m nfacct` counted, by name.
pub(in crate::compile) const ACCOUNT: &str = "nfacct";
/// What RATEEST measured, by name.
pub(in crate::compile) const ESTIMATOR: &str = "rateest";
const VERSION: u16 = 1;

/// The content, if all of `piece` is what `read` reads.
fn all<T>(piece: &Piece, read: impl FnOnce(&mut Reading<'_>) -> Option<T>) -> Result<T, Left> {
    if piece.version != VERSION {
        return Err(Left::Version(piece.version));
    }
    let mut reading = Reading(&piece.bytes);
    let content = read(&mut reading).filter(|_| reading.is_done());
    content.ok_or(Left::Malformed)
}

/// What a rule owns, under the name of its place; `None` for what it shares.
pub(in crate::compile) fn own(name: impl FnOnce() -> String, found: &Match) -> Option<Piece> {
    let Match::Measure(found) = found else { return None };
    let mut words = Words::default();
    let kind = match found {
        MeasureMatch::Quota(quota) => {
            words.u64(quota.value.left());
            QUOTA
        }
        MeasureMatch::Nth(nth) => {
            words.u32(nth.value.passed());
            NTH
        }
        _ => return None,
    };
    Some(Piece { kind: kind.to_owned(), name: name(), version: VERSION, bytes: words.0 })
}

/// Gives a rule back what it owned, before its first packet.
pub(in crate::compile) fn put_own(piece: &Piece, found: &Match) -> Result<(), Left> {
    match (piece.kind.as_str(), found) {
        (QUOTA, Match::Measure(MeasureMatch::Quota(quota))) => {
            // As yet it is full.
            let most = quota.value.left();
            quota.value.restore(all(piece, |reading| reading.u64().filter(|left| *left <= most))?);
            Ok(())
        }
        (NTH, Match::Measure(MeasureMatch::Nth(nth))) => {
            let every = nth.value.every();
            nth.value.restore(all(piece, |reading| reading.u32().filter(|past| *past < every))?);
            Ok(())
        }
        _ => Err(Left::Unclaimed),
    }
}

pub(super) fn account(name: &str, account: &Account) -> Piece {
    let (packets, bytes) = account.counted();
    let mut words = Words::default();
    words.u64(packets);
    words.u64(bytes);
    let (kind, name) = (ACCOUNT.to_owned(), name.to_owned());
    Piece { kind, name, version: VERSION, bytes: words.0 }
}

pub(super) fn put_account(piece: &Piece, account: &Account) -> Result<(), Left> {
    let (packets, bytes) = all(piece, |reading| Some((reading.u64()?, reading.u64()?)))?;
    account.reset();
    account.restore(packets, bytes);
    Ok(())
}

/// `None`: it has measured nothing yet.
pub(super) fn estimator(name: &str, estimator: &Estimator, now: Nanos) -> Option<Piece> {
    let state = estimator.export(now)?;
    let EstimatorParameters { interval_log, ewma_log } = estimator.parameters();
    let mut words = Words::default();
    [interval_log, ewma_log].into_iter().for_each(|parameter| words.u8(parameter));
    let EstimatorState { average_bytes, average_packets, age, bytes, packets } = state;
    for word in [average_bytes, average_packets, age.0, bytes, packets] {
        words.u64(word);
    }
    let (kind, name) = (ESTIMATOR.to_owned(), name.to_owned());
    Some(Piece { kind, name, version: VERSION, bytes: words.0 })
}

pub(super) fn put_estimator(
    piece: &Piece,
    estimator: &Estimator,
    elapsed: Nanos,
    now: Nanos,
) -> Result<(), Left> {
    let read = |reading: &mut Reading<'_>| {
        let parameters =
            EstimatorParameters { interval_log: reading.u8()?, ewma_log: reading.u8()? };
        let state = EstimatorState {
            average_bytes: reading.u64()?,
            average_packets: reading.u64()?,
            age: Nanos(reading.u64()?),
            bytes: reading.u64()?,
            packets: reading.u64()?,
        };
        Some((parameters, state))
    };
    let (parameters, state) = all(piece, read)?;
    // One that measures otherwise begins anew, as over policy swaps.
    if parameters != estimator.parameters() {
        return Err(Left::Unclaimed);
    }
    estimator.import(state, elapsed, now);
    Ok(())
}
