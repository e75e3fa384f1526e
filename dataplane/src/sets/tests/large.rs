//! Large sets: indexes that are replaced piece by piece, and what else only shows there.

use std::collections::HashSet;

use super::super::lookup::{self, Answer};
use super::super::set::Body;
use super::super::slab::{Ask, Mapped};
use super::*;

/// The same numbers on every machine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as u32
    }
}

fn is_growing(set: &Set) -> bool {
    let Body::Hash(store) = &set.body else { panic!("a hash") };
    store.table().before.is_some()
}

/// A kind of set, and the element of a number.
type Subject = (CreateSpec, fn(u32) -> Element);

fn specs() -> Vec<Subject> {
    let hash = CreateSpec { maxelem: 1 << 20, ..CreateSpec::new(SetType::HashIp) };
    let wide = |number| Element { ip: u128::from(number) << 64 | 1, ..Element::default() };
    vec![
        (hash, ip),
        (CreateSpec { counters: true, ..hash }, ip),
        (CreateSpec { timeout: Some(0), ..hash }, ip),
        (CreateSpec { family: Family::V6, ..hash }, wide),
        (CreateSpec { kind: SetType::HashNet, ..hash }, |number| net(number << 12 | 1 << 11, 24)),
    ]
}

/// What was put and not taken is there, nothing else is, at every size on the way up and
/// down, while indexes grow, wear and are swept.
#[test]
fn a_large_set_is_a_plain_set() {
    const KEYS: u32 = 60_000;
    for (spec, element) in specs() {
        let set = set(spec);
        let (mut reference, mut numbers) = (HashSet::new(), Numbers(spec.maxelem.into()));
        let (mut grown, mut asked) = (0, 0);
        for turn in 0..200_000_u32 {
            // More come than go, then more go.
            let comes = numbers.next() % 10 < if turn < 120_000 { 8 } else { 2 };
            let key = 1 + numbers.next() % KEYS;
            match comes {
                true => {
                    let new = reference.insert(key);
                    let wanted = if new { Ok(()) } else { Err(SetError::Exists) };
                    assert_eq!(set.add(&element(key), &Extras::default(), false, NOW), wanted);
                }
                false => {
                    let there = reference.remove(&key);
                    let wanted = if there { Ok(()) } else { Err(SetError::NotThere) };
                    assert_eq!(set.del(&element(key), NOW), wanted);
                }
            }
            let other = 1 + numbers.next() % KEYS;
            for key in [key, other] {
                let there = reference.contains(&key);
                assert_eq!(set.test(&element(key), false, NOW), Ok(there), "{spec:?} {turn}");
                asked += u32::from(is_growing(&set));
            }
            grown += u32::from(is_growing(&set));
            if turn % 30_000 == 29_999 {
                set.sweep(NOW);
                assert!(!is_growing(&set), "the sweep ends what was begun");
            }
        }
        assert!(grown > 100 && asked > 100, "asked while growing: {grown} {asked}");
        assert_eq!(set.header().entries as usize, reference.len());
        for key in 1..=KEYS {
            let there = reference.contains(&key);
            assert_eq!(set.test(&element(key), false, NOW), Ok(there), "{spec:?} {key}");
        }
        assert_eq!(all(&set, NOW).len(), reference.len());
        set.flush();
        assert!((1..=KEYS).all(|key| set.test(&element(key), false, NOW) == Ok(false)));
    }
}

/// Where a hash is all that is asked, no two addresses may have the same one.
#[test]
fn short_keys_have_hashes_of_their_own() {
    for seed in [0, 1, 7, u64::MAX, 0x0123_4567_89ab_cdef] {
        let set = Set::new(CreateSpec::new(SetType::HashIp), seed).unwrap();
        let Body::Hash(store) = &set.body else { panic!("a hash") };
        let mut numbers = Numbers(seed);
        let mut keys: Vec<u32> = (0..1 << 20).map(|_| numbers.next()).chain(0..1 << 18).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut hashes: Vec<u32> =
            keys.iter().map(|key| store.hash(&[u64::from(*key), 0, 0, 0, 0])).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), keys.len(), "seed {seed}");
        // Places are taken evenly: neighbours are no neighbours any more.
        let mut places = vec![0_u32; 1 << 10];
        (0..1 << 16).for_each(|key| places[(store.hash(&[key, 0, 0, 0, 0]) >> 22) as usize] += 1);
        assert!(places.iter().all(|taken| *taken < 4 * 64), "seed {seed}");
    }
}

/// An addition carries a few slots of a large index, not all of them.
#[test]
fn no_addition_pays_for_a_whole_index() {
    let set = set(CreateSpec { maxelem: 1 << 20, ..CreateSpec::new(SetType::HashIp) });
    let add = |address| set.add(&ip(address), &Extras::default(), false, NOW).unwrap();
    (1..=1 << 16).for_each(add);
    assert!(!is_growing(&set), "half of what fits");
    add((1 << 16) + 1);
    assert!(is_growing(&set));
    let mut more = 1;
    while is_growing(&set) {
        more += 1;
        add((1 << 16) + more);
    }
    assert!((1000..10_000).contains(&more), "{more} additions");
    assert!((1..=(1 << 16) + more).all(|it| set.test(&ip(it), false, NOW) == Ok(true)));
}

