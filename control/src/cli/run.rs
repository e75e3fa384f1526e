//! `portcullis run`: the daemon in the foreground.

use std::path::PathBuf;

use clap::ValueEnum;
use dataplane::clock::Nanos;
use dataplane::fib::Mode;
use dataplane::packet::PortId;
use dataplane::port::afxdp::{AttachChoice, CopyMode};
use dataplane::port::fault::{Faults, PerMillion};

use super::timeouts::CtTimeouts;
use super::{Exit, Output};
use crate::apply::ApplyError;
use crate::daemon::{self, Config, DaemonError, Injection, Ready};

/// Where connections and limits are kept over restarts.
const DEFAULT_STATE: &str = "/var/lib/portcullis/state/conntrack";

const EXAMPLES: &str = "Examples:
  portcullis run --port eth0 --port eth1 --rules rules.v4
  portcullis run --port eth0 --port eth1 --mode bridge --rules rules.v4 --rules6 rules.v6
  portcullis run --port eth0 --port eth1 --workers 4 --xdp native --conntrack-max 1000000
  portcullis run --port eth0 --port eth1 --rules rules.v4 --sysctl tcp_loose=0
  portcullis run --port eth0 --port eth1 --rules rules.v4 --state none

SIGTERM and SIGINT stop cleanly, SIGHUP reads the rule files again as one change and
opens the log file anew. When the daemon ends, however it ends, the kernel carries on by
itself (and forwards, if net.ipv4.ip_forward is 1).";

/// What to run on.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A network interface to take over; give it once per port.
    #[arg(long = "port", value_name = "DEV", required = true)]
    pub ports: Vec<String>,
    /// The IPv4 policy, an iptables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// The IPv6 policy, an ip6tables-save file.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Begin with the counters written in the files (as iptables-restore -c does).
    #[arg(short = 'c', long)]
    pub counters: bool,
    /// What to do with frames: route between ports, cross between the ports of a
    /// pair, or (host) serve this machine only.
    #[arg(long, value_enum, default_value_t = ModeName::Routed)]
    pub mode: ModeName,
    /// In bridge mode: a pair of ports. Two ports need not be named.
    #[arg(long, value_name = "A,B", value_parser = pair)]
    pub bridge: Vec<(String, String)>,
    /// Workers, one for each queue of every port [default: the ports' queues].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// How to attach the XDP program.
    #[arg(long, value_enum, default_value_t = XdpName::Auto)]
    pub xdp: XdpName,
    /// Whether this machine's own packets go through the policy (INPUT, OUTPUT) too;
    /// needs native XDP on every port, and is needed for NAT to its own addresses.
    #[arg(long, value_enum, default_value_t = HostRoadName::Auto)]
    pub host_road: HostRoadName,
    /// Whether frames may cross without a copy.
    #[arg(long, value_enum, default_value_t = ZeroCopyName::Auto)]
    pub zero_copy: ZeroCopyName,
    /// Where to listen for commands.
    #[command(flatten)]
    pub socket: super::Socket,
    /// Let members of this group (a numeric id) use the control socket.
    #[arg(long, value_name = "GID")]
    pub socket_group: Option<u32>,
    /// Append LOG lines to this file instead of standard error.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Keep connections and limits in this file over restarts; "none" for nowhere
    /// [default: /var/lib/portcullis/state/conntrack, or none with another --socket].
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Save them this often; they are also saved at the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub state_interval: u64,
    /// Most connections at once.
    #[arg(long, value_name = "N")]
    pub conntrack_max: Option<u64>,
    /// A connection tracking or fragment setting by the kernel's name, as tcp_loose=0.
    #[arg(long = "sysctl", value_name = "NAME=VALUE", value_parser = setting)]
    pub settings: Vec<(String, u64)>,
    /// For tests: makes every wire bad on purpose, as loss=1,reordering=0.5 (percent of
    /// frames in each direction; also duplication, corruption, truncation; seed=N).
    #[arg(long, value_name = "FAULT=PERCENT,..", value_parser = faults)]
    pub inject_faults: Option<Injection>,
    /// Named timeouts.
    #[command(flatten)]
    pub timeouts: CtTimeouts,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// A gateway.
    Routed,
    /// Transparent pairs of ports.
    Bridge,
    /// One port, INPUT and OUTPUT only.
    Host,
}

