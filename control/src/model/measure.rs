//! `-m quota`, `nfacct`, `rateest`, `statistic --mode nth`: matches that own amounts, or
//! share them by name, as written.

use dataplane::policy::measure::estimator::RateTest;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MeasureSpec {
    /// `-m statistic --mode nth`.
    Nth {
        /// `!` before `--every`.
        negated: bool,
        /// `--every`, at least 1.
        every: u32,
        /// `--packet`, below `every`.
        packet: u32,
    },
    /// `-m quota`.
    Quota {
        /// `!` before it.
        negated: bool,
        /// `--quota`.
        bytes: u64,
    },
    /// `-m nfacct --nfacct-name`.
    Nfacct(Box<str>),
    /// `-m rateest`.
    Rateest {
        /// What is compared.
        test: RateTest,
        /// `--rateest1`.
        first: Box<str>,
        /// `--rateest2`.
        second: Option<Box<str>>,
    },
}

impl MeasureSpec {
    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        false
    }
}
