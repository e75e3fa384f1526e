//! Which metrics there are, what they are called, and where their values come from.

use dataplane::verdict::DropReason;

use super::Page;
use crate::alert::Counts;
use crate::api::protocol::{LogReport, PortStatus, Stats, WorkerInfo};

/// A rule or a chain's policy that has series of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// The rule's id, as `show rules --json` has it; absent for policies of chains.
    pub rule: Option<String>,
    /// Packets and bytes.
    pub count: (u64, u64),
}

/// Everything that a page says, as it is now.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of the program, and of the kernel.
    pub versions: (String, String),
    /// When the daemon started, in seconds since 1970.
    pub started_s: f64,
    /// As `show stats`.
    pub stats: Stats,
    /// As `show ports`.
    pub ports: Vec<PortStatus>,
    /// As `show log`.
    pub log: LogReport,
    /// CPU time of each worker in seconds, as far as it is known.
    pub worker_cpu_s: Vec<Option<f64>>,
    /// Which workers do not turn.
    pub stuck: Vec<usize>,
    /// Rules of both families.
    pub rules: [u64; 2],
    /// Rules with series of their own.
    pub named: Vec<Named>,
    /// What all others have counted.
    pub other: (u64, u64),
    /// Policies of built-in chains.
    pub policies: Vec<Named>,
    /// Seconds until a rule of the policy expires next; absent when none will.
    pub expiry_s: Option<f64>,
    /// Saves of the state that succeeded and failed, and when the last was, in seconds since
    /// 1970; absent when nothing is kept.
    pub saves: Option<(u64, u64, Option<f64>)>,
    /// Changes: undone ones since the start, waiting ones, emergencies that nobody reconciled.
    pub changes: [u64; 3],
    /// Requests to the endpoint: served, refused, cut off, one too many.
    pub requests: [u64; 4],
    /// Pressure profiles, and whether each is in force.
    pub pressure: Vec<(String, bool)>,
    /// Flows of the matrix that are not as expected.
    pub matrix_failing: u64,
    /// Alerts by webhook: its host, what became of them, how many wait.
    pub alerts: Vec<(String, Counts, usize)>,
}

fn label(name: &'static str, value: impl ToString) -> (&'static str, String) {
    (name, value.to_string())
}

/// Writes the page.
pub fn write(facts: &Facts) -> Page {
    let mut page = Page::default();
    daemon(&mut page, facts);
    policy(&mut page, facts);
    workers(&mut page, facts);
    ports(&mut page, &facts.ports);
    conntrack(&mut page, &facts.stats);
    records(&mut page, &facts.log);
    changes(&mut page, facts);
    alerts(&mut page, facts);
    page
}

fn daemon(page: &mut Page, facts: &Facts) {
    let (version, kernel) = &facts.versions;
    let labels = vec![label("version", version), label("kernel", kernel)];
    page.gauges("build_info", "The program and its kernel; always 1.", [(labels, 1.0)]);
    page.gauge("start_time_seconds", "When the daemon started, since 1970.", facts.started_s);
    if let Some((good, bad, last)) = facts.saves {
        let result = |it: &str| vec![label("result", it)];
        let rows = [(result("ok"), good), (result("failed"), bad)];
        page.counters("state_saves", "Saves of connections and limits, by result.", rows);
        let last = last.map(|last| (Vec::new(), last));
        let help = "When the state was saved last, since 1970.";
        page.gauges("state_saved_timestamp_seconds", help, last);
    }
    let [served, refused, cut, crowded] = facts.requests;
    let named =
        [("served", served), ("refused", refused), ("cut_off", cut), ("crowded_out", crowded)];
    let rows = named.map(|(name, count)| (vec![label("result", name)], count));
    page.counters("scrapes", "Requests to the metrics endpoint, by result.", rows);
}

