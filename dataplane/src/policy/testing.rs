//! Builds small policies for tests: rules as plain parts, compiled either as
//! wide as can be (everything residual) or indexed as far as is exact.

use std::sync::LazyLock;

use classifier::{Address, ClassSet, Masked, PortRange, Rule};

use super::matches::{Match, Neg, Range, TcpMatch, UdpMatch};
use super::{
    BaseMatch, Chain, ChainId, ChainPolicy, CompiledRule, CounterId, FamilyPolicy, Hook, Policy,
    TABLES, TableId, Target, Written,
};
use crate::effects::{Effects, LogRecord, Outcome, Step};
use crate::fib::Network;
use crate::packet::{Family, L4Class, PortId};
use crate::verdict::DropReason;

/// A network without ports and routes.
pub(crate) fn nowhere() -> &'static Network {
    static NOWHERE: LazyLock<Network> = LazyLock::new(Network::default);
    &NOWHERE
}

/// A rule before compilation.
#[derive(Clone, Debug)]
pub(crate) struct Spec<A> {
    pub(crate) base: BaseMatch<A>,
    pub(crate) matches: Vec<Match>,
    pub(crate) target: Target,
    pub(crate) bare: bool,
}

impl<A: Address> Spec<A> {
    /// A rule that matches everything.
    pub(crate) fn any(target: Target) -> Self {
        let any = (Masked::new(A::default(), A::default()), false);
        let base = BaseMatch {
            src: any,
            dst: any,
            iif: ClassSet::ANY,
            oif: ClassSet::ANY,
            proto: None,
            fragment: None,
        };
        Self { base, matches: Vec::new(), target, bare: false }
    }
    pub(crate) fn src(mut self, address: A, mask: A, negated: bool) -> Self {
        self.base.src = (Masked::new(address, mask), negated);
        self
    }
    pub(crate) fn proto(mut self, proto: u8) -> Self {
        self.base.proto = Some((proto, false));
        self
    }
    pub(crate) fn input(mut self, bits: u64) -> Self {
        self.base.iif = ClassSet(bits);
        self
    }
    pub(crate) fn output(mut self, bits: u64) -> Self {
        self.base.oif = ClassSet(bits);
        self
    }
    pub(crate) fn with(mut self, one: Match) -> Self {
        self.matches.push(one);
        self
    }
    /// `-p tcp --dport LOW:HIGH`.
    pub(crate) fn tcp_dport(self, low: u16, high: u16) -> Self {
        let dport = Some(Neg::plain(Range { low, high }));
        self.proto(6).with(Match::Tcp(TcpMatch { dport, ..TcpMatch::default() }))
    }
    /// `-p udp --dport LOW:HIGH`.
    pub(crate) fn udp_dport(self, low: u16, high: u16) -> Self {
        let dport = Some(Neg::plain(Range { low, high }));
        self.proto(17).with(Match::Udp(UdpMatch { dport, ..UdpMatch::default() }))
    }
}

/// How much of a rule the classifier is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indexing {
    /// Nothing: every rule is a candidate, everything is residual.
    Wide,
    /// Base selectors and ports.
    Exact,
}

/// A family's policy under construction.
pub(crate) struct Builder<A> {
    chains: Vec<Chain<A>>,
    hooks: [[Option<ChainId>; TABLES]; 5],
    counters: u32,
    indexing: Indexing,
    pub(crate) needs_conntrack: bool,
}

impl<A: Address> Builder<A> {
    pub(crate) fn new(indexing: Indexing, first_counter: u32) -> Self {
        Self {
            chains: Vec::new(),
            hooks: [[None; TABLES]; 5],
            counters: first_counter,
            indexing,
            needs_conntrack: false,
        }
    }
    fn counter(&mut self) -> CounterId {
        self.counters += 1;
        CounterId(self.counters - 1)
    }
    /// A user chain. Chains that it jumps to must have been added before, or be added in order.
    pub(crate) fn user(&mut self, table: TableId, rules: Vec<Spec<A>>) -> ChainId {
        self.add(table, None, rules)
    }
    /// A built-in chain.
    pub(crate) fn builtin(
        &mut self,
        table: TableId,
        hook: Hook,
        policy: ChainPolicy,
        rules: Vec<Spec<A>>,
    ) -> ChainId {
        let chain = self.add(table, Some(policy), rules);
        self.hooks[hook as usize][table as usize] = Some(chain);
        chain
    }
    fn add(&mut self, table: TableId, policy: Option<ChainPolicy>, rules: Vec<Spec<A>>) -> ChainId {
        let policy = policy.map(|policy| (policy, self.counter()));
        let rules: Box<[_]> = rules.into_iter().map(|spec| self.compile(spec)).collect();
        let name = format!("chain{}", self.chains.len()).into();
        self.chains.push(Chain::new(table, name, policy, rules));
        ChainId(self.chains.len() as u32 - 1)
    }
    fn compile(&mut self, spec: Spec<A>) -> CompiledRule<A> {
        let counter = self.counter();
        let Spec { base, matches, target, bare } = spec;
        let written = Written { bare, ..Written::default() };
        let (indexed, check_base, residual) = match self.indexing {
            Indexing::Wide => (Rule::default(), true, matches.clone()),
            Indexing::Exact => index(&base, &matches),
        };
        let (residual, matches) = (residual.into(), matches.into());
        CompiledRule { indexed, check_base, residual, base, matches, target, written, counter }
    }
    pub(crate) fn family(self) -> (FamilyPolicy<A>, u32) {
        let max_depth = self.chains.len() as u32;
        let policy = FamilyPolicy {
            chains: self.chains.into(),
            hooks: self.hooks,
            nat: self.hooks.iter().any(|tables| tables[TableId::Nat as usize].is_some()),
            needs_conntrack: self.needs_conntrack,
            max_depth,
        };
        (policy, self.counters)
    }
}

