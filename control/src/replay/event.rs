//! One line of `--events`: what became of an input packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use classifier::Address;
use dataplane::clock::Nanos;
use dataplane::conntrack::{Conntrack, CtState, Tuple};
use dataplane::effects::Step;
use dataplane::packet::{Family, PortId};
use dataplane::policy::target::ConnmarkTarget;
use dataplane::policy::{ChainPolicy, FamilyPolicy, Hook, Policy, Target};
use dataplane::verdict::{Disposition, DropReason};
use dataplane::wire::proto;
use serde::Serialize;

use super::effects::Collector;
use super::{Source, port_name};

/// How a packet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Sent on, or delivered to the local stack.
    Accept,
    /// By a rule or a policy, or for want of something the router needs.
    Drop,
    /// By a REJECT rule.
    Reject,
    /// Queued: a fragment, until its datagram is complete.
    Stolen,
    /// Before any rule.
    InvalidDrop,
    /// Answered by the router itself.
    Consumed,
}

/// One step of the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathStep {
    /// Table.
    pub table: &'static str,
    /// Chain.
    pub chain: String,
    /// Number of the rule in its chain, from 1 as `iptables -L --line-numbers`
    /// counts; null for the chain's policy.
    pub rule: Option<u32>,
    /// The target's name, or the chain jumped to; null when there is none.
    pub target: Option<String>,
    /// The hook at which it was met.
    pub hook: &'static str,
}

/// One direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TupleFields {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol number.
    pub proto: u8,
    /// Source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// ICMP type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// ICMP code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
    /// ICMP identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u16>,
}

/// One line. Field order is the contract's; what follows `reply` extends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Number of the input packet, from 0.
    pub n: u64,
    /// Its timestamp.
    pub t_ns: u64,
    /// Input port, or `host`.
    #[serde(rename = "in")]
    pub input: String,
    /// Frame length.
    pub len: usize,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, unless accepted.
    pub reason: Option<&'static str>,
    /// `--ctstate`; null when the packet was not tracked.
    pub ctstate: Option<&'static str>,
    /// A number that stays with its connection; null when it has none.
    pub ctid: Option<u64>,
    /// Ports that the packet itself left on, or `host`.
    pub out: Vec<String>,
    /// Rules that matched and policies that applied, in order.
    pub path: Vec<PathStep>,
    /// The packet's mark at its end.
    pub mark: u32,
    /// The connection's original tuple.
    pub tuple: Option<TupleFields>,
    /// The connection's reply tuple.
    pub reply: Option<TupleFields>,
    /// Ports on which the router's own answers left, or `host`.
    pub answers: Vec<String>,
    /// The path of those answers.
    pub answer_path: Vec<PathStep>,
    /// What TRACE reported, as `filter:FORWARD:rule:3`; left out when nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

/// What an event is made from.
pub(super) struct Facts<'a> {
    pub(super) n: u64,
    pub(super) at: Nanos,
    pub(super) source: Source,
    pub(super) frame: &'a [u8],
    pub(super) disposition: Disposition,
    pub(super) reason: Option<DropReason>,
    pub(super) ports: &'a [String],
    pub(super) policy: &'a Policy,
    pub(super) conntrack: &'a Conntrack,
}

impl Event {
    pub(super) fn new(facts: &Facts<'_>, collector: &Collector<'_>) -> Self {
        let name = |port: PortId| port_name(facts.ports, port).to_owned();
        let steps = collector.steps.iter().map(|step| path_step(facts.policy, step)).collect();
        let (path, answer_path) = split_path(facts.source, steps);
        let mut emitted: Vec<String> = collector.sent.iter().map(|sent| name(sent.port)).collect();
        let mut out = match facts.disposition {
            Disposition::Transmit(port) => vec![name(port)],
            Disposition::Deliver | Disposition::Delivered => vec!["host".to_owned()],
            Disposition::Fragmented => std::mem::take(&mut emitted),
            _ => vec![],
        };
        out.dedup();
        // A datagram that was put together and delivered is no answer.
        let own = usize::from(facts.disposition == Disposition::Delivered);
        emitted.extend(collector.delivered.iter().skip(own).map(|_| "host".to_owned()));
        let outcome = collector.outcome.as_ref();
        let tracking = outcome.map(|outcome| outcome.tracking);
        let view = tracking.and_then(|t| t.conn).and_then(|conn| facts.conntrack.view(conn));
        let verdict = verdict(facts, &path, !emitted.is_empty());
        Self {
            n: facts.n,
            t_ns: facts.at.0,
            input: match facts.source {
                Source::Port(port) => name(port),
                Source::Host => "host".to_owned(),
            },
            len: facts.frame.len(),
            verdict,
            reason: facts.reason.map(DropReason::name),
            ctstate: tracking
                .filter(|_| verdict != Verdict::InvalidDrop)
                .filter(|_| !ended_as_fragment(facts))
                .filter(|t| t.conn.is_some() || is_tracked(facts))
                .map(|tracking| tracking.state)
                .map(CtState::name),
            ctid: view.map(|view| view.id.number()),
            out,
            path,
            mark: outcome.map_or(0, |outcome| outcome.mark),
            tuple: view.map(|view| TupleFields::new(&view.original)),
            reply: view.map(|view| TupleFields::new(&view.reply)),
            answers: emitted,
            answer_path,
            trace: collector.traces.clone(),
        }
    }
}

