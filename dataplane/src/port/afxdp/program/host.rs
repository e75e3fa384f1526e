//! The tcx programs of the host road: joining ports to TAPs.

use std::os::fd::{AsFd, OwnedFd};

use aya::Ebpf;
use aya::programs::SchedClassifier;

use super::super::pins::PinKind;
use super::super::sys::{TcxHook, attach_tcx};
use super::keeping::is_live;
use super::{BpfError, LinkInfo, Program};
use crate::port::AttachMode;
use crate::port::host::HostError;

/// A device and its TAP.
#[derive(Debug)]
pub(super) struct Joined {
    device: String,
    /// Their indices; the device's only while it is there.
    tap: u32,
    ifindex: Option<u32>,
    output: bool,
}

/// The program for what ports put out.
#[derive(Debug)]
pub(super) struct Egress {
    /// Its name.
    pub(super) name: &'static str,
    /// Why it does not tell whose packets are, if so.
    pub(super) untold: Option<String>,
}

impl Egress {
    /// The one that tells, if the kernel lets it look; `untold`: why it must not be tried.
    pub(super) fn choose(
        ebpf: &mut Ebpf,
        wanted: bool,
        untold: Option<String>,
    ) -> Result<Self, BpfError> {
        let tells = Self { name: "host_out", untold: None };
        if !wanted {
            return Ok(tells);
        }
        let untold = match untold {
            Some(why) => why,
            None => match host_program(ebpf, tells.name)?.load() {
                Ok(()) => return Ok(tells),
                Err(error) => reason(&error),
            },
        };
        Ok(Self { name: "host_out_untold", untold: Some(untold) })
    }
}

/// An error with its causes, and of a verifier's log the end.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text.lines().last().unwrap_or_default().to_owned()
}

impl Program {
    /// Joins a device and its TAP: deliveries always, and what the kernel puts out
    /// there if `output`; else, on loopback, the answers that are expected there.
    ///
    /// # Errors
    /// [`HostError`] when the kernel refuses a program or a map is full.
    pub(in crate::port) fn join(
        &mut self,
        link: &LinkInfo,
        tap: &LinkInfo,
        output: bool,
    ) -> Result<(), HostError> {
        self.attach_host("host_in", tap, TcxHook::Ingress)?;
        let device = link.name.clone();
        self.joined.push(Joined { device, tap: tap.ifindex, ifindex: None, output });
        self.rejoin(link)
    }

    /// Joins a device that is back to the TAP that it had.
    ///
    /// # Errors
    /// As [`Program::join`].
    pub(in crate::port) fn rejoin(&mut self, link: &LinkInfo) -> Result<(), HostError> {
        let map = |error| HostError::Bpf(BpfError::Map(error));
        let Some(at) = self.joined.iter().position(|joined| joined.device == link.name) else {
            return Ok(());
        };
        if self.joined[at].ifindex == Some(link.ifindex) && self.has_egress(link.ifindex) {
            return Ok(());
        }
        self.leave(&link.name);
        let Joined { tap, output, .. } = self.joined[at];
        self.joined[at].ifindex = Some(link.ifindex);
        // Asked: what is wanted of the program's mode need not be in force.
        let generic =
            LinkInfo::of(&link.name).is_ok_and(|link| link.attached == Some(AttachMode::Generic));
        let port = u64::from(generic) << 32 | u64::from(link.ifindex);
        self.tap_ports.insert(tap, port, 0).map_err(map)?;
        self.taps.insert(link.ifindex, tap, 0).map_err(map)?;
        // Loopback's link is never pinned: without a daemon, loopback is the kernel's.
        match output {
            true => self.attach_port(link),
            false => self.attach_host("host_loop", link, TcxHook::Egress),
        }
    }

    /// Parts a device and its TAP: what it puts out goes its own way, and what is
    /// delivered by way of the TAP is dropped.
    pub(in crate::port) fn leave(&mut self, device: &str) {
        for at in 0..self.joined.len() {
            if self.joined[at].device != device {
                continue;
            }
            let Some(ifindex) = self.joined[at].ifindex.take() else { continue };
            self.host_links.retain(|(index, _)| *index != ifindex);
            self.unname(PinKind::Egress, ifindex);
            // The index may be another device's one day.
            let _absent = self.taps.remove(&ifindex);
            let _absent = self.tap_ports.remove(&self.joined[at].tap);
        }
    }

    /// Whether what a device puts out meets the program, if it is to.
    pub(super) fn has_egress(&self, ifindex: u32) -> bool {
        let wanted = |joined: &Joined| joined.output && joined.ifindex == Some(ifindex);
        !self.joined.iter().any(wanted) || is_live(&self.host_links, ifindex)
    }

    /// A TAP is gone when the process is; a port may have a link of an earlier one.
    fn attach_port(&mut self, link: &LinkInfo) -> Result<(), HostError> {
        self.load_host(self.egress.name)?;
        if self.adopt_egress(link.ifindex) {
            return Ok(());
        }
        let made = self.link_host(self.egress.name, link, TcxHook::Egress)?;
        self.keep(PinKind::Egress, link.ifindex, made.as_fd())?;
        self.host_links.push((link.ifindex, made));
        Ok(())
    }

    fn load_host(&mut self, name: &'static str) -> Result<(), BpfError> {
        let program = host_program(&mut self.ebpf, name)?;
        match program.fd() {
            Ok(_) => Ok(()),
            Err(_) => Ok(program.load()?),
        }
    }

    fn attach_host(
        &mut self,
        name: &'static str,
        to: &LinkInfo,
        hook: TcxHook,
    ) -> Result<(), HostError> {
        let made = self.link_host(name, to, hook)?;
        self.host_links.push((to.ifindex, made));
        Ok(())
    }

    fn link_host(
        &mut self,
        name: &'static str,
        to: &LinkInfo,
        hook: TcxHook,
    ) -> Result<OwnedFd, HostError> {
        self.load_host(name)?;
        let fd = host_program(&mut self.ebpf, name)?.fd().map_err(BpfError::from)?;
        attach_tcx(fd.as_fd(), to.ifindex, hook)
            .map_err(|source| HostError::Attach { device: to.name.clone(), source })
    }
}

/// A tcx program by its name.
pub(super) fn host_program<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut SchedClassifier, BpfError> {
    Ok(ebpf.program_mut(name).ok_or(BpfError::Missing(name))?.try_into()?)
}
