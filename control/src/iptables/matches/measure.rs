//! `-m quota`, `-m cpu`, `-m cluster`, `-m nfacct`.

use dataplane::policy::Match;
use dataplane::policy::matches::Neg;
use dataplane::policy::measure::cluster::MAX_NODES;
use dataplane::policy::measure::{ClusterMatch, MeasureMatch};

use super::one::Kind;
use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, negatable, plain, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, MeasureSpec, Rule, Span};

/// A number in that range, or the problem.
fn number(operand: &Operand<'_>, low: u64, high: u64) -> Result<u64, Problem> {
    value::number(operand.text, low, high)
        .ok_or_else(|| operand.bad(format!("`{}' is no number from {low} to {high}", operand.text)))
}

const MAX_U32: u64 = u32::MAX as u64;

pub(super) const QUOTA: Kind<u64> = Kind {
    name: "quota",
    options: &[negatable("quota", 0)],
    option: "--quota",
    protocol: None,
    read: |operand, _| number(operand, 0, u64::MAX),
    made: |Neg { negated, value }| MatchBody::Measure(MeasureSpec::Quota { negated, bytes: value }),
};

pub(super) const CPU: Kind<u32> = Kind {
    name: "cpu",
    options: &[negatable("cpu", 0)],
    option: "--cpu",
    protocol: None,
    read: |operand, _| number(operand, 0, MAX_U32).map(|cpu| cpu as u32),
    made: |cpu| MatchBody::Plain(Match::Measure(MeasureMatch::Cpu(cpu))),
};

const NODES: u8 = 0;
const NODE: u8 = 1;
const MASK: u8 = 2;

/// `-m cluster`.
#[derive(Default)]
pub(super) struct Cluster {
    nodes: Option<u32>,
    node: Option<(u32, bool)>,
    mask: Option<(u32, bool)>,
    seed: Option<u32>,
}

impl Module for Cluster {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn options(&self) -> &'static [Opt] {
        const {
            &[
                plain("cluster-total-nodes", NODES),
                negatable("cluster-local-node", NODE).excluding(bit(MASK)),
                negatable("cluster-local-nodemask", MASK).excluding(bit(NODE)),
                plain("cluster-hash-seed", 3),
            ]
        }
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let most = u64::from(MAX_NODES);
        match id {
            NODES => self.nodes = Some(number(operand, 1, most)? as u32),
            NODE => self.node = Some((number(operand, 1, most)? as u32, operand.negated)),
            // The tools take masks up to 32 only, but not what they print themselves.
            MASK => self.mask = Some((number(operand, 1, MAX_U32)? as u32, operand.negated)),
            _ => self.seed = Some(number(operand, 0, MAX_U32)? as u32),
        }
        Ok(())
    }
}

impl MatchModule for Cluster {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let missing = |options| required(at, "cluster", options);
        let nodes = self.nodes.ok_or_else(|| missing("--cluster-total-nodes"))?;
        let seed = self.seed.ok_or_else(|| missing("--cluster-hash-seed"))?;
        let (mask, negated) = match (self.node, self.mask) {
            (Some((node, negated)), _) => (1_u64 << (node - 1), negated),
            (None, Some((mask, negated))) => (u64::from(mask), negated),
            (None, None) => {
                return Err(missing("--cluster-local-node or --cluster-local-nodemask"));
            }
        };
        if mask >> nodes != 0 {
            let message = format!("cluster: a local node is beyond the {nodes} in all");
            return Err(Problem::new(Code::BadValue, at, message)
                .remedy("raise --cluster-total-nodes, or name a lower node"));
        }
        let mask = mask as u32;
        let cluster = ClusterMatch { nodes, mask, negated, seed };
        Ok(MatchBody::Plain(Match::Measure(MeasureMatch::Cluster(cluster))))
    }
}

/// Longest name of an nfacct object that the kernel keeps.
const MAX_ACCOUNT: usize = 31;

/// `-m nfacct`.
#[derive(Default)]
pub(super) struct Nfacct(Option<Box<str>>);

impl Module for Nfacct {
    fn name(&self) -> &'static str {
        "nfacct"
    }

    fn options(&self) -> &'static [Opt] {
        const { &[plain("nfacct-name", 0)] }
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        if !(1..=MAX_ACCOUNT).contains(&operand.text.len()) {
            return Err(operand.bad(format!("a name has 1 to {MAX_ACCOUNT} bytes")));
        }
        self.0 = Some(operand.text.into());
        Ok(())
    }
}

impl MatchModule for Nfacct {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let name = self.0.clone().ok_or_else(|| required(at, "nfacct", "--nfacct-name"))?;
        Ok(MatchBody::Measure(MeasureSpec::Nfacct(name)))
    }
}
