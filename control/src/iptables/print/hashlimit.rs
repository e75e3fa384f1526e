//! `-m hashlimit` in normal form.

use dataplane::packet::Family;
use dataplane::policy::tally::rate::{SCALE, bytes_of_cost, cost_of_bytes};
use dataplane::policy::tally::{HashSettings, Rate, Unit};

use super::push;
use super::tally::word;
use crate::iptables::address::width;
use crate::iptables::matches::hashlimit::{
    BYTE_EXPIRE_S, BYTE_UNITS, DEFAULT_GC_MS, KEY_PARTS, RATE_UNITS,
};

pub(super) fn hashlimit(
    out: &mut String,
    name: &str,
    above: bool,
    settings: &HashSettings,
    family: Family,
) {
    let option = if above { "above" } else { "upto" };
    push(out, format_args!(" -m hashlimit --hashlimit-{option}"));
    let expire_s = match settings.rate.unit {
        Unit::Packets => packets(out, &settings.rate),
        Unit::Bytes => bytes(out, &settings.rate),
    };
    let parts = settings.parts;
    let named = KEY_PARTS.into_iter().zip([parts.src, parts.sport, parts.dst, parts.dport]);
    let named: Vec<&str> = named.filter(|(_, has)| *has).map(|(name, _)| name).collect();
    if !named.is_empty() {
        push(out, format_args!(" --hashlimit-mode {}", named.join(",")));
    }
    out.push_str(" --hashlimit-name");
    word(out, name);
    let full = width(family) as u8;
    let gc_ms = if settings.gc_ms == DEFAULT_GC_MS { 0 } else { settings.gc_ms };
    let expire_ms = if settings.expire_ms == expire_s * 1000 { 0 } else { settings.expire_ms };
    for (option, number) in [
        ("htable-size", settings.buckets),
        ("htable-max", settings.most),
        ("htable-gcinterval", gc_ms),
        ("htable-expire", expire_ms),
    ] {
        if number != 0 {
            push(out, format_args!(" --hashlimit-{option} {number}"));
        }
    }
    for (option, len) in [("srcmask", settings.src_len), ("dstmask", settings.dst_len)] {
        if len != full {
            push(out, format_args!(" --hashlimit-{option} {len}"));
        }
    }
    if let Some(window_s) = settings.rate.window_s {
        out.push_str(" --hashlimit-rate-match");
        if window_s != 1 {
            push(out, format_args!(" --hashlimit-rate-interval {window_s}"));
        }
    }
}

/// Prints a rate of packets; returns the seconds after which entries expire by default.
fn packets(out: &mut String, rate: &Rate) -> u32 {
    let length = |seconds: u32| SCALE * u64::from(seconds);
    // The longest unit that says it, as the tools choose it.
    let worse = |&(_, seconds): &(&str, u32)| {
        let length = length(seconds);
        rate.avg > length || length / rate.avg < length % rate.avg
    };
    let longer = RATE_UNITS.iter().skip(1).position(worse).unwrap_or(RATE_UNITS.len() - 1);
    let (unit, seconds) = RATE_UNITS[longer];
    let count = length(seconds) / rate.avg;
    push(out, format_args!(" {count}/{unit} --hashlimit-burst {}", rate.burst));
    seconds
}

/// The same for bytes.
fn bytes(out: &mut String, rate: &Rate) -> u32 {
    let second = bytes_of_cost(rate.avg);
    let says = |&(_, factor): &(&str, u64)| {
        let cut = second & !(factor - 1);
        second >= factor && u32::try_from(cut).is_ok_and(|cut| cost_of_bytes(cut) == rate.avg)
    };
    let last = BYTE_UNITS[BYTE_UNITS.len() - 1];
    let (unit, factor) = BYTE_UNITS.into_iter().find(says).unwrap_or(last);
    push(out, format_args!(" {}{unit}/s", second / factor));
    if rate.burst == 0 {
        return BYTE_EXPIRE_S.0;
    }
    // The tools cut the burst to whole units, which may be another burst.
    let all = second.saturating_mul(rate.burst);
    let says = |&(_, factor): &(&str, u64)| {
        let cut = all & !(factor - 1);
        cut >= second && cut.div_ceil(second) == rate.burst
    };
    let (unit, factor) = BYTE_UNITS.into_iter().find(says).unwrap_or(last);
    push(out, format_args!(" --hashlimit-burst {}{unit}", all / factor));
    BYTE_EXPIRE_S.1
}
