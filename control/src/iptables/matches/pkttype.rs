//! `-m pkttype`.

use dataplane::packet::PktType;
use dataplane::policy::matches::Match;

use super::one::Kind;
use crate::iptables::extension::negatable;
use crate::model::MatchBody;

const NAMES: &[(&str, PktType)] = &[
    ("unicast", PktType::Host),
    ("host", PktType::Host),
    ("broadcast", PktType::Broadcast),
    ("bcast", PktType::Broadcast),
    ("multicast", PktType::Multicast),
    ("mcast", PktType::Multicast),
    ("otherhost", PktType::OtherHost),
];

pub(super) const PKTTYPE: Kind<PktType> = Kind {
    name: "pkttype",
    options: &[negatable("pkt-type", 0)],
    option: "--pkt-type",
    protocol: None,
    read: |operand, _| {
        let found = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(operand.text));
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            operand
                .bad(format!("`{}' is no packet type", operand.text))
                .remedy("the types are unicast broadcast multicast otherhost")
        })
    },
    made: |kind| MatchBody::Plain(Match::PktType(kind)),
};
