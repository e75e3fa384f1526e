//! Amounts that rules own or share: made once, kept over policy swaps.

pub(super) mod saved;

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::policy::Match;
use dataplane::policy::matches::Neg;
use dataplane::policy::measure::estimator::EstimatorParameters;
use dataplane::policy::measure::{Account, Estimator, MeasureMatch, Nth, Quota, RateestMatch};

use super::StateError;
use super::pieces::{Left, Piece};
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

    /// What there is to keep.
    pub(super) fn export(&self, now: Nanos) -> Vec<Piece> {
        let accounts = self.accounts.iter().map(|(name, account)| saved::account(name, account));
        let estimators = self.estimators.iter();
        let estimators =
            estimators.filter_map(|(name, estimator)| saved::estimator(name, estimator, now));
        accounts.chain(estimators).collect()
    }

    /// Takes back what was kept, if anything here is of that kind and name.
    pub(super) fn import(&self, piece: &Piece, elapsed: Nanos, now: Nanos) -> Result<(), Left> {
        let name = piece.name.as_str();
        match piece.kind.as_str() {
            saved::ACCOUNT => {
                saved::put_account(piece, self.accounts.get(name).ok_or(Left::Unclaimed)?)
            }
            saved::ESTIMATOR => {
                let estimator = self.estimators.get(name).ok_or(Left::Unclaimed)?;
                saved::put_estimator(piece, estimator, elapsed, now)
            }
            _ => Err(Left::Unclaimed),
        }
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
    use crate::compile::{CompileError, Compiled, DynamicState, Imported, Input, Limits, compile};
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
    fn amounts_go_to_the_state_file_and_back() {
        let (quota, nth) = ("-m quota --quota 100", "-m statistic --mode nth --every 3 --packet 1");
        let account = "-m nfacct --nfacct-name web";
        let estimator =
            "-j RATEEST --rateest-name web --rateest-interval 1s --rateest-ewmalog 4s".to_owned();
        let asks = "-m rateest --rateest web --rateest-gt --rateest-pps 5";
        let timer = "-j IDLETIMER --timeout 60 --label lan";
        let rules = [quota, quota, nth, account, &estimator, asks, timer];
        let none = DynamicState::default();
        let (before, start) = (compiled(&rules, &none).unwrap(), Nanos::from_secs(100));
        before.dynamic.begin(start);
        let MeasureMatch::Quota(second) = measure(&before, 1) else { panic!("the second quota") };
        assert!(second.value.take(30));
        let MeasureMatch::Nth(turn) = measure(&before, 2) else { panic!("the turns") };
        assert!(!turn.value.take());
        let MeasureMatch::Nfacct(web) = measure(&before, 3) else { panic!("the account") };
        web.add(60);
        let rates = |compiled: &Compiled, now| match measure(compiled, 5) {
            MeasureMatch::Rateest(asks) => asks.first.rates(now),
            other => panic!("{other:?}"),
        };
        let MeasureMatch::Rateest(asked) = measure(&before, 5) else { panic!("the question") };
        (0..500).for_each(|ms| asked.first.add(1_000, start + Nanos::from_millis(10 * ms)));
        let saved = start + Nanos::from_secs(5);
        let pieces = before.dynamic.export_pieces(saved);
        assert_eq!(pieces.len(), 6);

        let (after, elapsed, now) =
            (compiled(&rules, &none).unwrap(), Nanos::from_secs(10), Nanos::from_secs(7));
        after.dynamic.begin(now);
        let imported = after.dynamic.import_pieces(&pieces, elapsed, now);
        assert_eq!(imported, Imported { taken: 6, ..Imported::default() });
        assert_eq!((left(&after, 0), left(&after, 1)), (100, 70));
        let MeasureMatch::Nth(turn) = measure(&after, 2) else { panic!("the turns") };
        assert!(turn.value.take(), "the second packet's");
        let shown = after.dynamic.accounts(false);
        assert_eq!((shown[0].packets, shown[0].bytes), (1, 60));
        assert!(rates(&after, now).0 > 0);
        assert_eq!(rates(&after, now), rates(&before, saved + elapsed), "faded meanwhile");
        let again = after.dynamic.export_pieces(now);
        let timer = again.iter().find(|piece| piece.kind == "idletimer").unwrap();
        assert_eq!(timer.bytes, Nanos::from_secs(60 - 5 - 10).0.to_le_bytes());
    }

    #[test]
    fn pieces_that_do_not_fit_change_nothing_and_are_told() {
        let (quota, nth) = ("-m quota --quota 100", "-m statistic --mode nth --every 3 --packet 1");
        let estimator = |log| {
            format!("-j RATEEST --rateest-name web --rateest-interval 1s --rateest-ewmalog {log}")
        };
        let asks = "-m rateest --rateest web --rateest-gt --rateest-pps 5";
        let account = "-m nfacct --nfacct-name web";
        let timer = "-j IDLETIMER --timeout 60 --label lan";
        let rules = [quota, nth, account, &estimator("4s"), asks, timer];
        let none = DynamicState::default();
        let before = compiled(&rules, &none).unwrap();
        let MeasureMatch::Quota(spent) = measure(&before, 0) else { panic!("the quota") };
        assert!(spent.value.take(100));
        let MeasureMatch::Rateest(asked) = measure(&before, 4) else { panic!("the question") };
        asked.first.add(1, Nanos::SECOND);
        let good = before.dynamic.export_pieces(Nanos::SECOND);
        assert_eq!(good.len(), 5);
        let untouched = |pieces: &[Piece]| {
            let fresh = compiled(&rules, &none).unwrap();
            let at = Nanos::from_secs(3);
            let had = fresh.dynamic.export_pieces(at);
            let imported = fresh.dynamic.import_pieces(pieces, Nanos(0), at);
            assert_eq!(fresh.dynamic.export_pieces(at), had, "{pieces:?}");
            imported
        };
        for piece in &good {
            let cut = |bytes: Vec<u8>| untouched(&[Piece { bytes, ..piece.clone() }]);
            let lengths = 0..piece.bytes.len();
            for imported in lengths.map(|length| cut(piece.bytes[..length].to_vec())) {
                let (_, _, why) = imported.first_refused.expect("told");
                assert_eq!((imported.taken, imported.refused, why), (0, 1, Left::Malformed));
            }
            assert_eq!(cut([&*piece.bytes, &[0]].concat()).refused, 1, "more than there should be");
            let newer = untouched(&[Piece { version: 2, ..piece.clone() }]);
            assert_eq!(newer.first_refused.expect("told").2, Left::Version(2));
            for name in ["", "nobody", "0 0 nobody", "x 0 y", "99999999999999999999 0 z", "0"] {
                let other = untouched(&[Piece { name: name.to_owned(), ..piece.clone() }]);
                assert_eq!((other.unclaimed, other.first_refused), (1, None), "{name}");
            }
        }
        let of = |kind: &str| good.iter().find(|piece| piece.kind == kind).unwrap();
        let more = Piece { bytes: 101_u64.to_le_bytes().to_vec(), ..of("quota").clone() };
        let never = Piece { bytes: 3_u32.to_le_bytes().to_vec(), ..of("nth").clone() };
        assert_eq!(untouched(&[more, never]).refused, 2, "more than the rule says");
        // The name of one with the kind of the other.
        let crossed = Piece { kind: "nth".to_owned(), ..of("quota").clone() };
        assert_eq!(untouched(&[crossed]).unclaimed, 1);
        let other = [quota, nth, account, &estimator("9s"), asks, timer];
        let other = compiled(&other, &none).unwrap();
        let imported = other.dynamic.import_pieces(&good, Nanos(0), Nanos::SECOND);
        assert_eq!((imported.taken, imported.unclaimed), (4, 1), "another average");
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
