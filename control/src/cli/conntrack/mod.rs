//! `portcullis conntrack`: the connection table in the words of the `conntrack` tool,
//! also when the binary is called by that name.
//!
//! `options` is the tool's command line, `parse` and `values` say what it means; the
//! daemon does the filtering. The tool's lines go to standard output and its summaries
//! to standard error; with `--json` there is one object a line.

mod options;
mod parse;
#[cfg(test)]
mod tests;
pub mod translations;
mod values;
mod watch;

use super::client::{ask, unexpected};
use super::{Exit, Output, Socket};
use crate::api::protocol::{ConntrackDelete, ConntrackQuery, ConntrackRow};
use crate::api::{Request, Response};
use crate::conntrack::{Columns, Form, save_line};
use crate::iptables::TableNames;
use parse::{Action, Request as Parsed, Shape, Wanted};

/// The filters of every command.
const FILTERS: &str = "Filters:
  -s, --src, --orig-src NET     source of the original direction
  -d, --dst, --orig-dst NET     destination of the original direction
  -r, --reply-src NET           source of the reply direction
  -q, --reply-dst NET           destination of the reply direction
      --mask-src, --mask-dst    masks for -s and -d, instead of /LENGTH
  -p, --proto PROTO             tcp, udp, icmp, icmpv6, sctp, dccp, gre, udplite, a number
      --sport, --dport PORT     with tcp, udp, ...; also --orig-port-src, --orig-port-dst,
                                --reply-port-src, --reply-port-dst
      --icmp-type, --icmp-code, --icmp-id N        with icmp; --icmpv6-... with icmpv6
      --srckey, --dstkey, --reply-key-src, --reply-key-dst KEY       with gre
      --state STATE             with tcp or sctp
  -f, --family ipv4|ipv6
  -m, --mark MARK[/MASK]
  -u, --status LIST             ASSURED, SEEN_REPLY, UNREPLIED, FIXED_TIMEOUT, EXPECTED, ...
  -w, --zone N; --orig-zone N; --reply-zone N
  -l, --label LABEL[,...]
  -n, --src-nat [IP]            source translated (to this address)
  -g, --dst-nat [IP]            destination translated
  -j, --any-nat [IP]            either";

const COMMANDS: &str = "Commands (each may be given as the option or spelled out):
  list   -L, --dump     the connections, or what the filters pass
  count  -C, --count    how many there are
  flush  -F, --flush    end all of them, without asking
  delete -D, --delete   end those that the filters pass (all of them without a filter)
  get    -G, --get      the one with this tuple
  stats  -S, --stats    counters of the table
  watch  -E, --event    what happens to connections from now on, until interrupted
The table may follow: conntrack, or expect (list, count and flush).";

const OUTPUT: &str = "Output:
  -e, --event-mask LIST         with watch: ALL, NEW, UPDATES, DESTROY
  -o, --output LIST             extended, id, timestamp, ktimestamp, labels, save
      --json                    one object a line
      --socket PATH             where the daemon listens

Exit codes as of the conntrack tool: 0 done, 1 nothing matched or it failed, 2 usage.

Examples:
  portcullis conntrack -L -p tcp --dport 443
  portcullis conntrack list -s 198.18.0.0/15 -o extended,id
  portcullis conntrack delete -p tcp -s 198.18.1.2 -d 198.18.2.2 --sport 40000 --dport 443
  portcullis conntrack -D --src-nat 203.0.113.1
  portcullis conntrack flush
  portcullis conntrack -E -e NEW,DESTROY -p tcp -o timestamp
  portcullis --json conntrack list -u UNREPLIED";

/// A command line of the `conntrack` tool.
#[derive(Debug, clap::Args)]
#[command(after_help = help(), disable_help_flag = true)]
pub struct Args {
    /// Command, filters and options, as the conntrack tool takes them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    pub words: Vec<String>,
}

fn help() -> String {
    format!("Usage: portcullis conntrack WORDS...\n\n{COMMANDS}\n\n{FILTERS}\n\n{OUTPUT}")
}

