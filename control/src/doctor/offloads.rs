//! Offloads that keep something of the frame from us, on the port and on a veth's peer.

use dataplane::port::afxdp::ethtool::Offload;

use super::peer::Peer;
use super::ports::Device;
use super::{Code, Command, Finding, Wanted};

/// Names of the checksum offloads of TCP and UDP.
const CHECKSUMS: [&str; 3] = ["tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6"];

/// An offload of a device itself that should be off.
struct Harmful {
    /// The kernel's name.
    kernel: &'static str,
    /// What `ethtool -K` calls it.
    tool: &'static str,
    code: Code,
    found: &'static str,
    /// Only in this case.
    bridge_only: bool,
    /// A note, and left to the operator.
    harmless: bool,
}

const HARMFUL: [Harmful; 5] = [
    Harmful {
        kernel: "rx-vlan-hw-parse",
        tool: "rxvlan",
        code: Code::RxVlan,
        found: "takes VLAN tags out of received frames (rxvlan)",
        bridge_only: false,
        harmless: false,
    },
    Harmful {
        kernel: "rx-vlan-filter",
        tool: "rx-vlan-filter",
        code: Code::RxVlanFilter,
        found: "drops frames of VLANs that this machine does not have (rx-vlan-filter)",
        bridge_only: true,
        harmless: false,
    },
    Harmful {
        kernel: "rx-lro",
        tool: "lro",
        code: Code::Lro,
        found: "joins received TCP segments (lro)",
        bridge_only: false,
        harmless: false,
    },
    Harmful {
        kernel: "rx-gro-hw",
        tool: "rx-gro-hw",
        code: Code::GroHw,
        found: "joins received segments in hardware (rx-gro-hw)",
        bridge_only: false,
        harmless: false,
    },
    Harmful {
        kernel: "rx-udp-gro-forwarding",
        tool: "rx-udp-gro-forwarding",
        code: Code::UdpGro,
        found: "lets the kernel join UDP datagrams that it forwards (rx-udp-gro-forwarding)",
        bridge_only: false,
        harmless: true,
    },
];

fn named<'o>(offloads: &'o [Offload], name: &str) -> Option<&'o Offload> {
    offloads.iter().find(|offload| offload.name == name && offload.active)
}

fn switch_off(device: &str, offload: &str) -> Command {
    Command::new("ethtool -K").arg(device).arg(offload).arg("off")
}

/// What the offloads of a port mean.
pub(super) fn judge(wanted: &Wanted, name: &str, device: &Device) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &device.offloads {
        Ok(offloads) => {
            for harmful in HARMFUL.iter().filter(|it| !it.bridge_only || wanted.is_bridge()) {
                // On a veth the peer alone decides about tags.
                if harmful.code == Code::RxVlan && device.peer.is_some() {
                    continue;
                }
                findings.push(own(name, harmful, offloads));
            }
        }
        Err(why) => findings.push(Finding::unseen(Code::RxVlan, name, why)),
    }
    match &device.peer {
        Some(Ok(peer)) => findings.extend(of_peer(name, peer)),
        Some(Err(why)) => {
            let found = format!("its peer's offloads cannot be seen: {why}");
            let advice = "where the peer is: ethtool -K PEER tx off txvlan off";
            findings.push(Finding::note(Code::PeerUnseen, name, found).advise(advice));
        }
        None => {}
    }
    findings
}

fn own(name: &str, harmful: &Harmful, offloads: &[Offload]) -> Finding {
    let Some(offload) = named(offloads, harmful.kernel) else {
        return Finding::ok(harmful.code, name, format!("{} is off", harmful.tool));
    };
    let command = switch_off(name, harmful.tool);
    if harmful.harmless {
        return Finding::note(harmful.code, name, harmful.found).mend(command);
    }
    let finding = Finding::warning(harmful.code, name, harmful.found);
    match offload.changeable {
        true => finding.fix(command),
        false => finding.advise("the driver does not let it be switched off"),
    }
}

/// What the other end of a veth leaves out of frames.
fn of_peer(name: &str, peer: &Peer) -> Vec<Finding> {
    let Peer { name: other, prefix, offloads, .. } = peer;
    let off = |offload| switch_off(other, offload).behind(prefix);
    let checksums = CHECKSUMS.iter().any(|checksum| named(offloads, checksum).is_some());
    let tags = named(offloads, "tx-vlan-hw-insert").is_some();
    vec![
        match checksums {
            true => {
                let found = format!("its peer {other} sends unfinished checksums (tx on)");
                Finding::error(Code::PeerChecksum, name, found).fix(off("tx"))
            }
            false => Finding::ok(Code::PeerChecksum, name, "its peer sends whole checksums"),
        },
        match tags {
            true => {
                let found = format!("its peer {other} keeps VLAN tags out of frames (txvlan on)");
                Finding::warning(Code::PeerVlan, name, found).fix(off("txvlan"))
            }
            false => Finding::ok(Code::PeerVlan, name, "its peer leaves VLAN tags in frames"),
        },
    ]
}
