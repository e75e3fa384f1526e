//! Sets whose elements come and go for long.

use super::super::set::Body;
use super::*;

fn longest_walk(set: &Set) -> usize {
    match &set.body {
        Body::Hash(store) => store.longest_walk(),
        _ => 0,
    }
}

/// Adds as many as `live` at a time, each in the place of the eldest, `turns` times over.
fn turn_over(set: &Set, live: u32, turns: u32, may_allocate: bool, every: impl Fn(u32)) {
    for address in 1..=live * turns {
        if address > live {
            set.take(&ip(address - live), NOW).unwrap();
        }
        set.put(&ip(address), &Extras::default(), false, may_allocate, NOW).unwrap();
        every(address);
    }
}

/// A miss must not get slower the longer a set is in use.
#[test]
fn walks_stay_short_however_many_come_and_go() {
    let set = set(CreateSpec { maxelem: 4096, ..CreateSpec::new(SetType::HashIp) });
    turn_over(&set, 1000, 100, true, |_| assert!(set.header().entries <= 1000));
    assert!(longest_walk(&set) < 100, "control: {}", longest_walk(&set));
    assert!((99_001..=100_000).all(|address| set.test(&ip(address), false, NOW) == Ok(true)));
    assert!((1..=99_000).all(|address| set.test(&ip(address), false, NOW) == Ok(false)));
}

/// Packets cannot make a new index: the walk is bounded all the same, and the sweep
/// makes it new, also for a set without timeouts.
#[test]
fn packets_wear_an_index_and_the_sweep_mends_it() {
    let set = set(CreateSpec { maxelem: 4096, ..CreateSpec::new(SetType::HashIp) });
    set.reserve();
    turn_over(&set, 3000, 50, false, |_| {});
    assert!(longest_walk(&set) < 300, "before a sweep: {}", longest_walk(&set));
    set.sweep(NOW);
    assert!(longest_walk(&set) < 100, "after a sweep: {}", longest_walk(&set));
    assert!((147_001..=150_000).all(|address| set.test(&ip(address), false, NOW) == Ok(true)));
    let Body::Hash(store) = &set.body else { panic!("a hash") };
    assert_eq!(store.gone(), 0);
}

/// With timeouts, as SET adds them: what expires goes by the sweep.
#[test]
fn timeouts_leave_nothing_behind() {
    let spec = CreateSpec { maxelem: 4096, timeout: Some(2), ..CreateSpec::new(SetType::HashIp) };
    let set = set(spec);
    set.reserve();
    for second in 0..200u32 {
        let now = at(u64::from(second));
        for address in 1..=1000 {
            let element = ip(second * 1000 + address);
            set.put(&element, &Extras::default(), false, false, now).unwrap();
        }
        set.sweep(now);
        assert!(longest_walk(&set) < 120, "second {second}: {}", longest_walk(&set));
    }
}
