//! What NAT makes of the described packet.
//!
//! The interpreter says which rule translates; which address and port that
//! becomes is a choice among what is free, and the engine's choice is shown.

use std::borrow::Cow;

use dataplane::conntrack::{Direction, Face, Tuple};
use dataplane::nat::{Manip, rewrite};
use dataplane::policy::{Hook, TableId};
use dataplane::verdict::DropReason;
use dataplane::wire::{self, Frame, proto};

use super::Stage;
use super::describe::ip;
use super::walk::{End, Walk};
use crate::interpret::{Packet, Verdict};

/// Where the engine's translation can end a packet.
const ENDS: [DropReason; 4] = [
    DropReason::NatNoAddress,
    DropReason::NatHeader,
    DropReason::NatRedirect,
    DropReason::NatPortChanged,
];

impl Walk<'_> {
    /// nat at one hook: its table, and then the packet as its connection is
    /// translated. Returns whether its destination is another now.
    pub(super) fn nat(&mut self, hook: Hook) -> Result<bool, End> {
        self.table(TableId::Nat, hook)?;
        let ended =
            self.event.reason.is_some_and(|reason| ENDS.iter().any(|end| end.name() == reason));
        if ended && self.path.len() == self.event.path.len() {
            return Err(End(Verdict::Accept));
        }
        let manip = Manip::at(hook);
        let face =
            self.face.filter(|face| self.opens && face.translates(Direction::Original, manip));
        let target = face.as_ref().and_then(|face| face.reply.inverted());
        let (Some(face), Some(target)) = (face, target) else { return Ok(false) };
        let before = (self.parsed.src, self.parsed.dst);
        let from = self.end(manip);
        self.become_like(&target, manip);
        let to = self.end(manip);
        if let Some(connection) = &mut self.subject.tracked.connection {
            learn(connection, &face, manip);
        }
        let what = match manip {
            Manip::Source => "source",
            Manip::Destination => "destination",
        };
        self.stages.push(Stage::Translation { hook: hook.chain_name(), what, from, to });
        Ok(self.parsed.dst != before.1)
    }

    /// Gives the packet one end of `target`.
    fn become_like(&mut self, target: &Tuple, manip: Manip) {
        let mut frame = self.frame.to_vec();
        let start = usize::from(self.parsed.l3);
        let packet = start..start + usize::from(self.parsed.l3_len);
        if !rewrite::rewrite(&mut frame[packet], target, manip) {
            return;
        }
        let mac = dataplane::packet::Mac::default();
        let (Some(read), Ok(Frame::Ip(parsed))) = (Packet::read(&frame), wire::parse(&frame, mac))
        else {
            return;
        };
        self.parsed = dataplane::packet::Parsed { pkt_type: self.parsed.pkt_type, ..parsed };
        // What rules have changed since stays.
        let subject = &mut self.subject.packet;
        (subject.src, subject.dst) = (read.src, read.dst);
        subject.layer4 = Cow::Owned(read.layer4.into_owned());
        self.frame = Cow::Owned(frame);
    }

    /// One end of the packet in words.
    fn end(&self, manip: Manip) -> String {
        let parsed = &self.parsed;
        let (address, port) = match manip {
            Manip::Source => (parsed.src, parsed.sport),
            Manip::Destination => (parsed.dst, parsed.dport),
        };
        let address = ip(parsed.family, address);
        match (parsed.proto, &*self.subject.packet.layer4) {
            (proto::ICMP | proto::ICMPV6, [_, _, _, _, high, low, ..]) => {
                format!("{address} id {}", u16::from_be_bytes([*high, *low]))
            }
            (proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP, _) => {
                format!("{address} port {port}")
            }
            _ => address.to_string(),
        }
    }
}

/// What rules see of a translation from here on.
fn learn(connection: &mut crate::interpret::Connection, face: &Face, manip: Manip) {
    match manip {
        Manip::Source => {
            (connection.reply.dst, connection.reply.dport) = (face.reply.dst, face.reply.dport);
            connection.source_translated = true;
        }
        Manip::Destination => {
            (connection.reply.src, connection.reply.sport) = (face.reply.src, face.reply.sport);
            connection.destination_translated = true;
        }
    }
}
