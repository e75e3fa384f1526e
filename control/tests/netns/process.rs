//! What a test starts and writes, gone with it however it ends.

use std::io::{BufRead, BufReader};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A daemon that has said nothing for so long never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("it starts"))
    }

    /// Starts it and waits (bounded) for the first line that it prints; empty when it
    /// ends without one.
    pub(crate) fn speaking(command: &mut Command) -> (Self, String) {
        let mut process = Self::start(command.stdout(Stdio::piped()));
        let output = process.stdout.take().expect("it is piped");
        let (said, heard) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(output).read_line(&mut line);
            // Who asked may have given up.
            let _ = said.send(read.map(|_| line));
        });
        let line = heard.recv_timeout(PATIENCE).expect("it says something in time");
        (process, line.expect("text"))
    }

    /// Waits for its end; its exit code, `None` after a signal.
    pub(crate) fn code(mut self) -> Option<i32> {
        self.0.wait().expect("it is ours").code()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        super::shell(&format!("kill -{name} {}", self.id()));
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory of our own, under the machine's for temporary files. Whatever is mounted
/// in it is unmounted.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// `name` is to be unique: that of a namespace is.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-{name}"));
        std::fs::create_dir_all(&path).expect("a directory can be made");
        Self(path)
    }
}

impl Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for Directory {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(&self.0)) {
            let _ = Command::new("umount").args(["-l", place]).output();
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
