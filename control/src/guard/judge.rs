//! A session against a policy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack, Saved, Tuple};
use dataplane::fib::{Network, Query, RouteKind};
use dataplane::packet::{Family, Mac, PortId};
use dataplane::port::management::{List, Protocol};
use dataplane::verdict::DropReason;
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::{self, Frame, proto};

use super::Session;
use crate::model::Ruleset;
use crate::replay::event::PathStep;
use crate::replay::{Fed, Replay, Source};

/// When the session's next packet comes, as far as the engine knows.
const NOW: Nanos = Nanos::from_secs(1_000);
/// Connections that judging needs at most.
const CONNECTIONS: u64 = 64;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Where a segment stands in its stream; windows are learned from it.
const SEQ: u32 = 20_001;

/// What the daemon knows besides the policy.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The network in force.
    pub network: &'a Arc<Network>,
    /// The connections, and the settings that they are tracked under.
    pub conntrack: &'a Conntrack,
    /// Who gets in whatever the policy says.
    pub management: &'a List,
    /// Whether this machine's own packets go through the policy at all.
    pub host_road: bool,
}

/// Why no rule can cut a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The management list admits it.
    Management,
    /// It does not come in by one of our ports.
    Elsewhere,
    /// The machine's own packets are not ours.
    Kernel,
}

/// Who ends a packet of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// What of the session: as a part of a sentence.
    pub what: &'static str,
    /// How it ended: a rule, a policy, or a reason.
    pub how: String,
    /// Line of the rule in its file, from 1; 0 when it is no rule's doing.
    pub line: u32,
}

/// What a policy does to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing can cut it.
    Safe(Ground),
    /// It goes on. `back`: what would stop the operator from coming again.
    Kept {
        /// The first packet that a new connection would lose.
        back: Option<Cut>,
    },
    /// It would be cut.
    Cut(Cut),
}

/// What `rules`, of the session's family, do to it. `None` when they do not compile:
/// others say why.
pub fn judge(session: &Session, rules: &Ruleset, around: &Surroundings<'_>) -> Option<Verdict> {
    let (client, server) = (session.client, session.server);
    if around.management.matching(client.ip(), Protocol::Tcp, server.port()).is_some() {
        return Some(Verdict::Safe(Ground::Management));
    }
    if !around.host_road {
        return Some(Verdict::Safe(Ground::Kernel));
    }
    let known = find(session, around.conntrack);
    let way = known.as_ref().map_or(Way { from: client, to: server }, |known| known.way);
    let Some(port) = port_of(session, way.from.ip(), around.network) else {
        return Some(Verdict::Safe(Ground::Elsewhere));
    };
    let trial = Trial::new(session, rules, around, known, way, port)?;
    Some(trial.run())
}

/// The ends of what comes in, as they are on the wire.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: SocketAddr,
    to: SocketAddr,
}

/// The session's connection as the table has it.
#[derive(Debug)]
struct Known {
    saved: Saved,
    way: Way,
}

fn find(session: &Session, conntrack: &Conntrack) -> Option<Known> {
    let (client, server) = (bits(session.client.ip()), bits(session.server.ip()));
    // The way that the service's answers go, before translation.
    let answers = |tuple: &Tuple| {
        tuple.proto == proto::TCP
            && (tuple.family == Family::V4) == session.client.is_ipv4()
            && (tuple.src, tuple.sport) == (server, session.server.port())
            && (tuple.dst, tuple.dport) == (client, session.client.port())
    };
    let now = dataplane::clock::monotonic();
    conntrack.rows_from(0, now).find_map(|(at, row)| {
        let comes = match &row.view {
            view if answers(&view.reply) => view.original,
            // It was taken up at an answer.
            view if answers(&view.original) => view.reply,
            _ => return None,
        };
        let mut saved = conntrack.export(at, now)?;
        // Policies of timeouts are the table's own.
        saved.set_timeouts(None);
        let way = Way {
            from: SocketAddr::new(address(comes.family, comes.src), comes.sport),
            to: SocketAddr::new(address(comes.family, comes.dst), comes.dport),
        };
        Some(Known { saved, way })
    })
}

