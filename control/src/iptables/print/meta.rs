//! CLASSIFY, IDLETIMER and TEE in normal form.

use dataplane::packet::Family;

use super::push;
use crate::iptables::address::format_address;
use crate::model::MetaSpec;

pub(super) fn target(out: &mut String, spec: &MetaSpec, family: Family) {
    match spec {
        MetaSpec::Classify(class) => {
            let (major, minor) = (class >> 16, class & 0xffff);
            push(out, format_args!(" -j CLASSIFY --set-class {major:04x}:{minor:04x}"));
        }
        MetaSpec::IdleTimer { label, timeout_s, alarm } => {
            let alarm = if *alarm { " --alarm" } else { "" };
            push(out, format_args!(" -j IDLETIMER --timeout {timeout_s} --label {label}{alarm}"));
        }
        MetaSpec::Tee { gateway, output } => {
            push(out, format_args!(" -j TEE --gateway {}", format_address(*gateway, family)));
            if let Some(output) = output {
                push(out, format_args!(" --oif {output}"));
            }
        }
    }
}
