//! NFLOG, AUDIT and TRACE in normal form.

use dataplane::policy::report::{NflogTarget, ReportTarget};

use super::{push, quoted};

pub(super) fn target(out: &mut String, report: &ReportTarget) {
    push(out, format_args!(" -j {}", report.name()));
    match report {
        ReportTarget::Nflog(nflog) => options(out, nflog),
        ReportTarget::Audit(kind) => push(out, format_args!(" --type {}", kind.name())),
        ReportTarget::Trace => {}
    }
}

fn options(out: &mut String, nflog: &NflogTarget) {
    if !nflog.prefix.is_empty() {
        out.push_str(" --nflog-prefix");
        quoted(out, &nflog.prefix);
    }
    if nflog.group != 0 {
        push(out, format_args!(" --nflog-group {}", nflog.group));
    }
    if nflog.range != 0 {
        push(out, format_args!(" --nflog-range {}", nflog.range));
    }
    if let Some(size) = nflog.size {
        push(out, format_args!(" --nflog-size {size}"));
    }
    if nflog.threshold != 0 {
        push(out, format_args!(" --nflog-threshold {}", nflog.threshold));
    }
}
