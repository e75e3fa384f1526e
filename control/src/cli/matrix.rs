//! `portcullis matrix`: which flows must pass, and which must not, against any policy.

use std::path::{Path, PathBuf};

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::conntrack::Config;
use dataplane::fib::Network;

use super::client::{ask_about, unexpected};
use super::stored::Place;
use super::timeouts::CtTimeouts;
use super::{Exit, Output};
use crate::api::protocol::{RunMatrix, Source};
use crate::api::{Request, Response};
use crate::config;
use crate::daemon::policy::Texts;
use crate::diagnostics::Finding;
use crate::history::{History, Name};
use crate::matrix::{self, Loaded, Matrix, Report};
use crate::model::expiry;
use crate::replay::capture;
use crate::replay::topology::TopologyFile;

const EXAMPLES: &str = "Examples:
  portcullis matrix run matrix.toml --rules rules.v4 --rules6 rules.v6 --sets sets/
  portcullis matrix run matrix.toml --policy @1
  portcullis matrix run --config /etc/portcullis/portcullis.toml --junit matrix.xml
  portcullis matrix run matrix.toml --rules rules.v4 --all --json
  portcullis matrix run --live

Exits 0 when every flow is as expected, 6 when some are not, 1 when a file is refused.";

/// Which flows must pass, and which must not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Run the flows of a file against a policy.
    Run(Box<RunArgs>),
    /// Propose a matrix for a policy that has none: what it does now, to be read and corrected.
    Init(Box<InitArgs>),
    /// Propose a matrix from captures: which services were asked for, and what a policy does.
    Learn(Box<LearnArgs>),
}

/// The flows, and the policy.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The flows [default: with --config, what it names in matrix.file].
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The policy.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Against the policy in force; without FILE those of matrix.file. The daemon runs them.
    #[arg(long, conflicts_with_all = ["rules", "rules6", "sets", "policy", "config", "at"])]
    pub live: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
    /// Write a JUnit report, too.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// At this time, as 2027-01-31 or 2027-01-31T08:00Z: for rules that ask for the time or
    /// expire [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<u64>,
    /// Show the flows that are as expected, too.
    #[arg(long)]
    pub all: bool,
}

/// The policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portcullis matrix init --rules rules.v4 --rules6 rules.v6 --sets sets/ > matrix.toml
  portcullis matrix init --config /etc/portcullis/portcullis.toml > matrix.toml")]
