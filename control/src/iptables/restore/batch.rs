//! Long runs of `-A` lines, read on several cores.
//!
//! Such a line changes no chains, so that what the others of its run mean does not depend on
//! it; what it says is carried out, and reported, in the order of the lines all the same.

use std::thread;

use super::{FileReader, front_counters, lex_problem};
use crate::compile;
use crate::diagnostics::{Code, Severity};
use crate::iptables::command::{self, Action, Outcome, Surroundings};
use crate::iptables::extension::Problem;
use crate::iptables::lexer::{self, Word};
use crate::model::{Rule, Span};

/// What one line says.
#[derive(Debug, Default)]
struct Understood {
    warnings: Vec<Problem>,
    errors: Vec<Problem>,
    /// Where it says that it is for the other family.
    elsewhere: Option<Span>,
    /// The chain by its number, where it is named, and what is appended to it.
    rules: Option<(usize, Span, Vec<Rule>)>,
}

/// How many lines from here on can be nothing but appends, or wrong.
pub(super) fn run(lines: &[&str]) -> usize {
    lines.iter().position(|line| !appends(line)).unwrap_or(lines.len())
}

fn appends(line: &str) -> bool {
    let command = match line.strip_prefix('[') {
        None => Some(line),
        Some(counted) => counted.split_once("] ").map(|(_, command)| command),
    };
    command.is_some_and(|command| command.starts_with("-A "))
        && line.len() <= lexer::MAX_LINE_BYTES
        && !line.as_bytes().contains(&0)
}

impl FileReader<'_> {
    /// Reads a run, the first line of which has this number.
    pub(super) fn batch(&mut self, current: usize, lines: &[&str], number: u32) {
        let size = lines.len().div_ceil(compile::threads(lines.len())).max(1);
        let reader = &*self;
        let part = |at: usize| {
            let first = number.saturating_add((at * size) as u32);
            let numbered = lines.iter().skip(at * size).take(size).zip(first..);
            let (mut words, mut read) = (Vec::new(), Vec::with_capacity(size));
            for (line, number) in numbered {
                words.clear();
                read.push(reader.understand(current, line, number, &mut words));
            }
            read
        };
        let part = &part;
        let parts: Vec<Vec<Understood>> = thread::scope(|scope| {
            let spawn = |at| {
                let thread = thread::Builder::new().name("read".to_owned());
                // Without a second thread the first does it all.
                (at, thread.spawn_scoped(scope, move || part(at)).ok())
            };
            let others: Vec<_> = (1..lines.len().div_ceil(size)).map(spawn).collect();
            let first = part(0);
            let joined = others.into_iter().map(|(at, thread)| match thread.map(|it| it.join()) {
                None => part(at),
                Some(read) => read.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            });
            std::iter::once(first).chain(joined).collect()
        });
        for understood in parts.into_iter().flatten() {
            if self.overflow {
                break;
            }
            self.carry_out(current, understood);
        }
    }

    fn understand<'t>(
        &self,
        current: usize,
        line: &'t str,
        number: u32,
        words: &mut Vec<Word<'t>>,
    ) -> Understood {
        let mut understood = Understood::default();
        let front = match front_counters(line, number) {
            Ok(front) => front,
            Err(problem) => {
                understood.errors.push(problem);
                return understood;
            }
        };
        understood.warnings.extend(front.warning);
        if let Err((error, span)) = lexer::words(line, number, front.len, words) {
            understood.errors.push(lex_problem(error, span));
            return understood;
        }
        let table = &self.tables[current];
        let chain = |name: &str| table.kind(name);
        let (family, names) = (self.family, self.names);
        let around = Surroundings { family, table: table.id(), names, chain: &chain };
        let Understood { warnings, errors, .. } = &mut understood;
        match command::read(words, front.counters, &around, errors, warnings) {
            Outcome::Refused => {}
            Outcome::OtherFamily(span) => understood.elsewhere = Some(span),
            Outcome::Command(command) => {
                debug_assert_eq!(command.action, Action::Append, "nothing else begins so");
                match command.chain.map(|chain| (table.find(&chain), chain.span)) {
                    Some((Ok(index), at)) => understood.rules = Some((index, at, command.rules)),
                    Some((Err(problem), _)) => understood.errors.push(problem),
                    None => {}
                }
            }
        }
        understood
    }

    fn carry_out(&mut self, current: usize, understood: Understood) {
        let Understood { warnings, errors, elsewhere, rules } = understood;
        warnings.into_iter().for_each(|problem| self.warning(problem));
        errors.into_iter().for_each(|problem| self.error(problem));
        if let Some(span) = elsewhere {
            self.left_out(span);
        }
        if let Some((index, at, rules)) = rules
            && let Err(problem) = self.tables[current].append(index, rules, at)
        {
            self.error(problem);
        }
    }

    /// A line for the other family.
    pub(super) fn left_out(&mut self, span: Span) {
        let message = "this line is for the other family and is left out";
        self.report(Severity::Note, Problem::new(Code::NoEffect, span, message));
    }
}

#[cfg(test)]
mod tests {
    use dataplane::packet::Family;
    use proptest::prelude::*;

    use super::{FileReader, run};
    use crate::iptables::TableNames;

    /// Lines of all sorts: good, wrong in several ways, of other commands.
    const LINES: &[&str] = &[
        "-A FORWARD -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT",
        "[3:180] -A FORWARD -d 10.0.0.1/32 -m comment --comment \"two words\" -j DROP",
        "[3] -A FORWARD -j DROP",
        "[x:y] -A FORWARD -j DROP",
        "-A FORWARD -s 10.0.0.1,10.0.0.2 -j U",
        "-A NOWHERE -j DROP",
        "-A FORWARD -j NOWHERE",
        "-A FORWARD --dport 80 -j ACCEPT",
        "-A FORWARD -m comment --comment \"open -j ACCEPT",
        "-A U -6 -j ACCEPT",
        "-A U -p tcp -m tcp --dport 70000",
        "-A U -A FORWARD",
        "-A U -i eth0 -m conntrack --ctstate NEW -j RETURN",
        "-A V -j ACCEPT",
        "-N V",
        "-I U 1 -j DROP",
        "# a remark",
        "",
        "COMMIT",
        "*filter",
    ];

    proptest! {
        #[test]
        fn runs_are_read_as_lines_are(picked in prop::collection::vec(0..LINES.len(), 0..60)) {
            let mut text = "*filter\n:FORWARD ACCEPT [0:0]\n:U - [0:0]\n".to_owned();
            for at in picked {
                text.push_str(LINES[at]);
                text.push('\n');
            }
            let names = TableNames::well_known();
            let read = |worth| {
                let mut reader = FileReader::new("test", Family::V4, &names);
                reader.worth_a_batch = worth;
                format!("{:?}", reader.read(&text))
            };
            prop_assert_eq!(read(1), read(usize::MAX));
        }
    }

    #[test]
    fn a_run_ends_before_what_may_change_chains() {
        assert_eq!(run(&["-A F -j DROP", "[1:2] -A F", "-N F", "-A F"]), 2);
        for other in ["-N F", "[1:2] -N F", "[1:2]-A F", "", "# -A", "COMMIT", ":F", "-A", "-AF"] {
            assert_eq!(run(&[other]), 0, "{other}");
        }
    }
}
