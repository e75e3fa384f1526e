//! NFLOG and AUDIT: they change nothing, neither verdicts nor counters. TRACE would flood
//! the kernel's log, which the LOG lines of a case are read from.

use crate::diff::rng::Rng;
use crate::diff::rules::Place;

/// One of them.
pub fn target(rng: &mut Rng, _place: &Place<'_>, _parts: &[String]) -> Option<String> {
    Some(match rng.below(2) {
        0 => {
            let group = rng.pick(&["", " --nflog-group 5", " --nflog-group 65535"]);
            let prefix = rng.pick(&["", " --nflog-prefix x", " --nflog-prefix \"a \\\"b\\\" c \""]);
            let size = rng.pick(&["", " --nflog-size 0", " --nflog-size 64"]);
            let threshold = rng.pick(&["", " --nflog-threshold 1"]);
            format!("-j NFLOG{prefix}{group}{size}{threshold}")
        }
        _ => format!("-j AUDIT --type {}", rng.pick(&["accept", "drop", "reject"])),
    })
}
