//! Matches on where a packet is and whose.

use dataplane::fib::{Network, Query, RouteKind};
use dataplane::packet::{Family, PortId};
use dataplane::policy::matches::{Neg, Range};
use dataplane::policy::place::{
    AddrTypeMatch, Limit, OwnerMatch, PhysdevMatch, PlaceMatch, RpFilterMatch, address_type as kind,
};

use super::matching::{At, Compared};
use super::{Actual, Subject};

pub(super) fn compare(at: At, wanted: &PlaceMatch, subject: &Subject<'_>) -> Compared {
    let nothing;
    let network = match subject.network {
        Some(network) => network,
        None => {
            nothing = Network::default();
            &nothing
        }
    };
    match wanted {
        PlaceMatch::AddrType(wanted) => address_type(at, wanted, subject, network),
        PlaceMatch::RpFilter(wanted) => reverse_path(at, wanted, subject, network),
        PlaceMatch::DevGroup(wanted) => {
            let group = |name: &str| match network.ports().iter().find(|port| port.name == name) {
                Some(port) => port.device_group,
                None => 0,
            };
            let (from, to) = (group(subject.input), group(subject.output));
            let of = |group: u32| move |(value, mask): &(u32, u32)| group & mask == value & mask;
            at.operand(&wanted.src, of(from), "--src-group", Actual::Bits(from))?;
            at.operand(&wanted.dst, of(to), "--dst-group", Actual::Bits(to))
        }
        PlaceMatch::Realm(wanted) => {
            let holds = subject.realms.0 & wanted.mask == wanted.value;
            at.need(holds != wanted.invert, "--realm", Actual::Bits(subject.realms.0))
        }
        PlaceMatch::Owner(wanted) => owner(at, wanted, subject),
        PlaceMatch::Physdev(wanted) => bridge_ports(at, wanted),
        PlaceMatch::Ipsec(wanted) => at.need(wanted.none, "--pol", Actual::State("none")),
    }
}

/// The port, or loopback, of that name.
fn device(network: &Network, name: &str) -> Option<PortId> {
    match name {
        "" => None,
        "lo" => Some(PortId::LOOPBACK),
        name => network.port_named(name),
    }
}

fn address_type(
    at: At,
    wanted: &AddrTypeMatch,
    subject: &Subject<'_>,
    network: &Network,
) -> Compared {
    let on = match wanted.limit {
        None => None,
        Some(Limit::Input) => device(network, subject.input),
        Some(Limit::Output) => device(network, subject.output),
    };
    let packet = &subject.packet;
    let side = |kinds: &Option<Neg<u16>>, address: u128, option| {
        let (found, actual) = match packet.family {
            Family::V4 => {
                let (found, name) = kind_v4(network, address as u32, on);
                (found, Actual::State(name))
            }
            Family::V6 => (kinds_v6(network, address, on), Actual::Address(address)),
        };
        let holds = |wanted: &u16| match packet.family {
            Family::V4 => wanted & found != 0,
            // The address must be all that is asked of itself; its route, any.
            Family::V6 => {
                let itself = wanted & (kind::UNSPEC | kind::UNICAST | kind::MULTICAST);
                let routed = wanted & (kind::LOCAL | kind::ANYCAST | kind::UNREACHABLE);
                found & itself == itself && (routed == 0 || routed & found != 0)
            }
        };
        at.operand(kinds, holds, option, actual)
    };
    side(&wanted.src, packet.src, "--src-type")?;
    side(&wanted.dst, packet.dst, "--dst-type")
}

fn kind_v4(network: &Network, address: u32, on: Option<PortId>) -> (u16, &'static str) {
    let [first, ..] = address.to_be_bytes();
    if address == 0 || address == u32::MAX {
        return (kind::BROADCAST, "BROADCAST");
    }
    if (224..240).contains(&first) {
        return (kind::MULTICAST, "MULTICAST");
    }
    let listed = network.kind_v4(u128::from(address), on);
    match listed {
        Some((RouteKind::Broadcast, _)) => (kind::BROADCAST, "BROADCAST"),
        Some((RouteKind::Local, true)) => (kind::ANYCAST, "ANYCAST"),
        Some((RouteKind::Local, false)) => (kind::LOCAL, "LOCAL"),
        Some(_) | None => (kind::UNICAST, "UNICAST"),
    }
}

/// Everything that is true of an IPv6 address.
fn kinds_v6(network: &Network, address: u128, on: Option<PortId>) -> u16 {
    let words = words(address);
    let itself = by_form(words);
    let routed = match on {
        Some(port) if network.is_own_of_device(address, port) => kind::LOCAL,
        Some(_) => 0,
        None => {
            let found = network.kind_v6(address);
            let bit = |holds: bool, bit: u16| if holds { bit } else { 0 };
            bit(found.local, kind::LOCAL)
                | bit(found.anycast, kind::ANYCAST)
                | bit(found.unreachable, kind::UNREACHABLE)
        }
    };
    itself | routed
}

