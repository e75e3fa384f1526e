//! What the programs do with the beats of workers.

use dataplane::clock::{Nanos, monotonic};
use dataplane::port::afxdp::{Config, OnFailure};
use dataplane::verdict::DropReason;

use crate::lab::Lab;
use crate::{A, Gateway, Peer, alone, config, pattern, soon};

/// One frame from the peer at A; what the program has counted then, as
/// `[redirected, silent]`.
fn counts(gateway: &Gateway, from: &mut Peer) -> [u64; 2] {
    let before = gateway.program.counters(A).expect("counters");
    from.send(0, [pattern(1, 60).as_slice()]);
    let total = |it: dataplane::port::afxdp::ProgramCounters| it.redirected + it.silent;
    let counters = || gateway.program.counters(A).expect("counters");
    assert!(soon(|| total(counters()) > total(before)), "the frame arrives");
    let now = counters();
    [now.redirected - before.redirected, now.silent - before.silent]
}

#[test]
fn a_silent_worker_gets_no_frames_until_it_turns_again() {
    let _alone = alone();
    for on_failure in [OnFailure::Open, OnFailure::Closed] {
        let lab = Lab::new(1);
        let limit = Nanos::from_millis(60);
        let config = Config { on_failure, beat_limit: limit, ..config(&["f0", "f1"]) };
        let mut gateway = Gateway::open(&lab, &config);
        let mut from = Peer::new(&lab.left(), "l0", 1);
        gateway.turn();
        assert_eq!(counts(&gateway, &mut from), [1, 0]);
        let end = monotonic() + limit + limit;
        assert!(soon(|| monotonic() > end));
        assert_eq!(counts(&gateway, &mut from), [0, 1], "{on_failure:?}");
        // The first frame waited through the silence.
        gateway.turn();
        assert_eq!(gateway.stats().drops(DropReason::Stale), 1);
        assert_eq!(counts(&gateway, &mut from), [1, 0]);
    }
}
