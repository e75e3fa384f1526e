//! Sets as the control socket tells them, a bounded amount of work for each answer.

use dataplane::clock::monotonic;
use dataplane::packet::Family;
use dataplane::sets::{Cursor, Entry, Set, SetName, Slot};

use super::SetDesk;
use crate::api::protocol::{FamilyName, SetEntry, SetInfo, SetPage, SetUse};
use crate::api::{Code, Failure};
use crate::apply::PolicyView;
use crate::ipset::{members, print};
use crate::iptables::{Names, TableNames, print as rules};

/// Entries in one answer at most.
const PAGE: u32 = 4_096;

fn no_such_set(name: &str) -> Failure {
    Failure::new(Code::Refused, format!("no set is called {name}"))
}

fn info(slot: &Slot) -> SetInfo {
    let set = slot.set();
    let (spec, header) = (set.spec(), set.header());
    SetInfo {
        name: slot.name().to_string(),
        kind: spec.kind.name().to_owned(),
        revision: print::revision(spec.kind),
        header: print::options(spec),
        memory_bytes: header.memory_bytes,
        references: slot.references(),
        entries: header.entries.into(),
    }
}

fn entry(found: &Entry, set: &Set, names: &dyn Names) -> SetEntry {
    let extras = &found.extras;
    SetEntry {
        text: print::entry(found, set.spec(), names),
        element: print::element(&found.element, set.spec(), names),
        timeout_s: extras.timeout_s,
        packets: extras.packets,
        bytes: extras.bytes,
        nomatch: extras.nomatch,
        comment: extras.comment.as_deref().map(str::to_owned),
    }
}

impl SetDesk {
    fn slot(&self, name: &str) -> Result<std::sync::Arc<Slot>, Failure> {
        let found = SetName::new(name).ok().and_then(|name| self.registry.get(&name));
        found.ok_or_else(|| no_such_set(name))
    }

    /// All sets, or one.
    pub(in crate::daemon) fn show(&self, name: Option<&str>) -> Result<Vec<SetInfo>, Failure> {
        match name {
            Some(name) => Ok(vec![info(&*self.slot(name)?)]),
            None => Ok(self.registry.list().iter().map(|slot| info(slot)).collect()),
        }
    }

    /// One page of a set.
    pub(in crate::daemon) fn entries(
        &self,
        name: &str,
        cursor: u64,
        limit: u32,
    ) -> Result<SetPage, Failure> {
        let set = self.slot(name)?.set();
        let limit = limit.clamp(1, PAGE) as usize;
        let cursor = Cursor::at(u32::try_from(cursor).unwrap_or(u32::MAX));
        let (found, next) = set.entries(cursor, limit, monotonic());
        let entries = found.iter().map(|found| entry(found, &set, self.names())).collect();
        Ok(SetPage { entries, next: next.map(|next| next.number().into()) })
    }

    /// What refers to a set.
    pub(in crate::daemon) fn uses(
        &self,
        name: &str,
        policy: &PolicyView<'_>,
    ) -> Result<Vec<SetUse>, Failure> {
        self.slot(name)?;
        let mut uses = in_rules(name, policy);
        for slot in self.registry.list() {
            if members(&slot.set(), monotonic()).iter().any(|member| member.as_str() == name) {
                uses.push(SetUse::List { name: slot.name().to_string() });
            }
        }
        Ok(uses)
    }
}

/// The options of rules that name a set.
const OPTIONS: [&str; 4] = ["--match-set", "--add-set", "--del-set", "--map-set"];

fn in_rules(name: &str, policy: &PolicyView<'_>) -> Vec<SetUse> {
    let names = TableNames::of_host();
    let mut uses = Vec::new();
    for (family, called) in [(Family::V4, FamilyName::V4), (Family::V6, FamilyName::V6)] {
        for table in &policy.rules(family).tables {
            for chain in &table.chains {
                for (index, rule) in chain.rules.iter().enumerate() {
                    let text = rules::rule_text(rule, family, &names);
                    if !names_set(&text, name) {
                        continue;
                    }
                    uses.push(SetUse::Rule {
                        family: called,
                        table: table.id.name().to_owned(),
                        chain: chain.name.clone(),
                        number: index as u32 + 1,
                        line: rule.span.line,
                        text: format!("-A {}{text}", chain.name),
                    });
                }
            }
        }
    }
    uses
}

/// Whether a rule's text names the set.
fn names_set(text: &str, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    OPTIONS.iter().any(|option| {
        text.match_indices(option).any(|(at, _)| {
            let rest = text[at + option.len()..].trim_start();
            [name, &quoted].iter().any(|it| {
                rest.strip_prefix(*it).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::names_set;

    #[test]
    fn rules_name_whole_sets() {
        let text = " -m set ! --match-set blocked src -m set --match-set \"a b\" dst -j DROP";
        assert!(names_set(text, "blocked") && names_set(text, "a b"));
        assert!(!names_set(text, "block") && !names_set(text, "src") && !names_set(text, "a"));
        assert!(names_set(" -j SET --add-set seen src", "seen"));
    }
}
