//! The ways that beginnings of connections take through all tables, and where they end.

use std::collections::BTreeMap;

use dataplane::packet::PortId;
use dataplane::packet::{Family, L4Class};
use dataplane::policy::target::{NatRange, NatTarget};
use dataplane::policy::{Hook, NO_INTERFACE, TableId, state_class};
use dataplane::wire::proto;

use super::flow::{Flow, Via, join};
use super::{Bounds, Road};
use crate::model::expiry::NEVER;
use crate::model::{Ruleset, TargetSpec};
use crate::region::{
    Atoms, Bytes, Carried, Decider, Effort, Fate, Leaf, Lost, Ranges, Region, Side, Space, Ways,
    real, written,
};

/// TCP's SYN.
const SYN: u8 = 0x02;

/// Who lets packets through, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct By {
    /// In filter; none where no such chain is. For denials: whoever denies.
    pub(super) filter: Option<Decider>,
    /// Who translates.
    pub(super) nat: Option<Decider>,
}

/// What becomes of beginnings of connections.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What is let through, by who does it.
    pub(super) through: BTreeMap<(Road, By), Vec<Flow>>,
    /// What is denied, by who does it; some of it.
    pub(super) denied: BTreeMap<(Road, TableId, Decider), (Fate, Vec<Flow>)>,
    /// Where the effort was not enough.
    pub(super) unfinished: Vec<String>,
    /// What could not be followed.
    pub(super) unknown: Vec<String>,
}

/// Flows that are kept of each denial.
const DENIED: usize = 8;

#[derive(Clone, Debug)]
struct Packets {
    flow: Flow,
    carried: Carried,
    by: By,
}

/// Follows beginnings of connections through one side.
pub(super) struct Search<'s> {
    pub(super) space: &'s Space,
    pub(super) ports: &'s [String],
    pub(super) side: &'s Side,
    pub(super) rules: &'s Ruleset,
    pub(super) local: Option<&'s Ranges>,
    pub(super) bounds: Bounds,
    pub(super) atoms: &'s mut Atoms,
    pub(super) ways: &'s mut Ways,
    pub(super) effort: &'s mut Effort,
    pub(super) told: &'s mut dyn FnMut(u64),
    pub(super) found: Found,
}

