//! Makes a failing case small: packets first, then rules, then their parts.

use super::Case;

/// Smaller cases tried at most.
const TRIES: usize = 600;

/// The smallest case found for which `fails` still holds.
pub fn shrink(case: &Case, mut fails: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut tries = 0;
    let mut attempt = |best: &mut Case, candidate: Case| -> bool {
        tries += 1;
        if tries > TRIES || !fails(&candidate) {
            return false;
        }
        *best = candidate;
        true
    };
    loop {
        let before = size(&best);
        drop_packets(&mut best, &mut attempt);
        drop_rules(&mut best, &mut attempt);
        drop_parts(&mut best, &mut attempt);
        drop_chains(&mut best, &mut attempt);
        if size(&best) == before {
            return best;
        }
    }
}

fn size(case: &Case) -> (usize, usize) {
    (case.packets.len(), case.rules.text().len())
}

type Attempt<'a> = dyn FnMut(&mut Case, Case) -> bool + 'a;

/// Removes runs of packets, from large to single.
fn drop_packets(best: &mut Case, attempt: &mut Attempt<'_>) {
    let mut run = best.packets.len().div_ceil(2);
    while run > 0 {
        let mut at = 0;
        while at < best.packets.len() {
            let mut candidate = best.clone();
            candidate.packets.drain(at..(at + run).min(best.packets.len()));
            if !attempt(best, candidate) {
                at += run;
            }
        }
        run /= 2;
    }
}

fn drop_rules(best: &mut Case, attempt: &mut Attempt<'_>) {
    for table in 0..best.rules.tables.len() {
        // All of a table's rules at once, then chain by chain, then one by one.
        let mut candidate = best.clone();
        candidate.rules.tables[table].chains.iter_mut().for_each(|chain| chain.rules.clear());
        if attempt(best, candidate) {
            continue;
        }
        for chain in 0..best.rules.tables[table].chains.len() {
            let mut candidate = best.clone();
            candidate.rules.tables[table].chains[chain].rules.clear();
            if attempt(best, candidate) {
                continue;
            }
            let mut rule = best.rules.tables[table].chains[chain].rules.len();
            while rule > 0 {
                rule -= 1;
                let mut candidate = best.clone();
                candidate.rules.tables[table].chains[chain].rules.remove(rule);
                attempt(best, candidate);
            }
        }
    }
}

/// Removes options, and simplifies targets and policies.
fn drop_parts(best: &mut Case, attempt: &mut Attempt<'_>) {
    for table in 0..best.rules.tables.len() {
        for chain in 0..best.rules.tables[table].chains.len() {
            if best.rules.tables[table].chains[chain].policy == Some("DROP") {
                let mut candidate = best.clone();
                candidate.rules.tables[table].chains[chain].policy = Some("ACCEPT");
                attempt(best, candidate);
            }
            for rule in 0..best.rules.tables[table].chains[chain].rules.len() {
                let mut part = best.rules.tables[table].chains[chain].rules[rule].parts.len();
                while part > 0 {
                    part -= 1;
                    let mut candidate = best.clone();
                    candidate.rules.tables[table].chains[chain].rules[rule].parts.remove(part);
                    attempt(best, candidate);
                }
                if !best.rules.tables[table].chains[chain].rules[rule].target.is_empty() {
                    let mut candidate = best.clone();
                    candidate.rules.tables[table].chains[chain].rules[rule].target.clear();
                    attempt(best, candidate);
                }
            }
        }
    }
}

/// Removes user chains that nothing jumps to.
fn drop_chains(best: &mut Case, attempt: &mut Attempt<'_>) {
    for table in 0..best.rules.tables.len() {
        let mut chain = best.rules.tables[table].chains.len();
        while chain > 0 {
            chain -= 1;
            if best.rules.tables[table].chains[chain].policy.is_none() {
                let mut candidate = best.clone();
                candidate.rules.tables[table].chains.remove(chain);
                attempt(best, candidate);
            }
        }
    }
}
