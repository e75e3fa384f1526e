//! Routes and policy rules of one family, indexed.

use std::collections::HashMap;
use std::net::IpAddr;

use super::kinds::devices;
use super::lpm::{Bits, Intervals, Lpm, Span};
use super::network::{Query, Route, address_bits, family_of, span};
use super::realms::Realms;
use super::{PortInfo, RouteEntry, RouteKind, RuleEntry, derive};
use crate::packet::{Family, PortId};

/// One policy rule, indexed.
#[derive(Clone, Copy, Debug)]
struct Rule {
    mark: (u32, u32),
    from: Option<Span>,
    to: Option<Span>,
    iif: Option<PortId>,
    table: usize,
    realms: Realms,
}

#[derive(Debug)]
struct Table<A> {
    number: u32,
    lpm: Lpm<A>,
}

/// Routes and rules of one family.
#[derive(Debug)]
pub(super) struct Routes<A> {
    rules: Vec<Rule>,
    tables: Vec<Table<A>>,
    routes: Vec<Route>,
    /// What the rules' tables say together, where nothing but the destination counts:
    /// the kernel's default rules, and no realm of theirs.
    together: Option<Lpm<A>>,
    /// Whether policy rules other than the kernel's defaults exist.
    pub(super) custom_rules: bool,
    /// Whether any route or rule has a realm.
    pub(super) realms: bool,
    /// Where table "local" is in `tables`.
    local: Option<usize>,
}

impl<A> Default for Routes<A> {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            tables: Vec::new(),
            routes: Vec::new(),
            together: None,
            custom_rules: false,
            realms: false,
            local: None,
        }
    }
}

/// A route where it is kept, and the realms of the rule that led to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'n> {
    pub(super) kept: &'n Route,
    rule: Realms,
}

impl Found<'_> {
    /// A copy, complete.
    pub(super) fn route(self) -> Route {
        Route { realms: (self.kept.realms.0, self.rule), ..*self.kept }
    }
    /// [`Route::realms`] of the copy.
    #[inline]
    pub(super) fn realms(self) -> Realms {
        self.kept.realms.0.or(self.rule)
    }
}

impl<A: Bits> Routes<A> {
    /// Indexes those of `entries` that are the family's and of ports that are up.
    pub(super) fn build(
        family: Family,
        entries: &[RouteEntry],
        rules: &[RuleEntry],
        ports: &[PortInfo],
    ) -> Self {
        let usable = |entry: &&RouteEntry| {
            let up = match entry.kind {
                RouteKind::Unicast(port) => ports[port.index()].up,
                _ => true,
            };
            up && family_of(&entry.to.0) == family
        };
        let mut best: HashMap<(u32, u128, u8), &RouteEntry> = HashMap::new();
        let mut all: HashMap<(u32, u128, u8), u64> = HashMap::new();
        let mut order = Vec::new();
        for entry in entries.iter().filter(usable) {
            let key = (entry.table, span(entry.to).first, entry.to.1);
            if family == Family::V6 {
                *all.entry(key).or_default() |= devices(entry);
            }
            match best.get(&key) {
                Some(held) if metric(held) <= metric(entry) => {}
                held => {
                    if held.is_none() {
                        order.push(key);
                    }
                    best.insert(key, entry);
                }
            }
        }
        let mut built = Self::default();
        let mut prefixes: HashMap<u32, Vec<(Span, u32)>> = HashMap::new();
        for key in order {
            let entry = best[&key];
            let index = built.routes.len() as u32;
            prefixes.entry(entry.table).or_default().push((span(entry.to), index));
            built.routes.push(Route {
                kind: entry.kind,
                via: entry.via.map(|via| (family_of(&via), address_bits(via))),
                mtu: entry.mtu,
                prefsrc: entry.prefsrc.map(address_bits),
                table: entry.table,
                prefix_len: entry.to.1,
                devices: match family {
                    Family::V4 => devices(entry),
                    Family::V6 => all[&key],
                },
                anycast: entry.anycast,
                realms: (entry.realms, Realms::default()),
            });
            built.realms |= entry.realms.is_set();
        }
        let mut tables: Vec<_> = prefixes.into_iter().collect();
        tables.sort_by_key(|&(number, _)| number);
        let flat = tables.into_iter().map(|(number, prefixes)| (number, Intervals::of(prefixes)));
        let flat: Vec<_> = flat.collect();
        let index =
            |(number, flat): &(u32, Intervals)| Table { number: *number, lpm: Lpm::index(flat) };
        built.tables = flat.iter().map(index).collect();
        built.local = built.tables.iter().position(|table| table.number == derive::LOCAL);
        built.index_rules(derive::complete_rules(family, rules));
        if built.rules.iter().all(Rule::is_plain) {
            let asked: Vec<_> = built.rules.iter().map(|rule| &flat[rule.table].1).collect();
            let counts = |index: u32| built.routes[index as usize].kind != RouteKind::Throw;
            built.together = Some(Lpm::index(&Intervals::overlaid(&asked, counts)));
        }
        built
    }

    /// Rules that ask a table without routes can never answer and are left out.
    fn index_rules(&mut self, rules: Vec<RuleEntry>) {
        for rule in rules {
            self.custom_rules |= !derive::is_default_rule(&rule);
            self.realms |= rule.realms.is_set();
            if let Some(table) = self.tables.iter().position(|t| t.number == rule.table) {
                self.rules.push(Rule {
                    mark: rule.fwmark.unwrap_or((0, 0)),
                    from: rule.from.map(span),
                    to: rule.to.map(span),
                    iif: rule.iif,
                    table,
                    realms: rule.realms,
                });
            }
        }
    }

    /// The route that rules and tables give.
    #[inline]
    pub(super) fn find(&self, query: &Query) -> Option<Found<'_>> {
        match &self.together {
            Some(together) => {
                let index = together.get(A::of(query.dst))?;
                let kept = &self.routes[index as usize];
                Some(Found { kept, rule: Realms::default() })
            }
            None => self.find_by_rules(query),
        }
    }

    /// The same, rule by rule.
    pub(super) fn find_by_rules(&self, query: &Query) -> Option<Found<'_>> {
        for rule in &self.rules {
            if !rule.matches(query) {
                continue;
            }
            let found = self.tables[rule.table].lpm.get(A::of(query.dst));
            let Some(index) = found else { continue };
            let kept = &self.routes[index as usize];
            if kept.kind != RouteKind::Throw {
                return Some(Found { kept, rule: rule.realms });
            }
        }
        None
    }

    /// What table "local" alone says of an address.
    pub(super) fn in_local_table(&self, address: u128) -> Option<Route> {
        let index = self.tables[self.local?].lpm.get(A::of(address))?;
        Some(self.routes[index as usize])
    }
}

impl Rule {
    /// Whether it applies to every packet, and gives it no realm.
    fn is_plain(&self) -> bool {
        let all = self.mark.1 == 0 && self.mark.0 == 0 && self.iif.is_none();
        all && self.from.is_none() && self.to.is_none() && !self.realms.is_set()
    }

    #[inline]
    fn matches(&self, query: &Query) -> bool {
        let inside = |span: Option<Span>, address| {
            span.is_none_or(|span| span.first <= address && address <= span.last)
        };
        (query.mark ^ self.mark.0) & self.mark.1 == 0
            && (self.iif.is_none() || self.iif == query.iif)
            && inside(self.from, query.src)
            && inside(self.to, query.dst)
    }
}

fn metric(entry: &RouteEntry) -> u32 {
    match (entry.to.0, entry.metric) {
        (IpAddr::V6(_), 0) => 1024,
        (_, metric) => metric,
    }
}
