//! One line: the command, its options, its set and what follows.

use dataplane::sets::{CreateSpec, Extras, SetName, SetType};

use super::create;
use super::element;
use super::extras::{self, Act};
use super::fault::Fault;
use super::lexer::Word;
use super::written::Written;
use crate::diagnostics::Code;
use crate::iptables::Names;

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    #[default]
    Plain,
    /// As commands.
    Save,
}

/// What may stand anywhere in a line, or in `ipset`'s own arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `-!`, `-exist`.
    pub(crate) exist: bool,
    /// `-q`, `-quiet`.
    pub(crate) quiet: bool,
    /// `-s`, `-sorted`.
    pub(crate) sorted: bool,
    /// `-t`, `-terse`.
    pub(crate) terse: bool,
    /// `-n`, `-name`.
    pub(crate) names: bool,
    /// `-o plain|save`.
    pub(crate) form: Option<Form>,
    /// `-f FILE`.
    pub(crate) file: Option<String>,
}

impl Options {
    /// Takes the options out of a line.
    pub(crate) fn take(words: &mut Vec<Word<'_>>) -> Result<Self, Fault> {
        let mut options = Self::default();
        let mut at = 0;
        while at < words.len() {
            if !words[at].text.starts_with('-') {
                at += 1;
                continue;
            }
            let text =
                words[at].text.strip_prefix("--").or_else(|| words[at].text.strip_prefix('-'));
            let mut operand = false;
            match text.unwrap_or_default() {
                "!" | "exist" => options.exist = true,
                "q" | "quiet" => options.quiet = true,
                "s" | "sorted" => options.sorted = true,
                "t" | "terse" => options.terse = true,
                "n" | "name" => options.names = true,
                "r" | "resolve" => {
                    let fault = words[at].fault(Code::UnknownOption, "names are not resolved here");
                    return Err(fault.remedy("leave -r out"));
                }
                "o" | "output" => {
                    operand = true;
                    options.form = Some(form(words, at)?);
                }
                "f" | "file" => {
                    operand = true;
                    let file = words.get(at + 1).map(|word| word.text.to_string());
                    options.file = Some(file.ok_or_else(|| create::needs_operand(&words[at]))?);
                }
                _ => {
                    at += 1;
                    continue;
                }
            }
            words.drain(at..=at + usize::from(operand));
        }
        Ok(options)
    }
}

impl Options {
    /// Takes the options out of a command line that is split into words already.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(crate) fn of_arguments(arguments: &[String]) -> Result<(Self, Vec<String>), String> {
        let word = |text: &String| Word { text: text.clone().into(), start: 0, end: 0 };
        let mut words: Vec<_> = arguments.iter().map(word).collect();
        let options = Self::take(&mut words).map_err(|fault| match fault.remedy {
            Some(remedy) => format!("{} ({remedy})", fault.message),
            None => fault.message,
        })?;
        Ok((options, words.into_iter().map(|word| word.text.into_owned()).collect()))
    }
}

fn form(words: &[Word<'_>], at: usize) -> Result<Form, Fault> {
    let Some(word) = words.get(at + 1) else { return Err(create::needs_operand(&words[at])) };
    match word.text.as_ref() {
        "plain" => Ok(Form::Plain),
        "save" => Ok(Form::Save),
        other => {
            let message = format!("`{other}' is no form of output here");
            Err(word
                .fault(Code::BadValue, message)
                .remedy("plain and save are; for programs there is portcullis --json set list"))
        }
    }
}

/// What a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `create`.
    Create {
        /// The set.
        name: SetName,
        /// What it is to be.
        spec: CreateSpec,
    },
    /// `add`, `del` or `test`.
    Element {
        /// Which.
        act: Act,
        /// The set.
        name: SetName,
        /// The elements.
        written: Box<Written>,
        /// What follows them.
        extras: Box<Extras>,
    },
    /// `flush`: one set, or all.
    Flush(Option<SetName>),
    /// `destroy`: one set, or all.
    Destroy(Option<SetName>),
    /// `rename FROM TO`.
    Rename(SetName, SetName),
    /// `swap`.
    Swap(SetName, SetName),
    /// `list`: one set, or all.
    List(Option<SetName>),
    /// `save`: one set, or all.
    Save(Option<SetName>),
    /// `restore`, of the tool itself.
    Restore,
    /// `quit`: what follows in the file is not read.
    Quit,
}

/// Commands in the order in which the tool looks for abbreviations, with their letter.
const COMMANDS: [(&str, &str); 15] = [
    ("create", "-N"),
    ("destroy", "-X"),
    ("flush", "-F"),
    ("rename", "-E"),
    ("swap", "-W"),
    ("list", "-L"),
    ("save", "-S"),
    ("add", "-A"),
    ("del", "-D"),
    ("test", "-T"),
    ("restore", "-R"),
    ("quit", ""),
    ("version", "-V"),
    ("help", "-H"),
    ("header", ""),
];

/// Other words for commands.
const SYNONYMS: [(&str, &str); 6] = [
    ("new", "create"),
    ("n", "create"),
    ("x", "destroy"),
    ("e", "rename"),
    ("w", "swap"),
    ("d", "del"),
];

