//! Loading match and target modules and giving them their options.

use super::{
    ChainKind, LoadedMatch, LoadedTarget, MAX_MATCHES, Operand, Reader, Stop, Word, known, matches,
    targets,
};
use crate::diagnostics::Code;
use crate::iptables::extension::{self, Context, MatchModule, Module, Problem};
use crate::iptables::getopt::Meaning;
use crate::model::{Span, TargetSpec};
use dataplane::packet::Family;
use dataplane::policy::TableId;

impl<'w> Reader<'_, 'w> {
    pub(super) fn load_match(&mut self, word: &Word<'_>) -> Result<(), Stop> {
        match matches::load(&word.text, self.around.family) {
            Some(module) => self.add_match(module, word.span),
            None => Err(self.stop(missing_match(word, self.around.family))),
        }
    }

    pub(super) fn add_match(
        &mut self,
        module: Box<dyn MatchModule>,
        span: Span,
    ) -> Result<(), Stop> {
        if self.matches.len() == MAX_MATCHES {
            let message = format!("more than {MAX_MATCHES} matches in one rule");
            return Err(self.stop(Problem::new(Code::TooLong, span, message)));
        }
        self.scanner.load_match(module.options(), self.matches.len());
        self.matches.push(LoadedMatch { module, seen: 0, span });
        Ok(())
    }

    pub(super) fn match_option(
        &mut self,
        index: usize,
        position: usize,
        name: Span,
        operand: Option<Operand<'w>>,
    ) -> Result<(), Stop> {
        let loaded = &mut self.matches[index];
        let opt = &loaded.module.options()[position];
        let negated = self.invert.is_some();
        let admitted = extension::admit(&*loaded.module, &mut loaded.seen, opt, negated, name);
        let id = opt.id;
        self.give(Meaning::Match(index, position), id, name, operand, admitted)
    }

    pub(super) fn target_option(
        &mut self,
        position: usize,
        name: Span,
        operand: Option<Operand<'w>>,
    ) -> Result<(), Stop> {
        let Some(loaded) = &mut self.target else { return Ok(()) };
        let opt = &loaded.module.options()[position];
        let negated = self.invert.is_some();
        let admitted = extension::admit(&*loaded.module, &mut loaded.seen, opt, negated, name);
        let id = opt.id;
        self.give(Meaning::Target(position), id, name, operand, admitted)
    }

    /// Hands an admitted option to its module.
    fn give(
        &mut self,
        to: Meaning,
        id: u8,
        name: Span,
        operand: Option<Operand<'w>>,
        admitted: Result<(), Problem>,
    ) -> Result<(), Stop> {
        if let Err(problem) = admitted {
            self.error(problem);
            return Ok(());
        }
        let word = operand.map(|operand| operand.word);
        if let Some(word) = word.as_ref().filter(|word| word.text == "!") {
            return Err(self.stop(super::intraposed(word.span, "--option OPERAND")));
        }
        let operand = extension::Operand {
            text: word.as_ref().map_or("", |word| &*word.text),
            span: word.as_ref().map_or(name, |word| word.span),
            negated: self.invert.is_some(),
        };
        let mut context = Context {
            family: self.around.family,
            names: self.around.names,
            proto: self.rule.proto.map(|proto| (proto.value, proto.negated)),
            rest: self.scanner.rest(),
            used: 0,
            warnings: Vec::new(),
        };
        let module: &mut dyn Module = match to {
            Meaning::Match(index, _) => &mut *self.matches[index].module,
            _ => match &mut self.target {
                Some(target) => &mut *target.module,
                None => return Ok(()),
            },
        };
        let result = module.set(id, &operand, &mut context);
        let used = context.used;
        self.warnings.append(&mut context.warnings);
        self.scanner.skip(used);
        if let Err(problem) = result {
            self.error(problem);
        }
        Ok(())
    }

    pub(super) fn jump(&mut self, word: &Word<'_>, goto: bool) -> Result<(), Stop> {
        self.rule.target_span = word.span;
        let name = &*word.text;
        match (self.around.chain)(name) {
            Some(ChainKind::BuiltIn) => {
                let message = format!("built-in chain `{name}' cannot be jumped to");
                return Err(self.stop(Problem::new(Code::MissingChain, word.span, message)));
            }
            Some(ChainKind::User) => {
                if targets::exists(name) || known::is_known_target(name) {
                    let message = format!("`{name}' is a chain here and hides the target");
                    self.warnings.push(Problem::new(Code::NoEffect, word.span, message));
                }
                let name = name.to_string();
                self.rule.target =
                    if goto { TargetSpec::Goto(name) } else { TargetSpec::Jump(name) };
                return Ok(());
            }
            None => {}
        }
        if goto {
            return Err(self.stop(missing_chain(word, self.around.table)));
        }
        self.rule.target = match name {
            "ACCEPT" => TargetSpec::Accept,
            "DROP" if self.around.table == TableId::Nat => {
                let problem = Problem::new(
                    Code::WrongTable,
                    word.span,
                    "the nat table is not for filtering: DROP is refused in it",
                );
                self.error(problem.remedy("drop in the filter table"));
                TargetSpec::Drop
            }
            "DROP" => TargetSpec::Drop,
            "RETURN" => TargetSpec::Return,
            _ => return self.load_target(word),
        };
        Ok(())
    }

    fn load_target(&mut self, word: &Word<'_>) -> Result<(), Stop> {
        if let Some(mut module) = targets::load(&word.text, self.around.family) {
            module.loaded(self.around.family);
            self.scanner.load_target(module.options());
            self.target = Some(LoadedTarget { module, seen: 0, span: word.span });
            return Ok(());
        }
        let problem = if targets::exists(&word.text) {
            let (this, other) = match self.around.family {
                Family::V4 => ("IPv4", "IPv6"),
                Family::V6 => ("IPv6", "IPv4"),
            };
            let message = format!("target {} is for {other} only, this is {this}", word.text);
            Problem::new(Code::UnsupportedTarget, word.span, message)
        } else if let Some(refused) = known::refused_target(&word.text) {
            let message = format!("target {} is not supported: {}", word.text, refused.reason);
            Problem::new(Code::UnsupportedTarget, word.span, message).remedy(refused.remedy)
        } else if known::is_target(&word.text) {
            let message = format!("target {} is not supported yet", word.text);
            Problem::new(Code::UnsupportedTarget, word.span, message)
        } else {
            missing_chain(word, self.around.table)
        };
        Err(self.stop(problem))
    }
}

