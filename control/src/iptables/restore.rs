//! The file: `*table`, `:CHAIN`, commands, `COMMIT`, in the order the tools
//! allow, each line standing for itself so that every error is found at once.

use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::policy::{ChainPolicy, TableId};

use super::command::{self, Outcome, Surroundings};
use super::extension::Problem;
use super::lexer::{self, LexError, Word};
use super::names::Names;
use super::table::TableBuilder;
use super::{print, value, verify};
use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Counters, Rule, Ruleset, Span};

/// Most findings reported for one file.
const MAX_FINDINGS: usize = 1_000;

/// Reads a whole file.
pub(super) struct FileReader<'f> {
    file: Arc<str>,
    family: Family,
    names: &'f dyn Names,
    /// Finished and current tables, in the order of first mention.
    tables: Vec<TableBuilder>,
    /// Index of the table between `*` and COMMIT.
    current: Option<usize>,
    /// Lines of an unknown table are skipped up to its COMMIT.
    skipping: bool,
    started: Span,
    findings: Vec<Finding>,
    overflow: bool,
}

impl<'f> FileReader<'f> {
    pub(super) fn new(file: &str, family: Family, names: &'f dyn Names) -> Self {
        Self {
            file: Arc::from(file),
            family,
            names,
            tables: Vec::new(),
            current: None,
            skipping: false,
            started: Span { line: 1, column: 1, len: 1 },
            findings: Vec::new(),
            overflow: false,
        }
    }

