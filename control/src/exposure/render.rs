//! Exposure for people.

use std::fmt::Write;

use super::Road;
use super::compare::{Changes, Difference};
use super::report::{Exposure, Reachable, RuleRef, Service};

/// Words of a list that are shown.
const SHOWN: usize = 6;

/// A list, cut.
pub(crate) fn listed(words: &[String], all: &str) -> String {
    match words.len() {
        0 => all.to_owned(),
        1..=SHOWN => words.join(","),
        count => format!("{},... ({count} in all)", words[..SHOWN].join(",")),
    }
}

impl Service {
    /// From where: interfaces and addresses.
    pub fn from_words(&self) -> String {
        let mut words = listed(&self.sources, "anywhere");
        if !self.source_ports.is_empty() {
            let _ = write!(words, " port {}", listed(&self.source_ports, ""));
        }
        if !self.interfaces.is_empty() {
            let _ = write!(words, " on {}", listed(&self.interfaces, ""));
        }
        words
    }

    /// Where to.
    pub fn to_words(&self, road: Road) -> String {
        match (road, self.destinations.is_empty()) {
            (Road::Input, true) => "this machine".to_owned(),
            (Road::Input, false) => format!("this machine as {}", listed(&self.destinations, "")),
            (Road::Forward, _) => {
                let mut words = listed(&self.destinations, "anywhere");
                if !self.out.is_empty() {
                    let _ = write!(words, " by {}", listed(&self.out, ""));
                }
                words
            }
        }
    }

    /// Protocol and ports.
    pub fn service_words(&self) -> String {
        let all = "other protocols";
        let mut words = match (&self.protocols[..], self.ports.is_empty()) {
            ([], _) => all.to_owned(),
            (protocols, _) => listed(protocols, all),
        };
        let icmp = self.protocols.iter().any(|it| it.starts_with("icmp"));
        match (self.ports.is_empty(), icmp) {
            (true, _) => {
                let has_ports =
                    ["tcp", "udp", "sctp"].iter().any(|it| self.protocols.iter().any(|p| p == it));
                if has_ports {
                    words.push_str(" any port");
                }
            }
            (false, true) => {
                let _ = write!(words, " type {}", listed(&self.ports, ""));
            }
            (false, false) => {
                let _ = write!(words, " {}", listed(&self.ports, ""));
            }
        }
        words
    }

    /// What connections ask for, where that is translated.
    pub fn via_words(&self) -> Option<String> {
        let via = self.via.as_ref()?;
        let mut words = listed(&via.destinations, "any address");
        if !via.ports.is_empty() {
            let _ = write!(words, " port {}", listed(&via.ports, ""));
        }
        Some(words)
    }
}

impl RuleRef {
    /// Which rule, without its text.
    pub fn place(&self) -> String {
        match (self.rule, self.line) {
            (Some(rule), Some(line)) => {
                format!("{} {} rule {rule}, line {line}", self.table, self.chain)
            }
            _ => format!("the policy of {} {}", self.table, self.chain),
        }
    }

    /// Whose it is and until when.
    pub fn about(&self) -> String {
        let said = [
            ("owner", &self.owner),
            ("ticket", &self.ticket),
            ("review", &self.review),
            ("expires", &self.expires),
        ];
        let words =
            said.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value.as_ref()?)));
        let words: Vec<String> = words.collect();
        match (words.is_empty(), self.owner.is_some()) {
            (true, _) => "no owner".to_owned(),
            (false, true) => words.join(", "),
            (false, false) => format!("no owner, {}", words.join(", ")),
        }
    }
}