impl Search<'_> {
    /// Follows all there are.
    pub(super) fn run(mut self) -> Found {
        let mut arrived = Vec::new();
        for region in self.beginnings() {
            let flow = Flow { region, via: None };
            let by = By { filter: None, nat: None };
            arrived.push(Packets { flow, carried: Carried::NOTHING, by });
        }
        // Whether a packet is forwarded is only known behind this hook: what it denies is
        // denied on both roads.
        let both = Road::Input;
        let raw = self.table(both, (TableId::Raw, Hook::Prerouting), arrived);
        let tracked: Vec<Packets> = raw.into_iter().map(|it| self.tracked(it)).collect();
        let mangled = self.table(both, (TableId::Mangle, Hook::Prerouting), tracked);
        let routed = self.table(both, (TableId::Nat, Hook::Prerouting), mangled);
        for road in [Road::Input, Road::Forward] {
            let mut on: Vec<Packets> =
                routed.iter().filter_map(|it| self.on_road(it, road)).collect();
            let hook = road.hook();
            for table in [TableId::Mangle, TableId::Filter, TableId::Security] {
                on = self.table(road, (table, hook), on);
            }
            if road == Road::Forward {
                on = self.table(road, (TableId::Mangle, Hook::Postrouting), on);
            }
            for Packets { flow, by, .. } in on {
                self.found.through.entry((road, by)).or_default().push(flow);
            }
        }
        for flows in self.found.through.values_mut() {
            *flows = join(std::mem::take(flows));
        }
        self.found
    }

    /// First packets, from outside: a SYN of TCP, requests of ICMP.
    fn beginnings(&self) -> Vec<Region> {
        let kinds: &[u8] = match self.space.family {
            Family::V4 => &[8, 13, 15, 17],
            Family::V6 => &[128, 139],
        };
        let mut outside = self.space.classes[0] & !NO_INTERFACE & !PortId::LOOPBACK.bit();
        for (at, _) in self.ports.iter().enumerate().filter(|(_, name)| *name == NEVER) {
            outside &= !PortId(at as u8).bit();
        }
        let requests =
            Ranges::union(kinds.iter().map(|it| (u128::from(*it), u128::from(*it))).collect());
        let whole = real(self.space).into_iter().filter(|it| it.classes[3] == L4Class::Whole.bit());
        let first = whole.map(|mut region| {
            region.classes = [outside, NO_INTERFACE, state_class::NEW, region.classes[3]];
            if region.proto.contains(proto::TCP) {
                region.flags = Bytes::of(|it| it == SYN);
            }
            let icmp = if self.space.family == Family::V4 { proto::ICMP } else { proto::ICMPV6 };
            if region.proto.contains(icmp) {
                region.sport = requests.clone();
            }
            region
        });
        first.collect()
    }

    /// What is through a table.
    fn table(&mut self, road: Road, place: (TableId, Hook), packets: Vec<Packets>) -> Vec<Packets> {
        let (table, hook) = place;
        let mut through = Vec::new();
        for (at, packets) in packets.iter().enumerate() {
            (self.told)(100 - self.effort.0 * 100 / self.bounds.effort.max(1));
            if table == TableId::Nat && packets.flow.region.classes[2] != state_class::NEW {
                through.push(packets.clone());
                continue;
            }
            let shown = shown(&packets.flow.region, place);
            let start = (shown, packets.carried);
            let leaves = self.ways.follow_on(self.side, place, start, self.atoms, self.effort);
            let Some(leaves) = leaves.filter(|_| through.len() + at < self.bounds.flows) else {
                let place = format!("{} {}", table.name(), hook.chain_name());
                if !self.found.unfinished.contains(&place) {
                    self.found.unfinished.push(place);
                }
                continue;
            };
            for leaf in leaves {
                self.leaf(road, place, packets, leaf, &mut through);
            }
        }
        through
    }

    fn leaf(
        &mut self,
        road: Road,
        (table, hook): (TableId, Hook),
        before: &Packets,
        leaf: Leaf,
        through: &mut Vec<Packets>,
    ) {
        let carried = leaf.carried();
        let Leaf { region, fate, decider, .. } = leaf;
        let mut on = Packets { carried, ..before.clone() };
        // What the table was not shown is as it was.
        let classes = before.flow.region.classes;
        on.flow.region = region;
        match (table, hook) {
            (TableId::Raw, _) => on.flow.region.classes[2] = classes[2],
            (_, Hook::Postrouting) => on.flow.region.classes[0] = classes[0],
            _ => {}
        }
        match fate {
            Fate::Accept => {
                if table == TableId::Filter {
                    on.by.filter = decider;
                }
                through.push(on);
            }
            Fate::Translate(_) => {
                on.by.nat = decider;
                through.extend(self.translated(on, decider));
            }
            Fate::Drop | Fate::Reject(_) => {
                let Some(decider) = decider else { return };
                let denied = self.found.denied.entry((road, table, decider));
                let (_, flows) = denied.or_insert_with(|| (fate, Vec::new()));
                if flows.len() < DENIED {
                    flows.push(on.flow);
                }
            }
            Fate::Unknown(why) => {
                let chain = decider.and_then(|it| written(self.rules).nth(it.chain.0 as usize));
                let chain = chain.map_or("?", |it| it.1.name.as_str());
                let at = decider.and_then(|it| it.rule).map_or(0, |it| it + 1);
                let words = format!("{} {chain} rule {at}: packets behind {why}", table.name());
                if !self.found.unknown.contains(&words) {
                    self.found.unknown.push(words);
                }
            }
        }
    }

    /// Behind raw, packets have a state.
    fn tracked(&self, mut packets: Packets) -> Packets {
        if packets.carried.lost == Lost::State {
            // The first CT of a packet decides.
            let words = self.ways.told(packets.carried.changes);
            let first = words.iter().find(|it| it.starts_with("Ct("));
            if first.is_some_and(|it| it.contains("notrack: true")) {
                packets.flow.region.classes[2] = state_class::UNTRACKED;
            }
            packets.carried.lost = Lost::Nothing;
        }
        packets
    }

    /// Behind a translation.
    fn translated(&mut self, mut packets: Packets, decider: Option<Decider>) -> Option<Packets> {
        let Decider { chain, rule } = decider?;
        let chain = written(self.rules).nth(chain.0 as usize)?.1;
        let target = &chain.rules.get(rule? as usize)?.target;
        let TargetSpec::Nat(nat) = target else { return None };
        let Packets { flow: Flow { region, via }, carried, .. } = &mut packets;
        *via = Some(Via { dst: region.dst.clone(), dport: region.dport.clone() });
        let all = Ranges::all(self.space.address_bits());
        match nat {
            NatTarget::Dnat(range) => become_range(region, range),
            NatTarget::Redirect(range) => {
                become_range(region, &NatRange { addresses: None, ..*range });
                region.dst = all;
            }
            NatTarget::Netmap(to) => {
                let bits = self.space.address_bits();
                // Of a network of any size the same part of another, at most all of it.
                let whole = Ranges::masked(to.address, to.mask, bits);
                region.dst = whole.unwrap_or(all);
            }
            NatTarget::Snat(_) | NatTarget::Masquerade(_) => *via = None,
        }
        let words = format!("{nat:?}");
        carried.changes = self.ways.changed(carried.changes, &words);
        Some(packets)
    }

    /// What of packets takes a road; to where is not asked, unless this machine's addresses
    /// are told.
    fn on_road(&self, packets: &Packets, road: Road) -> Option<Packets> {
        let mut packets = packets.clone();
        let redirected = packets.by.nat.is_some_and(|by| {
            let chain = written(self.rules).nth(by.chain.0 as usize);
            let rule = chain.and_then(|(_, chain)| chain.rules.get(by.rule? as usize));
            rule.is_some_and(|it| matches!(it.target, TargetSpec::Nat(NatTarget::Redirect(_))))
        });
        let region = &mut packets.flow.region;
        match (road, self.local) {
            (Road::Input, Some(local)) if !redirected => region.dst = region.dst.and(local),
            (Road::Input, _) => {}
            (Road::Forward, _) if redirected => return None,
            (Road::Forward, None) if region.dst.within(&loopback(self.space.family)) => {
                return None;
            }
            (Road::Forward, local) => {
                if let Some(local) = local {
                    region.dst = region.dst.minus(local);
                }
                let ports = self.space.classes[1] & !NO_INTERFACE & !PortId::LOOPBACK.bit();
                region.classes[1] = ports;
                for (at, _) in self.ports.iter().enumerate().filter(|(_, name)| *name == NEVER) {
                    region.classes[1] &= !PortId(at as u8).bit();
                }
            }
        }
        (!region.is_empty()).then_some(packets)
    }
}

/// A packet as a table sees it: raw stands before tracking, and nobody behind routing asks
/// where a packet came from.
fn shown(region: &Region, (table, hook): (TableId, Hook)) -> Region {
    let mut region = region.clone();
    if table == TableId::Raw {
        region.classes[2] = state_class::INVALID;
    }
    if hook == Hook::Postrouting {
        region.classes[0] = NO_INTERFACE;
    }
    region
}

fn become_range(region: &mut Region, range: &NatRange) {
    if let Some(addresses) = range.addresses {
        region.dst = Ranges::of(addresses.low, addresses.high);
    }
    if let Some(ports) = range.ports {
        region.dport = Ranges::of(ports.low.into(), ports.high.into());
    }
}

fn loopback(family: Family) -> Ranges {
    match family {
        Family::V4 => Ranges::of(0x7f00_0000, 0x7fff_ffff),
        Family::V6 => Ranges::of(1, 1),
    }
}
