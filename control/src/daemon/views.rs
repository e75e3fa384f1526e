//! What `show` shows: the daemon's state as protocol values.

use std::collections::BTreeMap;

use dataplane::clock::{Nanos, monotonic};
use dataplane::conntrack::{Conntrack, Offender};
use dataplane::fib::Mode;
use dataplane::packet::{Family, Mac, PortId};
use dataplane::policy::{ChainPolicy, Hook};
use dataplane::port::host::HostWay;
use dataplane::port::{Description, PortStatistics};
use dataplane::stats::WorkerStats;
use dataplane::verdict::DropReason;

use super::fleet::WorkerSight;
use super::logwriter::LogDesk;
use super::ports::PortBoard;
use super::service::NetworkInForce;
use crate::api::protocol::{
    ChainInfo, ConntrackStats, FamilyName, OffenderInfo, PortStatus, Ports, QueueStatus, RuleInfo,
    Rules, Stats, WorkerInfo,
};
use crate::apply::{PolicyView, Track};
use crate::audit::trend::Denied;
use crate::iptables::{TableNames, print};
use crate::model::Counters;
use crate::model::annotations::annotations;

/// Whether packets pass a built-in chain: without the host road the kernel keeps
/// what is addressed to this machine, and what it sends.
fn is_enforced(chain: &str, host_road: bool) -> bool {
    host_road || (chain != Hook::Input.chain_name() && chain != Hook::Output.chain_name())
}

/// Which chains are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) family: Option<FamilyName>,
    pub(super) table: Option<String>,
    pub(super) chain: Option<String>,
}

impl Wanted {
    /// What to say when a table or chain was named and nothing is there.
    pub(super) fn absence(&self) -> Option<String> {
        match (&self.table, &self.chain) {
            (None, None) => None,
            (Some(table), None) => Some(format!("the policy has no table {table}")),
            (None, Some(chain)) => Some(format!("the policy has no chain {chain}")),
            (Some(table), Some(chain)) => {
                Some(format!("the policy has no chain {chain} in table {table}"))
            }
        }
    }
}

fn of_name(name: FamilyName) -> Family {
    match name {
        FamilyName::V4 => Family::V4,
        FamilyName::V6 => Family::V6,
    }
}

/// The chains with their rules and counters.
pub(super) fn rules(
    view: &PolicyView<'_>,
    tracks: &[Track],
    wanted: &Wanted,
    host_road: bool,
) -> Rules {
    let names = TableNames::of_host();
    let keys = view.keys();
    let mut chains = Vec::new();
    for name in [FamilyName::V4, FamilyName::V6] {
        let family = of_name(name);
        let ruleset = view.rules(family);
        let entries = view.counters().chains().iter().filter(|entry| entry.family == family);
        let all = ruleset.tables.iter().flat_map(|t| t.chains.iter().map(move |c| (t.id, c)));
        for ((table, chain), entry) in all.zip(entries) {
            let skipped = wanted.family.is_some_and(|family| family != name)
                || wanted.table.as_ref().is_some_and(|only| only != table.name())
                || wanted.chain.as_ref().is_some_and(|only| *only != chain.name);
            if skipped {
                continue;
            }
            let (packets, bytes) = entry.policy.map_or((0, 0), |id| view.count(id));
            let rules = chain.rules.iter().enumerate().map(|(index, rule)| {
                let (packets, bytes) = entry.rule(index).map_or((0, 0), |id| view.count(id));
                let said = print::rule_text(rule, family, &names);
                let text = format!("-A {}{said}", chain.name);
                let track = entry.rule(index).and_then(|id| tracks.get(id.0 as usize));
                let Track { since_s, first_s, last_s } = track.copied().unwrap_or_default();
                let time = |seconds: u64| (seconds > 0).then_some(seconds);
                RuleInfo {
                    number: index as u32 + 1,
                    packets,
                    bytes,
                    text,
                    id: entry
                        .rule(index)
                        .map_or_else(String::new, |id| keys[id.0 as usize].to_string()),
                    since: time(since_s),
                    first_hit: time(first_s),
                    last_hit: time(last_s),
                    about: annotations(rule)
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                    unhittable: None,
                }
            });
            chains.push(ChainInfo {
                family: name,
                table: table.name().to_owned(),
                chain: chain.name.clone(),
                policy: chain.policy.map(|(policy, _)| policy_name(policy).to_owned()),
                packets,
                bytes,
                enforced: is_enforced(&chain.name, host_road),
                rules: rules.collect(),
            });
        }
    }
    Rules { generation: view.generation(), chains }
}

