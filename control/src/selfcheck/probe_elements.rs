//! What the twin's sets hold during the self-check: of every set, what the first probe of a
//! rule is by its source (or from there to its destination). Without it, every rule that
//! names a set would be compared where nothing matches. Probes of such rules go the other
//! way round, too ([`super::probes`]), so that each side is met.

use arrayvec::ArrayString;
use dataplane::packet::Family;
use dataplane::sets::{Element, Extras, Iface, Part, Registry, SetType};
use dataplane::wire::build::ETH_SRC;
use dataplane::wire::proto;

use super::NOW;
use super::probes::{DST, PORT, SRC, default_address};

/// Bits of an address that networks leave open.
const HOST_BITS: u8 = 4;

/// Puts it where the type, the range and the size allow.
pub(super) fn fill(sets: &Registry, ports: &[String]) {
    let iface = ports.first().and_then(|name| ArrayString::from(name).ok());
    for slot in sets.list() {
        let spec = *slot.load().spec();
        if spec.kind == SetType::ListSet {
            continue;
        }
        // For ever: what is left of a time would be rounded.
        let extras = Extras { timeout_s: spec.timeout.map(|_| 0), ..Extras::default() };
        // A set that cannot hold it is compared without.
        let _ = sets.add(&slot, &element(spec.kind, spec.family, iface), &extras, true, NOW);
    }
}

fn element(kind: SetType, family: Family, iface: Option<ArrayString<15>>) -> Element {
    let bits = if family == Family::V4 { 32 } else { 128 };
    let addresses = kind.parts().iter().filter(|part| matches!(part, Part::Ip | Part::Net));
    let nets: Vec<bool> = addresses.map(|part| *part == Part::Net).collect();
    let ip = |at: usize, low| if at < nets.len() { default_address(family, low) } else { 0 };
    let cidr = |at: usize| (nets.get(at) == Some(&true)).then_some(bits - HOST_BITS);
    Element {
        ip: ip(0, SRC),
        cidr: cidr(0),
        ip2: ip(1, DST),
        cidr2: cidr(1),
        proto: proto::UDP,
        port: PORT,
        mac: kind.parts().contains(&Part::Mac).then_some(ETH_SRC.0),
        iface: iface.map(|name| Iface { name, physdev: false, wildcard: false }),
        ..Element::default()
    }
}
