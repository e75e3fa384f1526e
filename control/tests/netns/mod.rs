//! Network namespaces for privileged tests: made for one test, gone with it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A network namespace of our own. Dropping it kills what runs inside and
/// removes it, and with it every device that was in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    /// Makes one, with loopback up. `role` is part of its name.
    pub(crate) fn new(role: &str) -> Self {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pcd-{}-{serial}-{role}", std::process::id());
        shell(&format!("ip netns add {name}"));
        let namespace = Self { name };
        // Addresses can be used at once.
        namespace.run("sysctl -qw net.ipv6.conf.all.accept_dad=0");
        namespace.run("sysctl -qw net.ipv6.conf.default.accept_dad=0");
        namespace.run("ip link set lo up");
        namespace
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. BPF objects go to a file system of its own.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a shell line inside; it must succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let output = self.attempt(line);
        assert!(output.status.success(), "{}: `{line}` failed: {}", self.name, text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell line inside and returns what came of it.
    pub(crate) fn attempt(&self, line: &str) -> Output {
        self.command("sh").args(["-c", line]).output().expect("ip netns exec runs")
    }

    /// Runs a closure on a thread that has entered the namespace.
    pub(crate) fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                use std::os::fd::AsFd;
                let file = std::fs::File::open(path).expect("the namespace exists");
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("tests run as root");
                body()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let name = &self.name;
        let _ = Command::new("sh")
            .args(["-c", &format!("ip netns pids {name} | xargs -r kill -9; ip netns del {name}")])
            .output();
    }
}

/// Joins two namespaces with a veth pair of `queues` queues a side.
pub(crate) fn join(a: (&Namespace, &str), b: (&Namespace, &str), queues: u32) {
    shell(&format!(
        "ip -n {} link add {} numtxqueues {queues} numrxqueues {queues} type veth \
         peer name {} netns {} numtxqueues {queues} numrxqueues {queues}",
        a.0.name, a.1, b.1, b.0.name
    ));
    for (namespace, device) in [a, b] {
        // AF_XDP hands frames over as they are: partial checksums would be lost.
        namespace.run(&format!("ethtool -K {device} tx off >/dev/null"));
        namespace.run(&format!("ip link set {device} up"));
    }
}

/// Runs a shell line outside of any namespace; it must succeed.
pub(crate) fn shell(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh runs");
    assert!(output.status.success(), "`{line}` failed: {}", text(&output));
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
