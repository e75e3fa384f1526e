//! Translations and what the filter table makes of their packets, followed by set algebra.

use std::sync::Arc;

use classifier::Address;
use dataplane::packet::L4Class;
use dataplane::policy::target::{NatRange, NatTarget};
use dataplane::policy::{ChainId, FamilyPolicy, Hook, NO_INTERFACE, TableId, state_class};
use dataplane::wire::proto;

use crate::diagnostics::{Code, Finding, Severity};
use crate::iptables::{TableNames, rule_text};
use crate::model::{Rule, Ruleset, TargetSpec};
use crate::region::{
    Atoms, Bytes, Effort, Fate, Leaf, Ranges, Region, Side, Space, Ways, at_table, real, written,
};

/// Pairs of regions compared for one question.
const EFFORT: u64 = 5_000_000;
/// And for all of a file.
const EFFORT_IN_ALL: u64 = 60_000_000;
/// Most regions of one rule that are followed.
const REGIONS: usize = 64;

/// What is wrong with translations; and how many questions could not be decided.
pub(super) fn findings<A: Address>(
    policy: &FamilyPolicy<A>,
    rules: &Ruleset,
    space: &Space,
    file: &Arc<str>,
) -> (Vec<Finding>, u32) {
    let nat = written(rules).any(|(table, chain)| {
        table == TableId::Nat
            && chain.rules.iter().any(|rule| matches!(rule.target, TargetSpec::Nat(_)))
    });
    if !nat {
        return (Vec::new(), 0);
    }
    let names = TableNames::well_known();
    let text = |rule| rule_text(rule, rules.family, &names);
    let texts: Vec<Vec<String>> =
        written(rules).map(|(_, chain)| chain.rules.iter().map(text).collect()).collect();
    let mut atoms = Atoms::default();
    let side = Side::read(policy, rules, &texts, space, &mut atoms, &|_| None);
    let mut roads = Roads {
        side,
        rules,
        space,
        file,
        atoms,
        ways: Ways::default(),
        effort: Effort(EFFORT_IN_ALL),
        found: Vec::new(),
        undecided: 0,
    };
    roads.invalid();
    for (id, (table, chain)) in written(rules).enumerate() {
        if table != TableId::Nat {
            continue;
        }
        for (at, rule) in chain.rules.iter().enumerate() {
            if let TargetSpec::Nat(nat) = &rule.target {
                roads.translation(ChainId(id as u32), at, rule, nat);
            }
        }
    }
    (roads.found, roads.undecided)
}

struct Roads<'r> {
    side: Side,
    rules: &'r Ruleset,
    space: &'r Space,
    file: &'r Arc<str>,
    atoms: Atoms,
    ways: Ways,
    effort: Effort,
    found: Vec<Finding>,
    undecided: u32,
}

