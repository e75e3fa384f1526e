//! Live flows against a policy: which of them would it not admit, if they began now?
//!
//! Each flow's original direction goes through the policy as a first packet, on the engine of
//! the data path, over the real network and a table of its own. Limits are fresh: a flow that is
//! refused is tried again on a policy that nothing has used yet. What cannot be tried is left alone.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::status::EXPECTED;
use dataplane::conntrack::{Config, ConnId, ConnView, Conntrack, Tuple};
use dataplane::fib::{Network, Query, RouteKind};
use dataplane::packet::Family;
use dataplane::policy::target::{NatRange, NatTarget};
use dataplane::sets::Registry;
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::proto;

use super::judge::{address, ended, place};
use crate::model::{Ruleset, TargetSpec};
use crate::replay::event::PathStep;
use crate::replay::{Fed, Replay, Source};

/// Flows that are tried on a policy of their own at most.
const FRESH_MAX: u32 = 256;
/// Connections that trying needs at most.
const CONNECTIONS: u64 = 64;
const SYN: u8 = 0x02;
/// An SCTP chunk INIT: tag, window, streams both ways, first number.
const INIT: [u8; 20] = [1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];

/// A flow that the policy would not admit.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The connection.
    pub id: ConnId,
    /// Its original direction.
    pub original: Tuple,
    /// What ends it, or what would be another.
    pub by: String,
    /// Line of the rule in its file; 0 when it is no rule's doing.
    pub line: u32,
}

/// What a policy means for the flows that are alive.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Flows that were tried.
    pub judged: u64,
    /// Flows that could not be.
    pub unjudged: u64,
    /// Those that it would not admit, in no order.
    pub refused: Vec<Refused>,
}

/// What the flows meet.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The network in force.
    pub network: &'a Arc<Network>,
    /// The connections, and the settings that they are tracked under.
    pub conntrack: &'a Conntrack,
    /// A copy of the sets as they will be: trying may change it.
    pub sets: Arc<Registry>,
    /// The time since 1970, for rules that ask for it.
    pub wall: Nanos,
    /// How late it is in the table.
    pub now: Nanos,
}

/// Tries the flows of `families` against the policies; `None` when these do not compile.
pub fn judge_flows(
    v4: &Ruleset,
    v6: &Ruleset,
    families: &[Family],
    scene: &Scene<'_>,
) -> Option<Judged> {
    let mut trial = Trial::new(v4, v6, scene)?;
    let mut judged = Judged::default();
    let mut children = Vec::new();
    let mut cut = HashSet::new();
    for (at, row) in scene.conntrack.rows_from(0, scene.now) {
        let view = row.view;
        if !families.contains(&view.original.family) {
            continue;
        }
        if view.status & EXPECTED != 0 {
            let saved = scene.conntrack.export(at, scene.now);
            children.push((view, saved.and_then(|saved| saved.master)));
            continue;
        }
        match trial.judge(&view) {
            Outcome::Admitted => judged.judged += 1,
            Outcome::Untried => judged.unjudged += 1,
            Outcome::Refused { by, line } => {
                judged.judged += 1;
                cut.insert(view.id.number());
                judged.refused.push(Refused { id: view.id, original: view.original, by, line });
            }
        }
    }
    // What a helper expected goes with the connection that it belongs to.
    for (view, master) in children {
        judged.judged += 1;
        if master.is_some_and(|master| cut.contains(&master)) {
            let by = "the end of the connection that it belongs to".to_owned();
            judged.refused.push(Refused { id: view.id, original: view.original, by, line: 0 });
        }
    }
    Some(judged)
}

enum Outcome {
    Admitted,
    Untried,
    Refused { by: String, line: u32 },
}

struct Trial<'a> {
    scene: &'a Scene<'a>,
    replay: Replay,
    /// Whether rules have state that trying uses up.
    stateful: bool,
    fresh: u32,
}

impl<'a> Trial<'a> {
    fn new(v4: &Ruleset, v6: &Ruleset, scene: &'a Scene<'a>) -> Option<Self> {
        let mut settings = Config::new([0; 16]);
        for (name, value) in scene.conntrack.entries() {
            let value = if name == "max" { CONNECTIONS } else { value };
            let set = settings.set(name, value);
            debug_assert!(set.is_ok(), "a value that is in force is possible: {name}");
        }
        let rules = [v4, v6].into_iter().flat_map(|rules| &rules.tables);
        let mut rules = rules.flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
        let stateful = rules.any(|rule| rule.matches.iter().any(|it| it.body.owns_state()));
        let (network, sets) = (Arc::clone(scene.network), Arc::clone(&scene.sets));
        let replay = Replay::with_sets(network, v4.clone(), v6.clone(), settings, sets).ok()?;
        Some(Self { scene, replay, stateful, fresh: 0 })
    }

    fn judge(&mut self, live: &ConnView) -> Outcome {
        let Some((source, frame)) = self.first_packet(&live.original) else {
            return Outcome::Untried;
        };
        let outcome = self.feed(live, source, &frame);
        if !self.stateful || !matches!(outcome, Outcome::Refused { .. }) {
            return outcome;
        }
        self.fresh += 1;
        let rules = self.replay.rules(live.original.family).clone();
        if self.fresh > FRESH_MAX || self.replay.install(rules).is_err() {
            return Outcome::Untried;
        }
        self.feed(live, source, &frame)
    }

