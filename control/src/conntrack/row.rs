//! From the table's records to values of the protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::clock::Nanos;
use dataplane::conntrack::{Account, Conntrack, ExpectRow, Row, Tuple, status};
use dataplane::packet::{Family, PortId};

use super::filter;
use super::filter::status_bits;
use super::text::Columns;
use crate::api::protocol::{
    ConntrackFilter, ConntrackRow, CountedInfo, ExpectInfo, StatusName, TupleInfo,
};

/// The names that a row can have.
const NAMES: [StatusName; 8] = [
    StatusName::Expected,
    StatusName::SeenReply,
    StatusName::Assured,
    StatusName::FixedTimeout,
    StatusName::SrcNat,
    StatusName::DstNat,
    StatusName::SeqAdjust,
    StatusName::Helper,
];

/// The table at one time, and how its ports are called.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'t> {
    /// The table.
    pub table: &'t Conntrack,
    /// Port names, by number.
    pub ports: &'t [String],
    /// Now.
    pub now: Nanos,
    /// What to add to a time for the time since 1970.
    pub utc_offset: Nanos,
}

impl Rows<'_> {
    /// The connection as a protocol value, if it passes the filter.
    pub fn filtered(&self, filter: &ConntrackFilter, row: &Row) -> Option<ConntrackRow> {
        let labels = || row.details.labels.unwrap_or(0);
        filter::matches(filter, &row.view, state(row), labels).then(|| self.row(row))
    }

    /// The connection as a protocol value.
    pub fn row(&self, row: &Row) -> ConntrackRow {
        let (view, details) = (&row.view, &row.details);
        let facts = self.table.facts(view.id);
        let counted = |way: usize| {
            let Account { packets, bytes } = details.accounting?[way];
            Some(CountedInfo { packets, bytes })
        };
        let labels = details.labels.unwrap_or(0);
        let port = |port: PortId| self.ports.get(port.index()).cloned();
        let start = facts.and_then(|facts| facts.start);
        let has = |name: &StatusName| view.status & status_bits(*name).0 != 0;
        let mut row = ConntrackRow {
            proto: view.original.proto,
            timeout_s: row.timeout_s,
            state: state(row).map(str::to_owned),
            original: tuple(&view.original, counted(0)),
            reply: tuple(&view.reply, counted(1)),
            seen_reply: view.status & status::SEEN_REPLY != 0,
            assured: view.status & status::ASSURED != 0,
            mark: view.mark,
            id: view.id.number(),
            status: NAMES.into_iter().filter(has).collect(),
            labels: (0..128).filter(|bit| labels >> bit & 1 != 0).collect(),
            helper: details.helper.map(|helper| helper.name().to_owned()),
            masquerade: facts.and_then(|facts| facts.masquerade).and_then(port),
            master: facts.and_then(|facts| facts.master).map(|master| master.number()),
            start_s: start.map(|start| (start + self.utc_offset).as_secs()),
            age_s: details.age_s,
            text: String::new(),
        };
        row.text = Columns::default().line(&row);
        row
    }
}

/// The protocol's state as it is printed.
fn state(row: &Row) -> Option<&'static str> {
    row.view.state_name()
}

/// One direction as a protocol value.
pub(crate) fn tuple(tuple: &Tuple, counted: Option<CountedInfo>) -> TupleInfo {
    let ip = |bits: u128| match tuple.family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bits)),
    };
    TupleInfo {
        src: ip(tuple.src),
        dst: ip(tuple.dst),
        sport: tuple.sport,
        dport: tuple.dport,
        zone: tuple.zone,
        counted,
    }
}

/// An expectation as a protocol value.
pub fn expectation(row: &ExpectRow) -> ExpectInfo {
    let what = &row.expectation;
    let ends = tuple(&what.tuple, None);
    let mask = Tuple { src: what.mask.address, ..what.tuple };
    ExpectInfo {
        timeout_s: row.timeout_s,
        proto: what.tuple.proto,
        src: ends.src,
        dst: ends.dst,
        sport: ends.sport,
        dport: ends.dport,
        mask_src: tuple(&mask, None).src,
        mask_sport: what.mask.port,
        master: what.master.number(),
        class: what.class,
        helper: what.by.name().to_owned(),
        permanent: what.permanent,
        inactive: what.inactive,
        text: row.to_string(),
    }
}