/// Whether the packet ended, or waits, as a fragment that no rule saw.
fn ended_as_fragment(facts: &Facts<'_>) -> bool {
    use DropReason as R;
    facts.disposition == Disposition::Collected
        || matches!(
            facts.reason,
            Some(
                R::Fragment
                    | R::ReassemblyOverlap
                    | R::ReassemblyDuplicate
                    | R::ReassemblyFull
                    | R::ReassemblyOversize
            )
        )
}

/// Whether the packet's family is tracked at all.
fn is_tracked(facts: &Facts<'_>) -> bool {
    match facts.frame.get(12..14) {
        Some([0x08, 0x00]) => facts.policy.v4.needs_conntrack,
        Some([0x86, 0xdd]) => facts.policy.v6.needs_conntrack,
        _ => false,
    }
}

/// The packet's own steps, and those of what the router answered: behind the
/// REJECT that ended it, and for a packet from a port (which never meets OUTPUT
/// itself) from OUTPUT on.
fn split_path(source: Source, mut steps: Vec<PathStep>) -> (Vec<PathStep>, Vec<PathStep>) {
    let rejected = steps.iter().position(|step| step.target.as_deref() == Some("REJECT"));
    let output = |step: &PathStep| step.hook == Hook::Output.chain_name();
    let at = match (rejected, source) {
        (Some(at), _) => at + 1,
        (None, Source::Port(_)) => steps.iter().position(output).unwrap_or(steps.len()),
        (None, Source::Host) => steps.len(),
    };
    let answers = steps.split_off(at);
    (steps, answers)
}

fn verdict(facts: &Facts<'_>, path: &[PathStep], answered: bool) -> Verdict {
    use DropReason as R;
    match facts.reason {
        None if facts.disposition == Disposition::Collected => Verdict::Stolen,
        Some(R::Synproxy) => Verdict::Stolen,
        None => Verdict::Accept,
        Some(R::Reject) => Verdict::Reject,
        Some(R::TtlExpired | R::NoRoute | R::RouteRefused | R::TooBig) if answered => {
            Verdict::Consumed
        }
        Some(
            R::FrameTruncated
            | R::NotForUs
            | R::UnknownEtherType
            | R::IpHeader
            | R::IpChecksum
            | R::IpOptions
            | R::ExtensionHeader
            | R::MartianSource
            | R::MartianDestination
            | R::Fragment
            | R::ReassemblyOverlap
            | R::ReassemblyDuplicate
            | R::ReassemblyFull
            | R::ReassemblyOversize,
        ) if path.is_empty() => Verdict::InvalidDrop,
        Some(_) => Verdict::Drop,
    }
}

fn path_step(policy: &Policy, step: &Step) -> PathStep {
    match step.family {
        Family::V4 => family_step(&policy.v4, step),
        Family::V6 => family_step(&policy.v6, step),
    }
}

fn family_step<A: Address>(policy: &FamilyPolicy<A>, step: &Step) -> PathStep {
    let chain = &policy.chains[step.chain.0 as usize];
    let target = match step.rule {
        Some(index) => target_name(policy, &chain.rules[index as usize].target),
        None => chain.policy.map(|(policy, _)| policy_name(policy).to_owned()),
    };
    PathStep {
        table: step.table.name(),
        chain: chain.name.to_string(),
        rule: step.rule.map(|index| index + 1),
        target,
        hook: step.hook.chain_name(),
    }
}

fn policy_name(policy: ChainPolicy) -> &'static str {
    match policy {
        ChainPolicy::Accept => "ACCEPT",
        ChainPolicy::Drop => "DROP",
    }
}

fn target_name<A: Address>(policy: &FamilyPolicy<A>, target: &Target) -> Option<String> {
    let name = match target {
        Target::Count => return None,
        Target::Accept => "ACCEPT",
        Target::Drop => "DROP",
        Target::Return => "RETURN",
        Target::Jump(chain) | Target::Goto(chain) => &policy.chains[chain.0 as usize].name,
        Target::Reject(_) => "REJECT",
        Target::Log(_) => "LOG",
        Target::Mark(_) => "MARK",
        Target::Connmark(
            ConnmarkTarget::Set { .. }
            | ConnmarkTarget::Save { .. }
            | ConnmarkTarget::Restore { .. },
        ) => "CONNMARK",
        Target::Header(header) => header.name(),
        Target::Ct(ct) => ct.name(),
        Target::Nat(nat) => nat.name(),
        Target::Synproxy(_) => "SYNPROXY",
        Target::Report(report) => report.name(),
        Target::Tee(_) => "TEE",
        Target::Meta(meta) => meta.name(),
        Target::Set(_) => "SET",
    };
    Some(name.to_owned())
}

impl TupleFields {
    fn new(tuple: &Tuple) -> Self {
        let address = |bits: u128| -> IpAddr {
            match tuple.family {
                Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
                Family::V6 => Ipv6Addr::from_bits(bits).into(),
            }
        };
        let icmp = matches!(tuple.proto, proto::ICMP | proto::ICMPV6);
        let [kind, code] = tuple.dport.to_be_bytes();
        Self {
            src: address(tuple.src),
            dst: address(tuple.dst),
            proto: tuple.proto,
            sport: (!icmp).then_some(tuple.sport),
            dport: (!icmp).then_some(tuple.dport),
            kind: icmp.then_some(kind),
            code: icmp.then_some(code),
            id: icmp.then_some(tuple.sport),
        }
    }
}
