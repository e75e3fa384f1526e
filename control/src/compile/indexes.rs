//! Finding rules in chains: indexes are shared with another policy where they say the same,
//! and built on several cores where not.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use classifier::Address;
use classifier::strategy::Strategy;
use dataplane::clock::{Nanos, monotonic};
use dataplane::policy::{Chain, ChainPolicy, CompiledRule, CounterId, OddIndex, TableId};

/// Cores that build at most.
const MOST_THREADS: usize = 4;
/// Fewer rules than this, over all chains, are not worth a thread.
const WORTH_A_THREAD: usize = 1_000;

/// A chain without its indexes.
#[derive(Debug)]
pub(super) struct Draft<A> {
    pub(super) table: TableId,
    pub(super) name: Box<str>,
    pub(super) policy: Option<(ChainPolicy, CounterId)>,
    pub(super) rules: Box<[CompiledRule<A>]>,
}

/// The indexes of one chain, as they become ready.
#[derive(Debug)]
struct Indexes<A> {
    classifier: OnceLock<Arc<Strategy<A>>>,
    odd: OnceLock<Arc<OddIndex<A>>>,
    took_ns: AtomicU64,
}

/// What is to be built: a chain by its number, and which of its indexes.
#[derive(Clone, Copy, Debug)]
struct Job {
    chain: usize,
    odd: bool,
}

/// The chains with their indexes, and what building those took.
pub(super) fn add<A: Address>(
    drafts: Vec<Draft<A>>,
    known: &[Chain<A>],
) -> (Box<[Chain<A>]>, Vec<Nanos>) {
    let named: HashMap<(TableId, &str), &Chain<A>> =
        known.iter().map(|chain| ((chain.table, &*chain.name), chain)).collect();
    let shared = |draft: &Draft<A>| {
        let like = named.get(&(draft.table, &*draft.name));
        like.map_or_else(Indexes::none, |like| Indexes::shared(draft, like))
    };
    let indexes: Vec<Indexes<A>> = drafts.iter().map(shared).collect();
    build(&drafts, &indexes);
    let finished = drafts.into_iter().zip(indexes).map(|(draft, indexes)| {
        let took = Nanos(indexes.took_ns.into_inner());
        let Draft { table, name, policy, rules } = draft;
        let classifier = indexes.classifier.into_inner();
        let classifier = classifier.unwrap_or_else(|| Arc::new(Chain::classifier_of(&rules)));
        let odd = indexes.odd.into_inner();
        let odd = odd.unwrap_or_else(|| Arc::new(OddIndex::build(&rules)));
        (Chain::with_indexes(table, name, policy, rules, classifier, odd), took)
    });
    let (chains, built): (Vec<_>, Vec<_>) = finished.unzip();
    (chains.into(), built)
}

impl<A: Address> Indexes<A> {
    fn none() -> Self {
        Self { classifier: OnceLock::new(), odd: OnceLock::new(), took_ns: AtomicU64::new(0) }
    }

    /// Those of `like` that answer for the draft's rules, too.
    fn shared(draft: &Draft<A>, like: &Chain<A>) -> Self {
        let indexes = Self::none();
        let both = || draft.rules.iter().zip(&like.rules);
        if draft.rules.len() != like.rules.len() {
            return indexes;
        }
        if both().all(|(rule, known)| rule.indexed == known.indexed) {
            indexes.classifier.get_or_init(|| Arc::clone(&like.classifier));
        }
        if both().all(|(rule, known)| rule.base == known.base) {
            indexes.odd.get_or_init(|| Arc::clone(&like.odd));
        }
        indexes
    }

    fn build(&self, draft: &Draft<A>, odd: bool) {
        let start = monotonic();
        match odd {
            true => drop(self.odd.get_or_init(|| Arc::new(OddIndex::build(&draft.rules)))),
            false => {
                self.classifier.get_or_init(|| Arc::new(Chain::classifier_of(&draft.rules)));
            }
        }
        self.took_ns.fetch_add((monotonic() - start).0, Ordering::Relaxed);
    }
}

/// Builds what is missing. Which thread builds what is left to chance; what comes of it is not.
fn build<A: Address>(drafts: &[Draft<A>], indexes: &[Indexes<A>]) {
    let missing = |(chain, indexes): (usize, &Indexes<A>)| {
        let classifier = indexes.classifier.get().is_none().then_some(Job { chain, odd: false });
        let odd = indexes.odd.get().is_none().then_some(Job { chain, odd: true });
        classifier.into_iter().chain(odd)
    };
    let mut jobs: Vec<Job> = indexes.iter().enumerate().flat_map(missing).collect();
    // The longest first, so that none of them is left for the end.
    jobs.sort_by_key(|job| (Reverse(drafts[job.chain].rules.len()), job.odd));
    let rules: usize = jobs.iter().map(|job| drafts[job.chain].rules.len()).sum();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            indexes[job.chain].build(&drafts[job.chain], job.odd);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads(rules).min(jobs.len().max(1)) {
            // Without a second thread the first does it all.
            let _ = thread::Builder::new().name("compile".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
}

/// How many threads so much work is worth.
pub(crate) fn threads(rules: usize) -> usize {
    match rules < WORTH_A_THREAD {
        true => 1,
        false => thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS),
    }
}
