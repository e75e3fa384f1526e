//! The members of a `list:set`: sets, asked one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::element::{Beside, Element, Extras};
use super::error::SetError;
use super::name::SetName;
use super::registry::{Reference, Slot};
use super::retired::Retired;
use super::slab::{LIVE, Layout, Row, Slab};
use super::spec::CreateSpec;
use crate::clock::Nanos;

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    set: Reference,
    slab: Slab,
    pub(super) comment: Option<Box<str>>,
}

impl Member {
    pub(super) fn slot(&self) -> &Arc<Slot> {
        self.set.slot()
    }

    /// What it keeps.
    pub(super) fn row(&self) -> Option<Row<'_>> {
        self.slab.row(0)
    }

    pub(super) fn is_over(&self, now: Nanos) -> bool {
        self.row().is_some_and(|row| row.expired(now))
    }

    fn is(&self, name: &SetName) -> bool {
        self.slot().name() == *name
    }
}

type Members = Vec<Arc<Member>>;

/// A list.
#[derive(Debug)]
pub(super) struct List {
    default_timeout_s: u32,
    layout: Layout,
    members: ArcSwap<Members>,
    /// What readers may still be in.
    writer: Mutex<Retired<Members>>,
}

impl List {
    pub(super) fn new(spec: &CreateSpec) -> Self {
        Self {
            default_timeout_s: spec.timeout.unwrap_or_default(),
            layout: Layout::new(spec, 0),
            members: ArcSwap::default(),
            writer: Mutex::default(),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Retired<Members>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, retired: &mut Retired<Members>, members: Members) {
        retired.keep(self.members.swap(Arc::new(members)));
    }

    /// In order.
    #[inline]
    pub(super) fn members(&self) -> Guard<Arc<Members>> {
        self.members.load()
    }

    /// Those whose time is not over.
    pub(super) fn current(&self, now: Nanos) -> Members {
        self.members().iter().filter(|member| !member.is_over(now)).cloned().collect()
    }

    fn make(&self, slot: &Arc<Slot>, extras: &Extras, now: Nanos) -> Member {
        let slab = Slab::new(self.layout, 1);
        slab.prepare(0);
        let member = Member { set: Reference::new(slot), slab, comment: extras.comment.clone() };
        if let Some(row) = member.row() {
            row.start_timeout(extras.timeout_s.unwrap_or(self.default_timeout_s), now);
            row.init(extras);
            row.set_state(LIVE);
        }
        member
    }

    pub(super) fn add(
        &self,
        slot: &Arc<Slot>,
        element: &Element,
        extras: &Extras,
        exist: bool,
        now: Nanos,
    ) -> Result<(), SetError> {
        let mut retired = self.writer();
        let mut members = self.current(now);
        let place = |name: &SetName| members.iter().position(|member| member.is(name));
        let at = match &element.beside {
            None => members.len(),
            Some(Beside::Before(other)) => place(other).ok_or(SetError::NoReference)?,
            Some(Beside::After(other)) => place(other).ok_or(SetError::NoReference)? + 1,
        };
        let there = members.iter().position(|member| Arc::ptr_eq(member.slot(), slot));
        match there {
            Some(_) if !exist => return Err(SetError::Exists),
            Some(there) => {
                let said = Extras {
                    packets: extras.packets.or_else(|| counted(&members[there], now).packets),
                    bytes: extras.bytes.or_else(|| counted(&members[there], now).bytes),
                    ..extras.clone()
                };
                members[there] = Arc::new(self.make(slot, &said, now));
            }
            None => members.insert(at, Arc::new(self.make(slot, extras, now))),
        }
        self.replace(&mut retired, members);
        Ok(())
    }

    /// The member that is meant: beside the one that is named, if one is.
    fn position(&self, members: &Members, element: &Element) -> Result<usize, SetError> {
        let name = element.set.as_ref().ok_or(SetError::Missing("set"))?;
        let at = members.iter().position(|member| member.is(name));
        let at = at.ok_or(SetError::NotThere)?;
        let (neighbour, wanted) = match &element.beside {
            None => return Ok(at),
            Some(Beside::Before(other)) => (at.checked_add(1), other),
            Some(Beside::After(other)) => (at.checked_sub(1), other),
        };
        let neighbour = neighbour.and_then(|at| members.get(at));
        match neighbour.is_some_and(|member| member.is(wanted)) {
            true => Ok(at),
            false => Err(SetError::NoReference),
        }
    }

    pub(super) fn del(&self, element: &Element, now: Nanos) -> Result<(), SetError> {
        let mut retired = self.writer();
        let mut members = self.current(now);
        let at = self.position(&members, element)?;
        members.remove(at);
        self.replace(&mut retired, members);
        Ok(())
    }

    pub(super) fn test(&self, element: &Element, now: Nanos) -> Result<bool, SetError> {
        match self.position(&self.current(now), element) {
            Ok(_) => Ok(true),
            Err(SetError::NotThere | SetError::NoReference) => Ok(false),
            Err(other) => Err(other),
        }
    }

    pub(super) fn flush(&self) {
        let mut retired = self.writer();
        self.replace(&mut retired, Members::new());
    }

    pub(super) fn sweep(&self, now: Nanos) {
        let mut retired = self.writer();
        if self.members().iter().any(|member| member.is_over(now)) {
            self.replace(&mut retired, self.current(now));
        }
        retired.free();
    }

    /// Frees what nobody reads any more, and with it references to members.
    pub(super) fn tidy(&self) {
        self.writer().free();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.members().len() as u64 * (self.layout.row_bytes() + size_of::<Member>() as u64)
    }
}

fn counted(member: &Member, now: Nanos) -> Extras {
    member.row().map(|row| row.extras(LIVE, true, now)).unwrap_or_default()
}
