//! Matches on where a packet is and whose, in normal form.

use dataplane::packet::Family;
use dataplane::policy::matches::{Neg, Range};
use dataplane::policy::place::{
    AddrTypeMatch, DevGroupMatch, IpsecDirection, IpsecElement, IpsecMatch, Limit, OwnerMatch,
    PhysdevMatch, PlaceMatch, RealmMatch,
};

use super::{bang, push};
use crate::iptables::address::{format_address, format_mask};
use crate::iptables::matches::ADDRESS_KINDS;

pub(super) fn body(out: &mut String, found: &PlaceMatch, family: Family) {
    match found {
        PlaceMatch::AddrType(found) => address_type(out, *found),
        PlaceMatch::RpFilter(found) => {
            out.push_str(" -m rpfilter");
            let flags = [
                (found.loose, " --loose"),
                (found.valid_mark, " --validmark"),
                (found.accept_local, " --accept-local"),
                (found.invert, " --invert"),
            ];
            flags.iter().filter(|(given, _)| *given).for_each(|(_, text)| out.push_str(text));
        }
        PlaceMatch::DevGroup(found) => device_groups(out, *found),
        PlaceMatch::Realm(found) => realm(out, *found),
        PlaceMatch::Owner(found) => owner(out, *found),
        PlaceMatch::Physdev(found) => physdev(out, found),
        PlaceMatch::Ipsec(found) => ipsec(out, found, family),
    }
}

fn address_type(out: &mut String, found: AddrTypeMatch) {
    out.push_str(" -m addrtype");
    for (option, kinds) in [("--src-type", found.src), ("--dst-type", found.dst)] {
        let Some(Neg { negated, value }) = kinds else { continue };
        let names = ADDRESS_KINDS.iter().filter(|(_, bit)| value & bit != 0).map(|(name, _)| *name);
        let names: Vec<_> = names.collect();
        push(out, format_args!(" {}{option} {}", bang(negated), names.join(",")));
    }
    match found.limit {
        None => {}
        Some(Limit::Input) => out.push_str(" --limit-iface-in"),
        Some(Limit::Output) => out.push_str(" --limit-iface-out"),
    }
}

fn realm(out: &mut String, RealmMatch { value, mask, invert }: RealmMatch) {
    out.push_str(" -m realm");
    named(out, invert, "--realm", (value, mask), "cosmos");
}

fn device_groups(out: &mut String, found: DevGroupMatch) {
    out.push_str(" -m devgroup");
    for (option, asked) in [("--src-group", found.src), ("--dst-group", found.dst)] {
        if let Some(Neg { negated, value }) = asked {
            named(out, negated, option, value, "default");
        }
    }
}

/// A number and its mask. 0 has a name wherever iproute2 is installed, which the tools print.
fn named(out: &mut String, negated: bool, option: &str, found: (u32, u32), zero: &str) {
    let bang = bang(negated);
    match found {
        (0, u32::MAX) => push(out, format_args!(" {bang}{option} {zero}")),
        (value, u32::MAX) => push(out, format_args!(" {bang}{option} {value:#x}")),
        (value, mask) => push(out, format_args!(" {bang}{option} {value:#x}/{mask:#x}")),
    }
}

fn ipsec(out: &mut String, found: &IpsecMatch, family: Family) {
    out.push_str(match found.direction {
        IpsecDirection::In => " -m policy --dir in",
        IpsecDirection::Out => " -m policy --dir out",
    });
    out.push_str(if found.none { " --pol none" } else { " --pol ipsec" });
    out.push_str(if found.strict { " --strict" } else { "" });
    for (index, element) in found.elements.iter().enumerate() {
        out.push_str(if index > 0 { " --next" } else { "" });
        ipsec_element(out, element, family);
    }
}

fn ipsec_element(out: &mut String, element: &IpsecElement, family: Family) {
    if let Some(Neg { negated, value }) = element.reqid {
        push(out, format_args!(" {}--reqid {value}", bang(negated)));
    }
    if let Some(Neg { negated, value }) = element.spi {
        push(out, format_args!(" {}--spi 0x{value:x}", bang(negated)));
    }
    if let Some(Neg { negated, value }) = element.proto {
        let name = match value {
            50 => "esp",
            51 => "ah",
            _ => "ipcomp",
        };
        push(out, format_args!(" {}--proto {name}", bang(negated)));
    }
    if let Some(Neg { negated, value }) = element.tunnel {
        let name = if value { "tunnel" } else { "transport" };
        push(out, format_args!(" {}--mode {name}", bang(negated)));
    }
    for (option, end) in
        [("--tunnel-dst", element.tunnel_dst), ("--tunnel-src", element.tunnel_src)]
    {
        let Some(Neg { negated, value }) = end else { continue };
        let (address, mask) =
            (format_address(value.address, family), format_mask(value.mask, family));
        // A single host has no mask here.
        let mask = if mask == "/32" || mask == "/128" { String::new() } else { mask };
        push(out, format_args!(" {}{option} {address}{mask}", bang(negated)));
    }
}

fn physdev(out: &mut String, found: &PhysdevMatch) {
    out.push_str(" -m physdev");
    let flag = |out: &mut String, option: &str, asked: Option<bool>| {
        if let Some(negated) = asked {
            push(out, format_args!(" {}--physdev-is-{option}", bang(negated)));
        }
    };
    let name = |out: &mut String, option: &str, asked: &Option<Neg<Box<str>>>| {
        if let Some(Neg { negated, value }) = asked {
            push(out, format_args!(" {}--physdev-{option} {value}", bang(*negated)));
        }
    };
    flag(out, "in", found.is_in);
    name(out, "in", &found.input);
    flag(out, "out", found.is_out);
    name(out, "out", &found.output);
    flag(out, "bridged", found.is_bridged);
}

fn owner(out: &mut String, found: OwnerMatch) {
    out.push_str(" -m owner");
    if let Some(negated) = found.socket {
        push(out, format_args!(" {}--socket-exists", bang(negated)));
    }
    for (option, asked) in [("--uid-owner", found.uid), ("--gid-owner", found.gid)] {
        let Some(Neg { negated, value: Range { low, high } }) = asked else { continue };
        push(out, format_args!(" {}{option} {low}", bang(negated)));
        if low != high {
            push(out, format_args!("-{high}"));
        }
    }
    if found.supplementary {
        out.push_str(" --suppl-groups");
    }
}
