//! What a run has found: for people, as JSON, and as JUnit for what runs tests.

use std::fmt::Write as _;
use std::io::Write;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::{Deserialize, Serialize};

/// One packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    /// Line of the file, from 1.
    pub line: u32,
    /// The packet in a few words.
    pub packet: String,
    /// Where it came from.
    pub input: String,
    /// How it ended.
    pub verdict: String,
    /// What decided: the rule or policy, as in the filter table.
    pub by: Option<String>,
    /// What translation did.
    pub nat: Option<String>,
    /// `--ctstate`.
    pub state: Option<String>,
    /// Log lines.
    pub log: Vec<String>,
    /// What is otherwise than expected.
    pub problems: Vec<String>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowResult {
    /// Its name.
    pub name: String,
    /// Who takes part.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub role: Option<String>,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub purpose: Option<String>,
    /// Line of the file, from 1.
    pub line: u32,
    /// Whether everything was as expected.
    pub passed: bool,
    /// Its packets.
    pub steps: Vec<StepResult>,
}

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The file.
    pub file: String,
    /// Flows as expected.
    pub passed: u64,
    /// The others.
    pub failed: u64,
    /// In the order of the file.
    pub flows: Vec<FlowResult>,
}

impl Report {
    pub(super) fn of(file: String, flows: Vec<FlowResult>) -> Self {
        let passed = flows.iter().filter(|flow| flow.passed).count() as u64;
        Self { file, passed, failed: flows.len() as u64 - passed, flows }
    }

    /// The flows that are not as expected.
    pub fn failures(&self) -> impl Iterator<Item = &FlowResult> {
        self.flows.iter().filter(|flow| !flow.passed)
    }

    /// The run in a line.
    pub fn summary(&self) -> String {
        let Self { file, passed, failed, .. } = self;
        let plural = |count: u64| if count == 1 { "flow" } else { "flows" };
        match failed {
            0 => format!("{file}: {passed} {} as expected", plural(*passed)),
            _ => {
                let all = passed + failed;
                format!("{file}: {failed} of {all} {} not as expected", plural(all))
            }
        }
    }
}

impl FlowResult {
    /// Its first problem, in a line.
    pub fn first_problem(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| step.problems.first()).map(String::as_str)
    }

    fn blame(&self) -> String {
        let words = [("owner", &self.owner), ("role", &self.role)];
        let said = words
            .into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key} {value}")));
        said.collect::<Vec<_>>().join(", ")
    }

    fn tell(&self, file: &str, out: &mut String) {
        let mark = if self.passed { "ok  " } else { "FAIL" };
        let blame = match self.blame() {
            blame if blame.is_empty() => blame,
            blame => format!(" [{blame}]"),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{mark} {}{blame}", self.name);
        if self.passed {
            return;
        }
        if let Some(purpose) = &self.purpose {
            let _ = writeln!(out, "     for: {purpose}");
        }
        for (number, step) in self.steps.iter().enumerate() {
            if step.problems.is_empty() {
                continue;
            }
            let nth = if self.steps.len() > 1 {
                format!("packet {}, ", number + 1)
            } else {
                String::new()
            };
            let _ = writeln!(
                out,
                "     {file}:{}: {nth}{}, from {}",
                step.line, step.packet, step.input
            );
            for problem in &step.problems {
                let _ = writeln!(out, "       {problem}");
            }
        }
    }
}

/// For people: the flows that fail, with everything that is known; all of them if `all`.
pub fn render(report: &Report, all: bool) -> String {
    let mut out = String::new();
    for flow in report.flows.iter().filter(|flow| all || !flow.passed) {
        flow.tell(&report.file, &mut out);
    }
    let _ = writeln!(out, "{}", report.summary());
    out
}

/// Writes a report that tools which run tests can read: a suite, a case a flow.
///
/// # Errors
/// It cannot be written.
pub fn junit(report: &Report, to: impl Write) -> Result<(), quick_junit::SerializeError> {
    let mut suite = TestSuite::new(report.file.as_str());
    for flow in &report.flows {
        let status = match flow.first_problem() {
            None => TestCaseStatus::success(),
            Some(problem) => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                let mut text = String::new();
                flow.tell(&report.file, &mut text);
                status.set_message(problem).set_type("flow").set_description(text);
                status
            }
        };
        let mut case = TestCase::new(flow.name.as_str(), status);
        case.set_classname(flow.owner.as_deref().unwrap_or("matrix"));
        case.set_assertions(flow.steps.len());
        suite.add_test_case(case);
    }
    let mut whole = quick_junit::Report::new("portcullis matrix");
    whole.add_test_suite(suite);
    whole.serialize(to)
}
