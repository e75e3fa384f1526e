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
