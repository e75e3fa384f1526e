//! What became of a packet, compared with what was expected.

use super::expect::{By, Expectation, Place, WantedLog, WantedNat, verdict_name};
use super::talk::Ends;
use crate::guard::judge::place;
use crate::model::{MatchBody, Rule, Ruleset};
use crate::replay::Fed;
use crate::replay::event::{PathStep, Verdict};

/// One packet's end.
pub(super) struct Outcome<'a> {
    pub(super) fed: &'a Fed,
    pub(super) rules: &'a Ruleset,
    /// The packet as it came, and as it went on, if it did.
    pub(super) before: Option<Ends>,
    pub(super) after: Option<Ends>,
}

impl Outcome<'_> {
    /// Everything that is otherwise.
    pub(super) fn problems(&self, wanted: &Expectation) -> Vec<String> {
        let mut problems = Vec::new();
        let verdict = self.fed.event.verdict;
        if !wanted.verdict.is(verdict) {
            let decided = self.decided();
            let by = decided.map_or_else(
                || self.fed.reason.map_or_else(String::new, |it| format!(" ({})", it.name())),
                |step| format!(" by {}", self.in_words(step)),
            );
            problems.push(format!(
                "expected {}, got {}{by}",
                wanted.verdict,
                verdict_name(verdict)
            ));
        }
        if let Some(by) = &wanted.by
            && !self.deciders().iter().any(|step| is_at(step, by))
        {
            problems.push(format!("expected a decision by {by}, got {}", self.all_in_words()));
        }
        if let Some(words) = &wanted.comment
            && !self.deciders().iter().any(|step| self.says(step, words))
        {
            let got = self.all_in_words();
            problems.push(format!("expected a rule that says {words:?}, got {got}"));
        }
        if let Some(nat) = &wanted.nat {
            problems.extend(self.translation_problems(nat));
        }
        if let Some(log) = &wanted.log {
            problems.extend(self.log_problem(log));
        }
        if let Some(state) = wanted.state
            && self.fed.event.ctstate != Some(state.name())
        {
            let got = self.fed.event.ctstate.unwrap_or("no tracking");
            problems.push(format!("expected state {}, got {got}", state.name()));
        }
        problems
    }

    /// The step that decided: of an accepted packet, the one in the filter table.
    pub(super) fn decided(&self) -> Option<&PathStep> {
        let path = &self.fed.event.path;
        let filter = path.iter().rev().find(|step| step.table == "filter");
        match self.fed.event.verdict {
            Verdict::Accept => filter.or(path.last()),
            _ => path.last(),
        }
    }

    /// The last step of each table at each hook.
    fn deciders(&self) -> Vec<&PathStep> {
        let path = &self.fed.event.path;
        let place = |step: &PathStep| (step.table, step.hook);
        let ends = |at: usize| path.get(at + 1).is_none_or(|next| place(next) != place(&path[at]));
        path.iter().enumerate().filter(|(at, _)| ends(*at)).map(|(_, step)| step).collect()
    }

    pub(super) fn in_words(&self, step: &PathStep) -> String {
        match place(step, self.rules) {
            (text, 0) => text,
            (text, line) => format!("{text}, line {line}"),
        }
    }

    fn all_in_words(&self) -> String {
        let words: Vec<String> =
            self.deciders().into_iter().map(|step| self.in_words(step)).collect();
        if words.is_empty() { "none".to_owned() } else { words.join("; ") }
    }

    fn rule(&self, step: &PathStep) -> Option<&Rule> {
        let table = self.rules.tables.iter().find(|table| table.id.name() == step.table)?;
        table.chain(&step.chain)?.rules.get(step.rule?.checked_sub(1)? as usize)
    }

    fn says(&self, step: &PathStep, words: &str) -> bool {
        let Some(rule) = self.rule(step) else { return false };
        let comment =
            |it: &MatchBody| matches!(it, MatchBody::Comment(text) if text.contains(words));
        rule.matches.iter().any(|it| comment(&it.body))
    }

    fn translation_problems(&self, wanted: &WantedNat) -> Vec<String> {
        let (Some(before), Some(after)) = (self.before, self.after) else {
            return vec!["it did not go on: nothing is known of its translation".to_owned()];
        };
        let mut problems = Vec::new();
        let mut tell = |what: &str, good: bool, wanted: String, got: String| {
            if !good {
                problems.push(format!("expected {what} {wanted}, got {got}"));
            }
        };
        for (what, wanted, was, is) in [
            ("source", &wanted.src, before.src, after.src),
            ("destination", &wanted.dst, before.dst, after.dst),
        ] {
            match wanted {
                Some(range) => tell(what, range.contain(is), range.to_string(), is.to_string()),
                None => tell(what, was == is, was.to_string(), is.to_string()),
            }
        }
        for (what, wanted, was, is) in [
            ("source port", &wanted.sport, before.sport, after.sport),
            ("destination port", &wanted.dport, before.dport, after.dport),
        ] {
            match wanted {
                Some(range) => tell(what, range.contains(is), range.to_string(), is.to_string()),
                None => tell(what, was == is, was.to_string(), is.to_string()),
            }
        }
        problems
    }

    fn log_problem(&self, wanted: &WantedLog) -> Option<String> {
        let lines = &self.fed.log;
        let captured = !self.fed.captured.is_empty();
        match wanted {
            WantedLog::No => {
                let first = lines.first().map_or("a captured packet", String::as_str);
                (captured || !lines.is_empty()).then(|| format!("expected no log, got {first}"))
            }
            WantedLog::Yes => (lines.is_empty() && !captured)
                .then(|| "expected a line in the log, got none".to_owned()),
            WantedLog::Prefix(prefix) => {
                let found = lines.iter().any(|line| line.starts_with(prefix.as_str()))
                    || self.fed.captured.iter().any(|it| contains(&it.record, prefix.as_bytes()));
                (!found).then(|| match lines.first() {
                    Some(line) => format!("expected a log line with prefix {prefix:?}, got {line}"),
                    None => format!("expected a log line with prefix {prefix:?}, got none"),
                })
            }
        }
    }

    /// What translation did, in words; nothing when it did nothing.
    pub(super) fn translated(&self) -> Option<String> {
        let (before, after) = self.before.zip(self.after)?;
        let mut words = Vec::new();
        if (before.src, before.sport) != (after.src, after.sport) {
            words.push(format!("source {} port {}", after.src, after.sport));
        }
        if (before.dst, before.dport) != (after.dst, after.dport) {
            words.push(format!("destination {} port {}", after.dst, after.dport));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

fn is_at(step: &PathStep, by: &By) -> bool {
    let here = step.table == by.table && step.chain == by.chain;
    here && match by.place {
        Place::Chain => true,
        Place::Rule(number) => step.rule == Some(number),
        Place::Policy => step.rule.is_none(),
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}