    /// Reads everything; gives the ruleset and all findings.
    pub(super) fn read(mut self, source: &str) -> (Ruleset, Vec<Finding>) {
        let (mut last, mut words) = (1, Vec::new());
        for (index, line) in source.split('\n').enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            if !line.is_empty() {
                last = number;
            }
            words.clear();
            self.line(line.strip_suffix('\r').unwrap_or(line), number, &mut words);
            if self.overflow {
                break;
            }
        }
        self.missing_commit(Span { line: last, column: 1, len: 1 });
        let ruleset = Ruleset {
            family: self.family,
            tables: self.tables.into_iter().map(TableBuilder::finish).collect(),
        };
        let file = Arc::clone(&self.file);
        let problems = verify::verify(&ruleset);
        let found = problems.into_iter().map(|p| finding(Severity::Error, &file, p));
        self.findings.extend(found);
        self.findings.sort_by_key(|finding| (finding.line, finding.column));
        (ruleset, self.findings)
    }

    fn report(&mut self, severity: Severity, problem: Problem) {
        if self.findings.len() >= MAX_FINDINGS {
            if !self.overflow {
                let message = format!("more than {MAX_FINDINGS} findings; reading stops here");
                let problem = Problem::new(Code::TooMany, problem.span, message);
                self.findings.push(finding(Severity::Error, &self.file, problem));
            }
            self.overflow = true;
            return;
        }
        self.findings.push(finding(severity, &self.file, problem));
    }

    fn error(&mut self, problem: Problem) {
        self.report(Severity::Error, problem);
    }

    fn warning(&mut self, problem: Problem) {
        self.report(Severity::Warning, problem);
    }

    /// Reads one line, whose words have room in `words`.
    fn line<'t>(&mut self, line: &'t str, number: u32, words: &mut Vec<Word<'t>>) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let whole = || lexer::span(number, 0, line.chars().count());
        if line.len() > lexer::MAX_LINE_BYTES {
            let message = format!("this line is longer than {} bytes", lexer::MAX_LINE_BYTES);
            self.error(Problem::new(Code::TooLong, whole(), message));
        } else if let Some(at) = line.as_bytes().iter().position(|byte| *byte == 0) {
            let span = lexer::span(number, line[..at].chars().count(), 1);
            self.error(Problem::new(Code::BadEncoding, span, "a NUL byte in a rule file"));
        } else if line == "COMMIT" {
            self.commit(whole());
        } else if line.starts_with('*') {
            self.missing_commit(whole());
            self.table(line, number);
        } else if let Some(current) = self.current {
            if line.starts_with(':') {
                self.chain(current, line, number);
            } else {
                self.command(current, line, number, words);
            }
        } else if !self.skipping {
            let problem = Problem::new(Code::UnexpectedText, whole(), "this line is in no table")
                .remedy("a table begins with `*filter' or the like and ends with COMMIT");
            self.error(problem);
        }
    }

    fn commit(&mut self, at: Span) {
        if self.current.is_none() && !self.skipping {
            let message = "COMMIT without a table";
            self.error(Problem::new(Code::UnexpectedText, at, message));
        }
        self.current = None;
        self.skipping = false;
    }

    fn missing_commit(&mut self, at: Span) {
        if let Some(current) = self.current.take() {
            let name = self.tables[current].id().name();
            let line = self.started.line;
            let message = format!("table {name}, begun on line {line}, has no COMMIT");
            let problem = Problem::new(Code::MissingCommit, at, message)
                .remedy("add a line with COMMIT, nothing else, after the table's last rule");
            self.error(problem);
        }
        self.skipping = false;
    }

    fn table(&mut self, line: &str, number: u32) {
        let words = lexer::plain_words(line, number, 1);
        let (text, span) = match words.first() {
            Some(word) => (&*word.text, word.span),
            None => ("", lexer::span(number, 0, 1)),
        };
        self.started = span;
        let Some(id) = TableId::ALL.into_iter().find(|id| id.name() == text) else {
            let message = format!("there is no table `{text}'");
            let problem = Problem::new(Code::UnknownTable, span, message)
                .remedy("the tables are raw mangle nat filter security");
            self.error(problem);
            self.skipping = true;
            return;
        };
        match self.tables.iter().position(|table| table.id() == id) {
            None => {
                self.current = Some(self.tables.len());
                self.tables.push(TableBuilder::new(id, span));
            }
            Some(index) => {
                let message = format!(
                    "table {text} again: what the first one said is replaced, except policies"
                );
                self.warning(Problem::new(Code::RepeatedTable, span, message));
                self.tables[index].clear();
                self.current = Some(index);
            }
        }
    }

    /// `:NAME POLICY [packets:bytes]`.
    fn chain(&mut self, current: usize, line: &str, number: u32) {
        let words = lexer::plain_words(line, number, 1);
        let whole = lexer::span(number, 0, line.chars().count());
        let Some(name) = words.first() else {
            self.error(Problem::new(Code::BadChainName, whole, "a chain line without a name"));
            return;
        };
        let Some(policy) = words.get(1) else {
            let problem = Problem::new(Code::BadPolicy, name.span, "the chain has no policy")
                .remedy("write ACCEPT or DROP for a built-in chain, `-' for another");
            self.error(problem);
            return;
        };
        if let Err(problem) = command::check_chain_name(name) {
            self.error(problem);
            return;
        }
        if self.tables[current].is_built_in(&name.text) {
            self.tables[current].declared(name);
            let counters = words.get(2).and_then(|word| parse_counters(&word.text));
            match &*policy.text {
                "-" => {}
                "ACCEPT" => {
                    self.tables[current].set_policy(name, ChainPolicy::Accept, counters);
                }
                "DROP" => {
                    self.tables[current].set_policy(name, ChainPolicy::Drop, counters);
                }
                other => {
                    let message = format!("`{other}' is no policy of a built-in chain");
                    let problem = Problem::new(Code::BadPolicy, policy.span, message)
                        .remedy("the policies are ACCEPT and DROP");
                    self.error(problem);
                }
            }
            return;
        }
        self.user_chain(current, name, policy);
    }

    fn user_chain(&mut self, current: usize, name: &Word<'_>, policy: &Word<'_>) {
        if matches!(&*policy.text, "ACCEPT" | "DROP") {
            let table = self.tables[current].id().name();
            let message = format!(
                "`{}' is not built into table {table}, so it cannot have a policy",
                name.text
            );
            let problem = Problem::new(Code::BadPolicy, policy.span, message)
                .remedy("write `-', and end the chain with a rule if it shall accept or drop");
            self.error(problem);
        } else if policy.text != "-" {
            let message = format!("`{}' in place of the policy is ignored", policy.text);
            let problem = Problem::new(Code::NoEffect, policy.span, message);
            self.warning(problem.remedy("write `-'"));
        }
        if let Err(problem) = self.tables[current].add_chain(name) {
            self.error(problem);
        }
    }

    /// `[packets:bytes]` in front of a command: its counters and its length in characters.
    fn front_counters(
        &mut self,
        line: &str,
        number: u32,
    ) -> Result<(Option<Counters>, usize), Problem> {
        if !line.starts_with('[') {
            return Ok((None, 0));
        }
        let Some(end) = line.find(']') else {
            let span = lexer::span(number, 0, 1);
            return Err(Problem::new(Code::BadCounters, span, "`[' without its `]'"));
        };
        let text = &line[..=end];
        let len = text.chars().count();
        let span = lexer::span(number, 0, len);
        if !text.contains(':') {
            let problem = Problem::new(Code::BadCounters, span, "the counters have no `:'");
            return Err(problem.remedy("write [PACKETS:BYTES]"));
        }
        let counters = parse_counters(text);
        if counters.is_none() {
            let message = format!("`{text}' are no counters; the rule starts at zero");
            self.warning(Problem::new(Code::BadCounters, span, message));
        }
        Ok((counters, len))
    }

    fn command<'t>(
        &mut self,
        current: usize,
        line: &'t str,
        number: u32,
        words: &mut Vec<Word<'t>>,
    ) {
        let (counters, skip) = match self.front_counters(line, number) {
            Ok(found) => found,
            Err(problem) => return self.error(problem),
        };
        if let Err((error, span)) = lexer::words(line, number, skip, words) {
            return self.error(lex_problem(error, span));
        }
        if words.is_empty() {
            // The tools refuse a line of blanks; an operator would not.
            return;
        }
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let table = &self.tables[current];
        let chain = |name: &str| table.kind(name);
        let surroundings = Surroundings {
            family: self.family,
            table: table.id(),
            names: self.names,
            chain: &chain,
        };
        let outcome = command::read(words, counters, &surroundings, &mut errors, &mut warnings);
        warnings.into_iter().for_each(|problem| self.warning(problem));
        if outcome_is_refused(&outcome) && words[0].text == "COMMIT" {
            let span = words.get(1).map_or(words[0].span, |word| word.span);
            let problem = Problem::new(Code::UnexpectedText, span, "COMMIT must stand alone");
            self.error(problem.remedy("remove the blanks or words around it"));
            self.current = None;
            return;
        }
        errors.into_iter().for_each(|problem| self.error(problem));
        match outcome {
            Outcome::Refused => {}
            Outcome::OtherFamily(span) => {
                let message = "this line is for the other family and is left out";
                self.report(Severity::Note, Problem::new(Code::NoEffect, span, message));
            }
            Outcome::Command(command) => {
                let (family, names) = (self.family, self.names);
                let printer = |rule: &Rule| print::rule_text(rule, family, names);
                if let Err(problem) = self.tables[current].apply(command, &printer) {
                    self.error(problem);
                }
            }
        }
    }
}

fn outcome_is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused)
}

fn finding(severity: Severity, file: &Arc<str>, problem: Problem) -> Finding {
    let mut finding = Finding::new(severity, problem.code, file, problem.span, problem.message);
    finding.remedy = problem.remedy;
    finding
}

fn lex_problem(error: LexError, span: Span) -> Problem {
    let problem = Problem::new(
        match error {
            LexError::UnterminatedQuote => Code::UnterminatedQuote,
            LexError::WordTooLong | LexError::TooManyWords => Code::TooLong,
        },
        span,
        error.to_string(),
    );
    match error {
        LexError::UnterminatedQuote => {
            problem.remedy("close it, or write \\\" inside quotes for the character itself")
        }
        _ => problem,
    }
}

/// `[packets:bytes]`, both decimal.
fn parse_counters(text: &str) -> Option<Counters> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let (packets, bytes) = inner.split_once(':')?;
    let read = |text: &str| value::number(text, 0, u64::MAX);
    Some(Counters { packets: read(packets)?, bytes: read(bytes)? })
}
