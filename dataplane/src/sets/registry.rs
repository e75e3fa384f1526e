//! All sets by name, and who refers to them.
//!
//! A rule and a list refer to a [`Slot`], which keeps its name; swapping two sets swaps
//! what the slots hold. Only control threads come here, one at a time by a lock; workers
//! hold slots, and read what is in them without one.

mod adopt;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::element::{Element, Extras};
use super::error::SetError;
use super::name::SetName;
use super::retired::Retired;
use super::set::Set;
use super::spec::{CreateSpec, SetType};
use crate::clock::Nanos;

/// Sets at most.
pub const MAX_SETS: usize = 65_534;

/// A place with a name that holds a set.
#[derive(Debug)]
pub struct Slot {
    name: ArcSwap<SetName>,
    set: ArcSwap<Set>,
    references: AtomicU32,
    /// Whether packets may add to what is in it.
    expects_packets: AtomicBool,
    /// Whether packets may change what is in it.
    expects_changes: AtomicBool,
}

impl Slot {
    fn holding(name: SetName, set: Arc<Set>) -> Self {
        Self {
            name: ArcSwap::from_pointee(name),
            set: ArcSwap::new(set),
            references: AtomicU32::new(0),
            expects_packets: AtomicBool::new(false),
            expects_changes: AtomicBool::new(false),
        }
    }

    /// Says that packets may change what is in it, now and in what it is swapped for.
    pub fn expect_changes(&self) {
        self.expects_changes.store(true, Ordering::Relaxed);
        self.load().expect_changes();
    }

    /// Sets room aside for elements that packets add, now and in what it is swapped for.
    pub fn expect_packets(&self) {
        self.expects_packets.store(true, Ordering::Relaxed);
        self.load().reserve();
    }

    /// What was there before.
    fn put(&self, set: Arc<Set>) -> Arc<Set> {
        if self.expects_packets.load(Ordering::Relaxed) {
            set.reserve();
        }
        if self.expects_changes.load(Ordering::Relaxed) {
            set.expect_changes();
        }
        let old = self.set.swap(set);
        old.note_replaced();
        old
    }

    /// Its name.
    pub fn name(&self) -> SetName {
        **self.name.load()
    }
    /// The set in it, as it is now.
    #[inline]
    pub fn load(&self) -> Guard<Arc<Set>> {
        self.set.load()
    }
    /// The same, to be kept.
    pub fn set(&self) -> Arc<Set> {
        self.set.load_full()
    }
    /// How many rules and lists refer to it.
    pub fn references(&self) -> u32 {
        self.references.load(Ordering::Relaxed)
    }
}

/// A counted reference to a slot; keeps its set from being destroyed.
#[derive(Debug)]
pub struct Reference(Arc<Slot>);

impl Reference {
    /// Refers to the slot.
    pub fn new(slot: &Arc<Slot>) -> Self {
        slot.references.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(slot))
    }
    /// To which.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.0
    }
}

impl Clone for Reference {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.0.references.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Every set.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Mutex<Slots>,
    /// Replaced or destroyed, and maybe still read.
    retired: Mutex<(Retired<Slot>, Retired<Set>)>,
    seed: u64,
}

/// Places by number, and their numbers by name.
#[derive(Clone, Debug, Default)]
struct Slots {
    places: Vec<Option<Arc<Slot>>>,
    numbers: HashMap<SetName, usize>,
    /// No place before it is free.
    free: usize,
}

impl Slots {
    fn all(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.places.iter().flatten()
    }

    fn find(&self, name: &SetName) -> Option<&Arc<Slot>> {
        self.places.get(*self.numbers.get(name)?)?.as_ref()
    }

