//! One port: the device, its driver, what is attached to it, and whether its
//! queues fit the workers. Offloads and hashing are judged beside this file.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use dataplane::port::AttachMode;
use dataplane::port::afxdp::ethtool::{self, Driver, Offload, Rings, Spreading};
use dataplane::port::afxdp::{LinkInfo, MAX_MTU, MAX_VETH_PEER_MTU, PinKind, Pins};
use dataplane::port::host::{self, TcxProgram};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo as Info, LinkLayerType, LinkMessage, LinkXdp,
};
use rustix::net::sockopt::socket_peercred;

use super::daemon::Running;
use super::netlink;
use super::peer::{self, Peer};
use super::{Code, Command, Finding, Sight, Unseen, Wanted, offloads, spread};
use crate::api::protocol::PortStatus;

/// The driver can run a program.
const XDP_BASIC: u64 = 1;
/// The driver can receive into and send from our memory.
const XDP_ZERO_COPY: u64 = 8;

/// What was seen of one port.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    /// The device, or what there is instead of it.
    pub(super) device: Result<Device, Vec<String>>,
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) ethernet: bool,
    /// Administratively up.
    pub(super) enabled: bool,
    pub(super) carrier: bool,
    pub(super) mtu: u32,
    pub(super) queues: u32,
    /// Bridge, bond or VRF.
    pub(super) controller: Option<String>,
    /// Those who want every frame of it.
    pub(super) promiscuous: u32,
    /// Megabits a second.
    pub(super) speed: Option<u32>,
    pub(super) driver: Sight<Driver>,
    /// The bits of `enum netdev_xdp_act`.
    pub(super) features: Sight<u64>,
    /// How an XDP program is attached, and its number.
    pub(super) xdp: Option<(AttachMode, u32)>,
    /// Links of ours that are pinned for it.
    pub(super) pins: Sight<Vec<PinKind>>,
    /// The process that holds it as a port.
    pub(super) holder: Option<i32>,
    pub(super) tcx: Sight<Vec<TcxProgram>>,
    /// Kinds of filters on what it receives, and on what it sends.
    pub(super) filters: Sight<[Vec<String>; 2]>,
    pub(super) rings: Option<Rings>,
    pub(super) spreading: Option<Spreading>,
    pub(super) steering: u32,
    pub(super) offloads: Sight<Vec<Offload>>,
    /// For a veth.
    pub(super) peer: Option<Sight<Peer>>,
}

impl Seen {
    /// Queues in use.
    pub(super) fn queues(&self) -> Option<u32> {
        self.device.as_ref().ok().map(|device| device.queues)
    }
}

/// Looks at a port.
pub(super) fn observe(name: &str, pin_directory: &Path) -> Seen {
    let links = netlink::links().unwrap_or_default();
    let link = links.iter().find(|link| netlink::link_name(link) == Some(name));
    let device = match link {
        Some(link) => Ok(device(name, link, &links, pin_directory)),
        None => {
            let ethernet = links.iter().filter(|link| is_ethernet(link));
            Err(ethernet.filter_map(|link| netlink::link_name(link)).map(str::to_owned).collect())
        }
    };
    Seen { name: name.to_owned(), device }
}

fn is_ethernet(link: &LinkMessage) -> bool {
    link.header.link_layer_type == LinkLayerType::Ether
}

