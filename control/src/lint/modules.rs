//! The register of match modules and targets that a file uses.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::iptables::{TableNames, rule_text};
use crate::model::{MatchBody, Rule, Ruleset, TargetSpec};

/// One module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its name, as `-m` or `-j` takes it.
    pub name: String,
    /// `match` or `target`.
    pub kind: &'static str,
    /// Rules that use it.
    pub rules: usize,
    /// The line of the first.
    pub line: u32,
}

/// Every module in use, matches first, by name.
pub fn register(rules: &Ruleset) -> Vec<Module> {
    let names = TableNames::well_known();
    let mut found: BTreeMap<(&'static str, String), (usize, u32)> = BTreeMap::new();
    for place in super::places(rules) {
        let rule = place.rule;
        let line = rule.span.line;
        let mut used: Vec<(&'static str, String)> = Vec::new();
        for spec in &rule.matches {
            let name = match &spec.body {
                // Its words could look like options.
                MatchBody::Comment(_) => "comment".to_owned(),
                _ => {
                    let only = Rule {
                        matches: vec![spec.clone()],
                        target: TargetSpec::None,
                        ..rule.clone()
                    };
                    word_behind(&rule_text(&only, rules.family, &names), "-m")
                }
            };
            used.push(("match", name));
        }
        let jumps =
            matches!(rule.target, TargetSpec::None | TargetSpec::Jump(_) | TargetSpec::Goto(_));
        if !jumps {
            let only = Rule { matches: Vec::new(), ..rule.clone() };
            used.push(("target", word_behind(&rule_text(&only, rules.family, &names), "-j")));
        }
        used.sort_unstable();
        used.dedup();
        for key in used {
            let (count, first) = found.entry(key).or_insert((0, line));
            *count += 1;
            *first = line.min(*first);
        }
    }
    let module = |((kind, name), (rules, line))| Module { name, kind, rules, line };
    found.into_iter().map(module).collect()
}

fn word_behind(text: &str, option: &str) -> String {
    let mut words = text.split_whitespace().skip_while(|word| *word != option).skip(1);
    words.next().unwrap_or("?").to_owned()
}
