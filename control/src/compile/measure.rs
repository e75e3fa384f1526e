//! Amounts that rules own or share: made once, kept over policy swaps.

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::policy::Match;
use dataplane::policy::matches::Neg;
use dataplane::policy::measure::estimator::EstimatorParameters;
use dataplane::policy::measure::{Account, Estimator, MeasureMatch, Nth, Quota, RateestMatch};

use super::StateError;
use crate::api::protocol::AccountEntry;
use crate::model::{MeasureSpec, MetaSpec, TargetSpec};

/// What rules share by name, in both families.
#[derive(Clone, Debug, Default)]
pub(super) struct Measures {
    accounts: HashMap<Box<str>, Arc<Account>>,
    estimators: HashMap<Box<str>, Arc<Estimator>>,
}

impl Measures {
    /// The estimator that a RATEEST rule makes, that of `previous` if it had it. Matches
    /// may then ask for it, wherever they stand.
    pub(super) fn declare(
        &mut self,
        target: &TargetSpec,
        previous: &Self,
    ) -> Result<(), StateError> {
        let TargetSpec::Meta(MetaSpec::Rateest { name, parameters }) = target else {
            return Ok(());
        };
        match self.estimators.get(name) {
            Some(known) if known.parameters() != *parameters => {
                Err(StateError::Estimator(name.to_string()))
            }
            Some(_) => Ok(()),
            None => {
                let kept = previous.estimator(name, *parameters);
                let made = kept.unwrap_or_else(|| Arc::new(Estimator::new(*parameters)));
                self.estimators.insert(name.clone(), made);
                Ok(())
            }
        }
    }

