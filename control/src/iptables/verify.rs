//! What the kernel checks when a whole table is loaded: loops of jumps, and
//! matches that only work at some hooks.

use std::collections::HashMap;

use dataplane::policy::matches::Match;
use dataplane::policy::place::{AddrTypeMatch, IpsecDirection, Limit, PlaceMatch};
use dataplane::policy::protocol::ProtocolMatch;
use dataplane::policy::target::{HeaderTarget, NatTarget, TcpMss};
use dataplane::policy::{Hook, TableId};

use super::extension::Problem;
use super::table;
use crate::diagnostics::Code;
use crate::model::{MatchBody, MetaSpec, Ruleset, Span, Table, TargetSpec};

/// All problems of a parsed ruleset.
pub(super) fn verify(ruleset: &Ruleset) -> Vec<Problem> {
    let mut problems = Vec::new();
    for table in &ruleset.tables {
        let graph = Graph::new(table);
        graph.loops(&mut problems);
        graph.hooks(&mut problems);
    }
    problems
}

/// The jumps of one table by chain index.
struct Graph<'t> {
    table: &'t Table,
    /// For each chain, its rules that jump and where to.
    jumps: Vec<Vec<(usize, usize)>>,
}

/// State of a chain in the search for loops.
#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    Open,
    Done,
}

impl<'t> Graph<'t> {
    fn new(table: &'t Table) -> Self {
        let index: HashMap<&str, usize> =
            table.chains.iter().enumerate().map(|(i, chain)| (chain.name.as_str(), i)).collect();
        let jumps = table.chains.iter().map(|chain| {
            let targets = chain.rules.iter().enumerate().filter_map(|(at, rule)| {
                let (TargetSpec::Jump(to) | TargetSpec::Goto(to)) = &rule.target else {
                    return None;
                };
                Some((at, *index.get(to.as_str())?))
            });
            targets.collect()
        });
        Self { table, jumps: jumps.collect() }
    }

    /// Reports each jump that closes a loop, whether or not a packet can get
    /// there: a loop is never meant.
    fn loops(&self, problems: &mut Vec<Problem>) {
        let mut state = vec![Visit::New; self.jumps.len()];
        for start in 0..self.jumps.len() {
            if state[start] != Visit::New {
                continue;
            }
            state[start] = Visit::Open;
            let mut path = vec![(start, 0)];
            while let Some((chain, next)) = path.last_mut() {
                let from = *chain;
                let Some(&(rule, to)) = self.jumps[from].get(*next) else {
                    state[from] = Visit::Done;
                    path.pop();
                    continue;
                };
                *next += 1;
                match state[to] {
                    Visit::Done => {}
                    Visit::Open => {
                        let loop_ = path.iter().map(|(chain, _)| *chain);
                        let names = loop_.skip_while(|chain| *chain != to).chain([to]);
                        problems.push(self.loop_problem(from, rule, names));
                    }
                    Visit::New => {
                        state[to] = Visit::Open;
                        path.push((to, 0));
                    }
                }
            }
        }
    }

    fn loop_problem(
        &self,
        chain: usize,
        rule: usize,
        path: impl Iterator<Item = usize>,
    ) -> Problem {
        let names: Vec<&str> =
            path.map(|index| self.table.chains[index].name.as_str()).take(16).collect();
        let rule = &self.table.chains[chain].rules[rule];
        let message = format!("this jump closes a loop: {}", names.join(" -> "));
        Problem::new(Code::JumpLoop, rule.target_span, message)
    }

    /// Hooks that each chain can be reached from, as bits.
    fn reach(&self) -> Vec<u8> {
        let mut reached = vec![0_u8; self.jumps.len()];
        for (start, hook) in table::hooks(self.table.id).iter().enumerate() {
            let bit = 1 << *hook as u8;
            let mut waiting = vec![start];
            while let Some(chain) = waiting.pop() {
                if reached[chain] & bit == 0 {
                    reached[chain] |= bit;
                    waiting.extend(self.jumps[chain].iter().map(|(_, to)| *to));
                }
            }
        }
        reached
    }

    /// The refusal of a match that works in some tables only.
    fn wrong_table(&self, body: &Match, at: Span) -> Option<Problem> {
        let Match::Place(PlaceMatch::RpFilter(_)) = body else { return None };
        let good = matches!(self.table.id, TableId::Raw | TableId::Mangle);
        let message = format!(
            "the rpfilter match works in the tables raw and mangle only, this is {}",
            self.table.id.name()
        );
        let remedy = "put the rule into PREROUTING of raw or mangle";
        (!good).then(|| Problem::new(Code::WrongTable, at, message).remedy(remedy))
    }

