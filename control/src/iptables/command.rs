//! One command line of a table: its words to an [`Action`] and its rules.
//!
//! Reads left to right as the tools do. What a bad operand spoils stays in its
//! own option; what changes the meaning of later words (an unknown option, an
//! unsupported module) ends the line.

mod finish;
mod modules;

use std::borrow::Cow;

use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Neg};
use dataplane::policy::{ChainPolicy, TableId};

use super::address;
use super::extension::{MatchModule, Problem, TargetModule};
use super::getopt::{Meaning, Operand, Scanner, Step};
use super::lexer::Word;
use super::names::Names;
use super::{known, matches, targets, value};
use crate::diagnostics::Code;
use crate::model::{Counters, Rule, Span};

pub(crate) use finish::check_chain_name;
use finish::{blank, intraposed, owner, stray};
use modules::unsupported_match;

/// Longest chain name in bytes.
pub(crate) const MAX_CHAIN_NAME: usize = 28;
/// Most matches in one rule.
const MAX_MATCHES: usize = 128;
/// The protocol number of the IPv6 mobility header.
const MOBILITY: u8 = 135;

/// What a name is in the table at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainKind {
    BuiltIn,
    User,
}

/// What a command needs to know of its surroundings.
pub(crate) struct Surroundings<'s> {
    pub(crate) family: Family,
    pub(crate) table: TableId,
    pub(crate) names: &'s dyn Names,
    /// Chains that exist at this line.
    pub(crate) chain: &'s dyn Fn(&str) -> Option<ChainKind>,
}

/// What a command does to its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action<'w> {
    Append,
    Insert(u32),
    Delete,
    DeleteNumber(u32),
    Replace(u32),
    Check,
    New,
    DeleteChain,
    Flush,
    Zero,
    Policy(ChainPolicy),
    Rename(Word<'w>),
    /// Prints something; changes nothing.
    List,
}

/// A command that was understood.
#[derive(Debug)]
pub(crate) struct Command<'w> {
    pub(crate) action: Action<'w>,
    /// The chain it names; all chains if none (`-F`, `-X`, `-Z`).
    pub(crate) chain: Option<Word<'w>>,
    /// The rules of a rule command, address lists expanded in the kernel's order.
    pub(crate) rules: Vec<Rule>,
}

/// What became of a line.
pub(crate) enum Outcome<'w> {
    Command(Command<'w>),
    /// `-4` or `-6` of the other family: the tools skip the line.
    OtherFamily(Span),
    Refused,
}

/// A match being read.
struct LoadedMatch {
    module: Box<dyn MatchModule>,
    seen: u32,
    span: Span,
}

/// The target being read.
struct LoadedTarget {
    module: Box<dyn TargetModule>,
    seen: u32,
    span: Span,
}

/// The line cannot be read further.
struct Stop;

/// Reads one line. Errors and warnings go to the two lists.
pub(crate) fn read<'w>(
    words: &'w [Word<'w>],
    counters: Option<Counters>,
    surroundings: &Surroundings<'_>,
    errors: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) -> Outcome<'w> {
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return Outcome::Refused };
    let span = Span {
        line: first.span.line,
        column: first.span.column,
        len: last.span.column + last.span.len - first.span.column,
    };
    let mut reader = Reader::new(words, counters, surroundings, span);
    let complete = reader.read_words().is_ok();
    if let Some(at) = reader.other_family {
        return Outcome::OtherFamily(at);
    }
    let command = if complete { reader.finish() } else { None };
    warnings.append(&mut reader.warnings);
    let refused = !reader.errors.is_empty();
    errors.append(&mut reader.errors);
    match command {
        Some(command) if !refused => Outcome::Command(command),
        _ => Outcome::Refused,
    }
}

