//! The stable names of what `doctor` finds, why each matters, and whether
//! `--fix` may mend it. The table in docs/operations.md is made from this one.

use serde::{Serialize, Serializer};

/// Which part of the machine a finding is about; findings are shown in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Kernel features, privileges, limits.
    Kernel,
    /// The network devices to be used.
    Port,
    /// Memory and what needs it.
    Memory,
    /// Time.
    Clock,
    /// Cores, and who else uses them.
    Cpu,
    /// Forwarding, the kernel's own rules, directories.
    System,
    /// The running daemon.
    Daemon,
    /// Policy and configuration files.
    Config,
}

macro_rules! codes {
    ($($variant:ident, $name:literal, $group:ident, $fixes:literal, $why:literal;)+) => {
        /// What kind of thing a finding is about. The kebab-case name is stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $why] $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
            /// What it is about.
            pub const fn group(self) -> Group {
                match self { $(Self::$variant => Group::$group,)+ }
            }
            /// Why it matters, in one sentence without a full stop.
            pub const fn why(self) -> &'static str {
                match self { $(Self::$variant => $why,)+ }
            }
            /// Whether `--fix` may ever mend it.
            pub const fn fixes(self) -> bool {
                match self { $(Self::$variant => $fixes,)+ }
            }
        }
    };
}