fn policy_name(policy: ChainPolicy) -> &'static str {
    match policy {
        ChainPolicy::Accept => "ACCEPT",
        ChainPolicy::Drop => "DROP",
    }
}

/// The policy as an iptables-save file.
pub(super) fn save(view: &PolicyView<'_>, family: FamilyName, counters: bool) -> String {
    let family = of_name(family);
    let names = TableNames::of_host();
    let count = |table, chain: &str, rule: Option<usize>| {
        let entry = view.counters().chain(family, table, chain);
        let id = entry.and_then(|entry| match rule {
            Some(index) => entry.rule(index),
            None => entry.policy,
        });
        let (packets, bytes) = id.map_or((0, 0), |id| view.count(id));
        Counters { packets, bytes }
    };
    print::print(view.rules(family), &names, counters.then_some(&count))
}

/// The ports as the kernel has them and as the workers use them, without notes.
pub(super) fn ports(
    in_force: &NetworkInForce,
    workers: &[WorkerSight],
    board: &PortBoard,
    program: impl Fn(PortId) -> BTreeMap<String, u64>,
) -> Ports {
    let network = &in_force.network;
    let mode = match network.mode() {
        Mode::Routed => "routed",
        Mode::Bridge(_) => "bridge",
        Mode::Host => "host",
    };
    let ports = network.ports().iter().enumerate().map(|(index, info)| {
        let id = PortId(index as u8);
        let mut status = PortStatus {
            name: info.name.clone(),
            up: info.up,
            mac: mac_text(info.mac),
            mtu: info.mtu,
            addresses: info.addresses.iter().map(|(a, len)| format!("{a}/{len}")).collect(),
            xdp: "none".to_owned(),
            out_of_service: board.reason(id),
            xdp_counters: program(id),
            queues: Vec::new(),
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
        };
        for (worker, sight) in workers.iter().enumerate() {
            add_worker(&mut status, worker, sight, id);
        }
        status
    });
    Ports {
        mode: mode.to_owned(),
        host_road: host_road(workers),
        ports: ports.collect(),
        failure: None,
        notes: Vec::new(),
    }
}

/// How frames move on the host road: all workers are alike.
pub(super) fn host_road(workers: &[WorkerSight]) -> String {
    let way = workers.first().map_or(0, |sight| sight.stats.host_way.get());
    HostWay::from_number(way).name().to_owned()
}

fn add_worker(status: &mut PortStatus, worker: usize, sight: &WorkerSight, id: PortId) {
    let stats = sight.stats.port(id);
    let ((rx_packets, rx_bytes), (tx_packets, tx_bytes)) = (stats.rx.get(), stats.tx.get());
    status.rx_packets += rx_packets;
    status.rx_bytes += rx_bytes;
    status.tx_packets += tx_packets;
    status.tx_bytes += tx_bytes;
    let Some(socket) = sight.sockets.get(id) else { return };
    if let Description::AfXdp { queue, attach, zero_copy, .. } = socket.description() {
        status.xdp = attach.to_string();
        status.queues.push(QueueStatus {
            queue: *queue,
            worker,
            zero_copy: *zero_copy,
            counters: socket.statistics().map(ring_counters).unwrap_or_default(),
        });
    }
}

fn ring_counters(statistics: PortStatistics) -> BTreeMap<String, u64> {
    let counters = [
        ("rx_dropped", statistics.rx_dropped),
        ("rx_invalid", statistics.rx_invalid),
        ("tx_invalid", statistics.tx_invalid),
        ("rx_ring_full", statistics.rx_ring_full),
        ("fill_ring_empty", statistics.fill_ring_empty),
        ("tx_ring_empty", statistics.tx_ring_empty),
    ];
    counters.map(|(name, count)| (name.to_owned(), count)).into()
}

