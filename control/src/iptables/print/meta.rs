//! CLASSIFY, IDLETIMER, TEE, RATEEST and HMARK in normal form.

use dataplane::packet::Family;

use super::push;
use crate::iptables::address::{format_address, width};
use crate::model::{HmarkSpec, MetaSpec};

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
        MetaSpec::Hmark(spec) => hmark(out, spec, family),
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

fn hmark(out: &mut String, spec: &HmarkSpec, family: Family) {
    out.push_str(" -j HMARK");
    for (name, mask) in [("src", spec.src_mask), ("dst", spec.dst_mask)] {
        if let Some(mask) = mask {
            let length = (mask << (128 - width(family))).leading_ones();
            push(out, format_args!(" --hmark-{name}-prefix {length}"));
        }
    }
    let short = |value: Option<u16>| value.map(u32::from);
    let numbers = [
        ("sport-mask", short(spec.sport_mask), 4),
        ("dport-mask", short(spec.dport_mask), 4),
        ("spi-mask", spec.spi_mask, 8),
        ("sport", short(spec.sport), 4),
        ("dport", short(spec.dport), 4),
        ("spi", spec.spi, 8),
        ("proto-mask", short(spec.proto_mask), 2),
        ("rnd", Some(spec.seed), 8),
    ];
    for (name, value, digits) in numbers {
        if let Some(value) = value {
            push(out, format_args!(" --hmark-{name} 0x{value:0digits$x}"));
        }
    }
    push(out, format_args!(" --hmark-mod {}", spec.modulus));
    if let Some(offset) = spec.offset {
        push(out, format_args!(" --hmark-offset {offset}"));
    }
    if spec.connection {
        out.push_str(" --hmark-tuple ct");
    }
}
