//! The matrix of flows in the daemon: a gate for changes, and a watch over the policy in force.
//!
//! Runs are on threads of lower priority than the workers', one watch at a time. The file is
//! read anew for each, so that what counts is what it says.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::packet::Family;
use dataplane::sets::Registry;

use super::connections::beside;
use super::policy::on_the_wire;
use super::service::Service;
use crate::api::protocol::{self, MatrixInfo, MatrixRun, RunMatrix, Source};
use crate::api::{Code, Failure, Response};
use crate::aside::aside;
use crate::history::stamp;
use crate::matrix::{self, FlowResult, Matrix, Report, Scene};
use crate::model::Ruleset;
use crate::model::expiry::in_force;

/// Flows that are named in an answer at most.
const NAMED: usize = 1_000;
/// Flows that are named in a line of the log at most.
const LOGGED: usize = 5;

/// What is known of the live policy.
#[derive(Debug, Default)]
pub(super) struct MatrixDesk {
    last: Mutex<Option<(Nanos, MatrixRun)>>,
    running: AtomicBool,
}

/// Why there is no result.
enum Trouble {
    /// The file.
    Findings(Vec<protocol::Finding>),
    /// Something else.
    Other(String),
}

impl Trouble {
    fn in_words(&self) -> String {
        match self {
            Self::Findings(findings) => findings.first().map_or_else(String::new, |it| {
                format!("{}:{}:{}: {}", it.file, it.line, it.column, it.message)
            }),
            Self::Other(text) => text.clone(),
        }
    }
}

/// A flow that is not as expected, in a line.
fn in_words(flow: &FlowResult) -> String {
    let problem = flow.first_problem().unwrap_or("not as expected");
    match &flow.owner {
        Some(owner) => format!("flow {:?} (owner {owner}): {problem}", flow.name),
        None => format!("flow {:?}: {problem}", flow.name),
    }
}

impl Service {
    /// Runs a matrix against these rules and sets, aside of the packets.
    fn run_matrix(
        &self,
        matrix: &Matrix,
        rules: [&Ruleset; 2],
        sets: &Registry,
    ) -> Result<Report, String> {
        let at = Nanos(wall_us().saturating_mul(1_000));
        let [now4, now6] = rules.map(|rules| in_force(rules, at.as_secs()));
        let (v4, v6) = (now4.as_ref().unwrap_or(rules[0]), now6.as_ref().unwrap_or(rules[1]));
        let mut conntrack = beside(self.conntrack());
        let network = matrix::network(matrix, &mut conntrack).map_err(|it| it.to_string())?;
        let sets_now = monotonic();
        let scene = Scene { v4, v6, sets, sets_now, conntrack, network, at };
        aside(|| matrix::run(matrix, &scene)).map_err(|error| error.to_string())
    }

    fn live_rules(&self) -> [Ruleset; 2] {
        self.store().read(|view| [view.rules(Family::V4).clone(), view.rules(Family::V6).clone()])
    }

    /// Whether a policy that is to be put in force is as its matrix says. What is answered is
    /// what an emergency goes on in spite of.
    ///
    /// # Errors
    /// It is not, and this is no emergency.
    pub(super) fn pass_gate(
        &self,
        file: Option<&Path>,
        change: &crate::apply::Change,
        sets: &Registry,
        emergency: bool,
    ) -> Result<Option<String>, Failure> {
        let Some(file) = file else { return Ok(None) };
        let live = self.live_rules();
        let v4 = change.v4.as_ref().unwrap_or(&live[0]);
        let v6 = change.v6.as_ref().unwrap_or(&live[1]);
        let outcome = match matrix::read_file(file) {
            Ok((matrix, _)) => self.run_matrix(&matrix, [v4, v6], sets).map_err(Trouble::Other),
            Err((findings, _)) => Err(Trouble::Findings(on_the_wire(&findings))),
        };
        let (message, findings) = match outcome {
            Ok(report) if report.failed == 0 => return Ok(None),
            Ok(report) => {
                let failed = report.failures().take(NAMED).map(|flow| finding(&report, flow));
                (report.summary(), failed.collect())
            }
            Err(Trouble::Findings(findings)) => {
                (format!("the matrix {} cannot be read", file.display()), findings)
            }
            Err(Trouble::Other(error)) => {
                (format!("the matrix {} cannot be run: {error}", file.display()), Vec::new())
            }
        };
        if emergency {
            tracing::warn!("{message}: this emergency goes on in spite of that");
            return Ok(Some(format!("in spite of its matrix: {message}")));
        }
        let message = format!(
            "refused: {message}; the old policy keeps running (mend the policy or the matrix, or \
             in an emergency use --emergency --reason)"
        );
        Err(Failure { code: Code::Refused, message, findings })
    }