/// The port that answers leave by, and that the client's packets therefore come by.
fn port_of(session: &Session, client: IpAddr, network: &Network) -> Option<PortId> {
    if let Some(device) = &session.device {
        return network.port_named(device);
    }
    let family = if client.is_ipv4() { Family::V4 } else { Family::V6 };
    let (src, dst) = (bits(session.server.ip()), bits(client));
    let route = network.route(&Query { family, src, dst, iif: None, mark: 0 })?;
    match route.kind {
        RouteKind::Unicast(port) => Some(port),
        _ => None,
    }
}

struct Trial<'a> {
    session: &'a Session,
    rules: &'a Ruleset,
    replay: Replay,
    way: Way,
    port: PortId,
}

impl<'a> Trial<'a> {
    fn new(
        session: &'a Session,
        rules: &'a Ruleset,
        around: &Surroundings<'_>,
        known: Option<Known>,
        way: Way,
        port: PortId,
    ) -> Option<Self> {
        let mut settings = Config::new([0; 16]);
        for (name, value) in around.conntrack.entries() {
            let value = if name == "max" { CONNECTIONS } else { value };
            let set = settings.set(name, value);
            debug_assert!(set.is_ok(), "a value that is in force is possible: {name}");
        }
        let network = Arc::clone(around.network);
        let (v4, v6) = match rules.family {
            Family::V4 => (rules.clone(), Ruleset::empty(Family::V6)),
            Family::V6 => (Ruleset::empty(Family::V4), rules.clone()),
        };
        let replay = Replay::over(network, v4, v6, settings).ok()?;
        if let Some(known) = known {
            let earlier = NOW.saturating_sub(Nanos::MILLISECOND);
            // One that ended meanwhile begins anew, as its next packet would.
            let _ = replay.conntrack().import(&known.saved, Nanos(0), earlier);
        }
        Some(Self { session, rules, replay, way, port })
    }

    fn run(mut self) -> Verdict {
        // Twice: what one end loses the other may mend, as when what this machine sends
        // (`apply` itself speaks when it is done) takes up a connection that tracking
        // does not know. What the second round loses is lost.
        let (server, client) = (self.session.server, self.session.client);
        let answers = Way { from: server, to: client };
        for last in [false, true] {
            let cut = self.comes_in(self.way, ACK, SEQ, "what comes in on it");
            let cut = cut.or(self.goes_out(answers, ACK, SEQ, "what goes out on it"));
            match cut {
                Some(cut) if last => return Verdict::Cut(cut),
                _ => {}
            }
        }
        Verdict::Kept { back: self.comes_back() }
    }

    /// What stops a new connection of the client to the same service.
    fn comes_back(&mut self) -> Option<Cut> {
        let other = |port: u16| if port < 65_535 { port + 1 } else { 49_152 };
        let anew = |it: SocketAddr| SocketAddr::new(it.ip(), other(it.port()));
        let way = Way { from: anew(self.way.from), to: self.way.to };
        let answers = Way { from: self.session.server, to: anew(self.session.client) };
        self.comes_in(way, SYN, SEQ, "a new connection like it")
            .or_else(|| self.goes_out(answers, SYN | ACK, SEQ, "the answer to a new one like it"))
            .or_else(|| self.comes_in(way, ACK, SEQ + 1, "a new connection like it"))
    }

