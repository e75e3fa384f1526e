//! The rates between two samples: what a frame of the screen, and of `--json`, tells.

use std::collections::{BTreeMap, HashMap};

use dataplane::clock::Nanos;
use serde::Serialize;

use super::Sample;
use crate::api::protocol::{FamilyName, OffenderInfo, PortStatus, Ports, Rules, TalkerInfo};

/// Rules and reasons that are told at most.
const MOST: usize = 64;

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PortRate {
    /// Its name.
    pub port: String,
    /// Whether its link is up and it is in service.
    pub up: bool,
    /// Frames received a second.
    pub rx_packets: f64,
    /// Bits received a second.
    pub rx_bits: f64,
    /// Frames sent a second.
    pub tx_packets: f64,
    /// Bits sent a second.
    pub tx_bits: f64,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerRate {
    /// Its number.
    pub worker: usize,
    /// Its core.
    pub core: Option<usize>,
    /// Frames received a second.
    pub rx_packets: f64,
    /// Frames sent a second.
    pub tx_packets: f64,
    /// Frames dropped a second.
    pub drops: f64,
    /// Frames in a burst.
    pub burst: f64,
}

/// A rule, or a chain's policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RuleRate {
    /// `v4 filter FORWARD 3`; the policy has no number.
    pub place: String,
    /// What it says.
    pub text: String,
    /// Packets a second.
    pub packets: f64,
    /// Bits a second.
    pub bits: f64,
}

/// The connection table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// Connections.
    pub entries: u64,
    /// At most.
    pub capacity: u64,
    /// How many more a second.
    pub growth: f64,
    /// New ones a second.
    pub inserts: f64,
    /// Packets that found no room a second.
    pub failed: f64,
    /// Whether sources have quotas.
    pub crowded: bool,
    /// Seconds until it is full at this growth.
    pub full_in_s: Option<f64>,
}

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Frame {
    /// Seconds between the samples of the workers; ports and rules have their own.
    pub seconds: f64,
    /// The policy's generation.
    pub generation: u64,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// Frames received a second, over all ports.
    pub rx_packets: f64,
    /// Frames sent.
    pub tx_packets: f64,
    /// Frames dropped, the XDP program's included.
    pub drops: f64,
    /// By port.
    pub ports: Vec<PortRate>,
    /// By worker.
    pub workers: Vec<WorkerRate>,
    /// Rules and policies with hits, the busiest first.
    pub rules: Vec<RuleRate>,
    /// Drops a second by reason, the most first.
    pub reasons: Vec<(String, f64)>,
    /// The connection table.
    pub conntrack: Table,
    /// Sources with the most connections.
    pub talkers: Vec<TalkerInfo>,
    /// Sources that met their quota in a crowded table.
    pub offenders: Vec<OffenderInfo>,
    /// Sources that cause the most records, and how many since the log was begun.
    pub reported: Vec<(String, u64)>,
    /// Records written a second.
    pub log_written: f64,
    /// Records lost a second.
    pub log_lost: f64,
    /// Records lost since the daemon started.
    pub log_lost_ever: u64,
}

/// A rate; counters that went backwards (a restart) count from zero.
fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    let grown = if now >= before { now - before } else { now };
    grown as f64 / seconds
}

impl Frame {
    /// What happened between two samples. Times that do not rise count as a millisecond.
    pub fn between(before: &Sample, now: &Sample) -> Self {
        let passed = |before: Nanos, now: Nanos| {
            now.saturating_sub(before).max(Nanos::MILLISECOND).0 as f64 / 1e9
        };
        let seconds = passed(before.at.stats, now.at.stats);
        let ports_seconds = passed(before.at.ports, now.at.ports);
        let rules_seconds = passed(before.at.rules, now.at.rules);
        let per = |before: u64, now: u64| rate(before, now, seconds);
        let (old, new) = (&before.stats, &now.stats);
        let ports = ports(&before.ports, &now.ports, ports_seconds);
        let workers = new.workers.iter().map(|worker| {
            let was = old.workers.iter().find(|was| was.worker == worker.worker);
            let sum = |drops: &BTreeMap<String, u64>| drops.values().sum::<u64>();
            let rx_packets = per(was.map_or(0, |it| it.rx_packets), worker.rx_packets);
            let bursts = per(was.map_or(0, |it| it.bursts), worker.bursts);
            WorkerRate {
                worker: worker.worker,
                core: worker.core,
                rx_packets,
                tx_packets: per(was.map_or(0, |it| it.tx_packets), worker.tx_packets),
                drops: per(was.map_or(0, |it| sum(&it.drops)), sum(&worker.drops)),
                burst: if bursts > 0.0 { rx_packets / bursts } else { 0.0 },
            }
        });
        let workers: Vec<WorkerRate> = workers.collect();
        let mut reasons: Vec<(String, f64)> = new
            .drops
            .iter()
            .map(|(why, count)| {
                (why.clone(), per(old.drops.get(why).copied().unwrap_or(0), *count))
            })
            .filter(|reason| reason.1 > 0.0)
            .collect();
        reasons.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let reported = now.log.sources.iter().map(|it| (it.name.clone(), it.records)).collect();
        Self {
            seconds,
            generation: new.generation,
            uptime_s: new.uptime_ms / 1000,
            rx_packets: ports.iter().map(|port| port.rx_packets).sum(),
            tx_packets: ports.iter().map(|port| port.tx_packets).sum(),
            drops: reasons.iter().map(|reason| reason.1).sum(),
            ports,
            workers,
            rules: rules(&before.rules, &now.rules, rules_seconds),
            reasons,
            conntrack: table(before, now, seconds),
            talkers: now.talkers.clone(),
            offenders: new.conntrack.offenders.clone(),
            reported,
            log_written: per(old.log_written, new.log_written),
            log_lost: per(old.log_lost, new.log_lost),
            log_lost_ever: new.log_lost,
        }
    }
}