pub struct InitArgs {
    /// The policy.
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// What was seen, and the policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  portcullis matrix learn --topology topo.toml --in eth0=eth0.pcap --rules rules.v4 > learned.toml")]
pub struct LearnArgs {
    /// Ports, addresses and routes, as for replay.
    #[arg(long, value_name = "FILE")]
    pub topology: PathBuf,
    /// What arrived on a port; may be given more than once.
    #[arg(long = "in", value_name = "PORT=PCAP", required = true, value_parser = super::replay::port_and_file)]
    pub inputs: Vec<(String, PathBuf)>,
    /// The policy.
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Where a policy is.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    /// An iptables-save file, or a policy of the history (@1).
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// An ip6tables-save file, or a policy of the history (@1).
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Sets that they name: an `ipset save` file, or a directory of them; may be given more
    /// than once.
    #[arg(long, alias = "set-file", value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// A whole policy of the history: both families, and its sets.
    #[arg(long, value_name = "@N", conflicts_with_all = ["rules", "rules6", "sets", "config"])]
    pub policy: Option<String>,
    /// The policy that a configuration file names.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rules", "rules6", "sets"])]
    pub config: Option<PathBuf>,
    /// Named timeouts.
    #[command(flatten)]
    pub timeouts: CtTimeouts,
    /// Where policies of the history are.
    #[command(flatten)]
    pub place: Place,
}

fn time(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time: write 2027-01-31 or 2027-01-31T08:00Z");
    expiry::parse(text).ok_or_else(bad)
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    match args.what {
        What::Run(args) => run_flows(&args, output).unwrap_or_else(|exit| exit),
        What::Learn(args) => learn(&args, output).unwrap_or_else(|exit| exit),
        What::Init(args) => init(&args, output).unwrap_or_else(|exit| exit),
    }
}

/// Says what is wrong with files.
pub(super) fn refuse(
    findings: &[Finding],
    text: impl Fn(&str) -> Option<String>,
    output: &Output,
) -> Exit {
    for finding in findings {
        output.finding(finding, text(&finding.file).as_deref());
    }
    let errors = findings.len();
    let plural = if errors == 1 { "" } else { "s" };
    output.error(format_args!("refused: {errors} error{plural}"));
    Exit::Refused
}

/// A policy as texts, and what the configuration says besides.
pub(super) struct Given {
    pub(super) texts: Texts,
    pub(super) conntrack: Config,
    /// The matrix of the configuration.
    pub(super) matrix: Option<PathBuf>,
}

impl PolicyArgs {
    /// Reads it.
    ///
    /// # Errors
    /// What was wrong is told.
    pub(super) fn read(&self, output: &Output) -> Result<Given, Exit> {
        let mut conntrack = Config::new([0; 16]);
        if let Err(error) = self.timeouts.add_to(&mut conntrack) {
            output.error(format_args!("--ct-timeout: {error}"));
            return Err(Exit::Usage);
        }
        let (mut rules, mut rules6) = (self.rules.clone(), self.rules6.clone());
        let (mut sets, mut matrix) = (self.sets.clone(), None);
        if let Some(name) = &self.policy {
            let texts = self.stored(name).map_err(|error| {
                output.error(error);
                Exit::Refused
            })?;
            return Ok(Given { texts, conntrack, matrix });
        }
        if let Some(file) = &self.config {
            let source = config::Source { file: Some(file.clone()), ..config::Source::default() };
            let configured =
                source.load().map_err(|refused| super::run::complain(&refused, output))?;
            let settings = configured.settings;
            rules = settings.rules.value.clone();
            rules6 = settings.rules6.value.clone();
            sets = settings.sets();
            matrix = settings.matrix.value.clone();
            for given in &settings.timeouts.value.0 {
                if let Err(error) = given.value.add_to(&mut conntrack) {
                    output.error(error);
                    return Err(Exit::Refused);
                }
            }
        }
        use dataplane::packet::Family;
        for (path, family) in [(&mut rules, Family::V4), (&mut rules6, Family::V6)] {
            let file = path.take().map(|path| self.place.file(path, family)).transpose();
            *path = file.map_err(|error| {
                output.error(error);
                Exit::Refused
            })?;
        }
        if rules.is_none() && rules6.is_none() {
            output.error("no policy given; try --rules FILE, --policy @1 or --config FILE");
            return Err(Exit::Usage);
        }
        let texts = Texts::read(rules.as_deref(), rules6.as_deref(), &sets)
            .map_err(|findings: Vec<Finding>| refuse(&findings, |_| None, output))?;
        Ok(Given { texts, conntrack, matrix })
    }

