//! A listener for one NFLOG group: sees packets as a rule saw them.

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// `NFNL_SUBSYS_ULOG`, `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG` of `linux/netfilter`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = 4 << 8 | 1;
/// Attributes of a configuration and of a packet.
const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const PAYLOAD: u16 = 9;

/// See the head of this file.
#[derive(Debug)]
pub struct PacketLog(Socket);

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

impl PacketLog {
    /// Listens to the group in the calling thread's namespace.
    pub fn open(group: u16) -> std::io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(8_i32 << 20)?;
        // Bind; then copy whole packets.
        let mode = [0xffff_u32.to_be_bytes().as_slice(), &[2, 0]].concat();
        for attribute in [attribute(CFG_CMD, &[1]), attribute(CFG_MODE, &mode)] {
            let mut message = (20 + attribute.len() as u32).to_ne_bytes().to_vec();
            message.extend(CONFIG.to_ne_bytes());
            message.extend(1_u16.to_ne_bytes());
            message.extend([0; 8]);
            message.extend([0, 0]);
            message.extend(group.to_be_bytes());
            message.extend(attribute);
            socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        }
        Ok(Self(socket))
    }

    /// Packets since the last call, from the IP header on.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let payload = |message: &Vec<u8>| {
            let found = attributes(message).find(|(kind, _)| *kind == PAYLOAD);
            found.map(|(_, value)| value.to_vec())
        };
        self.messages().iter().filter_map(payload).collect()
    }

    /// Messages about packets since the last call, without their netlink header.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = Vec::with_capacity(80_000);
        loop {
            buffer.clear();
            if self.0.recv(&mut buffer, 0).is_err() {
                return all;
            }
            all.extend(split(&buffer));
        }
    }
}

/// The attributes of a message without its netlink header: number and value.
pub fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(4..).unwrap_or_default();
    std::iter::from_fn(move || {
        let head = rest.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The messages about packets in one datagram.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while bytes.len() >= 20 {
        let len = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let Some(message) = bytes.get(..len).filter(|_| len >= 20) else { return all };
        if kind == PACKET {
            all.push(message[16..].to_vec());
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}