fn device(name: &str, link: &LinkMessage, links: &[LinkMessage], pin_directory: &Path) -> Device {
    let index = link.header.index;
    let unseen = |error: std::io::Error| Unseen::of(name, &error);
    let speed = std::fs::read_to_string(format!("/sys/class/net/{name}/speed"));
    let mut device = Device {
        ethernet: is_ethernet(link),
        enabled: link.header.flags.contains(LinkFlags::Up),
        carrier: link.header.flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        queues: LinkInfo::of(name).map_or(1, |info| info.queues),
        controller: None,
        promiscuous: 0,
        speed: speed.ok().and_then(|text| text.trim().parse().ok()),
        driver: ethtool::driver(name).map_err(unseen),
        features: netlink::xdp_features(index).map_err(unseen),
        xdp: None,
        pins: pins(index, pin_directory),
        holder: holder(index),
        tcx: host::tcx_programs(name).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => Unseen::Privilege("CAP_NET_ADMIN"),
            _ => Unseen::Failed(error.to_string()),
        }),
        filters: netlink::filters(index).map_err(unseen),
        rings: ethtool::rings(name).ok(),
        spreading: ethtool::spreading(name).ok(),
        steering: ethtool::steering_rules(name).unwrap_or(0),
        offloads: ethtool::offloads(name).map_err(unseen),
        peer: None,
    };
    let (mut veth, mut other, mut namespace) = (false, None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Promiscuity(count) => device.promiscuous = *count,
            LinkAttribute::Controller(index) => {
                let controller = links.iter().find(|link| link.header.index == *index);
                let name = controller.and_then(netlink::link_name).unwrap_or("another device");
                device.controller = Some(name.to_owned());
            }
            LinkAttribute::Xdp(xdp) => device.xdp = attached(name, xdp),
            LinkAttribute::LinkInfo(infos) => veth = infos.contains(&Info::Kind(InfoKind::Veth)),
            LinkAttribute::Link(index) => other = Some(*index),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            _ => {}
        }
    }
    device.peer = other.filter(|_| veth).map(|index| peer::find(index, namespace));
    device
}

fn pins(index: u32, directory: &Path) -> Sight<Vec<PinKind>> {
    let names = Pins::names(directory).map_err(|error| Unseen::Failed(error.to_string()))?;
    Ok(names.into_iter().filter(|(_, of)| *of == index).map(|(kind, _)| kind).collect())
}

fn attached(name: &str, xdp: &[LinkXdp]) -> Option<(AttachMode, u32)> {
    let mode = LinkInfo::of(name).ok()?.attached?;
    let id = xdp.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    });
    Some((mode, id.unwrap_or(0)))
}

/// The process that holds a device as a port; 0 when it does not say who it is.
fn holder(index: u32) -> Option<i32> {
    let address = SocketAddr::from_abstract_name(format!("portcullis-port-{index}")).ok()?;
    let stream = UnixStream::connect_addr(&address).ok()?;
    Some(socket_peercred(&stream).map_or(0, |peer| peer.pid.as_raw_pid()))
}

/// What it means. `running` is the daemon, if one answers.
pub(super) fn judge(
    wanted: &Wanted,
    workers: usize,
    seen: &Seen,
    running: Option<&Running>,
) -> Vec<Finding> {
    let name = seen.name.as_str();
    let device = match &seen.device {
        Ok(device) => device,
        Err(existing) => {
            let found = format!("there is no such device; there is {}", existing.join(", "));
            return vec![Finding::error(Code::PortMissing, name, found)];
        }
    };
    if !device.ethernet {
        let found = "is not an Ethernet device";
        return vec![Finding::error(Code::PortKind, name, found)];
    }
    // One that is out of service has neither a mode nor sockets: the daemon says why.
    let status = running.and_then(|running| running.port(name));
    let in_service = status.filter(|status| status.out_of_service.is_none());
    let mut findings = vec![driver(name, device)];
    findings.extend(link(name, device));
    findings.extend(ownership(name, device, status.is_some()));
    findings.extend(programs(wanted, name, device, status.is_some()));
    findings.extend(modes(name, device, in_service));
    findings.push(queues(name, device, workers, in_service));
    findings.push(mtu(name, device));
    findings.extend(rings(name, device));
    findings.extend(promiscuous(wanted, name, device, status.is_some()));
    findings.extend(spread::judge(name, device));
    findings.extend(offloads::judge(wanted, name, device));
    findings
}

fn driver(name: &str, device: &Device) -> Finding {
    match &device.driver {
        Ok(driver) => {
            let speed = device.speed.map_or_else(String::new, |it| format!(", {it} Mbit/s"));
            let (kind, version) = (&driver.name, &driver.version);
            Finding::ok(Code::Driver, name, format!("driver {kind} {version}{speed}"))
        }
        Err(why) => Finding::unseen(Code::Driver, name, why),
    }
}

fn link(name: &str, device: &Device) -> Option<Finding> {
    if !device.enabled {
        let up = Command::new("ip link set").arg(name).arg("up");
        return Some(Finding::warning(Code::PortDown, name, "is down").mend(up));
    }
    if !device.carrier {
        let finding = Finding::warning(Code::Carrier, name, "is up but has no carrier");
        let advice = match device.peer {
            Some(_) => "set its peer up",
            None => "look at the cable, the other end and the optics",
        };
        return Some(finding.advise(advice));
    }
    Some(Finding::ok(Code::Carrier, name, "is up, with carrier"))
}

