//! The interpreter's way through all hooks, in step with what the engine did.

use std::borrow::Cow;

use dataplane::conntrack::{Conntrack, CtState, Face, Template};
use dataplane::fib::{InputRoute, LOOPBACK_MTU, Mode, Query, Realms, RouteKind};
use dataplane::packet::{Parsed, PortId};
use dataplane::policy::{ChainPolicy, Hook, TableId};
use dataplane::verdict::DropReason;
use dataplane::wire::{self, Frame};

use super::{Description, ExplainError, NOW, Stage, Step, reasons};
use crate::interpret::{
    DropCause, Interpreter, Outcome, Packet, Subject, Tracked, Verdict, Visit, tables_at,
};
use crate::iptables::{Names, print};
use crate::model::{Ruleset, TargetSpec};
use crate::replay::event::Verdict as Ended;
use crate::replay::{Event, Replay, Source, port_name};

/// One rule or policy on the path: table, chain, number.
type Place = (&'static str, String, Option<u32>);

pub(super) struct Walk<'a> {
    replay: &'a Replay,
    pub(super) event: &'a Event,
    names: &'a dyn Names,
    rules: &'a Ruleset,
    interpreter: Interpreter<'a>,
    pub(super) subject: Subject<'a>,
    /// The packet, translated as it is by now.
    pub(super) frame: Cow<'a, [u8]>,
    pub(super) parsed: Parsed,
    source: Source,
    /// Whether it opens a connection.
    pub(super) opens: bool,
    /// The connection as the engine left it.
    pub(super) face: Option<Face>,
    pub(super) stages: Vec<Stage>,
    pub(super) path: Vec<Place>,
}

/// How a stage ended the packet.
pub(super) struct End(pub(super) Verdict);

/// What the engine did with the packet.
pub(super) struct Decided<'a> {
    pub(super) event: &'a Event,
    /// Its connection, as the packet left it.
    pub(super) face: Option<Face>,
}

impl<'a> Walk<'a> {
    /// `None` when the packet met no rule: it was dropped before any.
    pub(super) fn new(
        replay: &'a Replay,
        description: &'a Description,
        source: Source,
        decided: &Decided<'a>,
        names: &'a dyn Names,
    ) -> Option<Self> {
        let Decided { event, face } = *decided;
        if event.verdict == Ended::InvalidDrop {
            return None;
        }
        let input = match source {
            Source::Port(port) => replay.ports()[port.index()].as_str(),
            Source::Host => "",
        };
        let mac = match source {
            Source::Port(port) => replay.network().port(port).mac,
            Source::Host => dataplane::packet::Mac::default(),
        };
        let Ok(Frame::Ip(parsed)) = wire::parse(&description.frame, mac) else { return None };
        let mut packet = Packet::read(&description.frame)?;
        packet.pkt_type = parsed.pkt_type;
        let rules = replay.rules(parsed.family);
        Some(Self {
            replay,
            event,
            names,
            rules,
            interpreter: Interpreter::new(rules).with_sets(replay.sets(), NOW),
            subject: Subject {
                packet,
                input,
                output: "",
                has_link_header: source != Source::Host,
                path_mtu: u32::MAX,
                realms: Realms::default(),
                mark: 0,
                tracked: Tracked::NONE,
                template: None,
                now: NOW,
                utc_offset: dataplane::clock::Nanos(0),
                minutes_west: 0,
                dice: Default::default(),
                hook: Hook::Forward,
                cpu: 0,
                owner: None,
                priority: 0,
                network: Some(replay.network()),
                conntrack: Some(replay.conntrack()),
            },
            frame: Cow::Borrowed(&description.frame),
            parsed,
            source,
            opens: false,
            face,
            stages: Vec::new(),
            path: Vec::new(),
        })
    }

