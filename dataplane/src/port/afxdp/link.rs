//! What the kernel says of a network device: asked over netlink, never assumed.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::{ethtool, sys};
use crate::nat::affinity::{Hashed, Spread};
use crate::port::AttachMode;

/// One device, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its layer 3 MTU in bytes.
    pub mtu: u32,
    /// Queues in use, the larger of receive and transmit.
    pub queues: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether the device takes VLAN tags out of received frames: the program
    /// and the sockets then see them as if they had none. Only
    /// `ethtool -K DEVICE rxvlan off` shows them (for a veth: `txvlan off` on its peer).
    pub strips_vlan_tags: bool,
    /// Whether it is an Ethernet device.
    pub ethernet: bool,
    /// The bridge, bond or VRF that it is part of.
    pub controller: Option<String>,
    /// How an XDP program is attached, if one is.
    pub attached: Option<AttachMode>,
}

impl LinkInfo {
    /// No device, for tests without the kernel.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self {
            ifindex: 0,
            name: "nowhere".to_owned(),
            mtu: 1500,
            queues: 1,
            up: true,
            strips_vlan_tags: false,
            ethernet: true,
            controller: None,
            attached: None,
        }
    }

    /// How a device spreads what it receives over its queues; `None` when it does
    /// not say, or not by a Toeplitz hash.
    pub fn spread(name: &str) -> Option<Spread> {
        let spreading = ethtool::spreading(name).ok()?;
        let [tcp4, udp4, tcp6, udp6] = spreading.ports_hashed;
        let hashed = Hashed { tcp4, udp4, tcp6, udp6 };
        // Symmetric hashing changes the input: such a card is not foretold.
        let known = spreading.toeplitz && !spreading.symmetric;
        known.then(|| Spread::new(&spreading.key, &spreading.queues, hashed)).flatten()
    }

    /// The name of a device, or its index in words when there is none.
    pub fn name_of(ifindex: u32) -> String {
        let attributes = get_link(ifindex).map(|message| message.attributes).unwrap_or_default();
        let name = attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        name.unwrap_or_else(|| format!("device {ifindex}"))
    }

    /// Asks for a device by name.
    ///
    /// # Errors
    /// The kernel's answer; `ENODEV` when there is no such device.
    pub fn of(name: &str) -> io::Result<Self> {
        let ifindex = sys::interface_index(name)?;
        let mut info = Self {
            ifindex,
            name: name.to_owned(),
            mtu: 0,
            queues: 1,
            up: false,
            strips_vlan_tags: false,
            ethernet: false,
            controller: None,
            attached: None,
        };
        let message = get_link(ifindex)?;
        info.ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        info.up = message.header.flags.contains(LinkFlags::Up);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => info.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => info.mtu = *mtu,
                LinkAttribute::NumRxQueues(queues) => info.queues = *queues,
                LinkAttribute::Controller(index) => info.controller = Some(name_of(*index)),
                LinkAttribute::Xdp(xdp) => info.attached = attach_mode(xdp),
                _ => {}
            }
        }
        // Drivers allocate more queues than they use; those that cannot tell use all.
        match sys::channels(&info.name) {
            Ok(0) | Err(_) => {}
            Ok(queues) => info.queues = queues,
        }
        info.strips_vlan_tags = sys::strips_vlan_tags(&info.name).unwrap_or(false);
        Ok(info)
    }
}

/// Whether there is a device of this index in this network namespace.
pub(super) fn exists(ifindex: u32) -> bool {
    !matches!(get_link(ifindex), Err(error) if error.raw_os_error() == Some(libc::ENODEV))
}

/// The name of a device; its index where it has none any more.
fn name_of(index: u32) -> String {
    let named = |attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    };
    let message = get_link(index).ok();
    let name = message.and_then(|message| message.attributes.into_iter().find_map(named));
    name.unwrap_or_else(|| format!("device {index}"))
}

fn attach_mode(attributes: &[LinkXdp]) -> Option<AttachMode> {
    attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(AttachMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(AttachMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(AttachMode::Offloaded),
        _ => None,
    })
}

/// One `RTM_GETLINK`.
fn get_link(ifindex: u32) -> io::Result<LinkMessage> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut question = LinkMessage::default();
    question.header.index = ifindex;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message =
        NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetLink(question)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
