//! The daemon as a service: what it gives up, as whom it runs, what it tells the service
//! manager. The real binary between network namespaces. Needs root.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};

mod netns;
use netns::{Directory, Namespace, Process, Row, join, shell};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

const OPEN: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p icmp -m icmp --icmp-type 8 -j LOG --log-prefix \"ping: \"
-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT
COMMIT
";

const CLOSED: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
";

/// `NET_ADMIN`, `NET_RAW`, `IPC_LOCK`.
const RUNNING: u64 = 1 << 12 | 1 << 13 | 1 << 14;
/// Gives a command a TAP device as udev makes it, open to all: this machine's may not be.
const TAPS: &str = "mount -t tmpfs -o mode=755 tmpfs /dev/net && \
    mknod -m 666 /dev/net/tun c 10 200 && exec \"$@\"";
/// A user that no machine has.
const USER: u32 = 48_213;

/// Client, gateway and server, a directory, and a socket where the service manager listens.
struct Lab {
    client: Namespace,
    gateway: Namespace,
    server: Namespace,
    directory: Directory,
    manager: UnixDatagram,
    daemon: Option<Process>,
}

impl Lab {
    fn new() -> Self {
        let Row { client, gateway, server, directory } = Row::routed("service");
        let socket = directory.join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).unwrap();
        manager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let lab = Self { client, gateway, server, directory, manager, daemon: None };
        lab.write("rules.v4", OPEN);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// `run` in the gateway by way of `wrapper`, told of the service manager.
    fn command(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.gateway.command("sh");
        command.args(["-c", TAPS, "sh"]).args(wrapper);
        command.args(["run", "--port", "g0", "--port", "g1"]);
        if !arguments.contains(&"--on-failure") {
            command.args(["--on-failure", "open"]);
        }
        command.args(["--conntrack-max", "4096", "--state-interval", "1"]);
        for (flag, name) in [("--rules", "rules.v4"), ("--log", "log/portcullis.log")] {
            command.arg(flag).arg(self.path(name));
        }
        command.arg("--socket").arg(self.path("run/control.sock"));
        command.arg("--state").arg(self.path("state/conntrack")).args(arguments);
        command.env("NOTIFY_SOCKET", self.path("notify"));
        command
    }

    /// Starts it and waits until it is ready.
    fn start(&mut self, mut command: Command) {
        let errors = std::fs::File::create(self.path("stderr")).unwrap();
        let (process, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", self.errors());
        self.hears("READY=1");
    }

    /// Stops it as the service manager does, and returns its exit code.
    fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.daemon.take().unwrap().wait().unwrap().code()
    }

    fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.pid()));
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--socket").arg(self.path("run/control.sock"));
        command.output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    fn pings(&self) -> bool {
        self.client.attempt("ping -c 1 -W 1 198.18.2.2").status.success()
    }

    /// What the daemon said to the service manager since it was last asked, if anything.
    fn said(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message with this line.
    fn hears(&self, line: &str) -> String {
        let mut all = String::new();
        let mut found = String::new();
        self.until(line, || {
            let Some(said) = self.said() else { return false };
            all.push_str(&said);
            found = said;
            found.lines().any(|it| it == line)
        });
        found
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(waited < Nanos::from_secs(20), "never: {what}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One field of the status of every thread.
    fn threads(&self, field: &str) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let status = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.unwrap().path().join("status")).ok()?;
            let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            Some(value.unwrap().trim().to_owned())
        };
        tasks.filter_map(status).collect()
    }

    /// Nothing but what running needs is left, on any thread.
    fn assert_narrow(&self) {
        assert!(self.threads("Seccomp").len() >= 4, "worker, control, log and main at least");
        for (field, expected) in [
            ("Seccomp", "2".to_owned()),
            ("NoNewPrivs", "1".to_owned()),
            ("CapEff", format!("{RUNNING:016x}")),
            ("CapPrm", format!("{RUNNING:016x}")),
            ("CapInh", format!("{:016x}", 0)),
            ("CapAmb", format!("{:016x}", 0)),
        ] {
            for value in self.threads(field) {
                assert_eq!(value, expected, "{field}");
            }
        }
    }
}

