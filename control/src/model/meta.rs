//! CLASSIFY, IDLETIMER, TEE, RATEEST and HMARK as written.

use dataplane::policy::measure::estimator::EstimatorParameters;

use super::HmarkSpec;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MetaSpec {
    /// `CLASSIFY --set-class`: major number in the high half.
    Classify(u32),
    /// `IDLETIMER`.
    IdleTimer {
        /// `--label`: at most 27 bytes; the timer is shared by it.
        label: Box<str>,
        /// `--timeout`.
        timeout_s: u32,
        /// `--alarm`: the kernel's timer wakes a sleeping machine.
        alarm: bool,
    },
    /// `TEE`.
    Tee {
        /// `--gateway`, in the common form.
        gateway: u128,
        /// `--oif`.
        output: Option<Box<str>>,
    },
    /// RATEEST.
    Rateest {
        /// `--rateest-name`.
        name: Box<str>,
        /// `--rateest-interval`, `--rateest-ewmalog`.
        parameters: EstimatorParameters,
    },
    /// HMARK.
    Hmark(Box<HmarkSpec>),
}
