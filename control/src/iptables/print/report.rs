//! NFLOG, AUDIT and TRACE in normal form.

use dataplane::policy::report::ReportTarget;

pub(super) fn target(_out: &mut String, report: &ReportTarget) {
    match *report {}
}
