//! The flows of a file through a policy: the engine decides, nothing here does.

use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, ConntrackError};
use dataplane::fib::{Network, NetworkError};
use dataplane::packet::{Family, MAX_PORTS};
use dataplane::sets::{Registry, SetError};

use super::expect::verdict_name;
use super::file::{Flow, Matrix, Step};
use super::judge::Outcome;
use super::report::{FlowResult, Report, StepResult};
use super::talk::{Ends, Talk};
use crate::explain::{Description, made_up, prepare, text};
use crate::ipset;
use crate::model::{Ruleset, TargetSpec};
use crate::replay::event::Verdict;
use crate::replay::{Fed, Replay, ReplayError, Source};

/// Connections that a flow needs at most, with room to spare.
const CONNECTIONS: u64 = 64;

/// Why a matrix cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policy or the network is not usable.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The network contradicts itself.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The sets cannot be copied.
    #[error(transparent)]
    Sets(#[from] SetError),
    /// No connection table.
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    /// More ports than one engine can have.
    #[error("the flows name {0} ports, and {MAX_PORTS} are possible")]
    Ports(usize),
}

/// What the flows meet.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The IPv4 policy.
    pub v4: &'a Ruleset,
    /// The IPv6 policy.
    pub v6: &'a Ruleset,
    /// The sets that they name.
    pub sets: &'a Registry,
    /// How late it is for the timeouts of these.
    pub sets_now: Nanos,
    /// The settings to track under; its table is made small.
    pub conntrack: Config,
    /// The network, where the matrix names one.
    pub network: Option<Arc<Network>>,
    /// When the flows begin, since 1970: for rules that ask for the time.
    pub at: Nanos,
}

/// Runs all flows.
///
/// # Errors
/// [`RunError`]: the policy cannot be run at all.
pub fn run(matrix: &Matrix, scene: &Scene<'_>) -> Result<Report, RunError> {
    run_with(matrix, scene, &mut |_, _| {})
}

/// The same; `told` hears of how many flows are done, of how many.
///
/// # Errors
/// As there.
pub fn run_with(
    matrix: &Matrix,
    scene: &Scene<'_>,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Report, RunError> {
    let mut trial = Trial::new(matrix, scene)?;
    let mut flows = Vec::with_capacity(matrix.flows.len());
    for flow in &matrix.flows {
        flows.push(trial.flow(flow)?);
        told(flows.len(), matrix.flows.len());
    }
    Ok(Report::of(matrix.file.to_string(), flows))
}

struct Trial<'a> {
    scene: &'a Scene<'a>,
    replay: Replay,
    conntrack: Config,
    /// Every port that a flow names, where the network is made up.
    ports: Vec<String>,
    /// Whether a flow could leave something behind in limits, lists or sets.
    stateful: bool,
    /// Whether it could in sets.
    fills_sets: bool,
    used: bool,
}

impl<'a> Trial<'a> {
    fn new(matrix: &Matrix, scene: &'a Scene<'a>) -> Result<Self, RunError> {
        let mut ports: Vec<String> = Vec::new();
        for flow in &matrix.flows {
            for name in [&flow.first.input, &flow.first.output].into_iter().flatten() {
                if !ports.contains(name) {
                    ports.push(name.clone());
                }
            }
        }
        if scene.network.is_none() && ports.len() > MAX_PORTS {
            return Err(RunError::Ports(ports.len()));
        }
        let mut conntrack = scene.conntrack.clone();
        let sized = conntrack.set("max", CONNECTIONS);
        debug_assert!(sized.is_ok(), "a small table is possible");
        let network = match (&scene.network, matrix.flows.first()) {
            (Some(network), _) => Arc::clone(network),
            (None, Some(flow)) => network(&ports, &flow.first)?,
            (None, None) => Arc::new(Network::build(&empty())?),
        };
        let sets = ipset::twin(scene.sets, scene.sets_now, scene.at)?;
        let (v4, v6) = (scene.v4.clone(), scene.v6.clone());
        let replay = Replay::with_sets(network, v4, v6, conntrack.clone(), sets)?;
        let tables = [scene.v4, scene.v6].into_iter().flat_map(|rules| &rules.tables);
        let chains = tables.flat_map(|table| &table.chains);
        let (mut stateful, mut fills_sets) = (false, false);
        for rule in chains.flat_map(|chain| &chain.rules) {
            stateful |= rule.matches.iter().any(|it| it.body.owns_state());
            fills_sets |= matches!(rule.target, TargetSpec::Set(_));
        }
        stateful |= fills_sets;
        Ok(Self { scene, replay, conntrack, ports, stateful, fills_sets, used: false })
    }