struct Reader<'r, 'w> {
    around: &'r Surroundings<'r>,
    scanner: Scanner<'w>,
    span: Span,
    rule: Rule,
    /// Addresses of a list, if it has more than one.
    sources: Vec<AddressMask>,
    destinations: Vec<AddressMask>,
    matches: Vec<LoadedMatch>,
    target: Option<LoadedTarget>,
    /// Letters of base options seen, `j` also for `-g`, a bit each.
    seen: u128,
    /// Places of base options that some commands or chains forbid.
    places: Vec<(char, Span)>,
    command: Option<(char, Action<'w>, Option<Word<'w>>)>,
    invert: Option<Span>,
    protocol_loaded: bool,
    other_family: Option<Span>,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'r, 'w> Reader<'r, 'w> {
    fn new(
        words: &'w [Word<'w>],
        counters: Option<Counters>,
        around: &'r Surroundings<'r>,
        span: Span,
    ) -> Self {
        let rule = Rule { counters, ..blank(span) };
        Self {
            around,
            scanner: Scanner::new(words),
            span,
            rule,
            sources: Vec::new(),
            destinations: Vec::new(),
            matches: Vec::new(),
            target: None,
            seen: 0,
            places: Vec::with_capacity(8),
            command: None,
            invert: None,
            protocol_loaded: false,
            other_family: None,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn error(&mut self, problem: Problem) {
        self.errors.push(problem);
    }

    fn stop(&mut self, problem: Problem) -> Stop {
        self.errors.push(problem);
        Stop
    }

    fn read_words(&mut self) -> Result<(), Stop> {
        loop {
            match self.scanner.step() {
                Step::End => break,
                Step::Stray(word) if word.text == "!" => {
                    if self.invert.is_some() {
                        let problem =
                            Problem::new(Code::BadNegation, word.span, "`!' stands here twice");
                        return Err(self.stop(problem));
                    }
                    self.invert = Some(word.span);
                    continue;
                }
                Step::Stray(word) => return Err(self.stop(stray(&word))),
                Step::NoOperand(word) => {
                    let message = format!("option `{}' needs an operand", word.text);
                    return Err(self.stop(Problem::new(Code::MissingOption, word.span, message)));
                }
                Step::Unknown(word) => {
                    self.unknown(&word)?;
                    continue;
                }
                Step::Option { meaning, name, operand } => match meaning {
                    Meaning::Base(letter) => self.base(letter, name, operand)?,
                    Meaning::Match(index, position) => {
                        self.match_option(index, position, name, operand)?;
                    }
                    Meaning::Target(position) => self.target_option(position, name, operand)?,
                },
            }
            self.invert = None;
        }
        match self.invert {
            None => Ok(()),
            Some(at) => Err(self.stop(Problem::new(
                Code::BadNegation,
                at,
                "nothing follows this `!' that it could invert",
            ))),
        }
    }

    /// An option that no loaded module has: the protocol's own match may have it.
    fn unknown(&mut self, word: &Word<'_>) -> Result<(), Stop> {
        let proto = self.rule.proto.map(|proto| proto.value);
        let name = proto.and_then(|proto| matches::of_protocol(proto, self.around.family));
        if let (Some(name), false) = (name, self.protocol_loaded) {
            self.protocol_loaded = true;
            if let Some(module) = matches::load(name, self.around.family) {
                self.add_match(module, word.span)?;
                self.scanner.again();
                return Ok(());
            }
            return Err(self.stop(unsupported_match(name, word.span)));
        }
        let mut problem =
            Problem::new(Code::UnknownOption, word.span, format!("unknown option `{}'", word.text));
        if let Some(owner) = owner(&word.text, self.around.family) {
            problem = problem.remedy(format!("{owner} has such an option: name it before"));
        } else if word.text.starts_with('\u{2013}') || word.text.starts_with('\u{2014}') {
            problem = problem.remedy("the dash is typographic; write `-'");
        }
        Err(self.stop(problem))
    }

    fn base(&mut self, letter: char, name: Span, operand: Option<Operand<'w>>) -> Result<(), Stop> {
        let negatable = matches!(letter, 'p' | 's' | 'd' | 'i' | 'o' | 'f');
        if let (Some(at), false) = (self.invert, negatable) {
            let message = "`!' cannot stand before this option";
            return Err(self.stop(Problem::new(Code::BadNegation, at, message)));
        }
        if let Some(Operand { attached: true, word }) = &operand
            && matches!(letter, 'p' | 's' | 'd' | 'i' | 'o' | 'j')
        {
            // The tools take the whole word, option included, for the operand.
            let message = format!("`{}' must be a word of its own here", word.text);
            let problem = Problem::new(Code::BadValue, word.span, message)
                .remedy(format!("write `-{letter} {}'", word.text));
            return Err(self.stop(problem));
        }
        if let Some(Operand { word, .. }) = &operand
            && word.text == "!"
            && matches!(letter, 'p' | 's' | 'd' | 'i' | 'o')
        {
            let problem = intraposed(word.span, &format!("-{letter} ..."));
            return Err(self.stop(problem));
        }
        if letter.is_ascii_uppercase() && "ADCIRNEPLSFZX".contains(letter) {
            return self.set_command(letter, name, operand);
        }
        let key = if letter == 'g' { 'j' } else { letter };
        let bit = 1_u128 << (key as u32 & 127);
        let once = matches!(key, 'p' | 's' | 'd' | 'i' | 'o' | 'j' | 'f' | 'c');
        if once && self.seen & bit != 0 {
            let message = format!("a second -{letter} in one rule");
            return Err(self.stop(Problem::new(Code::RepeatedOption, name, message)));
        }
        self.seen |= bit;
        self.places.push((letter, name));
        let word = operand.map(|operand| operand.word);
        match (letter, word) {
            ('f', _) => self.fragment(name),
            ('v', _) => {}
            ('4', _) if self.around.family == Family::V6 => self.other_family = Some(name),
            ('6', _) if self.around.family == Family::V4 => self.other_family = Some(name),
            ('4' | '6', _) => {}
            ('p', Some(word)) => self.protocol(&word)?,
            ('s', Some(word)) => self.sources = self.addresses(&word, true),
            ('d', Some(word)) => self.destinations = self.addresses(&word, false),
            ('i' | 'o', Some(word)) => self.interface(letter, &word),
            ('m', Some(word)) => self.load_match(&word)?,
            ('j' | 'g', Some(word)) => self.jump(&word, letter == 'g')?,
            ('c', Some(word)) => self.set_counters(&word),
            ('M', _) => {
                let message = "-M has no effect: no kernel modules are loaded";
                self.warnings.push(Problem::new(Code::NoEffect, name, message));
            }
            ('t', _) => {
                let message = "-t cannot be used inside a rule file";
                let problem = Problem::new(Code::BadCommand, name, message)
                    .remedy("the `*table' line says which table the rule is for");
                self.error(problem);
            }
            _ => {
                let message = format!("option -{letter} means nothing inside a rule file");
                self.error(Problem::new(Code::BadCommand, name, message));
            }
        }
        if self.other_family.is_some() { Err(Stop) } else { Ok(()) }
    }

    fn set_command(
        &mut self,
        letter: char,
        name: Span,
        operand: Option<Operand<'w>>,
    ) -> Result<(), Stop> {
        if let Some((first, ..)) = self.command {
            let message = format!("-{letter} after -{first}: one line holds one command");
            return Err(self.stop(Problem::new(Code::BadCommand, name, message)));
        }
        let mut chain = operand.map(|operand| operand.word);
        if chain.is_none() {
            chain = self.scanner.take_argument().cloned();
        }
        if let Some(chain) = &chain {
            check_chain_name(chain).map_err(|problem| self.stop(problem))?;
        }
        let action = self.action(letter, name)?;
        self.command = Some((letter, action, chain));
        Ok(())
    }

    fn action(&mut self, letter: char, name: Span) -> Result<Action<'w>, Stop> {
        Ok(match letter {
            'A' => Action::Append,
            'C' => Action::Check,
            'I' => Action::Insert(self.rule_number()?.unwrap_or(1)),
            'D' => match self.rule_number()? {
                Some(number) => Action::DeleteNumber(number),
                None => Action::Delete,
            },
            'R' => match self.rule_number()? {
                Some(number) => Action::Replace(number),
                None => {
                    let message = "-R needs the number of the rule to replace";
                    return Err(self.stop(Problem::new(Code::BadCommand, name, message)));
                }
            },
            'N' => Action::New,
            'X' => Action::DeleteChain,
            'F' => Action::Flush,
            'Z' => Action::Zero,
            'P' => match self.scanner.take_argument().map(|word| (&*word.text, word.span)) {
                Some(("ACCEPT", _)) => Action::Policy(ChainPolicy::Accept),
                Some(("DROP", _)) => Action::Policy(ChainPolicy::Drop),
                other => {
                    let at = other.map_or(name, |(_, span)| span);
                    let problem =
                        Problem::new(Code::BadPolicy, at, "-P needs a chain and a policy")
                            .remedy("the policies are ACCEPT and DROP");
                    return Err(self.stop(problem));
                }
            },
            'E' => match self.scanner.take_argument() {
                Some(to) => {
                    check_chain_name(to).map_err(|problem| self.stop(problem))?;
                    Action::Rename(to.clone())
                }
                None => {
                    let message = "-E needs the old and the new name of a chain";
                    return Err(self.stop(Problem::new(Code::BadCommand, name, message)));
                }
            },
            _ => {
                let message = format!("-{letter} only prints; nothing is loaded by this line");
                self.warnings.push(Problem::new(Code::NoEffect, name, message));
                Action::List
            }
        })
    }

    fn rule_number(&mut self) -> Result<Option<u32>, Stop> {
        let Some(word) = self.scanner.take_argument() else { return Ok(None) };
        match value::number(&word.text, 1, i32::MAX as u64) {
            Some(number) => Ok(Some(number as u32)),
            None => {
                let message = format!("`{}' is no rule number", word.text);
                Err(self.stop(Problem::new(Code::BadValue, word.span, message)))
            }
        }
    }

    fn fragment(&mut self, name: Span) {
        if self.around.family == Family::V6 {
            let problem = Problem::new(Code::UnknownOption, name, "-f does not exist for IPv6")
                .remedy("IPv6 fragments are matched by `-m frag'");
            self.error(problem);
        }
        self.rule.fragment = Some(self.invert.is_none());
    }

    fn protocol(&mut self, word: &Word<'_>) -> Result<(), Stop> {
        let name = match word.text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(word.text.to_ascii_lowercase()),
            false => Cow::Borrowed(&*word.text),
        };
        let number = value::number8(&name).or_else(|| self.around.names.protocol_number(&name));
        let Some(number) = number else {
            let message = format!("unknown protocol `{}'", word.text);
            let problem = Problem::new(Code::BadValue, word.span, message)
                .remedy("write a number from 0 to 255 or a name from /etc/protocols");
            return Err(self.stop(problem));
        };
        if number == MOBILITY && name != "mh" {
            // Under other names the tools do not find the protocol's match by its options.
            self.protocol_loaded = true;
        }
        let negated = self.invert.is_some();
        if number == 0 && negated {
            let message = "`! -p all' would never match";
            self.error(Problem::new(Code::NeverMatches, word.span, message));
        } else if number != 0 {
            self.rule.proto = Some(Neg { negated, value: number });
        }
        if self.around.family == Family::V6 && matches!(number, 43 | 44 | 51 | 60) && !negated {
            let message = format!("protocol {number} is an extension header: -p never sees it");
            self.warnings.push(Problem::new(Code::NeverMatches, word.span, message));
        }
        Ok(())
    }

