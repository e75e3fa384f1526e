//! What a match or target module is to the command reader: a list of options,
//! a place to put their values, and a last word when the rule is complete.

use dataplane::packet::Family;
use dataplane::policy::TableId;

use super::lexer::Word;
use super::names::Names;
use crate::diagnostics::Code;
use crate::model::{MatchBody, Rule, Span, TargetSpec};

/// Something wrong in a rule, before it is bound to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
}

impl Problem {
    pub(crate) fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { code, span, message: message.into(), remedy: None }
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// One long option of a module. Synonyms share their `id`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opt {
    /// Long name without the dashes.
    pub(crate) name: &'static str,
    /// Identity in the module, below 32.
    pub(crate) id: u8,
    /// Whether it takes an operand.
    pub(crate) operand: bool,
    /// Whether `!` may stand before it.
    pub(crate) negatable: bool,
    /// Bits of the `id`s that must not be given with it.
    pub(crate) excludes: u32,
}

/// An option that takes an operand and may be negated.
pub(crate) const fn negatable(name: &'static str, id: u8) -> Opt {
    Opt { name, id, operand: true, negatable: true, excludes: 0 }
}

/// An option that takes an operand and may not be negated.
pub(crate) const fn plain(name: &'static str, id: u8) -> Opt {
    Opt { name, id, operand: true, negatable: false, excludes: 0 }
}

/// An option without an operand, not negatable.
pub(crate) const fn flag(name: &'static str, id: u8) -> Opt {
    Opt { name, id, operand: false, negatable: false, excludes: 0 }
}

impl Opt {
    /// Adds what must not be given with it.
    pub(crate) const fn excluding(self, excludes: u32) -> Self {
        Self { excludes, ..self }
    }
}

/// What a module may ask while it reads its options.
pub(crate) struct Context<'c> {
    pub(crate) family: Family,
    pub(crate) names: &'c dyn Names,
    /// `-p` so far: number and negation.
    pub(crate) proto: Option<(u8, bool)>,
    /// Words after the option, for options with two operands.
    pub(crate) rest: &'c [Word<'c>],
    /// Words of `rest` that the module has used.
    pub(crate) used: usize,
    /// Things worth a warning.
    pub(crate) warnings: Vec<Problem>,
}

/// The operand of an option, with the place of both.
pub(crate) struct Operand<'o> {
    /// Text; empty for flags.
    pub(crate) text: &'o str,
    /// Where the operand stands; the option itself for flags.
    pub(crate) span: Span,
    /// `!` before the option.
    pub(crate) negated: bool,
}

impl Operand<'_> {
    /// The operand cannot be read.
    pub(crate) fn bad(&self, message: impl Into<String>) -> Problem {
        Problem::new(Code::BadValue, self.span, message)
    }
}

/// Whether a module took an option, and if not, why.
pub(crate) type Taken = Result<(), Problem>;

/// The state of one loaded module.
pub(crate) trait Module {
    /// The module's name as `-m` or `-j` takes it.
    fn name(&self) -> &'static str;
    /// Its options, in the order the tools list them.
    fn options(&self) -> &'static [Opt];
    /// Called once when the module is loaded.
    fn loaded(&mut self, _family: Family) {}
    /// Whether an option may come again (its second coming is the module's to judge).
    fn may_repeat(&self, _id: u8) -> bool {
        false
    }
    /// Takes one option. Repetition, exclusion and negation were checked.
    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken;
}

/// A match module.
pub(crate) trait MatchModule: Module {
    /// The match, once the rule is complete. `rule` holds the base selectors.
    fn finish(&self, at: Span, seen: u32, rule: &Rule) -> Result<MatchBody, Problem>;
}

/// A target module.
pub(crate) trait TargetModule: Module {
    /// The target, once the rule is complete. `rule` holds the base selectors.
    fn finish(
        &self,
        at: Span,
        seen: u32,
        rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem>;
}

/// The bit of an option `id` in a set.
pub(crate) const fn bit(id: u8) -> u32 {
    1 << id
}

/// Checks an option against what was seen of its module before, and notes it.
pub(crate) fn admit(
    module: &dyn Module,
    seen: &mut u32,
    opt: &Opt,
    negated: bool,
    at: Span,
) -> Result<(), Problem> {
    if let Some(other) =
        module.options().iter().find(|other| opt.excludes & *seen & bit(other.id) != 0)
    {
        return Err(Problem::new(
            Code::ConflictingOptions,
            at,
            format!("--{} cannot be used together with --{}", opt.name, other.name),
        ));
    }
    if *seen & bit(opt.id) != 0 && !module.may_repeat(opt.id) {
        let first = module.options().iter().find(|o| o.id == opt.id).map_or(opt.name, |o| o.name);
        return Err(Problem::new(
            Code::RepeatedOption,
            at,
            format!("{}: --{first} can only be used once in one match or target", module.name()),
        )
        .remedy(format!("load the module again (`-m {}') to compare twice", module.name())));
    }
    if negated && !opt.negatable {
        return Err(Problem::new(
            Code::BadNegation,
            at,
            format!("{}: --{} cannot be inverted", module.name(), opt.name),
        ));
    }
    *seen |= bit(opt.id);
    Ok(())
}

/// The error of a module that needs an option which was not given.
pub(crate) fn required(at: Span, module: &str, options: &str) -> Problem {
    Problem::new(Code::MissingOption, at, format!("{module}: {options} must be given"))
}

/// The error of a module that only works under a certain `-p`.
pub(crate) fn needs_protocol(at: Span, what: &str, protocol: &str) -> Problem {
    Problem::new(Code::NeedsProtocol, at, format!("{what} needs `-p {protocol}'"))
        .remedy(format!("add `-p {protocol}' to the rule"))
}

/// Whether the rule has exactly this protocol, not negated.
pub(crate) fn has_protocol(rule: &Rule, number: u8) -> bool {
    rule.proto.is_some_and(|proto| !proto.negated && proto.value == number)
}