    /// Into the first free place, or that of the name.
    fn insert(&mut self, name: SetName, slot: Arc<Slot>) -> Result<(), SetError> {
        let there = self.numbers.get(&name).copied();
        let at = there.unwrap_or_else(|| {
            let taken = self.places.iter().skip(self.free).take_while(|place| place.is_some());
            self.free + taken.count()
        });
        if at == MAX_SETS {
            return Err(SetError::TooManySets(MAX_SETS));
        }
        if at == self.places.len() {
            self.places.push(None);
        }
        if there.is_none() {
            self.free = at + 1;
        }
        self.places[at] = Some(slot);
        self.numbers.insert(name, at);
        Ok(())
    }

    fn remove(&mut self, name: &SetName) -> Option<Arc<Slot>> {
        let at = self.numbers.remove(name)?;
        self.free = self.free.min(at);
        self.places.get_mut(at)?.take()
    }
}

impl Registry {
    /// No sets. Hashes depend on `seed`, which nobody outside should know.
    pub fn new(seed: u64) -> Self {
        Self { slots: Mutex::default(), retired: Mutex::default(), seed }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot that goes takes no set along that a worker reads.
    fn retire(&self, slot: Option<Arc<Slot>>, set: Arc<Set>) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slot {
            retired.0.keep(slot);
        }
        retired.1.keep(set);
    }

    fn is_held(slots: &Slots, slot: &Slot) -> bool {
        if slot.references() > 0 {
            // A member that was taken out of a list may wait there for its last reader.
            slots.all().for_each(|slot| slot.load().tidy_members());
        }
        slot.references() > 0
    }

    /// Makes an empty set. With `exist`, an equal set of that name is fine.
    ///
    /// # Errors
    /// A name that is taken, parameters that are not possible.
    pub fn create(&self, name: SetName, spec: CreateSpec, exist: bool) -> Result<(), SetError> {
        let mut slots = self.slots();
        if let Some(there) = slots.find(&name) {
            let same = there.load().same_kind(&spec);
            return if exist && same { Ok(()) } else { Err(SetError::SetExists(name)) };
        }
        let set = Set::new(spec, self.seed)?;
        slots.insert(name, Arc::new(Slot::holding(name, Arc::new(set))))
    }

    /// The set's slot.
    pub fn get(&self, name: &SetName) -> Option<Arc<Slot>> {
        self.slots().find(name).cloned()
    }

    /// The set's slot, or the error that says that there is none.
    ///
    /// # Errors
    /// [`SetError::NoSuchSet`].
    pub fn find(&self, name: &SetName) -> Result<Arc<Slot>, SetError> {
        self.get(name).ok_or(SetError::NoSuchSet(*name))
    }

    /// All slots, in the order in which the kernel lists sets.
    pub fn list(&self) -> Vec<Arc<Slot>> {
        self.slots().all().cloned().collect()
    }

    /// Removes a set.
    ///
    /// # Errors
    /// No such set, or a set that is referred to.
    pub fn destroy(&self, name: &SetName) -> Result<(), SetError> {
        let mut slots = self.slots();
        let slot = slots.find(name).ok_or(SetError::NoSuchSet(*name))?;
        if Self::is_held(&slots, slot) {
            return Err(SetError::InUse(*name));
        }
        if let Some(slot) = slots.remove(name) {
            let set = slot.set();
            self.retire(Some(slot), set);
        }
        Ok(())
    }

    /// Removes every set; none at all if rules or lists refer to any.
    ///
    /// # Errors
    /// [`SetError::InUse`].
    pub fn destroy_all(&self) -> Result<(), SetError> {
        let mut slots = self.slots();
        if let Some(used) = slots.all().find(|slot| Self::is_held(&slots, slot)) {
            return Err(SetError::InUse(used.name()));
        }
        for slot in std::mem::take(&mut *slots).places.into_iter().flatten() {
            let set = slot.set();
            self.retire(Some(slot), set);
        }
        Ok(())
    }