fn ports(before: &Ports, now: &Ports, seconds: f64) -> Vec<PortRate> {
    let per_port = |was: u64, is: u64| rate(was, is, seconds);
    let rates = now.ports.iter().map(|port| {
        let was = before.ports.iter().find(|was| was.name == port.name);
        let past = |value: fn(&PortStatus) -> u64| was.map_or(0, value);
        PortRate {
            port: port.name.clone(),
            up: port.up && port.out_of_service.is_none(),
            rx_packets: per_port(past(|it| it.rx_packets), port.rx_packets),
            rx_bits: per_port(past(|it| it.rx_bytes), port.rx_bytes) * 8.0,
            tx_packets: per_port(past(|it| it.tx_packets), port.tx_packets),
            tx_bits: per_port(past(|it| it.tx_bytes), port.tx_bytes) * 8.0,
        }
    });
    rates.collect()
}

fn table(before: &Sample, now: &Sample, seconds: f64) -> Table {
    let (old, new) = (&before.stats.conntrack, &now.stats.conntrack);
    let count = |name: &str| {
        let of = |stats: &BTreeMap<String, u64>| stats.get(name).copied().unwrap_or(0);
        rate(of(&old.counters), of(&new.counters), seconds)
    };
    let growth = (new.entries as f64 - old.entries as f64) / seconds;
    let left = new.capacity.saturating_sub(new.entries) as f64;
    Table {
        entries: new.entries,
        capacity: new.capacity,
        growth,
        inserts: count("insert"),
        failed: count("insert_failed") + count("drop"),
        crowded: new.crowded,
        full_in_s: (growth > 0.0).then(|| left / growth),
    }
}

/// A rule: whether it is IPv6's, table, chain, number, and what it says.
type Place<'r> = (bool, &'r str, &'r str, Option<u32>, &'r str);

fn counted(rules: &Rules) -> impl Iterator<Item = (Place<'_>, (u64, u64))> {
    rules.chains.iter().filter(|chain| chain.enforced).flat_map(|chain| {
        let family = chain.family == FamilyName::V6;
        let (table, name) = (chain.table.as_str(), chain.chain.as_str());
        let own = chain.rules.iter().map(move |rule| {
            let place = (family, table, name, Some(rule.number), rule.text.as_str());
            (place, (rule.packets, rule.bytes))
        });
        let policy = chain.policy.as_deref();
        let end =
            policy.map(|text| ((family, table, name, None, text), (chain.packets, chain.bytes)));
        own.chain(end)
    })
}

fn rules(before: &Rules, now: &Rules, seconds: f64) -> Vec<RuleRate> {
    let known: HashMap<Place<'_>, (u64, u64)> = counted(before).collect();
    let mut rates: Vec<RuleRate> = counted(now)
        .map(|(place, (packets, bytes))| {
            // Another policy's rule: what it has counted so far is no rate.
            let was = known.get(&place).copied().unwrap_or((packets, bytes));
            let (family, table, chain, number, text) = place;
            let family = if family { "v6" } else { "v4" };
            let number = number.map_or("policy".to_owned(), |number| number.to_string());
            RuleRate {
                place: format!("{family} {table} {chain} {number}"),
                text: text.strip_prefix(&format!("-A {chain} ")).unwrap_or(text).to_owned(),
                packets: rate(was.0, packets, seconds),
                bits: rate(was.1, bytes, seconds) * 8.0,
            }
        })
        .filter(|rule| rule.packets > 0.0)
        .collect();
    rates.sort_by(|a, b| b.packets.total_cmp(&a.packets).then_with(|| a.place.cmp(&b.place)));
    rates.truncate(MOST);
    rates
}