fn mac_text(mac: Mac) -> String {
    mac.0.map(|byte| format!("{byte:02x}")).join(":")
}

/// Counters of workers, connection tracking and the log thread. The caller adds
/// what only it knows.
pub(super) fn stats(workers: &[WorkerSight], conntrack: &Conntrack, log: &LogDesk) -> Stats {
    let mut drops = BTreeMap::new();
    let workers: Vec<WorkerInfo> = workers
        .iter()
        .enumerate()
        .map(|(worker, sight)| {
            let info = worker_info(worker, sight);
            for (reason, count) in &info.drops {
                *drops.entry(reason.clone()).or_default() += count;
            }
            info
        })
        .collect();
    let (counters, pressure, now) = (conntrack.counters(), conntrack.pressure(), monotonic());
    let named = [
        ("invalid", counters.invalid),
        ("insert", counters.insert),
        ("insert_failed", counters.insert_failed),
        ("drop", counters.drop),
        ("early_drop", counters.early_drop),
        ("icmp_error", counters.icmp_error),
        ("clash_resolve", counters.clash_resolve),
        ("chain_toolong", counters.chain_toolong),
    ];
    let queue_lost: u64 = workers.iter().map(|worker| worker.log_lost).sum();
    Stats {
        uptime_ms: 0,
        generation: 0,
        retired: 0,
        drops,
        xdp: BTreeMap::new(),
        conntrack: ConntrackStats {
            entries: conntrack.len() as u64,
            capacity: conntrack.capacity(),
            counters: named.map(|(name, count)| (name.to_owned(), count)).into(),
            crowded: pressure.crowded,
            quota_refused: pressure.refused,
            offenders: pressure.offenders.iter().map(|it| offender(it, now)).collect(),
        },
        log_written: log.written(),
        log_lost: log.lost() + queue_lost,
        workers,
    }
}

/// What of that was denied, and by what.
pub(super) fn denied(stats: &Stats) -> Denied {
    let of = |reason: DropReason| stats.drops.get(reason.name()).copied().unwrap_or_default();
    let (dropped, rejected) =
        (of(DropReason::Rule) + of(DropReason::ChainPolicy), of(DropReason::Reject));
    let all: u64 = stats.drops.values().sum();
    Denied { dropped, rejected, other: all.saturating_sub(dropped + rejected) }
}

/// Named counters that are not zero.
fn counted(named: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let counted = named.iter().filter(|(_, count)| *count > 0);
    counted.map(|&(name, count)| (name.to_owned(), count)).collect()
}

fn offender(offender: &Offender, now: Nanos) -> OffenderInfo {
    OffenderInfo {
        prefix: offender.prefix.to_string(),
        seconds: offender.times,
        ago_ms: now.saturating_sub(offender.last).0 / Nanos::MILLISECOND.0,
    }
}

fn worker_info(worker: usize, sight: &WorkerSight) -> WorkerInfo {
    let stats: &WorkerStats = &sight.stats;
    let ports = || (0..sight.sockets.len()).map(|index| stats.port(PortId(index as u8)));
    let dropped = |reason: &DropReason| {
        let count = stats.drops(*reason);
        (count > 0).then(|| (reason.name().to_owned(), count))
    };
    WorkerInfo {
        worker,
        core: sight.core,
        generation: stats.generation.get(),
        bursts: stats.bursts.get(),
        swaps: stats.swaps.get(),
        replies: stats.replies.get(),
        replies_limited: stats.replies_limited.get(),
        logged: stats.logged.get(),
        log_lost: stats.log_lost.get(),
        rx_packets: ports().map(|port| port.rx.get().0).sum(),
        tx_packets: ports().map(|port| port.tx.get().0).sum(),
        frames_free: stats.frames.free.get(),
        frames_lent: stats.frames.lent.get(),
        frames_held: stats.frames.held.get(),
        drops: DropReason::ALL.iter().filter_map(dropped).collect(),
        plans: counted(&stats.plans.named()),
        synproxy: counted(&stats.synproxy.named()),
    }
}