    /// Gives a set another name.
    ///
    /// # Errors
    /// No such set, a set that is referred to, a name that is taken.
    pub fn rename(&self, from: &SetName, to: SetName) -> Result<(), SetError> {
        let mut slots = self.slots();
        let slot = slots.find(from).ok_or(SetError::NoSuchSet(*from))?;
        if slot.references() > 0 {
            return Err(SetError::InUse(*from));
        }
        if slots.find(&to).is_some() {
            return Err(SetError::SetExists(to));
        }
        slot.name.store(Arc::new(to));
        if let Some(at) = slots.numbers.remove(from) {
            slots.numbers.insert(to, at);
        }
        Ok(())
    }

    /// Swaps what two names stand for; rules that name them see it at once.
    ///
    /// # Errors
    /// No such set, or sets of different families, or of types that hold different things.
    pub fn swap(&self, one: &SetName, other: &SetName) -> Result<(), SetError> {
        let slots = self.slots();
        let first = slots.find(one).ok_or(SetError::NoSuchSet(*one))?;
        let second = slots.find(other).ok_or(SetError::NoSuchSet(*other))?;
        let (a, b) = (first.set(), second.set());
        if !a.spec().kind.holds_as(b.spec().kind) || a.spec().family != b.spec().family {
            return Err(SetError::TypeMismatch(*one, *other));
        }
        self.retire(None, first.put(b));
        self.retire(None, second.put(a));
        Ok(())
    }

    /// Adds an element, or, with `exist`, makes an element that is there what is said.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn add(
        &self,
        slot: &Slot,
        element: &Element,
        extras: &Extras,
        exist: bool,
        now: Nanos,
    ) -> Result<(), SetError> {
        let set = slot.load();
        match set.spec().kind {
            SetType::ListSet => {
                set.add_member(self, element, extras, exist, now)?;
                if slot.expects_packets.load(Ordering::Relaxed) {
                    set.reserve();
                }
                if slot.expects_changes.load(Ordering::Relaxed) {
                    set.expect_changes();
                }
                Ok(())
            }
            _ => set.add(element, extras, exist, now),
        }
    }

    /// Deletes an element; with `exist`, one that is not there is fine.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn del(
        &self,
        slot: &Slot,
        element: &Element,
        exist: bool,
        now: Nanos,
    ) -> Result<(), SetError> {
        match slot.load().del(element, now) {
            Err(SetError::NotThere) if exist => Ok(()),
            other => other,
        }
    }

    /// Whether an element is in the set, as `ipset test` asks. `nomatch` asks for an
    /// exception in its place.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn test(
        &self,
        slot: &Slot,
        element: &Element,
        nomatch: bool,
        now: Nanos,
    ) -> Result<bool, SetError> {
        slot.load().test(element, nomatch, now)
    }

    /// [`Set::foresee`] for every set.
    pub fn foresee(&self) {
        self.list().iter().for_each(|slot| slot.load().foresee());
    }

    /// Takes out what expired, in every set; about once a second is enough. An expired
    /// element is not found in any case.
    pub fn sweep(&self, now: Nanos) {
        for slot in self.list() {
            slot.load().sweep(now);
        }
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.0.free();
        retired.1.free();
    }

    /// The same sets, all of them empty, under no rule.
    ///
    /// # Errors
    /// None that making the sets did not have.
    pub fn emptied(&self) -> Result<Self, SetError> {
        let twin = Self::new(self.seed);
        for slot in self.list() {
            // Which element makes room for another would be a matter of chance.
            let spec = CreateSpec { forceadd: false, ..*slot.load().spec() };
            twin.create(slot.name(), spec, false)?;
        }
        for slot in self.list() {
            let twin_slot = twin.find(&slot.name())?;
            let timeout_s = slot.load().spec().timeout.map(|_| 0);
            let extras = Extras { timeout_s, ..Extras::default() };
            for member in slot.load().member_names() {
                let element = Element { set: Some(member), ..Element::default() };
                twin.add(&twin_slot, &element, &extras, true, Nanos(0))?;
            }
        }
        Ok(twin)
    }
}
