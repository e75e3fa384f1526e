//! The alert threads: one reads the daemon every half second and says what there is to tell, and
//! one for each webhook sends. All are at low priority; nobody waits for them.
//!
//! Names are looked up once, before the daemon gives up the system calls that a lookup may need:
//! the C library loads modules for it.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::packet::Family;
use ureq::Agent;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::alert::{Counts, Expiring, Notice, Outbox, Reading, Watch, Webhook};
use crate::daemon::service::Service;
use crate::model::annotations::annotations;
use crate::model::expiry;

/// How often the daemon is read.
const READ_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked which rules expire.
const EXPIRY_EVERY: Nanos = Nanos::from_secs(10);
/// How often a sender looks whether there is something.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Alerts give way to everything else.
const NICE: i32 = 10;

/// A webhook, where it is, and what it is still to be told.
#[derive(Debug)]
pub(super) struct Desk {
    webhook: Webhook,
    addresses: Vec<SocketAddr>,
    outbox: Mutex<Outbox>,
}

impl Desk {
    fn new(webhook: &Webhook) -> Self {
        let outbox = Mutex::new(Outbox::new(webhook.queue, webhook.attempts));
        let addresses = look_up(&webhook.url).unwrap_or_else(|error| {
            let host = host_of(&webhook.url);
            tracing::error!("alert: {host} is not to be found: {error}; nothing can be sent to it");
            Vec::new()
        });
        Self { webhook: webhook.clone(), addresses, outbox }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of its notices, and how many wait.
    pub(super) fn counts(&self) -> (String, Counts, usize) {
        let outbox = self.outbox();
        (host_of(&self.webhook.url), outbox.counts(), outbox.waiting())
    }
}

/// Without path and query, which may be secret.
fn host_of(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    uri.and_then(|uri| uri.authority().map(|it| it.host().to_owned())).unwrap_or_default()
}

fn look_up(url: &str) -> io::Result<Vec<SocketAddr>> {
    let uri: Uri = url.parse().map_err(io::Error::other)?;
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(usual);
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => Ok(vec![SocketAddr::new(address, port)]),
        Err(_) => Ok((host, port).to_socket_addrs()?.take(8).collect()),
    }
}

/// Whatever is asked for, it is there.
#[derive(Debug)]
struct Known(Vec<SocketAddr>);

