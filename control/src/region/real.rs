//! Which packets there are: what a header can say, and what packets have at a hook.

use std::collections::BTreeSet;

use dataplane::packet::{Family, L4Class, MAX_PORTS, PortId};
use dataplane::policy::{Hook, NO_INTERFACE, TableId, state_class};
use dataplane::wire::proto;

use super::{Bytes, Ranges, Region, Space};
use crate::model::{Interface, MetaSpec, Ruleset, TargetSpec};

/// Names that end so stand for all interfaces that begin like them and that no rule names
/// better; alone it stands for all others.
const LIKE: char = '*';

/// Interfaces that stand for all there may be: each that rules name, and one for each prefix that they
/// name, the empty one included. `None`: there are more than ports may be.
pub fn ports<'r>(rules: impl IntoIterator<Item = &'r Ruleset>) -> Option<Vec<String>> {
    let mut ports = BTreeSet::from([LIKE.to_string()]);
    for ruleset in rules {
        let chains = ruleset.tables.iter().flat_map(|table| &table.chains);
        for rule in chains.flat_map(|chain| &chain.rules) {
            for (Interface { name, prefix }, _) in [&rule.input, &rule.output].into_iter().flatten()
            {
                ports.insert(if *prefix { format!("{name}{LIKE}") } else { name.clone() });
            }
            if let TargetSpec::Meta(MetaSpec::Tee { output: Some(output), .. }) = &rule.target {
                ports.insert(output.to_string());
            }
        }
    }
    ports.remove("");
    ports.remove("lo");
    (ports.len() <= MAX_PORTS).then(|| ports.into_iter().collect())
}

/// The one of [`ports`] that stands for an interface.
#[cfg(test)]
pub(crate) fn stands_for(ports: &[String], name: &str) -> usize {
    let like = |port: &String| port.strip_suffix(LIKE).is_some_and(|it| name.starts_with(it));
    let exact = ports.iter().position(|port| port == name);
    let best = || (0..ports.len()).filter(|at| like(&ports[*at])).max_by_key(|at| ports[*at].len());
    exact.or_else(best).expect("one stands for all others")
}

/// What there is: ports, loopback, packets without an interface, all states.
pub fn space(family: Family, ports: usize) -> Space {
    let ports = (0..ports.min(MAX_PORTS)).map(|at| PortId(at as u8).bit()).sum::<u64>();
    let interfaces = ports | PortId::LOOPBACK.bit() | NO_INTERFACE;
    let states = state_class::INVALID
        | state_class::NEW
        | state_class::ESTABLISHED
        | state_class::RELATED
        | state_class::UNTRACKED;
    let whole = L4Class::Whole.bit() | L4Class::LaterFragment.bit();
    Space { family, classes: [interfaces, interfaces, states, whole] }
}

/// What enters a built-in chain: which interfaces a packet has at its hook.
pub fn at_hook(hook: Hook, space: &Space) -> Region {
    let mut region = Region::all(space);
    let (arrived, leaves) = match hook {
        Hook::Prerouting | Hook::Input => (true, false),
        Hook::Forward => (true, true),
        Hook::Output | Hook::Postrouting => (false, true),
    };
    for (at, there) in [arrived, leaves].into_iter().enumerate() {
        region.classes[at] &= if there { !NO_INTERFACE } else { NO_INTERFACE };
    }
    region
}

/// The same, for one table: raw stands before tracking, nat sees what begins connections.
pub fn at_table(table: TableId, hook: Hook, space: &Space) -> Region {
    let mut region = at_hook(hook, space);
    region.classes[2] &= match table {
        TableId::Raw => state_class::INVALID,
        TableId::Nat => state_class::NEW | state_class::RELATED,
        _ => u64::MAX,
    };
    region
}

/// The packets that there can be, as regions that do not meet: only some protocols have ports,
/// only TCP has flags, later fragments have neither.
pub fn real(space: &Space) -> Vec<Region> {
    const PORTS: [u8; 4] = [proto::UDP, proto::UDPLITE, proto::SCTP, proto::DCCP];
    let icmp = match space.family {
        Family::V4 => proto::ICMP,
        Family::V6 => proto::ICMPV6,
    };
    let (none, no_flags) = (Ranges::of(0, 0), Bytes::of(|it| it == 0));
    let mut all = Region::all(space);
    all.flags = no_flags;
    let fragment = Region {
        sport: none.clone(),
        dport: none.clone(),
        classes: with_layer4(space, L4Class::LaterFragment),
        ..all.clone()
    };
    all.classes = with_layer4(space, L4Class::Whole);
    let tcp = Region { proto: Bytes::of(|it| it == proto::TCP), flags: Bytes::ALL, ..all.clone() };
    let ports = Region { proto: Bytes::of(|it| PORTS.contains(&it)), ..all.clone() };
    let bytes = Ranges::all(8);
    let icmps = Region {
        proto: Bytes::of(|it| it == icmp),
        sport: bytes.clone(),
        dport: bytes,
        ..all.clone()
    };
    let has_fields = |it: u8| it == proto::TCP || it == icmp || PORTS.contains(&it);
    let others =
        Region { proto: Bytes::of(|it| !has_fields(it)), sport: none.clone(), dport: none, ..all };
    vec![tcp, ports, icmps, others, fragment]
}

fn with_layer4(space: &Space, class: L4Class) -> [u64; 4] {
    let [input, output, state, _] = space.classes;
    [input, output, state, class.bit()]
}
