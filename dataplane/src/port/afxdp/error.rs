//! Why ports cannot be opened.

use std::io;

use super::ring::RingLayoutError;
use super::{AttachChoice, BpfError, MAX_MTU, PinError};
use crate::packet::MAX_PORTS;
use crate::port::PoolError;
use crate::port::host::HostError;

/// Why ports cannot be opened. Every message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AfxdpError {
    /// No such device.
    #[error("no network device {device}: {source}")]
    NoDevice {
        /// Its name.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A device named twice would be two ports on the same queues.
    #[error("device {device} is given twice")]
    Twice {
        /// Its name.
        device: String,
    },
    /// More ports than can be told apart, or none.
    #[error("{count} ports: 1 to {MAX_PORTS} are possible")]
    PortCount {
        /// Ports asked for.
        count: usize,
    },
    /// Ring sizes are powers of two.
    #[error("a ring of {size} entries: a power of two from 64 to 65536 is needed")]
    RingSize {
        /// Size asked for.
        size: u32,
    },
    /// Somebody asks whose packets are, and the programs cannot tell.
    #[error(
        "the programs cannot see whose packets of this machine are ({why}): `-m owner` needs a \
         kernel with CONFIG_DEBUG_INFO_BTF, not locked for confidentiality, and CAP_PERFMON"
    )]
    OwnersUntold {
        /// What is in the way.
        why: String,
    },
    /// Queues and workers must match.
    #[error(
        "device {device} has {queues} queue(s) but there are {workers} worker(s): run \
         `ethtool -L {device} combined {workers}`, or start with --workers {queues}"
    )]
    Queues {
        /// The device.
        device: String,
        /// Queues it uses.
        queues: u32,
        /// Workers asked for.
        workers: usize,
    },
    /// Frames of this device can be longer than a chunk.
    #[error(
        "device {device} has MTU {mtu}, and frames of at most MTU {MAX_MTU} can be taken: run \
         `ip link set {device} mtu {MAX_MTU}` or less"
    )]
    Mtu {
        /// The device.
        device: String,
        /// Its MTU.
        mtu: u32,
    },
    /// No frames with MAC addresses cross it.
    #[error("device {device} is not an Ethernet device")]
    NotEthernet {
        /// The device.
        device: String,
    },
    /// Part of a bridge, bond or VRF.
    #[error(
        "device {device} belongs to {controller}: take it out with `ip link set {device} nomaster`"
    )]
    Enslaved {
        /// The device.
        device: String,
        /// What it belongs to.
        controller: String,
    },
    /// Somebody else's XDP program is attached.
    #[error(
        "device {device} already has an XDP program: is another portcullis running on it? \
         See `ip -d link show {device}`"
    )]
    ProgramBusy {
        /// The device.
        device: String,
    },
    /// The program cannot be attached.
    #[error(
        "the XDP program cannot be attached to {device} ({choice:?}): {source}{}",
        attach_hint(source)
    )]
    Attach {
        /// The device.
        device: String,
        /// The mode asked for.
        choice: AttachChoice,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel says that nothing is attached after all.
    #[error("device {device} shows no XDP program although one was attached")]
    NotAttached {
        /// The device.
        device: String,
    },
    /// Somebody else's socket is bound to the queue.
    #[error("queue {queue} of {device} is in use by another AF_XDP socket")]
    QueueBusy {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
    },
    /// Zero-copy was asked for and is not possible.
    #[error("device {device} queue {queue} has no zero-copy support: use copy mode")]
    NoZeroCopy {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
    },
    /// The socket cannot be bound.
    #[error("queue {queue} of {device} cannot be bound: {source}")]
    Bind {
        /// The device.
        device: String,
        /// The queue.
        queue: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{call} for {device}: {source}{}", privilege_hint(source))]
    Call {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's ring offsets make no sense.
    #[error(transparent)]
    Ring(#[from] RingLayoutError),
    /// The kernel refuses the XDP program to this user.
    #[error("{NEEDED}: {0}")]
    Privilege(BpfError),
    /// The XDP program or its maps.
    #[error(transparent)]
    Bpf(BpfError),
    /// Frame memory.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The host road.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Links that outlive the process.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl AfxdpError {
    /// Whether the kernel refused for lack of a privilege.
    pub fn is_privilege(&self) -> bool {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::NoDevice { source, .. }
            | Self::Attach { source, .. }
            | Self::Bind { source, .. }
            | Self::Call { source, .. } => denied(source),
            Self::Privilege(_) => true,
            _ => false,
        }
    }
}

impl From<BpfError> for AfxdpError {
    fn from(error: BpfError) -> Self {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        if caused_by(&error, &denied) { Self::Privilege(error) } else { Self::Bpf(error) }
    }
}

/// What a refusal for lack of privilege asks for.
const NEEDED: &str = "root, or CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK, is needed";

/// Whether an I/O error among an error's causes satisfies `test`.
fn caused_by(error: &(dyn std::error::Error + 'static), test: &dyn Fn(&io::Error) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(test) {
            return true;
        }
        next = error.source();
    }
    false
}

fn privilege_hint(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!(" ({NEEDED})"),
        Some(libc::EAFNOSUPPORT) => " (this kernel has no AF_XDP)".to_owned(),
        Some(libc::ENOBUFS) => " (the memory lock limit is too low: see `ulimit -l`)".to_owned(),
        _ => String::new(),
    }
}

fn attach_hint(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::EOPNOTSUPP) => " (the driver has no native XDP: use generic mode)".to_owned(),
        Some(libc::ERANGE | libc::EINVAL) => {
            " (for a veth, the peer's MTU must be at most 3506, or generic mode used)".to_owned()
        }
        _ => privilege_hint(source),
    }
}