codes! {
    KernelVersion, "kernel-version", Kernel, false, "older kernels lack tcx links or have AF_XDP faults that are mended since";
    Privilege, "privilege", Kernel, false, "the daemon needs these capabilities to load programs and open sockets";
    AfXdp, "af-xdp", Kernel, false, "without AF_XDP sockets no frame reaches the engine";
    BpfLoad, "bpf-load", Kernel, false, "the kernel must take the XDP program and its maps";
    XdpLink, "xdp-link", Kernel, false, "programs are attached by links, so that nothing is left behind when the process ends";
    Owners, "owners", Kernel, false, "`-m owner` asks whose packets of this machine are, which the BPF programs read off the kernel's own structures";
    HostRoadLink, "host-road-link", Kernel, false, "the host road needs TAP devices and tcx links; without it INPUT and OUTPUT are not enforced";
    Tun, "tun", Kernel, false, "the host road carries this machine's own packets through TAP devices";
    IoUring, "io-uring", Kernel, false, "without it every packet of the host road costs a system call of its own";
    BpfJit, "bpf-jit", Kernel, true, "an interpreted XDP program is several times slower";
    Bpffs, "bpffs", Kernel, true, "with on-failure closed the programs are pinned there, to hold when the process is gone";
    Memlock, "memlock", Kernel, false, "frame memory is pinned, and the limit is too low for it";
    OpenFiles, "open-files", Kernel, false, "sockets, programs, maps and TAPs are open files";
    PortMissing, "port-missing", Port, false, "the daemon does not start without its ports";
    PortKind, "port-kind", Port, false, "only Ethernet devices carry the frames that the engine reads";
    PortEnslaved, "port-enslaved", Port, false, "a bridge, bond or VRF takes the frames that the kernel should see on this device";
    PortHeld, "port-held", Port, false, "a port belongs to one process";
    PortPinned, "port-pinned", Port, false, "a daemon that is gone keeps it closed: only management traffic passes until a daemon adopts it";
    PortDown, "port-down", Port, false, "nothing is received or sent";
    Carrier, "carrier", Port, false, "nothing is received or sent";
    Driver, "driver", Port, false, "tells what the device can do";
    XdpMode, "xdp-mode", Port, false, "generic mode makes a socket buffer for every frame first";
    ZeroCopy, "zero-copy", Port, false, "in copy mode the kernel copies every frame, in and out";
    XdpForeign, "xdp-foreign", Port, false, "a device has room for one XDP program";
    TcxForeign, "tcx-foreign", Port, false, "it sees what the kernel sends and what INPUT delivers, before or after us, and may change or drop it";
    TcFilter, "tc-filter", Port, false, "traffic control sees what the kernel keeps and what INPUT delivers, but nothing that is forwarded";
    Queues, "queues", Port, false, "worker i reads queue i of every port: a queue without a socket loses its flows";
    RssTable, "rss-table", Port, false, "a queue that the device never fills leaves its worker idle";
    RssSymmetry, "rss-symmetry", Port, false, "both directions of a connection should meet on one core: less is shared between caches";
    RssPorts, "rss-ports", Port, false, "all UDP flows between two addresses come to one queue";
    Steering, "steering", Port, false, "rules in the device send flows to queues of their own choice";
    Rings, "rings", Port, false, "a small ring in the device overflows in bursts before a worker can look";
    Mtu, "mtu", Port, false, "one frame must fit one chunk of 4096 bytes with headroom; longer ones are dropped";
    PeerMtu, "peer-mtu", Port, false, "the veth driver refuses the program when its peer may send longer frames, and generic mode is used";
    PeerUnseen, "peer-unseen", Port, false, "a veth's peer decides whether checksums and VLAN tags are in the frames";
    PeerChecksum, "peer-checksum", Port, true, "the peer leaves TCP and UDP checksums to hardware that is not there: such packets are INVALID and arrive broken";
    PeerVlan, "peer-vlan", Port, true, "the peer keeps VLAN tags out of the frames: they are judged, and cross, untagged";
    RxVlan, "rx-vlan", Port, true, "the device takes VLAN tags out of the frames: they are judged, and cross, untagged";
    RxVlanFilter, "rx-vlan-filter", Port, true, "the device drops frames of VLANs that this machine does not have, which a bridge should carry";
    Lro, "lro", Port, true, "joined frames do not fit a chunk, and many drivers refuse native XDP with it";
    GroHw, "gro-hw", Port, true, "frames joined by the device do not fit a chunk, and joining loses what was on the wire";
    UdpGro, "udp-gro", Port, false, "what the kernel keeps for itself may be joined and forwarded as larger datagrams";
    Promiscuous, "promiscuous", Port, false, "the device hands over frames that are not for this machine, which cost time to drop";
    MemoryFrames, "memory-frames", Memory, false, "frame memory is taken at start and never given back";
    HugePages, "huge-pages", Memory, false, "with huge pages fewer address translations miss: some nanoseconds a packet";
    TransparentPages, "transparent-pages", Memory, false, "a large connection table misses fewer address translations with them";
    MemoryConntrack, "memory-conntrack", Memory, false, "the connection table is made whole at start";
    ConntrackSize, "conntrack-size", Memory, false, "a table that is too small drops new connections; one that is too large starves the rest";
    ClockSource, "clock-source", Clock, false, "reading the time is a system call, several for each burst";
    ClockWall, "clock-wall", Clock, false, "rules with times, log lines and connections kept over restarts go by the wall clock";
    ClockSync, "clock-sync", Clock, false, "an unsynchronised clock drifts: `time` matches and log lines are off";
    Cores, "cores", Cpu, false, "workers that share a core wait for each other";
    CpuQuota, "cpu-quota", Cpu, false, "a throttled worker lets its rings overflow";
    Governor, "governor", Cpu, false, "a core that saves power is slow when a burst begins";
    Siblings, "siblings", Cpu, false, "two workers on one physical core have half of it each";
    Isolation, "isolation", Cpu, false, "the scheduler puts other work on a worker's core";
    Irq, "irq", Cpu, false, "interrupts of one port's queue on another worker's core take its time";
    Irqbalance, "irqbalance", Cpu, false, "it moves interrupts onto workers' cores while they run";
    Forwarding4, "forwarding-v4", System, true, "it decides what the kernel does with IPv4 once the daemon is away: 1 forwards (open), 0 does not (closed)";
    Forwarding6, "forwarding-v6", System, true, "it decides what the kernel does with IPv6 once the daemon is away: 1 forwards (open), 0 does not (closed)";
    ReversePath, "reverse-path", System, false, "what INPUT accepts is received by the kernel as if on the port, which then drops what it would not answer there";
    KernelRules, "kernel-rules", System, false, "the kernel's own rules apply to this machine's own packets beside ours: both must accept";
    KernelConntrack, "kernel-conntrack", System, false, "the kernel tracks its own packets once more, which costs time and a second table";
    StateDirectory, "state-directory", System, false, "connections are kept there over restarts";
    LogDirectory, "log-directory", System, false, "what cannot be logged is lost";
    DaemonAbsent, "daemon-absent", Daemon, false, "what is really in force can only be asked of a running daemon";
    DaemonSocket, "daemon-socket", Daemon, false, "without the control socket the policy cannot be changed or looked at";
    DaemonVersion, "daemon-version", Daemon, false, "an upgrade takes effect with the next start";
    DaemonPorts, "daemon-ports", Daemon, false, "the running daemon has other ports than were asked about";
    OutOfService, "out-of-service", Daemon, false, "no frame of this port is handled";
    HostRoad, "host-road", Daemon, false, "without it INPUT and OUTPUT are loaded but not enforced";
    DaemonNote, "daemon-note", Daemon, false, "what the daemon had to simplify";
    Losses, "losses", Daemon, false, "frames were lost before or behind the engine, not by the policy";
    LogLost, "log-lost", Daemon, false, "LOG lines are missing in the log";
    StateSave, "state-save", Daemon, false, "a restart would lose connections";
    ConntrackFull, "conntrack-full", Daemon, false, "new connections are dropped, or have quotas";
    WorkerStuck, "worker-stuck", Daemon, false, "the packets of its queues wait";
    Pins, "pins", Daemon, false, "with on-failure closed the programs must stay when the process ends";
    PolicyOpen, "policy-open", Daemon, false, "no rule is loaded: every packet is accepted";
    Configuration, "configuration", Config, false, "with a file that is refused the daemon does not start; here the command line alone was taken";
    ModeFits, "mode", Config, false, "the daemon does not start with ports that do not fit its mode";
    Network, "network", Config, false, "routes, rules and neighbours are the kernel's: what cannot be honoured is refused or simplified";
    Management, "management", Config, false, "a policy that cuts you off, or a failure with on-failure closed, leaves no way in";
    User, "user", Config, false, "the daemon does not start when it cannot become its user";
    Rules, "rules", Config, false, "the daemon does not start, or reload, with a policy that does not load";
    NotSeen, "not-seen", Config, false, "doctor could not look: it says nothing about this";
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// The table of codes for docs/operations.md.
pub fn table() -> String {
    let mut text = String::from("| code | why it matters | `--fix` |\n|---|---|---|\n");
    for code in Code::ALL {
        let fixes = if code.fixes() { "yes" } else { "" };
        text.push_str(&format!("| `{}` | {} | {fixes} |\n", code.name(), code.why()));
    }
    text
}
