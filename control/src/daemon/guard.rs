//! What stands between an operator and a locked door: the session guard on `apply` and
//! at the start, and the management list for `show` and `explain`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::clock::wall_us;
use dataplane::conntrack::Conntrack;
use dataplane::fib::Network;
use dataplane::packet::{Family, Fragment, Mac, Parsed, PortId};
use dataplane::port::host::HostChoice;
use dataplane::port::management::{Entry, List, Protocol};
use dataplane::wire::{self, Frame, proto};

use super::policy::Texts;
use super::service::Service;
use crate::api::protocol::{self, ManagementEntry, SessionInfo, SessionOutcome, SessionReport};
use crate::api::{Code, Failure, Response};
use crate::apply::{Change, PolicyStore};
use crate::explain::Description;
use crate::guard::{self, Cut, Ground, Session, Surroundings, Verdict};
use crate::model::expiry::in_force;

/// What a session's guard found, and what there is to say of it.
pub(super) struct Guarded {
    pub(super) report: SessionReport,
    pub(super) findings: Vec<protocol::Finding>,
}

fn report(outcome: SessionOutcome, text: impl Into<String>) -> Guarded {
    Guarded { report: SessionReport { outcome, text: text.into() }, findings: Vec::new() }
}

impl From<SessionInfo> for Session {
    fn from(info: SessionInfo) -> Self {
        Self {
            client: SocketAddr::new(info.client, info.client_port),
            server: SocketAddr::new(info.server, info.server_port),
            device: info.device,
        }
    }
}

impl From<Session> for SessionInfo {
    fn from(session: Session) -> Self {
        Self {
            client: session.client.ip(),
            client_port: session.client.port(),
            server: session.server.ip(),
            server_port: session.server.port(),
            device: session.device,
        }
    }
}

impl Service {
    /// Whether a change may be made as far as the session is concerned that it comes from.
    ///
    /// # Errors
    /// It would be cut, and nothing forces that.
    pub(super) fn guard(
        &self,
        session: Option<SessionInfo>,
        force: bool,
        change: &Change,
        texts: &Texts,
    ) -> Result<Guarded, Failure> {
        let Some(session) = session.map(Session::from) else {
            let report = SessionReport::default();
            return Ok(Guarded { report, findings: Vec::new() });
        };
        let v4 = session.client.is_ipv4();
        let (rules, text) = if v4 { (&change.v4, &texts.v4) } else { (&change.v6, &texts.v6) };
        let (Some(rules), Some(text)) = (rules, text) else {
            return Ok(report(SessionOutcome::Unchanged, "the session is of the other family"));
        };
        let network = self.network().network;
        let management = self.managers();
        let around = Surroundings {
            network: &network,
            conntrack: self.conntrack(),
            management: &management,
            host_road: self.has_host_road(),
        };
        let now = in_force(rules, wall_us() / 1_000_000);
        // What does not compile is refused anyway, and better.
        let Some(verdict) = guard::judge(&session, now.as_ref().unwrap_or(rules), &around) else {
            return Ok(report(SessionOutcome::Kept, "not judged: the policy does not compile"));
        };
        match verdict {
            Verdict::Safe(ground) => Ok(safe(&session, ground)),
            Verdict::Kept { back } => {
                let mut kept = report(SessionOutcome::Kept, format!("{session} goes on"));
                kept.findings.extend(back.map(|cut| no_return(&session, &cut, &text.name)));
                Ok(kept)
            }
            Verdict::Cut(cut) if force => {
                let mut forced =
                    report(SessionOutcome::Cut, format!("{session} is cut by {}", cut.how));
                forced.findings.push(finding("warning", &session, &cut, &text.name));
                Ok(forced)
            }
            Verdict::Cut(cut) => Err(refusal(&session, &cut, &text.name)),
        }
    }

    /// The same for a management list that was changed, when the session's family keeps its
    /// policy: nothing of `texts` is of that family.
    ///
    /// # Errors
    /// The policy in force would cut the session now, and nothing forces that.
    pub(super) fn guard_list(
        &self,
        session: Option<&SessionInfo>,
        force: bool,
        texts: &Texts,
    ) -> Result<(), Failure> {
        let Some(session) = session.cloned().map(Session::from) else { return Ok(()) };
        let (family, text) = match session.client.is_ipv4() {
            true => (Family::V4, &texts.v4),
            false => (Family::V6, &texts.v6),
        };
        if force || text.is_some() {
            return Ok(());
        }
        let rules = self.store().read(|policy| policy.rules(family).clone());
        let network = self.network().network;
        let around = Surroundings {
            network: &network,
            conntrack: self.conntrack(),
            management: &self.managers(),
            host_road: self.has_host_road(),
        };
        match guard::judge(&session, &rules, &around) {
            Some(Verdict::Cut(cut)) => Err(refusal(&session, &cut, "(the policy in force)")),
            _ => Ok(()),
        }
    }

    /// The list in force.
    fn managers(&self) -> List {
        let entries = self.program().management().into_iter().map(|counted| counted.entry);
        // It was a list before it was put in force.
        List::new(entries).unwrap_or_default()
    }