    /// Matches and targets that only work at some hooks.
    fn hooks(&self, problems: &mut Vec<Problem>) {
        for (chain, reached) in self.table.chains.iter().zip(self.reach()) {
            for rule in &chain.rules {
                for spec in &rule.matches {
                    let MatchBody::Plain(body) = &spec.body else { continue };
                    problems.extend(self.wrong_table(body, spec.span));
                    let Some((what, good)) = match_hooks(body) else { continue };
                    problems.extend(misplaced(what, good, reached, spec.span));
                }
                let (what, good) = match &rule.target {
                    TargetSpec::Nat(nat) => (nat.name(), nat_hooks(nat)),
                    TargetSpec::Synproxy(_) => {
                        ("SYNPROXY", [Hook::Input, Hook::Forward].as_slice())
                    }
                    // A class is for what goes out.
                    TargetSpec::Meta(MetaSpec::Classify(_)) => {
                        let good = [Hook::Forward, Hook::Output, Hook::Postrouting].as_slice();
                        ("CLASSIFY", good)
                    }
                    TargetSpec::Header(HeaderTarget::Prefix(prefix)) => {
                        let good: &[Hook] = match prefix.source {
                            true => &[Hook::Input, Hook::Postrouting],
                            false => &[Hook::Prerouting, Hook::Output],
                        };
                        (prefix.name(), good)
                    }
                    // The path must be known by then.
                    TargetSpec::Header(HeaderTarget::TcpMss(TcpMss::ClampToPmtu)) => {
                        let good = [Hook::Forward, Hook::Output, Hook::Postrouting].as_slice();
                        ("--clamp-mss-to-pmtu", good)
                    }
                    // The kernel says so.
                    TargetSpec::Set(set)
                        if set.map.is_some_and(|map| map.priority || map.queue) =>
                    {
                        let good = [Hook::Forward, Hook::Output, Hook::Postrouting].as_slice();
                        ("SET --map-prio or --map-queue", good)
                    }
                    _ => continue,
                };
                problems.extend(misplaced(what, good, reached, rule.target_span));
            }
        }
    }
}

/// Where a match works, if not everywhere.
fn match_hooks(body: &Match) -> Option<(&'static str, &'static [Hook])> {
    const INWARD: &[Hook] = &[Hook::Prerouting, Hook::Input, Hook::Forward];
    const OUTWARD: &[Hook] = &[Hook::Forward, Hook::Output, Hook::Postrouting];
    Some(match body {
        // It needs a packet that came in through an interface.
        Match::MacSource(_) => ("the mac match", INWARD),
        Match::Protocol(ProtocolMatch::Eui64) => ("the eui64 match", INWARD),
        Match::Place(PlaceMatch::Owner(_)) => {
            ("the owner match", &[Hook::Output, Hook::Postrouting])
        }
        Match::Place(PlaceMatch::Physdev(ports)) if ports.asks_way_out() => {
            const ELSEWHERE: &[Hook] =
                &[Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Postrouting];
            ("--physdev-out or --physdev-is-out without --physdev-is-bridged", ELSEWHERE)
        }
        Match::Place(PlaceMatch::RpFilter(_)) => ("the rpfilter match", &[Hook::Prerouting]),
        Match::Place(PlaceMatch::DevGroup(asked)) => match (asked.src, asked.dst) {
            (_, None) => ("--src-group", INWARD),
            (None, _) => ("--dst-group", OUTWARD),
            _ => ("--src-group with --dst-group", &[Hook::Forward]),
        },
        // The kernel asks the packet's route.
        Match::Place(PlaceMatch::Realm(_)) => {
            ("the realm match", &[Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting])
        }
        Match::Place(PlaceMatch::Ipsec(ipsec)) => match ipsec.direction {
            IpsecDirection::In => ("--dir in", INWARD),
            IpsecDirection::Out => ("--dir out", OUTWARD),
        },
        Match::Place(PlaceMatch::AddrType(AddrTypeMatch { limit: Some(limit), .. })) => match limit
        {
            Limit::Input => ("--limit-iface-in", INWARD),
            Limit::Output => ("--limit-iface-out", OUTWARD),
        },
        _ => return None,
    })
}

/// Where a translation can be decided; the kernel's table.
fn nat_hooks(nat: &NatTarget) -> &'static [Hook] {
    match nat {
        NatTarget::Snat(_) => &[Hook::Postrouting, Hook::Input],
        NatTarget::Dnat(_) | NatTarget::Redirect(_) => &[Hook::Prerouting, Hook::Output],
        NatTarget::Masquerade(_) => &[Hook::Postrouting],
        NatTarget::Netmap(_) => &[Hook::Prerouting, Hook::Input, Hook::Output, Hook::Postrouting],
    }
}

/// The refusal of what works at the `good` hooks only and is `reached` from another.
fn misplaced(what: &str, good: &[Hook], reached: u8, at: Span) -> Option<Problem> {
    let wrong = Hook::ALL
        .into_iter()
        .find(|hook| reached & 1 << *hook as u8 != 0 && !good.contains(hook))?;
    let names: Vec<&str> = good.iter().map(|hook| hook.chain_name()).collect();
    let (last, front) = names.split_last()?;
    let list = if front.is_empty() {
        (*last).to_string()
    } else {
        format!("{} and {last}", front.join(", "))
    };
    let message = format!(
        "{what} works in {list} only, and this rule is reached from {}",
        wrong.chain_name()
    );
    let remedy = format!("put the rule where only {list} gets to it");
    Some(Problem::new(Code::WrongHook, at, message).remedy(remedy))
}