/// The command's whole name.
pub(crate) fn command_name(text: &str) -> Option<&'static str> {
    let letter = COMMANDS.iter().find(|(_, letter)| *letter == text && !text.is_empty());
    let bare = text.strip_prefix("--").unwrap_or(text);
    let synonym = SYNONYMS.iter().find(|(name, _)| *name == bare).map(|(_, whole)| *whole);
    let prefix = || {
        let lower = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_lowercase());
        let found = COMMANDS.iter().find(|(name, _)| lower && name.starts_with(bare));
        // `de` is short for `del` before it is for `destroy`.
        found.map(|(name, _)| if "del".starts_with(bare) { "del" } else { *name })
    };
    letter.map(|(name, _)| *name).or(synonym).or_else(prefix)
}

/// What is known of a set while a line is read.
pub(crate) type Lookup<'l> = dyn Fn(&SetName) -> Option<CreateSpec> + 'l;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// Someone who may err: what the tool refuses is refused.
    Operator,
    /// This program, of what packets added too: they need not obey the tool.
    Daemon,
}

/// What lines are read with.
#[derive(Clone, Copy)]
pub(crate) struct Context<'c> {
    pub(crate) names: &'c dyn Names,
    pub(crate) lookup: &'c Lookup<'c>,
    pub(crate) author: Author,
}

/// Reads the words of a line, of which there is at least one, without options.
pub(crate) fn read<'t>(
    words: &[Word<'t>],
    context: Context<'_>,
    warnings: &mut Vec<Fault>,
) -> Result<Verb, Fault> {
    let word = &words[0];
    let Some(command) = command_name(&word.text) else {
        let known = COMMANDS.iter().map(|(name, _)| *name);
        let near = super::nearest(&word.text, known);
        let fault = word.fault(Code::BadCommand, format!("`{}' is no command", word.text));
        return Err(match near {
            Some(near) => fault.remedy(format!("did you mean `{near}'?")),
            None => fault.remedy("a line begins with create, add or another command of ipset"),
        });
    };
    let most = match command {
        "quit" | "restore" => 1,
        "destroy" | "flush" | "list" | "save" => 2,
        "rename" | "swap" => 3,
        _ => usize::MAX,
    };
    if let Some(extra) = words.get(most) {
        let message = format!("`{}' has no place in {command}", extra.text);
        return Err(extra.fault(Code::UnexpectedText, message).remedy("leave it out"));
    }
    let at = |index: usize, what: &str| {
        words.get(index).filter(|word| !word.text.is_empty()).ok_or_else(|| {
            let message = format!("{command} needs {what}");
            word.fault(Code::MissingOption, message)
        })
    };
    let name = |index| at(index, "the name of a set").and_then(super::set_name);
    let optional = || words.get(1).map(super::set_name).transpose();
    Ok(match command {
        "create" => {
            let name = name(1)?;
            let kind_word = at(2, "a type, as hash:net")?;
            let kind = create::kind(kind_word)?;
            let spec = create::Reader { names: context.names, warnings, kind_word }
                .read(kind, &words[3..])?;
            Verb::Create { name, spec }
        }
        "add" => element(Act::Add, words, name(1)?, at(2, "an element")?, context, warnings)?,
        "del" => element(Act::Del, words, name(1)?, at(2, "an element")?, context, warnings)?,
        "test" => element(Act::Test, words, name(1)?, at(2, "an element")?, context, warnings)?,
        "flush" => Verb::Flush(optional()?),
        "destroy" => Verb::Destroy(optional()?),
        "rename" => Verb::Rename(name(1)?, name(2)?),
        "swap" => Verb::Swap(name(1)?, name(2)?),
        "list" => Verb::List(optional()?),
        "save" => Verb::Save(optional()?),
        "restore" => Verb::Restore,
        "quit" => Verb::Quit,
        other => {
            let message = format!("`{other}' has no place here");
            return Err(word.fault(Code::BadCommand, message));
        }
    })
}

fn element<'t>(
    act: Act,
    words: &[Word<'t>],
    name: SetName,
    word: &Word<'t>,
    context: Context<'_>,
    warnings: &mut Vec<Fault>,
) -> Result<Verb, Fault> {
    let Context { names, lookup, author } = context;
    let Some(spec) = lookup(&name) else { return Err(no_such_set(&words[1])) };
    let mut written = element::Reader { spec: &spec, names, author, warnings }.read(word)?;
    let extras = extras::read(&words[3..], &spec, act, author, &mut written)?;
    if act == Act::Test && written.is_many() && spec.kind != SetType::HashIp {
        let fault = word.fault(Code::BadValue, "a range cannot be tested");
        return Err(fault.remedy("test one element"));
    }
    Ok(Verb::Element { act, name, written: Box::new(written), extras: Box::new(extras) })
}

/// A set that is not there.
pub(crate) fn no_such_set(word: &Word<'_>) -> Fault {
    word.fault(Code::MissingSet, format!("no set is called `{}'", word.text))
        .remedy(format!("create it first: create {} hash:net, or the like", word.text))
}
