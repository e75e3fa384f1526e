//! The road of a transparent pair: what arrives on one port leaves on the other.
//!
//! IP frames see the hooks that `br_netfilter` shows them, with port names as
//! `-i` and `-o` (the kernel shows the bridge's name there, which a pair does
//! not have). Tagged frames and everything that is not IP cross untouched.

use classifier::Address;

use super::Ended;
use super::road::{End, Packet, Road};
use crate::effects::Effects;
use crate::fib::{Mode, Network};
use crate::packet::{PktType, PortId};
use crate::reassembly::User;
use crate::verdict::{Disposition, DropReason};

/// Bytes of a VLAN tag, which the kernel allows above the MTU.
const TAG: usize = 4;
/// Bytes of an untagged Ethernet header.
const HEADER: usize = 14;

/// A frame without IP that a rule could see: crosses a pair, ends elsewhere.
pub(super) fn cross(network: &Network, input: PortId, len: usize) -> Ended {
    Ended::early(match network.mode() {
        Mode::Bridge(_) => {
            pass(network, input, len).map_or_else(Disposition::Drop, Disposition::Transmit)
        }
        Mode::Routed | Mode::Host => Disposition::Drop(DropReason::UnknownEtherType),
    })
}

/// The other port of the pair, if the frame may cross to it.
fn pass(network: &Network, input: PortId, len: usize) -> Result<PortId, DropReason> {
    let output = peer(network.mode(), input).ok_or(DropReason::NotForwarded)?;
    let port = network.port(output);
    if !port.up {
        Err(DropReason::PortDown)
    } else if len > port.mtu as usize + HEADER + TAG {
        Err(DropReason::TooBig)
    } else {
        Ok(output)
    }
}

fn peer(mode: &Mode, input: PortId) -> Option<PortId> {
    let Mode::Bridge(pairs) = mode else { return None };
    pairs.iter().find_map(|&(a, b)| match input {
        _ if input == a => Some(b),
        _ if input == b => Some(a),
        _ => None,
    })
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// PREROUTING, FORWARD, POSTROUTING, without a router in between. IPv4 options
    /// cross unread.
    pub(super) fn bridged(
        &mut self,
        packet: &mut Packet<'_>,
        input: PortId,
    ) -> Result<Disposition, End> {
        if packet.parsed.pkt_type == PktType::OtherHost {
            packet.parsed.pkt_type = PktType::Host;
        }
        self.check_hop_by_hop_across(packet)?;
        let onward = |road: &mut Self, whole: &mut Packet<'_>| road.bridged(whole, input);
        if let Some(ended) = self.gather_tracked(packet, User::Bridge, onward)? {
            return Ok(ended);
        }
        self.prerouting(packet)?;
        let network = self.world.network;
        // The longest piece counts, for what leaves in pieces.
        let length = packet.regroup.map(|regroup| regroup.longest() + HEADER);
        let length = length.unwrap_or(packet.frame.len());
        let output = pass(network, input, length).map_err(End::Drop)?;
        (packet.output, packet.way_mtu) = (Some(output), network.port(output).mtu);
        self.forward_tables(packet)?;
        // br_netfilter shows POSTROUTING no input interface.
        packet.input = None;
        let result = self.postrouting(packet);
        packet.input = Some(input);
        result?;
        let mtu = network.port(output).mtu;
        let length = u32::from(packet.parsed.l3_len);
        match packet.regroup {
            Some(regroup) if !regroup.leaves_whole(packet.parsed.family, length, mtu) => {
                self.cut(packet, mtu, |road, piece| {
                    road.effects.emit(output, piece).then_some(()).ok_or(DropReason::NoFrame)
                })
            }
            _ => Ok(Disposition::Transmit(output)),
        }
    }
}