    /// Runs the matrix against the policy in force if it is time. For the housekeeping thread,
    /// every second or so.
    pub(super) fn watch_matrix(self: &Arc<Self>, now: Nanos) {
        let (file, every) = self.desk().matrix();
        let (Some(file), true) = (file, every > Nanos(0)) else { return };
        let generation = self.store().generation();
        let due = self
            .matrix_desk()
            .last()
            .as_ref()
            .is_none_or(|(at, last)| now >= *at + every || last.generation != generation);
        if !due || self.matrix_desk().running.swap(true, Ordering::AcqRel) {
            return;
        }
        let service = Arc::clone(self);
        let run = move || {
            service.look_at_live(&file, generation);
            service.matrix_desk().running.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("matrix".to_owned()).spawn(run).is_err() {
            self.matrix_desk().running.store(false, Ordering::Release);
        }
    }

    fn look_at_live(&self, file: &Path, generation: u64) {
        let began = monotonic();
        let outcome = match matrix::read_file(file) {
            Ok((matrix, _)) => {
                let [v4, v6] = self.live_rules();
                let report = self.run_matrix(&matrix, [&v4, &v6], self.sets().registry());
                report.map_err(Trouble::Other)
            }
            Err((findings, _)) => Err(Trouble::Findings(on_the_wire(&findings))),
        };
        let at = stamp(wall_us());
        let took_ms = (monotonic() - began).0 / Nanos::MILLISECOND.0;
        let run = match outcome {
            Ok(report) => MatrixRun {
                at,
                generation,
                took_ms,
                passed: report.passed,
                failed: report.failed,
                failures: report.failures().take(NAMED).map(in_words).collect(),
                error: None,
            },
            Err(trouble) => MatrixRun {
                at,
                generation,
                took_ms,
                passed: 0,
                failed: 0,
                failures: Vec::new(),
                error: Some(trouble.in_words()),
            },
        };
        self.matrix_desk().note(began, run);
    }

    pub(super) fn show_matrix(&self) -> Response {
        let (file, every) = self.desk().matrix();
        Response::Matrix(Box::new(MatrixInfo {
            file: file.map(|file| file.display().to_string()),
            interval_s: every.as_secs(),
            last: self.matrix_desk().last().as_ref().map(|(_, run)| run.clone()),
        }))
    }

    /// Runs a matrix that somebody sends, or the configured one, against the policy in force.
    pub(super) fn run_live(&self, wanted: RunMatrix) -> Result<Response, Failure> {
        let RunMatrix { matrix: sent, all } = wanted;
        let refused = |findings: Vec<_>| Failure {
            code: Code::Refused,
            message: "refused: the matrix has errors".to_owned(),
            findings: on_the_wire(&findings),
        };
        let matrix = match (&sent, self.desk().matrix().0) {
            (Some(Source { name, text }), _) => {
                matrix::read(text, Path::new(name)).map_err(refused)?
            }
            (None, Some(file)) => {
                matrix::read_file(&file).map_err(|(findings, _)| refused(findings))?.0
            }
            (None, None) => {
                let message = "no matrix is configured (matrix.file), and none was sent";
                return Err(Failure::new(Code::Refused, message));
            }
        };
        if sent.is_some() && matrix.topology.is_some() {
            let message = "a matrix that is sent cannot name a topology: leave it out";
            return Err(Failure::new(Code::Refused, message));
        }
        let [v4, v6] = self.live_rules();
        let report = self.run_matrix(&matrix, [&v4, &v6], self.sets().registry());
        let mut report = report.map_err(|error| Failure::new(Code::Refused, error))?;
        report.flows.retain(|flow| all || !flow.passed);
        Ok(Response::MatrixReport(Box::new(report)))
    }

    /// Flows that are not as expected, at the last run.
    pub(super) fn matrix_failing(&self) -> u64 {
        let last = self.matrix_desk().last();
        last.as_ref().map_or(0, |(_, run)| run.failed.max(u64::from(run.error.is_some())))
    }

    /// What there is to nag about.
    pub(super) fn matrix_nag(&self) -> Option<String> {
        let (file, _) = self.desk().matrix();
        file?;
        let last = self.matrix_desk().last();
        last.as_ref().and_then(|(_, run)| run.trouble())
    }
}

fn finding(report: &Report, flow: &FlowResult) -> protocol::Finding {
    protocol::Finding {
        severity: "error".to_owned(),
        code: "matrix".to_owned(),
        file: report.file.clone(),
        line: flow.line,
        column: 1,
        message: in_words(flow),
        remedy: flow.purpose.as_ref().map(|purpose| format!("this flow is for: {purpose}")),
    }
}

impl MatrixDesk {
    fn last(&self) -> std::sync::MutexGuard<'_, Option<(Nanos, MatrixRun)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a result, and says so if it is another than before.
    fn note(&self, at: Nanos, run: MatrixRun) {
        let mut last = self.last();
        let before = last.as_ref().map(|(_, run)| (run.trouble(), run.failures.clone()));
        let same = before.as_ref() == Some(&(run.trouble(), run.failures.clone()));
        match run.trouble() {
            _ if same => {}
            Some(trouble) => tracing::warn!("{trouble}"),
            None => tracing::info!("matrix: {} flows are as expected", run.passed),
        }
        *last = Some((at, run));
    }
}

impl MatrixRun {
    /// What is wrong, in a line.
    fn trouble(&self) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(format!("the matrix cannot be run: {error}"));
        }
        if self.failed == 0 {
            return None;
        }
        let (failed, all) = (self.failed, self.passed + self.failed);
        let names: Vec<&str> = self.failures.iter().take(LOGGED).map(String::as_str).collect();
        let more = if self.failures.len() > LOGGED { "; ..." } else { "" };
        let names = names.join("; ");
        Some(format!("matrix: {failed} of {all} flows are not as expected: {names}{more}"))
    }
}