/// `--xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XdpName {
    /// By the driver, else by the network stack.
    Auto,
    /// By the driver only.
    Native,
    /// By the network stack only.
    Generic,
}

/// `--host-road`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HostRoadName {
    /// Where every port is attached natively; says so where not.
    Auto,
    /// They stay with the kernel: INPUT and OUTPUT are not enforced.
    Off,
}

/// `--zero-copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ZeroCopyName {
    /// Where the driver can.
    Auto,
    /// Or refuse to start.
    Force,
    /// Never.
    Off,
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
    fn mode(&self) -> Result<Mode, String> {
        match self.mode {
            ModeName::Routed | ModeName::Host if !self.bridge.is_empty() => {
                Err("--bridge needs --mode bridge".to_owned())
            }
            ModeName::Routed => Ok(Mode::Routed),
            ModeName::Host => Ok(Mode::Host),
            ModeName::Bridge if self.bridge.is_empty() && self.ports.len() == 2 => {
                Ok(Mode::Bridge(vec![(PortId(0), PortId(1))]))
            }
            ModeName::Bridge => {
                let id = |name: &String| -> Result<PortId, String> {
                    let position = self.ports.iter().position(|port| port == name);
                    let position = position.ok_or_else(|| format!("{name} is not a --port"))?;
                    Ok(PortId(position as u8))
                };
                let pairs = self.bridge.iter().map(|(a, b)| Ok((id(a)?, id(b)?)));
                Ok(Mode::Bridge(pairs.collect::<Result<_, String>>()?))
            }
        }
    }

    /// A second daemon needs a file of its own: only one on the usual socket has a usual file.
    fn state(&self) -> Option<PathBuf> {
        match &self.state {
            Some(path) if path.as_os_str() == "none" => None,
            Some(path) => Some(path.clone()),
            None if self.socket.socket.as_os_str() == super::DEFAULT_SOCKET => {
                Some(DEFAULT_STATE.into())
            }
            None => None,
        }
    }

    fn config(self) -> Result<Config, String> {
        let mode = self.mode()?;
        let state = self.state();
        let mut conntrack = self.settings;
        conntrack.extend(self.conntrack_max.map(|max| ("max".to_owned(), max)));
        Ok(Config {
            ports: self.ports,
            rules: self.rules,
            rules6: self.rules6,
            counters: self.counters,
            host: self.host_road == HostRoadName::Auto && mode == Mode::Routed,
            mode,
            workers: self.workers.map(usize::from),
            attach: match self.xdp {
                XdpName::Auto => AttachChoice::Auto,
                XdpName::Native => AttachChoice::Native,
                XdpName::Generic => AttachChoice::Generic,
            },
            copy: match self.zero_copy {
                ZeroCopyName::Auto => CopyMode::Auto,
                ZeroCopyName::Force => CopyMode::ZeroCopy,
                ZeroCopyName::Off => CopyMode::Copy,
            },
            socket: self.socket.socket,
            socket_group: self.socket_group,
            log: self.log,
            state,
            state_every: Nanos::from_secs(self.state_interval),
            conntrack,
            faults: self.inject_faults,
            timeouts: self.timeouts.ct_timeout,
        })
    }
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let config = match args.config() {
        Ok(config) => config,
        Err(message) => {
            output.error(message);
            return Exit::Usage;
        }
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
        DaemonError::Apply(ApplyError::Check(_)) | DaemonError::WorkerFell(_) => Exit::Internal,
        DaemonError::Preflight(daemon::preflight::PreflightError::Mode(_)) => Exit::Usage,
        DaemonError::Apply(_)
        | DaemonError::Preflight(_)
        | DaemonError::Socket(_)
        | DaemonError::State(_)
        | DaemonError::Net(_)
        | DaemonError::Network(_)
        | DaemonError::Ports(_)
        | DaemonError::System { .. } => Exit::Environment,
    }
}
