//! `-m cluster`: which node of several is responsible for a connection.

use crate::nat;
use crate::packet::Family;
use crate::policy::eval::PacketView;

/// Most nodes.
pub const MAX_NODES: u32 = 32;

/// `-m cluster`. Never matches a packet without connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterMatch {
    /// `--cluster-total-nodes`: 1 to [`MAX_NODES`].
    pub nodes: u32,
    /// `--cluster-local-nodemask`: one bit for each node that is meant.
    pub mask: u32,
    /// `!` before it.
    pub negated: bool,
    /// `--cluster-hash-seed`.
    pub seed: u32,
}

impl ClusterMatch {
    /// Whether the packet's connection is one of the nodes'. One that was expected
    /// belongs to whom the connection belongs that expected it.
    pub fn matches(&self, packet: &PacketView<'_>) -> bool {
        let Some(conn) = packet.tracking.conn else { return false };
        let table = packet.conntrack;
        let master = table.master(conn).and_then(|master| table.view(master));
        let Some(owner) = master.or_else(|| table.view(conn)) else { return false };
        // Of an IPv6 address the kernel hashes the first 32 bits only.
        let source = match owner.original.family {
            Family::V4 => owner.original.src,
            Family::V6 => owner.original.src >> 96,
        };
        let hash = nat::hash(Family::V4, source, self.seed);
        let node = (u64::from(hash) * u64::from(self.nodes)) >> 32;
        (self.mask >> node & 1 != 0) != self.negated
    }
}
