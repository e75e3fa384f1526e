//! The same packet through the compiled walk and through `interpret`.

use classifier::Address;
use dataplane::clock::Nanos;
use dataplane::conntrack::{Conntrack, CtState, Direction, Template, Tracking, status};
use dataplane::effects::{Effects, LogRecord, Step};
use dataplane::fib::{Network, Realms};
use dataplane::frame::FrameBuf;
use dataplane::packet::{Family, Parsed, PortId};
use dataplane::policy::eval::PacketView;
use dataplane::policy::scene::{Dice, Scene, Sender};
use dataplane::policy::tee::Copies;
use dataplane::policy::walk::{ReturnStack, RuleRef, Verdict as WalkVerdict, Walker};
use dataplane::policy::{ChainId, FamilyPolicy, Hook, TableId, Target};
use dataplane::stats::RuleCounters;
use dataplane::verdict::DropReason;

use crate::interpret::{
    Connection, DropCause, Interpreter, Outcome, Packet, Subject, Tracked, Verdict, Visit,
};
use crate::replay::port_name;

/// MTU in bytes of every packet's way.
const WAY_MTU: u32 = 1400;

/// Bytes that a frame may grow.
const ROOM: usize = 64;

/// A packet at one hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe<'f> {
    pub(crate) frame: &'f [u8],
    pub(crate) parsed: &'f Parsed,
    pub(crate) input: Option<PortId>,
    pub(crate) output: Option<PortId>,
    pub(crate) mark: u32,
    pub(crate) tracking: Tracking,
    pub(crate) now: Nanos,
    pub(crate) utc_offset: Nanos,
}

/// What one walk did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walked<'n> {
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// Rules that matched and policies that applied: chain name and rule index.
    pub(crate) path: Vec<(&'n str, Option<u32>)>,
    /// The packet's mark afterwards.
    pub(crate) mark: u32,
    /// The connection's mark afterwards.
    pub(crate) connmark: Option<u32>,
    /// The connection's labels afterwards.
    pub(crate) labels: Option<u128>,
    /// `--ctstate` afterwards.
    pub(crate) state: CtState,
    /// What CT asked for.
    pub(crate) template: Template,
}

impl Tracked {
    /// What the data plane's tracking looks like to the interpreter.
    pub fn of(conntrack: &Conntrack, tracking: Tracking, now: Nanos) -> Self {
        let view = tracking.conn.and_then(|conn| conntrack.view(conn));
        Self {
            state: tracking.state,
            original: tracking.direction == Direction::Original,
            connection: view.map(|view| Connection {
                original: view.original,
                reply: view.reply,
                status: view.status,
                expires_s: view.expires_in(now).as_secs().min(u64::from(u32::MAX)) as u32,
                mark: view.mark,
                source_translated: view.status & status::SRC_NAT != 0,
                destination_translated: view.status & status::DST_NAT != 0,
                counted: conntrack
                    .accounting(view.id)
                    .map(|both| both.map(|way| (way.packets, way.bytes))),
                labels: conntrack.labels(view.id),
                master_helper: conntrack.master_helper(view.id),
                master_source: conntrack
                    .master(view.id)
                    .and_then(|master| conntrack.view(master))
                    .map(|master| master.original.src),
            }),
        }
    }
}

/// Steps of the compiled walk.
#[derive(Debug, Default)]
struct Recorder(Vec<(ChainId, Option<u32>)>);

impl Effects for Recorder {
    const TRACE: bool = true;
    fn emit(&mut self, _: PortId, _: &[u8]) -> bool {
        true
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Ok(())
    }
    fn deliver(&mut self, _: Option<PortId>, _: &[u8]) {}
    fn log(&mut self, _: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
    fn step(&mut self, step: Step) {
        self.0.push((step.chain, step.rule));
    }
}

/// Walks the compiled policy; owns the scratch space that this takes.
#[derive(Debug)]
pub(crate) struct CompiledSide {
    stack: ReturnStack,
    counters: RuleCounters,
    network: Network,
    /// The frame that is walked, which rules may change.
    frame: Vec<u8>,
}

impl CompiledSide {
    /// `counters` as in the policy.
    pub(crate) fn new(counters: u32) -> Self {
        Self {
            stack: ReturnStack::default(),
            counters: RuleCounters::new(counters as usize),
            network: Network::default(),
            frame: Vec::new(),
        }
    }

