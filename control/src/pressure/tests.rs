//! Pressure, simulated.

use super::*;

fn profile(name: &str, gauge: Gauge, enter: f64, leave: f64) -> Profile {
    Profile {
        name: name.to_owned(),
        when: vec![Condition { gauge, enter, leave }],
        hold: Nanos::from_secs(2),
        release: Nanos::from_secs(5),
        timeouts: Vec::new(),
        rules: None,
        rules6: None,
    }
}

/// Turns by second, for an occupancy and a rate of new flows by second.
fn run(
    machine: &mut Machine,
    seconds: std::ops::Range<u64>,
    load: impl Fn(u64) -> (f64, u64),
) -> Vec<(u64, usize, bool)> {
    let mut meter = Meter::default();
    let mut begun = 0;
    let mut seen = Vec::new();
    for second in seconds {
        let (occupancy, flows) = load(second);
        begun += flows;
        let now = Nanos::from_secs(second);
        let load = meter.see(&Reading { now, occupancy, begun, ..Reading::default() });
        seen.extend(machine.see(&load, now).into_iter().map(|it| (second, it.profile, it.on)));
    }
    seen
}

fn two() -> Machine {
    Machine::new(vec![
        profile("first", Gauge::Conntrack, 60.0, 40.0),
        profile("second", Gauge::NewFlows, 1000.0, 500.0),
    ])
}

#[test]
fn they_come_in_order_and_go_when_the_pressure_is_gone() {
    let load = |second| match second {
        10..30 => (70.0, 10),
        30..40 => (90.0, 2000),
        40..50 => (50.0, 600),
        _ => (10.0, 10),
    };
    let seen = run(&mut two(), 0..70, load);
    assert_eq!(seen, [(12, 0, true), (32, 1, true), (55, 0, false), (55, 1, false)]);
}

#[test]
fn what_wavers_starts_and_ends_nothing() {
    let load = |second| if second % 2 == 0 { (99.0, 0) } else { (50.0, 0) };
    assert_eq!(run(&mut two(), 0..60, load), []);
    let mut machine = two();
    assert_eq!(run(&mut machine, 0..10, |_| (99.0, 0)), [(2, 0, true)]);
    let load = |second| if second % 4 == 0 { (45.0, 0) } else { (20.0, 0) };
    assert_eq!(run(&mut machine, 10..60, load), [], "never gone for five seconds on end");
}

#[test]
fn hands_and_pauses_beat_conditions() {
    let mut machine = two();
    assert!(machine.set_hand("second", Hand::On) && !machine.set_hand("third", Hand::On));
    assert_eq!(run(&mut machine, 0..20, |_| (10.0, 0)), [(0, 1, true)]);
    assert!(machine.set_hand("first", Hand::Off));
    assert_eq!(run(&mut machine, 20..40, |_| (99.0, 0)), [], "off by hand");
    machine.set_hand("first", Hand::Auto);
    assert_eq!(run(&mut machine, 40..41, |_| (99.0, 0)), [(40, 0, true)]);
    machine.pause(true);
    assert_eq!(run(&mut machine, 41..60, |_| (0.0, 0)), [], "paused: as it is");
    machine.set_hand("second", Hand::Auto);
    machine.pause(false);
    assert_eq!(run(&mut machine, 60..61, |_| (0.0, 0)), [(60, 0, false), (60, 1, false)]);
}

#[test]
fn what_could_not_be_done_is_tried_again() {
    let mut machine = two();
    let load = Load([Some(99.0), None, None, None]);
    assert!(machine.see(&load, Nanos(0)).is_empty());
    for second in 2..5 {
        let turns = machine.see(&load, Nanos::from_secs(second));
        assert_eq!(turns.len(), 1, "at {second} s");
        assert_eq!(turns[0].why, "conntrack 99 % (from 60)");
        machine.undone(&turns[0]);
    }
}

#[test]
fn the_busiest_worker_counts() {
    let mut meter = Meter::default();
    let reading = |now, a, b| Reading {
        now: Nanos::from_secs(now),
        cpu: vec![Nanos::from_millis(a), Nanos::from_millis(b)],
        ..Reading::default()
    };
    assert_eq!(meter.see(&reading(1, 10, 10)).of(Gauge::Cpu), None);
    assert_eq!(meter.see(&reading(2, 510, 910)).of(Gauge::Cpu), Some(90.0));
}

#[test]
fn a_policy_for_bad_times_keeps_what_is_established() {
    let keeps = |rules: &str| {
        let text = format!("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n{rules}COMMIT\n");
        let names = crate::iptables::TableNames::well_known();
        let family = dataplane::packet::Family::V4;
        let parsed = crate::iptables::parse(&text, "rules", family, &names);
        keeps_established(&parsed.expect("good rules").ruleset)
    };
    let state = "-m conntrack --ctstate";
    assert!(keeps(&format!("-A FORWARD {state} RELATED,ESTABLISHED -j ACCEPT\n")));
    assert!(keeps("-A FORWARD\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\n"));
    assert!(!keeps(""), "drops everything");
    assert!(!keeps(&format!("-A FORWARD -p tcp {state} ESTABLISHED -j ACCEPT\n")));
    assert!(!keeps(&format!("-A FORWARD {state} NEW -j ACCEPT\n")));
    let late = format!("-A FORWARD {state} ESTABLISHED -j ACCEPT\n");
    assert!(!keeps(&format!("-A FORWARD -s 10.0.0.0/8 -j DROP\n{late}")));
    assert!(!keeps(&format!("{late}-A INPUT -p udp -j DROP\n")), "INPUT, too");
}
