//! The options of the `conntrack` tool, and how its command line is cut into them.

use thiserror::Error;

/// What is wrong with a command line. Each says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ParseError {
    /// Not one of the tool's.
    #[error("unknown option `{0}`; `portcullis conntrack --help` lists what there is")]
    Unknown(String),
    /// A prefix of several.
    #[error("option `{word}` could be {candidates}; write it out")]
    Ambiguous {
        /// What was written.
        word: String,
        /// What it could be.
        candidates: String,
    },
    /// Nothing follows it.
    #[error("option `{0}` needs a value")]
    NoValue(String),
    /// Something follows it.
    #[error("option `{0}` takes no value")]
    Value(String),
    /// Given twice.
    #[error("option `{0}` is given twice; give it once")]
    Twice(String),
    /// A word that belongs to nothing.
    #[error("`{0}` is not a command, a table or an option; see `portcullis conntrack --help`")]
    Stray(String),
    /// No command.
    #[error(
        "say what to do: list, count, flush, delete, get, stats or watch (-L -C -F -D -G -S -E)"
    )]
    NoCommand,
    /// Two commands.
    #[error("`{0}` and `{1}` are two commands; give one")]
    TwoCommands(&'static str, &'static str),
    /// Something that the tool can and Portcullis does not.
    #[error("`{what}` is not supported: {remedy}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// An option that does not go with the command.
    #[error("`{option}` does not go with {command}{hint}")]
    Misplaced {
        /// The option.
        option: &'static str,
        /// The command.
        command: &'static str,
        /// What would.
        hint: &'static str,
    },
    /// A protocol option without its protocol.
    #[error("`{option}` needs `-p {protocols}`")]
    NeedsProtocol {
        /// The option.
        option: &'static str,
        /// Which.
        protocols: &'static str,
    },
    /// A value that makes no sense.
    #[error("`{value}` is no {what}; {remedy}")]
    Bad {
        /// What was written.
        value: String,
        /// What it should be.
        what: &'static str,
        /// How it is written.
        remedy: &'static str,
    },
}

/// Whether a value follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// Perhaps.
    Optional,
}

/// The options, each by the name that speaks of it in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    List,
    Count,
    Flush,
    Delete,
    Watch,
    Get,
    Stats,
    Create,
    Add,
    Update,
    Load,
    Src,
    Dst,
    ReplySrc,
    ReplyDst,
    MaskSrc,
    MaskDst,
    Proto,
    Family,
    Timeout,
    Mark,
    Secmark,
    Status,
    Zone,
    OrigZone,
    ReplyZone,
    SrcNat,
    DstNat,
    AnyNat,
    Label,
    LabelAdd,
    LabelDel,
    Output,
    Events,
    Buffer,
    Zero,
    TupleSrc,
    TupleDst,
    Sport,
    Dport,
    ReplySport,
    ReplyDport,
    IcmpType,
    IcmpCode,
    IcmpId,
    Icmp6Type,
    Icmp6Code,
    Icmp6Id,
    State,
    OrigVtag,
    ReplyVtag,
    Srckey,
    Dstkey,
    ReplySrckey,
    ReplyDstkey,
    Role,
    Help,
    Version,
    Json,
    Socket,
}

struct Row {
    opt: Opt,
    short: Option<char>,
    long: &'static [&'static str],
    takes: Takes,
}

const fn row(opt: Opt, short: Option<char>, long: &'static [&'static str], takes: Takes) -> Row {
    Row { opt, short, long, takes }
}