    /// Walks, and compares with the engine.
    pub(super) fn run(mut self) -> Result<Vec<Stage>, ExplainError> {
        // A fragment by itself: rules wait for its datagram.
        let proxied = self.event.reason == Some(DropReason::Synproxy.name());
        let alone = (self.event.verdict == Ended::Stolen && !proxied)
            || self.event.reason == Some(DropReason::Fragment.name());
        if alone {
            return Ok(self.stages);
        }
        let ended = match self.source {
            Source::Host => self.sent(),
            Source::Port(port) => self.received(port),
        };
        let interpreted = match ended {
            Ok(()) => None,
            Err(End(Verdict::Drop(DropCause::Rule))) => Some("rule"),
            Err(End(Verdict::Drop(DropCause::Policy))) => Some("chain_policy"),
            Err(End(Verdict::Drop(DropCause::Hotdrop))) => Some("hotdrop"),
            Err(End(Verdict::Reject(_))) => Some("reject"),
            Err(End(Verdict::Accept | Verdict::Translate(_) | Verdict::Synproxy(_))) => None,
        };
        let by_policy = ["rule", "chain_policy", "hotdrop", "reject"];
        let decided = self.event.reason.filter(|reason| by_policy.contains(reason));
        let steps = &self.event.path;
        let engine: Vec<Place> =
            steps.iter().map(|step| (step.table, step.chain.clone(), step.rule)).collect();
        if engine == self.path && decided == interpreted {
            return Ok(self.stages);
        }
        Err(ExplainError::Disagree {
            engine: format!("{engine:?} {decided:?}"),
            interpreter: format!("{:?} {interpreted:?}", self.path),
        })
    }

    fn received(&mut self, input: PortId) -> Result<(), End> {
        self.table(TableId::Raw, Hook::Prerouting)?;
        self.track();
        self.tables(Hook::Prerouting)?;
        let Some(output) = self.route_input(input) else { return Ok(()) };
        match output {
            None => self.tables(Hook::Input),
            Some(output) => self.forward(output),
        }
    }

    fn forward(&mut self, output: PortId) -> Result<(), End> {
        let before_rules = [DropReason::TtlExpired, DropReason::TooBig].map(DropReason::name);
        let refused = self.event.reason.is_some_and(|reason| before_rules.contains(&reason));
        if refused && self.event.path.iter().all(|step| step.hook != "FORWARD") {
            return Ok(());
        }
        let bridged = matches!(self.replay.network().mode(), Mode::Bridge(_));
        if !bridged {
            self.subject.packet.ttl = self.subject.packet.ttl.saturating_sub(1);
        }
        self.set_output(output);
        self.tables(Hook::Forward)?;
        if bridged {
            self.subject.input = "";
        }
        self.tables(Hook::Postrouting)
    }

    fn sent(&mut self) -> Result<(), End> {
        let Some(mut output) = self.route_output() else { return Ok(()) };
        self.set_output(output.unwrap_or(PortId::LOOPBACK));
        self.table(TableId::Raw, Hook::Output)?;
        self.track();
        let mark = self.subject.mark;
        self.table(TableId::Mangle, Hook::Output)?;
        // A changed TOS asks for the route again as well, and gets the same.
        if self.subject.mark != mark {
            match self.route_output() {
                Some(changed) => output = changed,
                None => return Ok(()),
            }
        }
        if self.nat(Hook::Output)? {
            match self.route_output() {
                Some(changed) => output = changed,
                None => return Ok(()),
            }
        }
        for table in [TableId::Filter, TableId::Security] {
            self.table(table, Hook::Output)?;
        }
        self.set_output(output.unwrap_or(PortId::LOOPBACK));
        self.tables(Hook::Postrouting)?;
        match output {
            Some(_) => Ok(()),
            None => self.loop_back(),
        }
    }

    /// Back in through the loopback interface.
    fn loop_back(&mut self) -> Result<(), End> {
        (self.subject.input, self.subject.output) = ("lo", "");
        self.opens = false;
        self.table(TableId::Raw, Hook::Prerouting)?;
        self.tables(Hook::Prerouting)?;
        self.tables(Hook::Input)
    }

