//! `topo.toml`: everything that the kernel would otherwise supply.
//!
//! Unknown keys and impossible values are refused with file, line and column.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use dataplane::fib::{
    Mode, NeighbourEntry, PortInfo, Realms, RouteEntry, RouteKind, RuleEntry, Topology,
};
use dataplane::packet::{Family, MAX_PORTS, PortId};
use dataplane::reply::limit::Settings;
use serde::Deserialize;
use toml::Spanned;

mod error;
mod settings;
#[cfg(test)]
mod tests;
mod timeouts;
mod values;

pub use error::{Problem, TopologyError};
pub use settings::Sysctl;
pub use timeouts::Timeouts;
use values::{address, fwmark, group, mac, mtu, network, prefix, realms};

const MAIN: u32 = 254;

/// A topology file, checked.
#[derive(Clone, Debug)]
pub struct TopologyFile {
    /// Ports, routes, rules and neighbours.
    pub topology: Topology,
    /// `[limits]`.
    pub limits: Limits,
    /// Where `[limits]` says how much.
    limits_at: Position,
    /// `[icmp]`: how many errors the router may send.
    pub icmp: Settings,
    /// `[conntrack]`: sysctls, in the order of their names.
    pub conntrack: Vec<Sysctl>,
    /// `[conntrack.timeout.NAME]`: named timeouts.
    pub timeouts: Vec<Timeouts>,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Connections that the table holds.
    pub conntrack_max: Option<u32>,
}

/// A place in the file, counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mode: Spanned<String>,
    bridge: Option<Spanned<Vec<[Spanned<String>; 2]>>>,
    #[serde(default)]
    port: Vec<Port>,
    #[serde(default)]
    route: Vec<Route>,
    #[serde(default)]
    rule: Vec<Rule>,
    #[serde(default)]
    neighbour: Vec<Neighbour>,
    limits: Option<Spanned<Limits>>,
    #[serde(default)]
    icmp: Icmp,
    #[serde(default)]
    conntrack: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
}

/// The router's limits on ICMP errors under the kernel's sysctl names; what is
/// absent has the kernel's default.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Icmp {
    icmp_ratelimit: Option<u32>,
    icmp_ratemask: Option<u32>,
    icmp_msgs_per_sec: Option<u32>,
    icmp_msgs_burst: Option<u32>,
    icmpv6_ratelimit: Option<u32>,
    route_error_cost: Option<u32>,
    route_error_burst: Option<u32>,
}