    fn feed(&mut self, live: &ConnView, source: Source, frame: &[u8]) -> Outcome {
        let fed = self.replay.feed(source, self.scene.wall, frame);
        let rules = self.replay.rules(live.original.family);
        let outcome = match ended(&fed, rules) {
            Some((by, line)) => Outcome::Refused { by, line },
            None => match self.otherwise(live, &fed) {
                Some((by, line)) => Outcome::Refused { by, line },
                None => Outcome::Admitted,
            },
        };
        let conntrack = self.replay.conntrack();
        let now = self.replay.now();
        for row in conntrack.rows(now) {
            conntrack.remove(row.view.id);
        }
        outcome
    }

    /// A first packet of the flow, and where it comes from.
    fn first_packet(&self, tuple: &Tuple) -> Option<(Source, Vec<u8>)> {
        let (src, dst) = (address(tuple.family, tuple.src), address(tuple.family, tuple.dst));
        let (sport, dport) = (tuple.sport, tuple.dport);
        let udp = |lite| L4::Udp { sport, dport, length: None, lite };
        let l4 = match tuple.proto {
            proto::TCP => L4::Tcp(Tcp { seq: 1, ..Tcp::new(sport, dport, SYN) }),
            proto::UDP => udp(false),
            proto::UDPLITE => udp(true),
            proto::ICMP | proto::ICMPV6 => {
                let [kind, code] = dport.to_be_bytes();
                L4::Icmp { kind, code, word: u32::from(sport) << 16 }
            }
            proto::SCTP => L4::Sctp { sport, dport, tag: 0 },
            // Its first packet carries a key that the table keeps in another form.
            proto::GRE => return None,
            other => L4::Raw(other),
        };
        let payload: &[u8] = if tuple.proto == proto::SCTP { &INIT } else { &[] };
        let mut frame = Packet::between(src, dst, l4).payload(payload).build();
        let network = self.scene.network;
        if network.is_local(tuple.family, tuple.src) {
            return Some((Source::Host, frame));
        }
        let back =
            Query { family: tuple.family, src: tuple.dst, dst: tuple.src, iif: None, mark: 0 };
        let RouteKind::Unicast(port) = network.route(&back)?.kind else { return None };
        frame[..6].copy_from_slice(&network.port(port).mac.0);
        Some((Source::Port(port), frame))
    }

    /// Whether the policy would track or translate it otherwise.
    fn otherwise(&self, live: &ConnView, fed: &Fed) -> Option<(String, u32)> {
        let tables = self.replay.conntrack();
        let fresh = tables.rows(self.replay.now()).find(|row| Some(row.view.id) == fed.conn);
        let Some(fresh) = fresh.map(|row| row.view) else {
            let plain = live.original.inverted() == Some(live.reply);
            return (!plain).then(|| ("no translation any more: it is not tracked".to_owned(), 0));
        };
        if fresh.original.zone != live.original.zone {
            return Some((format!("another zone ({})", fresh.original.zone), 0));
        }
        let end = |address: u128, port: u16| (address, port);
        let (was, is) = (&live.reply, &fresh.reply);
        let to = (end(was.src, was.sport), end(is.src, is.sport));
        let from = (end(was.dst, was.dport), end(is.dst, is.dport));
        let origin = end(live.original.src, live.original.sport);
        if to.0 != to.1 && !self.possible(fed, to.0, false) {
            return Some(self.translation(fed, live, to.1));
        }
        // A port that translation chose is as good as another.
        let chosen = from.0.0 == from.1.0 && from.0 != origin && from.1 != origin;
        if from.0 != from.1 && !chosen && !self.possible(fed, from.0, true) {
            return Some(self.translation(fed, live, from.1));
        }
        None
    }

    fn translation(&self, fed: &Fed, live: &ConnView, is: (u128, u16)) -> (String, u32) {
        let (ip, port) = (address(live.original.family, is.0), is.1);
        let whither = match ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        };
        let rules = self.replay.rules(live.original.family);
        match self.translator(fed, false).or_else(|| self.translator(fed, true)) {
            Some((step, _)) => {
                let (place, line) = place(step, rules);
                (format!("another translation, {whither} by {place}"), line)
            }
            None => (format!("another translation, {whither}"), 0),
        }
    }

    /// The rule that translated it.
    fn translator<'f>(&self, fed: &'f Fed, source: bool) -> Option<(&'f PathStep, NatTarget)> {
        let family = if fed.event.tuple.as_ref()?.src.is_ipv4() { Family::V4 } else { Family::V6 };
        let rules = self.replay.rules(family);
        fed.event.path.iter().find_map(|step| {
            let table = rules.tables.iter().find(|table| table.id.name() == step.table)?;
            let rule = table.chain(&step.chain)?.rules.get(step.rule?.checked_sub(1)? as usize)?;
            let TargetSpec::Nat(target) = rule.target else { return None };
            let of_source = match target {
                NatTarget::Snat(_) | NatTarget::Masquerade(_) => true,
                NatTarget::Dnat(_) | NatTarget::Redirect(_) => false,
                NatTarget::Netmap(_) => matches!(step.hook, "POSTROUTING" | "INPUT"),
            };
            (of_source == source).then_some((step, target))
        })
    }

    /// Whether the rule could have chosen this, as it did for somebody before.
    fn possible(&self, fed: &Fed, was: (u128, u16), source: bool) -> bool {
        let Some((_, target)) = self.translator(fed, source) else { return false };
        let within = |range: &NatRange| {
            let address = range.addresses.is_some_and(|it| it.contains(was.0));
            let port = range.ports.is_none_or(|it| it.contains(was.1));
            address && port
        };
        match target {
            NatTarget::Snat(range) | NatTarget::Dnat(range) => within(&range),
            NatTarget::Masquerade(_) | NatTarget::Redirect(_) | NatTarget::Netmap(_) => false,
        }
    }
}