/// Everything that a running daemon does, so that a system call that is missing from the
/// list ends it here and not at a customer's.
fn live_a_full_life(lab: &Lab) {
    assert!(lab.pings(), "{}", lab.errors());
    assert!(lab.gateway.attempt("ping -c 1 -W 1 198.18.2.2").status.success(), "OUTPUT");
    assert!(lab.client.attempt("ping -c 1 -W 1 198.18.1.1").status.success(), "INPUT");
    for view in ["rules", "ports", "stats", "status", "nat"] {
        lab.done(&["show", view]);
    }
    assert!(lab.done(&["conntrack", "-L", "-p", "icmp"]).contains("198.18.1.2"));
    lab.done(&["conntrack", "-D", "-p", "icmp"]);
    lab.done(&["conntrack", "-F"]);
    lab.done(&["explain", "in=g0", "src=198.18.1.2", "dst=198.18.2.2", "proto=icmp", "type=8"]);
    lab.done(&["sysctl", "udp_timeout=10"]);
    // A watcher comes and goes.
    let mut watch = Command::new(BINARY);
    watch.args(["conntrack", "-E", "-p", "icmp", "--socket"]).arg(lab.path("run/control.sock"));
    let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(lab.pings());
    let mut event = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut event).unwrap();
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert!(event.contains("[NEW]"), "{event}");

    // The log is rotated, and then the policy is read again.
    let log = lab.path("log/portcullis.log");
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    lab.until("a LOG line", || lines(&log) > 0);
    std::fs::rename(&log, lab.path("log/old")).unwrap();
    lab.signal("USR1");
    lab.until("a LOG line in the new file", || lab.pings() && lines(&log) > 0);
    std::fs::remove_file(&log).unwrap();
    lab.write("rules.v4", &OPEN.replace("ping: ", "PING: "));
    lab.signal("HUP");
    let told = lab.hears("RELOADING=1");
    assert!(told.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{told}");
    let told = lab.hears("READY=1");
    assert!(told.contains("STATUS=1 worker(s) on g0, g1; policy 2; "), "{told}");
    lab.until("a LOG line in the newest file", || {
        lab.pings() && std::fs::read_to_string(&log).is_ok_and(|text| text.contains("PING: "))
    });

    // Applied, and refused.
    lab.write("closed.v4", CLOSED);
    lab.done(&["apply", "--rules", lab.path("closed.v4").to_str().unwrap()]);
    assert!(!lab.pings());
    lab.write("bad.v4", "*filter\n-A FORWARD --nonsense\nCOMMIT\n");
    assert!(!lab.cli(&["apply", "--rules", lab.path("bad.v4").to_str().unwrap()]).status.success());
    lab.done(&["apply", "--rules", lab.path("rules.v4").to_str().unwrap()]);

    // Links, addresses, routes and neighbours move.
    lab.gateway.run("ip link set g1 down");
    std::thread::sleep(Duration::from_millis(300));
    lab.gateway.run("ip link set g1 up; ip route replace 203.0.113.0/24 via 198.18.2.2");
    lab.gateway.run("ip addr add 198.18.2.9/24 dev g1; ip neigh flush all");
    lab.until("a ping after the link came back", || lab.pings());
    // A port goes away and comes back: sockets, links and queues are made anew.
    lab.gateway.run("ip link del g1");
    std::thread::sleep(Duration::from_millis(300));
    join((&lab.server, "b0"), (&lab.gateway, "g1"), 1);
    lab.server.run("ip addr add 198.18.2.2/24 dev b0; ip route add default via 198.18.2.1");
    lab.gateway.run("ip addr add 198.18.2.1/24 dev g1");
    lab.until("a ping after the port came back", || lab.pings());
    let saved = || lab.path("state/conntrack").metadata().and_then(|file| file.modified()).ok();
    let before = saved();
    lab.until("state is saved again", || saved() != before);
    let errors = lab.errors();
    for refusal in ["Operation not permitted", "ermission denied", "ead-only file system"] {
        assert!(!errors.contains(refusal), "{errors}");
    }
}