/// Who speaks: summaries and complaints begin with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Portcullis,
    /// The tool's own name and version: scripts look for its summaries.
    Tool,
}

impl Voice {
    fn say(self, text: impl std::fmt::Display) {
        match self {
            Self::Portcullis => eprintln_quietly(format_args!("portcullis: {text}")),
            Self::Tool => eprintln_quietly(format_args!("conntrack v1.4.7 (portcullis): {text}")),
        }
    }
}

/// A reader that went away is not an error.
fn eprintln_quietly(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Runs the subcommand.
pub fn run(args: Args, output: &Output) -> Exit {
    perform(&args.words, output.json(), Voice::Portcullis)
}

/// Runs as the `conntrack` tool.
pub fn as_tool(words: &[String]) -> Exit {
    perform(words, false, Voice::Tool)
}

fn perform(words: &[String], json: bool, voice: Voice) -> Exit {
    let names = TableNames::of_host();
    match parse::parse(words, &names) {
        Ok(Parsed::Help) => {
            Output::new(false).line(help());
            Exit::Ok
        }
        Ok(Parsed::Version) => {
            Output::new(false).line(format_args!("portcullis {}", env!("CARGO_PKG_VERSION")));
            Exit::Ok
        }
        Ok(Parsed::Do(wanted)) => {
            let output = Output::new(json || wanted.json);
            let path = wanted.socket.clone().unwrap_or_else(|| super::DEFAULT_SOCKET.into());
            let caller = Caller { socket: Socket { socket: path }, output, voice, names: &names };
            caller.perform(*wanted).unwrap_or_else(|exit| exit)
        }
        Err(error) => {
            if json {
                Output::new(true).error(error);
            } else {
                voice.say(error);
            }
            Exit::Usage
        }
    }
}

/// Rows fetched at a time.
const PAGE: u32 = 1000;

struct Caller<'n> {
    socket: Socket,
    output: Output,
    voice: Voice,
    names: &'n TableNames,
}

