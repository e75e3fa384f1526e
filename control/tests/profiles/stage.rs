//! The networks around the two example profiles, and the programs that run in them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};

use crate::netns::{Directory, Namespace, Process, shell};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// The machine that runs the daemon with one of `docs/examples`, and a folder.
pub(crate) struct Machine {
    pub(crate) namespace: Namespace,
    pub(crate) directory: Directory,
    daemon: Option<Process>,
    /// Mounted for pins, as `ip netns exec` hides the usual place.
    pins: PathBuf,
}

impl Machine {
    /// `profile`: a folder of `docs/examples`, whose files are copied.
    pub(crate) fn new(role: &str, profile: &str) -> Self {
        let namespace = Namespace::new(role);
        let directory = Directory::new(namespace.name());
        let pins = directory.join("bpf");
        std::fs::create_dir_all(&pins).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for file in ["portcullis.toml", "rules.v4", "rules.v6"] {
            let from = root.join("docs/examples").join(profile).join(file);
            std::fs::copy(&from, directory.join(file)).unwrap();
        }
        shell(&format!("mount -t bpf bpf {}", pins.display()));
        Self { namespace, directory, daemon: None, pins }
    }

    /// Starts the daemon with the profile's own configuration; only what belongs to the
    /// machine (paths) is another. Waits until frames flow.
    pub(crate) fn start(&mut self) {
        let file = |name: &str| self.directory.join(name);
        let errors = std::fs::File::create(file("stderr")).unwrap();
        let mut command = self.namespace.command(BINARY);
        command.arg("run").arg("--config").arg(file("portcullis.toml"));
        command.arg("--socket").arg(self.socket()).arg("--log").arg(file("log"));
        command.arg("--state").arg(file("state")).arg("--pin-dir").arg(&self.pins);
        let (process, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", self.errors());
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Ends the daemon with a signal and waits for it.
    pub(crate) fn end(&mut self, signal: &str) {
        let mut daemon = self.daemon.take().expect("it runs");
        shell(&format!("kill -{signal} {}", daemon.id()));
        let _ = daemon.wait();
    }

    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// A command of ours that talks to the daemon.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(BINARY);
        let output = command.args(arguments).arg("--socket").arg(self.socket()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Applies the profile's own files again, as one change.
    pub(crate) fn apply_again(&self) {
        let [v4, v6] = ["rules.v4", "rules.v6"].map(|name| self.directory.join(name));
        let [v4, v6] = [&v4, &v6].map(|path| path.to_str().unwrap());
        self.cli(&["apply", "--rules", v4, "--rules6", v6]);
    }
}

/// A background process in a namespace.
pub(crate) fn spawn(host: &Namespace, directory: &Path, line: &str) -> Process {
    let mut command = host.command("sh");
    command.args(["-c", &format!("exec {line}")]).current_dir(directory);
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Waits (bounded) until `done`.
pub(crate) fn until(what: &str, seconds: u64, mut done: impl FnMut() -> bool) -> Nanos {
    let start = monotonic();
    loop {
        let waited = monotonic().saturating_sub(start);
        if done() {
            return waited;
        }
        assert!(waited < Nanos::from_secs(seconds), "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a TCP or UDP port is open in a namespace.
pub(crate) fn until_open(host: &Namespace, port: &str) {
    let line = format!("ss -Hltun 'sport = :{port}' | grep -q .");
    until(port, 20, || host.attempt(&line).status.success());
}

/// Gives addresses ("DEVICE ADDRESS/LENGTH ...") to a namespace's devices.
pub(crate) fn address(host: &Namespace, device: &str, list: &str) {
    for address in list.split(' ') {
        host.run(&format!("ip addr add {address} dev {device}"));
    }
}

pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
