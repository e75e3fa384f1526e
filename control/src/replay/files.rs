//! Captures in, captures out: what `portcullis replay` does with files.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::engine::Switches;
use dataplane::fib::Mode;
use dataplane::packet::Family;
use dataplane::policy::report::ReportTarget;
use dataplane::sets::Registry;

use super::capture::{self, CaptureError, Writer};
use super::topology::{TopologyError, TopologyFile};
use super::{Fed, Replay, ReplayError, Setup, Source};
use crate::check;
use crate::diagnostics::{Finding, has_errors};
use crate::ipset::{self, Stage};
use crate::iptables::{self, Names};
use crate::log::nflog::{self, Link};
use crate::model::{Ruleset, TargetSpec};

/// What to read and where to write.
#[derive(Clone, Debug)]
pub struct Job {
    /// `topo.toml`.
    pub topology: PathBuf,
    /// The IPv4 policy.
    pub rules: Option<PathBuf>,
    /// The IPv6 policy.
    pub rules6: Option<PathBuf>,
    /// Sets.
    pub sets: Vec<PathBuf>,
    /// Captures by port name, or `host`; earlier ones win ties.
    pub inputs: Vec<(String, PathBuf)>,
    /// Directory for the outputs.
    pub out: PathBuf,
    /// Where to write events.
    pub events: Option<PathBuf>,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether packets of established connections may follow plans.
    pub plans: bool,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The topology file.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A policy file: everything that was found in it.
    #[error("{}: refused", file.display())]
    Rules {
        /// The file.
        file: PathBuf,
        /// Its text, to quote from.
        text: Vec<u8>,
        /// The findings, at least one of which is an error.
        findings: Vec<Finding>,
    },
    /// The policies do not compile, or the network cannot be built.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// `--in` names a port that the topology does not have.
    #[error("--in {name}: the topology has no such port")]
    NoSuchPort {
        /// The name.
        name: String,
    },
    /// An input that cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An output would take the place of an input.
    #[error("{} is an input, and would be overwritten; give another --out", file.display())]
    Overwrites {
        /// The file.
        file: PathBuf,
    },
    /// An output that cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Frames fed.
    pub packets: u64,
    /// Frames sent on ports.
    pub sent: u64,
    /// Frames delivered to the local stack.
    pub delivered: u64,
    /// LOG lines.
    pub logged: u64,
}

struct Input {
    source: Source,
    frame: capture::Frame,
}

/// Runs the whole job.
pub fn run(job: &Job) -> Result<Summary, JobError> {
    let (mut replay, names) = open(job)?;
    replay.set_switches(Switches::all(job.plans));
    let inputs = read_inputs(job, &replay)?;
    let reports = Reports::of(&replay);
    keep_inputs(job, replay.ports(), &reports)?;
    let mut outputs = Outputs::create(job, replay.ports(), &reports)?;
    for input in inputs {
        let fed = replay.feed(input.source, input.frame.at, &input.frame.bytes);
        outputs.record(&fed)?;
    }
    outputs.finish(&replay, &names)
}

/// Reads topology and policies.
fn open(job: &Job) -> Result<(Replay, iptables::TableNames), JobError> {
    let topology = TopologyFile::read(&job.topology)?;
    let mut setup = Setup::new(topology.topology.clone(), job.seed);
    topology.configure(&job.topology, &mut setup.conntrack)?;
    setup.icmp = topology.icmp;
    let names = iptables::TableNames::of_host();
    let names = names.with_timeout_policies(setup.conntrack.timeout_policies());
    setup.v4 = read_rules(job.rules.as_deref(), Family::V4, &names)?;
    setup.v6 = read_rules(job.rules6.as_deref(), Family::V6, &names)?;
    let mode = &topology.topology.mode;
    refuse_by_mode(job.rules.as_deref(), &setup.v4, mode)?;
    refuse_by_mode(job.rules6.as_deref(), &setup.v6, mode)?;
    setup.sets = Arc::new(read_sets(&job.sets, job.seed, Nanos(0), &names)?);
    Ok((Replay::new(setup)?, names))
}

