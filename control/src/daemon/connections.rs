//! The connection table for operators: listing and ending connections, a bounded
//! amount of work for each answer. Workers never wait: rows are read as lookups
//! read them, and a connection is ended as a packet's own worker would end it.

use std::net::IpAddr;

use dataplane::clock::{monotonic, utc_offset};
use dataplane::conntrack::{Config, Conntrack};

use crate::api::protocol::{
    AddressFilter, ConntrackDelete, ConntrackFilter, ConntrackPage, ConntrackQuery, ConntrackRow,
    Deleted, ExpectInfo,
};
use crate::conntrack::{Rows, expectation};

/// Rows in one answer at most.
const PAGE: u32 = 10_000;
/// Places of the table looked at for one answer at most.
const PLACES: usize = 1 << 20;

/// The table, and how its ports are called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'t> {
    pub(super) conntrack: &'t Conntrack,
    pub(super) ports: &'t [String],
}

impl<'t> Table<'t> {
    fn rows(self) -> Rows<'t> {
        let (now, utc_offset) = (monotonic(), utc_offset());
        Rows { table: self.conntrack, ports: self.ports, now, utc_offset }
    }

    /// One page. It may hold fewer rows than asked for, or none, and still have a
    /// successor: the work of one answer is bounded.
    pub(super) fn list(self, query: ConntrackQuery) -> ConntrackPage {
        let (cursor, limit) = (query.cursor, query.limit);
        let (rows, next) = self.walk(&whole_filter(query), cursor, limit, |_, row| Some(row));
        let (entries, capacity) = (self.conntrack.len() as u64, self.conntrack.capacity());
        ConntrackPage { entries, capacity, rows, next }
    }

    /// Ends what passes the filter.
    pub(super) fn delete(self, wanted: &ConntrackDelete) -> Deleted {
        let end = |id, row| self.conntrack.remove(id).then_some(row);
        let (rows, next) = self.walk(&wanted.filter, wanted.cursor, wanted.limit, end);
        Deleted { deleted: rows.len() as u64, rows, next }
    }

    /// Ends everything that is there, and says how much that was.
    pub(super) fn flush(self) -> u64 {
        let rows = self.conntrack.rows(monotonic());
        rows.filter(|row| self.conntrack.remove(row.view.id)).count() as u64
    }

    /// What is expected: the table of it is small.
    pub(super) fn expectations(self) -> Vec<ExpectInfo> {
        self.conntrack.expectations(monotonic()).iter().map(expectation).collect()
    }

    fn walk(
        self,
        filter: &ConntrackFilter,
        cursor: u64,
        limit: u32,
        mut take: impl FnMut(dataplane::conntrack::ConnId, ConntrackRow) -> Option<ConntrackRow>,
    ) -> (Vec<ConntrackRow>, Option<u64>) {
        let limit = limit.min(PAGE) as usize;
        let places = self.conntrack.places();
        let from = usize::try_from(cursor).unwrap_or(places).min(places);
        let end = places.min(from + PLACES);
        let view = self.rows();
        let mut rows = Vec::new();
        for (at, row) in self.conntrack.rows_from(from, view.now).take_while(|(at, _)| *at < end) {
            if rows.len() == limit {
                return (rows, Some(at as u64));
            }
            let found = view.filtered(filter, &row);
            rows.extend(found.and_then(|shown| take(row.view.id, shown)));
        }
        (rows, (end < places).then_some(end as u64))
    }
}

/// The filter of a query, with what is asked for beside it.
fn whole_filter(query: ConntrackQuery) -> ConntrackFilter {
    let host = |address: IpAddr| AddressFilter {
        address,
        mask: match address {
            IpAddr::V4(_) => IpAddr::from([0xff; 4]),
            IpAddr::V6(_) => IpAddr::from([0xff; 16]),
        },
    };
    let ConntrackQuery { family, proto, src, dst, dport, filter, .. } = query;
    ConntrackFilter {
        family: family.or(filter.family),
        proto: proto.or(filter.proto),
        src: src.map(host).or(filter.src),
        dst: dst.map(host).or(filter.dst),
        dport: dport.or(filter.dport),
        ..filter
    }
}

/// The settings in force, for a table beside the real one.
pub(super) fn beside(conntrack: &Conntrack) -> Config {
    let mut config = Config::new([0; 16]);
    for (name, value) in conntrack.entries() {
        let set = config.set(name, value);
        debug_assert!(set.is_ok(), "a value that is in force is possible: {name}");
    }
    config
}
