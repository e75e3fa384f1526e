//! One question to the kernel over netlink and all of its answer: links and queue
//! disciplines (typed), device features and nftables (by attribute numbers, which
//! no library in the tree knows).

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::tc::{TcAttribute, TcMessage};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

/// The kernel's messages are at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Messages of one answer that are taken in; a ruleset may be long.
const MESSAGES_MAX: usize = 1 << 20;
/// Length, type, flags, sequence number and port of a message.
const HEADER: usize = 16;
const SEQUENCE: u32 = 1;

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One whole message, header included.
struct Message(Vec<u8>);

impl Message {
    fn kind(&self) -> u16 {
        u16::from_ne_bytes([self.0[4], self.0[5]])
    }
    fn body(&self) -> &[u8] {
        &self.0[HEADER..]
    }
    fn error(&self) -> i32 {
        let code = self.body().first_chunk();
        code.map_or(0, |code| i32::from_ne_bytes(*code))
    }
}

/// Sends one request and takes in everything up to its end.
fn exchange(protocol: isize, request: &[u8]) -> io::Result<Vec<Message>> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(request, 0)?;
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(RECEIVE_BUFFER);
    loop {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..];
        while let Some(length) = rest.first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            if length < HEADER || length > rest.len() || found.len() >= MESSAGES_MAX {
                return Err(bad("a netlink message of impossible length"));
            }
            let message = Message(rest[..length].to_vec());
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            match message.kind() {
                ERROR | DONE if message.error() < 0 => {
                    return Err(io::Error::from_raw_os_error(-message.error()));
                }
                ERROR | DONE => return Ok(found),
                _ => found.push(message),
            }
        }
    }
}

/// A request made of a body of bytes.
fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + value.len() + 3);
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes in `bytes`; ends at the first that does not fit.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Bits that say how the value is written.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let [a, b, c, d] = *bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([c, d]) & !FLAGS, value))
    })
}

fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A routing request and its answers, decoded.
fn route(message: RouteNetlinkMessage, dump: bool) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | if dump { NLM_F_DUMP } else { NLM_F_ACK };
    packet.header.sequence_number = SEQUENCE;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    let answers = exchange(NETLINK_ROUTE, &bytes)?;
    let decoded = answers.iter().filter_map(|answer| {
        // What the library cannot decode is of no interest here.
        match NetlinkMessage::deserialize(&answer.0).ok()?.payload {
            NetlinkPayload::InnerMessage(inner) => Some(inner),
            _ => None,
        }
    });
    Ok(decoded.collect())
}

/// All links of this network namespace.
pub(super) fn links() -> io::Result<Vec<LinkMessage>> {
    let answers = route(RouteNetlinkMessage::GetLink(LinkMessage::default()), true)?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    });
    Ok(links.collect())
}

/// The name of a link.
pub(super) fn link_name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// Our number for the network namespace that an open file stands for, if it has one.
pub(super) fn namespace_id(file: std::os::fd::BorrowedFd<'_>) -> io::Result<Option<i32>> {
    use std::os::fd::AsRawFd;
    let mut question = NsidMessage::default();
    question.attributes.push(NsidAttribute::Fd(file.as_raw_fd() as u32));
    let answers = route(RouteNetlinkMessage::GetNsId(question), false)?;
    let mut ids = answers.iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(answer) => answer.attributes.iter().find_map(|it| match it {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        }),
        _ => None,
    });
    Ok(ids.next())
}

/// Kinds of the traffic control filters on what a device receives, then on what it sends.
pub(super) fn filters(index: u32) -> io::Result<[Vec<String>; 2]> {
    /// Parents of the filters of `clsact` (and of `ingress`, which has the first).
    const SIDES: [u32; 2] = [0xffff_fff2, 0xffff_fff3];
    let mut question = TcMessage::with_index(index as i32);
    let disciplines = route(RouteNetlinkMessage::GetQueueDiscipline(question.clone()), true)?;
    let has_filters = disciplines.iter().any(|answer| match answer {
        RouteNetlinkMessage::NewQueueDiscipline(discipline) => {
            discipline.header.index == index as i32
                && kind(discipline).is_some_and(|kind| kind == "clsact" || kind == "ingress")
        }
        _ => false,
    });
    let mut found = [Vec::new(), Vec::new()];
    for (side, kinds) in SIDES.into_iter().zip(&mut found).filter(|_| has_filters) {
        question.header.parent = side.into();
        // A discipline for what is received alone has no other side.
        let answers = route(RouteNetlinkMessage::GetTrafficFilter(question.clone()), true);
        kinds.extend(answers.unwrap_or_default().iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewTrafficFilter(filter) => kind(filter).map(str::to_owned),
            _ => None,
        }));
        kinds.dedup();
    }
    Ok(found)
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}