fn unreadable(file: &Path) -> impl FnOnce(std::io::Error) -> JobError {
    let file = file.to_owned();
    move |source| JobError::Read { file, source }
}

fn unwritable(file: &Path) -> impl FnOnce(std::io::Error) -> JobError {
    let file = file.to_owned();
    move |source| JobError::Write { file, source }
}

/// Refuses what cannot be asked in this mode.
fn refuse_by_mode(file: Option<&Path>, rules: &Ruleset, mode: &Mode) -> Result<(), JobError> {
    let Some(file) = file else { return Ok(()) };
    let findings = check::mode::refusals(rules, &file.to_string_lossy(), mode);
    if findings.is_empty() {
        return Ok(());
    }
    let text = iptables::read_file(file).map_err(unreadable(file))?;
    Err(JobError::Rules { file: file.to_owned(), text, findings })
}

/// Reads one policy; an absent file is an empty one.
pub fn read_rules(
    file: Option<&Path>,
    family: Family,
    names: &dyn Names,
) -> Result<Ruleset, JobError> {
    let Some(file) = file else { return Ok(Ruleset::empty(family)) };
    let text = iptables::read_file(file).map_err(unreadable(file))?;
    match iptables::parse_bytes(&text, &file.to_string_lossy(), family, names) {
        Ok(parsed) => Ok(parsed.ruleset),
        Err(findings) => Err(JobError::Rules { file: file.to_owned(), text, findings }),
    }
}

/// Reads the sets of files and directories; timeouts run from `from`.
///
/// # Errors
/// What cannot be read, or is refused.
pub fn read_sets(
    paths: &[PathBuf],
    seed: u64,
    from: Nanos,
    names: &dyn Names,
) -> Result<Registry, JobError> {
    let mut stage = Stage::empty(seed, from);
    read_sets_into(&mut stage, paths, names)?;
    Ok(stage.into_registry())
}

/// The same, beside what is there already.
///
/// # Errors
/// What cannot be read, or is refused.
pub fn read_sets_into(
    stage: &mut Stage<'_>,
    paths: &[PathBuf],
    names: &dyn Names,
) -> Result<(), JobError> {
    for path in paths {
        for file in ipset::files(path).map_err(unreadable(path))? {
            let text = ipset::read_file(&file).map_err(unreadable(&file))?;
            let findings = ipset::read(stage, &text, &file.to_string_lossy(), names);
            if has_errors(&findings) {
                return Err(JobError::Rules { file, text, findings });
            }
        }
    }
    Ok(())
}

/// All frames in order of time; ties in order of `--in`, then of the capture.
fn read_inputs(job: &Job, replay: &Replay) -> Result<Vec<Input>, JobError> {
    let mut inputs = Vec::new();
    for (name, file) in &job.inputs {
        let source = match name.as_str() {
            "host" => Source::Host,
            name => match replay.port(name) {
                Some(port) => Source::Port(port),
                None => return Err(JobError::NoSuchPort { name: name.to_owned() }),
            },
        };
        let frames = capture::read(file)?;
        inputs.extend(frames.into_iter().map(|frame| Input { source, frame }));
    }
    inputs.sort_by_key(|input| input.frame.at);
    Ok(inputs)
}

/// Refuses a run whose outputs would overwrite what it reads.
fn keep_inputs(job: &Job, ports: &[String], reports: &Reports) -> Result<(), JobError> {
    let read = [Some(&job.topology), job.rules.as_ref(), job.rules6.as_ref()];
    let read = read.into_iter().flatten().chain(&job.sets);
    let read = read.chain(job.inputs.iter().map(|(_, file)| file));
    let read: HashSet<_> = read.filter_map(|file| identity(file)).collect();
    let captures = ports.iter().map(String::as_str).chain(["host"]).map(|n| format!("{n}.pcap"));
    let others = OTHER_OUTPUTS.map(str::to_owned);
    let reports = reports.files().into_iter();
    let written = captures
        .chain(others)
        .chain(reports)
        .map(|name| job.out.join(name))
        .chain(job.events.clone());
    for file in written {
        if identity(&file).is_some_and(|identity| read.contains(&identity)) {
            return Err(JobError::Overwrites { file });
        }
    }
    Ok(())
}