impl Roads<'_> {
    /// Whether the filter table may accept some of these at a hook. Not known counts as yes.
    fn passes(&mut self, hook: Hook, regions: &[Region]) -> bool {
        let given = at_table(TableId::Filter, hook, self.space);
        let real = real(self.space);
        let there = regions.iter().flat_map(|it| real.iter().filter_map(|kind| kind.and(it)));
        let there: Vec<Region> = there.filter_map(|it| it.and(&given)).take(REGIONS).collect();
        // Nothing that there is: no question.
        there.is_empty() || there.into_iter().any(|region| self.accepted(hook, region).is_some())
    }

    /// The first leaf that accepts.
    fn accepted(&mut self, hook: Hook, region: Region) -> Option<Option<Leaf>> {
        let given = EFFORT.min(self.effort.0);
        let mut effort = Effort(given);
        let place = (TableId::Filter, hook);
        let Self { ways, side, atoms, .. } = self;
        let leaves = ways.follow(side, place, region, atoms, &mut effort);
        self.effort.0 -= given - effort.0;
        let Some(leaves) = leaves else {
            self.undecided += 1;
            return Some(None);
        };
        let goes = |leaf: &Leaf| matches!(leaf.fate, Fate::Accept | Fate::Unknown(_));
        leaves.into_iter().find(goes).map(Some)
    }

    fn tell(&mut self, rule: &Rule, code: Code, message: &str, remedy: &str) {
        let finding = Finding::new(Severity::Warning, code, self.file, rule.target_span, message);
        self.found.push(finding.with_remedy(remedy));
    }

    fn translation(&mut self, chain: ChainId, at: usize, rule: &Rule, nat: &NatTarget) {
        let matched = self.side.chains[chain.0 as usize][at].regions.clone();
        let matched: Vec<Region> =
            matched.into_iter().map(|it| Region { atoms: Vec::new(), ..it }).collect();
        if matched.is_empty() {
            return;
        }
        match nat {
            NatTarget::Dnat(range) => self.destination(rule, &matched, range),
            NatTarget::Snat(_) | NatTarget::Masquerade(_) => self.source(rule, &matched),
            NatTarget::Redirect(range) => self.redirect(rule, &matched, range),
            // The same rule translates sources or destinations, by its chain.
            NatTarget::Netmap(_) => {}
        }
    }

    fn destination(&mut self, rule: &Rule, matched: &[Region], range: &NatRange) {
        let new: Vec<Region> = matched.iter().map(|it| self.translated(it, range)).collect();
        let local = |it: &Region| {
            let loops = match self.space.address_bits() {
                32 => Ranges::of(0x7f00_0000, 0x7fff_ffff),
                _ => Ranges::of(1, 1),
            };
            it.dst.within(&loops)
        };
        if new.iter().all(local) {
            return self.redirect(rule, matched, range);
        }
        let forwarded = self.passes(Hook::Forward, &new);
        // It may be an address of this machine.
        if !forwarded && !self.passes(Hook::Input, &new) {
            let message = "FORWARD drops every packet to the translated destination";
            let remedy = "accept the translated address and port in FORWARD, or delete this rule";
            return self.tell(rule, Code::DnatWithoutForward, message, remedy);
        }
        if forwarded {
            // Not to the destination itself: what is let there is no answer.
            let back = new.iter().map(|it| {
                let mut back = answered(it, self.space);
                let others = back.dst.minus(&it.dst);
                if !others.is_empty() {
                    back.dst = others;
                }
                back
            });
            let back: Vec<Region> = back.collect();
            self.no_return(rule, &back);
        }
    }

    fn redirect(&mut self, rule: &Rule, matched: &[Region], range: &NatRange) {
        let ports = NatRange { addresses: None, ..*range };
        let any = Ranges::all(self.space.address_bits());
        let new =
            matched.iter().map(|it| Region { dst: any.clone(), ..self.translated(it, &ports) });
        let new: Vec<Region> = new.collect();
        if !self.passes(Hook::Input, &new) {
            let message = "INPUT drops every packet that is redirected here";
            let remedy = "accept the port that it is redirected to in INPUT, or delete this rule";
            self.tell(rule, Code::DnatWithoutForward, message, remedy);
        }
    }

    fn source(&mut self, rule: &Rule, matched: &[Region]) {
        let out = |it: &Region| {
            let mut it = it.clone();
            it.classes[0] = self.space.classes[0] & !NO_INTERFACE;
            it.classes[2] = state_class::NEW;
            it
        };
        let out: Vec<Region> = matched.iter().map(out).collect();
        // Nothing that is forwarded is translated: answers are for this machine.
        if !self.passes(Hook::Forward, &out) {
            return;
        }
        let back: Vec<Region> = out.iter().map(|it| answered(it, self.space)).collect();
        self.no_return(rule, &back);
    }

    fn no_return(&mut self, rule: &Rule, back: &[Region]) {
        if !self.passes(Hook::Forward, back) {
            let message = "FORWARD drops every answer to the connections that are translated here";
            let remedy = "accept ESTABLISHED,RELATED at the head of FORWARD";
            self.tell(rule, Code::NatWithoutReturn, message, remedy);
        }
    }

    /// New packets behind a translation of their destination.
    fn translated(&self, region: &Region, range: &NatRange) -> Region {
        let mut new = region.clone();
        if let Some(addresses) = range.addresses {
            new.dst = Ranges::of(addresses.low, addresses.high);
        }
        if let Some(ports) = range.ports {
            new.dport = Ranges::of(ports.low.into(), ports.high.into());
        }
        new.classes[1] = self.space.classes[1];
        new.classes[2] = state_class::NEW;
        new
    }

    /// INVALID packets in FORWARD, beside a translation.
    fn invalid(&mut self) {
        for place in [(TableId::Mangle, Hook::Prerouting), (TableId::Mangle, Hook::Forward)] {
            if self.side.entry(place.0, place.1).is_none() {
                continue;
            }
            let mut all = at_table(place.0, place.1, self.space);
            all.classes[2] = state_class::INVALID;
            let mut effort = Effort(EFFORT);
            let Self { ways, side, atoms, .. } = self;
            let leaves = ways.follow(side, place, all, atoms, &mut effort);
            if leaves.is_some_and(|it| it.iter().all(|leaf| leaf.fate == Fate::Drop)) {
                return;
            }
        }
        if self.side.entry(TableId::Filter, Hook::Forward).is_none() {
            return;
        }
        let mut all = at_table(TableId::Filter, Hook::Forward, self.space);
        all.classes[2] = state_class::INVALID;
        let kinds: Vec<Region> = real(self.space).iter().filter_map(|it| it.and(&all)).collect();
        let leaf = kinds.into_iter().find_map(|it| self.accepted(Hook::Forward, it).flatten());
        let Some(decider) = leaf.filter(|it| it.fate == Fate::Accept).and_then(|it| it.decider)
        else {
            return;
        };
        let Some((_, chain)) = written(self.rules).nth(decider.chain.0 as usize) else { return };
        let rule = decider.rule.and_then(|at| chain.rules.get(at as usize));
        let span = rule.map_or(chain.span, |rule| rule.target_span);
        let message = "INVALID packets are accepted here, and are not translated";
        let finding =
            Finding::new(Severity::Warning, Code::InvalidNotDropped, self.file, span, message);
        self.found.push(finding.with_remedy(
            "put `-m conntrack --ctstate INVALID -j DROP' before what is accepted in FORWARD",
        ));
    }
}

/// The answers to packets, as FORWARD sees them.
fn answered(region: &Region, space: &Space) -> Region {
    const PORTS: [u8; 5] = [proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP, proto::DCCP];
    let mut back = region.clone();
    (back.src, back.dst) = (region.dst.clone(), region.src.clone());
    (back.sport, back.dport) = (region.dport.clone(), region.sport.clone());
    let inputs = region.classes[1] & !NO_INTERFACE;
    back.classes[0] = if inputs == 0 { space.classes[0] & !NO_INTERFACE } else { inputs };
    back.classes[1] = region.classes[0];
    back.classes[2] = state_class::ESTABLISHED;
    back.classes[3] = L4Class::Whole.bit();
    back.flags = Bytes::ALL;
    let ports = region.proto.and(Bytes::of(|it| PORTS.contains(&it)));
    match ports.is_empty() {
        false => back.proto = ports,
        // Answers of ICMP have other types.
        true => (back.sport, back.dport) = (Ranges::all(16), Ranges::all(16)),
    }
    back
}
