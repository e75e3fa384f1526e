//! One set: elements that workers look up while others change them.

use std::sync::Arc;

use super::element::{Element, Entry, Extras};
use super::error::SetError;
use super::registry::{Registry, Slot};
use super::spec::CreateSpec;
use crate::clock::Nanos;

/// How far a listing has come. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub(super) u32);

/// What the head of a listing says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `Number of entries`, without expired ones.
    pub entries: u32,
    /// `Size in memory`, in bytes.
    pub memory_bytes: u64,
    /// `hashsize` as it has grown.
    pub hashsize: u32,
}

/// A set of any type.
#[derive(Debug)]
pub struct Set {
    spec: CreateSpec,
}

impl Set {
    /// An empty set.
    ///
    /// # Errors
    /// Parameters that the type does not take.
    pub fn new(spec: CreateSpec, _seed: u64) -> Result<Self, SetError> {
        Ok(Self { spec })
    }

    /// How it was created.
    pub fn spec(&self) -> &CreateSpec {
        &self.spec
    }

    /// Whether creating it so again would be no change (`create -exist`).
    pub fn same_kind(&self, spec: &CreateSpec) -> bool {
        self.spec.kind == spec.kind && self.spec.family == spec.family
    }

    /// Facts for a listing.
    pub fn header(&self, _now: Nanos) -> Header {
        Header::default()
    }

    /// Adds an element.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn add(
        &self,
        _element: &Element,
        _extras: &Extras,
        _exist: bool,
        _now: Nanos,
    ) -> Result<(), SetError> {
        Err(SetError::NoRoom)
    }

    /// Deletes an element.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn del(&self, _element: &Element, _now: Nanos) -> Result<(), SetError> {
        Err(SetError::NotThere)
    }

    /// Whether the element is there.
    ///
    /// # Errors
    /// As the kernel's.
    pub fn test(&self, _element: &Element, _nomatch: bool, _now: Nanos) -> Result<bool, SetError> {
        Ok(false)
    }

    /// Takes every element out.
    pub fn flush(&self) {}

    /// At most `most` entries from `from` on; the next cursor unless that was all.
    pub fn entries(&self, from: Cursor, most: usize, now: Nanos) -> (Vec<Entry>, Option<Cursor>) {
        let _ = (from, most, now);
        (Vec::new(), None)
    }

    pub(super) fn members_of(&self, _slot: &Arc<Slot>) -> u32 {
        0
    }

    pub(super) fn add_member(
        &self,
        _registry: &Registry,
        _element: &Element,
        _extras: &Extras,
        _exist: bool,
        _now: Nanos,
    ) -> Result<(), SetError> {
        Err(SetError::NoRoom)
    }

    pub(super) fn del_member(&self, _element: &Element, _now: Nanos) -> Result<(), SetError> {
        Err(SetError::NotThere)
    }

    pub(super) fn test_member(&self, _element: &Element, _now: Nanos) -> Result<bool, SetError> {
        Ok(false)
    }
}
