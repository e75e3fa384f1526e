//! What later groups of matches and targets add to generated cases.
//!
//! The core of a case (`rules.rs`, `packets.rs`) draws from its seed as it always did, so
//! that kept seeds stay what they were; everything here draws from a generator of its own.

pub mod payload;
mod place;
pub mod protocol;
mod reports;
pub mod sets;
pub mod tally;
pub mod targets;

use super::packets::{Entry, Packet};
use super::rng::Rng;
use super::rules::{Place, RulesetText};

/// Makes a match for a rule that has these parts already; `None` where it has none.
pub type MakeMatch = fn(&mut Rng, &Place<'_>, &[String]) -> Option<String>;
/// Makes a target, likewise.
pub type MakeTarget = fn(&mut Rng, &Place<'_>, &[String]) -> Option<String>;
/// Makes packets for the rules, to be strewn among the others.
pub type MakePackets = fn(&mut Rng, &RulesetText) -> Vec<Packet>;

/// One entry for each group that has matches.
const MATCHES: &[MakeMatch] =
    &[payload::extension, place::extension, protocol::matches, sets::extension, tally::extension];
/// One entry for each group that has targets.
const TARGETS: &[MakeTarget] = &[targets::target, targets::target, sets::target, reports::target];
/// One entry for each group that needs packets of its own.
const PACKETS: &[MakePackets] = &[place::packets, protocol::packets];

/// Puts matches and targets into some of the rules.
pub fn decorate(rng: &mut Rng, ruleset: &mut RulesetText, conntrack: bool) {
    let v6 = ruleset.v6;
    for table in &mut ruleset.tables {
        for chain in &mut table.chains {
            let place = Place { v6, table: table.name, chain: &chain.name, conntrack, below: &[] };
            for rule in &mut chain.rules {
                if !MATCHES.is_empty() && rng.chance(35) {
                    let make = rng.pick(MATCHES);
                    rule.parts.extend(make(rng, &place, &rule.parts));
                }
                let idle = rule.target.is_empty() || rule.target.contains("LOG");
                if !TARGETS.is_empty() && rng.chance(if idle { 60 } else { 8 }) {
                    let make = rng.pick(TARGETS);
                    if let Some(target) = make(rng, &place, &rule.parts) {
                        if target.contains("TEE") {
                            // The kernel hands copies of its own multicast to its own listeners.
                            let groups = if v6 { "ff00::/8" } else { "224.0.0.0/3" };
                            rule.parts.retain(|part| !part.contains("-d "));
                            rule.parts.insert(0, format!("! -d {groups}"));
                        }
                        rule.target = target;
                    }
                }
            }
        }
    }
    hash_marks(&mut Rng(rng.0 ^ 0x0068_6d61_726b), ruleset, conntrack);
    keep_from_circling(ruleset);
}

/// Puts HMARK into rules that are left without a target.
fn hash_marks(rng: &mut Rng, ruleset: &mut RulesetText, conntrack: bool) {
    let v6 = ruleset.v6;
    for table in &mut ruleset.tables {
        for chain in &mut table.chains {
            let place = Place { v6, table: table.name, chain: &chain.name, conntrack, below: &[] };
            let idle = chain.rules.iter_mut().filter(|rule| rule.target.is_empty());
            for rule in idle.filter(|_| table.name != "nat") {
                if rng.chance(20) {
                    rule.target = targets::hmark(rng, &place);
                }
            }
        }
    }
}

/// A copy of a packet to this machine itself comes back over `lo` when OUTPUT makes the
/// kernel route it anew, and is copied again, without end: no TEE on the way in then.
fn keep_from_circling(ruleset: &mut RulesetText) {
    let changes = ["MARK", "TOS", "DSCP", "ECN", "TTL", "HL ", "NPT", "--map-mark"];
    let reroutes = ruleset.tables.iter().filter(|table| table.name == "mangle").any(|table| {
        let own = |name: &str| name == "OUTPUT" || name.starts_with('o');
        let rules = table.chains.iter().filter(|chain| own(&chain.name));
        let mut targets = rules.flat_map(|chain| &chain.rules).map(|rule| &rule.target);
        targets.any(|target| changes.iter().any(|change| target.contains(change)))
    });
    let chains = ruleset.tables.iter_mut().flat_map(|table| &mut table.chains);
    let inward = |name: &str| matches!(name, "PREROUTING" | "INPUT") || name.starts_with('u');
    for chain in chains.filter(|chain| reroutes && inward(&chain.name)) {
        let copies = chain.rules.iter_mut().filter(|rule| rule.target.contains("-j TEE"));
        copies.for_each(|rule| rule.target.clear());
    }
}

/// Strews the groups' packets among the others.
pub fn strew(rng: &mut Rng, ruleset: &RulesetText, packets: &mut Vec<Packet>) {
    for make in PACKETS {
        for packet in make(rng, ruleset) {
            let at = rng.below(packets.len() + 1);
            packets.insert(at, packet);
        }
    }
}

/// Leaves out what the lab's kernel drops on the way out, to be silent by itself, and
/// with it the copies that TEE makes: neighbour discovery, and packets from nobody.
pub fn silence(ruleset: &RulesetText, packets: &mut Vec<Packet>) {
    if !ruleset.v6 || !ruleset.text().contains("-j TEE") {
        return;
    }
    packets.retain(|packet| {
        let own = matches!(packet.entry, Entry::Own | Entry::OwnOn(_));
        let ip = packet.bytes.get(if own { 0 } else { 14 }..).unwrap_or_default();
        let from_nobody = ip.get(8..24).is_some_and(|src| src.iter().all(|&byte| byte == 0));
        // Behind extension headers too: a packet less does no harm.
        let discovery = ip.windows(2).any(|pair| (135..=137).contains(&pair[0]) && pair[1] == 0);
        !from_nobody && !discovery
    });
}

/// Whether the rule's parts name exactly this protocol.
pub fn has_protocol(parts: &[String], name: &str) -> bool {
    parts.iter().any(|part| part.strip_prefix("-p ").is_some_and(|found| found == name))
}
