//! Command words to options, as `getopt_long` of the C library finds them.
//!
//! Exact long names win; an abbreviation must be unambiguous, where synonyms
//! of one option do not count as two. The options of the command itself come
//! first, then those of loaded modules, the newest module first.

use super::extension::Opt;
use super::lexer::Word;
use crate::model::Span;

/// Whether an option takes an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    Operand,
    /// Only attached, `-Xname` or `--name=x`.
    Attached,
}

/// What a long name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An option of the command itself, by its letter.
    Base(char),
    /// An option of the match loaded at this index, by position in its list.
    Match(usize, usize),
    /// An option of the target, by position in its list.
    Target(usize),
}

/// One step through the words.
#[derive(Debug)]
pub(crate) enum Step<'w> {
    /// An option, with its operand.
    Option { meaning: Meaning, name: Span, operand: Option<Operand<'w>> },
    /// A word that is neither option nor operand.
    Stray(Word<'w>),
    /// `--name` or `-x` that means nothing (or several things) here.
    Unknown(Word<'w>),
    /// An option without the operand it needs.
    NoOperand(Word<'w>),
    /// No words are left.
    End,
}

/// An operand, and whether it was glued to its option.
#[derive(Clone, Debug)]
pub(crate) struct Operand<'w> {
    pub(crate) word: Word<'w>,
    pub(crate) attached: bool,
}

const BASE: &[(&str, char, Takes)] = &[
    ("append", 'A', Takes::Operand),
    ("delete", 'D', Takes::Operand),
    ("check", 'C', Takes::Operand),
    ("insert", 'I', Takes::Operand),
    ("replace", 'R', Takes::Operand),
    ("list", 'L', Takes::Attached),
    ("list-rules", 'S', Takes::Attached),
    ("flush", 'F', Takes::Attached),
    ("zero", 'Z', Takes::Attached),
    ("new-chain", 'N', Takes::Operand),
    ("delete-chain", 'X', Takes::Attached),
    ("rename-chain", 'E', Takes::Operand),
    ("policy", 'P', Takes::Operand),
    ("source", 's', Takes::Operand),
    ("destination", 'd', Takes::Operand),
    ("src", 's', Takes::Operand),
    ("dst", 'd', Takes::Operand),
    ("protocol", 'p', Takes::Operand),
    ("in-interface", 'i', Takes::Operand),
    ("jump", 'j', Takes::Operand),
    ("table", 't', Takes::Operand),
    ("match", 'm', Takes::Operand),
    ("numeric", 'n', Takes::Nothing),
    ("out-interface", 'o', Takes::Operand),
    ("verbose", 'v', Takes::Nothing),
    ("wait", 'w', Takes::Attached),
    ("wait-interval", 'W', Takes::Attached),
    ("exact", 'x', Takes::Nothing),
    ("fragments", 'f', Takes::Nothing),
    ("version", 'V', Takes::Nothing),
    ("help", 'h', Takes::Attached),
    ("line-numbers", '0', Takes::Nothing),
    ("modprobe", 'M', Takes::Operand),
    ("set-counters", 'c', Takes::Operand),
    ("goto", 'g', Takes::Operand),
    ("ipv4", '4', Takes::Nothing),
    ("ipv6", '6', Takes::Nothing),
];

/// Options of one loaded module and what to call them.
pub(crate) struct Loaded {
    options: &'static [Opt],
    /// Index of the match, or `None` for the target.
    index: Option<usize>,
}

/// The words of one command and how far they are read.
pub(crate) struct Scanner<'w> {
    words: &'w [Word<'w>],
    next: usize,
    /// Character offset inside a group of short options; 0 outside one.
    inside: usize,
    /// Newest last.
    modules: Vec<Loaded>,
    ended: bool,
}

