//! How an element is found in a hash type: by every prefix length there is, longest first.

use super::element::Element;
use super::key::Key;
use super::slab::{Ask, Mapped, NOMATCH};
use super::spec::{CreateSpec, Part, SetType};
use super::store::Store;

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
    kind == SetType::HashIp && element.ip == 0
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

#[inline]
fn step(store: &Store, key: &Key, ask: &Ask, mapped: &mut Mapped) -> Option<Answer> {
    store.visit(key, |row, state, there| {
        let found = store.shape.same(there, key) && row.answers(ask, mapped);
        found.then(|| Answer::of(state))
    })
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
    let element = masked(spec, all, element);
    match spec.kind {
        kind if is_null(kind, &element) => Answer::No,
        SetType::HashNetIface => by_interface(store, &element, ask, mapped),
        SetType::HashNet | SetType::HashNetPort => {
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
        let found = store.visit(&key, |row, state, there| {
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
