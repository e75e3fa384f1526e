//! `show limits`, `show recent` and changes of lists, as the control socket asks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use classifier::Address;
use dataplane::clock::{Nanos, monotonic};
use dataplane::packet::Family;
use dataplane::policy::measure::MeasureMatch;
use dataplane::policy::meta::MetaTarget;
use dataplane::policy::tally::hashlimit::Row;
use dataplane::policy::tally::{HashTable, RecentTable, TICK_NS, TallyMatch, ticks};
use dataplane::policy::{FamilyPolicy, Match, Target};

use crate::api::protocol::{
    FamilyName, HashInfo, HashRow, LimitInfo, RecentAddress, RecentChange, RecentList,
};
use crate::api::{Code, Failure, Response};
use crate::apply::{PolicyStore, PolicyView};
use crate::model::{MatchBody, MeasureSpec, MetaSpec, TallySpec, TargetSpec};

/// Entries of one table that are told.
const ROWS: usize = 10_000;

fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from((bits as u32).to_be_bytes()),
        Family::V6 => IpAddr::from(bits.to_be_bytes()),
    }
}

fn bits(address: IpAddr) -> (Family, u128) {
    match address {
        IpAddr::V4(v4) => (Family::V4, u128::from(v4.to_bits())),
        IpAddr::V6(v6) => (Family::V6, v6.to_bits()),
    }
}

fn no_list(name: &str) -> Failure {
    Failure::new(Code::Refused, format!("no rule has a recent list {name}"))
}

/// The lists, or the one of that name.
pub(super) fn recent(store: &PolicyStore, name: Option<&str>) -> Result<Response, Failure> {
    let now = monotonic();
    let mut lists = store.recent_lists();
    lists.retain(|(list, _)| name.is_none_or(|name| **list == *name));
    match name {
        Some(name) if lists.is_empty() => Err(no_list(name)),
        _ => {
            let lists = lists.iter().map(|(name, table)| list(name, table, now)).collect();
            Ok(Response::Recent { lists })
        }
    }
}

fn list(name: &str, table: &RecentTable, now: Nanos) -> RecentList {
    let tick = ticks(now);
    let addresses = table.list().into_iter().map(|seen| RecentAddress {
        address: address(seen.family, seen.address),
        ttl: seen.ttl,
        age_ms: tick.saturating_sub(seen.last()) * (TICK_NS / 1_000_000),
        line: seen.to_string(),
        times: seen.times,
    });
    let (most, times) = (table.entries(), table.times());
    let addresses = addresses.collect();
    RecentList { name: name.to_owned(), most, times, now: tick, addresses }
}

/// Changes a list by hand, as writing to its file in `/proc` would.
pub(super) fn change_recent(
    store: &PolicyStore,
    name: &str,
    change: &RecentChange,
) -> Result<Response, Failure> {
    let lists = store.recent_lists();
    let found = lists.iter().find(|(list, _)| **list == *name);
    let (_, table) = found.ok_or_else(|| no_list(name))?;
    let changed = match change {
        RecentChange::Add(address) => {
            let (family, bits) = bits(*address);
            table.add(family, bits, monotonic());
            1
        }
        RecentChange::Remove(address) => {
            let (family, bits) = bits(*address);
            u64::from(table.remove(family, bits))
        }
        RecentChange::Flush => {
            let before = table.len() as u64;
            table.flush();
            before
        }
    };
    Ok(Response::RecentChanged { changed })
}

/// Every limit in force, and the tables of that name.
pub(super) fn limits(store: &PolicyStore, name: Option<&str>) -> Result<Response, Failure> {
    let now = monotonic();
    let (limits, tables) = store.read(|view| {
        let mut found =
            Found { now, limits: Vec::new(), shared: BTreeMap::new(), tables: Vec::new() };
        let policy = &view.snapshot().policy;
        found.family(view, FamilyName::V4, &policy.v4);
        found.family(view, FamilyName::V6, &policy.v6);
        (found.limits, found.tables)
    });
    let wanted = tables.into_iter().filter(|(_, table, _)| name == Some(table));
    let tables: Vec<HashInfo> =
        wanted.map(|(family, name, table)| table_of(family, name, &table, now)).collect();
    match name {
        Some(name) if tables.is_empty() => {
            Err(Failure::new(Code::Refused, format!("no rule has a hashlimit table {name}")))
        }
        _ => Ok(Response::Limits { limits, tables }),
    }
}