    /// What was counted under each name, in order of names.
    pub(super) fn accounts(&self, reset: bool) -> Vec<AccountEntry> {
        let mut all: Vec<AccountEntry> = self
            .accounts
            .iter()
            .map(|(name, account)| {
                let counted = if reset { account.reset() } else { account.counted() };
                let (packets, bytes) = counted;
                AccountEntry { name: name.to_string(), packets, bytes }
            })
            .collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn estimator(&self, name: &str, parameters: EstimatorParameters) -> Option<Arc<Estimator>> {
        let found = self.estimators.get(name);
        found.filter(|found| found.parameters() == parameters).cloned()
    }

    /// The estimator of that name.
    pub(super) fn estimator_named(&self, name: &str) -> Result<Arc<Estimator>, StateError> {
        let found = self.estimators.get(name).cloned();
        found.ok_or_else(|| StateError::NoEstimator(name.to_owned()))
    }

    /// The match. What it shares by name comes from `previous`, from what this policy has
    /// made already, or is made now; what it owns alone is `kept` from the same rule of
    /// the policy before, if that had it.
    pub(super) fn resolve(
        &mut self,
        spec: &MeasureSpec,
        previous: &Self,
        kept: Option<&Match>,
    ) -> Result<Match, StateError> {
        Ok(Match::Measure(match spec {
            MeasureSpec::Nth { negated, every, packet } => {
                let value = match kept {
                    Some(Match::Measure(MeasureMatch::Nth(nth))) => Arc::clone(&nth.value),
                    _ => Arc::new(Nth::new(*every, *packet)),
                };
                MeasureMatch::Nth(Neg { negated: *negated, value })
            }
            MeasureSpec::Quota { negated, bytes } => {
                let value = match kept {
                    Some(Match::Measure(MeasureMatch::Quota(quota))) => Arc::clone(&quota.value),
                    _ => Arc::new(Quota::new(*bytes)),
                };
                MeasureMatch::Quota(Neg { negated: *negated, value })
            }
            MeasureSpec::Nfacct(name) => {
                let account = self
                    .accounts
                    .entry(name.clone())
                    .or_insert_with(|| previous.accounts.get(name).cloned().unwrap_or_default());
                MeasureMatch::Nfacct(Arc::clone(account))
            }
            MeasureSpec::Rateest { test, first, second } => {
                let second = second.as_deref().map(|name| self.estimator_named(name));
                MeasureMatch::Rateest(RateestMatch {
                    test: *test,
                    first: self.estimator_named(first)?,
                    second: second.transpose()?,
                })
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use dataplane::packet::Family;

    use super::*;
    use crate::compile::{CompileError, Compiled, DynamicState, Input, Limits, compile};
    use crate::iptables::{TableNames, parse};
    use crate::model::Ruleset;

    fn compiled(rules: &[&str], previous: &DynamicState) -> Result<Compiled, CompileError> {
        let lines: Vec<String> = rules.iter().map(|rule| format!("-A FORWARD {rule}\n")).collect();
        let text = format!("*filter\n{}COMMIT\n", lines.concat());
        let names = TableNames::well_known();
        let parsed = parse(&text, "rules", Family::V4, &names).expect("good rules");
        let v6 = Ruleset::empty(Family::V6);
        let input = Input { v4: &parsed.ruleset, v6: &v6, ports: &[], limits: Limits::default() };
        compile(input, previous)
    }

    fn measure(compiled: &Compiled, rule: usize) -> &MeasureMatch {
        let chains = &compiled.policy.v4.chains;
        let chain = chains.iter().find(|chain| &*chain.name == "FORWARD").expect("the chain");
        match &chain.rules[rule].matches[0] {
            Match::Measure(found) => found,
            other => panic!("{other:?}"),
        }
    }

    fn left(compiled: &Compiled, rule: usize) -> u64 {
        match measure(compiled, rule) {
            MeasureMatch::Quota(quota) => quota.value.left(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn amounts_outlive_a_policy_that_keeps_their_rule_or_name() {
        let (quota, nth) = ("-m quota --quota 100", "-m statistic --mode nth --every 3 --packet 1");
        let account = "-m nfacct --nfacct-name web";
        let first = compiled(&[quota, quota, nth, account], &DynamicState::default()).unwrap();
        let MeasureMatch::Quota(second) = measure(&first, 1) else { panic!("the second quota") };
        assert!(second.value.take(30));
        let MeasureMatch::Nth(turn) = measure(&first, 2) else { panic!("the turns") };
        assert!(!turn.value.take());
        let MeasureMatch::Nfacct(web) = measure(&first, 3) else { panic!("the account") };
        web.add(60);
        // Another place for each, the account in another rule.
        let other = "-s 192.0.2.1 -m nfacct --nfacct-name web";
        let next = compiled(&[other, nth, quota, quota], &first.dynamic).unwrap();
        assert_eq!((left(&next, 2), left(&next, 3)), (100, 70));
        let MeasureMatch::Nth(turn) = measure(&next, 1) else { panic!("the turns") };
        assert!(turn.value.take(), "the second packet's");
        let shown = next.dynamic.accounts(true);
        assert_eq!((shown[0].packets, shown[0].bytes), (1, 60));
        assert_eq!(next.dynamic.accounts(false)[0].packets, 0);
        let changed = compiled(&["-m quota --quota 101"], &next.dynamic).unwrap();
        assert_eq!(left(&changed, 0), 101, "another rule");
    }

    #[test]
    fn estimators_are_made_by_rateest_wherever_it_stands() {
        let ask = "-m rateest --rateest web --rateest-gt --rateest-pps 5";
        let make = |log| {
            format!("-j RATEEST --rateest-name web --rateest-interval 1s --rateest-ewmalog {log}")
        };
        let none = DynamicState::default();
        let first = compiled(&[ask, &make("4s")], &none).unwrap();
        let MeasureMatch::Rateest(asks) = measure(&first, 0) else { panic!("the question") };
        let again = compiled(&[&make("4s"), ask], &first.dynamic).unwrap();
        let MeasureMatch::Rateest(still) = measure(&again, 1) else { panic!("the question") };
        assert!(Arc::ptr_eq(&asks.first, &still.first), "measured on");
        let source = |outcome: Result<Compiled, CompileError>| match outcome {
            Err(CompileError::State { source, span, .. }) => (source, span.line),
            other => panic!("{other:?}"),
        };
        let missing = StateError::NoEstimator("web".to_owned());
        assert_eq!(source(compiled(&[ask], &none)), (missing, 2));
        let twice = StateError::Estimator("web".to_owned());
        assert_eq!(source(compiled(&[&make("4s"), &make("9s")], &none)), (twice, 3));
    }
}