    /// Walks `table` at `hook`; `None` when there is no such chain.
    pub(crate) fn walk<'p, A: Address>(
        &mut self,
        policy: &'p FamilyPolicy<A>,
        (table, hook): (TableId, Hook),
        probe: &Probe<'_>,
        conntrack: &Conntrack,
    ) -> Option<Walked<'p>> {
        let entry = policy.hooks[hook as usize][table as usize]?;
        let mut recorder = Recorder::default();
        self.stack.fit(policy.max_depth);
        let (mut parsed, length) = (*probe.parsed, probe.frame.len());
        self.frame.clear();
        self.frame.extend_from_slice(probe.frame);
        self.frame.resize(length + ROOM, 0);
        let (dice, mut copies) = (Dice::default(), Copies::default());
        let mut packet = PacketView {
            parsed: &mut parsed,
            frame: FrameBuf::new(&mut self.frame, length),
            has_link_header: true,
            input: probe.input,
            output: probe.output,
            mark: probe.mark,
            tracking: probe.tracking,
            template: Template::default(),
            conntrack,
            network: &self.network,
            way_mtu: WAY_MTU,
            realms: Realms::default(),
            now: probe.now,
            hook,
            scene: Scene { utc_offset: probe.utc_offset, minutes_west: 0, cpu: 0, dice: &dice },
            owner: None,
            sender: Sender::Nobody,
            priority: 0,
            traced: false,
        };
        let mut key = packet.key();
        let mut walker = Walker {
            policy,
            counters: &self.counters,
            stack: &mut self.stack,
            copies: &mut copies,
            effects: &mut recorder,
        };
        let verdict = match walker.walk(table, hook, entry, &mut packet, &mut key) {
            WalkVerdict::Accept => Verdict::Accept,
            WalkVerdict::Reject(with) => Verdict::Reject(with),
            WalkVerdict::Drop(DropReason::ChainPolicy) => Verdict::Drop(DropCause::Policy),
            WalkVerdict::Drop(DropReason::Hotdrop) | WalkVerdict::Refuse(_) => {
                Verdict::Drop(DropCause::Hotdrop)
            }
            WalkVerdict::Drop(_) => Verdict::Drop(DropCause::Rule),
            WalkVerdict::Translate(at) | WalkVerdict::Synproxy(at) => chosen(policy, at),
        };
        let named = |(chain, rule): (ChainId, _)| (&*policy.chains[chain.0 as usize].name, rule);
        Some(Walked {
            verdict,
            path: recorder.0.into_iter().map(named).collect(),
            mark: packet.mark,
            connmark: probe.tracking.conn.map(|conn| conntrack.mark(conn)),
            labels: probe.tracking.conn.and_then(|conn| conntrack.labels(conn)),
            state: packet.tracking.state,
            template: packet.template,
        })
    }
}

/// What the rule that ended the walk asks the engine to do.
fn chosen<A>(policy: &FamilyPolicy<A>, at: RuleRef) -> Verdict {
    match &policy.chains[at.chain.0 as usize].rules[at.rule as usize].target {
        Target::Nat(nat) => Verdict::Translate(*nat),
        Target::Synproxy(proxy) => Verdict::Synproxy(*proxy),
        // No other target ends a walk so: the interpreter will not agree.
        _ => Verdict::Accept,
    }
}

/// Walks the model; returns also how many rules were looked at.
pub(crate) fn interpreted<'m>(
    interpreter: &mut Interpreter<'m>,
    (table, hook): (TableId, Hook),
    probe: &Probe<'_>,
    ports: &[String],
    (tracked, conntrack): (Tracked, &Conntrack),
) -> Option<(Walked<'m>, usize)> {
    let name = |port: Option<PortId>| port.map_or("", |port| port_name(ports, port));
    let mut packet = Packet::read(probe.frame)?;
    packet.pkt_type = probe.parsed.pkt_type;
    let mut subject = Subject {
        packet,
        input: name(probe.input),
        output: name(probe.output),
        has_link_header: true,
        path_mtu: WAY_MTU,
        realms: Realms::default(),
        mark: probe.mark,
        tracked,
        template: None,
        now: probe.now,
        utc_offset: probe.utc_offset,
        minutes_west: 0,
        dice: Dice::default(),
        hook,
        cpu: 0,
        owner: None,
        priority: 0,
        network: None,
        conntrack: Some(conntrack),
    };
    let (mut path, mut visits) = (Vec::new(), 0);
    let mut visit = |visit: Visit<'m>| {
        visits += 1;
        if visit.outcome == Outcome::Matched {
            path.push((visit.chain.name.as_str(), visit.rule.map(|rule| rule as u32)));
        }
    };
    let verdict = interpreter.table(table, hook, &mut subject, &mut visit);
    let walked = Walked {
        verdict,
        path,
        mark: subject.mark,
        connmark: subject.tracked.connection.as_ref().map(|conn| conn.mark),
        labels: subject.tracked.connection.and_then(|conn| conn.labels),
        state: subject.tracked.state,
        template: subject.template.map_or_else(Template::default, |ct| Template::of(&ct, None)),
    };
    Some((walked, visits))
}