struct Found {
    now: Nanos,
    limits: Vec<LimitInfo>,
    /// Where shared ones stand among the limits.
    shared: BTreeMap<(&'static str, u8, String), usize>,
    tables: Vec<(FamilyName, String, std::sync::Arc<HashTable>)>,
}

impl Found {
    fn family<A: Address>(
        &mut self,
        view: &PolicyView<'_>,
        name: FamilyName,
        policy: &FamilyPolicy<A>,
    ) {
        let family = if name == FamilyName::V4 { Family::V4 } else { Family::V6 };
        let rules = view.rules(family);
        let chains = rules
            .tables
            .iter()
            .flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
        for ((table, chain), compiled) in chains.zip(&policy.chains) {
            for (index, (rule, made)) in chain.rules.iter().zip(&compiled.rules).enumerate() {
                let place = || format!("{} {} {}", table.id.name(), chain.name, index + 1);
                let bodies = rule.matches.iter().map(|spec| &spec.body);
                let bodies = bodies
                    .filter(|body| !matches!(body, MatchBody::Comment(_) | MatchBody::Empty(_)));
                for (body, made) in bodies.zip(&made.matches) {
                    self.one(name, body, made, place());
                }
                if let (TargetSpec::Meta(spec), Target::Meta(made)) = (&rule.target, &made.target) {
                    self.timer(spec, made, place());
                }
            }
        }
    }

    fn one(&mut self, family: FamilyName, body: &MatchBody, made: &Match, rule: String) {
        let info = |kind: &str, used, most| LimitInfo {
            kind: kind.to_owned(),
            family: Some(family),
            name: None,
            rule: rule.clone(),
            rules: 1,
            used,
            most,
            left_s: None,
        };
        match (body, made) {
            (_, Match::Limit(cell)) => {
                let (left, most) = cell.packets(self.now);
                let used = most.saturating_sub(left);
                self.limits.push(info("limit", u64::from(used), u64::from(most)));
            }
            (_, Match::Tally(TallyMatch::Conn(conn))) => {
                let used = conn.table.len().1 as u64;
                let most = dataplane::policy::tally::connlimit::MOST as u64;
                self.limits.push(info("connlimit", used, most));
            }
            (
                MatchBody::Tally(TallySpec::Hash { name, .. }),
                Match::Tally(TallyMatch::Hash(hash)),
            ) => {
                let (used, most) =
                    (hash.table.len() as u64, u64::from(hash.table.settings.capacity()));
                if self.shared(
                    ("hashlimit", family as u8, name.to_string()),
                    info("hashlimit", used, most),
                ) {
                    self.tables.push((family, name.to_string(), hash.table.clone()));
                }
            }
            (
                MatchBody::Tally(TallySpec::Recent { name, .. }),
                Match::Tally(TallyMatch::Recent(recent)),
            ) => {
                let (used, most) = (recent.table.len() as u64, u64::from(recent.table.entries()));
                let info = LimitInfo { family: None, ..info("recent", used, most) };
                self.shared(("recent", 0, name.to_string()), info);
            }
            (
                MatchBody::Measure(MeasureSpec::Quota { bytes, .. }),
                Match::Measure(MeasureMatch::Quota(quota)),
            ) => {
                let used = bytes.saturating_sub(quota.value.left());
                self.limits.push(info("quota", used, *bytes));
            }
            _ => {}
        }
    }

