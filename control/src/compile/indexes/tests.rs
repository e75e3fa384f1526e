//! What is shared says what would have been built.

use std::fmt::Write;
use std::sync::Arc;

use classifier::{ClassSet, Classifier, Key};
use dataplane::packet::Family;
use dataplane::policy::Chain;
use proptest::prelude::*;

use crate::compile::{Compiled, DynamicState, Input, Limits, compile, compile_over};
use crate::iptables::{self, TableNames};
use crate::model::Ruleset;

/// One rule: its source, its port, its protocol, and whether it accepts.
type Said = (u8, u16, bool, bool);

fn ruleset(chains: &[Vec<Said>]) -> Ruleset {
    let mut text = "*filter\n".to_owned();
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap();
    (0..chains.len()).for_each(|chain| line(format_args!(":c{chain} - [0:0]")));
    for (chain, rules) in chains.iter().enumerate() {
        for (source, port, tcp, accept) in rules {
            let proto = if *tcp { "tcp" } else { "udp" };
            let target = if *accept { "ACCEPT" } else { "DROP" };
            line(format_args!(
                "-A c{chain} -s 10.0.{source}.0/24 -p {proto} -m {proto} --dport {port} -j {target}"
            ));
        }
    }
    line(format_args!("COMMIT"));
    iptables::parse(&text, "test", Family::V4, &TableNames::well_known()).unwrap().ruleset
}

fn compiled(rules: &Ruleset, known: Option<&Compiled>) -> Compiled {
    let v6 = Ruleset::empty(Family::V6);
    let ports = ["eth0".to_owned()];
    let input = Input { v4: rules, v6: &v6, ports: &ports, limits: Limits::default() };
    let (state, sets) = (DynamicState::default(), Arc::default());
    match known {
        None => compile(input, &state).unwrap(),
        Some(known) => compile_over(input, &state, sets, Some(&known.policy)).unwrap(),
    }
}

/// Every answer to every packet that a rule is made for.
fn answers(chain: &Chain<u32>) -> Vec<Vec<u32>> {
    let lowest = |set: ClassSet| set.0 & set.0.wrapping_neg();
    let keys = chain.rules.iter().map(|rule| Key {
        src: rule.indexed.src.value() | 7,
        dport: rule.indexed.dport.low,
        proto: rule.indexed.proto.value(),
        l4: lowest(rule.indexed.l4),
        ..Key::zero()
    });
    let all = |key: Key<u32>| {
        let next = |from| chain.classifier.first_at_or_after(&key, from);
        std::iter::successors(next(0), |found| next(found + 1)).collect()
    };
    keys.map(all).collect()
}

fn said() -> impl Strategy<Value = Said> {
    (0..12_u8, 0..40_u16, any::<bool>(), any::<bool>())
}

/// What may happen to a chain.
fn changed(chain: &mut Vec<Said>, how: u8) {
    match (how, chain.len()) {
        (1, 1..) => chain.truncate(chain.len() - 1),
        (2, 1..) => chain[0].1 ^= 1,
        // Neither of these changes where rules are found.
        (3, 1..) => chain[0].3 ^= true,
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn shared_indexes_answer_as_if_they_were_built(
        before in prop::collection::vec(prop::collection::vec(said(), 0..80), 1..5),
        how in prop::collection::vec(0..5_u8, 5),
    ) {
        let mut after = before.clone();
        after.iter_mut().zip(&how).for_each(|(chain, how)| changed(chain, *how));
        // A new chain in front: the others are known by their names, not by their numbers.
        if how[4] == 4 {
            after.push(vec![(1, 1, true, true)]);
        }
        let old = compiled(&ruleset(&before), None);
        let rules = ruleset(&after);
        let (shared, anew) = (compiled(&rules, Some(&old)), compiled(&rules, None));
        for (chain, fresh) in shared.policy.v4.chains.iter().zip(&anew.policy.v4.chains) {
            prop_assert_eq!(answers(chain), answers(fresh));
            let old = old.policy.v4.chains.iter().find(|old| old.name == chain.name);
            let Some(old) = old else { continue };
            let selectors = |chain: &Chain<u32>| {
                chain.rules.iter().map(|rule| (rule.indexed, rule.base)).collect::<Vec<_>>()
            };
            let same = selectors(old) == selectors(chain);
            let both = Arc::ptr_eq(&old.classifier, &chain.classifier)
                && Arc::ptr_eq(&old.odd, &chain.odd);
            prop_assert_eq!(same, both);
        }
    }
}

#[test]
fn many_chains_are_indexed_by_several_threads_as_by_one() {
    let rule = |at: u16| ((at % 200) as u8, at, true, at.is_multiple_of(3));
    let chains: Vec<Vec<Said>> =
        (0..40).map(|chain| (chain..chain + 60).map(rule).collect()).collect();
    let compiled = compiled(&ruleset(&chains), None);
    let v4 = &compiled.policy.v4.chains;
    let user = v4.iter().filter(|chain| chain.name.starts_with('c'));
    assert_eq!(user.clone().count(), 40);
    for chain in user {
        for (at, found) in answers(chain).iter().enumerate() {
            assert_eq!(found, &[at as u32], "rule {at} of {}", chain.name);
        }
    }
    assert_eq!(compiled.built[0].len(), v4.len());
}
