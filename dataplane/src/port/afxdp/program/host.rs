//! The tcx programs of the host road: joining ports to TAPs.

use std::os::fd::AsFd;

use aya::programs::SchedClassifier;

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
        let program = self.ebpf.program_mut(name).ok_or(BpfError::Missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(BpfError::from)?;
        if program.fd().is_err() {
            program.load().map_err(BpfError::from)?;
        }
        let fd = program.fd().map_err(BpfError::from)?;
        let link = attach_tcx(fd.as_fd(), to.ifindex, hook)
            .map_err(|source| HostError::Attach { device: to.name.clone(), source })?;
        self.host_links.push(link);
        Ok(())
    }
}
