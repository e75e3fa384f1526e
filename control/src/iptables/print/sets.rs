//! `-m set` and `-j SET` in normal form.

use dataplane::sets::CountTest;

use super::push;
use crate::ipset::quoted;
use crate::model::sets::NamedSet;
use crate::model::{SetSpec, SetTargetSpec};

pub(super) fn spec(out: &mut String, spec: &SetSpec) {
    out.push_str(" -m set");
    if spec.negated {
        out.push_str(" !");
    }
    named(out, "--match-set", &spec.set);
    if spec.return_nomatch {
        out.push_str(" --return-nomatch");
    }
    if spec.keep_counters {
        out.push_str(" ! --update-counters");
    }
    if spec.keep_subcounters {
        out.push_str(" ! --update-subcounters");
    }
    count(out, "packets", spec.packets);
    count(out, "bytes", spec.bytes);
}

pub(super) fn target(out: &mut String, spec: &SetTargetSpec) {
    out.push_str(" -j SET");
    if let Some(set) = &spec.add {
        named(out, "--add-set", set);
        if spec.exist {
            out.push_str(" --exist");
        }
        if let Some(seconds) = spec.timeout_s {
            push(out, format_args!(" --timeout {seconds}"));
        }
    }
    if let Some(set) = &spec.del {
        named(out, "--del-set", set);
    }
    if let Some(map) = &spec.map {
        named(out, "--map-set", &map.set);
        let flags = [(map.mark, "mark"), (map.priority, "prio"), (map.queue, "queue")];
        for (_, what) in flags.iter().filter(|(given, _)| *given) {
            push(out, format_args!(" --map-{what}"));
        }
    }
}

fn named(out: &mut String, option: &str, set: &NamedSet) {
    // The tools print blanks bare, and cannot read them again.
    push(out, format_args!(" {option} {} ", quoted(set.name.as_str())));
    for at in 0..set.sides.len() {
        let comma = if at > 0 { "," } else { "" };
        let side = if set.sides.is_source(at) { "src" } else { "dst" };
        push(out, format_args!("{comma}{side}"));
    }
}

fn count(out: &mut String, what: &str, test: Option<CountTest>) {
    let Some(test) = test else { return };
    let (bang, how, value) = match test {
        CountTest::Equal(value) => ("", "eq", value),
        CountTest::NotEqual(value) => ("! ", "eq", value),
        CountTest::Less(value) => ("", "lt", value),
        CountTest::Greater(value) => ("", "gt", value),
    };
    push(out, format_args!(" {bang}--{what}-{how} {value}"));
}
