//! `portcullis run`: the daemon in the foreground.

use std::path::{Path, PathBuf};

use dataplane::conntrack::setting_name;
use dataplane::port::fault::{Faults, PerMillion};
use dataplane::port::management::Entry;

use super::evidence::Keeping;
use super::logging::Logging;
use super::metering::Metering;
use super::timeouts::CtTimeouts;
use super::{Exit, Output};
use crate::apply::ApplyError;
use crate::config::{
    AttachName, DEFAULT_FILE, Given, HostRoadName, Layer, Managers, ModeName, OnFailureName, Pairs,
    Paths, Ports, Refused, SettingTable, Source, TimeoutTable, UserName, Whole, ZeroCopyName,
};
use crate::daemon::sandbox::Seccomp;
use crate::daemon::{self, Config, DaemonError, Injection, Ready};
use crate::guard::find::Place;

const EXAMPLES: &str = "Examples:
  portcullis run --port eth0 --port eth1 --rules rules.v4
  portcullis run --port eth0 --port eth1 --mode bridge --rules rules.v4 --rules6 rules.v6
  portcullis run --port eth0 --port eth1 --workers 4 --xdp native --conntrack-max 1000000
  portcullis run --port eth0 --port eth1 --rules rules.v4 --sysctl tcp_loose=0
  portcullis run --port eth0 --port eth1 --rules rules.v4 --state none
  portcullis run --port eth0 --port eth1 --rules rules.v4 --user portcullis
  portcullis run --port eth0 --port eth1 --rules rules.v4 --management '198.51.100.0/24 tcp 22'
  portcullis run --port eth0 --port eth1 --rules rules.v4 --on-failure open
  portcullis run --port eth0 --port eth1 --rules rules.v4 --sets sets.save
  portcullis run --config /etc/portcullis/portcullis.toml

SIGTERM and SIGINT stop cleanly, SIGHUP reads the configuration and policy files again and
opens the log file anew, as `portcullis reload` does, SIGUSR1 only opens the log file anew.
When the daemon ends, however it ends, routed ports stay closed until the next one runs or
`portcullis release` opens them; with --on-failure open, and in the other modes, the kernel
carries on by itself (and forwards, if net.ipv4.ip_forward is 1).";

/// What to run on. Flags that are not given are `None`: the file, or the default, holds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration file; flags beat what it says. Without this and without --port:
    /// /etc/portcullis/portcullis.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A network interface to take over; give it once per port.
    #[arg(long = "port", value_name = "DEV")]
    pub ports: Vec<String>,
    /// The IPv4 policy, an iptables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// The IPv6 policy, an ip6tables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Sets that the policy names: an `ipset save` file, or a directory of them; give it
    /// once per path [default: /etc/portcullis/sets].
    #[arg(long, value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// Begin with the counters written in the files (as iptables-restore -c does).
    #[arg(short = 'c', long)]
    pub counters: bool,
    /// What to do with frames: route between ports, cross between the ports of a
    /// pair, or (host) serve this machine only [default: routed].
    #[arg(long, value_enum)]
    pub mode: Option<ModeName>,
    /// In bridge mode: a pair of ports. Two ports need not be named.
    #[arg(long, value_name = "A,B", value_parser = pair)]
    pub bridge: Vec<(String, String)>,
    /// Workers, one for each queue of every port [default: the ports' queues].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// How to attach the XDP program [default: auto].
    #[arg(long, value_enum)]
    pub xdp: Option<AttachName>,
    /// Whether this machine's own packets go through the policy (INPUT, OUTPUT) too;
    /// needed for NAT to its own addresses [default: auto].
    #[arg(long, value_enum)]
    pub host_road: Option<HostRoadName>,
    /// Whoever may reach a service of this machine whatever the policy says, as
    /// "198.51.100.0/24 tcp 22,443", "2001:db8::/48 udp 161" or "198.51.100.7 icmp";
    /// give it once per entry.
    #[arg(long, value_name = "PREFIX PROTOCOL PORTS")]
    pub management: Vec<Entry>,
    /// Whether frames may cross without a copy [default: auto].
    #[arg(long, value_enum)]
    pub zero_copy: Option<ZeroCopyName>,
    /// Most addresses of source blocklists in the XDP program; 0 for none.
    #[arg(long = "xdp-blocklist", value_name = "N")]
    pub xdp_blocklist: Option<u64>,
    /// Whether packets of established connections follow what an earlier one's walk has
    /// said. Only speed tells the difference [default: true].
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub plans: Option<bool>,
    /// What becomes of the traffic while the daemon is away, stuck or dead: the kernel
    /// carries on, or it is dropped, but for management, ARP and neighbour discovery
    /// [default: closed in mode routed, else open].
    #[arg(long, value_enum)]
    pub on_failure: Option<OnFailureName>,
    /// Keep links that outlive the daemon here, in a bpffs [default: /sys/fs/bpf/portcullis].
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// Take a worker that has not turned for so long for away, as if there were no daemon;
    /// 0: never [default: 1000].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub watchdog: Option<u64>,
    /// Where to listen for commands [default: /run/portcullis/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Let members of this group (a numeric id) use the control socket.
    #[arg(long, value_name = "GID", value_parser = clap::value_parser!(u32).range(..=4_294_967_294))]
    pub socket_group: Option<u32>,
    /// Append LOG lines to this file instead of standard error.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// What else becomes of records.
    #[command(flatten)]
    pub logging: Logging,
    /// Keep connections and limits in this file over restarts; "none" for nowhere
    /// [default: /var/lib/portcullis/state/conntrack, or none with another --socket].
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Save them this often; they are also saved at the end [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub state_interval: Option<u64>,
    /// What is recorded of changes, and what they need.
    #[command(flatten)]
    pub keeping: Keeping,
    /// What is told to whoever scrapes.
    #[command(flatten)]
    pub metering: Metering,
    /// Most connections at once [default: 262144].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=268_435_456))]
    pub conntrack_max: Option<u64>,
    /// A connection tracking or fragment setting by the kernel's name, as tcp_loose=0.
    #[arg(long = "sysctl", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, u64)>,
    /// Run as this user, with the capabilities that are needed: NAME, UID, NAME:GROUP or
    /// UID:GID; the daemon's files must be its own [default: whoever starts it].
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// What becomes of system calls that running does not need [default: enforce].
    #[arg(long, value_enum)]
    pub seccomp: Option<Seccomp>,
    /// For tests: makes every wire bad on purpose, as loss=1,reordering=0.5 (percent of
    /// frames in each direction; also duplication, corruption, truncation; seed=N).
    #[arg(long, value_name = "FAULT=PERCENT,..", value_parser = faults)]
    pub inject_faults: Option<Injection>,
    /// Named timeouts.
    #[command(flatten)]
    pub timeouts: CtTimeouts,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once(',') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(',') => {
            Ok((a.to_owned(), b.to_owned()))
        }
        _ => Err("two ports are needed, as eth0,eth1".to_owned()),
    }
}