/// A request of the generic family `family`.
fn generic(family: u16, command: u8, body: &[u8]) -> io::Result<Vec<Message>> {
    let mut bytes = vec![command, 1, 0, 0];
    bytes.extend(body);
    exchange(NETLINK_GENERIC, &request(family, NLM_F_ACK, &bytes))
}

/// What a driver can do with XDP, as the bits of `enum netdev_xdp_act`.
pub(super) fn xdp_features(index: u32) -> io::Result<u64> {
    const GENL_ID_CTRL: u16 = 0x10;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    const NETDEV_CMD_DEV_GET: u8 = 1;
    const NETDEV_A_DEV_IFINDEX: u16 = 1;
    const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
    const GENERIC_HEADER: usize = 4;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answers = generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?;
    let said = |answers: &[Message], wanted| {
        let bodies = answers.iter().filter_map(|answer| answer.body().get(GENERIC_HEADER..));
        bodies.into_iter().find_map(|body| find(body, wanted)).map(<[u8]>::to_vec)
    };
    let family = said(&answers, CTRL_ATTR_FAMILY_ID).ok_or_else(|| bad("no netdev family"))?;
    let family = family.first_chunk().ok_or_else(|| bad("a family without a number"))?;
    let port = attribute(NETDEV_A_DEV_IFINDEX, &index.to_ne_bytes());
    let answers = generic(u16::from_ne_bytes(*family), NETDEV_CMD_DEV_GET, &port)?;
    let bits = said(&answers, NETDEV_A_DEV_XDP_FEATURES).ok_or_else(|| bad("no XDP features"))?;
    let bits = bits.first_chunk().ok_or_else(|| bad("XDP features of another length"))?;
    Ok(u64::from_ne_bytes(*bits))
}

/// One table of nftables with rules, or with a chain that drops by default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NftTable {
    /// `ip`, `ip6`, `inet`, ...
    pub(super) family: &'static str,
    pub(super) name: String,
    pub(super) rules: usize,
    /// A base chain's policy drops.
    pub(super) drops: bool,
}

/// The tables of nftables that do something (iptables-nft's among them).
pub(super) fn nft_tables() -> io::Result<Vec<NftTable>> {
    const SUBSYSTEM: u16 = 10 << 8;
    const GET_CHAIN: u16 = SUBSYSTEM | 4;
    const GET_RULE: u16 = SUBSYSTEM | 7;
    const TABLE: u16 = 1;
    const CHAIN_POLICY: u16 = 5;
    const DROP: u32 = 0;
    const FAMILY_HEADER: usize = 4;
    let mut tables: Vec<NftTable> = Vec::new();
    for asked in [GET_CHAIN, GET_RULE] {
        let answers =
            exchange(NETLINK_NETFILTER, &request(asked, NLM_F_DUMP, &[0; FAMILY_HEADER]))?;
        for answer in &answers {
            let Some((header, body)) = answer.body().split_at_checked(FAMILY_HEADER) else {
                continue;
            };
            let Some(name) = find(body, TABLE).map(text) else { continue };
            let family = family_name(header[0]);
            let known = |table: &NftTable| table.family == family && table.name == name;
            let at = tables.iter().position(known).unwrap_or_else(|| {
                let name = name.clone();
                tables.push(NftTable { family, name, rules: 0, drops: false });
                tables.len() - 1
            });
            let policy = find(body, CHAIN_POLICY).and_then(|value| value.first_chunk());
            tables[at].drops |= asked == GET_CHAIN
                && policy.is_some_and(|policy| u32::from_be_bytes(*policy) == DROP);
            tables[at].rules += usize::from(asked == GET_RULE);
        }
    }
    tables.retain(|table| table.rules > 0 || table.drops);
    Ok(tables)
}

fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    }
}
