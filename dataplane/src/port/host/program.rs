//! The tcx programs of the host road: loading them and joining ports to TAPs.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{HashMap, Map, MapData};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};

use super::HostError;
use crate::port::afxdp::{BpfError, LinkInfo, TcxHook, attach_tcx};

/// The built programs; `scripts/build-bpf` makes them from their source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/host.bpf.o");

/// The loaded programs. Dropping them detaches them.
pub struct HostProgram {
    // Before the programs that they hold in place.
    links: Vec<OwnedFd>,
    taps: HashMap<MapData, u32, u32>,
    ports: HashMap<MapData, u32, u32>,
    ebpf: Ebpf,
}

impl std::fmt::Debug for HostProgram {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("HostProgram").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

impl HostProgram {
    /// Loads both.
    ///
    /// # Errors
    /// [`BpfError`] when the kernel refuses them.
    pub(super) fn load() -> Result<Self, BpfError> {
        let mut ebpf = EbpfLoader::new().load(OBJECT)?;
        for name in ["host_out", "host_in"] {
            program(&mut ebpf, name)?.load()?;
        }
        let taps = take(&mut ebpf, "taps")?.try_into()?;
        let ports = take(&mut ebpf, "ports")?.try_into()?;
        Ok(Self { links: Vec::new(), taps, ports, ebpf })
    }

    /// Joins a device and its TAP: deliveries always, and what the kernel puts out
    /// there if `output`.
    pub(super) fn join(
        &mut self,
        link: &LinkInfo,
        tap: &LinkInfo,
        output: bool,
    ) -> Result<(), HostError> {
        let map = |error| HostError::Bpf(BpfError::Map(error));
        self.ports.insert(tap.ifindex, link.ifindex, 0).map_err(map)?;
        self.attach("host_in", tap, TcxHook::Ingress)?;
        if output {
            self.taps.insert(link.ifindex, tap.ifindex, 0).map_err(map)?;
            self.attach("host_out", link, TcxHook::Egress)?;
        }
        Ok(())
    }

    fn attach(
        &mut self,
        name: &'static str,
        to: &LinkInfo,
        hook: TcxHook,
    ) -> Result<(), HostError> {
        let fd = program(&mut self.ebpf, name)?.fd().map_err(BpfError::from)?;
        let link = attach_tcx(fd.as_fd(), to.ifindex, hook)
            .map_err(|source| HostError::Attach { device: to.name.clone(), source })?;
        self.links.push(link);
        Ok(())
    }
}

fn program<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut SchedClassifier, BpfError> {
    let program = ebpf.program_mut(name).ok_or(BpfError::Missing(name))?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing(name))
}
