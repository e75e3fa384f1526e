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
        MetaSpec::Rateest { name, parameters } => {
            let interval_ms = 250_u64 << parameters.interval_log;
            let interval = milliseconds(interval_ms);
            let average = milliseconds(interval_ms << parameters.ewma_log);
            let times = format_args!("--rateest-interval {interval} --rateest-ewmalog {average}");
            push(out, format_args!(" -j RATEEST --rateest-name {name} {times}"));
        }
    }
}

fn milliseconds(time: u64) -> String {
    if time >= 1_000 { format!("{:.1}s", time as f64 / 1e3) } else { format!("{time}.0ms") }
}