    fn set_output(&mut self, port: PortId) {
        self.subject.output = port_name(self.replay.ports(), port);
        self.subject.path_mtu = self.mtu_to(self.parsed.dst).min(self.mtu_to(self.parsed.src));
    }

    /// MTU of the way to an address; the largest number where there is none.
    fn mtu_to(&self, dst: u128) -> u32 {
        let network = self.replay.network();
        let route = network.route(&Query { dst, src: 0, ..self.query() });
        match route.map(|route| (route.kind, route)) {
            Some((RouteKind::Unicast(port), route)) => network.mtu(&route, port),
            Some((RouteKind::Local, _)) => LOOPBACK_MTU,
            _ => u32::MAX,
        }
    }

    fn track(&mut self) {
        let needed = match self.parsed.family {
            dataplane::packet::Family::V4 => self.replay.policy().v4.needs_conntrack,
            dataplane::packet::Family::V6 => self.replay.policy().v6.needs_conntrack,
        };
        if !needed {
            return;
        }
        if self.subject.tracked.state != CtState::Untracked {
            let template = self.subject.template.as_ref().map(|ct| {
                let timeouts = ct.timeout.as_ref();
                let named = |name: &str| self.replay.conntrack().timeouts_named(name);
                Template::of(ct, timeouts.and_then(|name| named(name)))
            });
            self.find_connection(&template.unwrap_or_default());
        }
        self.stages.push(Stage::Tracking {
            state: self.subject.tracked.state.name(),
            direction: if self.subject.tracked.original { "original" } else { "reply" },
        });
    }

    fn find_connection(&mut self, template: &Template) {
        let conntrack: &Conntrack = self.replay.conntrack();
        let own = self.source == Source::Host;
        let terms = template.terms(self.subject.mark, self.replay.policy().extensions());
        let subject = conntrack.subject(&self.parsed, &self.frame, terms.zones.original);
        let tracked =
            conntrack.track_subject(&subject, &self.parsed, &self.frame, own, &terms, NOW);
        let Ok(tracking) = tracked else { return };
        self.opens = tracking.unconfirmed;
        self.subject.tracked = Tracked::of(conntrack, tracking, NOW);
    }

    fn query(&self) -> Query {
        Query {
            family: self.parsed.family,
            src: self.parsed.src,
            dst: self.parsed.dst,
            iif: None,
            mark: self.subject.mark,
        }
    }

    /// `None`: it ends here; `Some(None)`: to this machine.
    fn route_input(&mut self, input: PortId) -> Option<Option<PortId>> {
        let network = self.replay.network();
        let (to, port) = if let Mode::Bridge(pairs) = network.mode() {
            let other = pairs.iter().find_map(|&(a, b)| match input {
                _ if input == a => Some(b),
                _ if input == b => Some(a),
                _ => None,
            });
            let to = other.map_or("no other side".to_owned(), |port| self.name(port));
            (to, other.map(Some))
        } else {
            let Parsed { pkt_type, proto, .. } = self.parsed;
            let way = network.input(input, &self.query(), pkt_type, proto);
            self.subject.realms = network.realms_arrived(&self.query(), &way);
            match way {
                InputRoute::Deliver => ("host".to_owned(), Some(None)),
                InputRoute::Forward { .. } if *network.mode() == Mode::Host => {
                    (DropReason::NotForwarded.name().to_owned(), None)
                }
                InputRoute::Forward { port, .. } => (self.name(port), Some(Some(port))),
                InputRoute::Drop { reason, .. } => (reason.name().to_owned(), None),
            }
        };
        self.stages.push(Stage::Routing { to });
        port
    }