impl Icmp {
    fn settings(&self) -> Settings {
        let kernel = Settings::default();
        Settings {
            icmp_ratelimit_ms: self.icmp_ratelimit.unwrap_or(kernel.icmp_ratelimit_ms),
            icmp_ratemask: self.icmp_ratemask.unwrap_or(kernel.icmp_ratemask),
            icmp_msgs_per_sec: self.icmp_msgs_per_sec.unwrap_or(kernel.icmp_msgs_per_sec),
            icmp_msgs_burst: self.icmp_msgs_burst.unwrap_or(kernel.icmp_msgs_burst),
            icmpv6_ratelimit_ms: self.icmpv6_ratelimit.unwrap_or(kernel.icmpv6_ratelimit_ms),
            route_error_cost: self.route_error_cost.unwrap_or(kernel.route_error_cost),
            route_error_burst: self.route_error_burst.unwrap_or(kernel.route_error_burst),
            ..kernel
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Port {
    name: Spanned<String>,
    mac: Spanned<String>,
    mtu: Option<Spanned<u32>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
    #[serde(default)]
    route_localnet: bool,
    #[serde(default)]
    group: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    to: Spanned<String>,
    via: Option<Spanned<String>>,
    dev: Option<Spanned<String>>,
    #[serde(rename = "type")]
    kind: Option<Spanned<String>>,
    table: Option<u32>,
    metric: Option<u32>,
    mtu: Option<Spanned<u32>>,
    src: Option<Spanned<String>>,
    realms: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    priority: u32,
    table: u32,
    fwmark: Option<Spanned<String>>,
    from: Option<Spanned<String>>,
    to: Option<Spanned<String>>,
    iif: Option<Spanned<String>>,
    family: Option<Spanned<String>>,
    realms: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Neighbour {
    dev: Spanned<String>,
    address: Spanned<String>,
    mac: Spanned<String>,
}

impl TopologyFile {
    /// Reads and checks a file.
    pub fn read(file: &Path) -> Result<Self, TopologyError> {
        let text = std::fs::read_to_string(file).map_err(|error| TopologyError {
            file: file.to_owned(),
            at: Position { line: 1, column: 1 },
            problem: Problem::Unreadable(error.kind()),
        })?;
        Self::parse(file, &text)
    }

    /// Checks `text`; `file` is for the errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, TopologyError> {
        let refuse = |at: usize, problem| TopologyError {
            file: file.to_owned(),
            at: position(text, at),
            problem,
        };
        let parsed: File = toml::from_str(text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span: Range<usize>| span.start);
            refuse(at, Problem::Syntax(error.message().to_owned()))
        })?;
        let conntrack = settings::read(&parsed.conntrack, text)
            .map_err(|Fault { at, problem }| refuse(at, problem))?;
        let timeouts = timeouts::read(&parsed.conntrack, text)
            .map_err(|Fault { at, problem }| refuse(at, problem))?;
        let limits =
            parsed.limits.as_ref().map_or_else(Limits::default, |limits| *limits.get_ref());
        let limits_at = parsed.limits.as_ref().map_or(0, |limits| limits.span().start);
        let limits_at = position(text, limits_at);
        let icmp = parsed.icmp.settings();
        let topology =
            Checker::default().file(&parsed).map_err(|fault| refuse(fault.at, fault.problem))?;
        Ok(Self { topology, limits, limits_at, icmp, conntrack, timeouts })
    }
}

fn position(text: &str, at: usize) -> Position {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// A problem at a byte offset.
struct Fault {
    at: usize,
    problem: Problem,
}

fn fault<T>(place: &Spanned<T>, problem: Problem) -> Fault {
    Fault { at: place.span().start, problem }
}

#[derive(Default)]
struct Checker {
    ports: Vec<PortInfo>,
}

impl Checker {
    fn file(mut self, file: &File) -> Result<Topology, Fault> {
        for port in &file.port {
            self.port(port)?;
        }
        if self.ports.is_empty() {
            return Err(fault(&file.mode, Problem::NoPorts));
        }
        let mode = self.mode(file)?;
        let routes = file.route.iter().map(|route| self.route(route)).collect::<Result<_, _>>()?;
        let neighbours = file
            .neighbour
            .iter()
            .map(|neighbour| {
                Ok(NeighbourEntry {
                    port: self.find(&neighbour.dev)?,
                    address: address(&neighbour.address)?,
                    mac: mac(&neighbour.mac)?,
                })
            })
            .collect::<Result<_, _>>()?;
        let mut rules = Vec::new();
        for rule in &file.rule {
            self.rule(rule, &mut rules)?;
        }
        if !rules.is_empty() {
            default_rules(&mut rules);
        }
        Ok(Topology { mode, ports: self.ports, routes, rules, neighbours })
    }

    fn port(&mut self, port: &Port) -> Result<(), Fault> {
        let name = port.name.get_ref();
        let refuse = |problem: fn(String) -> Problem| Err(fault(&port.name, problem(name.clone())));
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        // `host` names the machine's own packets on the command line.
        let reserved = matches!(name.as_str(), "" | "." | ".." | "host");
        if reserved || name.len() > 15 || name.contains(odd) {
            return refuse(Problem::PortName);
        }
        if self.ports.iter().any(|known| known.name == *name) {
            return refuse(Problem::DuplicatePort);
        }
        if self.ports.len() == MAX_PORTS {
            return Err(fault(&port.name, Problem::TooManyPorts));
        }
        let addresses = port.addresses.iter().map(prefix).collect::<Result<_, _>>()?;
        let groups = port.groups.iter().map(group).collect::<Result<_, _>>()?;
        self.ports.push(PortInfo {
            groups,
            route_localnet: port.route_localnet,
            device_group: port.group,
            name: name.clone(),
            mac: mac(&port.mac)?,
            mtu: port.mtu.as_ref().map_or(Ok(1500), mtu)?,
            addresses,
            up: true,
        });
        Ok(())
    }

    fn mode(&self, file: &File) -> Result<Mode, Fault> {
        match (file.mode.get_ref().as_str(), &file.bridge) {
            ("routed", None) => Ok(Mode::Routed),
            ("host", None) if self.ports.len() == 1 => Ok(Mode::Host),
            ("host", None) => Err(fault(&file.mode, Problem::HostPorts)),
            ("bridge", Some(pairs)) => self.pairs(pairs.get_ref()),
            ("bridge", None) => Err(fault(&file.mode, Problem::BridgeMode)),
            ("routed" | "host", Some(pairs)) => Err(fault(pairs, Problem::BridgeMode)),
            (other, _) => Err(fault(&file.mode, Problem::Mode(other.to_owned()))),
        }
    }

    fn pairs(&self, pairs: &[[Spanned<String>; 2]]) -> Result<Mode, Fault> {
        let mut used = Vec::new();
        let mut found = Vec::new();
        for [one, other] in pairs {
            for name in [one, other] {
                let port = self.find(name)?;
                if used.contains(&port) {
                    return Err(fault(name, Problem::BridgedTwice(name.get_ref().clone())));
                }
                used.push(port);
            }
            found.push((self.find(one)?, self.find(other)?));
        }
        Ok(Mode::Bridge(found))
    }

    fn find(&self, name: &Spanned<String>) -> Result<PortId, Fault> {
        self.ports
            .iter()
            .position(|port| port.name == *name.get_ref())
            .map(|index| PortId(index as u8))
            .ok_or_else(|| fault(name, Problem::NoSuchPort(name.get_ref().clone())))
    }

    fn route(&self, route: &Route) -> Result<RouteEntry, Fault> {
        let to = network(&route.to)?;
        let same_family = |at: &Spanned<String>| {
            let found = address(at)?;
            match found.is_ipv4() == to.0.is_ipv4() {
                true => Ok(found),
                false => Err(fault(at, Problem::MixedFamilies)),
            }
        };
        let via = route.via.as_ref().map(same_family).transpose()?;
        let kind = match &route.kind {
            None => None,
            Some(kind) => match kind.get_ref().as_str() {
                "unicast" => None,
                "blackhole" => Some(RouteKind::Blackhole),
                "unreachable" => Some(RouteKind::Unreachable),
                "prohibit" => Some(RouteKind::Prohibit),
                "throw" => Some(RouteKind::Throw),
                other => return Err(fault(kind, Problem::RouteType(other.to_owned()))),
            },
        };
        let kind = match (kind, &route.dev) {
            (None, Some(dev)) => RouteKind::Unicast(self.find(dev)?),
            (Some(kind), None) if via.is_none() => kind,
            _ => return Err(fault(&route.to, Problem::RouteDevice)),
        };
        Ok(RouteEntry {
            to,
            via,
            kind,
            table: route.table.unwrap_or(MAIN),
            metric: route.metric.unwrap_or(if to.0.is_ipv4() { 0 } else { 1024 }),
            mtu: route.mtu.as_ref().map(mtu).transpose()?,
            prefsrc: route.src.as_ref().map(same_family).transpose()?,
            devices: 0,
            anycast: false,
            realms: route.realms.as_ref().map_or(Ok(Realms::default()), realms)?,
        })
    }

    fn rule(&self, rule: &Rule, rules: &mut Vec<RuleEntry>) -> Result<(), Fault> {
        let from = rule.from.as_ref().map(network).transpose()?;
        let to = rule.to.as_ref().map(network).transpose()?;
        let given = match &rule.family {
            None => None,
            Some(family) => match family.get_ref().as_str() {
                "v4" => Some(Family::V4),
                "v6" => Some(Family::V6),
                other => return Err(fault(family, Problem::Family(other.to_owned()))),
            },
        };
        let of = |prefix: Option<(IpAddr, u8)>| prefix.map(|(address, _)| family_of(address));
        let mut known = [given, of(from), of(to)].into_iter().flatten();
        let first = known.next();
        if known.any(|family| Some(family) != first) {
            let place = [&rule.to, &rule.from, &rule.family].into_iter().flatten().next();
            return Err(match place {
                Some(place) => fault(place, Problem::MixedFamilies),
                None => Fault { at: 0, problem: Problem::MixedFamilies },
            });
        }
        let families = first.map_or(vec![Family::V4, Family::V6], |family| vec![family]);
        for family in families {
            rules.push(RuleEntry {
                family,
                priority: rule.priority,
                fwmark: rule.fwmark.as_ref().map(fwmark).transpose()?,
                from,
                to,
                iif: rule.iif.as_ref().map(|port| self.find(port)).transpose()?,
                table: rule.table,
                realms: rule.realms.as_ref().map_or(Ok(Realms::default()), realms)?,
            });
        }
        Ok(())
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// What `ip rule` shows on a fresh machine: local, main, default.
fn default_rules(rules: &mut Vec<RuleEntry>) {
    for family in [Family::V4, Family::V6] {
        let tables: &[(u32, u32)] = match family {
            Family::V4 => &[(0, 255), (32766, MAIN), (32767, 253)],
            Family::V6 => &[(0, 255), (32766, MAIN)],
        };
        rules.extend(tables.iter().map(|&(priority, table)| RuleEntry {
            family,
            priority,
            fwmark: None,
            from: None,
            to: None,
            iif: None,
            table,
            realms: Realms::default(),
        }));
    }
    rules.sort_by_key(|rule| rule.priority);
}
