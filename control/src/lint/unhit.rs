//! Rules that no packet can hit, whatever comes: told apart from those that merely none has hit.

use std::collections::HashMap;
use std::sync::Arc;

use classifier::Address;
use dataplane::packet::Family;
use dataplane::policy::{FamilyPolicy, TableId};
use dataplane::sets::Registry;

use super::chains::{Bounds, survey};
use super::shadow::Why;
use crate::compile::{self, DynamicState};
use crate::model::Ruleset;
use crate::region::{ports, written};

/// Rules by table, chain and index, and why nothing can hit them.
pub type Unhittable = HashMap<(TableId, String, usize), String>;

/// Looks at the rules of a family; nothing is said of what could not be decided within the
/// bounds, and of rules that do not compile.
pub fn unhittable(rules: &Ruleset, sets: &Arc<Registry>, bounds: Bounds) -> Unhittable {
    let Some(ports) = ports([rules]) else { return Unhittable::new() };
    let (none_v4, none_v6) = (Ruleset::empty(Family::V4), Ruleset::empty(Family::V6));
    let (v4, v6) = match rules.family {
        Family::V4 => (rules, &none_v6),
        Family::V6 => (&none_v4, rules),
    };
    let given = compile::Input { v4, v6, ports: &ports, limits: compile::Limits::default() };
    let state = DynamicState::with_sets(Arc::clone(sets));
    let Ok(compiled) = compile::compile(given, &state) else { return Unhittable::new() };
    match rules.family {
        Family::V4 => of_family(rules, &compiled.policy.v4, ports.len(), bounds),
        Family::V6 => of_family(rules, &compiled.policy.v6, ports.len(), bounds),
    }
}

fn of_family<A: Address>(
    rules: &Ruleset,
    policy: &FamilyPolicy<A>,
    ports: usize,
    bounds: Bounds,
) -> Unhittable {
    let found = survey(rules.family, policy, ports, bounds, &|_| Vec::new(), &mut |_| {});
    let chains: Vec<_> = written(rules).collect();
    let mut all = Unhittable::new();
    for (id, doubt) in &found.doubts {
        let Some((table, chain)) = chains.get(id.0 as usize) else { continue };
        let why = match &doubt.why {
            Why::Impossible => "its conditions contradict each other".to_owned(),
            Why::NeverEnters => format!("nothing that it matches comes into {}", chain.name),
            Why::Shadowed { by, .. } => {
                let numbers: Vec<String> = by.iter().map(|at| (at + 1).to_string()).collect();
                let rules =
                    if numbers.len() == 1 { ("rule", "leaves") } else { ("rules", "leave") };
                let (rules, leave) = rules;
                format!("{rules} {} before it {leave} nothing for it", numbers.join(", "))
            }
            Why::Redundant { .. } | Why::Idle { .. } => continue,
        };
        all.insert((*table, chain.name.clone(), doubt.rule as usize), why);
    }
    for id in &found.unused {
        let Some((table, chain)) = chains.get(id.0 as usize) else { continue };
        for at in 0..chain.rules.len() {
            let why = format!("no rule leads to {}", chain.name);
            all.insert((*table, chain.name.clone(), at), why);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::{self, TableNames};

    #[test]
    fn covered_rules_are_told_apart() {
        let text = "*filter\n:INPUT ACCEPT [0:0]\n:lost - [0:0]\n\
            -A INPUT -s 192.0.2.0/24 -j ACCEPT\n-A INPUT -s 192.0.2.7/32 -j DROP\n\
            -A INPUT -s 198.51.100.0/24 -j DROP\n-A lost -j DROP\nCOMMIT\n";
        let parsed = iptables::parse(text, "test", Family::V4, &TableNames::well_known());
        let rules = parsed.expect("it loads").ruleset;
        let found = unhittable(&rules, &Arc::new(Registry::default()), Bounds::QUICK);
        let why = |chain: &str, at| found.get(&(TableId::Filter, chain.to_owned(), at));
        assert_eq!(
            why("INPUT", 1).map(String::as_str),
            Some("rule 1 before it leaves nothing for it")
        );
        assert_eq!((why("INPUT", 0), why("INPUT", 2)), (None, None));
        assert!(why("lost", 0).is_some());
    }
}
