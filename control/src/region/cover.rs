//! Do these regions together cover that one?
//!
//! First packets are tried that may lie open: ends and insides of the region's own
//! ranges. Where they are all covered the region is cut by one cover after
//! the other until a piece lies open or none is left. How often is bounded: the question
//! is a hard one in general, though hardly ever for rules that people write.

use super::{Point, Region};

/// Packets that are tried before a region is cut.
const TRIES: u64 = 12;

/// What is known of a region and its covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cover {
    /// All of it is covered, by these covers among those given, rising; each covers
    /// some part that those before it in the search left open.
    Whole(Vec<usize>),
    /// This packet of it is not.
    Open(Point),
    /// The effort was not enough to say.
    Unknown,
}

/// What may be spent: pairs of regions to compare.
#[derive(Clone, Copy, Debug)]
pub struct Effort(pub u64);

impl Effort {
    /// Takes so much of it; false if it is not there.
    pub fn spend(&mut self, amount: usize) -> bool {
        let enough = self.0 >= amount as u64;
        self.0 = self.0.saturating_sub(amount as u64);
        enough
    }
}

/// Whether `covers` together cover `region`. A cover is a union of regions.
pub fn cover(region: &Region, covers: &[&[Region]], effort: &mut Effort) -> Cover {
    if region.is_empty() {
        return Cover::Whole(Vec::new());
    }
    let parts =
        covers.iter().enumerate().flat_map(|(at, cover)| cover.iter().map(move |it| (at, it)));
    let near: Vec<(usize, &Region)> = parts.filter(|(_, it)| it.meets(region)).collect();
    if let Some((at, _)) = near.iter().find(|(_, it)| region.within(it)) {
        return Cover::Whole(vec![*at]);
    }
    for point in (0..TRIES).filter_map(|nth| region.pick(nth)) {
        if !effort.spend(near.len()) {
            return Cover::Unknown;
        }
        if !near.iter().any(|(_, it)| it.contains(&point)) {
            return Cover::Open(point);
        }
    }
    let mut used = Vec::new();
    match cut(region.clone(), &near, &mut used, effort) {
        Cover::Whole(_) => {
            used.sort_unstable();
            used.dedup();
            Cover::Whole(used)
        }
        other => other,
    }
}

/// Cuts a region by the first cover that meets it, and goes on with each piece. `used`
/// takes the covers that were needed.
fn cut(
    region: Region,
    covers: &[(usize, &Region)],
    used: &mut Vec<usize>,
    effort: &mut Effort,
) -> Cover {
    // Pieces still to be covered, each with the covers that are left for it.
    let mut open = vec![(region, covers.to_vec())];
    while let Some((region, covers)) = open.pop() {
        if !effort.spend(covers.len() + 1) {
            return Cover::Unknown;
        }
        let whole = covers.iter().find(|(_, it)| region.within(it));
        let Some((at, cutter)) = whole.or(covers.first()) else {
            return region.pick(0).map_or(Cover::Unknown, Cover::Open);
        };
        used.push(*at);
        for piece in region.minus(cutter) {
            let near = covers.iter().filter(|(_, it)| it.meets(&piece)).copied().collect();
            open.push((piece, near));
        }
    }
    Cover::Whole(Vec::new())
}