pub(super) fn setting(text: &str) -> Result<(String, u64), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed, as tcp_loose=0")?;
    let value = value.parse().map_err(|error| format!("{value}: {error}"))?;
    Ok((name.to_owned(), value))
}

fn faults(text: &str) -> Result<Injection, String> {
    let mut injection = Injection { seed: 1, faults: Faults::default() };
    for part in text.split(',') {
        let (name, value) = part.split_once('=').ok_or("FAULT=PERCENT is needed, as loss=1")?;
        if name == "seed" {
            injection.seed = value.parse().map_err(|error| format!("{value}: {error}"))?;
            continue;
        }
        let percent: f64 = value.parse().map_err(|error| format!("{value}: {error}"))?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("{value} is no percentage"));
        }
        let chance = PerMillion((percent * 10_000.0).round() as u32);
        let faults = &mut injection.faults;
        match name {
            "loss" => faults.loss = chance,
            "duplication" => faults.duplication = chance,
            "reordering" => faults.reordering = chance,
            "corruption" => faults.corruption = chance,
            "truncation" => faults.truncation = chance,
            _ => return Err(format!("there is no fault {name}")),
        }
    }
    Ok(injection)
}

impl Args {
    /// What the command line says of the keys.
    fn layer(&self) -> Layer {
        let many = |is_empty: bool| (!is_empty).then_some(());
        let ports = many(self.ports.is_empty()).map(|()| Ports(self.ports.clone()));
        let sets = many(self.sets.is_empty()).map(|()| Some(Paths(self.sets.clone())));
        let managers = many(self.management.is_empty());
        let managers = managers.map(|()| Managers(self.management.clone()));
        let bridge = many(self.bridge.is_empty()).map(|()| Pairs(self.bridge.clone()));
        let (settings, max) = self.settings();
        let timeouts = self.timeouts.ct_timeout.clone();
        let timeouts = many(timeouts.is_empty()).map(|()| TimeoutTable::of_flags(timeouts));
        Layer {
            ports: Given::flag(ports),
            mode: Given::flag(self.mode),
            bridge: Given::flag(bridge),
            workers: Given::flag(self.workers.map(|n| Some(Whole(n.into())))),
            rules: Given::flag(self.rules.clone().map(Some)),
            rules6: Given::flag(self.rules6.clone().map(Some)),
            sets: Given::flag(sets),
            counters: Given::flag(self.counters.then_some(true)),
            attach: Given::flag(self.xdp),
            management: Given::flag(managers),
            zero_copy: Given::flag(self.zero_copy),
            blocklist: Given::flag(self.xdp_blocklist.map(Whole)),
            host_road: Given::flag(self.host_road),
            plans: Given::flag(self.plans),
            on_failure: Given::flag(self.on_failure.map(Some)),
            pin_dir: Given::flag(self.pin_dir.clone()),
            watchdog: Given::flag(self.watchdog.map(Whole)),
            conntrack_max: Given::flag(max.map(|max| Some(Whole(max)))),
            settings: Given::flag(settings),
            timeouts: Given::flag(timeouts),
            state_file: Given::flag(self.state.clone().map(|path| Some(path.into()))),
            state_interval: Given::flag(self.state_interval.map(Whole)),
            log: Given::flag(self.log.clone().map(Some)),
            socket: Given::flag(self.socket.clone()),
            user: Given::flag(self.user.clone().map(|user| Some(UserName(user)))),
            seccomp: Given::flag(self.seccomp),
            socket_group: Given::flag(self.socket_group.map(|group| Some(Whole(group.into())))),
            ..self.metering.layer(self.keeping.layer(self.logging.layer()))
        }
    }

