//! `expires=` in comments that is no time: such a rule never expires.

use std::sync::Arc;

use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Ruleset, expiry};

/// A warning for each such rule of `rules`, which is from `file`.
pub fn warnings(rules: &Ruleset, file: &str) -> Vec<Finding> {
    let file: Arc<str> = file.into();
    let rules = rules.tables.iter().flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    let warn = |(rule, text): (&crate::model::Rule, String)| {
        let message = format!("expires={text} is no time: the rule never expires");
        Finding::new(Severity::Warning, Code::BadValue, &file, rule.span, message)
            .with_remedy("write expires=YYYY-MM-DD or expires=YYYY-MM-DDTHH:MMZ (UTC)")
    };
    rules.filter_map(|rule| Some((rule, expiry::expires(rule)?.err()?))).map(warn).collect()
}