/// A row that is in two indexes counts a packet once.
#[test]
fn what_is_carried_counts_once() {
    let spec = CreateSpec { maxelem: 1 << 20, counters: true, ..CreateSpec::new(SetType::HashIp) };
    let set = set(spec);
    for address in 1..=(1 << 14) + 100 {
        set.add(&ip(address), &Extras::default(), false, NOW).unwrap();
    }
    assert!(is_growing(&set));
    let Body::Hash(store) = &set.body else { panic!("a hash") };
    let packets = Some(CountTest::Greater(1000));
    let ask = Ask { now: NOW, bytes: 84, update: true, packets, octets: None };
    for address in 1..=1 << 14 {
        let answer = lookup::test(&spec, store, &ip(address), &ask, &mut Mapped::default());
        assert_eq!(answer, Answer::No);
    }
    let counted = all(&set, NOW).iter().map(|entry| entry.extras.packets.unwrap()).sum::<u64>();
    assert_eq!(counted, 1 << 14);
}

/// Where anything has expired, a full set has room, wherever that lies.
#[test]
fn a_full_set_has_room_where_anything_expired() {
    let spec = CreateSpec { maxelem: 5000, timeout: Some(0), ..CreateSpec::new(SetType::HashIp) };
    for by_packet in [false, true] {
        let set = set(spec);
        for address in 1..=5000 {
            let timeout_s = if address == 4000 { 5 } else { 0 };
            set.add(&ip(address), &with_timeout(timeout_s), false, NOW).unwrap();
        }
        set.reserve();
        let put = |address, now| set.put(&ip(address), &Extras::default(), false, !by_packet, now);
        assert_eq!(put(6000, at(5)), Err(SetError::Full), "not over yet");
        // A packet looks at some; the next ones go on.
        let tries = (0..100).position(|_| put(6000, at(6)).is_ok());
        assert!(tries.is_some_and(|tries| by_packet || tries == 0), "{tries:?}");
        assert_eq!(set.test(&ip(6000), false, at(6)), Ok(true));
        assert_eq!(put(6001, at(6)), Err(SetError::Full));
        set.sweep(at(6));
        assert_eq!(put(6001, at(6)), Err(SetError::Full));
        assert_eq!(set.header().entries, 5000);
    }
}

/// Names are looked up, not searched for; places that are free again are taken first.
#[test]
fn names_follow_what_becomes_of_sets() {
    let registry = Registry::new(1);
    let create = |text: &str| registry.create(name(text), CreateSpec::new(SetType::HashIp), false);
    let listed =
        || -> Vec<String> { registry.list().iter().map(|slot| slot.name().to_string()).collect() };
    ["a", "b", "c", "d"].into_iter().for_each(|text| create(text).unwrap());
    registry.rename(&name("b"), name("x")).unwrap();
    assert!(registry.get(&name("b")).is_none() && registry.get(&name("x")).is_some());
    registry.destroy(&name("a")).unwrap();
    registry.destroy(&name("c")).unwrap();
    assert_eq!(registry.destroy(&name("c")), Err(SetError::NoSuchSet(name("c"))));
    create("e").unwrap();
    assert_eq!(listed(), ["e", "x", "d"]);
    create("f").unwrap();
    create("g").unwrap();
    assert_eq!(listed(), ["e", "x", "f", "d", "g"]);
    assert_eq!(create("x"), Err(SetError::SetExists(name("x"))));
    registry.destroy_all().unwrap();
    create("a").unwrap();
    assert_eq!(listed(), ["a"]);
}

/// As observed of `ipset swap`: what an element holds must be the same, the type need not.
#[test]
fn sets_swap_with_what_holds_the_same() {
    use SetType::*;
    let may = |one: SetType, other| one.holds_as(other);
    for kind in SetType::ALL {
        assert!(may(kind, kind));
        let alike = SetType::ALL.into_iter().filter(|other| may(kind, *other)).count();
        let paired = [HashIp, BitmapIp, HashIpMac, BitmapIpMac, HashIpPortNet, HashNetPortNet];
        assert_eq!(alike, if paired.contains(&kind) { 2 } else { 1 }, "{}", kind.name());
    }
    assert!(may(HashIp, BitmapIp) && may(BitmapIpMac, HashIpMac));
    assert!(!may(HashIp, HashNet) && !may(HashIpPortIp, HashIpPortNet));
    let registry = Registry::new(1);
    let bitmap = CreateSpec { range: Some((0, 255)), ..CreateSpec::new(BitmapIp) };
    registry.create(name("hash"), CreateSpec::new(HashIp), false).unwrap();
    registry.create(name("bits"), bitmap, false).unwrap();
    registry.swap(&name("hash"), &name("bits")).unwrap();
    assert_eq!(registry.get(&name("hash")).unwrap().load().spec().kind, BitmapIp);
}

