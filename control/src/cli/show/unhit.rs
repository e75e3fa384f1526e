//! Which of the rules that nothing has hit nothing can hit: worked out here, not in the daemon.

use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::sets::Registry;

use crate::api::protocol::{FamilyName, Rules};
use crate::api::{Request, Response};
use crate::check::Sets;
use crate::cli::Socket;
use crate::cli::client::try_ask;
use crate::iptables::{self, TableNames};
use crate::lint::{Bounds, unhittable};

/// Says of rules why nothing can hit them. Where the policy is another one meanwhile, nothing is said.
pub(in crate::cli) fn tell(rules: &mut Rules, socket: &Socket) {
    let names = TableNames::of_host();
    for (family, of) in [(FamilyName::V4, Family::V4), (FamilyName::V6, Family::V6)] {
        if !rules.chains.iter().any(|chain| chain.family == family && !chain.rules.is_empty()) {
            continue;
        }
        let request = Request::SaveRules { family, counters: false };
        let Ok(Response::Saved { text, .. }) = try_ask(socket, request) else { continue };
        let parsed = iptables::parse(&text, "the running policy", of, &names);
        let Ok(parsed) = parsed else { continue };
        // Sets say yes or no; which, is not asked.
        let sets = Sets { registry: Arc::new(Registry::default()), assume: true };
        sets.complete(&parsed.ruleset, "");
        let found = unhittable(&parsed.ruleset, &sets.registry, Bounds::QUICK);
        for chain in rules.chains.iter_mut().filter(|chain| chain.family == family) {
            for rule in &mut chain.rules {
                let place = found.iter().find(|((table, name, at), _)| {
                    table.name() == chain.table
                        && *name == chain.chain
                        && *at + 1 == rule.number as usize
                });
                rule.unhittable = place.map(|(_, why)| why.clone());
            }
        }
    }
}
