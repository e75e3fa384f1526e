//! Matches on time, chance and amounts, in normal form.

use dataplane::packet::Family;
use dataplane::policy::measure::estimator::{RateCompare, RateTest};
use dataplane::policy::measure::time::{ALL_MONTHDAYS, ALL_WEEKDAYS, LAST_SECOND};
use dataplane::policy::measure::{ClusterMatch, MeasureMatch, TimeMatch};

use super::{bang, push, quoted};
use crate::iptables::matches::{DAY_NAMES, date_text, time_text};
use crate::model::MeasureSpec;

pub(super) fn body(out: &mut String, found: &MeasureMatch, _family: Family) {
    match found {
        MeasureMatch::Time(found) => time(out, found),
        MeasureMatch::Random(below) => {
            let probability = f64::from(below.value) / f64::from(MeasureMatch::CHANCES);
            let bang = bang(below.negated);
            let mode = " -m statistic --mode random";
            push(out, format_args!("{mode} {bang}--probability {probability:.11}"));
        }
        MeasureMatch::Cpu(cpu) => {
            push(out, format_args!(" -m cpu {}--cpu {}", bang(cpu.negated), cpu.value));
        }
        MeasureMatch::Cluster(found) => cluster(out, found),
        // A model holds what owns state as written; these exist after compiling only.
        MeasureMatch::Nth(_)
        | MeasureMatch::Quota(_)
        | MeasureMatch::Nfacct(_)
        | MeasureMatch::Rateest(_) => {}
    }
}

/// Those that come with state.
pub(super) fn spec(out: &mut String, spec: &MeasureSpec, _family: Family) {
    match spec {
        MeasureSpec::Nth { negated, every, packet } => {
            let (mode, bang) = (" -m statistic --mode nth", bang(*negated));
            push(out, format_args!("{mode} {bang}--every {every} --packet {packet}"));
        }
        MeasureSpec::Quota { negated, bytes } => {
            push(out, format_args!(" -m quota {}--quota {bytes}", bang(*negated)));
        }
        MeasureSpec::Nfacct(name) => {
            out.push_str(" -m nfacct --nfacct-name ");
            match name.bytes().all(|b| b.is_ascii_graphic() && b != b'"') {
                true => out.push_str(name),
                false => {
                    out.pop();
                    quoted(out, name);
                }
            }
        }
        MeasureSpec::Rateest { test, first, second } => {
            rateest(out, test, first, second.as_deref());
        }
    }
}

fn time(out: &mut String, found: &TimeMatch) {
    out.push_str(" -m time");
    if found.day_start_s != 0 || found.day_stop_s != LAST_SECOND {
        let (start, stop) = (time_text(found.day_start_s), time_text(found.day_stop_s));
        push(out, format_args!(" --timestart {start} --timestop {stop}"));
    }
    if found.monthdays != ALL_MONTHDAYS {
        let days = (1..=31).filter(|day| found.monthdays >> day & 1 != 0);
        let days: Vec<String> = days.map(|day: u32| day.to_string()).collect();
        push(out, format_args!(" --monthdays {}", days.join(",")));
    }
    if found.weekdays != ALL_WEEKDAYS {
        let days = DAY_NAMES.iter().enumerate();
        let days: Vec<&str> = days
            .filter(|(at, _)| found.weekdays >> (at + 1) & 1 != 0)
            .map(|(_, name)| *name)
            .collect();
        push(out, format_args!(" --weekdays {}", days.join(",")));
    }
    if found.date_start_s != 0 {
        push(out, format_args!(" --datestart {}", date_text(found.date_start_s)));
    }
    push(out, format_args!(" --datestop {}", date_text(found.date_stop_s)));
    if found.kernel_tz {
        out.push_str(" --kerneltz");
    }
    if found.contiguous {
        out.push_str(" --contiguous");
    }
}

fn cluster(out: &mut String, found: &ClusterMatch) {
    let ClusterMatch { nodes, mask, negated, seed } = *found;
    push(out, format_args!(" -m cluster {}--cluster-local-nodemask 0x{mask:08x}", bang(negated)));
    let total = "--cluster-total-nodes";
    push(out, format_args!(" {total} {nodes} --cluster-hash-seed 0x{seed:08x}"));
}

fn rateest(out: &mut String, test: &RateTest, first: &str, second: Option<&str>) {
    out.push_str(" -m rateest");
    if test.delta {
        out.push_str(" --rateest-delta");
    }
    let number = if second.is_some() { "1" } else { "" };
    push(out, format_args!(" --rateest{number} {first}"));
    let compare = match test.compare {
        RateCompare::Equal => "eq",
        RateCompare::Less => "lt",
        RateCompare::Greater => "gt",
    };
    let bits = |bytes: u32| bits_text(u64::from(bytes) * 8);
    let bytes = test.bytes.map(|sides| ("bps", sides.map(bits)));
    let packets = test.packets.map(|sides| ("pps", sides.map(|side| side.to_string())));
    for (unit, [left, right]) in bytes.into_iter().chain(packets) {
        if test.delta {
            push(out, format_args!(" --rateest-{unit}1 {left}"));
        }
        push(out, format_args!(" {}--rateest-{compare}", bang(test.negated)));
        match (test.delta, second) {
            (true, _) => push(out, format_args!(" --rateest-{unit}2 {right}")),
            (false, None) => push(out, format_args!(" --rateest-{unit} {right}")),
            (false, Some(_)) => push(out, format_args!(" --rateest-{unit}")),
        }
    }
    if let Some(second) = second {
        push(out, format_args!(" --rateest2 {second}"));
    }
}

/// A rate as the tools round it.
fn bits_text(bits: u64) -> String {
    let bits = bits as f64;
    if bits >= 1e9 {
        format!("{:.0}Mbit", bits / 1e6)
    } else if bits >= 1e6 {
        format!("{:.0}Kbit", bits / 1e3)
    } else {
        format!("{bits:.0}bit")
    }
}
