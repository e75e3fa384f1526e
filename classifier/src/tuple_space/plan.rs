//! Chooses the covers: greedily, the one that places most rules in small
//! buckets, until few rules are left or the tables are used up.

use super::Leaf;
use super::cover::{Cover, Salt};
use crate::Address;
use crate::fold::FoldMap;
use crate::ladder::ladder;

/// Most hash tables that one build makes.
pub const MAX_TABLES: usize = 16;

/// Few enough to scan rather than to hash.
const SCANNED: usize = 8;

/// Bucket sizes that are tolerated, in turn, as placing rules gets harder.
const BUCKETS: [u8; 3] = [8, 32, 128];

/// Masks tried per field and round.
const LADDER: usize = 6;

/// Where each leaf goes.
pub(super) struct Plan<A> {
    pub(super) tables: Vec<(Cover<A>, Vec<u32>)>,
    pub(super) remainder: Vec<u32>,
}

/// A finest cover and how many of the leaves left have it.
type Groups<A> = Vec<(Cover<A>, usize)>;

/// Distributes `leaves[possible]` over tables. `covers[leaf]` is the leaf's finest cover.
pub(super) fn choose<A: Address>(
    salt: &Salt,
    leaves: &[Leaf<A>],
    covers: &[Cover<A>],
    possible: Vec<u32>,
) -> Plan<A> {
    let mut plan = Plan { tables: Vec::new(), remainder: possible };
    let mut census = Census { salt, leaves, covers, counts: Vec::new(), slots: Vec::new() };
    let mut bucket = 0;
    while plan.tables.len() < MAX_TABLES && plan.remainder.len() > SCANNED {
        let limit = BUCKETS[bucket];
        let groups = group(covers, &plan.remainder);
        // A table costs every lookup a probe: it must earn that.
        let worthwhile = (plan.remainder.len() / 32).max(SCANNED);
        let best = best_cover(&mut census, &groups, &plan.remainder, limit, worthwhile);
        let Some(cover) = best else {
            bucket += 1;
            if bucket == BUCKETS.len() {
                break;
            }
            continue;
        };
        let (members, rest) = census.split(&cover, &plan.remainder, limit);
        debug_assert!(!members.is_empty());
        plan.tables.push((cover, members));
        plan.remainder = rest;
    }
    place_leftovers(covers, &mut plan);
    plan
}

/// When the tables are used up and many rules are left, large buckets are still
/// better than one long list: each rule joins the finest table that admits it.
fn place_leftovers<A: Address>(covers: &[Cover<A>], plan: &mut Plan<A>) {
    if plan.tables.len() < MAX_TABLES {
        return;
    }
    let mut rest = Vec::new();
    for leaf in std::mem::take(&mut plan.remainder) {
        let admitting = plan
            .tables
            .iter_mut()
            .filter(|(cover, _)| cover.bits() > 0 && cover.admits(&covers[leaf as usize]));
        match admitting.max_by_key(|(cover, _)| cover.bits()) {
            Some((_, members)) => members.push(leaf),
            None => rest.push(leaf),
        }
    }
    plan.remainder = rest;
}

fn group<A: Address>(covers: &[Cover<A>], left: &[u32]) -> Groups<A> {
    let mut groups: FoldMap<Cover<A>, usize> = FoldMap::default();
    for &leaf in left {
        *groups.entry(covers[leaf as usize]).or_default() += 1;
    }
    groups.into_iter().collect()
}

