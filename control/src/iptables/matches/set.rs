//! `-m set`.

use dataplane::sets::{CountTest, SetName, Sides};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, plain,
    required,
};
use crate::iptables::value;
use crate::model::sets::{NamedSet, SetSpec};
use crate::model::{MatchBody, Rule, Span};

const MATCH_SET: u8 = 0;
const PACKETS: u32 = bit(4) | bit(5) | bit(6);
const BYTES: u32 = bit(7) | bit(8) | bit(9);

const fn negatable_flag(name: &'static str, id: u8) -> Opt {
    Opt { negatable: true, ..flag(name, id) }
}

const fn one_of(opt: Opt, all: u32) -> Opt {
    opt.excluding(all & !bit(opt.id))
}

const OPTIONS: &[Opt] = &[
    negatable("match-set", MATCH_SET),
    // Its old name.
    negatable("set", MATCH_SET),
    flag("return-nomatch", 1),
    negatable_flag("update-counters", 2),
    negatable_flag("update-subcounters", 3),
    one_of(negatable("packets-eq", 4), PACKETS),
    one_of(plain("packets-lt", 5), PACKETS),
    one_of(plain("packets-gt", 6), PACKETS),
    one_of(negatable("bytes-eq", 7), BYTES),
    one_of(plain("bytes-lt", 8), BYTES),
    one_of(plain("bytes-gt", 9), BYTES),
];

#[derive(Default)]
pub(super) struct Set {
    set: Option<NamedSet>,
    negated: bool,
    return_nomatch: bool,
    keep_counters: bool,
    keep_subcounters: bool,
    packets: Option<CountTest>,
    bytes: Option<CountTest>,
}

impl Module for Set {
    fn name(&self) -> &'static str {
        "set"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            MATCH_SET => {
                self.set = Some(named_set("--match-set", operand, context)?);
                self.negated = operand.negated;
            }
            1 => self.return_nomatch = true,
            2 => self.keep_counters = operand.negated,
            3 => self.keep_subcounters = operand.negated,
            4..=6 => self.packets = Some(count(id - 4, operand)?),
            _ => self.bytes = Some(count(id - 7, operand)?),
        }
        Ok(())
    }
}

fn count(which: u8, operand: &Operand<'_>) -> Result<CountTest, Problem> {
    let value = value::number(operand.text, 0, u64::MAX).ok_or_else(|| {
        operand
            .bad(format!("`{}' is no count", operand.text))
            .remedy(format!("write a number from 0 to {}", u64::MAX))
    })?;
    Ok(match which {
        0 if operand.negated => CountTest::NotEqual(value),
        0 => CountTest::Equal(value),
        1 => CountTest::Less(value),
        _ => CountTest::Greater(value),
    })
}

/// `NAME src,dst`: the operand and the word behind it.
pub(crate) fn named_set(
    option: &str,
    operand: &Operand<'_>,
    context: &mut Context<'_>,
) -> Result<NamedSet, Problem> {
    let name = SetName::new(operand.text).map_err(|_| {
        let length = operand.text.len();
        operand
            .bad(format!("the name of a set has 1 to {} bytes, this has {length}", SetName::MAX))
            .remedy("give the set a shorter name")
    })?;
    let sides = context.rest.first().filter(|word| !word.text.starts_with(['-', '!']));
    let Some(word) = sides else {
        return Err(operand
            .bad(format!("{option} needs two operands"))
            .remedy(format!("write `{option} {name} src' or `{option} {name} dst'")));
    };
    context.used = 1;
    let wanted: Option<Vec<bool>> = word
        .text
        .split(',')
        .map(|side| match side {
            "src" => Some(true),
            "dst" => Some(false),
            _ => None,
        })
        .collect();
    let sides = wanted.as_deref().and_then(Sides::new).ok_or_else(|| {
        let at = Operand { text: &word.text, span: word.span, negated: false };
        let most = Sides::MAX;
        at.bad(format!("`{}' is no list of at most {most} of src and dst", word.text))
            .remedy("write src or dst for each part of the set's elements, as in src,dst")
    })?;
    Ok(NamedSet { name, sides })
}

impl MatchModule for Set {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let Some(set) = self.set else { return Err(required(at, "set", "--match-set")) };
        Ok(MatchBody::Set(SetSpec {
            set,
            negated: self.negated,
            return_nomatch: self.return_nomatch,
            keep_counters: self.keep_counters,
            keep_subcounters: self.keep_subcounters,
            packets: self.packets,
            bytes: self.bytes,
        }))
    }
}