/// The refusal of a match that the kernel's tools have.
pub(super) fn unsupported_match(name: &str, span: Span) -> Problem {
    match known::refused_match(name) {
        Some(refused) => {
            let message = format!("match `{name}' is not supported: {}", refused.reason);
            Problem::new(Code::UnsupportedMatch, span, message).remedy(refused.remedy)
        }
        None => {
            let message = format!("match `{name}' is not supported yet");
            Problem::new(Code::UnsupportedMatch, span, message)
        }
    }
}

fn missing_match(word: &Word<'_>, family: Family) -> Problem {
    let name = &*word.text;
    let other = match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    if matches::load(name, other).is_some() {
        let this = if family == Family::V4 { "IPv4" } else { "IPv6" };
        let message = format!("there is no match `{name}' for {this}");
        let problem = Problem::new(Code::UnknownMatch, word.span, message);
        let instead = match name {
            "hl" => "-m ttl",
            "ttl" => "-m hl",
            "icmp6" | "icmpv6" | "ipv6-icmp" => "-m icmp",
            "icmp" => "-m icmp6",
            "frag" => "-f",
            _ if family == Family::V6 => return problem,
            _ => return problem.remedy("IPv4 has no such header: leave the rule to ip6tables"),
        };
        return problem.remedy(format!("use `{instead}'"));
    }
    if known::is_match(name) || known::refused_match(name).is_some() {
        return unsupported_match(name, word.span);
    }
    Problem::new(Code::UnknownMatch, word.span, format!("there is no match `{name}'"))
}

fn missing_chain(word: &Word<'_>, table: TableId) -> Problem {
    let message = if word.text.is_empty() {
        "the target's name is empty".to_string()
    } else {
        format!("there is no chain or target `{}' here", word.text)
    };
    Problem::new(Code::MissingChain, word.span, message).remedy(format!(
        "declare the chain in table {} before its first use: `:NAME - [0:0]'",
        table.name()
    ))
}
