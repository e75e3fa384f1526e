//! Network namespaces for privileged tests: made for one test, gone with it.

#![allow(dead_code, reason = "each test binary uses its part")]

mod process;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use process::{Directory, Process};

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

/// Client, gateway and server in a row (`a0`-`g0`, `g1`-`b0`), and a directory for files.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) server: Namespace,
    pub(crate) directory: Directory,
}

impl Row {
    /// Without addresses. `test` is part of the directory's name.
    pub(crate) fn bare(test: &str, queues: u32) -> Self {
        let (client, gateway, server) =
            (Namespace::new("a"), Namespace::new("gw"), Namespace::new("b"));
        join((&client, "a0"), (&gateway, "g0"), queues);
        join((&server, "b0"), (&gateway, "g1"), queues);
        let serial = gateway.name().replace("pcd-", "");
        let directory = Directory::new(&format!("{test}-{serial}"));
        Self { client, gateway, server, directory }
    }

    /// 198.18.1.0/24 and 198.18.2.0/24, the gateway between them.
    pub(crate) fn routed(test: &str) -> Self {
        let row = Self::bare(test, 1);
        row.client.run("ip addr add 198.18.1.2/24 dev a0; ip route add default via 198.18.1.1");
        row.server.run("ip addr add 198.18.2.2/24 dev b0; ip route add default via 198.18.2.1");
        row.gateway.run("ip addr add 198.18.1.1/24 dev g0; ip addr add 198.18.2.1/24 dev g1");
        row
    }

    /// The same with 2001:db8:1::/64 and 2001:db8:2::/64.
    pub(crate) fn routed_twice(test: &str) -> Self {
        let row = Self::routed(test);
        row.client.run("ip addr add 2001:db8:1::2/64 dev a0 nodad");
        row.client.run("ip route add default via 2001:db8:1::1");
        row.server.run("ip addr add 2001:db8:2::2/64 dev b0 nodad");
        row.server.run("ip route add default via 2001:db8:2::1");
        row.gateway.run("ip addr add 2001:db8:1::1/64 dev g0 nodad");
        row.gateway.run("ip addr add 2001:db8:2::1/64 dev g1 nodad");
        row
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
