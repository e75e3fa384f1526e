//! A table while its commands are applied one after the other.

use std::collections::HashMap;

use dataplane::policy::{ChainPolicy, Hook, TableId};

use super::command::{Action, ChainKind, Command};
use super::extension::Problem;
use super::lexer::Word;
use super::{known, targets};
use crate::diagnostics::Code;
use crate::model::{Chain, Counters, Rule, Span, Table, TargetSpec};

/// Most chains in one table.
const MAX_CHAINS: usize = 65_536;
/// Most rules in one table, address lists expanded.
const MAX_RULES: usize = 1 << 20;

/// The hooks a table has chains at, in hook order.
pub(crate) fn hooks(table: TableId) -> &'static [Hook] {
    match table {
        TableId::Raw => &[Hook::Prerouting, Hook::Output],
        TableId::Mangle => &Hook::ALL,
        TableId::Nat => &[Hook::Prerouting, Hook::Input, Hook::Output, Hook::Postrouting],
        TableId::Filter | TableId::Security => &[Hook::Input, Hook::Forward, Hook::Output],
    }
}

/// A rule in normal form; rules are the same if their normal forms are.
pub(super) type Printer<'p> = dyn Fn(&Rule) -> String + 'p;

/// One table being built.
pub(super) struct TableBuilder {
    id: TableId,
    /// Built-in chains first, then user chains in the order of declaration.
    chains: Vec<Chain>,
    index: HashMap<String, usize>,
    rules: usize,
}

impl TableBuilder {
    pub(super) fn new(id: TableId, span: Span) -> Self {
        let chains: Vec<Chain> = hooks(id)
            .iter()
            .map(|hook| Chain {
                name: hook.chain_name().to_string(),
                policy: Some((ChainPolicy::Accept, Counters::default())),
                rules: Vec::new(),
                span,
            })
            .collect();
        let mut table = Self { id, chains, index: HashMap::new(), rules: 0 };
        table.reindex();
        table
    }

    pub(super) fn id(&self) -> TableId {
        self.id
    }

    /// A second `*table`: rules and user chains go, policies stay.
    pub(super) fn clear(&mut self) {
        self.chains.truncate(hooks(self.id).len());
        self.chains.iter_mut().for_each(|chain| chain.rules.clear());
        self.rules = 0;
        self.reindex();
    }

    /// The table with its user chains sorted as the tools print them.
    pub(super) fn finish(mut self) -> Table {
        let built_in = hooks(self.id).len();
        self.chains[built_in..].sort_by(|a, b| a.name.cmp(&b.name));
        Table { id: self.id, chains: self.chains }
    }

    pub(super) fn is_built_in(&self, name: &str) -> bool {
        self.kind(name) == Some(ChainKind::BuiltIn)
    }

    /// What a name is here, if it is a chain's.
    pub(super) fn kind(&self, name: &str) -> Option<ChainKind> {
        let built_in = |index: &usize| match *index < hooks(self.id).len() {
            true => ChainKind::BuiltIn,
            false => ChainKind::User,
        };
        self.index.get(name).map(built_in)
    }

