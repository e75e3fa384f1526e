//! Namespaces for measurements over veths, and where the processor's time goes.
//!
//! ```text
//!   namespace NAME-g: generator      namespace NAME-s: subject
//!   a0 198.18.1.2  ----------------  a1 198.18.1.1
//!   b0 198.18.2.2  ----------------  b1 198.18.2.1
//! ```
//!
//! Without a subject, `a0` and `b0` are one pair. The generator and the sink run on the
//! first core, the subject on the last one. veth delivers on the sending core: the
//! XDP program before the subject runs on the generator's, that before the sink on the
//! subject's. A kernel that forwards is steered to the subject's core (RPS).

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use dataplane::packet::Mac;
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};

use crate::ipsets::command;

/// What anything here may fail with.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The generator's devices, in the order of their addresses.
pub(crate) const GENERATOR: [&str; 2] = ["a0", "b0"];
/// The subject's.
pub(crate) const SUBJECT: [&str; 2] = ["a1", "b1"];

/// MAC address of a device.
pub(crate) fn mac(device: &str) -> Mac {
    let bytes = device.as_bytes();
    Mac([2, 0, 0, 0, bytes[0], bytes[1]])
}

/// As `ip` writes it.
pub(crate) fn mac_text(device: &str) -> String {
    mac(device).0.map(|byte| format!("{byte:02x}")).join(":")
}

/// What lies between the generator's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// Nothing: a veth pair.
    Wire,
    /// A subject.
    Subject,
}

/// The namespaces; gone when the last holder drops them.
#[derive(Clone, Debug)]
pub(crate) struct Lab(Arc<Spaces>);

#[derive(Debug)]
struct Spaces {
    name: String,
    parts: &'static [&'static str],
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for part in self.parts {
            let _gone = command(&["ip", "netns", "del", &format!("{}-{part}", self.name)], "");
        }
    }
}

impl Lab {
    /// Makes them.
    ///
    /// # Errors
    /// What `ip` says; nothing is left then.
    pub(crate) fn new(between: Between) -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let parts: &[_] = if between == Between::Wire { &["g"] } else { &["g", "s"] };
        let name = format!("ptl-gen-{}-{number}", std::process::id());
        let lab = Self(Arc::new(Spaces { name, parts }));
        for part in parts {
            let space = lab.namespace(part);
            command(&["ip", "netns", "add", &space], "")?;
            let quiet = "sysctl -qw net.ipv6.conf.default.disable_ipv6=1 \
                 net.ipv6.conf.all.disable_ipv6=1 net.ipv4.ip_forward=1 \
                 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
                 net.ipv4.conf.all.send_redirects=0 && ip link set lo up";
            command(&["ip", "netns", "exec", &space, "sh", "-c", quiet], "")?;
        }
        match between {
            Between::Wire => lab.pair("a0", "b0", "g")?,
            Between::Subject => {
                lab.pair("a0", "a1", "s")?;
                lab.pair("b0", "b1", "s")?;
                lab.addresses()?;
            }
        }
        Ok(lab)
    }

    fn pair(&self, ours: &str, theirs: &str, part: &str) -> Outcome<()> {
        let (near, far) = (self.namespace("g"), self.namespace(part));
        let (ours_mac, theirs_mac) = (mac_text(ours), mac_text(theirs));
        let script = format!(
            "ip -n {near} link add {ours} address {ours_mac} type veth \
             peer name {theirs} address {theirs_mac} netns {far} && \
             ip netns exec {near} ethtool -K {ours} tx off >/dev/null && \
             ip netns exec {far} ethtool -K {theirs} tx off >/dev/null && \
             ip -n {near} link set {ours} up && ip -n {far} link set {theirs} up"
        );
        command(&["sh", "-c", &script], "")?;
        Ok(())
    }

    fn addresses(&self) -> Outcome<()> {
        let space = self.namespace("s");
        let last = 1u32 << (cores() - 1);
        for (at, (device, peer)) in (1..).zip(SUBJECT.iter().zip(GENERATOR)) {
            let script = format!(
                "ip -n {space} addr add 198.18.{at}.1/24 dev {device} && \
                 ip -n {space} neigh replace 198.18.{at}.2 lladdr {} dev {device} && \
                 ip -n {space} route add 10.{at}.0.0/16 via 198.18.{at}.2 && \
                 ip netns exec {space} sh -c \
                 'echo {last:x} >/sys/class/net/{device}/queues/rx-0/rps_cpus'",
                mac_text(peer)
            );
            command(&["sh", "-c", &script], "")?;
        }
        Ok(())
    }

    /// The name of a part's namespace: `g` or `s`.
    pub(crate) fn namespace(&self, part: &str) -> String {
        format!("{}-{part}", self.0.name)
    }

    /// Runs a command where the subject is.
    ///
    /// # Errors
    /// What it says when it fails.
    pub(crate) fn subject(&self, words: &[&str], input: &str) -> Outcome<String> {
        let space = self.namespace("s");
        command(&[&["ip", "netns", "exec", &space], words].concat(), input)
    }
}

/// Runs `work` on a thread inside a namespace.
///
/// # Errors
/// What `work` says, or that the namespace is gone.
pub(crate) fn inside<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{namespace}"));
            let file = file.map_err(|error| error.to_string())?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| error.to_string())?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err("the thread panicked".to_owned()))
    })
}

/// Cores that this process may use, as many as there were before anybody was bound to one.
pub(crate) fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

/// Keeps the calling thread on a core.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn pin(core: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// Lets the calling thread run on every core again.
///
/// # Errors
/// The kernel's refusal.
pub(crate) fn unpin() -> Outcome<()> {
    let mut set = CpuSet::new();
    (0..cores()).for_each(|core| set.set(core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Nanoseconds that all threads of a process, or one of them, have run.
pub(crate) fn thread_ns(process: u32, thread: Option<u32>) -> Option<u64> {
    let path = format!("/proc/{process}/task");
    let threads: Vec<String> = match thread {
        Some(thread) => vec![thread.to_string()],
        None => std::fs::read_dir(&path)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect(),
    };
    let ran = |thread: &String| {
        let text = std::fs::read_to_string(format!("{path}/{thread}/schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Some(threads.iter().filter_map(ran).sum())
}

/// Seconds that a core was busy since it started, interrupts included.
pub(crate) fn core_busy(core: usize) -> Option<f64> {
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find(|line| line.starts_with(&format!("cpu{core} ")))?;
    let fields: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system IDLE IOWAIT irq softirq steal: stolen time is not ours either.
    let busy = [0, 1, 2, 5, 6].iter().map(|at| fields.get(*at).copied().unwrap_or(0.0));
    Some(busy.sum::<f64>() / TICKS)
}

/// The one in the middle; of an even number the upper.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