/// The cover that places most leaves in buckets of at most `limit`; of equals,
/// the one that hashes more bits. `None`: none places `worthwhile` leaves.
fn best_cover<A: Address>(
    census: &mut Census<'_, A>,
    groups: &Groups<A>,
    left: &[u32],
    limit: u8,
    worthwhile: usize,
) -> Option<Cover<A>> {
    let mut candidates: Vec<(usize, Cover<A>)> = candidates(groups)
        .into_iter()
        .map(|cover| {
            let admitted = groups.iter().filter(|(finest, _)| cover.admits(finest));
            (admitted.map(|(_, count)| count).sum(), cover)
        })
        .collect();
    candidates.sort_by_key(|(admitted, cover)| {
        // The masks break ties, so that a build does not depend on hash order.
        let masks = (cover.src, cover.dst, cover.sport, cover.dport, cover.proto);
        (std::cmp::Reverse((*admitted, cover.bits())), masks)
    });
    let mut best: Option<(usize, u32, Cover<A>)> = None;
    for (admitted, cover) in candidates {
        let (floor, bits) = best.as_ref().map_or((worthwhile, 0), |best| (best.0, best.1));
        if admitted < floor {
            break;
        }
        let placed = census.placed(&cover, left, limit);
        if (placed, cover.bits()) > (floor, bits) || best.is_none() && placed >= worthwhile {
            best = Some((placed, cover.bits(), cover));
        }
    }
    best.map(|(_, _, cover)| cover)
}

/// All combinations of a few masks a field.
fn candidates<A: Address>(groups: &Groups<A>) -> Vec<Cover<A>> {
    let address = |field: fn(&Cover<A>) -> A| {
        let masks = groups.iter().map(|(cover, count)| (field(cover), *count));
        ladder(masks, |mask| mask.to_u128().count_ones(), LADDER)
    };
    let port = |field: fn(&Cover<A>) -> u16| {
        let masks = groups.iter().map(|(cover, count)| (field(cover), *count));
        ladder(masks, u16::count_ones, LADDER)
    };
    let (sources, destinations) = (address(|cover| cover.src), address(|cover| cover.dst));
    let (sports, dports) = (port(|cover| cover.sport), port(|cover| cover.dport));
    let protos = groups.iter().map(|(cover, count)| (cover.proto, *count));
    let protos = ladder(protos, u8::count_ones, LADDER);
    let mut covers = Vec::new();
    for &src in &sources {
        for &dst in &destinations {
            for &sport in &sports {
                for &dport in &dports {
                    for &proto in &protos {
                        covers.push(Cover { src, dst, sport, dport, proto });
                    }
                }
            }
        }
    }
    covers
}

/// Counts leaves by hashed bucket.
struct Census<'b, A> {
    salt: &'b Salt,
    leaves: &'b [Leaf<A>],
    covers: &'b [Cover<A>],
    counts: Vec<u8>,
    slots: Vec<u32>,
}

impl<A: Address> Census<'_, A> {
    /// Fills `slots` (by index in `left`; `u32::MAX` where not admitted) and `counts`.
    fn count(&mut self, cover: &Cover<A>, left: &[u32]) {
        // Sixteen slots a leaf: chance collisions hardly disturb the count.
        let bits = (left.len() * 16).next_power_of_two().ilog2().clamp(4, 20);
        self.counts.clear();
        self.counts.resize(1 << bits, 0);
        self.slots.clear();
        for &leaf in left {
            let slot = if cover.admits(&self.covers[leaf as usize]) {
                let hash = cover.hash_rule(self.salt, &self.leaves[leaf as usize].rule);
                let slot = (hash >> (64 - bits)) as u32;
                let count = &mut self.counts[slot as usize];
                *count = count.saturating_add(1);
                slot
            } else {
                u32::MAX
            };
            self.slots.push(slot);
        }
    }
    /// Whether the leaf that fell into `slot` has a small enough bucket.
    fn fits(&self, slot: u32, limit: u8) -> bool {
        slot != u32::MAX && self.counts[slot as usize] <= limit
    }
    /// How many leaves the cover would place.
    fn placed(&mut self, cover: &Cover<A>, left: &[u32], limit: u8) -> usize {
        self.count(cover, left);
        self.slots.iter().filter(|&&slot| self.fits(slot, limit)).count()
    }
    /// Those placed, and the rest.
    fn split(&mut self, cover: &Cover<A>, left: &[u32], limit: u8) -> (Vec<u32>, Vec<u32>) {
        self.count(cover, left);
        let mut index = 0;
        left.iter().partition(|_| {
            index += 1;
            self.fits(self.slots[index - 1], limit)
        })
    }
}
