//! Remarks about policies that load.

use std::sync::Arc;

use dataplane::policy::ChainPolicy;

use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Chain, Ruleset, TargetSpec};

/// Built-in chains that packets do not pass yet: until the host path exists,
/// the XDP program leaves to the kernel what is addressed to the machine itself,
/// and never sees what the machine sends.
pub fn is_enforced(chain: &str) -> bool {
    !matches!(chain, "INPUT" | "OUTPUT")
}

/// One warning for each INPUT and OUTPUT chain that would do something.
pub fn not_enforced(rules: &Ruleset, file: &str) -> Vec<Finding> {
    let file: Arc<str> = file.into();
    let chains =
        rules.tables.iter().flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
    chains
        .filter(|(_, chain)| !is_enforced(&chain.name) && has_effect(chain))
        .map(|(table, chain)| {
            let message = format!(
                "{} {} is loaded but not enforced: what is addressed to this machine, or sent by \
                 it, is left to the kernel",
                table.id.name(),
                chain.name
            );
            Finding::new(Severity::Warning, Code::NotEnforced, &file, chain.span, message)
                .with_remedy("keep the kernel's own rules for INPUT and OUTPUT")
        })
        .collect()
}

fn has_effect(chain: &Chain) -> bool {
    let acts = |target: &TargetSpec| !matches!(target, TargetSpec::None | TargetSpec::Accept);
    chain.policy.is_some_and(|(policy, _)| policy == ChainPolicy::Drop)
        || chain.rules.iter().any(|rule| acts(&rule.target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::{self, TableNames};
    use dataplane::packet::Family;

    fn warnings(text: &str) -> Vec<String> {
        let names = TableNames::well_known();
        let parsed = iptables::parse(text, "f", Family::V4, &names).unwrap();
        not_enforced(&parsed.ruleset, "f").into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn only_chains_of_the_host_that_do_something_are_named() {
        let quiet = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                     -A INPUT -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n";
        assert!(warnings(quiet).is_empty());
        let dropping = quiet.replace("INPUT ACCEPT [0:0]", "INPUT DROP [0:0]");
        let found = warnings(&dropping);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("filter INPUT is loaded but not enforced"), "{found:?}");
        let rejecting = quiet.replace("-A FORWARD -j DROP", "-A OUTPUT -j REJECT");
        assert!(warnings(&rejecting)[0].starts_with("filter OUTPUT"));
    }
}