    /// `--sysctl`, and `max`, which has a key of its own.
    fn settings(&self) -> (Option<SettingTable>, Option<u64>) {
        let is_max = |name: &str| setting_name(name) == Ok("max");
        let (max, others): (Vec<_>, Vec<_>) =
            self.settings.iter().cloned().partition(|(name, _)| is_max(name));
        let max = self.conntrack_max.or(max.last().map(|(_, value)| *value));
        ((!others.is_empty()).then(|| SettingTable::of_flags(others)), max)
    }

    /// Where settings come from: the file that is named, or the usual one when nothing is.
    pub(super) fn source(&self) -> Source {
        let usual = || Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE));
        let file = match &self.config {
            Some(file) => Some(file.clone()),
            None if self.ports.is_empty() => usual(),
            None => None,
        };
        Source { file, flags: self.layer() }
    }

    fn config(self, output: &Output) -> Result<Config, Exit> {
        let source = self.source();
        let configured = source.load().map_err(|refused| complain(&refused, output))?;
        let text = configured.text.clone();
        let config = configured.resolve().map_err(|conflict| {
            match source.file.as_deref().and_then(|file| conflict.finding(file)) {
                Some(finding) => {
                    output.finding(&finding, text.as_deref());
                    Exit::Refused
                }
                None => {
                    output.error(conflict);
                    Exit::Usage
                }
            }
        })?;
        let session = Place::here().session();
        Ok(Config { faults: self.inject_faults, session, ..config })
    }
}

/// Prints what is wrong with a configuration file.
pub(super) fn complain(refused: &Refused, output: &Output) -> Exit {
    let text = Some(refused.text.as_str()).filter(|text| !text.is_empty());
    refused.findings.iter().for_each(|finding| output.finding(finding, text));
    output.error(refused);
    Exit::Refused
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let config = match args.config(output) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .try_init();
    let ports = config.ports.join(", ");
    if config.faults.is_some() {
        output.warning("faults are injected on every port: this is a test");
    }
    let announce = |ready: &Ready<'_>| {
        for finding in ready.findings {
            output.finding(finding, ready.texts.text_of(&finding.file));
        }
        for note in ready.notes {
            output.warning(note);
        }
        let workers = ready.workers;
        if output.json() {
            output.object(&serde_json::json!({"event": "ready", "workers": workers}));
        } else {
            output.line(format_args!("ready: {workers} worker(s) on {ports}"));
        }
    };
    match daemon::run(config, announce) {
        Ok(()) => Exit::Ok,
        Err(error) => report(&error, output),
    }
}

fn report(error: &DaemonError, output: &Output) -> Exit {
    if let DaemonError::Policy { findings, texts } = error {
        for finding in findings {
            output.finding(finding, texts.text_of(&finding.file));
        }
    }
    output.error(error);
    match error {
        DaemonError::Policy { .. } | DaemonError::Setting(_) | DaemonError::Conntrack(_) => {
            Exit::Refused
        }
        DaemonError::WorkerStuck { .. } | DaemonError::NeverStopped => Exit::Stuck,
        DaemonError::Apply(ApplyError::Check(_)) | DaemonError::WorkerFell(_) => Exit::Internal,
        DaemonError::Preflight(daemon::preflight::PreflightError::Mode(_)) => Exit::Usage,
        DaemonError::Apply(_)
        | DaemonError::Failure(_)
        | DaemonError::Metrics(_)
        | DaemonError::Preflight(_)
        | DaemonError::Socket(_)
        | DaemonError::State(_)
        | DaemonError::Net(_)
        | DaemonError::Network(_)
        | DaemonError::Ports(_)
        | DaemonError::Sandbox(_)
        | DaemonError::System { .. } => Exit::Environment,
    }
}
