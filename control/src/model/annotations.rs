//! What a rule's comment says of the rule: `owner=`, `ticket=`, `review=`, `expires=`.

use std::collections::BTreeMap;

use super::{MatchBody, Rule};

/// The words that are known.
const KEYS: [&str; 4] = ["expires", "owner", "review", "ticket"];

/// The annotations of a rule, by key; the first of several of one key.
pub fn annotations(rule: &Rule) -> BTreeMap<&'static str, String> {
    let comments = rule.matches.iter().filter_map(|it| match &it.body {
        MatchBody::Comment(text) => Some(text.as_str()),
        _ => None,
    });
    let mut found = BTreeMap::new();
    for word in comments.flat_map(str::split_whitespace) {
        let Some((key, value)) = word.split_once('=') else { continue };
        let value = value.trim_end_matches([',', ';', '.']);
        if let Some(key) = KEYS.into_iter().find(|known| *known == key)
            && !value.is_empty()
        {
            found.entry(key).or_insert_with(|| value.to_owned());
        }
    }
    found
}