/// Who else has it.
fn ownership(name: &str, device: &Device, ours: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(controller) = &device.controller {
        let release = Command::new("ip link set").arg(name).arg("nomaster");
        let found = format!("belongs to {controller}");
        findings.push(Finding::error(Code::PortEnslaved, name, found).mend(release));
    }
    if let Some(pid) = device.holder.filter(|_| !ours) {
        let found = format!("is held by another portcullis (pid {pid}) than the one asked");
        let advice = "name its control socket: --socket PATH";
        findings.push(Finding::error(Code::PortHeld, name, found).advise(advice));
    }
    findings
}

/// Other people's programs and filters.
fn programs(wanted: &Wanted, name: &str, device: &Device, ours: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let held = ours || device.holder.is_some();
    let pinned = |kind| device.pins.as_ref().is_ok_and(|pins| pins.contains(&kind));
    if let Err(why) = &device.pins {
        findings.push(Finding::unseen(Code::PortPinned, name, why));
    }
    if !held && pinned(PinKind::Xdp) {
        let found = "is kept closed by a daemon that is gone";
        let release = Command::new("portcullis release").arg(name).arg("--pin-dir");
        let release = release.arg(wanted.pin_directory.to_string_lossy());
        let finding = Finding::warning(Code::PortPinned, name, found).mend(release);
        findings.push(finding.advise("or start the daemon, which takes it over"));
    } else if let Some((mode, id)) = device.xdp.filter(|_| !held) {
        let found = format!("already has XDP program {id} attached ({mode})");
        let detach = Command::new("ip link set dev").arg(name).args("xdp off");
        let advice = format!("find out whose it is first: bpftool prog show id {id}");
        findings.push(Finding::error(Code::XdpForeign, name, found).mend(detach).advise(advice));
    }
    let is_own = |program: &TcxProgram| {
        let known = host::PROGRAMS.contains(&program.name.as_str());
        known && (held || pinned(PinKind::Egress))
    };
    match &device.tcx {
        Ok(programs) => findings.extend(programs.iter().filter(|it| !is_own(it)).map(|program| {
            let side = if program.egress { "egress" } else { "ingress" };
            let TcxProgram { id, name: called, .. } = program;
            let found = format!("has tcx {side} program {id} `{called}`, not ours");
            let advice = format!("bpftool net show dev {name}");
            Finding::warning(Code::TcxForeign, name, found).advise(advice)
        })),
        Err(why) => findings.push(Finding::unseen(Code::TcxForeign, name, why)),
    }
    match &device.filters {
        Ok(sides) => {
            for (side, kinds) in ["ingress", "egress"].into_iter().zip(sides) {
                if !kinds.is_empty() {
                    let found = format!("has traffic control {side} filters: {}", kinds.join(", "));
                    let remove = Command::new("tc filter del dev").arg(name).arg(side);
                    findings.push(Finding::warning(Code::TcFilter, name, found).mend(remove));
                }
            }
        }
        Err(why) => findings.push(Finding::unseen(Code::TcFilter, name, why)),
    }
    findings
}

/// How frames come and go: as the daemon says, else as the driver could.
fn modes(name: &str, device: &Device, status: Option<&PortStatus>) -> Vec<Finding> {
    let native = match (status, &device.features) {
        (Some(status), _) => Ok(status.xdp == "native"),
        (None, Ok(features)) => Ok(features & XDP_BASIC != 0),
        (None, Err(why)) => Err(why),
    };
    let mut findings = Vec::new();
    findings.push(match (native, status.is_some()) {
        (Ok(true), true) => Finding::ok(Code::XdpMode, name, "is in native mode"),
        (Ok(true), false) => Finding::ok(Code::XdpMode, name, "its driver has native XDP"),
        (Ok(false), running) => {
            let found = match running {
                true => "is in generic mode",
                false => "its driver has no native XDP: it will be in generic mode",
            };
            Finding::note(Code::XdpMode, name, found)
        }
        (Err(why), _) => Finding::unseen(Code::XdpMode, name, why),
    });
    let zero_copy = match (status, &device.features) {
        (Some(status), _) => Ok(status.queues.iter().all(|queue| queue.zero_copy)),
        (None, Ok(features)) => Ok(features & XDP_ZERO_COPY != 0),
        (None, Err(why)) => Err(why),
    };
    findings.push(match (zero_copy, status.is_some()) {
        (Ok(true), true) => Finding::ok(Code::ZeroCopy, name, "is in zero-copy mode"),
        (Ok(false), true) => Finding::ok(Code::ZeroCopy, name, "is in copy mode"),
        (Ok(true), false) => Finding::ok(Code::ZeroCopy, name, "its driver has zero-copy"),
        (Ok(false), false) => Finding::ok(Code::ZeroCopy, name, "its driver has no zero-copy"),
        (Err(why), _) => Finding::unseen(Code::ZeroCopy, name, why),
    });
    findings
}

