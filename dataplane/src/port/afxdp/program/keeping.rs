//! Links that outlive the process: pinning new ones, adopting those of an earlier
//! process, and what becomes of them in the end.
//!
//! ```text
//!   attach      a pinned link of the device is taken up, its old program still in force;
//!               else a new link is made, and pinned at once when closed
//!   exchange    each link that was taken up gets the new program, atomically
//!   settle      the start has succeeded: new names stay; when open, names go
//! ```
//!
//! A process that dies before `exchange` leaves the old program, one that dies later
//! the new one. A start that fails takes back the names that it gave, and no others.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::super::links::facts;
use super::super::pins::{PinError, PinKind, Pinned, Pins};
use super::host::host_program;
use super::{AfxdpError, AttachChoice, BpfError, LinkInfo, OnFailure, Program};
use crate::packet::PortId;
use crate::port::AttachMode;

type Name = (PinKind, u32);

/// What a [`Program`] knows of its pins.
#[derive(Debug)]
pub(super) struct Keeping {
    /// `None` only on the way out.
    pins: Option<Pins>,
    closed: bool,
    /// Taken up, with the old program.
    waiting: Vec<Pinned>,
    /// Names in force.
    names: BTreeSet<Name>,
    /// Those of them that this start gave, until it has succeeded.
    fresh: BTreeSet<Name>,
    /// Devices whose XDP link an earlier process had made.
    adopted: BTreeSet<u32>,
    notes: Vec<String>,
}

impl Keeping {
    fn unpin(&mut self, name: Name) -> Result<(), PinError> {
        self.names.remove(&name);
        self.fresh.remove(&name);
        self.pins.as_ref().map_or(Ok(()), |pins| pins.unpin(name.0, name.1))
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        for name in std::mem::take(&mut self.fresh) {
            // The start has failed for a reason that matters more.
            let _ = self.unpin(name);
        }
    }
}

/// Whether a link in this mode is what was asked for.
fn suits(mode: AttachMode, choice: AttachChoice) -> bool {
    match choice {
        AttachChoice::Auto => true,
        AttachChoice::Native => mode != AttachMode::Generic,
        AttachChoice::Generic => mode == AttachMode::Generic,
    }
}

/// Whether one of `links` holds its program on a device: not when it was detached by hand,
/// or belonged to a device that was deleted and had the same index.
pub(super) fn is_live(links: &[(u32, OwnedFd)], ifindex: u32) -> bool {
    let holds = |link: &OwnedFd| facts(link.as_fd()).is_ok_and(|it| it.ifindex == ifindex);
    links.iter().any(|(index, link)| *index == ifindex && holds(link))
}

impl Program {
    /// Adopts links from `pins`, and pins its own there when closed.
    pub(in crate::port::afxdp) fn keep_links(&mut self, pins: Pins) {
        self.keeping = Some(Keeping {
            notes: pins.stale().to_vec(),
            pins: Some(pins),
            closed: self.config.on_failure == OnFailure::Closed,
            waiting: Vec::new(),
            names: BTreeSet::new(),
            fresh: BTreeSet::new(),
            adopted: BTreeSet::new(),
        });
    }

    /// Takes up the XDP link of a device, if one is pinned that suits; returns its mode.
    pub(super) fn adopt_xdp(
        &mut self,
        link: &LinkInfo,
        choice: AttachChoice,
    ) -> Result<Option<AttachMode>, AfxdpError> {
        let Some(keeping) = &mut self.keeping else { return Ok(None) };
        let taken = keeping.pins.as_mut().and_then(|pins| pins.take(PinKind::Xdp, link.ifindex));
        let Some(pinned) = taken else { return Ok(None) };
        match link.attached.filter(|mode| suits(*mode, choice)) {
            Some(mode) => {
                keeping.waiting.push(pinned);
                keeping.adopted.insert(link.ifindex);
                Ok(Some(mode))
            }
            None => {
                pinned.release()?;
                let name = &link.name;
                let was = link.attached.map_or_else(String::new, |mode| format!(" in {mode} mode"));
                keeping.notes.push(format!(
                    "{name} was attached{was}: it had no program for the moment of the change"
                ));
                Ok(None)
            }
        }
    }

    /// Takes up the egress link of a device, if one is pinned.
    pub(super) fn adopt_egress(&mut self, ifindex: u32) -> bool {
        let Some(keeping) = &mut self.keeping else { return false };
        let taken = keeping.pins.as_mut().and_then(|pins| pins.take(PinKind::Egress, ifindex));
        taken.map(|pinned| keeping.waiting.push(pinned)).is_some()
    }

