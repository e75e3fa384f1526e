//! Which connections are meant.

use std::net::IpAddr;

use dataplane::conntrack::{ConnView, status};
use dataplane::packet::Family;
use dataplane::wire::proto;

use crate::api::protocol::{
    AddressFilter, ConntrackFilter, FamilyName, MarkFilter, NatEnd, NatFilter, StatusName,
};

/// Whether everything that the filter asks for holds. `labels` is asked only when
/// the filter names some.
pub fn matches(
    filter: &ConntrackFilter,
    view: &ConnView,
    state: Option<&str>,
    labels: impl FnOnce() -> u128,
) -> bool {
    let (original, reply) = (&view.original, &view.reply);
    let family = match original.family {
        Family::V4 => FamilyName::V4,
        Family::V6 => FamilyName::V6,
    };
    let address = |wanted: Option<AddressFilter>, actual: u128| {
        wanted.is_none_or(|wanted| covers(&wanted, original.family, actual))
    };
    let is_icmp = matches!(original.proto, proto::ICMP | proto::ICMPV6);
    let [kind, code] = original.dport.to_be_bytes();
    let icmp =
        |wanted: Option<u16>, actual: u16| wanted.is_none_or(|wanted| is_icmp && wanted == actual);
    same(filter.family, family)
        && same(filter.proto, original.proto)
        && address(filter.src, original.src)
        && address(filter.dst, original.dst)
        && address(filter.reply_src, reply.src)
        && address(filter.reply_dst, reply.dst)
        && same(filter.sport, original.sport)
        && same(filter.dport, original.dport)
        && same(filter.reply_sport, reply.sport)
        && same(filter.reply_dport, reply.dport)
        && icmp(filter.icmp_type.map(u16::from), u16::from(kind))
        && icmp(filter.icmp_code.map(u16::from), u16::from(code))
        && icmp(filter.icmp_id, original.sport)
        && filter.state.as_deref().is_none_or(|wanted| state == Some(wanted))
        && filter.mark.is_none_or(|MarkFilter { value, mask }| view.mark & mask == value)
        && filter.status.iter().all(|name| has_status(*name, view.status))
        && zones(filter, original.zone, reply.zone)
        && filter.nat.is_none_or(|wanted| is_translated(&wanted, view))
        && (filter.labels.is_empty() || {
            let labels = labels();
            filter
                .labels
                .iter()
                .all(|&bit| labels.checked_shr(u32::from(bit)).unwrap_or(0) & 1 != 0)
        })
}

fn same<T: PartialEq>(wanted: Option<T>, actual: T) -> bool {
    wanted.is_none_or(|wanted| wanted == actual)
}

fn bits(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(address) => (Family::V4, u128::from(u32::from(address))),
        IpAddr::V6(address) => (Family::V6, u128::from(address)),
    }
}

fn covers(wanted: &AddressFilter, family: Family, actual: u128) -> bool {
    let ((wanted_family, address), (mask_family, mask)) = (bits(wanted.address), bits(wanted.mask));
    wanted_family == family && mask_family == family && (address ^ actual) & mask == 0
}

/// The bits that a name stands for, and whether they are to be set.
pub(super) const fn status_bits(name: StatusName) -> (u32, bool) {
    match name {
        StatusName::Expected => (status::EXPECTED, true),
        StatusName::SeenReply => (status::SEEN_REPLY, true),
        StatusName::Unreplied => (status::SEEN_REPLY, false),
        StatusName::Assured => (status::ASSURED, true),
        StatusName::FixedTimeout => (status::FIXED_TIMEOUT, true),
        StatusName::SrcNat => (status::SRC_NAT, true),
        StatusName::DstNat => (status::DST_NAT, true),
        StatusName::SeqAdjust => (status::SEQ_ADJUST, true),
        StatusName::Helper => (status::HELPER, true),
    }
}

fn has_status(name: StatusName, actual: u32) -> bool {
    let (bit, set) = status_bits(name);
    (actual & bit != 0) == set
}

/// A zone of both directions is one thing to the tool, and that of one direction another.
fn zones(filter: &ConntrackFilter, original: u16, reply: u16) -> bool {
    let (both, original, reply) =
        if original == reply { (original, 0, 0) } else { (0, original, reply) };
    same(filter.zone, both) && same(filter.orig_zone, original) && same(filter.reply_zone, reply)
}

fn is_translated(wanted: &NatFilter, view: &ConnView) -> bool {
    let (original, reply) = (&view.original, &view.reply);
    let Some(plain) = original.inverted() else { return false };
    let to =
        |actual: u128| wanted.to.is_none_or(|wanted| bits(wanted) == (original.family, actual));
    // An ICMP identifier is the source's; it lies where the source port of a reply does.
    let identifier = matches!(original.proto, proto::ICMP | proto::ICMPV6);
    let moved = if identifier { reply.sport != plain.sport } else { reply.dport != plain.dport };
    let source = (reply.dst != plain.dst || moved) && to(reply.dst);
    let moved = !identifier && reply.sport != plain.sport;
    let destination = (reply.src != plain.src || moved) && to(reply.src);
    match wanted.which {
        NatEnd::Source => source,
        NatEnd::Destination => destination,
        NatEnd::Any => source || destination,
    }
}