impl<'w> Scanner<'w> {
    pub(crate) fn new(words: &'w [Word<'w>]) -> Self {
        Self { words, next: 0, inside: 0, modules: Vec::new(), ended: false }
    }

    /// Makes a match's options available.
    pub(crate) fn load_match(&mut self, options: &'static [Opt], index: usize) {
        self.modules.push(Loaded { options, index: Some(index) });
    }

    /// Makes the target's options available.
    pub(crate) fn load_target(&mut self, options: &'static [Opt]) {
        self.modules.push(Loaded { options, index: None });
    }

    /// Words not read yet.
    pub(crate) fn rest(&self) -> &'w [Word<'w>] {
        &self.words[self.next..]
    }

    /// Marks words of [`Scanner::rest`] as read.
    pub(crate) fn skip(&mut self, count: usize) {
        self.next += count;
    }

    /// The next word, if it is not an option or `!`; how commands take
    /// optional operands.
    pub(crate) fn take_argument(&mut self) -> Option<&'w Word<'w>> {
        let word = self.words.get(self.next)?;
        if word.text.starts_with(['-', '!']) {
            return None;
        }
        self.next += 1;
        Some(word)
    }

    /// Reads the last unknown option once more, after a module was loaded.
    pub(crate) fn again(&mut self) {
        self.next -= 1;
    }

    pub(crate) fn step(&mut self) -> Step<'w> {
        if self.inside > 0 {
            return self.short();
        }
        let Some(word) = self.words.get(self.next) else { return Step::End };
        if self.ended || word.text == "-" || !word.text.starts_with('-') {
            self.next += 1;
            return Step::Stray(word.clone());
        }
        if word.text == "--" {
            self.next += 1;
            self.ended = true;
            return self.step();
        }
        if let Some(long) = word.text.strip_prefix("--") {
            self.next += 1;
            return self.long(word, long);
        }
        self.inside = 1;
        self.short()
    }

    fn long(&mut self, word: &'w Word<'w>, text: &'w str) -> Step<'w> {
        let (name, attached) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let Some((meaning, takes)) = self.lookup(name) else {
            return Step::Unknown(word.clone());
        };
        let operand = match (takes, attached) {
            (Takes::Nothing, Some(_)) => return Step::Unknown(word.clone()),
            (Takes::Nothing | Takes::Attached, None) => None,
            (_, Some(value)) => Some(Operand {
                word: Word { text: value.into(), span: tail(word, 3 + name.chars().count()) },
                attached: true,
            }),
            (Takes::Operand, None) => match self.words.get(self.next) {
                None => return Step::NoOperand(word.clone()),
                Some(next) => {
                    self.next += 1;
                    Some(Operand { word: next.clone(), attached: false })
                }
            },
        };
        Step::Option { meaning, name: word.span, operand }
    }

    fn short(&mut self) -> Step<'w> {
        let word = &self.words[self.next];
        let Some(letter) = word.text.chars().nth(self.inside) else {
            return Step::End;
        };
        let at = self.inside;
        self.inside += 1;
        let last = word.text.chars().nth(self.inside).is_none();
        if last {
            self.inside = 0;
            self.next += 1;
        }
        let Some((_, _, takes)) = BASE.iter().find(|(_, c, _)| *c == letter && letter != '0')
        else {
            self.inside = 0;
            if !last {
                self.next += 1;
            }
            return Step::Unknown(word.clone());
        };
        let operand = match takes {
            Takes::Nothing => None,
            _ if !last => {
                self.inside = 0;
                self.next += 1;
                let text = word.text.chars().skip(at + 1).collect::<String>().into();
                Some(Operand { word: Word { text, span: tail(word, at + 1) }, attached: true })
            }
            Takes::Attached => None,
            Takes::Operand => match self.words.get(self.next) {
                None => return Step::NoOperand(word.clone()),
                Some(next) => {
                    self.next += 1;
                    Some(Operand { word: next.clone(), attached: false })
                }
            },
        };
        Step::Option { meaning: Meaning::Base(letter), name: word.span, operand }
    }

    /// Finds a long name: the first exact one, else the one that the
    /// abbreviation can only mean.
    fn lookup(&self, name: &str) -> Option<(Meaning, Takes)> {
        let exact = self.all().find(|(candidate, ..)| *candidate == name);
        if let Some((_, meaning, takes, _)) = exact {
            return Some((meaning, takes));
        }
        let mut only: Option<(Meaning, Takes, Identity)> = None;
        let mut ambiguous = false;
        for (_, meaning, takes, identity) in self.all().filter(|one| one.0.starts_with(name)) {
            match &only {
                None => only = Some((meaning, takes, identity)),
                Some((_, first_takes, first)) => {
                    ambiguous |= *first_takes != takes || *first != identity;
                }
            }
        }
        only.filter(|_| !ambiguous).map(|(meaning, takes, _)| (meaning, takes))
    }

    fn all(&self) -> impl Iterator<Item = (&'static str, Meaning, Takes, Identity)> {
        let base =
            BASE.iter().map(|(name, c, takes)| (*name, Meaning::Base(*c), *takes, (0, *c as u32)));
        let modules = self.modules.iter().enumerate().rev().flat_map(|(place, module)| {
            module.options.iter().enumerate().map(move |(position, opt)| {
                let meaning = match module.index {
                    Some(index) => Meaning::Match(index, position),
                    None => Meaning::Target(position),
                };
                let takes = if opt.operand { Takes::Operand } else { Takes::Nothing };
                (opt.name, meaning, takes, (place + 1, u32::from(opt.id)))
            })
        });
        base.chain(modules)
    }
}

/// What two spellings share when they are the same option.
type Identity = (usize, u32);

/// The place of a word from its character `from` on.
fn tail(word: &Word<'_>, from: usize) -> Span {
    let from = u32::try_from(from).unwrap_or(u32::MAX).min(word.span.len - 1);
    Span { line: word.span.line, column: word.span.column + from, len: word.span.len - from }
}