    /// Gives a new link its name when closed.
    pub(super) fn keep(
        &mut self,
        kind: PinKind,
        ifindex: u32,
        link: BorrowedFd<'_>,
    ) -> Result<(), PinError> {
        self.forget_gone();
        let Some(keeping) = self.keeping.as_mut().filter(|it| it.closed) else { return Ok(()) };
        let Some(pins) = &keeping.pins else { return Ok(()) };
        pins.pin(kind, ifindex, link)?;
        keeping.names.insert((kind, ifindex));
        keeping.fresh.insert((kind, ifindex));
        Ok(())
    }

    /// Takes away the names of links whose device is gone, and the links.
    fn forget_gone(&mut self) {
        let Some(keeping) = &mut self.keeping else { return };
        for (kind, links) in
            [(PinKind::Xdp, &mut self.links), (PinKind::Egress, &mut self.host_links)]
        {
            let gone = |link: &OwnedFd| facts(link.as_fd()).is_ok_and(|facts| facts.ifindex == 0);
            for (ifindex, _) in links.extract_if(.., |(_, link)| gone(link)) {
                if keeping.names.contains(&(kind, ifindex)) {
                    // What stays is removed by the next start.
                    let _ = keeping.unpin((kind, ifindex));
                }
            }
        }
    }

    /// Whether a port is attached to this very device.
    pub(super) fn is_attached(&self, port: PortId, link: &LinkInfo) -> bool {
        self.devices.get(&port) == Some(&link.ifindex)
            && self.links.iter().any(|(ifindex, _)| *ifindex == link.ifindex)
    }

    /// Whether the programs of a port are in force, in both directions.
    pub(in crate::port::afxdp) fn is_whole(&self, port: PortId) -> bool {
        let whole = |ifindex| is_live(&self.links, ifindex) && self.has_egress(ifindex);
        self.device_of(port).is_some_and(whole)
    }

    /// The device that a port is attached to.
    pub(in crate::port::afxdp) fn device_of(&self, port: PortId) -> Option<u32> {
        self.devices.get(&port).copied()
    }

    /// Takes the program off a port's device, whether that is still there or not.
    pub(in crate::port::afxdp) fn detach(&mut self, port: PortId) {
        let Some(ifindex) = self.devices.remove(&port) else { return };
        self.links.retain(|(index, _)| *index != ifindex);
        self.unname(PinKind::Xdp, ifindex);
        // The index may be another device's one day.
        let _absent = self.ports.remove(&ifindex);
    }

    /// Lets the names stay that were given since the last success, though the opening of
    /// their port has failed.
    pub(in crate::port::afxdp) fn keep_names(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.fresh.clear();
        }
    }

    /// Takes a link's name away, if it has one.
    pub(super) fn unname(&mut self, kind: PinKind, ifindex: u32) {
        if let Some(keeping) = &mut self.keeping
            && keeping.names.contains(&(kind, ifindex))
        {
            // What stays is removed by the next start.
            let _ = keeping.unpin((kind, ifindex));
        }
    }

    /// Puts this program on every device whose link was taken up.
    pub(in crate::port::afxdp) fn exchange(&mut self) -> Result<(), AfxdpError> {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        for pinned in std::mem::take(&mut keeping.waiting) {
            let name = (pinned.kind(), pinned.ifindex());
            match pinned.kind() {
                PinKind::Xdp => {
                    let program = super::program(&mut self.ebpf)?;
                    pinned.exchange(program.fd().map_err(BpfError::from)?.as_fd())?;
                    self.links.push((name.1, pinned.into_link()));
                }
                PinKind::Egress => {
                    let program = host_program(&mut self.ebpf, self.egress.name)?;
                    pinned.exchange(program.fd().map_err(BpfError::from)?.as_fd())?;
                    self.host_links.push((name.1, pinned.into_link()));
                }
            }
            keeping.names.insert(name);
        }
        Ok(())
    }

    /// The start has succeeded: links stay pinned if closed, else not. Links of an earlier
    /// process on the same devices that were not taken up are removed.
    ///
    /// # Errors
    /// [`PinError`] when a name cannot be taken away.
    pub fn settle(&mut self) -> Result<(), PinError> {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        if let Some(pins) = &mut keeping.pins {
            for (ifindex, _) in &self.links {
                pins.take_all(*ifindex).into_iter().try_for_each(Pinned::release)?;
            }
        }
        if !keeping.closed {
            for name in keeping.names.clone() {
                keeping.unpin(name)?;
            }
        }
        keeping.fresh.clear();
        Ok(())
    }

    /// Whether a port's link stays when this process ends, and whether an earlier process
    /// had made it.
    pub fn pin(&self, port: PortId) -> (bool, bool) {
        let Some(keeping) = &self.keeping else { return (false, false) };
        let Some(ifindex) = self.devices.get(&port) else { return (false, false) };
        (keeping.names.contains(&(PinKind::Xdp, *ifindex)), keeping.adopted.contains(ifindex))
    }
    /// What there is to say of pins, a sentence each.
    pub fn pin_notes(&self) -> &[String] {
        self.keeping.as_ref().map_or(&[], |it| &it.notes)
    }
}
