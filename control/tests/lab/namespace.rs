//! Network namespaces with unique names that do not outlive their owner.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::sys;

/// Every namespace of ours is called `ptl-PID-NUMBER-ROLE`.
const PREFIX: &str = "ptl";

/// Runs a program with text on standard input; gives its output, or its complaint.
pub fn run(program: &str, args: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut stdin = child.stdin.take().expect("piped");
    let text = input.to_owned();
    // A writer of its own: a program that prints before it has read all cannot block us.
    let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    writer.join().expect("the writer does not panic");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{program} {}: {complaint}", args.join(" ")))
    }
}

/// Removes what a killed test run left behind.
fn sweep() {
    let Ok(folder) = std::fs::read_dir("/run/netns") else { return };
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut words = name.split('-');
        let ours = words.next() == Some(PREFIX);
        let pid = words.next().and_then(|pid| pid.parse::<u32>().ok());
        if let (true, Some(pid)) = (ours, pid)
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            // Another process may sweep at the same time: whoever is first removes it.
            drop(run("ip", &["netns", "del", &name], ""));
        }
    }
}

/// A network namespace; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one. Needs root; the test fails without.
    pub fn new(role: &str) -> Self {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}-{role}", std::process::id());
        run("ip", &["netns", "add", &name], "").expect("making a namespace needs root");
        Self { name }
    }
    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Runs `work` on a thread inside the namespace. Processes it starts, sockets
    /// it opens and `/proc/sys/net` as it sees it belong there.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let path = PathBuf::from("/run/netns").join(&self.name);
        let file = File::open(path).expect("the namespace exists");
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                sys::enter_netns(&file).expect("entering a namespace needs root");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
    /// Runs a program inside; gives its output, or its complaint.
    pub fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String, String> {
        self.enter(|| run(program, args, input))
    }
    /// Sets one sysctl, named by its path below `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.enter(|| {
            std::fs::write(format!("/proc/sys/net/{path}"), value)
                .unwrap_or_else(|error| panic!("sysctl {path} = {value}: {error}"));
        });
    }
    /// Reads a file below the namespace's `/proc/net`, in pieces as large as the kernel
    /// makes them: where the next one begins is counted in a table that all namespaces
    /// share, and others change it meanwhile.
    pub fn proc_net(&self, name: &str) -> String {
        use std::io::Read as _;
        let read = || -> std::io::Result<String> {
            let mut file = std::fs::File::open(format!("/proc/thread-self/net/{name}"))?;
            let (mut text, mut piece) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                match file.read(&mut piece)? {
                    0 => return String::from_utf8(text).map_err(std::io::Error::other),
                    count => text.extend(&piece[..count]),
                }
            }
        };
        self.enter(read).unwrap_or_else(|error| panic!("/proc/net/{name}: {error}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(complaint) = run("ip", &["netns", "del", &self.name], "") {
            eprintln!("{complaint}");
        }
    }
}