/// Where audit records go.
const AUDIT: &str = "audit.txt";

/// Which outputs the policies' rules need that report more than lines.
struct Reports {
    audit: bool,
    groups: BTreeSet<u16>,
}

impl Reports {
    fn of(replay: &Replay) -> Self {
        let mut reports = Self { audit: false, groups: BTreeSet::new() };
        let families = [Family::V4, Family::V6].into_iter();
        let tables = families.flat_map(|family| &replay.rules(family).tables);
        for rule in tables.flat_map(|table| &table.chains).flat_map(|chain| &chain.rules) {
            match &rule.target {
                TargetSpec::Report(ReportTarget::Audit(_)) => reports.audit = true,
                TargetSpec::Report(ReportTarget::Nflog(nflog)) => {
                    reports.groups.insert(nflog.group);
                }
                _ => {}
            }
        }
        reports
    }
    fn files(&self) -> Vec<String> {
        let audit = self.audit.then(|| AUDIT.to_owned());
        audit.into_iter().chain(self.groups.iter().map(|group| capture_name(*group))).collect()
    }
    fn captures(&self, out: &Path) -> Result<Vec<(u16, PathBuf, Out)>, JobError> {
        let open = |group: &u16| {
            let (file, mut out) = create(out.join(capture_name(*group)))?;
            out.write_all(&nflog::file_header(Link::Nflog)).map_err(unwritable(&file))?;
            Ok((*group, file, out))
        };
        self.groups.iter().map(open).collect()
    }
}

fn capture_name(group: u16) -> String {
    format!("nflog-{group}.pcap")
}

/// What is written to `--out` besides captures.
const OTHER_OUTPUTS: [&str; 6] =
    ["rules.v4", "rules.v6", "conntrack.txt", "log.txt", "sets.save", "expect.txt"];

/// Device and inode of a regular file that exists.
fn identity(file: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    Some((found.dev(), found.ino()))
}

type Out = BufWriter<File>;

struct Outputs<'j> {
    job: &'j Job,
    ports: Vec<Writer<Out>>,
    host: Writer<Out>,
    log: (PathBuf, Out),
    audit: Option<(PathBuf, Out)>,
    audited: u64,
    captures: Vec<(u16, PathBuf, Out)>,
    events: Option<(PathBuf, Out)>,
    summary: Summary,
}

fn create(file: PathBuf) -> Result<(PathBuf, Out), JobError> {
    let out = File::create(&file).map_err(unwritable(&file))?;
    Ok((file, BufWriter::new(out)))
}

impl<'j> Outputs<'j> {
    fn create(job: &'j Job, ports: &[String], reports: &Reports) -> Result<Self, JobError> {
        fs::create_dir_all(&job.out).map_err(unwritable(&job.out))?;
        let pcap = |name: &str| {
            let (file, out) = create(job.out.join(format!("{name}.pcap")))?;
            Writer::new(out).map_err(unwritable(&file))
        };
        Ok(Self {
            job,
            ports: ports.iter().map(|name| pcap(name)).collect::<Result<_, _>>()?,
            host: pcap("host")?,
            log: create(job.out.join("log.txt"))?,
            audit: reports.audit.then(|| create(job.out.join(AUDIT))).transpose()?,
            audited: 0,
            captures: reports.captures(&job.out)?,
            events: job.events.clone().map(create).transpose()?,
            summary: Summary::default(),
        })
    }

