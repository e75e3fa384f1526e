//! Which rules a packet may meet whose layer 4 cannot be read whole.
//!
//! Such a packet meets rules that the chain's classifier would pass over, since
//! a match may drop it outright; but only rules whose base selectors it
//! satisfies. Those are found here without a walk along the whole chain, which
//! anybody could otherwise ask for with a few bytes.

use classifier::strategy::{Explanation, Strategy};
use classifier::{Address, Classifier, Key, Masked, Rule};

use super::{BaseMatch, CompiledRule};

/// "First rule at or after p whose base selectors may match", for one chain.
#[derive(Debug)]
pub struct OddIndex<A> {
    classifier: Strategy<A>,
    /// The protocols that rules ask for, each once.
    protocols: Box<[u8]>,
}

impl<A: Address> OddIndex<A> {
    /// Indexes the base selectors of a chain's rules.
    pub fn build(rules: &[CompiledRule<A>]) -> Self {
        let bases = || rules.iter().map(|rule| &rule.base);
        let mut protocols: Vec<u8> = bases().filter_map(protocol).collect();
        protocols.sort_unstable();
        protocols.dedup();
        // Few packets ask it: what they may cost is bounded by any layout.
        let classifier = Strategy::build_plainly(bases().map(selectors).collect());
        Self { classifier, protocols: protocols.into() }
    }

    /// What was built, and what one search costs at most.
    pub fn explain(&self) -> Explanation {
        self.classifier.explain()
    }

    /// Most searches for one packet: behind a broken header chain any protocol could be meant.
    pub fn most_searches(&self) -> usize {
        self.protocols.len() + 1
    }

    /// The first rule at or after `from` that the packet behind `key` may meet.
    /// With a `broken` header chain its protocol is not known: any could be meant.
    pub(super) fn first_at_or_after(&self, key: &Key<A>, from: u32, broken: bool) -> Option<u32> {
        let first = |proto| self.classifier.first_at_or_after(&Key { proto, ..*key }, from);
        let meant = broken.then(|| self.protocols.iter().filter_map(|&proto| first(proto)).min());
        meant.flatten().into_iter().chain(first(key.proto)).min()
    }
}

/// The protocol that a rule asks for.
fn protocol<A>(base: &BaseMatch<A>) -> Option<u8> {
    base.proto.filter(|(_, negated)| !negated).map(|(proto, _)| proto)
}

/// The base selectors as far as the classifier can say them.
fn selectors<A: Address>(base: &BaseMatch<A>) -> Rule<A> {
    let plain = |(masked, negated): (Masked<A>, bool)| match negated {
        true => Masked::default(),
        false => masked,
    };
    Rule {
        src: plain(base.src),
        dst: plain(base.dst),
        proto: protocol(base).map_or_else(Masked::default, |proto| Masked::new(proto, 0xff)),
        iif: base.iif,
        oif: base.oif,
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CompiledRule, Key, OddIndex};
    use crate::packet::{PktType, PortId};
    use crate::policy::eval::Outcome;
    use crate::policy::testing::{Builder, Indexing, Spec};
    use crate::policy::{ChainPolicy, Hook, TableId, Target};
    use crate::wire::build::Packet;
    use crate::wire::parse::parse_ipv6;

    fn rules(specs: Vec<Spec<u128>>) -> Box<[CompiledRule<u128>]> {
        let mut builder = Builder::new(Indexing::Wide, 0);
        builder.builtin(TableId::Filter, Hook::Forward, ChainPolicy::Accept, specs);
        let chain = builder.family().0.chains.into_iter().next();
        chain.map(|chain| chain.rules).unwrap_or_default()
    }

    /// All candidates in order.
    fn candidates(index: &OddIndex<u128>, key: &Key<u128>, broken: bool) -> Vec<u32> {
        let next = |from: u32| index.first_at_or_after(key, from, broken);
        std::iter::successors(next(0), |&found| next(found + 1)).collect()
    }

    fn any_base() -> impl proptest::strategy::Strategy<Value = Spec<u128>> {
        let address = (0u128..4, prop::sample::select(vec![0u128, 1, 3, u128::MAX]), any::<bool>());
        let proto = prop::option::of((prop::sample::select(vec![0u8, 6, 17, 58]), any::<bool>()));
        (address, proto, 1u64..4).prop_map(|((value, mask, negated), proto, input)| {
            let mut spec = Spec::any(Target::Count).src(value, mask, negated).input(input);
            spec.base.proto = proto;
            spec
        })
    }

    proptest! {
        #[test]
        fn no_rule_that_could_judge_a_packet_is_passed_over(
            specs in prop::collection::vec(any_base(), 0..60),
            src in 0u128..4,
            proto in prop::sample::select(vec![6u8, 17, 58, 132]),
            broken in any::<bool>(),
            input in 0u8..2,
        ) {
            let rules = rules(specs);
            let index = OddIndex::build(&rules);
            let frame = Packet::udp("2001:db8::1", 1, "2001:db8::2", 2).build();
            let parsed = parse_ipv6(&frame, 14, PktType::Host).unwrap();
            let parsed = crate::packet::Parsed { proto: if broken { 0 } else { proto }, ..parsed };
            let iif = PortId(input).bit();
            let key = Key { src, iif, oif: 1, proto: parsed.proto, ..Key::zero() };
            let found = candidates(&index, &key, parsed.broken_chain());
            for (at, rule) in rules.iter().enumerate() {
                let may = rule.base.evaluate(&key, &parsed) != Outcome::No;
                prop_assert!(!may || found.contains(&(at as u32)), "rule {at} of {found:?}");
            }
        }
    }

    #[test]
    fn a_few_bytes_do_not_ask_for_a_walk_along_the_whole_chain() {
        let spec = |number: u32| {
            let spec = Spec::any(Target::Accept).src(u128::from(number), u128::MAX, false);
            spec.proto([6, 17, 58][number as usize % 3])
        };
        let index = OddIndex::build(&rules((0..10_000).map(spec).collect()));
        let key = |proto| Key { src: 4999, iif: 1, oif: 1, proto, ..Key::zero() };
        assert_eq!(candidates(&index, &key(17), false), [4999]);
        assert_eq!(candidates(&index, &key(6), false), []);
        assert_eq!(candidates(&index, &key(0), true), [4999], "any protocol could be meant");
    }
}