#[test]
fn a_sealed_daemon_does_all_its_work() {
    let mut lab = Lab::new();
    std::fs::create_dir(lab.path("log")).unwrap();
    let command = lab.command(&[BINARY], &["--seccomp", "enforce"]);
    lab.start(command);
    lab.assert_narrow();
    assert!(lab.threads("CapBnd").iter().all(|set| *set == format!("{:016x}", 0)));
    live_a_full_life(&lab);
    lab.assert_narrow();
    assert_eq!(lab.stop(), Some(0), "{}", lab.errors());
    lab.hears("STOPPING=1");
}

#[test]
fn seccomp_can_log_or_be_off() {
    let mut lab = Lab::new();
    std::fs::create_dir(lab.path("log")).unwrap();
    for (choice, mode) in [("log", "2"), ("off", "0")] {
        let command = lab.command(&[BINARY], &["--seccomp", choice]);
        lab.start(command);
        assert!(lab.pings());
        assert!(lab.threads("Seccomp").iter().all(|it| it == mode), "{choice}");
        assert_eq!(lab.stop(), Some(0));
    }
}

/// Gives the lab's directory to the user, as the package does with the daemon's.
fn give(lab: &Lab) {
    std::fs::create_dir(lab.path("log")).unwrap();
    for path in [lab.directory.to_path_buf(), lab.path("log")] {
        chown(&path, Some(USER), Some(USER)).unwrap();
    }
}