fn words(address: u128) -> [u16; 8] {
    std::array::from_fn(|at| (address >> (112 - 16 * at)) as u16)
}

fn by_form(words: [u16; 8]) -> u16 {
    match words {
        [0, 0, 0, 0, 0, 0, 0, 0] => kind::UNSPEC,
        [0, 0, 0, 0, 0, 0xffff, ..] => 0,
        [first, ..] if first >= 0xff00 => kind::MULTICAST,
        _ => kind::UNICAST,
    }
}

/// The route to the source must lead back to where the packet came in.
fn reverse_path(
    at: At,
    wanted: &RpFilterMatch,
    subject: &Subject<'_>,
    network: &Network,
) -> Compared {
    let packet = &subject.packet;
    let exempt = subject.input == "lo" || subject.input.is_empty() || asks_around(subject);
    let option = if wanted.invert { "--invert" } else { "rpfilter" };
    if exempt {
        return at.need(!wanted.invert, option, Actual::State("no source to look for"));
    }
    let port = network.port_named(subject.input);
    let one_host = match packet.family {
        Family::V4 => {
            kind_v4(network, packet.dst as u32, None).0 != kind::MULTICAST
                && packet.dst != 0
                && packet.dst as u32 != u32::MAX
        }
        Family::V6 => by_form(words(packet.dst)) == kind::UNICAST,
    };
    let scoped = packet.family == Family::V6 && words(packet.src)[0] & 0xffc0 == 0xfe80;
    let query = Query {
        family: packet.family,
        src: if one_host { packet.dst } else { 0 },
        dst: packet.src,
        iif: port.filter(|_| scoped),
        mark: if wanted.valid_mark { subject.mark } else { 0 },
    };
    let route = if scoped { network.route(&query) } else { network.listed_route(&query) };
    let (found, name) = match route {
        None => (false, "no way back"),
        Some(route) => {
            let here = port.is_some_and(|port| route.devices >> port.0 & 1 != 0);
            match route.kind {
                _ if route.anycast => (false, "an anycast source"),
                RouteKind::Local => (
                    wanted.accept_local && (packet.family == Family::V6 || wanted.loose || here),
                    "a source of this machine",
                ),
                RouteKind::Unicast(_) | RouteKind::Foreign => {
                    (wanted.loose || here, if here { "a way back" } else { "another way back" })
                }
                _ => (false, "no way back"),
            }
        }
    };
    at.need(found != wanted.invert, option, Actual::State(name))
}

/// Without a source address, to everybody or to the link (IPv6: to anybody).
fn asks_around(subject: &Subject<'_>) -> bool {
    let packet = &subject.packet;
    let [first, second, third, _] = (packet.dst as u32).to_be_bytes();
    packet.src == 0
        && (packet.family == Family::V6
            || packet.dst as u32 == u32::MAX
            || [first, second, third] == [224, 0, 0])
}

/// No packet passes a bridge of the kernel's: whatever is asked must be negated.
fn bridge_ports(at: At, wanted: &PhysdevMatch) -> Compared {
    let not_bridged = Actual::State("not bridged");
    for (option, asked) in [
        ("--physdev-is-in", wanted.is_in),
        ("--physdev-is-out", wanted.is_out),
        ("--physdev-is-bridged", wanted.is_bridged),
        ("--physdev-in", wanted.input.as_ref().map(|name| name.negated)),
        ("--physdev-out", wanted.output.as_ref().map(|name| name.negated)),
    ] {
        if let Some(negated) = asked {
            at.need(negated, option, not_bridged)?;
        }
    }
    Ok(())
}

/// Whose socket sent it. Without a socket everything that is asked for must be asked the
/// other way round.
fn owner(at: At, wanted: &OwnerMatch, subject: &Subject<'_>) -> Compared {
    if let Some(negated) = wanted.socket {
        let option = "--socket-exists";
        at.need(subject.owner.is_some() != negated, option, Actual::State("no socket"))?;
    }
    let number = |id: Option<u32>| id.map_or(Actual::State("no owner"), Actual::Number);
    let in_range = |range: Range<u32>, id: u32| range.low <= id && id <= range.high;
    if let Some(Neg { negated, value }) = wanted.uid {
        let user = subject.owner.map(|owner| owner.uid);
        let holds = user.is_some_and(|user| in_range(value, user));
        at.need(holds != negated, "--uid-owner", number(user))?;
    }
    if let Some(Neg { negated, value }) = wanted.gid {
        let group = subject.owner.and_then(|owner| owner.gid);
        let mut groups: Vec<u32> = group.into_iter().collect();
        if wanted.supplementary {
            let others = subject.owner.and_then(|owner| owner.groups);
            groups.extend(others.unwrap_or_default());
        }
        let holds = groups.into_iter().any(|group| in_range(value, group));
        at.need(holds != negated, "--gid-owner", number(group))?;
    }
    if wanted.supplementary && subject.owner.is_none() {
        at.need(false, "--suppl-groups", Actual::State("no owner"))?;
    }
    Ok(())
}
