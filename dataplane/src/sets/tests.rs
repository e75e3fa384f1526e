//! Sets against an obvious reference, and under several threads.

mod churn;
mod large;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;
use crate::clock::Nanos;
use crate::packet::Family;

const NOW: Nanos = Nanos::from_secs(1000);

fn name(text: &str) -> SetName {
    SetName::new(text).unwrap()
}

fn at(seconds: u64) -> Nanos {
    NOW + Nanos::from_secs(seconds)
}

fn ip(ip: u32) -> Element {
    Element { ip: u128::from(ip), ..Element::default() }
}

fn net(ip: u32, cidr: u8) -> Element {
    Element { ip: u128::from(ip), cidr: Some(cidr), ..Element::default() }
}

fn at_iface(ip: u32, cidr: u8, iface: &str) -> Element {
    let name = iface.try_into().unwrap();
    Element { iface: Some(Iface { name, physdev: false, wildcard: false }), ..net(ip, cidr) }
}

fn set(spec: CreateSpec) -> Set {
    Set::new(spec, 7).unwrap()
}

fn with_timeout(timeout_s: u32) -> Extras {
    Extras { timeout_s: Some(timeout_s), ..Extras::default() }
}

fn all(set: &Set, now: Nanos) -> Vec<Entry> {
    let (mut found, mut from) = (Vec::new(), Some(Cursor::default()));
    while let Some(cursor) = from {
        let (some, next) = set.entries(cursor, 3, now);
        assert!(some.len() <= 3);
        found.extend(some);
        from = next;
    }
    found
}

#[derive(Clone, Debug)]
enum Op {
    Add { ip: u32, timeout_s: u32, exist: bool },
    Del(u32),
    Test(u32),
    Wait(u64),
    Sweep,
    Flush,
}

fn any_op() -> impl Strategy<Value = Op> {
    let ip = 1u32..40;
    prop_oneof![
        8 => (ip.clone(), 0u32..5, any::<bool>())
            .prop_map(|(ip, timeout_s, exist)| Op::Add { ip, timeout_s, exist }),
        4 => ip.clone().prop_map(Op::Del),
        4 => ip.prop_map(Op::Test),
        2 => (0u64..3).prop_map(Op::Wait),
        1 => Just(Op::Sweep),
        1 => Just(Op::Flush),
    ]
}

/// Addresses with the time at which they expire.
type Known = HashMap<u32, Option<Nanos>>;

fn lives(deadline: Option<&Option<Nanos>>, now: Nanos) -> bool {
    deadline.is_some_and(|deadline| deadline.is_none_or(|deadline| deadline >= now))
}

