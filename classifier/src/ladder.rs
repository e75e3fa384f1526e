//! Which of a field's masks are worth trying in a table.

use std::hash::Hash;
use std::ops::BitAnd;

use crate::fold::FoldMap;

/// A few of the masks that one field has (each with its number of rules): none, what all
/// share, and at most about `portions` that part the rules into equal portions. `ones`
/// counts a mask's bits.
pub(crate) fn ladder<M>(
    weighted: impl Iterator<Item = (M, usize)>,
    ones: impl Fn(M) -> u32,
    portions: usize,
) -> Vec<M>
where
    M: Copy + Eq + Hash + Ord + Default + BitAnd<Output = M>,
{
    let mut weights: FoldMap<M, usize> = FoldMap::default();
    for (mask, count) in weighted {
        *weights.entry(mask).or_default() += count;
    }
    let mut masks: Vec<(M, usize)> = weights.into_iter().collect();
    masks.sort_unstable_by_key(|&(mask, _)| (ones(mask), mask));
    let shared = masks.iter().map(|&(mask, _)| mask).reduce(|a, b| a & b).unwrap_or_default();
    let mut picked = vec![M::default(), shared];
    if masks.len() <= portions {
        picked.extend(masks.iter().map(|&(mask, _)| mask));
    } else {
        let total: usize = masks.iter().map(|&(_, weight)| weight).sum();
        let (mut passed, mut next) = (0, 0);
        for (mask, weight) in masks {
            passed += weight;
            if passed * (portions - 1) >= next * total {
                picked.push(mask);
                next = passed * (portions - 1) / total + 1;
            }
        }
    }
    picked.sort_unstable();
    picked.dedup();
    picked
}