#[test]
fn root_becomes_the_user_and_traffic_flows() {
    let mut lab = Lab::new();
    give(&lab);
    // Directories that are missing are made for the user, even where only root may.
    chown(&lab.directory, Some(0), Some(0)).unwrap();
    let user = format!("{USER}:{USER}");
    for round in 0..2 {
        let command = lab.command(&[BINARY], &["--user", &user]);
        lab.start(command);
        let ids = format!("{USER}\t{USER}\t{USER}\t{USER}");
        assert!(lab.threads("Uid").iter().chain(&lab.threads("Gid")).all(|it| *it == ids));
        assert!(lab.threads("Groups").iter().all(|it| *it == USER.to_string()));
        lab.assert_narrow();
        assert!(lab.threads("CapBnd").iter().all(|set| *set == format!("{:016x}", 0)));
        if round == 0 {
            live_a_full_life(&lab);
        } else {
            assert!(lab.done(&["show", "status"]).contains("restored"), "state came back");
            assert!(lab.pings());
        }
        assert_eq!(lab.stop(), Some(0), "{}", lab.errors());
    }
    let mode = std::fs::metadata(lab.path("state")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // A file that is not the user's is an error with its name, at the start.
    std::fs::set_permissions(lab.path("rules.v4"), PermissionsExt::from_mode(0o600)).unwrap();
    let refused = lab.command(&[BINARY], &["--user", &user]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("rules.v4"), "{said}");
}

/// Runs a binary as systemd does with `User=` and `AmbientCapabilities=`.
fn ambient(binary: &Path) -> Vec<String> {
    let capabilities = "+net_admin,+net_raw,+bpf,+perfmon,+ipc_lock";
    let line = format!(
        "setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps {capabilities} \
         --ambient-caps {capabilities} {}",
        binary.display()
    );
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_user_with_ambient_capabilities_needs_no_root() {
    let mut lab = Lab::new();
    give(&lab);
    // Where anybody may execute it.
    let binary = lab.path("portcullis");
    std::fs::copy(BINARY, &binary).unwrap();
    let wrapper = ambient(&binary);
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let user = USER.to_string();
    for _ in 0..2 {
        let command = lab.command(&wrapper, &[]);
        lab.start(command);
        assert!(lab.threads("Uid").iter().all(|it| it.starts_with(&user)));
        lab.assert_narrow();
        assert!(lab.pings(), "{}", lab.errors());
        let told = lab.path("rules.v4");
        lab.done(&["apply", "--rules", told.to_str().unwrap()]);
        assert_eq!(lab.stop(), Some(0), "{}", lab.errors());
    }
    // Somebody else it cannot become.
    let refused = lab.command(&wrapper, &["--user", "1:1"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("only root can become user 1"), "{said}");
}

/// A bpffs outside of the namespaces, as a system has one; gone with the test.
struct Bpffs(PathBuf);

impl Bpffs {
    fn mount(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        shell(&format!("mount -t bpf bpf {}", path.display()));
        Self(path)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn the_user_keeps_links_and_finds_them_again() {
    let mut lab = Lab::new();
    give(&lab);
    let bpffs = Bpffs::mount(lab.path("bpf"));
    shell(&format!("chmod 0710 {0}; chgrp {USER} {0}", bpffs.0.display()));
    let pins = bpffs.0.join("portcullis");
    let closed = ["--on-failure", "closed", "--pin-dir", pins.to_str().unwrap()];
    let user = format!("{USER}:{USER}");
    let as_user: Vec<_> = closed.iter().copied().chain(["--user", &user]).collect();
    let command = lab.command(&[BINARY], &as_user);
    lab.start(command);
    lab.assert_narrow();
    assert!(lab.pings(), "{}", lab.errors());
    let kept = || std::fs::read_dir(&pins).unwrap().count();
    assert_ne!(kept(), 0, "nothing is pinned");
    lab.signal("KILL");
    lab.daemon.take().unwrap().wait().unwrap();
    assert_ne!(kept(), 0, "nothing stayed");
    // The next one comes by another way, with nothing but its capabilities.
    let binary = lab.path("portcullis");
    std::fs::copy(BINARY, &binary).unwrap();
    let wrapper = ambient(&binary);
    let wrapper: Vec<_> = wrapper.iter().map(String::as_str).collect();
    let command = lab.command(&wrapper, &closed);
    lab.start(command);
    lab.assert_narrow();
    assert!(lab.pings(), "{}", lab.errors());
    let status = lab.done(&["--json", "show", "status"]);
    assert!(status.contains("\"adopted\":true"), "{status}");
    assert_eq!(lab.stop(), Some(0), "{}", lab.errors());
}

/// Stops one thread of a process, and no other, until its input ends.
const FREEZE: &str = "
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
task = int(sys.argv[1])
SEIZE, INTERRUPT = 0x4206, 0x4207
assert libc.ptrace(SEIZE, task, 0, 0) == 0, ctypes.get_errno()
assert libc.ptrace(INTERRUPT, task, 0, 0) == 0, ctypes.get_errno()
print('frozen', flush=True)
sys.stdin.read()
";

#[test]
fn the_watchdog_is_fed_only_while_every_worker_turns() {
    let mut lab = Lab::new();
    std::fs::create_dir(lab.path("log")).unwrap();
    let mut command = lab.command(&[BINARY], &[]);
    command.env("WATCHDOG_USEC", "1000000");
    lab.start(command);
    for _ in 0..3 {
        lab.hears("WATCHDOG=1");
    }
    let task = format!(
        "grep -l '^worker-0' /proc/{0}/task/*/comm | sed 's,.*/task/,,; s,/.*,,'",
        lab.pid()
    );
    let task = lab.gateway.run(&task).trim().to_owned();
    let mut freezer = Command::new("python3");
    let mut freezer = freezer
        .args(["-c", FREEZE, &task])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(freezer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "frozen\n");
    lab.until("the complaint", || lab.errors().contains("worker 0 stands still"));
    while lab.said().is_some() {}
    std::thread::sleep(Duration::from_millis(1500));
    let said: Vec<_> = std::iter::from_fn(|| lab.said()).collect();
    assert!(!said.iter().any(|it| it.contains("WATCHDOG=1")), "{said:?}");
    drop(freezer.stdin.take());
    freezer.wait().unwrap();
    lab.hears("WATCHDOG=1");
    assert_eq!(lab.stop(), Some(0));
}
