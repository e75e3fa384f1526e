//! Packets that show a change: made from a region, and walked through both policies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::clock::Nanos;
use dataplane::conntrack::CtState;
use dataplane::packet::{Family, L4Class};
use dataplane::policy::{Hook, TableId};
use dataplane::wire::build::{self, L4, Tcp};
use dataplane::wire::proto;

use super::report::Witness;
use super::{Bounds, Key, Policy};
use crate::interpret::{Interpreter, Packet, Subject, Tracked, Verdict};
use crate::region::{Fate, Point, Region, Speaker, liked, point_words};

const STATES: [CtState; 5] =
    [CtState::Invalid, CtState::New, CtState::Established, CtState::Related, CtState::Untracked];

/// A packet of one of the regions, if possible one that goes both ways as the change says.
pub(super) fn find(
    policies: [Policy<'_>; 2],
    place: (TableId, Hook),
    regions: &[Region],
    key: &Key,
    speaker: &Speaker<'_>,
    bounds: Bounds,
) -> Option<Witness> {
    let family = speaker.space.family;
    let mut first = None;
    // Regions without atoms first: they depend on nothing.
    let mut order: Vec<&Region> = regions.iter().collect();
    order.sort_by_key(|it| it.atoms.len());
    for nth in 0..bounds.tries {
        let region = order[nth as usize % order.len()];
        let nth = nth / order.len() as u64;
        let Some(point) = region.pick(nth).map(|point| liked(region, point, family, nth)) else {
            continue;
        };
        let packet = point_words(speaker, &point);
        let walked = |at: usize| walk(policies[at], place, &point, speaker);
        let confirmed = [0, 1].into_iter().all(|at| walked(at).as_ref() == Some(&key.0[at].0));
        let witness = Witness { packet, confirmed };
        if confirmed {
            return Some(witness);
        }
        first.get_or_insert(witness);
    }
    first
}

/// The frame of a packet.
pub(super) fn frame(point: &Point, family: Family) -> Vec<u8> {
    let address = |bits: u128| -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    };
    let Point { sport, dport, proto, flags, .. } = *point;
    let mut payload = Vec::new();
    let icmp = if family == Family::V4 { proto::ICMP } else { proto::ICMPV6 };
    let l4 = match proto {
        proto::TCP => L4::Tcp(Tcp { seq: 10_001, ..Tcp::new(sport, dport, flags) }),
        proto::UDP => L4::Udp { sport, dport, length: None, lite: false },
        proto::UDPLITE => L4::Udp { sport, dport, length: None, lite: true },
        proto::SCTP => L4::Sctp { sport, dport, tag: 9 },
        it if it == icmp => L4::Icmp { kind: sport as u8, code: dport as u8, word: 1 << 16 | 1 },
        other => {
            payload.extend([sport.to_be_bytes(), dport.to_be_bytes()].concat());
            payload.extend([0; 16]);
            L4::Raw(other)
        }
    };
    let mut packet = build::Packet::between(address(point.src), address(point.dst), l4);
    packet = packet.payload(&payload);
    if point.classes[3] == L4Class::LaterFragment.bit() {
        packet = packet.fragment(16, 24, false);
    }
    packet.build()
}

/// What the interpreter makes of a packet in a table.
pub(super) fn walk(
    policy: Policy<'_>,
    (table, hook): (TableId, Hook),
    point: &Point,
    speaker: &Speaker<'_>,
) -> Option<Fate> {
    let now = Nanos::from_secs(100);
    let frame = frame(point, speaker.space.family);
    let state = STATES.into_iter().find(|state| state.bit() == point.classes[2])?;
    let mut subject = Subject {
        packet: Packet::read(&frame)?,
        input: speaker.port(point.classes[0]).unwrap_or(""),
        output: speaker.port(point.classes[1]).unwrap_or(""),
        has_link_header: true,
        path_mtu: 1500,
        realms: Default::default(),
        mark: 0,
        tracked: Tracked { state, original: true, connection: None },
        template: None,
        now,
        utc_offset: Nanos(0),
        minutes_west: 0,
        dice: Default::default(),
        hook,
        cpu: 0,
        owner: None,
        priority: 0,
        network: None,
        conntrack: None,
    };
    let mut walker = Interpreter::new(policy.rules).with_sets(policy.sets, now);
    Some(match walker.table(table, hook, &mut subject, &mut |_| {}) {
        Verdict::Accept => Fate::Accept,
        Verdict::Drop(_) => Fate::Drop,
        Verdict::Reject(with) => Fate::reject(with),
        Verdict::Translate(nat) => Fate::Translate(format!("{nat:?}")),
        Verdict::Synproxy(_) => return None,
    })
}
