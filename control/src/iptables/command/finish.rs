//! Putting a command together once all its words are read.

use super::{Action, Command, MAX_CHAIN_NAME, Reader, Word, matches, value};
use crate::diagnostics::Code;
use crate::iptables::extension::Problem;
use crate::model::{Counters, MatchSpec, Rule, Span, TargetSpec};
use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Neg};

/// Most rules that one line's address lists may stand for.
const MAX_EXPANDED: usize = 65_536;

impl<'w> Reader<'_, 'w> {
    pub(super) fn set_counters(&mut self, packets: &Word<'_>) {
        let bytes = self.scanner.take_argument();
        let read = |text: &str| value::number(text, 0, u64::MAX);
        let counters = bytes.and_then(|bytes| {
            Some(Counters { packets: read(&packets.text)?, bytes: read(&bytes.text)? })
        });
        match counters {
            Some(counters) => self.rule.counters = Some(counters),
            None => {
                let message = "-c needs a packet and a byte counter";
                self.error(Problem::new(Code::BadCounters, packets.span, message));
            }
        }
    }

    /// The command; `None` with an error noted if it makes no sense as a whole.
    pub(super) fn finish(&mut self) -> Option<Command<'w>> {
        let Some((letter, action, chain)) = self.command.take() else {
            let message = "no command: a line begins with -A, -I, -D, -N or the like";
            self.error(Problem::new(Code::BadCommand, self.span, message));
            return None;
        };
        let for_rule = matches!(
            action,
            Action::Append
                | Action::Insert(_)
                | Action::Delete
                | Action::Replace(_)
                | Action::Check
        );
        self.check_options(letter, for_rule);
        if chain.is_none() && !matches!(letter, 'F' | 'X' | 'Z' | 'L' | 'S') {
            let message = format!("-{letter} needs the name of a chain");
            self.error(Problem::new(Code::BadCommand, self.span, message));
            return None;
        }
        if !for_rule {
            return Some(Command { action, chain, rules: Vec::new() });
        }
        if let Some(chain) = &chain {
            self.check_interfaces(&chain.text);
        }
        self.check_lists();
        self.finish_modules();
        if !self.errors.is_empty() {
            return None;
        }
        if self.sources.len().max(1) * self.destinations.len().max(1) > MAX_EXPANDED {
            let message = format!("the address lists stand for more than {MAX_EXPANDED} rules");
            self.error(Problem::new(Code::TooLong, self.span, message));
            return None;
        }
        let rules = self.expand();
        if matches!(action, Action::Replace(_)) && rules.len() != 1 {
            let message = "-R needs a single source and a single destination";
            self.error(Problem::new(Code::BadCommand, self.span, message));
            return None;
        }
        Some(Command { action, chain, rules })
    }

    /// Options that this command does not take.
    fn check_options(&mut self, letter: char, for_rule: bool) {
        let misplaced = self.places.iter().find(|(option, _)| match option {
            '4' | '6' | 'v' | 'M' => false,
            'c' => !for_rule && letter != 'Z',
            'n' | 'x' | '0' => true,
            _ => !for_rule,
        });
        let loose = (!for_rule && !self.matches.is_empty()).then_some(('m', self.span));
        if let Some((option, at)) = misplaced.copied().or(loose) {
            let message = format!("option -{option} does not go with -{letter}");
            self.error(Problem::new(Code::BadCommand, at, message));
        }
    }

    /// A packet has no output interface yet in some chains, no input interface in others.
    fn check_interfaces(&mut self, chain: &str) {
        let forbidden = match chain {
            "PREROUTING" | "INPUT" => 'o',
            "POSTROUTING" | "OUTPUT" => 'i',
            _ => return,
        };
        if let Some((_, at)) = self.places.iter().find(|(option, _)| *option == forbidden) {
            let message = format!("-{forbidden} cannot be used in {chain}");
            self.error(Problem::new(Code::WrongHook, *at, message));
        }
    }

    /// `!` before either selector and a list in either would say something else
    /// than it seems to.
    fn check_lists(&mut self) {
        let lists = self.sources.len() > 1 || self.destinations.len() > 1;
        let negated = |selector: Option<Neg<AddressMask>>| selector.is_some_and(|one| one.negated);
        let option = match (negated(self.rule.src), negated(self.rule.dst)) {
            (true, _) => 's',
            (_, true) => 'd',
            _ => return,
        };
        if lists {
            let place = self.places.iter().find(|(letter, _)| *letter == option);
            let at = place.map_or(self.span, |(_, at)| *at);
            let message = "`!' cannot stand in a rule with a list of addresses";
            let problem = Problem::new(Code::BadNegation, at, message)
                .remedy("write one rule for each address, in a chain of its own");
            self.error(problem);
        }
    }

    fn finish_modules(&mut self) {
        let loaded = std::mem::take(&mut self.matches);
        self.rule.matches.reserve_exact(loaded.len());
        for one in &loaded {
            match one.module.finish(one.span, one.seen, &self.rule) {
                Ok(body) => self.rule.matches.push(MatchSpec { body, span: one.span }),
                // A value that was refused also looks like one that is missing.
                Err(_) if !self.errors.is_empty() => {}
                Err(problem) => self.error(problem),
            }
        }
        if let Some(target) = self.target.take() {
            let table = self.around.table;
            match target.module.finish(target.span, target.seen, &self.rule, table) {
                Ok(spec) => self.rule.target = spec,
                Err(_) if !self.errors.is_empty() => {}
                Err(problem) => self.error(problem),
            }
        }
    }

    /// One rule for each pair of addresses, sources outermost.
    fn expand(&mut self) -> Vec<Rule> {
        if self.sources.is_empty() && self.destinations.is_empty() {
            return vec![std::mem::replace(&mut self.rule, blank(self.span))];
        }
        let selectors = |list: &[AddressMask], single: Option<Neg<AddressMask>>| {
            if list.len() <= 1 {
                return vec![single];
            }
            let says = |one: &AddressMask| (one.mask != 0).then_some(Neg::plain(*one));
            list.iter().map(says).collect()
        };
        let sources = selectors(&self.sources, self.rule.src);
        let destinations = selectors(&self.destinations, self.rule.dst);
        let mut rules = Vec::with_capacity(sources.len() * destinations.len());
        for src in &sources {
            for dst in &destinations {
                rules.push(Rule { src: *src, dst: *dst, ..self.rule.clone() });
            }
        }
        rules
    }
}