    fn stored(&self, name: &str) -> Result<Texts, crate::history::HistoryError> {
        let history = History::read(&self.place.history)?;
        let record = history.find(&name.parse::<Name>()?)?;
        history.texts(record.number, &record.policy)
    }
}

pub(super) fn read_matrix(path: &Path, output: &Output) -> Result<Matrix, Exit> {
    match matrix::read_file(path) {
        Ok((matrix, _)) => Ok(matrix),
        Err((findings, text)) => Err(refuse(&findings, |_| Some(text.clone()), output)),
    }
}

fn init(args: &InitArgs, output: &Output) -> Result<Exit, Exit> {
    let Given { texts, conntrack, .. } = args.policy.read(output)?;
    let at = Nanos::from_secs(wall_us() / 1_000_000);
    let said = |file: &str| texts.text_of(file).map(str::to_owned);
    let loaded =
        Loaded::read(&texts, conntrack, at).map_err(|findings| refuse(&findings, said, output))?;
    match matrix::propose(&loaded, at) {
        Ok(text) if output.json() => output.object(&serde_json::json!({"matrix": text})),
        Ok(text) => output.raw(&text),
        Err(error) => {
            output.error(error);
            return Err(Exit::Refused);
        }
    }
    Ok(Exit::Ok)
}

fn learn(args: &LearnArgs, output: &Output) -> Result<Exit, Exit> {
    let Given { texts, conntrack, .. } = args.policy.read(output)?;
    let at = Nanos::from_secs(wall_us() / 1_000_000);
    let said = |file: &str| texts.text_of(file).map(str::to_owned);
    let loaded =
        Loaded::read(&texts, conntrack, at).map_err(|findings| refuse(&findings, said, output))?;
    let bad = |error: &dyn std::fmt::Display| {
        output.error(error);
        Exit::Refused
    };
    let file = TopologyFile::read(&args.topology).map_err(|error| bad(&error))?;
    let network = Network::build(&file.topology).map_err(|error| bad(&error))?;
    let mut seen = Vec::new();
    for (name, path) in &args.inputs {
        let port = network.port_named(name);
        let port =
            port.ok_or_else(|| bad(&format_args!("--in {name}: the topology has no such port")))?;
        let frames = capture::read(path).map_err(|error| bad(&error))?;
        let mac = network.port(port).mac;
        seen.extend(frames.into_iter().map(|frame| matrix::seen(port, mac, frame.bytes)));
    }
    match matrix::learn(&loaded, &network, &seen, at) {
        Ok(text) if output.json() => output.object(&serde_json::json!({"matrix": text})),
        Ok(text) => output.raw(&text),
        Err(error) => return Err(bad(&error)),
    }
    Ok(Exit::Ok)
}

fn run_flows(args: &RunArgs, output: &Output) -> Result<Exit, Exit> {
    if args.live {
        let report = live(args, output)?;
        return tell(&report, args, output);
    }
    let given = args.policy.read(output)?;
    let Some(path) = args.file.clone().or_else(|| given.matrix.clone()) else {
        output.error("no matrix given: which FILE?");
        return Err(Exit::Usage);
    };
    let matrix = read_matrix(&path, output)?;
    let report = offline(&matrix, given, args.at, output)?;
    tell(&report, args, output)
}

fn live(args: &RunArgs, output: &Output) -> Result<Report, Exit> {
    let mut sources = Vec::new();
    if let Some(path) = &args.file {
        let text = match matrix::read_file(path) {
            Ok((_, text)) => text,
            Err((findings, text)) => return Err(refuse(&findings, |_| Some(text.clone()), output)),
        };
        sources.push(Source { name: path.display().to_string(), text });
    }
    // JUnit names every flow.
    let all = args.all || args.junit.is_some();
    let request = Request::RunMatrix(RunMatrix { matrix: sources.first().cloned(), all });
    match ask_about(&args.socket, request, &sources, output)? {
        Response::MatrixReport(report) => Ok(*report),
        _ => Err(unexpected(output)),
    }
}

fn offline(
    matrix: &Matrix,
    given: Given,
    at: Option<u64>,
    output: &Output,
) -> Result<Report, Exit> {
    let Given { texts, mut conntrack, .. } = given;
    let network = matrix::network(matrix, &mut conntrack).map_err(|error| {
        output.error(error);
        Exit::Refused
    })?;
    let at = Nanos::from_secs(at.unwrap_or_else(|| wall_us() / 1_000_000));
    let said = |file: &str| texts.text_of(file).map(str::to_owned);
    let loaded =
        Loaded::read(&texts, conntrack, at).map_err(|findings| refuse(&findings, said, output))?;
    let mut next = monotonic() + Nanos::SECOND;
    let mut told = |done: usize, all: usize| {
        if monotonic() >= next {
            next = monotonic() + Nanos::SECOND;
            output.complaint(format_args!("{done} of {all} flows are done"));
        }
    };
    loaded.run(matrix, network, at, &mut told).map_err(|error| {
        output.error(error);
        Exit::Refused
    })
}

/// The result, wherever it was asked for.
pub(super) fn tell(report: &Report, args: &RunArgs, output: &Output) -> Result<Exit, Exit> {
    if let Some(path) = &args.junit {
        let written = std::fs::File::create(path).map_err(|error| error.to_string());
        let written = written.and_then(|file| {
            matrix::junit(report, std::io::BufWriter::new(file)).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            output.error(format_args!("cannot write {}: {error}", path.display()));
            return Err(Exit::Environment);
        }
    }
    match output.json() {
        true => {
            report
                .flows
                .iter()
                .filter(|flow| args.all || !flow.passed)
                .for_each(|flow| output.object(flow));
            let (file, passed, failed) = (&report.file, report.passed, report.failed);
            output.object(&serde_json::json!({"file": file, "passed": passed, "failed": failed}));
        }
        false => output.raw(&matrix::render(report, args.all)),
    }
    Ok(if report.failed == 0 { Exit::Ok } else { Exit::Warnings })
}
