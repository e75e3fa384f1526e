//! Alerts, simulated: readings at made-up times, and what is told.

use dataplane::clock::Nanos;

use super::*;

fn at(second: u64) -> Reading {
    Reading {
        now: Nanos::from_secs(1000 + second),
        wall_us: (1_800_000_000 + second) * 1_000_000,
        connections: (0, 1000),
        ..Reading::default()
    }
}

fn told(notices: &[Notice]) -> Vec<(EventKind, &str, bool)> {
    notices.iter().map(|it| (it.kind, it.key.as_str(), it.firing)).collect()
}

fn watch(events: &[EventKind]) -> Watch {
    let hold = Nanos::from_secs(3);
    Watch::new(events, Thresholds { drop_rate: 100.0, hold, ..Thresholds::default() })
}

#[test]
fn a_flood_is_told_once_and_its_end_once() {
    let mut watch = watch(EventKind::ALL);
    let mut dropped = 0;
    let mut seen = Vec::new();
    for second in 0..60 {
        // A flood from 10 to 30 s that wavers, with a peak before it.
        dropped += match second {
            5 => 5000,
            10..30 if second % 3 == 0 => 95,
            10..30 => 500,
            _ => 1,
        };
        let reading = Reading { dropped, ..at(second) };
        let notices = watch.see(&reading);
        seen.extend(notices.into_iter().map(|it| (second, it)));
    }
    // 95 is below the level, so that only the level to leave holds it: the flood counts from
    // where it stays above.
    assert!(seen.is_empty(), "never for three seconds on end: {seen:?}");
    let mut seen = Vec::new();
    for second in 60..120 {
        dropped += match second {
            70..90 => 500,
            90..95 => 95,
            _ => 1,
        };
        let notices = watch.see(&Reading { dropped, ..at(second) });
        seen.extend(notices.into_iter().map(|it| (second, it)));
    }
    let times: Vec<_> = seen.iter().map(|(second, it)| (*second, it.kind, it.firing)).collect();
    assert_eq!(times, [(73, EventKind::DropRate, true), (98, EventKind::DropRate, false)]);
    assert_eq!(seen[0].1.summary, "500 packets dropped a second");
    assert_eq!((seen[0].1.value, seen[0].1.threshold), (500.0, 100.0));
}

#[test]
fn a_full_table_is_a_warning_and_then_critical() {
    let mut watch = watch(EventKind::ALL);
    let mut seen = Vec::new();
    for second in 0..40 {
        let entries = match second {
            5..10 => 850,
            10..20 => 990,
            20..30 => 800,
            _ => 100,
        };
        let notices = watch.see(&Reading { connections: (entries, 1000), ..at(second) });
        seen.extend(notices.into_iter().map(|it| (second, it.kind, it.firing)));
    }
    let (warning, critical) = (EventKind::ConntrackWarning, EventKind::ConntrackCritical);
    let wanted =
        [(8, warning, true), (13, critical, true), (23, critical, false), (33, warning, false)];
    assert_eq!(seen, wanted);
}

#[test]
fn losses_and_rollbacks_are_told_at_once_and_what_was_before_is_not() {
    let mut watch = watch(EventKind::ALL);
    let reading = |second, log_lost, undone| Reading { log_lost, undone, ..at(second) };
    assert!(watch.see(&reading(0, 7, 2)).is_empty(), "that was before");
    let notices = watch.see(&reading(1, 8, 3));
    assert_eq!(told(&notices), [(EventKind::LogLoss, "", true), (EventKind::Rollback, "3", true)]);
    for second in 2..5 {
        assert!(watch.see(&reading(second, 8, 3)).is_empty());
    }
    assert_eq!(told(&watch.see(&reading(5, 8, 3))), [(EventKind::LogLoss, "", false)]);
}

#[test]
fn lists_are_told_when_something_comes_and_goes() {
    let mut watch = watch(EventKind::ALL);
    let day = 86_400;
    let rule = |key: &str, days: u64| Expiring {
        key: key.to_owned(),
        what: format!("rule {key}"),
        at_s: 1_800_000_000 + days * day,
    };
    let expiring = vec![rule("a", 1), rule("b", 9)];
    let first = Reading { expiring: expiring.clone(), matrix_failing: 2, ..at(0) };
    let notices = watch.see(&first);
    let (soon, matrix) = (EventKind::ExceptionExpiring, EventKind::MatrixFailure);
    assert_eq!(told(&notices), [(soon, "a", true), (matrix, "", true)]);
    assert!(notices[0].summary.starts_with("rule a expires at 2027-01-16"), "{notices:?}");
    assert!(watch.see(&Reading { now: Nanos::from_secs(2000), ..first }).is_empty(), "once");
    let pressure = vec![("siege".to_owned(), "conntrack".to_owned())];
    let notices = watch.see(&Reading { pressure, expiring: vec![rule("b", 2)], ..at(3) });
    let wanted = [
        (soon, "a", false),
        (matrix, "", false),
        (soon, "b", true),
        (EventKind::Pressure, "siege", true),
    ];
    assert_eq!(told(&notices), wanted);
}

#[test]
fn only_what_was_asked_for_is_told() {
    let mut watch = watch(&[EventKind::Rollback]);
    watch.see(&at(0));
    let reading = Reading { undone: 1, log_lost: 9, matrix_failing: 1, ..at(1) };
    assert_eq!(told(&watch.see(&reading)), [(EventKind::Rollback, "1", true)]);
}

fn notice(kind: EventKind, key: &str, firing: bool) -> Notice {
    Notice { key: key.to_owned(), ..Notice::example(kind, firing, "x") }
}

#[test]
fn the_outbox_waits_longer_and_longer_and_gives_up() {
    let second = Nanos::from_secs;
    let mut outbox = Outbox::new(10, 4);
    outbox.push(notice(EventKind::Rollback, "1", true));
    outbox.push(notice(EventKind::Rollback, "2", true));
    let mut now = second(50);
    for (tried, pause) in [(1, 1), (2, 2), (3, 4)] {
        assert_eq!(outbox.due(now).unwrap().key, "1");
        assert!(!outbox.refused(now), "attempt {tried}");
        assert!(outbox.due(now + Nanos(second(pause).0 - 1)).is_none());
        now = now + second(pause);
    }
    assert!(outbox.due(now).is_some() && outbox.refused(now), "given up");
    assert!(outbox.due(now).is_none(), "and the webhook is left alone");
    now = now + second(8);
    assert_eq!(outbox.due(now).unwrap().key, "2");
    outbox.taken();
    assert_eq!(outbox.counts(), Counts { sent: 1, failed: 4, lost: 1 });
    assert_eq!((outbox.waiting(), outbox.due(now)), (0, None));
}

#[test]
fn a_full_outbox_loses_the_oldest_and_what_never_was_known_is_not_resolved() {
    let mut outbox = Outbox::new(2, 4);
    for key in ["1", "2", "3"] {
        outbox.push(notice(EventKind::Rollback, key, true));
    }
    assert_eq!((outbox.waiting(), outbox.counts().lost), (2, 1));
    assert_eq!(outbox.due(Nanos(0)).unwrap().key, "2");
    outbox.taken();
    outbox.taken();
    outbox.push(notice(EventKind::DropRate, "", true));
    outbox.push(notice(EventKind::DropRate, "", false));
    assert_eq!(outbox.waiting(), 0, "it was over before anybody knew");
    outbox.push(notice(EventKind::DropRate, "", true));
    outbox.refused(Nanos(0));
    outbox.push(notice(EventKind::DropRate, "", false));
    assert_eq!(outbox.waiting(), 2, "the other side may have taken it and not said so");
}
