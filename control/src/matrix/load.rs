//! Policy texts made ready for a run, offline.

use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::Config;
use dataplane::fib::Network;
use dataplane::packet::Family;
use dataplane::sets::Registry;

use super::file::Matrix;
use super::report::Report;
use super::run::{RunError, Scene, run_with};
use crate::daemon::policy::Texts;
use crate::diagnostics::{Finding, has_errors};
use crate::ipset::{self, Stage};
use crate::iptables::{self, TableNames};
use crate::model::Ruleset;
use crate::model::expiry::in_force;
use crate::replay::topology::{TopologyError, TopologyFile};

/// A policy that flows can be run through.
#[derive(Debug)]
pub struct Loaded {
    /// IPv4.
    pub v4: Ruleset,
    /// IPv6.
    pub v6: Ruleset,
    /// Sets.
    pub sets: Arc<Registry>,
    /// The settings to track under.
    pub conntrack: Config,
}

impl Loaded {
    /// Reads texts; timeouts of sets run from `at`. Rules that have expired by then are left
    /// out.
    ///
    /// # Errors
    /// Everything that refuses them.
    pub fn read(texts: &Texts, conntrack: Config, at: Nanos) -> Result<Self, Vec<Finding>> {
        let names = TableNames::of_host().with_timeout_policies(conntrack.timeout_policies());
        let mut findings = Vec::new();
        let mut family = |source: &Option<crate::api::protocol::Source>, family| {
            let Some(source) = source else { return Ruleset::empty(family) };
            match iptables::parse(&source.text, &source.name, family, &names) {
                Ok(parsed) => in_force(&parsed.ruleset, at.as_secs()).unwrap_or(parsed.ruleset),
                Err(errors) => {
                    findings.extend(errors);
                    Ruleset::empty(family)
                }
            }
        };
        let v4 = family(&texts.v4, Family::V4);
        let v6 = family(&texts.v6, Family::V6);
        let mut stage = Stage::empty(0, at);
        for source in &texts.sets {
            let bytes = source.text.as_bytes();
            findings.extend(ipset::read(&mut stage, bytes, &source.name, &names));
        }
        match has_errors(&findings) {
            true => Err(findings),
            false => Ok(Self { v4, v6, sets: Arc::new(stage.into_registry()), conntrack }),
        }
    }

    /// Runs a matrix against it, at `at`.
    ///
    /// # Errors
    /// The policy cannot be run.
    pub fn run(
        &self,
        matrix: &Matrix,
        network: Option<Arc<Network>>,
        at: Nanos,
        told: &mut dyn FnMut(usize, usize),
    ) -> Result<Report, RunError> {
        let Self { v4, v6, sets, conntrack } = self;
        let conntrack = conntrack.clone();
        let scene = Scene { v4, v6, sets, sets_now: at, conntrack, network, at };
        run_with(matrix, &scene, told)
    }
}

/// Why a network cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetworkFault {
    /// The topology file.
    #[error(transparent)]
    File(#[from] TopologyError),
    /// It contradicts itself.
    #[error(transparent)]
    Network(#[from] dataplane::fib::NetworkError),
}

/// The network that a matrix names, and settings for tracking that come with it.
///
/// # Errors
/// [`NetworkFault`].
pub fn network(
    matrix: &Matrix,
    conntrack: &mut Config,
) -> Result<Option<Arc<Network>>, NetworkFault> {
    let Some(path) = &matrix.topology else { return Ok(None) };
    let file = TopologyFile::read(path)?;
    file.configure(path, conntrack)?;
    Ok(Some(Arc::new(Network::build(&file.topology)?)))
}