const TABLE: &[Row] = {
    use Opt::*;
    use Takes::{Nothing, Optional, Value};
    &[
        row(List, Some('L'), &["dump"], Nothing),
        row(Count, Some('C'), &["count"], Nothing),
        row(Flush, Some('F'), &["flush"], Nothing),
        row(Delete, Some('D'), &["delete"], Nothing),
        row(Watch, Some('E'), &["event"], Nothing),
        row(Get, Some('G'), &["get"], Nothing),
        row(Stats, Some('S'), &["stats"], Nothing),
        row(Create, Some('I'), &["create"], Nothing),
        row(Add, Some('A'), &["add"], Nothing),
        row(Update, Some('U'), &["update"], Nothing),
        row(Load, Some('R'), &["load-file"], Value),
        row(Src, Some('s'), &["src", "orig-src"], Value),
        row(Dst, Some('d'), &["dst", "orig-dst"], Value),
        row(ReplySrc, Some('r'), &["reply-src"], Value),
        row(ReplyDst, Some('q'), &["reply-dst"], Value),
        row(MaskSrc, None, &["mask-src"], Value),
        row(MaskDst, None, &["mask-dst"], Value),
        row(Proto, Some('p'), &["protonum", "proto"], Value),
        row(Family, Some('f'), &["family"], Value),
        row(Timeout, Some('t'), &["timeout"], Value),
        row(Mark, Some('m'), &["mark"], Value),
        row(Secmark, Some('c'), &["secmark"], Value),
        row(Status, Some('u'), &["status"], Value),
        row(Zone, Some('w'), &["zone"], Value),
        row(OrigZone, None, &["orig-zone"], Value),
        row(ReplyZone, None, &["reply-zone"], Value),
        row(SrcNat, Some('n'), &["src-nat"], Optional),
        row(DstNat, Some('g'), &["dst-nat"], Optional),
        row(AnyNat, Some('j'), &["any-nat"], Optional),
        row(Label, Some('l'), &["label"], Value),
        row(LabelAdd, None, &["label-add"], Value),
        row(LabelDel, None, &["label-del"], Optional),
        row(Output, Some('o'), &["output"], Value),
        row(Events, Some('e'), &["event-mask"], Value),
        row(Buffer, Some('b'), &["buffer-size"], Value),
        row(Zero, Some('z'), &["zero"], Nothing),
        row(TupleSrc, None, &["tuple-src"], Value),
        row(TupleDst, None, &["tuple-dst"], Value),
        row(Sport, None, &["sport", "orig-port-src"], Value),
        row(Dport, None, &["dport", "orig-port-dst"], Value),
        row(ReplySport, None, &["reply-port-src"], Value),
        row(ReplyDport, None, &["reply-port-dst"], Value),
        row(IcmpType, None, &["icmp-type"], Value),
        row(IcmpCode, None, &["icmp-code"], Value),
        row(IcmpId, None, &["icmp-id"], Value),
        row(Icmp6Type, None, &["icmpv6-type"], Value),
        row(Icmp6Code, None, &["icmpv6-code"], Value),
        row(Icmp6Id, None, &["icmpv6-id"], Value),
        row(State, None, &["state"], Value),
        row(OrigVtag, None, &["orig-vtag"], Value),
        row(ReplyVtag, None, &["reply-vtag"], Value),
        row(Srckey, None, &["srckey", "orig-key-src"], Value),
        row(Dstkey, None, &["dstkey", "orig-key-dst"], Value),
        row(ReplySrckey, None, &["reply-key-src"], Value),
        row(ReplyDstkey, None, &["reply-key-dst"], Value),
        row(Role, None, &["role"], Value),
        row(Help, Some('h'), &["help"], Nothing),
        row(Version, Some('V'), &["version"], Nothing),
        row(Json, None, &["json"], Nothing),
        row(Socket, None, &["socket"], Value),
    ]
};

impl Opt {
    /// How messages call it.
    pub(super) fn name(self) -> &'static str {
        let row = TABLE.iter().find(|row| row.opt == self);
        row.and_then(|row| row.long.first()).copied().unwrap_or("?")
    }
}

/// A word of the command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// An option with its value.
    Opt(Opt, Option<String>),
    /// Anything else.
    Plain(String),
}

/// Cuts a command line into options. Short ones may be joined, long ones
/// abbreviated, values joined to either.
pub(super) fn cut(words: &[String]) -> Result<Vec<Word>, ParseError> {
    let mut cut = Vec::new();
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        let mut next = |takes: Takes| match takes {
            Takes::Nothing => None,
            Takes::Value => rest.next().cloned(),
            Takes::Optional => rest.next_if(|next| !next.starts_with('-')).cloned(),
        };
        if let Some(long) = word.strip_prefix("--") {
            let (name, joined) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            let row = long_option(name)?;
            if joined.is_some() && row.takes == Takes::Nothing {
                return Err(ParseError::Value(word.clone()));
            }
            let value = joined.or_else(|| next(row.takes));
            if value.is_none() && row.takes == Takes::Value {
                return Err(ParseError::NoValue(word.clone()));
            }
            cut.push(Word::Opt(row.opt, value));
        } else if let Some(shorts) = word.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            for (at, letter) in shorts.char_indices() {
                let row = TABLE.iter().find(|row| row.short == Some(letter));
                let row = row.ok_or_else(|| ParseError::Unknown(format!("-{letter}")))?;
                if row.takes == Takes::Nothing {
                    cut.push(Word::Opt(row.opt, None));
                    continue;
                }
                let joined = &shorts[at + letter.len_utf8()..];
                let value =
                    if joined.is_empty() { next(row.takes) } else { Some(joined.to_owned()) };
                if value.is_none() && row.takes == Takes::Value {
                    return Err(ParseError::NoValue(format!("-{letter}")));
                }
                cut.push(Word::Opt(row.opt, value));
                break;
            }
        } else {
            cut.push(Word::Plain(word.clone()));
        }
    }
    Ok(cut)
}

fn long_option(name: &str) -> Result<&'static Row, ParseError> {
    let exact = TABLE.iter().find(|row| row.long.contains(&name));
    if let Some(row) = exact {
        return Ok(row);
    }
    let begins =
        |row: &&Row| row.long.iter().any(|long| !name.is_empty() && long.starts_with(name));
    let candidates: Vec<&Row> = TABLE.iter().filter(begins).collect();
    match candidates[..] {
        [] => Err(ParseError::Unknown(format!("--{name}"))),
        [row] => Ok(row),
        _ => {
            let names = candidates.iter().flat_map(|row| row.long);
            let names: Vec<String> = names
                .filter(|long| long.starts_with(name))
                .map(|long| format!("--{long}"))
                .collect();
            Err(ParseError::Ambiguous { word: format!("--{name}"), candidates: names.join(" or ") })
        }
    }
}