/// The two builders joined into a policy.
pub(crate) fn join(v4: Builder<u32>, v6: Builder<u128>) -> Policy {
    let ((v4, a), (v6, b)) = (v4.family(), v6.family());
    Policy { v4, v6, counters: a.max(b) }
}

/// Base selectors, and the ports of a first match that is static.
fn index<A: Address>(base: &BaseMatch<A>, matches: &[Match]) -> (Rule<A>, bool, Vec<Match>) {
    let mut rule = Rule { iif: base.iif, oif: base.oif, ..Rule::default() };
    let mut wider = base.fragment.is_some();
    for (field, (masked, negated)) in [(&mut rule.src, base.src), (&mut rule.dst, base.dst)] {
        if negated {
            wider = true;
        } else {
            *field = masked;
        }
    }
    match base.proto {
        Some((proto, false)) => rule.proto = Masked::new(proto, 0xff),
        Some(_) => wider = true,
        None => {}
    }
    let mut residual = matches.to_vec();
    if let Some(flags) = matches.first().and_then(indexed_flags) {
        rule.flags = Masked::new(flags.1, flags.0);
        rule.l4 = ClassSet(L4Class::Whole.bit());
        residual.remove(0);
    } else if let Some(range) = matches.first().and_then(indexed_dport) {
        rule.dport = PortRange { low: range.low, high: range.high };
        rule.l4 = ClassSet(L4Class::Whole.bit());
        residual.remove(0);
    }
    (rule, wider, residual)
}

fn indexed_flags(one: &Match) -> Option<(u8, u8)> {
    match one {
        Match::Tcp(TcpMatch { sport: None, dport: None, flags: Some(flags), option: None }) => {
            (!flags.negated && flags.value.1 & !flags.value.0 == 0).then_some(flags.value)
        }
        _ => None,
    }
}

fn indexed_dport(one: &Match) -> Option<Range<u16>> {
    let dport = match one {
        Match::Tcp(TcpMatch { sport: None, dport, flags: None, option: None }) => dport,
        Match::Udp(UdpMatch { sport: None, dport }) => dport,
        _ => return None,
    };
    dport.as_ref().filter(|dport| !dport.negated).map(|dport| dport.value)
}

/// Keeps everything that the engine asks for.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) emitted: Vec<(PortId, Vec<u8>)>,
    /// Port, next hop and frame of what waits.
    pub(crate) held: Vec<(PortId, u128, Vec<u8>)>,
    pub(crate) delivered: Vec<Vec<u8>>,
    /// Prefix, mark, TTL and frame of each LOG hit.
    pub(crate) logged: Vec<(String, u32, u8, Vec<u8>)>,
    pub(crate) wanted: Vec<(PortId, u128)>,
    pub(crate) steps: Vec<Step>,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Effects for Recorder {
    const TRACE: bool = true;

    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.emitted.push((port, frame.to_vec()));
        true
    }
    fn hold(
        &mut self,
        port: PortId,
        next_hop: (Family, u128),
        frame: &[u8],
    ) -> Result<(), DropReason> {
        self.held.push((port, next_hop.1, frame.to_vec()));
        Ok(())
    }
    fn deliver(&mut self, _port: Option<PortId>, frame: &[u8]) {
        self.delivered.push(frame.to_vec());
    }
    fn log(&mut self, record: &LogRecord<'_>) {
        let prefix = record.prefix().to_string();
        self.logged.push((prefix, record.mark, record.parsed.ttl, record.frame.to_vec()));
    }
    fn want_neighbour(&mut self, port: PortId, _family: Family, next_hop: u128) {
        self.wanted.push((port, next_hop));
    }
    fn step(&mut self, step: Step) {
        self.steps.push(step);
    }
    fn outcome(&mut self, outcome: &Outcome) {
        self.outcomes.push(*outcome);
    }
}
