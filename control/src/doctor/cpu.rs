//! Cores: enough of them, whole, awake, and not shared with other work.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::daemon::Running;
use super::{Code, Command, Finding, Sight, Unseen};

const CPUS: &str = "/sys/devices/system/cpu";

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Cores that this process may use, in order.
    pub(super) cores: Vec<usize>,
    /// By core: what shares its physical core, and its governor.
    pub(super) siblings: Vec<(usize, Vec<usize>)>,
    pub(super) governors: Vec<(usize, String)>,
    /// Cores that the scheduler leaves alone (`isolcpus`).
    pub(super) isolated: Vec<usize>,
    /// Cores' worth of time that control groups allow, in hundredths; `None` for no limit.
    pub(super) quota: Sight<Option<(String, u64)>>,
    /// Interrupts of ports.
    pub(super) interrupts: Vec<Interrupt>,
    pub(super) irqbalance: bool,
}

/// An interrupt of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interrupt {
    pub(super) port: String,
    pub(super) number: u32,
    /// Cores on which it may fire.
    pub(super) cores: Vec<usize>,
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `0-2,5` is 0, 1, 2 and 5.
pub(super) fn list(text: &str) -> Vec<usize> {
    /// No machine has more; a typing error might.
    const MOST: usize = 1 << 16;
    let ranges = text.trim().split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<usize>().ok()?..=to.parse::<usize>().ok()?.min(MOST))
    });
    ranges.flatten().collect()
}

/// Looks; `daemon` is the running daemon's process.
pub(super) fn observe(ports: &[String], daemon: Option<u32>) -> Seen {
    let cores: Vec<usize> = core_affinity::get_core_ids()
        .map(|cores| cores.into_iter().map(|core| core.id).collect())
        .unwrap_or_default();
    let of_core = |core: usize, file: &str| line(format!("{CPUS}/cpu{core}/{file}"));
    let siblings = cores
        .iter()
        .filter_map(|core| Some((*core, list(&of_core(*core, "topology/thread_siblings_list")?))));
    let governors =
        cores.iter().filter_map(|core| Some((*core, of_core(*core, "cpufreq/scaling_governor")?)));
    let process = daemon.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    Seen {
        siblings: siblings.collect(),
        governors: governors.collect(),
        isolated: line(format!("{CPUS}/isolated")).map_or_else(Vec::new, |text| list(&text)),
        quota: quota(&process),
        interrupts: ports.iter().flat_map(|port| interrupts(port)).collect(),
        irqbalance: is_running("irqbalance"),
        cores,
    }
}

/// The tightest `cpu.max` on the way from a process's control group to the top.
fn quota(process: &str) -> Sight<Option<(String, u64)>> {
    let path = format!("/proc/{process}/cgroup");
    let text = fs::read_to_string(&path).map_err(|error| Unseen::of(path, &error))?;
    // The unified hierarchy has number 0; without it nothing is limited here.
    let Some(group) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Ok(None);
    };
    let groups = Path::new(group).ancestors().filter(|path| !path.as_os_str().is_empty());
    let limits = groups.filter_map(|group| {
        let file = Path::new("/sys/fs/cgroup").join(group).join("cpu.max");
        Some((group.display().to_string(), hundredths(&line(file)?)?))
    });
    Ok(limits.min_by_key(|(_, limit)| *limit))
}

/// `150000 100000` is one and a half cores; `max 100000` is no limit.
pub(super) fn hundredths(text: &str) -> Option<u64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota * 100).checked_div(period)
}

fn interrupts(port: &str) -> Vec<Interrupt> {
    let directory = format!("/sys/class/net/{port}/device/msi_irqs");
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<_> = numbers
        .filter_map(|number: u32| {
            let cores = list(&line(format!("/proc/irq/{number}/effective_affinity_list"))?);
            Some(Interrupt { port: port.to_owned(), number, cores })
        })
        .collect();
    found.sort_by_key(|interrupt| interrupt.number);
    found
}

fn is_running(name: &str) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|it| it.parse::<u32>().is_ok()));
    processes.any(|entry| line(entry.path().join("comm")).is_some_and(|comm| comm == name))
}