    fn comes_in(&mut self, way: Way, flags: u8, seq: u32, what: &'static str) -> Option<Cut> {
        let mut frame = segment(way, flags, seq);
        let mac = self.replay.network().port(self.port).mac;
        frame[..6].copy_from_slice(&mac.0);
        let fed = self.replay.feed(Source::Port(self.port), NOW, &frame);
        // A proxy answers in the service's place; the service is asked later.
        if fed.reason == Some(DropReason::Synproxy) {
            return None;
        }
        self.ended(&fed, what).or_else(|| {
            let to = fed.delivered.iter().find_map(|frame| destination(frame));
            (to != Some(self.session.server)).then(|| self.astray(&fed, to, what))
        })
    }

    fn goes_out(&mut self, way: Way, flags: u8, seq: u32, what: &'static str) -> Option<Cut> {
        let fed = self.replay.feed(Source::Host, NOW, &segment(way, flags, seq));
        self.ended(&fed, what)
    }

    fn ended(&self, fed: &Fed, what: &'static str) -> Option<Cut> {
        ended(fed, self.rules).map(|(how, line)| Cut { what, how, line })
    }

    /// It went somewhere else than to the service.
    fn astray(&self, fed: &Fed, to: Option<SocketAddr>, what: &'static str) -> Cut {
        let translates = ["DNAT", "REDIRECT", "NETMAP"];
        let nat =
            fed.event.path.iter().find(|step| {
                step.target.as_deref().is_some_and(|target| translates.contains(&target))
            });
        let whither = match (to, fed.event.out.first()) {
            (Some(to), _) => format!("sent to {to} instead"),
            (None, Some(port)) => format!("sent out of {port} instead"),
            (None, None) => format!("lost ({})", fed.reason.map_or("?", DropReason::name)),
        };
        match nat {
            Some(step) => {
                let (place, line) = place(step, self.rules);
                Cut { what, how: format!("{place} ({whither})"), line }
            }
            None => Cut { what, how: whither, line: 0 },
        }
    }
}

/// Whether the policy ended it: how, and the rule's line. What else may end a packet is not
/// the policy's.
pub(super) fn ended(fed: &Fed, rules: &Ruleset) -> Option<(String, u32)> {
    use DropReason as R;
    match fed.reason? {
        R::Rule | R::ChainPolicy | R::Hotdrop | R::Reject => Some(
            fed.event
                .path
                .last()
                .map_or_else(|| ("the policy".to_owned(), 0), |step| place(step, rules)),
        ),
        reason @ (R::SynCookie | R::NatNoAddress | R::NatHeader) => {
            Some((format!("drop reason {}", reason.name()), 0))
        }
        _ => None,
    }
}

/// A step in words, and where it stands in the file.
pub(crate) fn place(step: &PathStep, rules: &Ruleset) -> (String, u32) {
    let target = step.target.as_deref().unwrap_or("-");
    let table = rules.tables.iter().find(|table| table.id.name() == step.table);
    let chain = table.and_then(|table| table.chain(&step.chain));
    let line = chain.map_or(0, |chain| match step.rule {
        Some(number) => chain.rules.get(number as usize - 1).map_or(0, |it| it.span.line),
        None => chain.span.line,
    });
    let text = match step.rule {
        Some(number) => format!("{} {} rule {number} ({target})", step.table, step.chain),
        None => format!("{} {} policy {target}", step.table, step.chain),
    };
    (text, line)
}

fn segment(way: Way, flags: u8, seq: u32) -> Vec<u8> {
    let Way { from, to } = way;
    let tcp = Tcp { seq, ack: SEQ + 1, ..Tcp::new(from.port(), to.port(), flags) };
    Packet::between(from.ip(), to.ip(), L4::Tcp(tcp)).build()
}

fn destination(frame: &[u8]) -> Option<SocketAddr> {
    match wire::parse(frame, Mac::default()) {
        Ok(Frame::Ip(parsed)) => {
            Some(SocketAddr::new(address(parsed.family, parsed.dst), parsed.dport))
        }
        _ => None,
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

pub(super) fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4((bits as u32).into()),
        Family::V6 => IpAddr::V6(bits.into()),
    }
}
