//! What traffic sees when the daemon fails: the short form of `scripts/failures`, and what
//! that leaves out. Needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

mod netns;
use netns::{Directory, Namespace, Process, join, shell};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Every row must be what it has to be: the script says so with its exit code.
#[test]
fn the_table_of_failures_holds_in_both_modes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/failures");
    let output = Command::new(script).args(["--short", "--json", "--binary", BINARY]).output();
    let output = output.expect("the script runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaints}");
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 16, "{said}");
    // The table would be worth nothing if the denied flow could never arrive.
    let passed = |mode: &str| -> u64 {
        let rows = rows.iter().filter(|row| row["mode"] == mode);
        rows.map(|row| row["denied_passed"].as_u64().unwrap()).sum()
    };
    assert!(passed("open") > 100, "{said}");
    assert_eq!(passed("closed"), 0, "{said}");
}

/// A gateway in a namespace, and a bpffs that outlives what runs there.
struct Lab {
    gateway: Namespace,
    _far: [Namespace; 2],
    directory: Directory,
}

impl Lab {
    fn new() -> Self {
        let (gateway, far) = (Namespace::new("gw"), [Namespace::new("a"), Namespace::new("b")]);
        join((&far[0], "a0"), (&gateway, "g0"), 1);
        join((&far[1], "b0"), (&gateway, "g1"), 1);
        gateway.run("ip addr add 198.18.1.1/24 dev g0; ip addr add 198.18.2.1/24 dev g1");
        let directory = Directory::new(gateway.name());
        std::fs::create_dir(directory.join("bpf")).unwrap();
        shell(&format!("mount -t bpf bpf {}", directory.join("bpf").display()));
        Self { gateway, _far: far, directory }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
    fn pins(&self) -> PathBuf {
        self.path("bpf/portcullis")
    }
    /// `run` on these ports.
    fn command(&self, mode: &str, ports: &[&str]) -> Command {
        let mut command = self.gateway.command(BINARY);
        command.args(["run", "--conntrack-max", "4096", "--on-failure", mode, "--pin-dir"]);
        command.arg(self.pins()).arg("--socket").arg(self.path("control.sock"));
        for port in ports {
            command.args(["--port", port]);
        }
        command
    }
    /// Starts and kills it; what it has pinned stays.
    fn start_and_kill(&self, mode: &str, ports: &[&str]) {
        let mut command = self.command(mode, ports);
        let (_killed, line) = Process::speaking(&mut command);
        assert!(line.starts_with("ready: "), "{line}");
    }
    fn release(&self, arguments: &[&str]) -> Output {
        let mut command = self.gateway.command(BINARY);
        command.args(["release", "--pin-dir"]).arg(self.pins()).args(arguments).output().unwrap()
    }
    /// Names of pins, without the namespace.
    fn pinned(&self) -> Vec<String> {
        let mut names = Vec::new();
        for namespace in std::fs::read_dir(self.pins()).into_iter().flatten() {
            for pin in std::fs::read_dir(namespace.unwrap().path()).unwrap() {
                names.push(pin.unwrap().file_name().into_string().unwrap());
            }
        }
        names.sort();
        names
    }
    fn has_program(&self, device: &str) -> bool {
        self.gateway.run(&format!("ip -d link show {device}")).contains("prog/xdp")
    }
    fn refusal(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{said}");
        said
    }
}

#[test]
fn what_a_dead_daemon_keeps_is_listed_and_released_and_stands_in_the_way_of_others() {
    let lab = Lab::new();
    lab.start_and_kill("closed", &["g0", "g1"]);
    assert_eq!(lab.pinned().len(), 4, "{:?}", lab.pinned());
    assert!(lab.has_program("g0") && lab.has_program("g1"));
    // A port that nobody would ever open again.
    let said = lab.refusal(lab.command("closed", &["g0"]));
    assert!(said.contains("portcullis release g1"), "{said}");
    // Without devices it lists.
    let listed = String::from_utf8(lab.release(&[]).stdout).unwrap();
    assert!(listed.contains("g0: kept: closed") && listed.contains("g1: kept"), "{listed}");
    assert!(lab.has_program("g0"));
    assert_eq!(lab.release(&["lo"]).status.code(), Some(1));
    let released = lab.release(&["g1"]);
    let said = String::from_utf8(released.stdout).unwrap();
    assert!(said.contains("g1: released: its traffic is the kernel's now"), "{said}");
    assert!(lab.has_program("g0") && !lab.has_program("g1"));
    // Open takes over what is kept, and keeps nothing.
    lab.start_and_kill("open", &["g0"]);
    assert!(lab.pinned().is_empty(), "{:?}", lab.pinned());
    assert!(!lab.has_program("g0"));
}

#[test]
fn stale_pins_are_removed_and_foreign_programs_are_not() {
    let lab = Lab::new();
    lab.start_and_kill("closed", &["g0", "g1"]);
    lab.gateway.run("ip link del g1");
    let listed = lab.release(&[]);
    let said = String::from_utf8(listed.stderr).unwrap();
    assert!(said.contains("was removed: its device is gone"), "{said}");
    assert_eq!(lab.pinned().len(), 2);
    // Another mode than the pinned one: the program is attached anew.
    let mut other = lab.command("closed", &["g0"]);
    other.args(["--xdp", "generic", "--host-road", "off", "--rules", "/nonexistent"]);
    assert_ne!(other.output().unwrap().status.code(), Some(0));
    assert!(lab.has_program("g0"), "a start that is refused changes nothing");
    // A link under our name on another device.
    let directory = std::fs::read_dir(lab.pins()).unwrap().next().unwrap().unwrap().path();
    let pin = std::fs::read_dir(&directory).unwrap().map(|it| it.unwrap().path());
    let pin = pin.into_iter().find(|it| it.to_str().unwrap().contains("xdp-")).unwrap();
    std::fs::rename(&pin, directory.join("xdp-1")).unwrap();
    let said = lab.refusal(lab.command("closed", &["g0"]));
    assert!(said.contains("is not a link of ours on that device"), "{said}");
}

#[test]
fn closed_needs_a_bpffs_that_lasts() {
    let lab = Lab::new();
    let mut command = lab.gateway.command(BINARY);
    command.args(["run", "--port", "g0", "--socket"]).arg(lab.path("control.sock"));
    // `ip netns exec` has mounts of its own.
    let said = lab.refusal(command);
    assert!(said.contains("--on-failure open"), "{said}");
    assert!(said.contains("must be mounted outside"), "{said}");
    let mut elsewhere = lab.gateway.command(BINARY);
    elsewhere.args(["run", "--port", "g0", "--pin-dir"]).arg(lab.path("plain"));
    elsewhere.arg("--socket").arg(lab.path("control.sock"));
    let said = lab.refusal(elsewhere);
    assert!(said.contains("is not in a bpffs"), "{said}");
    assert!(!lab.has_program("g0"));
}

#[test]
fn a_worker_without_hope_ends_the_daemon_with_a_code_of_its_own() {
    let lab = Lab::new();
    // Whatever happens to the script, the daemon does not outlive it: it holds our end of stderr.
    let script = "import ctypes, os, subprocess, sys, time, traceback\n\
        ptrace = ctypes.CDLL(None).ptrace\n\
        ptrace.argtypes = [ctypes.c_long] * 4\n\
        def name(task):\n\
        \x20   try:\n\
        \x20       return open(f'{task}/comm').read()\n\
        \x20   except OSError: # A thread that has ended since.\n\
        \x20       return ''\n\
        daemon = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)\n\
        try:\n\
        \x20   assert daemon.stdout.readline().startswith('ready')\n\
        \x20   tasks = f'/proc/{daemon.pid}/task'\n\
        \x20   found, looks = [], 0 # A thread names itself when it first runs.\n\
        \x20   while not found and looks < 200:\n\
        \x20       found = [int(it) for it in os.listdir(tasks) if name(f'{tasks}/{it}') == 'worker-0\\n']\n\
        \x20       looks += 1\n\
        \x20       time.sleep(0.01)\n\
        \x20   [stuck] = found\n\
        \x20   assert ptrace(0x4206, stuck, 0, 0) == 0\n\
        \x20   assert ptrace(0x4207, stuck, 0, 0) == 0\n\
        \x20   deadline = time.monotonic() + 20\n\
        \x20   while daemon.poll() is None and time.monotonic() < deadline:\n\
        \x20       time.sleep(0.05)\n\
        \x20       try:\n\
        \x20           os.waitpid(stuck, os.WNOHANG | 0x40000000)\n\
        \x20       except ChildProcessError:\n\
        \x20           pass\n\
        \x20   print(daemon.poll(), flush=True)\n\
        except BaseException:\n\
        \x20   traceback.print_exc()\n\
        finally:\n\
        \x20   os.kill(daemon.pid, 9) if daemon.poll() is None else None\n\
        \x20   os._exit(0)\n";
    let mut command = lab.gateway.command("python3");
    command.args(["-c", script, BINARY, "run", "--port", "g0", "--port", "g1", "--pin-dir"]);
    command.arg(lab.pins()).arg("--socket").arg(lab.path("control.sock"));
    let output = command.args(["--watchdog", "200", "--conntrack-max", "4096"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("worker 0 (core"), "{said}");
    assert!(said.contains("its traffic is dropped"), "{said}");
    assert!(said.contains("has been stuck for"), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "7", "{said}");
    assert!(lab.has_program("g0"), "closed all the while");
}

#[test]
fn programs_that_somebody_takes_off_are_put_back() {
    use std::os::unix::fs::MetadataExt;
    let lab = Lab::new();
    let mut process = lab.command("closed", &["g0"]).spawn().unwrap();
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let mut looks = 0..200;
        while !done() {
            assert!(looks.next().is_some(), "{what}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    until("it starts", &|| lab.path("control.sock").exists() && lab.pinned().len() == 2);
    let namespace = std::fs::read_dir(lab.pins()).unwrap().next().unwrap().unwrap().path();
    for name in lab.pinned() {
        // A new link has a new name.
        let link = || std::fs::metadata(namespace.join(&name)).ok().map(|it| it.ino());
        let before = link();
        shell(&format!("bpftool link detach pinned {}", namespace.join(&name).display()));
        until(&name, &|| link().is_some_and(|now| Some(now) != before) && lab.has_program("g0"));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(lab.has_program("g0"), "closed");
    assert_eq!(lab.pinned().len(), 2);
}
