//! Every key, in the order of the reference. A new one is a line here, a field of
//! `daemon::Config`, and a line each in `resolve.rs` and in `Args::layer` of `cli/run.rs`.

use std::path::PathBuf;

use super::alerts::Webhooks;
use super::change::{Evidence, Probe, Words};
use super::conntrack::{SettingTable, TimeoutTable};
use super::lint::LintTable;
use super::management::Managers;
use super::metrics::Listen;
use super::pressure::Profiles;
use super::table::{self, Effect, Given, Key, Origin, Value, keys};
use super::values::{
    AttachName, CaptureFilesName, CaptureLinkName, HostRoadName, ModeName, OnFailureName, Pairs,
    Paths, Ports, StateFile, UserName, Whole, ZeroCopyName,
};
use crate::daemon::sandbox::Seccomp;

keys! {
    /// Network interfaces to take over. At least one, here or as flags.
    ports: Ports = "ports", Restart, "--port", Ports::default();
    /// What to do with frames: route between ports, cross between the ports of a pair,
    /// or (host) serve this machine only.
    mode: ModeName = "mode", Restart, "--mode", ModeName::Routed;
    /// In mode bridge: which ports are pairs. Two ports need not be named.
    bridge: Pairs = "bridge", Restart, "--bridge", Pairs::default();
    /// Workers, one for each queue of every port. Unset: as many as the ports have queues.
    workers: Option<Whole<1, 256>> = "workers", Restart, "--workers", None;
    /// What becomes of findings of `lint` and `check`, as { accept-any = "deny" }: deny makes
    /// lint fail, warn and note show them, allow hides them. `lint --codes` lists them.
    lint: LintTable = "lint", Live, "", LintTable::default();

    /// Webhooks, each an [[alert]] with url and events (drop-rate, conntrack-warning,
    /// conntrack-critical, log-loss, rollback, exception-expiring, pressure, matrix-failure), and
    /// body, drop-rate, conntrack-warning, conntrack-critical, hold, expiring, timeout, attempts
    /// and queue where they differ from what is usual.
    alerts: Webhooks = "alert", Restart, "", Webhooks::default();

    /// What is done under pressure, each a [[pressure]] with name, enter and leave (levels of
    /// conntrack and cpu in percent, new-flows and drops a second), hold and release (seconds),
    /// timeouts that are shortened, and rules and rules6, a policy for the time.
    pressure: Profiles = "pressure", Restart, "", Profiles::default();

    /// The IPv4 policy, an iptables-save file. A reload reads it again.
    rules: Option<PathBuf> = "policy.rules", Live, "--rules", None;
    /// The IPv6 policy, an ip6tables-save file. A reload reads it again.
    rules6: Option<PathBuf> = "policy.rules6", Live, "--rules6", None;
    /// Sets that rules name: `ipset save` files, or directories of them. A reload reads them
    /// again. Unset: the files in /etc/portcullis/sets, if there are any, but for daemons
    /// with a control socket of their own.
    sets: Option<Paths> = "policy.sets", Live, "--sets", None;
    /// Begin with the counters written in the files, as iptables-restore -c does.
    counters: bool = "policy.counters", Restart, "--counters", false;

    /// How to attach the XDP program: by the driver, by the network stack, or by what works.
    attach: AttachName = "xdp.attach", Restart, "--xdp", AttachName::Auto;
    /// Whether frames may cross without a copy.
    zero_copy: ZeroCopyName = "xdp.zero-copy", Restart, "--zero-copy", ZeroCopyName::Auto;

    /// Most addresses, of each family, that the XDP program drops by itself for source
    /// blocklists that are proven to come first (`show blocklist`). 0: the engine drops them.
    blocklist: Whole<0, 16_777_216> = "xdp.blocklist", Restart, "--xdp-blocklist",
        Whole(2_097_152);

    /// Whether this machine's own packets go through the policy (INPUT, OUTPUT) too;
    /// needed for NAT to its own addresses.
    host_road: HostRoadName = "host.road", Restart, "--host-road", HostRoadName::Auto;

    /// Packets of established connections follow what an earlier one's walk has said,
    /// instead of walking the rules themselves; where nothing is tracked, bursts of packets
    /// go straight past rules that merely accept and drop. Only speed tells the difference.
    plans: bool = "engine.plans", Restart, "--plans", true;

    /// What becomes of the traffic while the daemon is away: open leaves it to the kernel,
    /// closed drops what the policy would decide (not management, ARP, neighbour
    /// discovery). Unset: closed in mode routed, else open.
    on_failure: Option<OnFailureName> = "failure.on-failure", Restart, "--on-failure", None;
    /// Where links are kept that outlive the daemon: a directory in a bpffs.
    pin_dir: PathBuf = "failure.pin-dir", Restart, "--pin-dir",
        PathBuf::from(super::DEFAULT_PIN_DIR);
    /// A worker that has not turned for so many milliseconds is taken for away: the BPF
    /// programs do what holds without a daemon. 0: nobody watches.
    watchdog: Whole<0, 60_000> = "failure.watchdog", Restart, "--watchdog", Whole(1000);

    /// Who reaches which service of this machine whatever the policy says, as
    /// "198.51.100.0/24 tcp 22,443", "2001:db8::/48 udp 161" or "198.51.100.7 icmp".
    management: Managers = "management.allow", Live, "--management", Managers::default();

    /// Most connections at once. Live up to its value at the start.
    conntrack_max: Option<Whole<1, 268_435_456>> = "conntrack.max", Live, "--conntrack-max", None;
    /// Connection tracking and fragment settings by the kernel's names, as
    /// { tcp_loose = 0 }. What is not named has the kernel's default.
    settings: SettingTable = "conntrack.settings", Live, "--sysctl", SettingTable::default();
    /// Named timeouts for CT --timeout NAME, as
    /// { patient = { protocol = "tcp", established = 864000 } }.
    timeouts: TimeoutTable = "conntrack.timeouts", Restart, "--ct-timeout",
        TimeoutTable::default();

    /// Where connections and limits are kept over restarts; "none" for nowhere. Unset:
    /// /var/lib/portcullis/state/conntrack, or nowhere with a control socket of one's own.
    state_file: Option<StateFile> = "state.file", Restart, "--state", None;
    /// How often they are saved, in seconds.
    state_interval: Whole<1, 86_400> = "state.interval", Live, "--state-interval", Whole(5);

    /// Where every policy that is put in force is recorded; "none" for nowhere. Unset:
    /// /var/lib/portcullis/history, or nowhere with a control socket of one's own.
    history_dir: Option<StateFile> = "history.dir", Restart, "--history", None;
    /// Most records that are kept.
    history_keep: Whole<2, 100_000> = "history.keep", Restart, "--history-keep", Whole(1000);
    /// How many days they are kept.
    history_days: Whole<1, 36_500> = "history.days", Restart, "--history-days", Whole(400);
    /// What `apply` and `rollback` must be told, or they are refused (but for emergencies).
    require: Words<Evidence> = "change.require", Restart, "--require", Words(Vec::new());
    /// Services that must answer after a change (a TCP connection within three seconds each),
    /// or it is undone.
    probes: Words<Probe> = "change.probes", Restart, "--probe", Words(Vec::new());

    /// A matrix of flows: a policy that is not as it says is not put in force by `apply` or
    /// `reload` (but in an emergency).
    matrix: Option<PathBuf> = "matrix.file", Live, "--matrix", None;
    /// How often it is run against the policy in force, in seconds; after a change at once.
    /// 0: never.
    matrix_interval: Whole<0, 604_800> = "matrix.interval", Live, "--matrix-interval",
        Whole(300);

    /// Where LOG lines are appended. Unset: standard error.
    log: Option<PathBuf> = "log.file", Live, "--log", None;
    /// Where records are appended as JSON lines, too.
    log_json: Option<PathBuf> = "log.json", Restart, "--log-json", None;
    /// Lines a second that a LOG or AUDIT rule may cause after its burst. What is kept back
    /// is counted and told. 0: no limit.
    log_rate: Whole<0, 1_000_000> = "log.rate", Restart, "--log-rate", Whole(100);
    /// Lines that a rule may cause at once.
    log_burst: Whole<1, 1_000_000> = "log.burst", Restart, "--log-burst", Whole(1000);
    /// Records a second that all rules together may cause: what logging may take of the
    /// machine, whoever floods it. Captured packets have as many of their own. What is
    /// beyond is lost, counted and told. 0: no bound.
    log_budget: Whole<0, 10_000_000> = "log.budget", Restart, "--log-budget", Whole(20_000);
    /// Turn the log files over before they are longer than so many MiB. 0: never.
    log_rotate_mib: Whole<0, 1_048_576> = "log.rotate-mib", Restart, "--log-rotate-mib", Whole(0);
    /// Turn the log files over when they are so many hours old. 0: never.
    log_rotate_hours: Whole<0, 87_600> = "log.rotate-hours", Restart, "--log-rotate-hours",
        Whole(0);
    /// How many log files that were turned over are kept (FILE.1 is the latest).
    log_keep: Whole<1, 1000> = "log.keep", Restart, "--log-keep", Whole(8);
    /// A JSON line about the heaviest sources and rules every so many seconds. 0: never.
    log_top: Whole<0, 86_400> = "log.top", Restart, "--log-top", Whole(60);
    /// Lines a second about traced packets (TRACE), all together, and at once. 0: no limit.
    trace_rate: Whole<0, 1_000_000> = "log.trace-rate", Restart, "--trace-rate", Whole(1000);

    /// Where NFLOG rules capture packets, as pcap files. Unset: they become lines of the log.
    nflog_dir: Option<PathBuf> = "nflog.dir", Restart, "--nflog-dir", None;
    /// One capture file for each group, or one for all.
    nflog_files: CaptureFilesName = "nflog.files", Restart, "--nflog-files",
        CaptureFilesName::Group;
    /// What a captured packet begins with: the kernel's attributes (prefix, hook, mark, ...), an
    /// Ethernet header, or the IP header.
    nflog_link: CaptureLinkName = "nflog.link", Restart, "--nflog-link", CaptureLinkName::Nflog;
    /// Packets a second that an NFLOG rule may capture, and at once. 0: no limit.
    nflog_rate: Whole<0, 10_000_000> = "nflog.rate", Restart, "--nflog-rate", Whole(10_000);
    /// Turn capture files over before they are longer than so many MiB. 0: never.
    nflog_rotate_mib: Whole<0, 1_048_576> = "nflog.rotate-mib", Restart, "--nflog-rotate-mib",
        Whole(64);
    /// How many files of each that were turned over are kept.
    nflog_keep: Whole<1, 1000> = "nflog.keep", Restart, "--nflog-keep", Whole(8);

    /// Where Prometheus scrapes metrics: an address with a port, as "127.0.0.1:9649". Whoever
    /// reaches it reads them. Unset: nowhere; `show metrics` prints them.
    metrics_listen: Option<Listen> = "metrics.listen", Restart, "--metrics", None;
    /// Rules with series of their own at most; the others have one in common.
    metrics_rules: Whole<0, 10_000> = "metrics.rules", Restart, "--metrics-rules", Whole(200);

    /// Where to listen for commands.
    socket: PathBuf = "control.socket", Restart, "--socket", PathBuf::from(super::DEFAULT_SOCKET);
    /// A group (its number) whose members may use the control socket, besides root.
    socket_group: Option<Whole<0, 4_294_967_294>> = "control.group", Restart, "--socket-group",
        None;

    /// The user to run as, keeping the capabilities that are needed: a name or a number,
    /// with a group as NAME:GROUP. Unset: whoever starts the daemon.
    user: Option<UserName> = "service.user", Restart, "--user", None;
    /// What becomes of system calls that running does not need: the daemon is ended, they
    /// are named in the kernel's log, or nobody looks.
    seccomp: Seccomp = "service.seccomp", Restart, "--seccomp", Seccomp::Enforce;
}