fn queues(name: &str, device: &Device, workers: usize, status: Option<&PortStatus>) -> Finding {
    let queues = device.queues as usize;
    let sockets = status.map_or(workers, |status| status.queues.len());
    if queues == sockets {
        return Finding::ok(Code::Queues, name, format!("{queues} queue(s), each with a worker"));
    }
    let what = if status.is_some() { "socket(s) are bound" } else { "worker(s) would run" };
    let found = format!("has {queues} queue(s), and {sockets} {what}");
    let channels = Command::new("ethtool -L").arg(name);
    let channels = match device.peer {
        Some(_) => channels.arg("rx").arg(sockets.to_string()).arg("tx").arg(sockets.to_string()),
        None => channels.arg("combined").arg(sockets.to_string()),
    };
    Finding::error(Code::Queues, name, found)
        .mend(channels)
        .advise(format!("or start with --workers {queues}"))
}

fn mtu(name: &str, device: &Device) -> Finding {
    let set = |prefix: &[String], name: &str, mtu: u32| {
        let set = Command::new("ip link set").arg(name).arg("mtu").arg(mtu.to_string());
        set.behind(prefix)
    };
    if device.mtu > MAX_MTU {
        let found = format!("MTU {} is above {MAX_MTU}", device.mtu);
        return Finding::error(Code::Mtu, name, found).mend(set(&[], name, MAX_MTU));
    }
    if let Some(Ok(peer)) = &device.peer
        && peer.mtu > MAX_VETH_PEER_MTU
    {
        let found =
            format!("its peer {} has MTU {}, above {MAX_VETH_PEER_MTU}", peer.name, peer.mtu);
        let lower = set(&peer.prefix, &peer.name, device.mtu.min(MAX_VETH_PEER_MTU));
        return Finding::warning(Code::PeerMtu, name, found).mend(lower);
    }
    Finding::ok(Code::Mtu, name, format!("MTU {}", device.mtu))
}

fn rings(name: &str, device: &Device) -> Option<Finding> {
    /// Frames that come within a scheduling hiccup at some millions a second.
    const ENOUGH: u32 = 1024;
    let Rings { rx, rx_max, tx, tx_max } = device.rings?;
    let too_small = (rx < ENOUGH && rx < rx_max) || (tx < ENOUGH && tx < tx_max);
    if !too_small {
        return Some(Finding::ok(Code::Rings, name, format!("rings of {rx} and {tx} frames")));
    }
    let found = format!("rings of {rx} and {tx} frames; {rx_max} and {tx_max} are possible");
    let (rx, tx) = (rx.max(rx_max.min(2048)), tx.max(tx_max.min(2048)));
    let command = Command::new("ethtool -G").arg(name);
    let command = command.arg("rx").arg(rx.to_string()).arg("tx").arg(tx.to_string());
    Some(Finding::note(Code::Rings, name, found).mend(command))
}

fn promiscuous(wanted: &Wanted, name: &str, device: &Device, ours: bool) -> Option<Finding> {
    // A bridge asks for it itself.
    let expected = u32::from(wanted.is_bridge() && ours);
    (device.promiscuous > expected).then(|| {
        let found =
            format!("is promiscuous for {} user(s), not ours", device.promiscuous - expected);
        Finding::note(Code::Promiscuous, name, found)
            .mend(Command::new("ip link set").arg(name).args("promisc off"))
            .advise("or end the capture (tcpdump) that asked for it")
    })
}
