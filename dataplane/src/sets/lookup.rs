//! How an element is found in a hash type: by every prefix length there is, longest first.

use arrayvec::ArrayVec;

use super::element::Element;
use super::index::Table;
use super::key::Key;
use super::slab::{Ask, Mapped, NOMATCH};
use super::spec::{CreateSpec, Part, SetType};
use super::store::Store;

/// Prefix lengths that are looked at together.
const ABREAST: usize = 8;

/// What a set says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    No,
    Yes,
    /// It lies in an exception.
    Exception,
}

impl Answer {
    fn of(state: u64) -> Self {
        if state & NOMATCH != 0 { Self::Exception } else { Self::Yes }
    }
}

/// The lengths of an element's networks, each where the store counts it.
pub(super) fn cidrs(kind: SetType, store: &Store, element: &Element) -> [Option<u8>; 2] {
    let longest = store.shape.longest();
    let first = kind.parts().first() == Some(&Part::Net);
    let last = kind.parts().len() > 1 && kind.parts().last() == Some(&Part::Net);
    [first.then(|| element.cidr.unwrap_or(longest)), last.then(|| element.cidr2.unwrap_or(longest))]
}

/// The element as packets add and delete it: with the longest prefixes that are there.
pub(super) fn as_added(spec: &CreateSpec, store: &Store, element: &Element) -> Element {
    let shape = &store.shape;
    let all = shape.mask(shape.longest());
    let length = |at: usize| store.lengths[at].iter().next().unwrap_or(shape.longest());
    let mut element = masked(spec, all, element);
    match cidrs(spec.kind, store, &element) {
        [first, second] => {
            if first.is_some() {
                element.cidr = Some(length(0));
                element.ip &= shape.mask(length(0));
            }
            if second.is_some() {
                element.cidr2 = Some(length(1));
                element.ip2 &= shape.mask(length(1));
            }
        }
    }
    element
}

/// What a hash cannot hold.
pub(super) fn is_null(kind: SetType, element: &Element) -> bool {
    matches!(kind, SetType::HashIp | SetType::HashIpPort) && element.ip == 0
}

/// Under the set's own masks.
#[inline]
fn masked(spec: &CreateSpec, all: u128, element: &Element) -> Element {
    Element {
        ip: spec.keeps(element.ip, all),
        ip2: spec.keeps(element.ip2, all),
        mark: element.mark & spec.markmask,
        ..*element
    }
}

/// Looks for the element itself.
#[inline]
pub(super) fn exact(store: &Store, element: &Element, ask: &Ask, mapped: &mut Mapped) -> Answer {
    let key = store.shape.pack(element);
    step(store, &key, ask, mapped).unwrap_or(Answer::No)
}

/// Asks the one row of that key, and no other: it may be met twice.
#[inline]
fn step(store: &Store, key: &Key, ask: &Ask, mapped: &mut Mapped) -> Option<Answer> {
    let (table, hash) = (store.table(), store.hash(key));
    step_in(store, &table, (key, hash), ask, mapped)
}

#[inline]
fn step_in(
    store: &Store,
    table: &Table,
    (key, hash): (&Key, u32),
    ask: &Ask,
    mapped: &mut Mapped,
) -> Option<Answer> {
    let found = store.visit(table, hash, |row, state, there| {
        if !store.shape.same(there, key) {
            return None;
        }
        let answer = row.answers(ask, mapped).then(|| Answer::of(state));
        // Several interfaces can be the one meant; of other keys there is one row.
        (answer.is_some() || !store.shape.has_iface()).then_some(answer)
    });
    found.flatten()
}

/// A single address in a set of addresses.
#[inline]
fn single(store: &Store, ip: u128, ask: &Ask, mapped: &mut Mapped) -> Answer {
    let key = store.shape.pack_ip(ip, None);
    if !store.knows_by_hash() {
        return step(store, &key, ask, mapped).unwrap_or(Answer::No);
    }
    match store.table().walk(store.hash(&key), |_| Some(())) {
        Some(()) => Answer::Yes,
        None => Answer::No,
    }
}