fn policy(page: &mut Page, facts: &Facts) {
    page.gauge("policy_generation", "Generation of the policy.", facts.stats.generation as f64);
    let retired = facts.stats.retired as f64;
    page.gauge("policies_retired", "Replaced policies that a worker still holds.", retired);
    let families = ["ipv4", "ipv6"].iter().zip(facts.rules);
    let rows = families.map(|(family, rules)| (vec![label("family", family)], rules as f64));
    page.gauges("rules", "Rules of the policy.", rows);
    let expiry = facts.expiry_s.map(|seconds| (Vec::new(), seconds));
    page.gauges("rule_expiry_seconds", "Time until the next rule expires.", expiry);
    let rest = Named { rule: Some("other".to_owned()), count: facts.other, ..Named::default() };
    let other = || "other".to_owned();
    let rest = Named { family: other(), table: other(), chain: other(), ..rest };
    let place = |it: &Named| {
        vec![label("family", &it.family), label("table", &it.table), label("chain", &it.chain)]
    };
    let rule = |it: &Named| {
        let mut labels = place(it);
        labels.extend(it.rule.as_ref().map(|rule| label("rule", rule)));
        labels
    };
    let rules = || facts.named.iter().chain([&rest]);
    let help = "Packets that matched a rule; the rule \"other\" is the sum of all others.";
    page.counters("rule_packets", help, rules().map(|it| (rule(it), it.count.0)));
    let help = "Bytes that matched a rule; the rule \"other\" is the sum of all others.";
    page.counters("rule_bytes", help, rules().map(|it| (rule(it), it.count.1)));
    let policies = || facts.policies.iter();
    let help = "Packets that met the policy of a built-in chain.";
    page.counters("chain_policy_packets", help, policies().map(|it| (place(it), it.count.0)));
    let help = "Bytes that met the policy of a built-in chain.";
    page.counters("chain_policy_bytes", help, policies().map(|it| (place(it), it.count.1)));
}

fn workers(page: &mut Page, facts: &Facts) {
    let drops = DropReason::ALL.iter().map(|reason| {
        let count = facts.stats.drops.get(reason.name()).copied().unwrap_or_default();
        (vec![label("reason", reason.name())], count)
    });
    page.counters("dropped_packets", "Packets dropped by the workers, by reason.", drops);
    let worker = |it: &WorkerInfo| vec![label("worker", it.worker)];
    let mut each = |name, help, value: fn(&WorkerInfo) -> u64| {
        page.counters(name, help, facts.stats.workers.iter().map(|it| (worker(it), value(it))));
    };
    each("worker_received_packets", "Frames received.", |it| it.rx_packets);
    each("worker_sent_packets", "Frames sent.", |it| it.tx_packets);
    each("worker_bursts", "Bursts processed.", |it| it.bursts);
    each("worker_policy_swaps", "Policies adopted.", |it| it.swaps);
    each("icmp_replies", "ICMP errors and resets sent.", |it| it.replies);
    let help = "ICMP errors withheld by rate limits.";
    each("icmp_replies_limited", help, |it| it.replies_limited);
    let cpu = facts.worker_cpu_s.iter().enumerate();
    let cpu = cpu.filter_map(|(index, time)| Some((vec![label("worker", index)], (*time)?)));
    page.amounts("worker_cpu_seconds", "CPU time of the worker.", cpu);
    let stuck = facts.stats.workers.iter().map(|it| {
        let is_stuck = facts.stuck.contains(&it.worker);
        (worker(it), f64::from(u8::from(is_stuck)))
    });
    page.gauges("worker_stuck", "1 while the worker does not turn.", stuck);
    let frames = facts.stats.workers.iter().flat_map(|it| {
        let named = [("free", it.frames_free), ("lent", it.frames_lent), ("held", it.frames_held)];
        named.map(|(state, count)| {
            let mut labels = worker(it);
            labels.push(label("state", state));
            (labels, count as f64)
        })
    });
    page.gauges("worker_frames", "Frames of the worker's pool, by state.", frames);
    named(page, facts, "plan_walks", "What became of plans.", "outcome", |it| &it.plans);
    let help = "SYNPROXY's counters.";
    named(page, facts, "synproxy_events", help, "event", |it| &it.synproxy);
}

/// Counters that workers have by name, over all workers.
fn named(
    page: &mut Page,
    facts: &Facts,
    name: &'static str,
    help: &'static str,
    key: &'static str,
    of: fn(&WorkerInfo) -> &std::collections::BTreeMap<String, u64>,
) {
    let mut sums = std::collections::BTreeMap::<&str, u64>::new();
    for (name, count) in facts.stats.workers.iter().flat_map(of) {
        *sums.entry(name).or_default() += count;
    }
    page.counters(name, help, sums.into_iter().map(|(name, sum)| (vec![label(key, name)], sum)));
}