    fn flow(&mut self, flow: &Flow) -> Result<FlowResult, RunError> {
        let network = match &self.scene.network {
            Some(network) => Arc::clone(network),
            None => network(&self.ports, &flow.first)?,
        };
        let at = self.scene.at;
        self.replay.begin_again(network, self.conntrack.clone(), at)?;
        if self.stateful && self.used {
            let sets = match self.fills_sets {
                true => ipset::twin(self.scene.sets, self.scene.sets_now, at)?,
                false => Arc::clone(self.replay.sets()),
            };
            self.replay.renew(sets)?;
        }
        self.used = true;
        let extensions = self.replay.policy().extensions();
        prepare::connection(self.replay.conntrack(), extensions, &flow.first, at);
        let steps = self.steps(flow);
        let passed = steps.iter().all(|step| step.problems.is_empty());
        Ok(FlowResult {
            name: flow.name.clone(),
            role: flow.role.clone(),
            owner: flow.owner.clone(),
            purpose: flow.purpose.clone(),
            line: flow.line,
            passed,
            steps,
        })
    }

    fn steps(&mut self, flow: &Flow) -> Vec<StepResult> {
        let mut talk = Talk::new(&flow.first.frame);
        let mut now = self.scene.at;
        let mut results = Vec::new();
        // Where the client's packets went: answers come from there.
        let mut beyond = flow.first.output.clone();
        for (number, step) in flow.steps.iter().enumerate() {
            now = now + step.after;
            let frame = match (&talk, number) {
                (_, 0) | (None, _) => flow.first.frame.clone(),
                (Some(talk), _) => talk.next(step),
            };
            let from = if step.from_client { flow.first.input.clone() } else { beyond.clone() };
            let (result, fed) = self.step(flow, step, frame.clone(), from, now);
            results.push(result);
            let Some(fed) = fed else { break };
            let Some(talk) = &mut talk else { continue };
            talk.sent(step.from_client, &frame);
            if step.from_client
                && let Some(went) = onward(&fed)
            {
                talk.arrived(went);
                beyond = fed.event.out.first().filter(|name| *name != "host").cloned();
            }
        }
        results
    }

    /// One packet. Without a port to come by there is none.
    fn step(
        &mut self,
        flow: &Flow,
        step: &Step,
        mut frame: Vec<u8>,
        from: Option<String>,
        now: Nanos,
    ) -> (StepResult, Option<Fed>) {
        let input = from.clone().unwrap_or_else(|| "host".to_owned());
        let told = Description { frame: frame.clone(), ..flow.first.clone() };
        let mut result = StepResult {
            line: step.line,
            packet: text::packet(&told),
            input,
            verdict: "none".to_owned(),
            by: None,
            nat: None,
            state: None,
            log: Vec::new(),
            problems: Vec::new(),
        };
        let source = match &from {
            None => Source::Host,
            Some(name) => match self.replay.port(name) {
                Some(port) => Source::Port(port),
                None => {
                    result.problems.push(format!("the topology has no port {name}"));
                    return (result, None);
                }
            },
        };
        if let Source::Port(port) = source {
            frame[..6].copy_from_slice(&self.replay.network().port(port).mac.0);
        }
        let before = Ends::read(&frame);
        let fed = self.replay.feed(source, now, &frame);
        let family = if frame.get(12) == Some(&0x86) { Family::V6 } else { Family::V4 };
        let outcome = Outcome {
            fed: &fed,
            rules: self.replay.rules(family),
            before,
            after: onward(&fed).and_then(Ends::read),
        };
        result.verdict = verdict_name(fed.event.verdict);
        result.by = outcome.decided().map(|step| outcome.in_words(step));
        result.nat = outcome.translated();
        result.state = fed.event.ctstate.map(str::to_owned);
        result.log.clone_from(&fed.log);
        result.problems = outcome.problems(&step.expectation);
        if step.from_client && fed.event.verdict == Verdict::Accept {
            result.problems.extend(astray(&flow.first, &fed));
        }
        (result, Some(fed))
    }
}

/// The packet itself as it went on.
fn onward(fed: &Fed) -> Option<&[u8]> {
    if fed.event.verdict != Verdict::Accept {
        return None;
    }
    let sent = fed.sent.last().map(|sent| sent.frame.as_slice());
    sent.or_else(|| fed.delivered.last().map(Vec::as_slice))
}

/// It went on, but not where the flow says.
fn astray(first: &Description, fed: &Fed) -> Option<String> {
    let wanted = first.output.as_deref().unwrap_or("host");
    let out = &fed.event.out;
    (!out.is_empty() && out.iter().all(|name| name != wanted))
        .then(|| format!("expected to leave by {wanted}, got {}", out.join(", ")))
}

fn network(ports: &[String], first: &Description) -> Result<Arc<Network>, RunError> {
    Ok(Arc::new(Network::build(&made_up::topology(ports, first))?))
}

fn empty() -> dataplane::fib::Topology {
    dataplane::fib::Topology {
        mode: dataplane::fib::Mode::Routed,
        ports: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: Vec::new(),
    }
}
