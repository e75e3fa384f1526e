//! The oracle's own `-m connlimit`: a list of connections for each address.

use std::collections::HashMap;

use dataplane::conntrack::{Presence, Tuple, status};
use dataplane::packet::Family;
use dataplane::policy::tally::ConnRule;

use super::super::Subject;
use super::super::packet::Proto;

/// Connections that one look forgets.
const FORGOTTEN: usize = 65;

/// The ends of a packet that has no connection.
fn tuple(subject: &Subject<'_>) -> Option<Tuple> {
    let packet = &subject.packet;
    let Proto::Known(proto) = packet.proto else { return None };
    let bytes = &packet.layer4[..];
    let two = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (sport, dport) = match (proto, packet.family) {
        _ if packet.fragment_offset > 0 => return None,
        (6 | 17 | 132 | 136, _) => (two(0)?, two(2)?),
        (1 | 58, _) => (two(4).filter(|_| bytes.len() >= 8)?, two(0)?),
        (59 | 0, Family::V6) => return None,
        // PPTP's GRE with keys; another protocol in it is not followed.
        (47, _) if bytes.len() >= 8 && bytes[1] & 7 == 1 => match two(2)? {
            0x880b => (0, two(6)?),
            _ => return None,
        },
        _ => (0, 0),
    };
    let (src, dst, family) = (packet.src, packet.dst, packet.family);
    Some(Tuple { src, dst, sport, dport, proto, family, zone: 0 })
}

/// A rule's lists.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists(HashMap<u128, List>);

#[derive(Clone, Debug, Default)]
struct List {
    members: Vec<Tuple>,
    /// Tick of the last look, and how many there were.
    looked: (u64, usize),
}

impl Lists {
    /// How many connections the packet's address has; `None` when the packet has no tuple.
    pub(super) fn count(&mut self, rule: &ConnRule, subject: &Subject<'_>) -> Option<usize> {
        let packet = &subject.packet;
        let conntrack = subject.conntrack?;
        let presence = |tuple: &Tuple| conntrack.presence(tuple, subject.now);
        let (own, confirmed, assured) = match &subject.tracked.connection {
            Some(connection) => {
                let has = |bit: u32| connection.status & bit != 0;
                let confirmed = has(status::CONFIRMED);
                (connection.original, confirmed, confirmed && has(status::ASSURED))
            }
            None => {
                let tuple = tuple(subject)?;
                (tuple, presence(&tuple) != Presence::Absent, false)
            }
        };
        let address = if rule.destination { packet.dst } else { packet.src };
        let width = if packet.family == Family::V4 { 32 } else { 128 };
        let network = if rule.len == 0 { 0 } else { address >> (width - u32::from(rule.len)) };
        let now = subject.now.0 / 4_000_000;
        let Some(list) = self.0.get_mut(&network) else {
            self.0.insert(network, List { members: vec![own], looked: (now, 1) });
            return Some(1);
        };
        if assured {
            if list.looked.0 != now {
                let mut left = FORGOTTEN;
                list.members.retain(|member| {
                    let over = left > 0 && presence(member) != Presence::Alive;
                    left -= usize::from(over);
                    !over
                });
                list.looked = (now, list.members.len());
            }
            return Some(list.members.len());
        }
        let added = list.members.len().saturating_sub(list.looked.1);
        if confirmed || list.looked.0 != now || added >= 64 {
            let (mut at, mut forgotten) = (0, 0);
            while at < list.members.len() && forgotten < FORGOTTEN {
                let there = presence(&list.members[at]);
                if list.members[at] == own && there != Presence::Absent {
                    return Some(list.members.len());
                }
                if there == Presence::Alive {
                    at += 1;
                } else {
                    list.members.remove(at);
                    forgotten += 1;
                }
            }
            list.looked = (now, list.members.len());
        }
        list.members.push(own);
        Some(list.members.len())
    }
}