/// A rule that says nothing.
pub(super) fn blank(span: Span) -> Rule {
    Rule {
        counters: None,
        src: None,
        dst: None,
        input: None,
        output: None,
        proto: None,
        fragment: None,
        matches: Vec::new(),
        target: TargetSpec::None,
        target_span: span,
        span,
    }
}

/// Refuses chain names that no command takes.
pub(crate) fn check_chain_name(word: &Word<'_>) -> Result<(), Problem> {
    let name = &*word.text;
    let bad = |message: String| Err(Problem::new(Code::BadChainName, word.span, message));
    if name.is_empty() {
        return bad("the chain name is empty".to_string());
    }
    if name.starts_with(['-', '!']) {
        return bad(format!("chain name `{name}' begins with `-' or `!'"));
    }
    if name.len() > MAX_CHAIN_NAME {
        return bad(format!("chain name `{name}' is longer than {MAX_CHAIN_NAME} bytes"));
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    if name.bytes().all(plain) {
        return Ok(());
    }
    if name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
        return bad(format!("chain name `{name}' contains a blank or a quote"));
    }
    Ok(())
}

/// The refusal of `-s ! X`.
pub(super) fn intraposed(span: Span, usage: &str) -> Problem {
    Problem::new(Code::BadNegation, span, "`!' must stand before the option")
        .remedy(format!("write `! {usage}'"))
}

/// The refusal of a word that belongs to nothing.
pub(super) fn stray(word: &Word<'_>) -> Problem {
    let problem = Problem::new(
        Code::UnexpectedText,
        word.span,
        format!("`{}' belongs to no option", word.text),
    );
    if word.text.starts_with('#') {
        problem.remedy("a comment needs a line of its own that begins with `#'")
    } else if word.text.starts_with('\u{2013}') || word.text.starts_with('\u{2014}') {
        problem.remedy("the dash is typographic; write `-'")
    } else if word.text.ends_with('\'') {
        problem.remedy("single quotes do not hold words together; use double quotes")
    } else if word.text.starts_with('!') && word.text.len() > 1 {
        problem.remedy("leave a blank after `!'")
    } else {
        problem
    }
}

/// A supported match that has the option, for the remedy of an unknown one.
pub(super) fn owner(option: &str, family: Family) -> Option<String> {
    const NAMES: [&str; 21] = [
        "tcp",
        "udp",
        "icmp",
        "icmp6",
        "multiport",
        "conntrack",
        "state",
        "limit",
        "comment",
        "iprange",
        "mark",
        "mac",
        "length",
        "ttl",
        "hl",
        "dscp",
        "tos",
        "pkttype",
        "helper",
        "connbytes",
        "connlabel",
    ];
    let name = option.strip_prefix("--")?.split('=').next()?;
    let has = |module: &&&str| {
        matches::load(module, family)
            .is_some_and(|module| module.options().iter().any(|opt| opt.name == name))
    };
    let found: Vec<String> = NAMES.iter().filter(has).map(|name| format!("`-m {name}'")).collect();
    if !found.is_empty() {
        return Some(found.join(" or "));
    }
    let targets = [
        "REJECT",
        "LOG",
        "MARK",
        "CONNMARK",
        "SNAT",
        "DNAT",
        "MASQUERADE",
        "REDIRECT",
        "NETMAP",
        "CT",
        "SYNPROXY",
        "TTL",
        "HL",
        "TOS",
        "DSCP",
        "ECN",
        "TCPMSS",
    ];
    let target = targets.iter().find(|target| {
        super::targets::load(target, family)
            .is_some_and(|module| module.options().iter().any(|opt| opt.name == name))
    })?;
    Some(format!("`-j {target}'"))
}
