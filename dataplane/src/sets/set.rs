//! One set: elements that workers look up while others change them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::bitmap::{self, Bitmap, Found};
use super::element::{Element, Entry, Extras};
use super::error::SetError;
use super::follow::Followed;
use super::list::List;
use super::lookup::{self, Answer};
use super::name::SetName;
use super::registry::Registry;
use super::slab::{Ask, COMMENTED, Mapped, NOMATCH};
use super::spec::{CreateSpec, SetType};
use super::store::{self, Store};
use crate::clock::Nanos;

/// How far a listing has come. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(u32);

impl Cursor {
    /// From a number that was handed out; any other lists what it happens to point at.
    pub const fn at(number: u32) -> Self {
        Self(number)
    }
    /// To be handed out.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// What the head of a listing says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `Number of entries`; expired ones count until they are swept.
    pub entries: u32,
    /// `Size in memory`, in bytes.
    pub memory_bytes: u64,
}

#[derive(Debug)]
pub(super) enum Body {
    Hash(Store),
    Bitmap(Bitmap),
    List(List),
}

/// A set of any type.
#[derive(Debug)]
pub struct Set {
    spec: CreateSpec,
    pub(super) body: Body,
    /// By row; only those count whose row says so.
    comments: Mutex<HashMap<u32, Box<str>>>,
    pub(super) followed: Followed,
}

impl Set {
    /// An empty set.
    ///
    /// # Errors
    /// Parameters that the type does not take.
    pub fn new(spec: CreateSpec, seed: u64) -> Result<Self, SetError> {
        let spec = spec.checked()?;
        let body = match spec.kind {
            SetType::ListSet => Body::List(List::new(&spec)),
            kind if kind.is_hash() => Body::Hash(Store::new(&spec, seed)),
            _ => Body::Bitmap(Bitmap::new(&spec)?),
        };
        Ok(Self { spec, body, comments: Mutex::default(), followed: Followed::default() })
    }

    /// How it was created.
    pub fn spec(&self) -> &CreateSpec {
        &self.spec
    }

    /// Whether creating it so again would be no change (`create -exist`).
    pub fn same_kind(&self, spec: &CreateSpec) -> bool {
        spec.checked().is_ok_and(|spec| {
            let sizes = CreateSpec {
                hashsize: self.spec.hashsize,
                initval: self.spec.initval,
                bucketsize: self.spec.bucketsize,
                ..spec
            };
            sizes == self.spec
        })
    }

    /// Facts for a listing.
    pub fn header(&self) -> Header {
        let (entries, bytes) = match &self.body {
            Body::Hash(store) => (store.live(), store.bytes()),
            Body::Bitmap(bitmap) => (bitmap.live(), bitmap.bytes()),
            Body::List(list) => (list.members().len() as u32, list.bytes()),
        };
        let memory_bytes = bytes + size_of::<Self>() as u64;
        Header { entries, memory_bytes }
    }

