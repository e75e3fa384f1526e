//! Namespaces with veths, made for one test and deleted with it.
//!
//! ```text
//!   namespace L            namespace F              namespace R
//!        l0  ------------ f0   (box)   f1 ------------ r0
//!   198.18.1.2/24   198.18.1.1/24  198.18.2.1/24   198.18.2.2/24
//! ```
//!
//! Nothing here touches the machine's own devices.

use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The three namespaces. Dropping it deletes them, and with them the devices.
pub(crate) struct Lab {
    name: String,
}

/// Runs a command; fails the test when it fails.
pub(crate) fn run(command: &str) -> Output {
    let output = attempt(command);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{command}` failed: {error}");
    output
}

/// Runs a command that may fail.
pub(crate) fn attempt(command: &str) -> Output {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a command");
    Command::new(program).args(words).output().expect("the command can be run")
}

impl Lab {
    /// Makes the namespaces, with `queues` queues on every device.
    pub(crate) fn new(queues: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let lab = Self { name: format!("pcp{}-{number}", std::process::id()) };
        let (l, f, r) = (lab.left(), lab.boxed(), lab.right());
        for namespace in [&l, &f, &r] {
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip -n {namespace} link set lo up"));
        }
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        for (inside, outside, namespace) in [("f0", "l0", &l), ("f1", "r0", &r)] {
            run(&format!(
                "ip -n {f} link add {inside} {queues} type veth peer name {outside} {queues} \
                 netns {namespace}"
            ));
        }
        for (namespace, device, address) in [
            (&l, "l0", "198.18.1.2/24"),
            (&f, "f0", "198.18.1.1/24"),
            (&f, "f1", "198.18.2.1/24"),
            (&r, "r0", "198.18.2.2/24"),
        ] {
            // No neighbour discovery or router solicitations of the kernel's own among the frames.
            run(&format!(
                "ip netns exec {namespace} sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1"
            ));
            run(&format!("ip -n {namespace} addr add {address} dev {device}"));
            run(&format!("ip netns exec {namespace} ethtool -K {device} tx off"));
            run(&format!("ip -n {namespace} link set {device} up"));
        }
        run(&format!("ip -n {l} route add default via 198.18.1.1"));
        run(&format!("ip -n {r} route add default via 198.18.2.1"));
        lab
    }
    pub(crate) fn left(&self) -> String {
        format!("{}l", self.name)
    }
    pub(crate) fn boxed(&self) -> String {
        format!("{}f", self.name)
    }
    pub(crate) fn right(&self) -> String {
        format!("{}r", self.name)
    }
    /// `ip -d link show` of a device.
    pub(crate) fn show(&self, namespace: &str, device: &str) -> String {
        let output = run(&format!("ip -n {namespace} -d link show {device}"));
        String::from_utf8(output.stdout).expect("ip writes UTF-8")
    }
    /// Whether `count` pings from a namespace were all answered.
    pub(crate) fn ping(&self, namespace: &str, to: &str) -> bool {
        attempt(&format!("ip netns exec {namespace} ping -n -c 3 -i 0.2 -W 1 {to}"))
            .status
            .success()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [self.left(), self.boxed(), self.right()] {
            attempt(&format!("ip netns del {namespace}"));
        }
    }
}

/// Runs `work` on a thread inside a namespace. Sockets made there stay there.
pub(crate) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{namespace}"))
                .expect("the namespace exists");
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root can enter a namespace");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
