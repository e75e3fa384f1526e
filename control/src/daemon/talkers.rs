//! Who talks the most: the sources of connections, from a bounded look at the table.

use std::collections::HashMap;
use std::net::IpAddr;

use dataplane::clock::monotonic;
use dataplane::conntrack::{Conntrack, status};

use crate::api::Response;
use crate::api::protocol::{TalkerInfo, Talkers};
use crate::conntrack::tuple;

/// Places of the table that are looked at, at most.
const PLACES: usize = 1 << 18;
/// Sources that are told at most.
const MOST: u32 = 256;

/// The sources with the most connections among the places that are looked at.
pub(super) fn talkers(conntrack: &Conntrack, limit: u32) -> Response {
    let mut sources: HashMap<IpAddr, TalkerInfo> = HashMap::new();
    let places = conntrack.places();
    let looked_at = places.min(PLACES);
    for row in conntrack.rows_in(0..looked_at, monotonic()) {
        let source = tuple(&row.view.original, None).src;
        let talker = sources.entry(source).or_insert_with(|| TalkerInfo {
            source,
            connections: 0,
            unanswered: 0,
            bytes: None,
        });
        talker.connections += 1;
        talker.unanswered += u64::from(row.view.status & status::SEEN_REPLY == 0);
        if let Some([there, back]) = row.details.accounting {
            *talker.bytes.get_or_insert(0) += there.bytes + back.bytes;
        }
    }
    let mut sources: Vec<TalkerInfo> = sources.into_values().collect();
    let weight = |it: &TalkerInfo| (it.connections, it.bytes);
    sources.sort_by(|a, b| weight(b).cmp(&weight(a)).then(a.source.cmp(&b.source)));
    sources.truncate(limit.min(MOST) as usize);
    Response::Talkers(Talkers { sources, looked_at: looked_at as u64, places: places as u64 })
}