/// As observed of `ipset create`.
#[test]
fn a_bitmap_of_networks_covers_one_network() {
    let ip = |d: u32, c: u32| 10 << 24 | c << 8 | d;
    let made = |first, last, netmask| {
        let range = Some((first, last));
        let spec = CreateSpec { range, netmask, ..CreateSpec::new(SetType::BitmapIp) };
        Set::new(spec, 0).map(|set| set.spec().netmask)
    };
    for (first, last, netmask) in [
        (ip(0, 0), ip(100, 0), 28),
        (ip(5, 0), ip(4, 1), 28),
        (ip(0, 0), ip(255, 1), 28),
        (ip(0, 0), ip(100, 0), 32),
        (ip(0, 0), ip(255, 2), 28),
        (0, u32::MAX, 16),
        (ip(16, 0), ip(31, 0), 30),
        (ip(0, 0), ip(31, 0), 28),
        (ip(4, 0), ip(7, 0), 31),
    ] {
        let kept = (netmask < 32).then_some(netmask);
        assert_eq!(made(first, last, Some(netmask)), Ok(kept), "{first:x} {last:x}");
    }
    for (first, last, netmask) in [
        (ip(0, 0), ip(255, 0), 20),
        (ip(0, 0), ip(255, 0), 24),
        (ip(0, 1), ip(255, 2), 28),
        (ip(0, 0), ip(15, 0), 28),
        (ip(16, 0), ip(47, 0), 28),
        (ip(4, 0), ip(5, 0), 31),
    ] {
        let refused = made(first, last, Some(netmask));
        assert_eq!(refused, Err(SetError::NetmaskRange), "{first:x} {last:x} {netmask}");
    }
    assert_eq!(made(ip(0, 1), ip(255, 2), None), Ok(None));
    assert_eq!(made(ip(0, 1), ip(255, 2), Some(32)), Ok(None), "as without");
}

/// Who adds finds the next index there, down to its last page, when it comes to need it;
/// without housekeeping it makes one, and nothing of that shows but in time.
#[test]
fn what_a_growing_set_needs_is_foreseen() {
    const SLOTS: u32 = 1 << 16;
    let spec = CreateSpec { maxelem: 1 << 20, ..CreateSpec::new(SetType::HashIp) };
    let set = set(spec);
    let Body::Hash(store) = &set.body else { panic!("a hash") };
    let fill = |from: u32, to: u32| {
        (from..to).for_each(|key| set.add(&ip(key + 1), &Extras::default(), false, NOW).unwrap());
    };
    // Not yet; and nothing that comes in small pages is worth it.
    fill(0, SLOTS * 5 / 16);
    set.sweep(NOW);
    set.foresee();
    assert_eq!(store.foreseen(), None);
    fill(SLOTS * 5 / 16, SLOTS * 5 / 16 + 1);
    set.foresee();
    let (slots, ready) = store.foreseen().expect("the set is about to grow");
    assert_eq!(ready, 2 * SLOTS as usize);
    fill(SLOTS * 5 / 16 + 1, SLOTS / 2 + 1);
    assert_eq!(store.table().index.first_slot(), slots, "the set grew into what was foreseen");
    assert_eq!(store.foreseen(), None);
    // The next one is foreseen in vain: elements go again.
    set.sweep(NOW);
    fill(SLOTS / 2 + 1, SLOTS);
    set.foresee();
    assert!(store.foreseen().is_some());
    (SLOTS / 4..SLOTS).for_each(|key| set.del(&ip(key + 1), NOW).unwrap());
    set.foresee();
    let other = store.foreseen().filter(|&(_, ready)| ready != 2 * SLOTS as usize);
    assert_eq!(other, None, "what is not needed any more is let go of, but for a worn index's");
    assert!((0..SLOTS / 4).all(|key| set.test(&ip(key + 1), false, NOW) == Ok(true)));
}

/// Rows of a chunk that was supplied are rows like others, and none is supplied twice.
#[test]
fn rows_that_were_foreseen_are_rows() {
    let set = set(CreateSpec { maxelem: 1 << 18, ..CreateSpec::new(SetType::HashIp) });
    let Body::Hash(store) = &set.body else { panic!("a hash") };
    let mut supplied = 0;
    for key in 1..=1 << 18 {
        set.add(&ip(key), &Extras::default(), false, NOW).unwrap();
        if key % 4096 == 0 {
            let next = || store.table().slab.next_chunk(key);
            let before = next().filter(|(_, words)| *words >= 1 << 16);
            set.foresee();
            supplied += u32::from(before.is_some() && next().is_none());
            set.sweep(NOW);
        }
    }
    assert!(supplied >= 2, "{supplied} chunks were made ahead");
    assert!((1..=1 << 18).all(|key| set.test(&ip(key), false, NOW) == Ok(true)));
    assert_eq!(set.header().entries, 1 << 18);
}
