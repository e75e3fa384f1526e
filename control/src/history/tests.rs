//! A history in a directory: what is kept, what is found, and what tampering looks like.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use dataplane::clock::Nanos;

use super::*;
use crate::api::protocol::Source;
use crate::daemon::policy::Texts;

const KEEP: Keep = Keep { records: 100, age: Nanos::from_secs(86_400) };

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("portcullis-history-{}-{serial}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
    fn open(&self) -> History {
        History::open(&self.0, KEEP).unwrap()
    }
    fn record(&self, number: u64) -> PathBuf {
        self.0.join(format!("records/{number:010}.json"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn texts(v4: &str) -> Texts {
    let source = |text: &str| Some(Source { name: "rules.v4".to_owned(), text: text.to_owned() });
    Texts { v4: source(v4), v6: None, sets: Vec::new() }
}

fn draft(second: u64) -> Draft {
    let who = Who { uid: Some(0), user: Some("root".to_owned()), ..Who::default() };
    let reason = Some("a \"reason\"".to_owned());
    Draft { reason, ..Draft::new(Action::Apply, who, second * 1_000_000) }
}

fn apply(history: &mut History, second: u64, v4: &str) {
    history.note(&draft(second), &texts(v4)).unwrap();
}

#[test]
fn what_was_applied_is_found_by_every_name_after_a_restart() {
    let place = Place::new();
    let mut history = place.open();
    assert_eq!(history.find(&Name::Back(0)), Err(NameError::Empty));
    for (second, text) in [(10, "one"), (20, "two"), (30, "two"), (40, "one"), (50, "three")] {
        apply(&mut history, second, text);
    }
    let history = place.open();
    assert_eq!(history.damage(), []);
    assert_eq!(history.verify().unwrap(), []);
    let text = |name: &str| {
        let record = history.find(&name.parse().unwrap()).unwrap();
        history.texts(record.number, &record.policy).unwrap().v4.unwrap().text
    };
    // What was applied twice in a row is one step back.
    assert_eq!(["@0", "1", "@2", "@3"].map(text), ["three", "one", "two", "one"]);
    assert_eq!(text("r3"), "two");
    let id = history.find(&Name::Back(2)).unwrap().policy.id.clone();
    assert_eq!(text(&format!("@{}", &id[..8])), "two");
    assert_eq!(history.find(&Name::Back(4)), Err(NameError::TooFar { have: 4 }));
    assert!(matches!(history.find(&Name::Record(6)), Err(NameError::Unknown(_))));
    assert_eq!(history.records()[0].time, "1970-01-01T00:00:10Z");
    for bad in ["", "@", "@12345x", "@abc", "-1", "@99999999999999999999r"] {
        assert!(bad.parse::<Name>().is_err(), "{bad}");
    }
}

#[test]
fn every_kind_of_tampering_is_found() {
    type Tamper = fn(&Place);
    let cases: [(&str, Tamper); 8] = [
        ("record 2 was changed", |place| {
            let text = fs::read_to_string(place.record(2)).unwrap();
            fs::write(place.record(2), text.replace("reason", "season")).unwrap();
        }),
        ("record 2 is missing", |place| fs::remove_file(place.record(2)).unwrap()),
        ("record 2 was changed", |place| {
            let text = fs::read_to_string(place.record(2)).unwrap();
            fs::write(place.record(2), text + "\n").unwrap();
        }),
        ("record 3 is missing", |place| fs::remove_file(place.record(3)).unwrap()),
        ("head.json is missing", |place| fs::remove_file(place.0.join("head.json")).unwrap()),
        ("head.json is changed", |place| {
            let path = place.0.join("head.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace("\"last\":3", "\"last\":2")).unwrap();
        }),
        ("was changed", |place| {
            let sum = record::sum_of(b"two");
            fs::write(place.0.join("objects").join(sum), "too").unwrap();
        }),
        ("is missing", |place| {
            fs::remove_file(place.0.join("objects").join(record::sum_of(b"two"))).unwrap();
        }),
    ];
    for (found, tamper) in cases {
        let place = Place::new();
        let mut history = place.open();
        for (second, text) in [(10, "one"), (20, "two"), (30, "three")] {
            apply(&mut history, second, text);
        }
        tamper(&place);
        for it in [&history, &place.open()] {
            let damage: Vec<String> =
                it.verify().unwrap().iter().map(ToString::to_string).collect();
            assert!(damage.iter().any(|it| it.contains(found)), "{found}: {damage:?}");
        }
        // It goes on all the same, and still says so.
        let mut history = place.open();
        apply(&mut history, 40, "four");
        // A head is made anew, everything else stays damaged.
        let damaged = !place.open().verify().unwrap().is_empty();
        assert_eq!(damaged, !found.starts_with("head"), "{found}");
        assert_eq!(history.find(&Name::Back(0)).unwrap().at_us, 40_000_000);
    }
}

#[test]
fn a_record_rewritten_with_its_sum_breaks_the_chain() {
    let place = Place::new();
    let mut history = place.open();
    (1..=3).for_each(|second| apply(&mut history, second, &second.to_string()));
    let mut record = history.records()[1].clone();
    record.reason = Some("another".to_owned());
    record.sum = record.computed();
    fs::write(place.record(2), record.bytes()).unwrap();
    assert_eq!(place.open().damage(), [Damage::Unchained(3)]);
    // The last one has no successor, but the head knows it.
    let place = Place::new();
    let mut history = place.open();
    apply(&mut history, 1, "one");
    let mut record = history.records()[0].clone();
    record.who.uid = Some(7);
    record.sum = record.computed();
    fs::write(place.record(1), record.bytes()).unwrap();
    assert_eq!(place.open().damage(), [Damage::End { found: 1, wanted: 1 }]);
    // A text that was changed is not used.
    fs::write(place.0.join("objects").join(record::sum_of(b"one")), "One").unwrap();
    let number_and_policy = (1, history.records()[0].policy.clone());
    let used = history.texts(number_and_policy.0, &number_and_policy.1);
    assert!(matches!(used, Err(HistoryError::Damaged(Damage::Text { number: 1, .. }))));
}

#[test]
fn a_crash_between_any_two_steps_leaves_a_whole_history() {
    let place = Place::new();
    let mut history = place.open();
    apply(&mut history, 1, "one");
    // Prepared, and never committed.
    let prepared = history.prepare(&draft(2), &texts("two")).unwrap();
    std::mem::forget(prepared);
    let mut history = place.open();
    assert_eq!((history.damage(), history.records().len()), (&[][..], 1));
    // Committed, but the head is the old one.
    let head = fs::read(place.0.join("head.json")).unwrap();
    apply(&mut history, 3, "three");
    fs::write(place.0.join("head.json"), head).unwrap();
    let mut history = place.open();
    assert_eq!((history.damage(), history.records().len()), (&[][..], 2));
    apply(&mut history, 4, "four");
    assert_eq!(place.open().verify().unwrap(), []);
    // The very first record without a head.
    let place = Place::new();
    apply(&mut place.open(), 1, "one");
    fs::remove_file(place.0.join("head.json")).unwrap();
    let history = place.open();
    assert_eq!((history.damage(), history.records().len()), (&[][..], 1));
}

#[test]
fn it_is_bounded_by_number_and_age_and_open_emergencies_stay() {
    let place = Place::new();
    let keep = Keep { records: 5, age: Nanos::from_secs(1000) };
    let mut history = History::open(&place.0, keep).unwrap();
    (0..20).for_each(|second| apply(&mut history, second, &format!("policy {second}")));
    assert_eq!(history.records().len(), 5);
    let objects = || fs::read_dir(place.0.join("objects")).unwrap().count();
    assert_eq!((objects(), fs::read_dir(place.0.join("records")).unwrap().count()), (5, 5));
    // All of them are too old, but what is in force and what was before it stay.
    apply(&mut history, 5000, "late");
    assert_eq!(history.records().len(), 2);
    let emergency = Draft { emergency: true, ..draft(5001) };
    let number = history.note(&emergency, &texts("hurry")).unwrap();
    (5002..5010).for_each(|second| apply(&mut history, second, "calm"));
    assert_eq!(history.open_emergencies().count(), 1);
    let who = Who::default();
    let closing =
        Draft { about: Some(number), ..Draft::new(Action::Reconcile, who, 5_010_000_000) };
    history.note(&closing, &texts("calm")).unwrap();
    assert_eq!((history.open_emergencies().count(), history.records().len()), (0, 5));
    assert_eq!(place.open().verify().unwrap(), []);
}

#[test]
fn fields_are_bounded_and_of_one_line() {
    let place = Place::new();
    let history = place.open();
    let long = Draft { ticket: Some("x".repeat(FIELD_MAX + 1)), ..draft(1) };
    let lines = Draft { reason: Some("a\nb".to_owned()), ..draft(1) };
    for (draft, field) in [(long, "the ticket"), (lines, "the reason")] {
        let refused = history.prepare(&draft, &texts("one"));
        assert!(matches!(refused, Err(HistoryError::Field { field: it }) if it == field));
    }
}

#[test]
fn a_confirmation_waits_by_the_right_clock() {
    let second = |wall: u64, monotonic: u64, boot: &str| Moment {
        wall_us: wall * 1_000_000,
        monotonic: Nanos::from_secs(monotonic),
        boot: boot.to_owned(),
    };
    let policy = |text| PolicyRef::of(&texts(text));
    let began = second(1000, 50, "a");
    let window = Nanos::from_secs(60);
    let pending = Pending::new(&began, window, Who::default(), policy("new"), policy("old"));
    let left = |now: &Moment| pending.left(now).0 / Nanos::SECOND.0;
    assert_eq!(left(&second(1010, 60, "a")), 50);
    // Somebody sets the clock: the boot's own clock counts.
    assert_eq!(left(&second(9999, 60, "a")), 50);
    assert_eq!(left(&second(1, 111, "a")), 0);
    // After a reboot only the wall clock is left.
    assert_eq!(left(&second(1010, 3, "b")), 50);
    assert_eq!(left(&second(1061, 3, "b")), 0);
    assert_eq!(left(&second(3, 3, "b")), 0, "a clock that is behind knows nothing");
    let place = Place::new();
    let history = place.open();
    history.set_pending(&pending).unwrap();
    assert_eq!(place.open().pending(), Some(pending));
    let path = place.0.join("pending.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"boot\":\"a\"", "\"boot\":\"c\"")).unwrap();
    assert_eq!(history.pending(), None, "it was tampered with");
    history.clear_pending().unwrap();
    history.clear_pending().unwrap();
    assert!(!path.exists());
}
