//! What makes a rule the same rule after a reload: its family, table and chain,
//! and what it says. Its line, its number and its written counters do not matter.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use dataplane::packet::Family;
use dataplane::policy::{CounterId, Match};

use crate::compile::CounterMap;
use crate::iptables::{self, TableNames};
use crate::model::{Chain, MatchBody, Rule, Ruleset};

/// A rule or a policy, hashed. A clash of two of a million rules has a
/// probability of one in 36 million, and would mix up two counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity(u64);

impl Identity {
    /// As it is saved.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    /// As it was saved.
    pub(super) fn of_number(number: u64) -> Self {
        Self(number)
    }
}

/// A rule's identity, and which of several alike in its chain it is, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleKey(pub u64, pub u32);

/// As labels say it.
impl std::fmt::Display for RuleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            0 => write!(f, "{:016x}", self.0),
            more => write!(f, "{:016x}-{}", self.0, more + 1),
        }
    }
}

/// The keys of counters, by their ids.
pub(super) fn keys(identities: &[Identity]) -> Vec<RuleKey> {
    let mut alike = HashMap::with_capacity(identities.len());
    let key = |identity: &Identity| {
        let count: &mut u32 = alike.entry(*identity).or_insert(0);
        *count += 1;
        RuleKey(identity.0, *count - 1)
    };
    identities.iter().map(key).collect()
}

/// Rules with every part that is hashed by its fields, and one with a part that is not.
const PROBES: &str = "*filter
:FORWARD ACCEPT [0:0]
-A FORWARD ! -s 10.0.0.0/8 -d 10.0.0.1/32 -i a+ -o b -f -m comment --comment c -j LOG
-A FORWARD -p tcp -m tcp --sport 1:2 ! --syn -m conntrack --ctstate NEW -m state --state NEW
-A FORWARD -p udp -m udp --dport 3 -m mark --mark 1/3 -j REJECT
-A FORWARD -p tcp -m multiport ! --dports 1:2,4 -m iprange --src-range 10.0.0.1-10.0.0.2 -j DROP
-A FORWARD -p icmp -m icmp --icmp-type 8/0 -m limit --limit 1/sec -j ACCEPT
COMMIT
";

/// Tells builds apart whose identities are not each other's: neither the library's hash nor
/// the order of a rule's fields is promised to stay the same.
pub(super) fn probe() -> String {
    let parsed = iptables::parse(PROBES, "probes", Family::V4, &TableNames::well_known());
    let rules = parsed.map(|parsed| parsed.ruleset).unwrap_or_else(|_| Ruleset::empty(Family::V4));
    debug_assert_eq!(rules.rule_count(), 5, "all of it loads");
    let mut all = Words(DefaultHasher::new());
    for chain in rules.tables.iter().flat_map(|table| &table.chains) {
        chain.rules.iter().for_each(|rule| of_rule(all.clone(), rule).hash(&mut all.0));
    }
    format!("{:016x}", all.identity().0)
}

/// Hashes what is written to it.
#[derive(Clone)]
struct Words(DefaultHasher);

impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The identity of every counter, by its id.
pub(super) fn of(v4: &Ruleset, v6: &Ruleset, counters: &CounterMap) -> Vec<Identity> {
    let mut identities = vec![Identity(0); counters.len() as usize];
    for rules in [v4, v6] {
        let entries = counters.chains().iter().filter(|entry| entry.family == rules.family);
        let chains = rules
            .tables
            .iter()
            .flat_map(|table| table.chains.iter().map(move |chain| (table.id, chain)));
        for ((table, chain), entry) in chains.zip(entries) {
            let mut place = Words(DefaultHasher::new());
            (rules.family, table, &chain.name).hash(&mut place.0);
            for (index, rule) in chain.rules.iter().enumerate() {
                identities[entry.first.0 as usize + index] = of_rule(place.clone(), rule);
            }
            if let Some(id) = entry.policy {
                identities[id.0 as usize] = of_policy(place, chain);
            }
        }
    }
    identities
}

/// What of a rule is hashed as the words that it prints, and what by its fields. Nearly all
/// rules of long policies are of the latter sort.
const WORDS: u8 = 0;

fn of_rule(mut words: Words, rule: &Rule) -> Identity {
    let Rule { src, dst, input, output, proto, fragment, matches, target, .. } = rule;
    (src, dst, input, output, proto, fragment, target).hash(&mut words.0);
    matches.iter().for_each(|spec| of_match(&mut words, &spec.body));
    words.identity()
}

fn of_match(words: &mut Words, body: &MatchBody) {
    let hasher = &mut words.0;
    match body {
        MatchBody::Comment(text) => (1_u8, text).hash(hasher),
        MatchBody::State(Match::Conntrack(conntrack)) => (2_u8, conntrack).hash(hasher),
        MatchBody::Plain(Match::Conntrack(conntrack)) => (3_u8, conntrack).hash(hasher),
        MatchBody::Plain(Match::Tcp(tcp)) => (4_u8, tcp).hash(hasher),
        MatchBody::Plain(Match::Udp(udp)) => (5_u8, udp).hash(hasher),
        MatchBody::Plain(Match::Icmp(icmp)) => (6_u8, icmp).hash(hasher),
        MatchBody::Plain(Match::Multiport(multiport)) => (7_u8, multiport).hash(hasher),
        MatchBody::Plain(Match::IpRange(ranges)) => (8_u8, ranges).hash(hasher),
        MatchBody::Plain(Match::Mark(mark)) => (9_u8, mark).hash(hasher),
        other => {
            hasher.write_u8(WORDS);
            words.print(format_args!("{other:?}"));
        }
    }
}

fn of_policy(mut words: Words, chain: &Chain) -> Identity {
    if let Some((policy, _)) = chain.policy {
        words.print(format_args!("policy {policy:?}"));
    }
    words.identity()
}

impl Words {
    fn print(&mut self, text: fmt::Arguments<'_>) {
        let written = fmt::Write::write_fmt(self, text);
        debug_assert!(written.is_ok(), "hashing cannot fail");
        // No text is the beginning of another.
        self.0.write_u8(0xff);
    }

    fn identity(self) -> Identity {
        Identity(self.0.finish())
    }
}

/// For each new counter, the old one with the same identity. Of several
/// identical rules the first continues the first, and so on.
pub(super) fn continued(old: &[Identity], new: &[Identity]) -> Vec<Option<CounterId>> {
    // The first of several is found, and each leads to the next.
    let mut first: HashMap<Identity, Option<u32>> = HashMap::with_capacity(old.len());
    let mut next = vec![None; old.len()];
    for (id, identity) in old.iter().enumerate().rev() {
        next[id] = first.insert(*identity, Some(id as u32)).flatten();
    }
    let take = |identity: &Identity| {
        let first = first.get_mut(identity)?;
        let id = (*first)?;
        *first = next[id as usize];
        Some(CounterId(id))
    };
    new.iter().map(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_tell_rules_alike_apart() {
        assert_eq!(RuleKey(0xabc, 0).to_string(), "0000000000000abc");
        assert_eq!(RuleKey(0xabc, 1).to_string(), "0000000000000abc-2");
    }

    #[test]
    fn rules_alike_are_counted_on() {
        let ids = [7, 8, 7, 7].map(Identity);
        let wanted = [RuleKey(7, 0), RuleKey(8, 0), RuleKey(7, 1), RuleKey(7, 2)];
        assert_eq!(keys(&ids), wanted);
    }
}
