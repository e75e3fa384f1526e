//! The tcx programs of the host road: joining ports to TAPs.

use std::os::fd::AsFd;

use aya::Ebpf;
use aya::programs::SchedClassifier;

use super::super::pins::PinKind;
use super::super::sys::{TcxHook, attach_tcx};
use super::{BpfError, LinkInfo, Program};
use crate::port::host::HostError;

impl Program {
    /// Joins a device and its TAP: deliveries always, and what the kernel puts out
    /// there if `output`.
    ///
    /// # Errors
    /// [`HostError`] when the kernel refuses a program or a map is full.
    pub(in crate::port) fn join(
        &mut self,
        link: &LinkInfo,
        tap: &LinkInfo,
        output: bool,
    ) -> Result<(), HostError> {
        let map = |error| HostError::Bpf(BpfError::Map(error));
        self.tap_ports.insert(tap.ifindex, link.ifindex, 0).map_err(map)?;
        self.attach_host("host_in", tap, TcxHook::Ingress)?;
        if output {
            self.taps.insert(link.ifindex, tap.ifindex, 0).map_err(map)?;
            self.attach_host("host_out", link, TcxHook::Egress)?;
        }
        Ok(())
    }

    fn attach_host(
        &mut self,
        name: &'static str,
        to: &LinkInfo,
        hook: TcxHook,
    ) -> Result<(), HostError> {
        let program = host_program(&mut self.ebpf, name)?;
        if program.fd().is_err() {
            program.load().map_err(BpfError::from)?;
        }
        // A TAP is gone when the process is; a port may have a link of an earlier one.
        if hook == TcxHook::Egress && self.adopt_egress(to.ifindex) {
            return Ok(());
        }
        let program = host_program(&mut self.ebpf, name)?;
        let fd = program.fd().map_err(BpfError::from)?;
        let link = attach_tcx(fd.as_fd(), to.ifindex, hook)
            .map_err(|source| HostError::Attach { device: to.name.clone(), source })?;
        if hook == TcxHook::Egress {
            self.keep(PinKind::Egress, to.ifindex, link.as_fd())?;
        }
        self.host_links.push((to.ifindex, link));
        Ok(())
    }
}

/// A tcx program by its name.
pub(super) fn host_program<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut SchedClassifier, BpfError> {
    Ok(ebpf.program_mut(name).ok_or(BpfError::Missing(name))?.try_into()?)
}
