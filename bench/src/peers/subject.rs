//! Starting and stopping a subject, and what it takes of the processor.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dataplane::engine::Switches;

use super::own::{Own, Swapping};
use super::policy::Policy;
use crate::lab::{Lab, Outcome, SUBJECT, cores, thread_ns};

/// Somebody who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The worker with the engine, in this process.
    Portcullis,
    /// The daemon, from `--daemon`.
    Daemon,
    /// The worker without the engine: the raw forwarder.
    CrossConnect,
    /// The bare rings.
    Floor,
    /// DPDK's testpmd on `af_xdp`, io mode.
    Testpmd,
    /// The kernel without rules.
    Kernel,
    /// The kernel with iptables-legacy.
    Legacy,
    /// The kernel with iptables-nft.
    Nft,
    /// The kernel with nft, the rules as a verdict map.
    NftSets,
}

impl Kind {
    /// Whether it looks at rules.
    pub(crate) fn filters(self) -> bool {
        use Kind::{Daemon, Legacy, Nft, NftSets, Portcullis};
        matches!(self, Portcullis | Daemon | Legacy | Nft | NftSets)
    }
    /// What it is called in lines.
    pub(crate) fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self)
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// How AF_XDP subjects run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) ring_size: u32,
    pub(crate) huge_pages: bool,
    /// Frames that the bare rings pass on together.
    pub(crate) batch: u32,
    /// Never sleeps.
    pub(crate) spin: bool,
    /// Roads of the engine in this process.
    pub(crate) switches: Switches,
}

/// One that runs. Dropping it stops it and clears what it left.
#[derive(Debug)]
pub(crate) struct Subject<'l> {
    lab: &'l Lab,
    kind: Kind,
    policy: Policy,
    own: Option<Own>,
    child: Option<Child>,
    files: Vec<PathBuf>,
}

impl<'l> Subject<'l> {
    /// Starts one; ready to forward when this returns.
    ///
    /// # Errors
    /// What is in the way.
    pub(crate) fn start(
        lab: &'l Lab,
        kind: Kind,
        policy: Policy,
        settings: Settings,
        daemon: Option<&str>,
    ) -> Outcome<Self> {
        let mut subject = Self { lab, kind, policy, own: None, child: None, files: Vec::new() };
        match kind {
            Kind::Portcullis => subject.own = Some(Own::portcullis(lab, &policy, settings)?),
            Kind::CrossConnect => subject.own = Some(Own::cross_connect(lab, settings)?),
            Kind::Floor => subject.own = Some(Own::floor(lab, settings)?),
            Kind::Daemon => subject.daemon(daemon.ok_or("--daemon names no binary")?)?,
            Kind::Testpmd => subject.testpmd()?,
            Kind::Kernel => {}
            Kind::Legacy => {
                lab.subject(&["iptables-legacy-restore"], &policy.iptables())?;
            }
            Kind::Nft => {
                lab.subject(&["iptables-nft-restore"], &policy.iptables())?;
            }
            Kind::NftSets => {
                lab.subject(&["nft", "-f", "-"], &policy.nft())?;
            }
        }
        Ok(subject)
    }

    /// Nanoseconds that its threads have run; `None` for the kernel.
    pub(crate) fn ran_ns(&self) -> Option<u64> {
        match (&self.own, &self.child) {
            (Some(own), _) => thread_ns(std::process::id(), Some(own.tid)),
            (_, Some(child)) => thread_ns(child.id(), None),
            _ => None,
        }
    }

    /// Swaps its policy for others of `rules` rules every so often.
    ///
    /// # Errors
    /// Only the engine in this process can.
    pub(crate) fn swap(&self, every: Duration, rules: usize) -> Outcome<Swapping> {
        let store = self.own.as_ref().and_then(|own| own.store.clone());
        let store = store.ok_or("only the subject `portcullis` swaps its policy")?;
        Swapping::start(store, every, Policy { rules, ..self.policy })
    }

    fn file(&mut self, name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("{}-{name}", self.lab.namespace("s")));
        self.files.push(path.clone());
        path
    }

    fn daemon(&mut self, binary: &str) -> Outcome<()> {
        let (rules, socket) = (self.file("rules"), self.file("socket"));
        std::fs::write(&rules, self.policy.iptables())?;
        let (rules, socket) = (rules.display().to_string(), socket.display().to_string());
        let words = [
            binary,
            "run",
            "--port",
            SUBJECT[0],
            "--port",
            SUBJECT[1],
            "--on-failure",
            "open",
            "--rules",
            &rules,
            "--socket",
            &socket,
            "--host-road",
            "off",
        ];
        self.child(&words, &(cores() - 1).to_string(), "ready")
    }

    fn testpmd(&mut self) -> Outcome<()> {
        // Its output goes to a pipe, and is wanted by the line.
        let words = format!(
            "stdbuf -oL dpdk-testpmd -l 0,{} --main-lcore 0 --no-huge -m 512 --no-pci \
             --no-telemetry --no-shconf --vdev net_af_xdp0,iface={} --vdev net_af_xdp1,iface={} -- \
             --forward-mode=io --auto-start --nb-cores=1 --burst=64 --rxd=2048 --txd=2048 \
             --total-num-mbufs=32768 --no-mlockall",
            cores() - 1,
            SUBJECT[0],
            SUBJECT[1]
        );
        let words: Vec<&str> = words.split_whitespace().collect();
        self.child(&words, &format!("0-{}", cores() - 1), "Press enter")
    }

    /// Starts a process on some cores, and waits until it says `ready`.
    fn child(&mut self, words: &[&str], on: &str, ready: &str) -> Outcome<()> {
        let space = self.lab.namespace("s");
        let mut child = Command::new("ip")
            .args(["netns", "exec", &space, "taskset", "-c", on])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        self.child = Some(child);
        let mut lines = BufReader::new(out).lines();
        while let Some(line) = lines.next() {
            if line?.contains(ready) {
                // Somebody goes on reading, so that it does not end on a closed pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(());
            }
        }
        Err(format!("{} does not start", words[0]).into())
    }
}

impl Drop for Subject<'_> {
    fn drop(&mut self) {
        drop(self.own.take());
        if let Some(mut child) = self.child.take() {
            // Asked first: it takes its programs off its devices.
            if let Some(id) = rustix::process::Pid::from_raw(child.id().cast_signed()) {
                let _gone = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            }
            for _ in 0..100 {
                match child.try_wait() {
                    Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                    _ => break,
                }
            }
            let _gone = (child.kill(), child.wait());
        }
        let cleared = match self.kind {
            Kind::Legacy => self.lab.subject(&["iptables-legacy-restore"], EMPTY),
            Kind::Nft | Kind::NftSets => self.lab.subject(&["nft", "flush", "ruleset"], ""),
            _ => Ok(String::new()),
        };
        if let Err(error) = cleared {
            eprintln!("portcullis-bench: {error}");
        }
        for file in &self.files {
            let _gone = std::fs::remove_file(file);
        }
    }
}

const EMPTY: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
                     :OUTPUT ACCEPT [0:0]\nCOMMIT\n";