    pub(super) fn has_chain(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// A policy by `:CHAIN` or `-P`, of a chain that is built in.
    pub(super) fn set_policy(
        &mut self,
        name: &Word<'_>,
        policy: ChainPolicy,
        counters: Option<Counters>,
    ) {
        if let Some(index) = self.index.get(&*name.text) {
            self.chains[*index].policy = Some((policy, counters.unwrap_or_default()));
            self.chains[*index].span = name.span;
        }
    }

    /// Where a built-in chain is declared, if it is.
    pub(super) fn declared(&mut self, name: &Word<'_>) {
        if let Some(index) = self.index.get(&*name.text) {
            self.chains[*index].span = name.span;
        }
    }

    /// A user chain, by `:NAME` or `-N`.
    pub(super) fn add_chain(&mut self, name: &Word<'_>) -> Result<(), Problem> {
        let text = &*name.text;
        if matches!(text, "ACCEPT" | "DROP" | "RETURN" | "QUEUE") {
            let message = format!("chain name `{text}' would hide the target of that name");
            return Err(Problem::new(Code::BadChainName, name.span, message));
        }
        if let Some(first) = self.index.get(text) {
            let line = self.chains[*first].span.line;
            let message = format!("chain `{text}' exists already, since line {line}");
            return Err(Problem::new(Code::DuplicateChain, name.span, message));
        }
        if self.chains.len() >= MAX_CHAINS {
            let message = format!("more than {MAX_CHAINS} chains in one table");
            return Err(Problem::new(Code::TooLong, name.span, message));
        }
        self.index.insert(text.to_string(), self.chains.len());
        self.chains.push(Chain {
            name: text.to_string(),
            policy: None,
            rules: Vec::new(),
            span: name.span,
        });
        Ok(())
    }

    fn reindex(&mut self) {
        self.index =
            self.chains.iter().enumerate().map(|(i, chain)| (chain.name.clone(), i)).collect();
    }

    fn find(&self, name: &Word<'_>) -> Result<usize, Problem> {
        self.index.get(&*name.text).copied().ok_or_else(|| {
            let message = format!("table {} has no chain `{}'", self.id.name(), name.text);
            Problem::new(Code::MissingChain, name.span, message)
                .remedy(format!("declare it first: `:{} - [0:0]'", name.text))
        })
    }

    fn find_user(&self, name: &Word<'_>) -> Result<usize, Problem> {
        let index = self.find(name)?;
        if index < hooks(self.id).len() {
            let message = format!("`{}' is a built-in chain", name.text);
            return Err(Problem::new(Code::ChainInUse, name.span, message));
        }
        Ok(index)
    }

    /// Carries out one command.
    pub(super) fn apply(
        &mut self,
        command: Command<'_>,
        print: &Printer<'_>,
    ) -> Result<(), Problem> {
        let Command { action, chain, rules } = command;
        match (action, chain) {
            (Action::List, _) => Ok(()),
            (Action::Append, Some(chain)) => {
                let index = self.find(&chain)?;
                self.grow(rules.len(), chain.span)?;
                self.chains[index].rules.extend(rules);
                Ok(())
            }
            (Action::Insert(number), Some(chain)) => {
                let index = self.find(&chain)?;
                let at = number as usize - 1;
                if at > self.chains[index].rules.len() {
                    return Err(no_such_rule(&chain, number));
                }
                self.grow(rules.len(), chain.span)?;
                // The tools insert each at the same number: the last comes first.
                self.chains[index].rules.splice(at..at, rules.into_iter().rev());
                Ok(())
            }
            (Action::Replace(number), Some(chain)) => {
                let index = self.find(&chain)?;
                match self.chains[index].rules.get_mut(number as usize - 1) {
                    None => Err(no_such_rule(&chain, number)),
                    Some(rule) => {
                        rules.into_iter().for_each(|new| *rule = new);
                        Ok(())
                    }
                }
            }
            (Action::DeleteNumber(number), Some(chain)) => self.delete_number(&chain, number),
            (Action::Delete, Some(chain)) => self.delete(&chain, &rules, true, print),
            (Action::Check, Some(chain)) => self.delete(&chain, &rules, false, print),
            (Action::New, Some(chain)) => self.new_chain(&chain),
            (Action::Policy(policy), Some(chain)) => {
                let index = self.find(&chain)?;
                if self.chains[index].policy.is_none() {
                    let message = format!("`{}' is not built in: it has no policy", chain.text);
                    return Err(Problem::new(Code::BadPolicy, chain.span, message));
                }
                self.set_policy(&chain, policy, None);
                Ok(())
            }
            (Action::Rename(to), Some(chain)) => self.rename(&chain, &to),
            (Action::DeleteChain, chain) => self.delete_chain(chain.as_ref()),
            (Action::Flush, chain) => {
                for index in self.selected(chain.as_ref())? {
                    self.rules -= self.chains[index].rules.len();
                    self.chains[index].rules.clear();
                }
                Ok(())
            }
            (Action::Zero, chain) => {
                for index in self.selected(chain.as_ref())? {
                    self.zero(index);
                }
                Ok(())
            }
            // `Reader::finish` lets no other command through without its chain.
            (_, None) => Ok(()),
        }
    }

    fn selected(&self, chain: Option<&Word<'_>>) -> Result<Vec<usize>, Problem> {
        match chain {
            Some(chain) => Ok(vec![self.find(chain)?]),
            None => Ok((0..self.chains.len()).collect()),
        }
    }

    fn zero(&mut self, index: usize) {
        let chain = &mut self.chains[index];
        if let Some((_, counters)) = &mut chain.policy {
            *counters = Counters::default();
        }
        chain.rules.iter_mut().for_each(|rule| rule.counters = None);
    }

    fn grow(&mut self, by: usize, at: Span) -> Result<(), Problem> {
        if self.rules + by > MAX_RULES {
            let message = format!("more than {MAX_RULES} rules in one table");
            return Err(Problem::new(Code::TooLong, at, message));
        }
        self.rules += by;
        Ok(())
    }

    fn delete_number(&mut self, chain: &Word<'_>, number: u32) -> Result<(), Problem> {
        let index = self.find(chain)?;
        let at = number as usize - 1;
        if at >= self.chains[index].rules.len() {
            return Err(no_such_rule(chain, number));
        }
        self.chains[index].rules.remove(at);
        self.rules -= 1;
        Ok(())
    }

    /// Deletes (or only looks for) the first rule that says the same as each of `rules`.
    fn delete(
        &mut self,
        chain: &Word<'_>,
        rules: &[Rule],
        remove: bool,
        print: &Printer<'_>,
    ) -> Result<(), Problem> {
        let index = self.find(chain)?;
        for rule in rules {
            let wanted = print(rule);
            let found = self.chains[index].rules.iter().position(|known| print(known) == wanted);
            let Some(at) = found else {
                let message = format!("chain `{}' has no such rule", chain.text);
                return Err(Problem::new(Code::NoSuchRule, rule.span, message));
            };
            if remove {
                self.chains[index].rules.remove(at);
                self.rules -= 1;
            }
        }
        Ok(())
    }

    fn new_chain(&mut self, chain: &Word<'_>) -> Result<(), Problem> {
        if targets::exists(&chain.text) || known::is_known_target(&chain.text) {
            let message = format!("chain name `{}' is the name of a target", chain.text);
            return Err(Problem::new(Code::BadChainName, chain.span, message));
        }
        self.add_chain(chain)
    }

    fn rename(&mut self, from: &Word<'_>, to: &Word<'_>) -> Result<(), Problem> {
        let index = self.find_user(from)?;
        let known = targets::exists(&to.text) || known::is_known_target(&to.text);
        if known || matches!(&*to.text, "ACCEPT" | "DROP" | "RETURN") {
            let message = format!("chain name `{}' is the name of a target", to.text);
            return Err(Problem::new(Code::BadChainName, to.span, message));
        }
        if self.has_chain(&to.text) {
            let message = format!("chain `{}' exists already", to.text);
            return Err(Problem::new(Code::DuplicateChain, to.span, message));
        }
        self.chains[index].name = to.text.to_string();
        for rule in self.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            match &mut rule.target {
                TargetSpec::Jump(name) | TargetSpec::Goto(name) if *name == from.text => {
                    *name = to.text.to_string();
                }
                _ => {}
            }
        }
        self.reindex();
        Ok(())
    }

