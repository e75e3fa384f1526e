//! Client, gateway and server, a daemon with a history, and TCP sessions that answer.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use serde_json::Value;

use super::netns::{Directory, Namespace, Process, Row};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

const CONFIG: &str = r#"ports = ["g0", "g1"]

[policy]
rules = "rules.v4"

[state]
file = "state/conntrack"
interval = 1

[history]
dir = "history"

[control]
socket = "control.sock"

[failure]
on-failure = "open"

"#;

pub(crate) struct Lab {
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) server: Namespace,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    pub(crate) fn new(rules: &str) -> Self {
        let Row { client, gateway, server, directory } = Row::routed("story");
        let lab = Self { client, gateway, server, directory, daemon: None };
        lab.write("rules.v4", rules);
        lab.write("portcullis.toml", CONFIG);
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// More configuration.
    pub(crate) fn add(&self, text: &str) {
        self.write("portcullis.toml", &(CONFIG.to_owned() + text));
    }

    /// Sets beside the rules.
    pub(crate) fn add_sets(&self, list: &str) {
        let rules = "rules = \"rules.v4\"\n";
        self.write("portcullis.toml", &CONFIG.replace(rules, &format!("{rules}sets = {list}\n")));
    }

    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    pub(crate) fn start(&mut self) {
        let errors = std::fs::File::create(self.path("stderr")).unwrap();
        let mut command = self.gateway.command(BINARY);
        command.args(["run", "--config"]).arg(self.path("portcullis.toml"));
        let (process, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", self.errors());
    }

    /// Ends the daemon without a farewell.
    pub(crate) fn kill(&mut self) {
        self.daemon = None;
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let socket = self.path("control.sock");
        Command::new(BINARY).args(arguments).arg("--socket").arg(socket).output().unwrap()
    }

    pub(crate) fn exit(&self, arguments: &[&str]) -> i32 {
        self.output(arguments).status.code().unwrap()
    }

    /// Of a command that asks no daemon.
    pub(crate) fn exit_alone(&self, arguments: &[&str]) -> i32 {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        output.status.code().unwrap()
    }

    /// What a command says that asks no daemon.
    pub(crate) fn text_alone(&self, arguments: &[&str]) -> String {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.errors());
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[&["--json"], arguments].concat());
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    }

    pub(crate) fn apply(&self, name: &str, flags: &[&str]) -> Value {
        self.json(&[&["apply", "--rules", &self.file(name)], flags].concat())
    }

    /// The exit code, and what was said.
    pub(crate) fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.output(arguments);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code().unwrap(), said)
    }

    pub(crate) fn pings(&self) -> bool {
        self.client.attempt("ping -c 1 -W 1 198.18.2.2").status.success()
    }

    /// Waits (bounded) for a condition of the running daemon.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(waited < Nanos::from_secs(15), "never: {what}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A history on a file system of its own, which is small.
    pub(crate) fn small_disk(&self) {
        let history = self.file("history");
        let line = format!("mkdir -p {history} && mount -t tmpfs -o size=256k tmpfs {history}");
        super::netns::shell(&line);
    }

    pub(crate) fn fill_disk(&self) {
        let file = self.file("history/filler");
        super::netns::shell(&format!("dd if=/dev/zero of={file} bs=4k 2>/dev/null || true"));
    }

    pub(crate) fn empty_disk(&self) {
        std::fs::remove_file(self.path("history/filler")).unwrap();
    }
}

/// A TCP session with a service that answers what it hears.
pub(crate) struct Talk {
    stream: TcpStream,
    said: u8,
}

impl Talk {
    /// With a service of the gateway itself.
    pub(crate) fn with_gateway(lab: &Lab, port: u16) -> Self {
        serve(&lab.gateway, port);
        Self::dial(lab, "198.18.1.1", port)
    }

    /// With a service behind the gateway.
    pub(crate) fn through(lab: &Lab, port: u16) -> Self {
        Self::through_to(lab, port, port)
    }

    /// The same, asked for at another port.
    pub(crate) fn through_to(lab: &Lab, port: u16, asked: u16) -> Self {
        serve(&lab.server, port);
        Self::dial(lab, "198.18.2.2", asked)
    }

    fn dial(lab: &Lab, address: &str, port: u16) -> Self {
        let stream = lab.client.enter(|| TcpStream::connect((address, port)).unwrap());
        stream.set_nodelay(true).unwrap();
        Self { stream, said: 0 }
    }

    /// Whether what is said now is answered in time; answers to what was said before count not.
    pub(crate) fn answers(&mut self, patience: Duration) -> bool {
        self.said += 1;
        self.stream.write_all(&[self.said]).unwrap();
        self.stream.set_read_timeout(Some(patience)).unwrap();
        let mut heard = [0];
        loop {
            match self.stream.read(&mut heard) {
                Ok(1) if heard[0] == self.said => return true,
                Ok(1) => {}
                _ => return false,
            }
        }
    }
}

fn serve(host: &Namespace, port: u16) {
    let listener = host.enter(|| TcpListener::bind(("0.0.0.0", port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut heard = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut heard) {
                    if stream.write_all(&heard[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}
