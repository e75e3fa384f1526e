//! Netlink sockets: dumps and requests on one, notifications on another.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use thiserror::Error;

/// Why talking to the kernel over netlink failed.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// A system call failed.
    #[error("netlink: {call} failed: {source}")]
    Io {
        /// Which call.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("netlink: the kernel refused a request ({request}): {source}")]
    Refused {
        /// What was asked.
        request: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// The kernel sent something that cannot be decoded.
    #[error("netlink: undecodable message: {0}")]
    Decode(String),
    /// The tables changed under every attempt to dump them.
    #[error("netlink: {0} kept changing while being dumped")]
    Unstable(&'static str),
}

fn io(call: &'static str) -> impl FnOnce(io::Error) -> NetlinkError {
    move |source| NetlinkError::Io { call, source }
}

/// The kernel builds dump and notification messages of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Attempts at a dump that the kernel reports as interrupted by a change.
const DUMP_ATTEMPTS: u32 = 16;

/// A socket for requests.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(io("socket"))?;
        socket.bind_auto().map_err(io("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(io("connect"))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    /// Dumps one kind of object and keeps what `each` makes of them. When the
    /// kernel reports that the table changed meanwhile, the dump starts over.
    pub(super) fn dump<T>(
        &mut self,
        what: &'static str,
        request: &RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let whole = self.exchange(what, request.clone(), NLM_F_DUMP, |message| {
                found.extend(each(message));
            })?;
            if whole {
                return Ok(found);
            }
        }
        Err(NetlinkError::Unstable(what))
    }

    /// `NTF_USE`: the kernel treats the neighbour as if it had a packet for it,
    /// which starts or refreshes resolution.
    pub(super) fn use_neighbour(&mut self, link: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.ifindex = link;
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        message.attributes.push(NeighbourAttribute::Destination(address.into()));
        let request = RouteNetlinkMessage::NewNeighbour(message);
        let flags = NLM_F_ACK | NLM_F_CREATE;
        self.exchange("resolve a neighbour", request, flags, |_| {}).map(|_| ())
    }

    /// Sends a request and reads until its end. Returns false when the kernel
    /// marked any part as interrupted.
    fn exchange(
        &mut self,
        what: &'static str,
        request: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::from(request);
        packet.header.flags = NLM_F_REQUEST | flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(io("send"))?;

        let mut whole = true;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io("receive")(error)),
            }
            let mut rest = &self.buffer[..];
            while let Some(message) = next_message(&mut rest)? {
                // Answers to an earlier request that was given up.
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(whole),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(whole),
                    NetlinkPayload::Error(error) => {
                        let source = error.to_io();
                        return Err(NetlinkError::Refused { request: what, source });
                    }
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    _ => {}
                }
            }
        }
    }
}

/// Cuts the next message off `rest`. A message of a kind that this library
/// cannot decode is reported by the library as a decode error.
fn next_message(
    rest: &mut &[u8],
) -> Result<Option<NetlinkMessage<RouteNetlinkMessage>>, NetlinkError> {
    const HEADER: usize = 16;
    let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes) as usize)
    else {
        return Ok(None);
    };
    if length < HEADER || length > rest.len() {
        return Err(NetlinkError::Decode(format!("length {length} of {}", rest.len())));
    }
    let message = NetlinkMessage::deserialize(&rest[..length])
        .map_err(|error| NetlinkError::Decode(error.to_string()))?;
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Ok(Some(message))
}

/// The groups whose notifications matter (`RTNLGRP_*`).
const GROUPS: [u32; 9] = [
    1,  // LINK
    3,  // NEIGH
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    8,  // IPV4_RULE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    19, // IPV6_RULE
    32, // NEXTHOP
];

/// `RTNLGRP_IPV4_MCADDR` and `RTNLGRP_IPV6_MCADDR`: since Linux 6.14.
const MULTICAST_GROUPS: [u32; 2] = [37, 38];
/// `RTM_NEWMULTICAST` and `RTM_DELMULTICAST`, which the library does not know.
const MULTICAST_MESSAGES: [u16; 2] = [56, 57];

/// What a look at the notifications showed beside the messages themselves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Drained {
    /// Something was lost or could not be decoded, so that a dump is needed.
    pub(super) lost: bool,
    /// The list of multicast groups is another one.
    pub(super) groups: bool,
}

/// Notifications queue here in the kernel; beyond it they are lost (and noticed).
const EVENT_QUEUE_BYTES: usize = 4 << 20;
/// Datagrams taken in one call, so that a storm cannot hold the thread.
const READS_PER_DRAIN: u32 = 4096;

/// A socket for notifications.
#[derive(Debug)]
pub(super) struct Events {
    socket: Socket,
    buffer: Vec<u8>,
    /// Whether the kernel tells of multicast groups.
    tells_groups: bool,
}

impl Events {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(io("socket"))?;
        socket.bind_auto().map_err(io("bind"))?;
        // Beyond the system's limit, as the administrator may; else up to it.
        if set_socket_recv_buffer_size_force(&socket, EVENT_QUEUE_BYTES).is_err() {
            let size = EVENT_QUEUE_BYTES as libc::c_int;
            socket.set_rx_buf_sz(size).map_err(io("set buffer size"))?;
        }
        for group in GROUPS {
            socket.add_membership(group).map_err(io("join group"))?;
        }
        let mut both = MULTICAST_GROUPS.iter().map(|group| socket.add_membership(*group));
        let tells_groups = both.all(|joined| joined.is_ok());
        socket.set_non_blocking(true).map_err(io("set non-blocking"))?;
        Ok(Self { socket, buffer: Vec::with_capacity(RECEIVE_BUFFER), tells_groups })
    }

    /// Whether [`Drained::groups`] is to be relied on.
    pub(super) fn tells_groups(&self) -> bool {
        self.tells_groups
    }

    /// Reads what is queued.
    pub(super) fn drain(
        &mut self,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<Drained, NetlinkError> {
        let mut drained = Drained::default();
        for _ in 0..READS_PER_DRAIN {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(drained),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    drained = Drained { lost: true, groups: true };
                    continue;
                }
                Err(source) => return Err(io("receive")(source)),
            }
            let mut rest = &self.buffer[..];
            loop {
                if skip_multicast(&mut rest) {
                    drained.groups = true;
                    continue;
                }
                match next_message(&mut rest) {
                    Ok(Some(message)) => {
                        if let NetlinkPayload::InnerMessage(inner) = message.payload {
                            each(inner);
                        }
                    }
                    Ok(None) => break,
                    // RTM_NEWNEXTHOP and others that the library does not know.
                    Err(_) => {
                        drained.lost = true;
                        break;
                    }
                }
            }
        }
        Ok(drained)
    }
}

/// Takes a message about a multicast group off `rest`, if it is one.
fn skip_multicast(rest: &mut &[u8]) -> bool {
    let Some([a, b, c, d, kind @ ..]) = rest.first_chunk::<6>() else { return false };
    let length = u32::from_ne_bytes([*a, *b, *c, *d]) as usize;
    if !MULTICAST_MESSAGES.contains(&u16::from_ne_bytes(*kind)) || length > rest.len() {
        return false;
    }
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    true
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