    /// What IDLETIMER keeps running, by its label.
    fn timer(&mut self, spec: &MetaSpec, made: &MetaTarget, rule: String) {
        let (MetaSpec::IdleTimer { label, timeout_s, .. }, MetaTarget::IdleTimer { timer, .. }) =
            (spec, made)
        else {
            return;
        };
        let (most, left) = (u64::from(*timeout_s), timer.left(self.now).unwrap_or_default());
        let left_s = left.0 / Nanos::SECOND.0;
        let info = LimitInfo {
            kind: "idletimer".to_owned(),
            family: None,
            name: None,
            rule,
            rules: 1,
            used: most.saturating_sub(left.0.div_ceil(Nanos::SECOND.0)),
            most,
            left_s: Some(left_s),
        };
        self.shared(("idletimer", 0, label.to_string()), info);
    }

    /// Notes something with a name; whether it is the first of it.
    fn shared(&mut self, key: (&'static str, u8, String), info: LimitInfo) -> bool {
        if let Some(&at) = self.shared.get(&key) {
            self.limits[at].rules += 1;
            return false;
        }
        let name = Some(key.2.clone());
        self.shared.insert(key, self.limits.len());
        self.limits.push(LimitInfo { name, ..info });
        true
    }
}

fn table_of(family: FamilyName, name: String, table: &HashTable, now: Nanos) -> HashInfo {
    let tick = ticks(now);
    let rows = table.rows(tick);
    let of = if family == FamilyName::V4 { Family::V4 } else { Family::V6 };
    let rate = table.settings.rate;
    let told = |row: &Row| HashRow {
        expires_s: row.expires.saturating_sub(tick) * TICK_NS / 1_000_000_000,
        src: address(of, row.src.0),
        sport: row.src.1,
        dst: address(of, row.dst.0),
        dport: row.dst.1,
        credit: row.bucket.credit,
        cap: rate.cap(),
        cost: rate.cost(),
    };
    let entries = rows.len() as u64;
    HashInfo { family, name, entries, rows: rows.iter().take(ROWS).map(told).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::Change;
    use crate::iptables::{TableNames, parse};

    #[test]
    fn idle_timers_and_quotas_are_told_by_label_and_rule() {
        let text = "*mangle\n-A FORWARD -j IDLETIMER --timeout 600 --label lan\n\
            -A FORWARD -m quota --quota 1000\n-A FORWARD -j IDLETIMER --timeout 600 --label lan\n\
            -A FORWARD -j IDLETIMER --timeout 60 --label wan\nCOMMIT\n";
        let names = TableNames::well_known();
        let v4 = parse(text, "rules", Family::V4, &names).expect("good rules").ruleset;
        let change = Change { v4: Some(v4), ..Change::default() };
        let store = PolicyStore::open(change, vec!["p0".to_owned()], 1).unwrap();
        store.read(|view| {
            let chains = &view.snapshot().policy.v4.chains;
            let rules = chains.iter().flat_map(|chain| &chain.rules);
            let mut targets = rules.map(|rule| &rule.target);
            let Some(Target::Meta(MetaTarget::IdleTimer { timer, .. })) = targets.nth_back(0)
            else {
                panic!("the last rule's timer");
            };
            timer.start(Nanos(0), Nanos(1));
        });
        let Ok(Response::Limits { limits, .. }) = limits(&store, None) else { panic!("limits") };
        let told: Vec<_> = limits
            .iter()
            .map(|info| (info.kind.as_str(), info.name.as_deref(), info.rules, info.most))
            .collect();
        assert_eq!(
            told,
            [
                ("idletimer", Some("lan"), 2, 600),
                ("quota", None, 1, 1000),
                ("idletimer", Some("wan"), 1, 60)
            ]
        );
        let left = limits[0].left_s.unwrap();
        assert!((590..600).contains(&left) && limits[0].used <= 10, "runs since it was loaded");
        assert_eq!((limits[2].left_s, limits[2].used), (Some(0), 60), "has run out");
        assert_eq!((limits[1].used, limits[1].left_s), (0, None));
        let json = serde_json::to_string(&limits[2]).unwrap();
        assert!(json.contains(r#""kind":"idletimer","name":"wan""#), "{json}");
        assert!(json.contains(r#""left_s":0"#), "{json}");
    }
}