    /// Notes one address, or gives the several there are.
    fn addresses(&mut self, word: &Word<'_>, source: bool) -> Vec<AddressMask> {
        let negated = self.invert.is_some();
        let list = match address::parse_list(&word.text, self.around.family, word.span) {
            Ok(list) => list,
            Err(problem) => {
                self.error(problem);
                return Vec::new();
            }
        };
        let first = list.first().filter(|one| one.mask != 0 || negated);
        let selector = first.map(|value| Neg { negated, value });
        if source {
            self.rule.src = selector;
        } else {
            self.rule.dst = selector;
        }
        list.into_several()
    }

    fn interface(&mut self, letter: char, word: &Word<'_>) {
        match address::parse_interface(&word.text, word.span) {
            Err(problem) => self.error(problem),
            Ok(interface) => {
                if word.text.contains('/') {
                    let message = format!("the kernel allows no interface named `{}'", word.text);
                    self.warnings.push(Problem::new(Code::NeverMatches, word.span, message));
                }
                let negated = self.invert.is_some();
                // A bare `+` compares nothing.
                let says = negated || !(interface.prefix && interface.name.is_empty());
                let selector = says.then_some((interface, negated));
                if letter == 'i' {
                    self.rule.input = selector;
                } else {
                    self.rule.output = selector;
                }
            }
        }
    }
}
