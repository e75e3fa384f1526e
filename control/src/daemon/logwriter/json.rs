//! Records as JSON, one object a line: what the kernel's line leaves out is here too, the
//! rule, the way to it, the connection and its translation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::conntrack::{ConnView, CtState, Tuple, status};
use dataplane::effects::{LogRecord, Report};
use dataplane::logbook::LogBook;
use dataplane::packet::{Family, Mac, PortId};
use dataplane::wire::proto;
use serde::Serialize;

use super::lines::timestamp;
use super::top::Heavy;

/// One direction of a connection.
#[derive(Serialize)]
struct Ends {
    src: IpAddr,
    dst: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    spt: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dpt: Option<u16>,
}

/// A packet's connection.
#[derive(Serialize)]
struct Connection {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<Ends>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Ends>,
}

/// What NAT makes of it.
#[derive(Serialize)]
struct Nat {
    #[serde(skip_serializing_if = "Option::is_none")]
    snat: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dnat: Option<String>,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    report: &'static str,
    family: &'static str,
    table: &'static str,
    chain: &'a str,
    rule: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    path: Vec<String>,
    generation: u64,
    hook: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    prefix: &'a str,
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    input: Option<&'a str>,
    #[serde(rename = "out", skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac_src: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac_dst: Option<String>,
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    spt: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dpt: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<u8>,
    len: u16,
    ttl: u8,
    tos: u8,
    mark: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    ct: Connection,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<Nat>,
}

fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(bits).into(),
    }
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP)
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

fn ends(tuple: &Tuple) -> Ends {
    let ports = has_ports(tuple.proto);
    Ends {
        src: address(tuple.family, tuple.src),
        dst: address(tuple.family, tuple.dst),
        spt: ports.then_some(tuple.sport),
        dpt: ports.then_some(tuple.dport),
    }
}

fn end(family: Family, bits: u128, port: Option<u16>) -> String {
    let address = address(family, bits);
    match (port, family) {
        (None, _) => address.to_string(),
        (Some(port), Family::V4) => format!("{address}:{port}"),
        (Some(port), Family::V6) => format!("[{address}]:{port}"),
    }
}

/// What answers are addressed to and come from, where that is not what was sent.
fn nat(connection: &ConnView) -> Option<Nat> {
    let reply = &connection.reply;
    let port = |port| has_ports(reply.proto).then_some(port);
    let on = |bit: u32| connection.status & bit != 0;
    let snat = on(status::SRC_NAT).then(|| end(reply.family, reply.dst, port(reply.dport)));
    let dnat = on(status::DST_NAT).then(|| end(reply.family, reply.src, port(reply.sport)));
    (snat.is_some() || dnat.is_some()).then_some(Nat { snat, dnat })
}

/// The rule that a record comes from, for people.
pub(super) fn rule_name(family: Family, table: &str, chain: &str, number: u32) -> String {
    format!("{} {table}:{chain}:{number}", family_name(family))
}

/// The line of a record, without a line end. `unix_us`: when; `ports`: their names.
pub(super) fn line(
    record: &LogRecord<'_>,
    connection: Option<&ConnView>,
    book: &LogBook,
    ports: &[String],
    unix_us: u64,
) -> String {
    let (parsed, place) = (record.parsed, &record.place);
    let port = |port: PortId| match port {
        PortId::LOOPBACK => "lo",
        port => ports.get(port.index()).map_or("", String::as_str),
    };
    let (report, reason, group, prefix) = match record.report {
        Report::Log(log) => ("log", "LOG", None, &*log.prefix),
        Report::Nflog(nflog) => ("nflog", "NFLOG", Some(nflog.group), &*nflog.prefix),
        Report::Audit(kind) => ("audit", kind.name(), None, ""),
        Report::Trace(how) => ("trace", how.name(), None, ""),
    };
    let mut path: Vec<String> = record
        .callers
        .iter()
        .map(|caller| format!("{}:{}", book.chain(parsed.family, caller.chain).1, caller.rule))
        .collect();
    path.push(format!("{}:{}", place.chain_name, place.number));
    let mac = |at: usize| -> Option<String> {
        let bytes: [u8; 6] = record.frame.get(at..at + 6)?.try_into().ok()?;
        let shown = record.has_link_header && record.input.is_some();
        shown.then(|| Mac(bytes).0.map(|byte| format!("{byte:02x}")).join(":"))
    };
    let ports_shown = has_ports(parsed.proto);
    let line = Line {
        time: timestamp(unix_us),
        report,
        family: family_name(parsed.family),
        table: place.table.name(),
        chain: place.chain_name,
        rule: place.number,
        line: place.counter.and_then(|counter| book.line(counter)),
        path,
        generation: book.generation,
        hook: record.hook.chain_name(),
        reason,
        group,
        prefix,
        input: record.input.map(port),
        output: record.output.map(port),
        mac_src: mac(6),
        mac_dst: mac(0),
        src: address(parsed.family, parsed.src),
        dst: address(parsed.family, parsed.dst),
        proto: parsed.proto,
        spt: ports_shown.then_some(parsed.sport),
        dpt: ports_shown.then_some(parsed.dport),
        tcp_flags: (parsed.proto == proto::TCP).then_some(parsed.tcp_flags),
        len: parsed.l3_len,
        ttl: parsed.ttl,
        tos: parsed.tos,
        mark: record.mark,
        uid: record.owner.map(|owner| owner.uid),
        gid: record.owner.and_then(|owner| owner.gid),
        ct: Connection {
            state: CtState::name(record.tracking.state),
            id: connection.map(|it| it.id.number()),
            mark: connection.map(|it| it.mark),
            original: connection.map(|it| ends(&it.original)),
            reply: connection.map(|it| ends(&it.reply)),
        },
        nat: connection.and_then(nat),
    };
    serde_json::to_string(&line).unwrap_or_default()
}

/// A line about records that a limit kept back (`suppressed`) or that found no room (`lost`).
pub(super) fn missing(unix_us: u64, what: &str, rule: &str, prefix: &str, records: u64) -> String {
    let line = serde_json::json!({
        "time": timestamp(unix_us),
        "report": what,
        "rule": rule,
        "prefix": prefix,
        "records": records,
    });
    line.to_string()
}

/// A line about the heaviest of an interval.
pub(super) fn top(unix_us: u64, seconds: u64, sources: &[Heavy], rules: &[Heavy]) -> String {
    let list = |heavy: &[Heavy], what: &str| -> Vec<serde_json::Value> {
        let one = |it: &Heavy| serde_json::json!({ what: it.name, "records": it.records, "error": it.error });
        heavy.iter().map(one).collect()
    };
    let line = serde_json::json!({
        "time": timestamp(unix_us),
        "report": "top",
        "seconds": seconds,
        "sources": list(sources, "source"),
        "rules": list(rules, "rule"),
    });
    line.to_string()
}