    fn route_output(&mut self) -> Option<Option<PortId>> {
        let route = self.replay.network().route(&self.query());
        self.subject.realms = route.map_or(Realms::default(), |route| match route.kind {
            RouteKind::Unicast(_) => route.realms(),
            _ => Realms::default(),
        });
        let (to, port) = match route.map(|route| route.kind) {
            Some(RouteKind::Unicast(port)) => (self.name(port), Some(Some(port))),
            Some(RouteKind::Local) => ("host".to_owned(), Some(None)),
            Some(_) => (DropReason::RouteRefused.name().to_owned(), None),
            None => (DropReason::NoRoute.name().to_owned(), None),
        };
        self.stages.push(Stage::Routing { to });
        port
    }

    fn name(&self, port: PortId) -> String {
        self.replay.ports()[port.index()].clone()
    }

    /// Every table at the hook but raw.
    fn tables(&mut self, hook: Hook) -> Result<(), End> {
        for &table in tables_at(hook) {
            match table {
                TableId::Raw => {}
                TableId::Nat => {
                    self.nat(hook)?;
                }
                _ => self.table(table, hook)?,
            }
        }
        Ok(())
    }

    pub(super) fn table(&mut self, table: TableId, hook: Hook) -> Result<(), End> {
        let known = self.rules.tables.iter().find(|candidate| candidate.id == table);
        let present = known.is_some_and(|known| known.chain(hook.chain_name()).is_some());
        if !present || (table == TableId::Nat && !self.opens) {
            return Ok(());
        }
        let mut visits: Vec<Visit<'_>> = Vec::new();
        let before = self.subject.clone();
        let mut visit = |visit| visits.push(visit);
        let verdict = self.interpreter.table(table, hook, &mut self.subject, &mut visit);
        let steps = self.steps(&visits, &before);
        let matched = visits.iter().filter(|visit| visit.outcome == Outcome::Matched);
        self.path.extend(matched.map(|visit| {
            let number = visit.rule.map(|index| index as u32 + 1);
            (table.name(), visit.chain.name.clone(), number)
        }));
        self.stages.push(Stage::Table {
            table: table.name(),
            hook: hook.chain_name(),
            input: self.subject.input.to_owned(),
            output: self.subject.output.to_owned(),
            steps,
        });
        match verdict {
            Verdict::Accept | Verdict::Translate(_) => Ok(()),
            end => Err(End(end)),
        }
    }

    fn steps(&self, visits: &[Visit<'_>], subject: &Subject<'_>) -> Vec<Step> {
        let mut depths: Vec<&str> = Vec::new();
        visits
            .iter()
            .map(|visit| {
                let name = visit.chain.name.as_str();
                match depths.iter().position(|known| *known == name) {
                    Some(at) => depths.truncate(at + 1),
                    None => depths.push(name),
                }
                if let Some(index) = visit.rule
                    && visit.outcome == Outcome::Matched
                    && matches!(visit.chain.rules[index].target, TargetSpec::Goto(_))
                {
                    depths.pop();
                }
                self.step(visit, subject, depths.len().saturating_sub(1))
            })
            .collect()
    }

    fn step(&self, visit: &Visit<'_>, subject: &Subject<'_>, depth: usize) -> Step {
        let rule = visit.rule.map(|index| &visit.chain.rules[index]);
        let text = match rule {
            Some(rule) => print::rule_text(rule, self.rules.family, self.names),
            None => match visit.chain.policy {
                Some((ChainPolicy::Drop, _)) => "policy DROP".to_owned(),
                _ => "policy ACCEPT".to_owned(),
            },
        };
        let why = match (visit.outcome, rule) {
            (Outcome::Failed(mismatch), Some(rule)) => {
                let spent =
                    if reasons::spent(&mismatch, rule) { "; its limit was spent" } else { "" };
                Some(reasons::why(&mismatch, rule, subject) + spent)
            }
            _ => None,
        };
        Step {
            chain: visit.chain.name.clone(),
            rule: visit.rule.map(|index| index as u32 + 1),
            line: rule.map(|rule| rule.span.line).filter(|&line| line > 0),
            text: text.trim_start().to_owned(),
            matched: visit.outcome == Outcome::Matched,
            why,
            depth,
        }
    }
}