fn service(out: &mut String, service: &Service, road: Road, mark: &str) {
    let (from, to) = (service.from_words(), service.to_words(road));
    let _ = writeln!(out, "  {mark} {}  from {from}  to {to}", service.service_words());
    if let Some(via) = service.via_words() {
        let _ = writeln!(out, "      asked for as {via}");
    }
    if service.untracked {
        let _ = writeln!(out, "      without connection tracking");
    }
    for condition in &service.conditions {
        let _ = writeln!(out, "      {condition}");
    }
    if let Some(witness) = &service.witness {
        let packet = witness.packet.join(" ");
        let _ = match witness.confirmed {
            Some(true) => writeln!(out, "      witness (walked): {packet}"),
            Some(false) => writeln!(out, "      witness REFUTED ({}): {packet}", witness.result),
            None => writeln!(out, "      witness ({}): {packet}", witness.result),
        };
    }
}

fn rule(out: &mut String, rule: &RuleRef, indent: &str) {
    let _ = writeln!(out, "{indent}{}: {}", rule.place(), rule.text);
}

fn group(out: &mut String, one: &Reachable) {
    match &one.rule {
        Some(by) => rule(out, by, ""),
        None => out.push_str("nothing filters\n"),
    }
    if let Some(nat) = &one.nat {
        rule(out, nat, "  translated by ");
    }
    let by = one.rule.iter().chain(&one.nat).find(|it| it.owner.is_some());
    let about = by.or(one.rule.as_ref()).map_or_else(|| "no owner".to_owned(), RuleRef::about);
    let _ = writeln!(out, "  {about}");
    for it in &one.services {
        service(out, it, one.road, "-");
    }
    out.push('\n');
}

/// What is reachable.
pub fn text(exposure: &Exposure) -> String {
    let mut out = String::new();
    let family = exposure.family;
    for road in [Road::Input, Road::Forward] {
        let on: Vec<_> = exposure.reachable.iter().filter(|it| it.road == road).collect();
        if on.is_empty() {
            continue;
        }
        let what = match road {
            Road::Input => "on this machine (INPUT)",
            Road::Forward => "through this machine (FORWARD)",
        };
        let _ = writeln!(out, "{family} reachable {what}\n");
        on.into_iter().for_each(|one| group(&mut out, one));
    }
    for unknown in &exposure.unknown {
        let _ = writeln!(out, "{family} not followed: {unknown}");
    }
    for place in &exposure.unfinished {
        let _ = writeln!(out, "{family} not finished, the effort was not enough: {place}");
    }
    let counts = exposure.summary();
    let whole = if exposure.complete { "that is all (exact)" } else { "there may be more" };
    let _ = writeln!(
        out,
        "{family}: {} services reachable, {} without an owner; {} witnesses arrived, {} did not, {} \
         were not walked; {whole}",
        counts.services, counts.unowned, counts.confirmed, counts.refuted, counts.unwalked
    );
    out
}

fn differences(out: &mut String, title: &str, mark: &str, all: &[Difference]) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "{title}\n");
    for one in all {
        for (word, rules) in [("before: ", &one.before), ("now: ", &one.after)] {
            for by in rules {
                rule(out, by, word);
                let _ = writeln!(out, "  {}", by.about());
            }
        }
        one.services.iter().for_each(|it| service(out, it, one.road, mark));
        out.push('\n');
    }
}

/// What is different.
pub fn changes_text(family: &str, changes: &Changes) -> String {
    let mut out = String::new();
    differences(&mut out, &format!("{family} newly exposed"), "+", &changes.newly_exposed);
    differences(&mut out, &format!("{family} no longer exposed"), "-", &changes.no_longer_exposed);
    differences(
        &mut out,
        &format!("{family} by another rule, or another's"),
        "~",
        &changes.changed,
    );
    let whole = if changes.complete { "that is all (exact)" } else { "there may be more" };
    let count = |all: &[Difference]| all.iter().map(|it| it.services.len()).sum::<usize>();
    let _ = writeln!(
        out,
        "{family}: {} newly exposed, {} no longer exposed, {} changed; {whole}",
        count(&changes.newly_exposed),
        count(&changes.no_longer_exposed),
        count(&changes.changed)
    );
    out
}