impl Caller<'_> {
    fn perform(&self, wanted: Wanted) -> Result<Exit, Exit> {
        if wanted.expect {
            return self.expectations(wanted.action);
        }
        match wanted.action {
            Action::List => self.list(wanted, u64::MAX),
            Action::Get => self.list(wanted, 1),
            Action::Count => self.count(),
            Action::Flush => self.flush(),
            Action::Delete => self.delete(wanted),
            Action::Stats => self.stats(),
            Action::Watch => watch::watch(self, wanted),
        }
    }

    fn ask(&self, request: Request) -> Result<Response, Exit> {
        ask(&self.socket, request, &self.output)
    }

    fn print(&self, shape: Shape, row: &ConntrackRow) {
        if self.output.json() {
            return self.output.object(row);
        }
        if shape.save {
            return self.output.line(save_line(row));
        }
        self.output.line(self.columns(shape, Form::List).line(row));
    }

    fn columns(&self, shape: Shape, form: Form) -> Columns<'_> {
        let Shape { extended, id, start, .. } = shape;
        Columns {
            form,
            extended,
            id,
            start,
            labels: shape.labels.then_some(self.names),
            ..Columns::default()
        }
    }

    /// What the tool says at the end, unless a program listens.
    fn summary(&self, count: u64, what: &str) {
        if !self.output.json() {
            self.voice.say(format_args!("{count} flow entries have been {what}."));
        }
    }

    fn list(&self, wanted: Wanted, most: u64) -> Result<Exit, Exit> {
        let filter = wanted.filter;
        let mut query = ConntrackQuery { filter, limit: PAGE, ..ConntrackQuery::default() };
        let mut shown = 0;
        loop {
            let Response::Conntrack(page) = self.ask(Request::ShowConntrack(query.clone()))? else {
                return Err(unexpected(&self.output));
            };
            let left = usize::try_from(most - shown).unwrap_or(usize::MAX);
            for row in page.rows.iter().take(left) {
                self.print(wanted.shape, row);
                shown += 1;
            }
            match page.next.filter(|_| shown < most) {
                Some(next) => query.cursor = next,
                None => break,
            }
        }
        if wanted.action == Action::Get && shown == 0 {
            if self.output.json() {
                self.output.error("there is no such connection");
            } else {
                self.voice.say("there is no such connection");
            }
            return Ok(Exit::Refused);
        }
        self.summary(shown, "shown");
        Ok(Exit::Ok)
    }

    fn delete(&self, wanted: Wanted) -> Result<Exit, Exit> {
        let mut request = ConntrackDelete { filter: wanted.filter, cursor: 0, limit: PAGE };
        let mut deleted = 0;
        loop {
            let Response::Deleted(page) = self.ask(Request::DeleteConntrack(request.clone()))?
            else {
                return Err(unexpected(&self.output));
            };
            page.rows.iter().for_each(|row| self.print(wanted.shape, row));
            deleted += page.deleted;
            match page.next {
                Some(next) => request.cursor = next,
                None => break,
            }
        }
        self.summary(deleted, "deleted");
        Ok(if deleted == 0 { Exit::Refused } else { Exit::Ok })
    }

    fn flush(&self) -> Result<Exit, Exit> {
        let response = self.ask(Request::FlushConntrack {})?;
        let Response::Flushed { flushed } = response else {
            return Err(unexpected(&self.output));
        };
        if self.output.json() {
            self.output.object(&response);
        } else {
            let text = format!("connection tracking table has been emptied ({flushed} entries).");
            self.voice.say(text);
        }
        Ok(Exit::Ok)
    }

    /// The table of expectations.
    fn expectations(&self, action: Action) -> Result<Exit, Exit> {
        let json = self.output.json();
        if action == Action::Flush {
            let response = self.ask(Request::FlushExpect {})?;
            let Response::Flushed { flushed } = response else {
                return Err(unexpected(&self.output));
            };
            if json {
                self.output.object(&response);
            } else {
                let text = format!("expectation table has been emptied ({flushed} entries).");
                self.voice.say(text);
            }
            return Ok(Exit::Ok);
        }
        let Response::Expectations { rows } = self.ask(Request::ShowExpect {})? else {
            return Err(unexpected(&self.output));
        };
        match (action, json) {
            (Action::Count, false) => self.output.line(rows.len()),
            (Action::Count, true) => {
                self.output.object(&serde_json::json!({ "entries": rows.len() }));
            }
            (_, true) => rows.iter().for_each(|row| self.output.object(row)),
            (_, false) => {
                rows.iter().for_each(|row| self.output.line(&row.text));
                self.voice.say(format_args!("{} expectations have been shown.", rows.len()));
            }
        }
        Ok(Exit::Ok)
    }

    fn statistics(&self) -> Result<crate::api::protocol::ConntrackStats, Exit> {
        match self.ask(Request::ShowStats {})? {
            Response::Stats(stats) => Ok(stats.conntrack),
            _ => Err(unexpected(&self.output)),
        }
    }

    fn count(&self) -> Result<Exit, Exit> {
        let entries = self.statistics()?.entries;
        if self.output.json() {
            self.output.object(&serde_json::json!({ "entries": entries }));
        } else {
            self.output.line(entries);
        }
        Ok(Exit::Ok)
    }

    /// One line, as one table serves all cores.
    fn stats(&self) -> Result<Exit, Exit> {
        let stats = self.statistics()?;
        if self.output.json() {
            self.output.object(&stats);
            return Ok(Exit::Ok);
        }
        let count = |name: &str| stats.counters.get(name).copied().unwrap_or(0);
        self.output.line(format_args!(
            "cpu=0   \tfound=0 invalid={} insert={} insert_failed={} drop={} early_drop={} error={} \
             search_restart=0 clash_resolve={} chaintoolong={} ",
            count("invalid"),
            count("insert"),
            count("insert_failed"),
            count("drop"),
            count("early_drop"),
            count("icmp_error"),
            count("clash_resolve"),
            count("chain_toolong"),
        ));
        Ok(Exit::Ok)
    }
}
