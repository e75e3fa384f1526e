//! The stable identifiers of findings.

use serde::Serialize;

/// What kind of thing a finding is about. The kebab-case name is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The file cannot be read.
    Unreadable,
    /// Bytes that are not UTF-8, or a NUL.
    BadEncoding,
    /// A line, word or file above its bound.
    TooLong,
    /// Something that has no place where it stands.
    UnexpectedText,
    /// A quote without its end.
    UnterminatedQuote,
    /// `*name` names no table.
    UnknownTable,
    /// A table without its COMMIT.
    MissingCommit,
    /// The same table again.
    RepeatedTable,
    /// `:CHAIN` line without policy, or with a wrong one.
    BadPolicy,
    /// A malformed `[packets:bytes]`.
    BadCounters,
    /// A chain name that the tools refuse.
    BadChainName,
    /// A chain declared twice.
    DuplicateChain,
    /// A chain that does not exist where it is used.
    MissingChain,
    /// A chain that cannot be deleted or renamed as asked.
    ChainInUse,
    /// A rule number, or a rule to delete, that does not exist.
    NoSuchRule,
    /// Jumps that come back to where they started.
    JumpLoop,
    /// No command, two commands, or one we do not honour in a file.
    BadCommand,
    /// An option that nothing here knows.
    UnknownOption,
    /// An option given twice.
    RepeatedOption,
    /// Options that exclude each other.
    ConflictingOptions,
    /// An option or argument that must be there.
    MissingOption,
    /// `!` where it means nothing.
    BadNegation,
    /// An operand that cannot be read or is out of range.
    BadValue,
    /// A host name where an address is needed.
    HostName,
    /// A match that iptables has and we do not yet.
    UnsupportedMatch,
    /// A target that iptables has and we do not yet.
    UnsupportedTarget,
    /// A match that iptables does not have either.
    UnknownMatch,
    /// A match or target that needs a `-p`.
    NeedsProtocol,
    /// Not allowed in this table.
    WrongTable,
    /// Not allowed in a chain that is reached from this hook.
    WrongHook,
    /// Loads, but can never match.
    NeverMatches,
    /// No packet comes to it.
    Unreachable,
    /// No packet comes to it, because rules before it say otherwise.
    Contradicted,
    /// It changes nothing.
    Redundant,
    /// A chain that no rule leads to.
    UnusedChain,
    /// A limit behind which the same is done without one.
    LimitNeverFires,
    /// A DNAT whose packets no rule lets through.
    DnatWithoutForward,
    /// A rule for translated destinations where nothing translates.
    ForwardWithoutDnat,
    /// A translation whose answers no rule lets through.
    NatWithoutReturn,
    /// Connections are accepted, but not what belongs to them.
    MissingEstablished,
    /// A rule that accepts everything.
    AcceptAny,
    /// A built-in chain that accepts what no rule takes.
    PolicyAccept,
    /// INVALID packets are let through beside a translation.
    InvalidNotDropped,
    /// A LOG that a flood of packets floods.
    LogWithoutLimit,
    /// A mark that is set, and no rule asks for.
    MarkNeverRead,
    /// A mark that is asked for, and no rule sets.
    MarkNeverSet,
    /// An exception without somebody who answers for it.
    ExceptionWithoutOwner,
    /// An exception without a ticket.
    ExceptionWithoutTicket,
    /// An exception without a date at which it is looked at again.
    ExceptionWithoutReview,
    /// A rule whose review date is past.
    ReviewOverdue,
    /// A rule that was to be gone by now.
    ExceptionExpired,
    /// A date in a comment that is none.
    BadDate,
    /// A rule without a comment.
    MissingPurpose,
    /// A chain that nothing says the purpose of.
    MissingScope,
    /// Something like a password in a comment or prefix.
    SecretInComment,
    /// A host name in a comment or prefix.
    HostInComment,
    /// A rule that many packets meet, behind rules that few meet.
    RuleOrder,
    /// Read, but without effect.
    NoEffect,
    /// A chain in which packets may be compared with many rules, one by one.
    SlowChain,
    /// Well written, but beyond what one policy may hold.
    CannotCompile,
    /// Compiled and interpreted forms disagree: our own fault.
    SelfCheck,
    /// A kind of file that is not supported yet.
    UnsupportedFile,
    /// Text that is not TOML.
    BadSyntax,
    /// A key of a configuration file that nothing here knows.
    UnknownKey,
    /// A value of a configuration file that is of the wrong type.
    WrongType,
    /// A type of set that ipset does not have.
    UnknownSetType,
    /// A set that does not exist where it is used.
    MissingSet,
    /// A set that exists already.
    DuplicateSet,
    /// A set that cannot be destroyed or renamed: something refers to it.
    SetInUse,
    /// Sets that cannot be swapped.
    SetMismatch,
    /// What an element carries, in a set that was created without it.
    NoExtension,
    /// An element that is in its set already.
    DuplicateElement,
    /// An element that is not in its set.
    MissingElement,
    /// An element that its set cannot hold.
    BadElement,
    /// A set that holds as many elements as it may.
    SetFull,
    /// More findings than are reported.
    TooMany,
}

impl Code {
    /// The stable kebab-case name.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => unreachable!("a unit variant serialises to its name"),
        }
    }
}