    /// Adds an element, or, with `exist`, makes one that is there what is said.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn add(
        &self,
        element: &Element,
        extras: &Extras,
        exist: bool,
        now: Nanos,
    ) -> Result<(), SetError> {
        self.check_extras(extras)?;
        let element = &self.checked(element)?;
        self.put(element, extras, exist, true, now)?;
        self.followed.tell(|follower| follower.added(self, element, extras.nomatch));
        Ok(())
    }

    /// Of a packet's own making if not `may_allocate`.
    pub(super) fn put(
        &self,
        element: &Element,
        extras: &Extras,
        exist: bool,
        may_allocate: bool,
        now: Nanos,
    ) -> Result<(), SetError> {
        let nomatch = if extras.nomatch { NOMATCH } else { 0 };
        let commented = if extras.comment.is_some() { COMMENTED } else { 0 };
        let flags = nomatch | commented;
        let note = |row: u32| {
            if let Some(comment) = &extras.comment {
                let mut comments = self.comments.lock().unwrap_or_else(PoisonError::into_inner);
                comments.insert(row, comment.clone());
            }
        };
        match &self.body {
            Body::Hash(store) => {
                let timeout_s = extras.timeout_s.or(self.spec.timeout).unwrap_or_default();
                let key = &store.shape.pack(element);
                let cidrs = lookup::cidrs(self.spec.kind, store, element);
                let put = store::Put { key, cidrs, flags, exist, may_allocate, now };
                store.put(&put, |at, row| {
                    row.start_timeout(timeout_s, now);
                    row.init(extras);
                    note(at);
                })
            }
            Body::Bitmap(bitmap) => {
                let put = bitmap::Put { element, extras, flags, exist, may_allocate, now };
                bitmap.put(&put, note)
            }
            Body::List(_) => Err(SetError::Missing("set")),
        }
    }

    /// Deletes an element.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn del(&self, element: &Element, now: Nanos) -> Result<(), SetError> {
        let element = &self.checked(element)?;
        self.take(element, now)?;
        self.followed.tell(|follower| follower.removed(self, element));
        Ok(())
    }

    pub(super) fn take(&self, element: &Element, now: Nanos) -> Result<(), SetError> {
        match &self.body {
            Body::Hash(store) => store.del(&store.shape.pack(element), now),
            Body::Bitmap(bitmap) => bitmap.del(element, now),
            Body::List(list) => list.del(element, now),
        }
    }

    /// Whether the element is there; with `nomatch`, as an exception. A single address
    /// is looked for in every network.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn test(&self, element: &Element, nomatch: bool, now: Nanos) -> Result<bool, SetError> {
        let ask = Ask { now, bytes: 0, update: false, packets: None, octets: None };
        let mapped = &mut Mapped::default();
        match &self.body {
            Body::Hash(store) => {
                let element = self.checked(element)?;
                let longest = store.shape.longest();
                let single = |cidr: Option<u8>| cidr.is_none_or(|cidr| cidr == longest);
                let answer = match single(element.cidr) && single(element.cidr2) {
                    true => lookup::test(&self.spec, store, &element, &ask, mapped),
                    false => lookup::exact(store, &element, &ask, mapped),
                };
                Ok(answer == if nomatch { Answer::Exception } else { Answer::Yes })
            }
            Body::Bitmap(bitmap) => Ok(bitmap.test(element, &ask, mapped)? != Found::No),
            Body::List(list) => list.test(element, now),
        }
    }

    /// Takes every element out.
    pub fn flush(&self) {
        match &self.body {
            Body::Hash(store) => store.flush(),
            Body::Bitmap(bitmap) => bitmap.flush(),
            Body::List(list) => list.flush(),
        }
        let comments = {
            let mut held = self.comments.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *held)
        };
        drop(comments);
        self.followed.tell(|follower| follower.cleared(self));
    }

    /// Takes out what expired, and mends what coming and going wore out.
    pub fn sweep(&self, now: Nanos) {
        match &self.body {
            Body::Hash(store) if self.spec.timeout.is_none() => store.tidy(),
            Body::List(list) if self.spec.timeout.is_none() => list.tidy(),
            Body::Bitmap(_) if self.spec.timeout.is_none() => {}
            Body::Hash(store) => store.sweep(now),
            Body::Bitmap(bitmap) => bitmap.sweep(now),
            Body::List(list) => list.sweep(now),
        }
    }

    /// Has some of the memory there that it will need soon, if it grows ([`Set::add`]
    /// does not wait for it then). For a thread that may wait, every few milliseconds.
    pub fn foresee(&self) {
        if let Body::Hash(store) = &self.body {
            store.foresee();
        }
    }

    /// Lets go of members that were taken out.
    pub(super) fn tidy_members(&self) {
        if let Body::List(list) = &self.body {
            list.tidy();
        }
    }

    /// Says that packets change it, and what is in it if it is a list.
    pub(super) fn expect_changes(&self) {
        match &self.body {
            Body::List(list) => list.members().iter().for_each(|it| it.slot().expect_changes()),
            Body::Hash(_) | Body::Bitmap(_) => self.note_packets(),
        }
    }

    /// Sets room aside for what packets add: they cannot wait for any to be made.
    pub(super) fn reserve(&self) {
        match &self.body {
            Body::Hash(store) => store.reserve(),
            Body::Bitmap(bitmap) => bitmap.reserve(),
            Body::List(list) => {
                for member in list.members().iter() {
                    member.slot().expect_packets();
                }
            }
        }
    }

    /// At most `most` entries from `from` on; the next cursor unless that was all.
    /// What is added meanwhile may be listed or not, what stays is listed once.
    pub fn entries(&self, from: Cursor, most: usize, now: Nanos) -> (Vec<Entry>, Option<Cursor>) {
        let mut entries = Vec::new();
        let comment = |at: u32, state: u64| {
            let comments = self.comments.lock().unwrap_or_else(PoisonError::into_inner);
            (state & COMMENTED != 0).then(|| comments.get(&at).cloned()).flatten()
        };
        let next = match &self.body {
            Body::Hash(store) => store.list(from.0, |at, row, state, key| {
                if row.expired(now) {
                    return true;
                }
                if entries.len() >= most {
                    return false;
                }
                let mut extras = row.extras(state, true, now);
                extras.comment = comment(at, state);
                entries.push(Entry { element: store.shape.unpack(key), extras });
                true
            }),
            Body::Bitmap(bitmap) => bitmap.list(from.0, now, |at, state, element, mut extras| {
                if entries.len() >= most {
                    return false;
                }
                extras.comment = comment(at, state);
                entries.push(Entry { element, extras });
                true
            }),
            Body::List(list) => {
                let members = list.current(now);
                let rest = members.iter().skip(from.0 as usize);
                entries.extend(rest.take(most).map(|member| {
                    let extras = member.row().map(|row| row.extras(0, true, now));
                    let comment = member.comment.clone();
                    Entry {
                        element: Element { set: Some(member.slot().name()), ..Element::default() },
                        extras: Extras { comment, ..extras.unwrap_or_default() },
                    }
                }));
                let end = from.0 + entries.len() as u32;
                ((end as usize) < members.len()).then_some(end)
            }
        };
        (entries, next.map(Cursor))
    }

    /// The members of a list, in order.
    pub(super) fn member_names(&self) -> Vec<SetName> {
        match &self.body {
            Body::List(list) => list.members().iter().map(|member| member.slot().name()).collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn add_member(
        &self,
        registry: &Registry,
        element: &Element,
        extras: &Extras,
        exist: bool,
        now: Nanos,
    ) -> Result<(), SetError> {
        let Body::List(list) = &self.body else { return Err(SetError::Missing("set")) };
        self.check_extras(extras)?;
        let slot = registry.find(&element.set.ok_or(SetError::Missing("set"))?)?;
        if slot.load().spec().kind == SetType::ListSet {
            return Err(SetError::Nested);
        }
        list.add(&slot, element, extras, exist, now)
    }
}
