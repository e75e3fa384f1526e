//! Why does this packet end where it ends? Every table, chain and rule on its
//! way, and for each rule that does not match, what it failed on.
//!
//! The engine decides the packet over the real policy and topology; the
//! interpreter walks the same rules and supplies the reasons. Both must have
//! taken the same path: if not, that is said instead of an explanation.

pub(crate) mod describe;
pub(crate) mod made_up;
pub(crate) mod prepare;
mod reasons;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod translate;
mod walk;

use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, CtState};
use dataplane::fib::{Network, Topology};
use dataplane::packet::PktType;
use dataplane::sets::{Registry, SetError};
use dataplane::wire::{self, Frame};
use serde::Serialize;

pub use describe::{DescribeError, Description};
pub use text::render;

use crate::ipset;
use crate::iptables::Names;
use crate::model::Ruleset;
use crate::replay::{Event, Fed, Replay, ReplayError, Source};

/// When the described packet arrives; preparation happens before.
pub const NOW: Nanos = Nanos::from_secs(1_000);
/// Connections that an explanation needs at most, with room to spare.
const CONNECTIONS: u64 = 64;

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The words describe no packet.
    #[error(transparent)]
    Describe(#[from] DescribeError),
    /// The policy or the topology is not usable.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The sets cannot be copied.
    #[error(transparent)]
    Sets(#[from] SetError),
    /// An interface that is not a port.
    #[error("no port `{0}` in the topology")]
    NoSuchPort(String),
    /// The state that was asked for cannot be brought about with this packet.
    #[error("this packet cannot be {wanted}: tracking says {got}")]
    State {
        /// What was asked for.
        wanted: &'static str,
        /// What tracking says.
        got: &'static str,
    },
    /// Engine and interpreter took different paths.
    #[error(
        "the engine and the interpreter disagree (please report this): engine {engine}, interpreter {interpreter}"
    )]
    Disagree {
        /// Path and verdict of the engine.
        engine: String,
        /// Path and verdict of the interpreter.
        interpreter: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The packet in a few words.
    pub packet: String,
    /// What it met, in order.
    pub stages: Vec<Stage>,
    /// What became of it, as `replay --events` says it.
    pub event: Event,
    /// What was logged of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// One stage of the packet's road.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum Stage {
    /// A table at a hook.
    Table {
        /// Table.
        table: &'static str,
        /// Hook.
        hook: &'static str,
        /// Input interface there, empty when there is none.
        input: String,
        /// Output interface there, empty when there is none.
        output: String,
        /// Rules in the order they were looked at.
        steps: Vec<Step>,
    },
    /// Connection tracking.
    Tracking {
        /// `--ctstate`.
        state: &'static str,
        /// `original` or `reply`.
        direction: &'static str,
    },
    /// NAT changes the packet.
    Translation {
        /// Hook.
        hook: &'static str,
        /// `source` or `destination`.
        what: &'static str,
        /// Address and port (or ICMP identifier) that the packet came with.
        from: String,
        /// What they become.
        to: String,
    },
    /// The routing decision.
    Routing {
        /// Where to: a port, `host`, or a reason to drop.
        to: String,
    },
}

/// One rule, or a policy, that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Chain.
    pub chain: String,
    /// Number in the chain, from 1; null for the chain's policy.
    pub rule: Option<u32>,
    /// Line in the policy file, from 1.
    pub line: Option<u32>,
    /// The rule as `iptables-save` prints it, or the policy.
    pub text: String,
    /// Whether it matched.
    pub matched: bool,
    /// What it failed on.
    pub why: Option<String>,
    /// How deep in jumps the chain is.
    pub depth: usize,
}

/// Explains what becomes of the described packet.
///
/// Without a network, one is made up in which the packet's interfaces exist
/// and its destination is reached through the output interface (or is this
/// machine, when none is given). Interfaces have addresses of 198.51.100.200 or
/// 2001:db8::ffff:0 and up then. `conntrack` has the settings to track under; its table
/// is made small. The sets, as they are at [`NOW`], are copied.
pub fn explain(
    v4: &Ruleset,
    v6: &Ruleset,
    sets: &Registry,
    network: Option<Arc<Network>>,
    mut conntrack: Config,
    description: &Description,
    names: &dyn Names,
) -> Result<Explanation, ExplainError> {
    let mut description = description.clone();
    let network = match network {
        Some(network) => network,
        None => Arc::new(Network::build(&made_up(&description)).map_err(ReplayError::from)?),
    };
    let sized = conntrack.set("max", CONNECTIONS);
    debug_assert!(sized.is_ok(), "a small table is possible");
    let open = || {
        let sets = ipset::twin(sets, NOW, NOW)?;
        let (v4, v6) = (v4.clone(), v6.clone());
        Ok::<_, ExplainError>(Replay::with_sets(
            Arc::clone(&network),
            v4,
            v6,
            conntrack.clone(),
            sets,
        )?)
    };
    let (mut engine, oracle) = (open()?, open()?);
    let source = source(&engine, &mut description)?;
    for replay in [&engine, &oracle] {
        let extensions = replay.policy().extensions();
        prepare::connection(replay.conntrack(), extensions, &description, NOW);
    }
    let Fed { event, conn, log, .. } = engine.feed(source, NOW, &description.frame);
    check_state(&description, &event)?;
    let face = conn.and_then(|conn| engine.conntrack().face(conn));
    let decided = walk::Decided { event: &event, face };
    let walk = walk::Walk::new(&oracle, &description, source, &decided, names);
    let stages = walk.map_or_else(|| Ok(Vec::new()), walk::Walk::run)?;
    Ok(Explanation { packet: text::packet(&description), stages, event, log })
}

/// The port that the packet arrives on; also addresses the frame to it.
fn source(replay: &Replay, description: &mut Description) -> Result<Source, ExplainError> {
    let find =
        |name: &String| replay.port(name).ok_or_else(|| ExplainError::NoSuchPort(name.clone()));
    if let Some(name) = &description.output {
        find(name)?;
    }
    let Some(name) = &description.input else { return Ok(Source::Host) };
    let port = find(name)?;
    let mac = replay.network().port(port).mac;
    if let Ok(Frame::Ip(parsed)) = wire::parse(&description.frame, mac)
        && parsed.pkt_type == PktType::OtherHost
    {
        description.frame[..6].copy_from_slice(&mac.0);
    }
    Ok(Source::Port(port))
}

fn check_state(description: &Description, event: &Event) -> Result<(), ExplainError> {
    match (description.state.map(CtState::name), event.ctstate) {
        (Some(wanted), Some(got)) if wanted != got => Err(ExplainError::State { wanted, got }),
        _ => Ok(()),
    }
}

/// The smallest network in which the packet can go where its words say.
fn made_up(description: &Description) -> Topology {
    let mut ports = Vec::new();
    for name in [&description.input, &description.output].into_iter().flatten() {
        if !ports.contains(name) {
            ports.push(name.clone());
        }
    }
    made_up::topology(&ports, description)
}