    /// What `show_management` tells.
    pub(super) fn management(&self) -> Response {
        let entries = self.program().management().into_iter().map(|counted| ManagementEntry {
            entry: counted.entry.to_string(),
            inbound: counted.inbound,
            outbound: counted.outbound,
        });
        Response::Management { entries: entries.collect() }
    }

    /// The entry of the management list that lets the described packet past every rule.
    pub(super) fn manager_of(&self, description: &Description) -> Option<Entry> {
        let list = self.managers();
        let Ok(Frame::Ip(parsed)) = wire::parse(&description.frame, Mac::default()) else {
            return None;
        };
        let incoming = description.input.is_some();
        if !incoming && !self.has_host_road() {
            return None;
        }
        admitted(&list, &self.network().network, &parsed, &description.frame, incoming)
    }
}

/// As the BPF programs decide it, but for ICMP errors about management traffic.
fn admitted(
    list: &List,
    network: &Network,
    parsed: &Parsed,
    frame: &[u8],
    incoming: bool,
) -> Option<Entry> {
    let protocol = match parsed.proto {
        proto::TCP => Protocol::Tcp,
        proto::UDP => Protocol::Udp,
        proto::ICMP if parsed.family == Family::V4 => Protocol::Icmp,
        proto::ICMPV6 if parsed.family == Family::V6 => Protocol::Icmp,
        _ => return None,
    };
    let (own, remote, port) = match incoming {
        true => (parsed.dst, parsed.src, parsed.dport),
        false => (parsed.src, parsed.dst, parsed.sport),
    };
    let plain = match parsed.family {
        Family::V4 => frame.get(14) == Some(&0x45),
        Family::V6 => frame.get(20) == Some(&parsed.proto),
    };
    let whole = parsed.fragment == Fragment::Whole;
    let link_local = |address| {
        let mut ports = (0..network.ports().len()).map(|port| PortId(port as u8));
        ports.any(|port| network.is_link_local_of(port, address))
    };
    let local = |address| network.is_local(parsed.family, address) || link_local(address);
    if !plain || !whole || !local(own) || local(remote) {
        return None;
    }
    let remote = match parsed.family {
        Family::V4 => IpAddr::V4((remote as u32).into()),
        Family::V6 => IpAddr::V6(remote.into()),
    };
    list.matching(remote, protocol, port).cloned()
}

/// Says before anything is touched that the policy of the start cuts the session that
/// starts it. Only told: whoever starts a firewall has decided, and no boot may hang on it.
pub(super) fn tell_at_start(
    config: &super::Config,
    store: &PolicyStore,
    network: &Arc<Network>,
    conntrack: &Conntrack,
) {
    let Some(session) = &config.session else { return };
    let v4 = session.client.is_ipv4();
    let family = if v4 { Family::V4 } else { Family::V6 };
    let file = if v4 { &config.rules } else { &config.rules6 };
    let file = file.as_ref().map_or_else(String::new, |file| file.display().to_string());
    let rules = store.read(|view| view.rules(family).clone());
    let management = &config.management;
    let around =
        Surroundings { network, conntrack, management, host_road: config.host != HostChoice::Off };
    match guard::judge(session, &rules, &around) {
        Some(Verdict::Cut(cut)) => {
            tracing::warn!("THIS CUTS THE SESSION YOU ARE ON ({session})");
            tracing::warn!("{file}:{}: {} ends {}", cut.line, cut.how, cut.what);
        }
        Some(Verdict::Kept { back: Some(cut) }) => {
            tracing::warn!("{file}:{}: {} ends {} ({session})", cut.line, cut.how, cut.what);
        }
        _ => {}
    }
}

fn safe(session: &Session, ground: Ground) -> Guarded {
    match ground {
        Ground::Management => report(
            SessionOutcome::Management,
            format!("{session} is management traffic: no rule sees it"),
        ),
        Ground::Elsewhere => report(
            SessionOutcome::Elsewhere,
            format!("{session} does not come by a port of this daemon"),
        ),
        Ground::Kernel => report(
            SessionOutcome::Kernel,
            format!("{session} is the kernel's: there is no host road"),
        ),
    }
}

fn refusal(session: &Session, cut: &Cut, file: &str) -> Failure {
    Failure {
        code: Code::Refused,
        message: format!(
            "refused: this would cut the session you are on ({session}); the old policy \
             keeps running; --force applies it all the same"
        ),
        findings: vec![finding("error", session, cut, file)],
    }
}

fn finding(severity: &str, session: &Session, cut: &Cut, file: &str) -> protocol::Finding {
    let Cut { what, how, line } = cut;
    protocol::Finding {
        severity: severity.to_owned(),
        code: "session-cut".to_owned(),
        file: file.to_owned(),
        line: *line,
        column: 0,
        message: format!("{how} ends {what}: this would cut the session you are on ({session})"),
        remedy: Some("accept the session before that, or list its client as management".to_owned()),
    }
}

fn no_return(session: &Session, cut: &Cut, file: &str) -> protocol::Finding {
    let Cut { what, how, line } = cut;
    protocol::Finding {
        severity: "warning".to_owned(),
        code: "session-return".to_owned(),
        file: file.to_owned(),
        line: *line,
        column: 0,
        message: format!("{how} ends {what}: you would not come back ({session})"),
        remedy: Some("accept new connections to that service, or keep this one open".to_owned()),
    }
}