impl Resolver for Known {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        self.0.iter().for_each(|address| found.push(*address));
        if self.0.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

/// Looks the webhooks up.
pub(super) fn desks(webhooks: &[Webhook]) -> Vec<Arc<Desk>> {
    webhooks.iter().map(|webhook| Arc::new(Desk::new(webhook))).collect()
}

/// Starts the threads.
pub(super) fn start(
    service: &Arc<Service>,
    desks: &[Arc<Desk>],
    stop: &Arc<AtomicBool>,
) -> io::Result<()> {
    if desks.is_empty() {
        return Ok(());
    }
    for (index, desk) in desks.iter().enumerate() {
        let (desk, stop) = (Arc::clone(desk), Arc::clone(stop));
        let send = move || {
            let _ = rustix::process::setpriority_process(None, NICE);
            send(&desk, &stop);
        };
        std::thread::Builder::new().name(format!("alert-{index}")).spawn(send)?;
    }
    let service: Weak<Service> = Arc::downgrade(service);
    let (desks, stop) = (desks.to_vec(), Arc::clone(stop));
    let watch = move || {
        let _ = rustix::process::setpriority_process(None, NICE);
        watch(&service, &desks, &stop);
    };
    std::thread::Builder::new().name("alerts".to_owned()).spawn(watch).map(drop)
}

/// Reads the daemon until it stops.
fn watch(service: &Weak<Service>, desks: &[Arc<Desk>], stop: &AtomicBool) {
    let watch = |desk: &Arc<Desk>| Watch::new(&desk.webhook.events, desk.webhook.thresholds);
    let mut watches: Vec<Watch> = desks.iter().map(watch).collect();
    let longest = desks.iter().map(|desk| desk.webhook.thresholds.expiring_s).max();
    let (mut expiring, mut looked) = (Vec::new(), None);
    while !stop.load(Ordering::Relaxed) {
        let Some(service) = service.upgrade() else { return };
        let now = monotonic();
        if looked.is_none_or(|at| now.saturating_sub(at) >= EXPIRY_EVERY) {
            expiring = service.expiring_rules(wall_us() / 1_000_000, longest.unwrap_or_default());
            looked = Some(now);
        }
        let reading = service.reading(expiring.clone());
        drop(service);
        for (watch, desk) in watches.iter_mut().zip(desks) {
            for notice in watch.see(&reading) {
                let (event, state) = (notice.kind.name(), notice.state());
                tracing::warn!("alert: {event} {state}: {}", notice.summary);
                desk.outbox().push(notice);
            }
        }
        std::thread::sleep(READ_EVERY);
    }
}

/// Sends until the daemon stops.
fn send(desk: &Desk, stop: &AtomicBool) {
    let timeout = Duration::from_nanos(desk.webhook.timeout.0);
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .max_redirects(0)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent =
        Agent::with_parts(config, DefaultConnector::default(), Known(desk.addresses.clone()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut complained = false;
    while !stop.load(Ordering::Relaxed) {
        let due = desk.outbox().due(monotonic()).cloned();
        let Some(notice) = due else {
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        match post(&agent, desk, &notice, &host) {
            Ok(()) => {
                desk.outbox().taken();
                complained = false;
            }
            Err(trouble) => {
                let given_up = desk.outbox().refused(monotonic());
                if given_up || !complained {
                    let (to, event) = (host_of(&desk.webhook.url), notice.kind.name());
                    let end = if given_up { "given up" } else { "tried again" };
                    tracing::error!("alert: {event} to {to}: {trouble}; it is {end}");
                }
                complained = true;
            }
        }
    }
}

fn post(agent: &Agent, desk: &Desk, notice: &Notice, host: &str) -> Result<(), String> {
    let body = desk.webhook.body.render(notice, host).map_err(|error| error.to_string())?;
    let request = agent.post(&desk.webhook.url).header("Content-Type", "application/json");
    let answer = request.send(body).map_err(|error| error.to_string())?;
    match answer.status().is_success() {
        true => Ok(()),
        // A redirection is not followed.
        false => Err(format!("it answers {}", answer.status())),
    }
}

impl Service {
    /// The daemon as it is now.
    fn reading(&self, expiring: Vec<Expiring>) -> Reading {
        let stats = self.stats();
        let [undone, ..] = self.change_counts();
        let begun = stats.conntrack.counters.get("insert").copied().unwrap_or_default();
        let cpu = self.workers().iter().filter_map(|worker| worker.cpu());
        Reading {
            now: monotonic(),
            wall_us: wall_us(),
            dropped: stats.drops.values().sum(),
            connections: (stats.conntrack.entries, stats.conntrack.capacity),
            begun,
            log_lost: stats.log_lost,
            undone,
            cpu: cpu.collect(),
            expiring,
            pressure: self.telemetry().valve.get().map_or_else(Vec::new, |it| it.active()),
            matrix_failing: self.matrix_failing(),
        }
    }

    /// Rules that expire within `ahead_s`, whether they have or not.
    fn expiring_rules(&self, now_s: u64, ahead_s: u64) -> Vec<Expiring> {
        let until = now_s.saturating_add(ahead_s);
        if self.store().next_expiry().is_none_or(|next| next > until) {
            return Vec::new();
        }
        self.store().read(|view| {
            let keys = view.keys();
            let mut found = Vec::new();
            for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
                let rules = view.rules(family);
                let entries = view.counters().chains().iter().filter(|it| it.family == family);
                let chains = rules.tables.iter().flat_map(|it| &it.chains).zip(entries);
                for (chain, entry) in chains {
                    for (index, rule) in chain.rules.iter().enumerate() {
                        let Some(Ok(at_s)) = expiry::expires(rule) else { continue };
                        let Some(id) = entry.rule(index).filter(|_| at_s <= until) else {
                            continue;
                        };
                        let owner = annotations(rule).remove("owner");
                        let owner = owner.map_or_else(String::new, |it| format!(", owner {it}"));
                        let (table, number) = (entry.table.name(), index + 1);
                        let what = format!("{name} {table} {} rule {number}{owner}", chain.name);
                        found.push(Expiring { key: keys[id.0 as usize].to_string(), what, at_s });
                    }
                }
            }
            found
        })
    }
}