    fn delete_chain(&mut self, chain: Option<&Word<'_>>) -> Result<(), Problem> {
        let Some(chain) = chain else {
            let user = &self.chains[hooks(self.id).len()..];
            if let Some(used) =
                user.iter().find(|chain| !chain.rules.is_empty() || self.is_used(&chain.name))
            {
                let message = format!("-X: chain `{}' still holds or gets rules", used.name);
                return Err(Problem::new(Code::ChainInUse, used.span, message));
            }
            self.chains.truncate(hooks(self.id).len());
            self.reindex();
            return Ok(());
        };
        let index = self.find_user(chain)?;
        if !self.chains[index].rules.is_empty() || self.is_used(&chain.text) {
            let message = format!("chain `{}' still holds rules or is jumped to", chain.text);
            return Err(Problem::new(Code::ChainInUse, chain.span, message)
                .remedy("flush it and the rules that jump to it first"));
        }
        self.chains.remove(index);
        self.reindex();
        Ok(())
    }

    fn is_used(&self, name: &str) -> bool {
        self.chains.iter().flat_map(|chain| &chain.rules).any(|rule| match &rule.target {
            TargetSpec::Jump(to) | TargetSpec::Goto(to) => to == name,
            _ => false,
        })
    }
}

fn no_such_rule(chain: &Word<'_>, number: u32) -> Problem {
    let message = format!("chain `{}' has no rule {number}", chain.text);
    Problem::new(Code::NoSuchRule, chain.span, message)
}
