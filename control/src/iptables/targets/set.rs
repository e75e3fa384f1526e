//! `-j SET`.

use dataplane::policy::TableId;

use super::wrong_table;
use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, bit, flag, plain, required,
};
use crate::iptables::matches::named_set;
use crate::iptables::value;
use crate::model::sets::{MapSpec, SetTargetSpec};
use crate::model::{Rule, Span, TargetSpec};

const OPTIONS: &[Opt] = &[
    plain("add-set", 0),
    plain("del-set", 1),
    flag("exist", 2),
    plain("timeout", 3),
    plain("map-set", 4),
    flag("map-mark", 5),
    flag("map-prio", 6),
    flag("map-queue", 7),
];

#[derive(Default)]
pub(super) struct Set {
    found: SetTargetSpec,
}

impl Module for Set {
    fn name(&self) -> &'static str {
        "SET"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            0 => self.found.add = Some(named_set("--add-set", operand, context)?),
            1 => self.found.del = Some(named_set("--del-set", operand, context)?),
            2 => self.found.exist = true,
            3 => {
                let most = u64::from(u32::MAX - 1);
                let seconds = value::number(operand.text, 0, most).ok_or_else(|| {
                    operand
                        .bad(format!("`{}' is no number of seconds", operand.text))
                        .remedy(format!("write a number from 0 (for ever) to {most}"))
                })?;
                self.found.timeout_s = Some(seconds as u32);
            }
            4 => {
                let set = named_set("--map-set", operand, context)?;
                self.found.map = Some(MapSpec { set, mark: false, priority: false, queue: false });
            }
            // They may come before --map-set: `finish` looks at what was seen.
            _ => {}
        }
        Ok(())
    }
}

/// The error of an option that means nothing without another.
fn only_with(at: Span, option: &str, other: &str) -> Problem {
    let message = format!("SET: {option} means nothing without {other}");
    Problem::new(Code::MissingOption, at, message)
        .remedy(format!("add {other}, or leave {option} out"))
}

impl TargetModule for Set {
    fn finish(
        &self,
        at: Span,
        seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let has = |id: u8| seen & bit(id) != 0;
        let mut found = self.found.clone();
        if found.add.is_none() && (has(2) || has(3)) {
            return Err(only_with(at, if has(2) { "--exist" } else { "--timeout" }, "--add-set"));
        }
        let mapped = [(5, "--map-mark"), (6, "--map-prio"), (7, "--map-queue")];
        let first = mapped.iter().find(|(id, _)| has(*id));
        match (&mut found.map, first) {
            (None, Some((_, option))) => return Err(only_with(at, option, "--map-set")),
            (Some(_), None) => {
                return Err(required(at, "SET", "--map-mark, --map-prio or --map-queue"));
            }
            (Some(map), Some(_)) => (map.mark, map.priority, map.queue) = (has(5), has(6), has(7)),
            (None, None) => {}
        }
        if found.sets().next().is_none() {
            return Err(required(at, "SET", "--add-set, --del-set or --map-set"));
        }
        if found.map.is_some() && table != TableId::Mangle {
            return Err(wrong_table(at, "SET --map-set", "mangle", table));
        }
        Ok(TargetSpec::Set(found))
    }
}