fn run(spec: CreateSpec, ops: &[Op]) -> Result<(), TestCaseError> {
    let set = set(spec);
    let most = if spec.kind == SetType::HashIp { spec.maxelem as usize } else { usize::MAX };
    let (mut reference, mut now) = (Known::new(), NOW);
    for op in ops {
        match *op {
            Op::Add { ip: address, timeout_s, exist } => {
                let got = set.add(&ip(address), &with_timeout(timeout_s), exist, now);
                let live = lives(reference.get(&address), now);
                if !reference.contains_key(&address) && reference.len() >= most {
                    reference.retain(|_, deadline| lives(Some(deadline), now));
                }
                let full = !reference.contains_key(&address) && reference.len() >= most;
                let wanted = match (live && !exist, full) {
                    (true, _) => Err(SetError::Exists),
                    (_, true) => Err(SetError::Full),
                    _ => Ok(()),
                };
                if wanted.is_ok() {
                    let seconds = Nanos::from_secs(u64::from(timeout_s));
                    reference.insert(address, (timeout_s > 0).then(|| now + seconds));
                }
                prop_assert_eq!(got, wanted);
            }
            Op::Del(address) => {
                let live = lives(reference.get(&address), now);
                let wanted = if live { Ok(()) } else { Err(SetError::NotThere) };
                prop_assert_eq!(set.del(&ip(address), now), wanted);
                if live || spec.kind == SetType::BitmapIp {
                    reference.remove(&address);
                }
            }
            Op::Test(address) => {
                let wanted = lives(reference.get(&address), now);
                prop_assert_eq!(set.test(&ip(address), false, now), Ok(wanted));
            }
            Op::Wait(seconds) => now = now + Nanos::from_secs(seconds),
            Op::Sweep => {
                set.sweep(now);
                reference.retain(|_, deadline| lives(Some(deadline), now));
                prop_assert_eq!(set.header().entries as usize, reference.len());
            }
            Op::Flush => {
                set.flush();
                reference.clear();
            }
        }
        let mut listed: Vec<u128> = all(&set, now).iter().map(|entry| entry.element.ip).collect();
        listed.sort_unstable();
        let live = reference.iter().filter(|(_, deadline)| lives(Some(deadline), now));
        let mut wanted: Vec<u128> = live.map(|(ip, _)| u128::from(*ip)).collect();
        wanted.sort_unstable();
        prop_assert_eq!(listed, wanted);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_hash_is_a_map_with_deadlines(ops in prop::collection::vec(any_op(), 0..200)) {
        let spec = CreateSpec { timeout: Some(0), maxelem: 20, ..CreateSpec::new(SetType::HashIp) };
        run(spec, &ops)?;
    }

    #[test]
    fn a_bitmap_is_a_map_with_deadlines(ops in prop::collection::vec(any_op(), 0..200)) {
        let range = Some((0, 63));
        let spec = CreateSpec { timeout: Some(0), range, ..CreateSpec::new(SetType::BitmapIp) };
        run(spec, &ops)?;
    }

    /// Of all networks that an address is in, the most specific one decides.
    #[test]
    fn the_most_specific_network_decides(
        nets in prop::collection::vec((0u32..64, 24u8..=32, any::<bool>()), 0..40),
        asked in prop::collection::vec(0u32..64, 1..40),
    ) {
        let set = set(CreateSpec::new(SetType::HashNet));
        let mut reference: HashMap<(u32, u8), bool> = HashMap::new();
        for (address, cidr, nomatch) in nets {
            let extras = Extras { nomatch, ..Extras::default() };
            set.add(&net(address, cidr), &extras, true, NOW).unwrap();
            reference.insert((address & u32::MAX << (32 - u32::from(cidr)), cidr), nomatch);
        }
        for address in asked {
            let covers = |cidr: u8| (address & u32::MAX << (32 - u32::from(cidr)), cidr);
            let decides = (24..=32).rev().find_map(|cidr| reference.get(&covers(cidr)));
            prop_assert_eq!(set.test(&ip(address), false, NOW), Ok(decides == Some(&false)));
            prop_assert_eq!(set.test(&ip(address), true, NOW), Ok(decides == Some(&true)));
        }
    }
}

#[test]
fn sets_grow_to_what_they_may_hold_and_no_further() {
    let set = set(CreateSpec { maxelem: 20_000, ..CreateSpec::new(SetType::HashIp) });
    for address in 1..=20_000 {
        set.add(&ip(address), &Extras::default(), false, NOW).unwrap();
    }
    let refused = set.add(&ip(30_000), &Extras::default(), false, NOW);
    assert_eq!(refused, Err(SetError::Full));
    assert_eq!(set.header().entries, 20_000);
    assert!((1..=20_000).all(|address| set.test(&ip(address), false, NOW) == Ok(true)));
    assert!((20_001..40_000).all(|address| set.test(&ip(address), false, NOW) == Ok(false)));
    for address in 1..=20_000 {
        set.del(&ip(address), NOW).unwrap();
    }
    assert_eq!(all(&set, NOW), []);
    let bytes = set.header().memory_bytes;
    for round in 0..50u32 {
        for address in 1..=1000 {
            set.add(&ip(round * 7919 + address), &Extras::default(), false, NOW).unwrap();
            set.del(&ip(round * 7919 + address), NOW).unwrap();
        }
    }
    assert_eq!(set.header().memory_bytes, bytes, "coming and going needs no more room");
}

/// What a set may hold costs nothing until it holds it.
#[test]
fn one_element_of_the_largest_set_is_small() {
    let set = set(CreateSpec { maxelem: u32::MAX, ..CreateSpec::new(SetType::HashIp) });
    set.add(&ip(1), &Extras::default(), false, NOW).unwrap();
    let bytes = set.header().memory_bytes;
    assert!(bytes < 1 << 20, "{bytes} bytes");
}

#[test]
fn forceadd_takes_one_out_for_another() {
    let spec = CreateSpec { maxelem: 4, forceadd: true, ..CreateSpec::new(SetType::HashIp) };
    let set = set(spec);
    for address in 1..=50 {
        set.add(&ip(address), &Extras::default(), false, NOW).unwrap();
        assert_eq!(set.test(&ip(address), false, NOW), Ok(true));
        assert!(set.header().entries <= 4);
    }
}

#[test]
fn rules_follow_names_when_sets_are_swapped() {
    let registry = Registry::new(1);
    let spec = CreateSpec::new(SetType::HashIp);
    registry.create(name("live"), spec, false).unwrap();
    registry.create(name("next"), spec, false).unwrap();
    registry.create(name("other"), CreateSpec::new(SetType::HashNet), false).unwrap();
    let rule = Reference::new(&registry.get(&name("live")).unwrap());
    let next = registry.get(&name("next")).unwrap();
    registry.add(&next, &ip(5), &Extras::default(), false, NOW).unwrap();
    registry.swap(&name("live"), &name("next")).unwrap();
    assert_eq!(rule.slot().load().test(&ip(5), false, NOW), Ok(true));
    assert_eq!(rule.slot().name(), name("live"));
    assert_eq!(registry.destroy(&name("live")), Err(SetError::InUse(name("live"))));
    assert_eq!(registry.rename(&name("live"), name("x")), Err(SetError::InUse(name("live"))));
    let mismatch = SetError::TypeMismatch(name("live"), name("other"));
    assert_eq!(registry.swap(&name("live"), &name("other")), Err(mismatch));
    assert_eq!(registry.destroy_all(), Err(SetError::InUse(name("live"))));
    drop(rule);
    registry.rename(&name("live"), name("x")).unwrap();
    registry.destroy(&name("x")).unwrap();
    registry.destroy_all().unwrap();
    assert_eq!(registry.list().len(), 0);
}

/// A worker that still reads a set is not who frees it.
#[test]
fn what_a_worker_reads_is_freed_by_the_sweep() {
    use std::sync::Arc;
    let registry = Registry::new(1);
    let make = || Arc::new(set(CreateSpec::new(SetType::HashIp)));
    registry.put(name("s"), make()).unwrap();
    let slot = registry.get(&name("s")).unwrap();
    let replaced = Arc::downgrade(&slot.set());
    let reads = slot.load();
    registry.put(name("s"), make()).unwrap();
    drop(reads);
    assert!(replaced.upgrade().is_some(), "not freed by the reader");
    registry.sweep(NOW);
    assert!(replaced.upgrade().is_none(), "freed by the sweep");

    let destroyed = Arc::downgrade(&slot.set());
    let reads = slot.load();
    registry.destroy(&name("s")).unwrap();
    drop(slot);
    drop(reads);
    assert!(destroyed.upgrade().is_some(), "not freed by the reader");
    registry.sweep(NOW);
    assert!(destroyed.upgrade().is_none(), "freed by the sweep");
}

#[test]
fn lists_keep_their_order_and_their_members() {
    let registry = Registry::new(1);
    for set in ["a", "b", "c"] {
        registry.create(name(set), CreateSpec::new(SetType::HashIp), false).unwrap();
    }
    registry.create(name("l"), CreateSpec::new(SetType::ListSet), false).unwrap();
    let list = registry.get(&name("l")).unwrap();
    let member = |set: &str, beside| Element { set: Some(name(set)), beside, ..Element::default() };
    let add = |set: &str, beside| {
        registry.add(&list, &member(set, beside), &Extras::default(), false, NOW)
    };
    add("a", None).unwrap();
    add("b", None).unwrap();
    add("c", Some(Beside::Before(name("b")))).unwrap();
    assert_eq!(add("c", None), Err(SetError::Exists));
    assert_eq!(add("l", None), Err(SetError::Nested));
    assert_eq!(list.load().member_names(), ["a", "c", "b"].map(name));
    let test = |set: &str, beside| list.load().test(&member(set, Some(beside)), false, NOW);
    assert_eq!(test("a", Beside::Before(name("c"))), Ok(true));
    assert_eq!(test("a", Beside::After(name("c"))), Ok(false));
    assert_eq!(registry.destroy(&name("c")), Err(SetError::InUse(name("c"))));
    registry.del(&list, &member("c", None), false, NOW).unwrap();
    registry.destroy(&name("c")).unwrap();
    assert!(registry.destroy_all().is_err(), "the list refers to its members");
    list.load().flush();
    registry.destroy_all().unwrap();
}

#[test]
fn a_twin_has_the_same_sets_and_nothing_in_them() {
    let registry = Registry::new(1);
    registry.create(name("l"), CreateSpec::new(SetType::ListSet), false).unwrap();
    registry.create(name("a"), CreateSpec::new(SetType::HashIp), false).unwrap();
    let (list, set) = (registry.get(&name("l")).unwrap(), registry.get(&name("a")).unwrap());
    registry.add(&set, &ip(1), &Extras::default(), false, NOW).unwrap();
    let member = Element { set: Some(name("a")), ..Element::default() };
    registry.add(&list, &member, &Extras::default(), false, NOW).unwrap();
    let twin = registry.emptied().unwrap();
    assert_eq!(twin.list().len(), 2);
    assert_eq!(twin.get(&name("l")).unwrap().load().member_names(), [name("a")]);
    assert_eq!(twin.get(&name("a")).unwrap().load().header().entries, 0);
    assert_eq!(set.load().header().entries, 1);
}

#[test]
fn what_no_set_takes_is_refused() {
    let refused = |spec| Set::new(spec, 0).unwrap_err();
    let bitmap = CreateSpec { range: Some((0, 1 << 16)), ..CreateSpec::new(SetType::BitmapIp) };
    assert_eq!(refused(bitmap), SetError::RangeSize);
    let v6 = CreateSpec { family: Family::V6, ..CreateSpec::new(SetType::BitmapPort) };
    assert_eq!(refused(v6), SetError::NoSuchParameter("family"));
    let hash = set(CreateSpec::new(SetType::HashIp));
    let add = |element, extras| hash.add(&element, &extras, false, NOW);
    assert_eq!(add(ip(0), Extras::default()), Err(SetError::NullElement));
    assert_eq!(add(net(1 << 24, 24), Extras::default()), Err(SetError::Cidr));
    assert_eq!(add(ip(1), with_timeout(3)), Err(SetError::NoExtension("timeout")));
    let wide = Element { ip: 1 << 100, ..Element::default() };
    assert_eq!(add(wide, Extras::default()), Err(SetError::WrongFamily));
    let nets = set(CreateSpec::new(SetType::HashNet));
    assert_eq!(nets.add(&net(0, 0), &Extras::default(), false, NOW), Err(SetError::Cidr));
}

/// An element that does not hold does not hide wider networks; another interface does.
#[test]
fn an_interface_that_does_not_hold_leaves_wider_networks_to_ask() {
    use super::lookup::{self, Answer};
    use super::set::Body;
    use super::slab::{Ask, Mapped};
    let spec = CreateSpec { counters: true, ..CreateSpec::new(SetType::HashNetIface) };
    let asked = |ifaces: &[(&str, u8)]| {
        let set = set(spec);
        for (iface, cidr) in ifaces {
            set.add(&at_iface(0x7f00_0000, *cidr, iface), &Extras::default(), false, NOW).unwrap();
        }
        let Body::Hash(store) = &set.body else { panic!("a hash") };
        let packets = Some(CountTest::Greater(1000));
        let ask = Ask { now: NOW, bytes: 84, update: true, packets, octets: None };
        let packet = at_iface(0x7f00_0001, 32, "lo");
        let answer = lookup::test(&spec, store, &packet, &ask, &mut Mapped::default());
        assert_eq!(answer, Answer::No);
        all(&set, NOW).iter().map(|entry| entry.extras.packets.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(asked(&[("lo", 24), ("lo", 8)]), [1, 1]);
    assert_eq!(asked(&[("eth0", 24), ("lo", 8)]), [0, 0]);
    assert_eq!(asked(&[("eth0", 24), ("lo", 24), ("lo", 8)]), [0, 1, 1]);
}

/// What stays is found at every moment, while others come and go around it and the set
/// grows; what never was is never found.
#[test]
fn lookups_never_miss_what_stays() {
    let spec = CreateSpec { maxelem: 1 << 20, ..CreateSpec::new(SetType::HashIp) };
    let set = set(spec);
    for address in 1..=500 {
        set.add(&ip(address), &Extras::default(), false, NOW).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for address in 1..=500 {
                        assert_eq!(set.test(&ip(address), false, NOW), Ok(true));
                        assert_eq!(set.test(&ip(1 << 30 | address), false, NOW), Ok(false));
                    }
                }
            });
        }
        for start in [10_000u32, 1_000_000] {
            let set = &set;
            let churn = scope.spawn(move || {
                for round in 0..40 {
                    for address in 0..500 {
                        let element = ip(start + round * 300 + address);
                        let _ = set.add(&element, &Extras::default(), true, NOW);
                    }
                    for address in 0..200 {
                        let _ = set.del(&ip(start + round * 300 + address), NOW);
                    }
                }
            });
            churn.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A rule may say up to 4294967294 seconds; the kernel keeps 2147483.
#[test]
fn timeouts_end_where_the_kernels_do() {
    let set = set(CreateSpec { timeout: Some(0), ..CreateSpec::new(SetType::HashIp) });
    let add = |timeout_s| set.add(&ip(1), &with_timeout(timeout_s), true, NOW);
    assert_eq!(add(2_147_484), Err(SetError::Parameter("timeout")));
    assert_eq!(add(2_147_483), Ok(()));
    let target = |timeout_s| SetTarget {
        add: None,
        exist: false,
        timeout_s,
        del: None,
        map: None,
        names: Default::default(),
    };
    assert_eq!(target(Some(4_294_967_290)).held_timeout_s(), Some(2_147_483));
    assert_eq!(target(Some(60)).held_timeout_s(), Some(60));
    assert_eq!(target(None).held_timeout_s(), None);
}

/// Saying again what a bitmap holds leaves no moment without it.
#[test]
fn a_bitmap_never_misses_what_is_updated() {
    let set = set(CreateSpec { range: Some((0, 63)), ..CreateSpec::new(SetType::BitmapIpMac) });
    let element = Element { mac: Some([2, 0, 0, 0, 0, 1]), ..ip(5) };
    let add = || set.add(&element, &Extras::default(), true, NOW);
    add().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..200_000 {
                let _ = add();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            assert_eq!(set.test(&element, false, NOW), Ok(true));
        }
    });
}

#[test]
fn an_expired_element_is_never_found() {
    let set = set(CreateSpec { timeout: Some(10), ..CreateSpec::new(SetType::HashIp) });
    set.add(&ip(1), &Extras::default(), false, NOW).unwrap();
    set.add(&ip(2), &with_timeout(0), false, NOW).unwrap();
    assert_eq!(set.test(&ip(1), false, at(10)), Ok(true));
    assert_eq!(set.test(&ip(1), false, at(11)), Ok(false));
    assert_eq!(set.test(&ip(2), false, at(1_000_000)), Ok(true));
    assert_eq!(all(&set, at(4))[0].extras.timeout_s, Some(6));
    assert_eq!(all(&set, at(11)).len(), 1);
}