    fn record(&mut self, fed: &Fed) -> Result<(), JobError> {
        let at = Nanos(fed.event.t_ns);
        let out = &self.job.out;
        for sent in &fed.sent {
            let written = self.ports[sent.port.index()].write(at, &sent.frame);
            written.map_err(unwritable(out))?;
        }
        for frame in &fed.delivered {
            self.host.write(at, frame).map_err(unwritable(out))?;
        }
        for line in &fed.log {
            writeln!(self.log.1, "{line}").map_err(unwritable(&self.log.0))?;
        }
        self.report(fed, at)?;
        if let Some((file, events)) = &mut self.events {
            let line = serde_json::to_writer(&mut *events, &fed.event).map_err(Into::into);
            line.and_then(|()| events.write_all(b"\n")).map_err(unwritable(file))?;
        }
        self.summary.packets += 1;
        self.summary.sent += fed.sent.len() as u64;
        self.summary.delivered += fed.delivered.len() as u64;
        self.summary.logged += fed.log.len() as u64;
        Ok(())
    }

    /// Audit records and captured packets.
    fn report(&mut self, fed: &Fed, at: Nanos) -> Result<(), JobError> {
        if let Some((file, out)) = &mut self.audit {
            for record in &fed.audit {
                self.audited += 1;
                let (seconds, millis) = (at.0 / 1_000_000_000, at.0 / 1_000_000 % 1000);
                let number = self.audited;
                writeln!(out, "type=1324 audit({seconds}.{millis:03}:{number}): {record}")
                    .map_err(unwritable(file))?;
            }
        }
        for captured in &fed.captured {
            let group = self.captures.iter_mut().find(|(group, ..)| *group == captured.group);
            if let Some((_, file, out)) = group {
                out.write_all(&captured.record).map_err(unwritable(file))?;
            }
        }
        Ok(())
    }

    fn finish(self, replay: &Replay, names: &dyn Names) -> Result<Summary, JobError> {
        let out = &self.job.out;
        for writer in self.ports.into_iter().chain([self.host]) {
            writer.finish().map_err(unwritable(out))?;
        }
        let captures = self.captures.into_iter().map(|(_, file, out)| (file, out));
        let lines = [self.log].into_iter().chain(self.events).chain(self.audit);
        for (file, mut writer) in lines.chain(captures) {
            writer.flush().map_err(unwritable(&file))?;
        }
        let write = |name: &str, text: String| {
            let file = out.join(name);
            fs::write(&file, text).map_err(unwritable(&file))
        };
        for (family, name) in [(Family::V4, "rules.v4"), (Family::V6, "rules.v6")] {
            write(name, print_rules(replay, family, names))?;
        }
        write("conntrack.txt", print_connections(replay))?;
        write("expect.txt", print_expectations(replay))?;
        write("sets.save", print_sets(replay, names))?;
        Ok(self.summary)
    }
}

/// The sets, as `ipset save` prints them.
pub fn print_sets(replay: &Replay, names: &dyn Names) -> String {
    let mut text = String::new();
    for slot in replay.sets().list() {
        let mut write = |piece: &str| {
            text.push_str(piece);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = ipset::print::save(&slot.name(), &slot.set(), names, replay.now(), &mut write);
    }
    text
}

/// The policy with its counters, as `iptables-save -c` prints it.
pub fn print_rules(replay: &Replay, family: Family, names: &dyn Names) -> String {
    let counted = |table, chain: &str, rule| replay.counted(family, table, chain, rule);
    iptables::print(replay.rules(family), names, Some(&counted))
}

/// Both families' connections, as `conntrack -L` prints them, in a stable order.
pub fn print_connections(replay: &Replay) -> String {
    let mut text = String::new();
    for family in [Family::V4, Family::V6] {
        let mut rows = replay.connections(family);
        rows.sort_by_key(|row| row.view.id);
        for row in rows {
            text.push_str(&row.to_string());
            text.push('\n');
        }
    }
    text
}

/// Both families' expectations, as `conntrack -L expect` prints them, in a stable order.
pub fn print_expectations(replay: &Replay) -> String {
    let mut text = String::new();
    for family in [Family::V4, Family::V6] {
        let mut rows = replay.expectations(family);
        rows.sort_by_key(|row| (row.master.id, row.expectation.class, row.expectation.tuple.dport));
        for row in rows {
            text.push_str(&row.to_string());
            text.push('\n');
        }
    }
    text
}