/// What it means.
pub(super) fn judge(workers: usize, seen: &Seen, running: Option<&Running>) -> Vec<Finding> {
    let used: BTreeSet<usize> = match running {
        Some(running) => running.stats.workers.iter().filter_map(|worker| worker.core).collect(),
        // As the workers take them: the first ones, again from the start when they end.
        None => seen.cores.iter().copied().cycle().take(workers.min(seen.cores.len())).collect(),
    };
    let mut findings = vec![cores(workers, seen)];
    findings.push(quota_finding(workers, seen));
    findings.extend(governor(&used, seen));
    findings.extend(siblings(&used, seen));
    findings.extend(isolation(&used, seen));
    findings.extend(interrupt(&used, seen));
    if seen.irqbalance {
        findings.push(
            Finding::note(Code::Irqbalance, "", "irqbalance is running")
                .advise("ban the workers' cores: IRQBALANCE_BANNED_CPULIST in its configuration"),
        );
    }
    findings
}

fn cores(workers: usize, seen: &Seen) -> Finding {
    let cores = seen.cores.len();
    if workers > cores {
        let found = format!("{workers} workers share {cores} core(s)");
        return Finding::warning(Code::Cores, "", found)
            .advise(format!("use {cores} queue(s) on every port, and --workers {cores}"));
    }
    Finding::ok(Code::Cores, "", format!("{workers} worker(s) on {cores} core(s)"))
}

fn quota_finding(workers: usize, seen: &Seen) -> Finding {
    match &seen.quota {
        Ok(Some((group, limit))) if *limit < workers as u64 * 100 => {
            let found = format!(
                "control group {group} allows {}.{:02} cores for {workers} worker(s)",
                limit / 100,
                limit % 100
            );
            Finding::warning(Code::CpuQuota, "", found)
                .mend(
                    Command::new("sh -c").arg(format!("echo max > /sys/fs/cgroup/{group}/cpu.max")),
                )
                .advise("or CPUQuota= in the unit")
        }
        Ok(_) => Finding::ok(Code::CpuQuota, "", "no control group limits the workers"),
        Err(why) => Finding::unseen(Code::CpuQuota, "", why),
    }
}

fn governor(used: &BTreeSet<usize>, seen: &Seen) -> Option<Finding> {
    let slow = seen.governors.iter().filter(|(core, _)| used.contains(core));
    let slow: Vec<_> = slow.filter(|(_, governor)| governor != "performance").collect();
    let (_, governor) = slow.first()?;
    let cores = slow.iter().map(|(core, _)| *core);
    let found = format!("core(s) {} run under the governor {governor}", join(cores));
    let set = Command::new("cpupower frequency-set -g performance");
    Some(Finding::note(Code::Governor, "", found).mend(set))
}

fn siblings(used: &BTreeSet<usize>, seen: &Seen) -> Option<Finding> {
    let pair = seen.siblings.iter().find_map(|(core, siblings)| {
        let other = siblings.iter().find(|other| *other != core && used.contains(other))?;
        used.contains(core).then_some((core, other))
    });
    let (one, other) = pair?;
    let found = format!("cores {one} and {other} are one physical core, and both have a worker");
    Some(Finding::note(Code::Siblings, "", found).advise("use fewer queues and workers"))
}

fn isolation(used: &BTreeSet<usize>, seen: &Seen) -> Option<Finding> {
    let shared: Vec<usize> =
        used.iter().copied().filter(|core| !seen.isolated.contains(core)).collect();
    // Who isolated none has chosen so.
    if seen.isolated.is_empty() || shared.is_empty() {
        return None;
    }
    let isolated = join(seen.isolated.iter().copied());
    let found = format!(
        "core(s) {isolated} are isolated, and workers are on core(s) {}",
        join(shared.iter().copied())
    );
    Some(
        Finding::note(Code::Isolation, "", found)
            .mend(Command::new("taskset -c").arg(isolated).args("portcullis run ...")),
    )
}

/// An interrupt is best on the core of its own queue's worker, or on nobody's.
fn interrupt(used: &BTreeSet<usize>, seen: &Seen) -> Option<Finding> {
    let stray = seen.interrupts.iter().find(|it| {
        // All of several cores: the kernel has not been told where.
        it.cores.len() == 1
            && used.len() > 1
            && it.cores.iter().all(|core| used.contains(core))
            && seen.interrupts.iter().any(|other| {
                other.number != it.number && other.port == it.port && other.cores == it.cores
            })
    })?;
    let Interrupt { port, number, cores } = stray;
    let found =
        format!("several interrupts of {port} fire on core {}", join(cores.iter().copied()));
    Some(
        Finding::note(Code::Irq, port, found)
            .mend(
                Command::new("sh -c")
                    .arg(format!("echo CORE > /proc/irq/{number}/smp_affinity_list")),
            )
            .advise("give each queue's interrupt the core of its own worker"),
    )
}

fn join(cores: impl Iterator<Item = usize>) -> String {
    cores.map(|core| core.to_string()).collect::<Vec<_>>().join(",")
}