fn ports(page: &mut Page, ports: &[PortStatus]) {
    let port = |it: &PortStatus| vec![label("port", &it.name)];
    let up = ports.iter().map(|it| (port(it), f64::from(u8::from(it.up))));
    page.gauges("port_up", "1 while the port is up, with carrier.", up);
    let serving = |it: &PortStatus| u8::from(it.out_of_service.is_none());
    let rows = ports.iter().map(|it| (port(it), f64::from(serving(it))));
    page.gauges("port_in_service", "1 while frames of the port are handled.", rows);
    let mut each = |name, help, value: fn(&PortStatus) -> u64| {
        page.counters(name, help, ports.iter().map(|it| (port(it), value(it))));
    };
    each("port_received_packets", "Frames received by workers.", |it| it.rx_packets);
    each("port_received_bytes", "Bytes received by workers.", |it| it.rx_bytes);
    each("port_sent_packets", "Frames sent by workers.", |it| it.tx_packets);
    each("port_sent_bytes", "Bytes sent by workers.", |it| it.tx_bytes);
    let xdp = ports.iter().flat_map(|it| {
        it.xdp_counters.iter().map(move |(action, count)| {
            (vec![label("port", &it.name), label("action", action)], *count)
        })
    });
    page.counters("xdp_packets", "What the XDP program did with frames.", xdp);
    let sockets = ports.iter().flat_map(|it| {
        it.queues.iter().flat_map(move |queue| {
            queue.counters.iter().map(move |(event, count)| {
                let place = [label("port", &it.name), label("queue", queue.queue)];
                (place.into_iter().chain([label("event", event)]).collect(), *count)
            })
        })
    });
    page.counters("socket_events", "What the kernel counts of each AF_XDP socket.", sockets);
}

fn conntrack(page: &mut Page, stats: &Stats) {
    let it = &stats.conntrack;
    page.gauge("conntrack_entries", "Connections now.", it.entries as f64);
    page.gauge("conntrack_entries_limit", "Connections at most.", it.capacity as f64);
    let help = "1 while the table is so full that sources have quotas.";
    page.gauge("conntrack_crowded", help, f64::from(u8::from(it.crowded)));
    let help = "Connections refused because their source's quota was used up.";
    page.counter("conntrack_quota_refused", help, it.quota_refused);
    let events = it.counters.iter().map(|(event, count)| (vec![label("event", event)], *count));
    page.counters("conntrack_events", "Events of connection tracking.", events);
}

fn records(page: &mut Page, log: &LogReport) {
    let outcome = |it: &str| vec![label("outcome", it)];
    let rows = [
        (outcome("written"), log.written),
        (outcome("suppressed"), log.suppressed),
        (outcome("over_budget"), log.over_budget),
        (outcome("queue_full"), log.queue_full),
        (outcome("unwritten"), log.dropped.saturating_sub(log.over_budget + log.queue_full)),
    ];
    let help = "Records of LOG, NFLOG, AUDIT and TRACE, by what became of them.";
    page.counters("log_records", help, rows);
    let help = "Records lost: over the budget, no room in a queue, or not to be written.";
    page.counter("log_lost_records", help, log.dropped);
    page.gauge("log_waiting_records", "Records on their way to the files.", log.waiting as f64);
}

fn changes(page: &mut Page, facts: &Facts) {
    let [undone, waiting, open] = facts.changes;
    let help = "Changes that were undone: not confirmed in time, or unhealthy.";
    page.counter("changes_undone", help, undone);
    let help = "Changes that wait for their confirmation.";
    page.gauge("changes_waiting", help, waiting as f64);
    let help = "Emergency changes that nobody has reconciled.";
    page.gauge("emergencies_open", help, open as f64);
}

fn alerts(page: &mut Page, facts: &Facts) {
    let pressure = facts.pressure.iter();
    let pressure =
        pressure.map(|(name, active)| (vec![label("profile", name)], f64::from(u8::from(*active))));
    page.gauges("pressure_active", "1 while the pressure profile is in force.", pressure);
    let help = "Flows of the matrix that the live policy does not treat as expected.";
    page.gauge("matrix_failing_flows", help, facts.matrix_failing as f64);
    let place = |index: usize, host: &str| vec![label("webhook", index), label("host", host)];
    let rows = facts.alerts.iter().enumerate().flat_map(|(index, (host, counts, _))| {
        let named = [("sent", counts.sent), ("failed", counts.failed), ("lost", counts.lost)];
        named.map(|(outcome, count)| {
            let mut labels = place(index, host);
            labels.push(label("outcome", outcome));
            (labels, count)
        })
    });
    let help = "Alerts taken by the webhook, attempts that failed, and alerts given up.";
    page.counters("alerts", help, rows);
    let waiting = facts.alerts.iter().enumerate();
    let waiting = waiting.map(|(index, (host, _, left))| (place(index, host), *left as f64));
    page.gauges("alerts_waiting", "Alerts that wait for their webhook.", waiting);
}