/// A single address in every network, the most specific first. What is looked at first of
/// each length is fetched for several at once: in a large set that is what takes time.
#[inline]
fn by_networks(store: &Store, ip: u128, ask: &Ask, mapped: &mut Mapped) -> Answer {
    let (shape, table) = (&store.shape, store.table());
    let mut lengths = store.lengths[0].iter();
    loop {
        let mut some = ArrayVec::<(Key, u32, bool), ABREAST>::new();
        for length in lengths.by_ref().take(ABREAST) {
            let key = shape.pack_ip(ip & shape.mask(length), Some(length));
            let hash = store.hash(&key);
            some.push((key, hash, table.is_vacant(hash)));
        }
        if some.is_empty() {
            return Answer::No;
        }
        for (key, hash, vacant) in &some {
            let found = || step_in(store, &table, (key, *hash), ask, mapped);
            if let Some(answer) = (!vacant).then(found).flatten() {
                return answer;
            }
        }
    }
}

/// Looks for single addresses in every network.
#[inline]
pub(super) fn test(
    spec: &CreateSpec,
    store: &Store,
    element: &Element,
    ask: &Ask,
    mapped: &mut Mapped,
) -> Answer {
    let shape = &store.shape;
    let all = shape.mask(shape.longest());
    match spec.kind {
        SetType::HashIp => {
            return match spec.keeps(element.ip, all) {
                0 => Answer::No,
                ip => single(store, ip, ask, mapped),
            };
        }
        SetType::HashNet => return by_networks(store, element.ip, ask, mapped),
        _ => {}
    }
    let element = masked(spec, all, element);
    match spec.kind {
        SetType::HashNetIface => by_interface(store, &element, ask, mapped),
        SetType::HashNetPort => {
            let found = store.lengths[0].iter().find_map(|length| {
                let ip = element.ip & shape.mask(length);
                let key = shape.pack(&Element { ip, cidr: Some(length), ..element });
                step(store, &key, ask, mapped)
            });
            found.unwrap_or(Answer::No)
        }
        SetType::HashIpPortNet => {
            let found = store.lengths[1].iter().find_map(|length| {
                let ip2 = element.ip2 & shape.mask(length);
                let key = shape.pack(&Element { ip2, cidr2: Some(length), ..element });
                step(store, &key, ask, mapped)
            });
            found.unwrap_or(Answer::No)
        }
        SetType::HashNetNet | SetType::HashNetPortNet => {
            let lengths = || store.lengths[1].iter();
            let pairs =
                store.lengths[0].iter().flat_map(|one| lengths().map(move |two| (one, two)));
            let found = { pairs }.find_map(|(one, two)| {
                let (ip, ip2) = (element.ip & shape.mask(one), element.ip2 & shape.mask(two));
                let (cidr, cidr2) = (Some(one), Some(two));
                let key = shape.pack(&Element { ip, cidr, ip2, cidr2, ..element });
                step(store, &key, ask, mapped)
            });
            found.unwrap_or(Answer::No)
        }
        _ => exact(store, &element, ask, mapped),
    }
}

/// Once a network is there with another interface, no wider one is looked at; an element
/// of this very interface that does not hold (its time, its counters) makes up for those
/// that were met before it.
fn by_interface(store: &Store, element: &Element, ask: &Ask, mapped: &mut Mapped) -> Answer {
    let shape = &store.shape;
    for length in store.lengths[0].iter() {
        let ip = element.ip & shape.mask(length);
        let key = shape.pack(&Element { ip, cidr: Some(length), ..*element });
        let mut listed = false;
        let found = store.visit(&store.table(), store.hash(&key), |row, state, there| {
            let same_net = shape.same_net(there, &key);
            listed |= same_net;
            if !same_net || !shape.same(there, &key) {
                return None;
            }
            if row.answers(ask, mapped) {
                return Some(Answer::of(state));
            }
            listed = false;
            None
        });
        if let Some(answer) = found {
            return answer;
        }
        if listed {
            break;
        }
    }
    Answer::No
}
