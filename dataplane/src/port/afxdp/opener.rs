//! Opening a port anew beside running workers, when its device has come back.
//!
//! Whoever holds the [`PortOpener`] makes the system calls and may wait; workers
//! get finished sockets. The steps for one port: [`PortOpener::close`] withdraws the
//! programs from a device that is gone or no longer fit; the workers give up their
//! sockets, which are closed; [`PortOpener::look`] says whether a device of that name
//! is there and fit; [`PortOpener::open`] makes a socket for every worker.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use super::umem::{Place, Umem};
use super::{AfxdpError, BoundSocket, Config, LinkInfo, MAX_MTU, OnFailure, Program, link, sys};
use crate::packet::PortId;

/// What it takes to open ports on the memory of running workers.
#[derive(Debug)]
pub struct PortOpener {
    config: Config,
    umems: Vec<Umem>,
    host_road: bool,
    /// In bridge mode, what makes each device take every frame.
    promiscuous: Vec<Option<OwnedFd>>,
}

impl PortOpener {
    pub(super) fn new(config: Config, umems: Vec<Umem>, host_road: bool) -> Self {
        let promiscuous = config.devices.iter().map(|_| None).collect();
        Self { config, umems, host_road, promiscuous }
    }

    /// The device of a port, if it is there and fit.
    ///
    /// # Errors
    /// [`AfxdpError`]: what is in the way, with the remedy.
    pub fn look(&self, port: PortId) -> Result<LinkInfo, AfxdpError> {
        let device = &self.config.devices[port.index()];
        let link = LinkInfo::of(device)
            .map_err(|source| AfxdpError::NoDevice { device: device.clone(), source })?;
        // The index was looked up by name; the device may have got another one since.
        if link.name != *device {
            let source = std::io::Error::from_raw_os_error(libc::ENODEV);
            return Err(AfxdpError::NoDevice { device: device.clone(), source });
        }
        fit(&link, self.config.workers)?;
        Ok(link)
    }

    /// Whether the programs of a port are still attached: an administrator may take them off.
    pub fn is_whole(&self, program: &Mutex<Program>, port: PortId) -> bool {
        program.lock().unwrap_or_else(PoisonError::into_inner).is_whole(port)
    }

    /// Attaches the programs to a port's device and binds a socket to each of its
    /// queues, for worker 0, 1 and so on. Their fill rings are empty.
    ///
    /// # Errors
    /// [`AfxdpError`]; nothing of the port stays attached then.
    pub fn open(
        &mut self,
        program: &Mutex<Program>,
        port: PortId,
        link: &LinkInfo,
    ) -> Result<Vec<BoundSocket>, AfxdpError> {
        let opened = self.try_open(program, port, link);
        if opened.is_err() {
            self.close(program, port);
        }
        opened
    }

    fn try_open(
        &mut self,
        program: &Mutex<Program>,
        port: PortId,
        link: &LinkInfo,
    ) -> Result<Vec<BoundSocket>, AfxdpError> {
        let lock = || program.lock().unwrap_or_else(PoisonError::into_inner);
        let attach = lock().attach(port, link, self.config.attach)?;
        if self.host_road {
            lock().rejoin(link)?;
        }
        let mut sockets = Vec::with_capacity(self.umems.len());
        for (queue, umem) in (0..).zip(&mut self.umems) {
            let place = Place { link, attach, queue, ring_size: self.config.ring_size };
            sockets.push(umem.open(None, place, self.config.copy)?);
        }
        self.take_every_frame(port, link)?;
        // Last, so that no socket takes frames before all can send them on.
        for socket in &sockets {
            lock().set_socket(port, socket.queue(), socket.fd())?;
        }
        lock().exchange()?;
        lock().settle()?;
        Ok(sockets)
    }

    /// In bridge mode, makes a device take frames for every address.
    pub(super) fn take_every_frame(
        &mut self,
        port: PortId,
        link: &LinkInfo,
    ) -> Result<(), AfxdpError> {
        if !self.config.routed {
            let hold = sys::promiscuous(link.ifindex).map_err(|source| AfxdpError::Call {
                device: link.name.clone(),
                call: "promiscuous mode",
                source,
            })?;
            self.promiscuous[port.index()] = Some(hold);
        }
        Ok(())
    }

    /// Takes the programs off a port's device: what arrives there is the kernel's. When
    /// ports are closed on failure, a device that is there keeps them, and they let
    /// nothing pass that is not management traffic.
    pub fn close(&mut self, program: &Mutex<Program>, port: PortId) {
        let mut program = program.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = self.config.on_failure == OnFailure::Closed;
        if closed && program.device_of(port).is_some_and(link::exists) {
            // They stay when this process ends, too.
            program.keep_names();
            return;
        }
        program.detach(port);
        program.leave(&self.config.devices[port.index()]);
        self.promiscuous[port.index()] = None;
    }
}

/// Whether a device can be a port beside `workers` workers.
pub(super) fn fit(link: &LinkInfo, workers: usize) -> Result<(), AfxdpError> {
    let (device, queues, mtu) = (link.name.clone(), link.queues, link.mtu);
    if !link.ethernet {
        return Err(AfxdpError::NotEthernet { device });
    }
    if let Some(controller) = link.controller.clone() {
        return Err(AfxdpError::Enslaved { device, controller });
    }
    if queues as usize != workers {
        return Err(AfxdpError::Queues { device, queues, workers });
    }
    if mtu > MAX_MTU {
        return Err(AfxdpError::Mtu { device, mtu });
    }
    Ok(())
}
