//! `portcullis set`: sets in the words of the `ipset` tool, also when the binary is called
//! by that name.
//!
//! The daemon reads the commands; listings come page by page and are printed as they come.

mod listing;
#[cfg(test)]
mod tests;

use std::io::Read;

use super::client::{report, unexpected};
use super::{Exit, Output};
use crate::api::protocol::{SetUse, Source};
use crate::api::{Client, ClientError, Code, Request, Response};
use crate::config::DEFAULT_SOCKET;
use crate::ipset::{Form, Options, command_name};

/// What the tool calls itself.
const TOOL: &str = "ipset v7.17 (portcullis)";
/// Bytes of a file that is restored at most: it goes in one message.
const MAX_RESTORE: u64 = 60 << 20;

const HELP: &str = "Commands, as the ipset tool has them:
  create NAME TYPE [OPTIONS]         make a set
  add NAME ELEMENT [OPTIONS]         add an element
  del NAME ELEMENT                   delete one
  test NAME ELEMENT                  say whether it is in the set
  flush [NAME]                       empty a set, or all
  destroy [NAME]                     remove a set, or all; not while something refers to it
  rename NAME NEW                    give a set another name
  swap NAME OTHER                    swap what two names stand for
  list [NAME]                        print sets for people
  save [NAME]                        print them as commands
  restore                            read commands, from standard input or -f FILE; all or none
  where-used NAME                    the rules and lists that refer to a set

Options, anywhere:
  -exist, -!      no error for what is there already, or is not there any more
  -q              nothing is said of elements that are not in the set
  -t              list without elements          -n   list names only
  -s              list sorted                    -o plain|save
  -f FILE         read from, or write to, a file
  --json          one object a line
  --socket PATH   where the daemon listens

Exit codes as of the ipset tool: 0 done, or in the set; 1 refused, or not in the set; 2 usage.

Examples:
  portcullis set create blocked hash:net timeout 3600
  portcullis set add blocked 198.51.100.0/24 timeout 600
  portcullis set test blocked 198.51.100.7
  portcullis set list blocked -s
  portcullis set save > sets.save
  portcullis set restore -f sets.save -exist
  portcullis set where-used blocked
  portcullis --json set list -t";

/// A command line of the `ipset` tool.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, disable_help_flag = true)]
pub struct Args {
    /// Command and options, as the ipset tool takes them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORDS")]
    pub words: Vec<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Portcullis,
    /// Scripts look at what the tool says.
    Tool,
}

/// Runs the subcommand.
pub fn run(args: Args, output: &Output) -> Exit {
    perform(args.words, output.json(), Voice::Portcullis)
}

/// Runs as the `ipset` tool.
pub fn as_tool(words: &[String]) -> Exit {
    perform(words.to_vec(), false, Voice::Tool)
}

/// A command line, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    options: Options,
    json: bool,
    socket: String,
    /// What is left: the command and its operands.
    words: Vec<String>,
}

/// Takes our own options out of the words, and the tool's.
fn parse(words: Vec<String>, json: bool) -> Result<Parsed, String> {
    let mut parsed = Parsed {
        options: Options::default(),
        json,
        socket: DEFAULT_SOCKET.to_owned(),
        words: Vec::new(),
    };
    let mut rest = words.into_iter();
    let mut others = Vec::new();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--json" => parsed.json = true,
            "--socket" => {
                parsed.socket = rest.next().ok_or("--socket needs a path")?;
            }
            _ => others.push(word),
        }
    }
    let (options, words) = Options::of_arguments(&others)?;
    (parsed.options, parsed.words) = (options, words);
    Ok(parsed)
}

/// The words as a line that is split into the same words again.
fn line(words: &[String]) -> Result<String, String> {
    let quoted = words.iter().map(|word| match word {
        word if word.contains(['"', '\n', '\0']) => {
            Err(format!("{word:?} holds a double quote or a line end, which sets cannot hold"))
        }
        word if word.is_empty() || word.contains([' ', '\t']) => Ok(format!("\"{word}\"")),
        word => Ok(word.clone()),
    });
    Ok(quoted.collect::<Result<Vec<_>, _>>()?.join(" "))
}

fn perform(words: Vec<String>, json: bool, voice: Voice) -> Exit {
    let parsed = match parse(words, json) {
        Ok(parsed) => parsed,
        Err(error) => return usage(voice, json, &error),
    };
    let speaker = Speaker { voice, output: Output::new(parsed.json) };
    let Some(first) = parsed.words.first().cloned() else {
        if parsed.options.names {
            return Session { parsed, speaker }.list(Form::Plain, None);
        }
        return usage(voice, json, "there is no command");
    };
    if matches!(first.as_str(), "-h" | "--help" | "-H") || command_name(&first) == Some("help") {
        speaker.output.line(HELP);
        return Exit::Ok;
    }
    if matches!(first.as_str(), "-v" | "-V" | "--version")
        || command_name(&first) == Some("version")
    {
        speaker.output.line(format_args!("{TOOL}, protocol version: 7"));
        return Exit::Ok;
    }
    let session = Session { parsed, speaker };
    if first == "where-used" {
        return session.where_used();
    }
    let (form, one) = (session.parsed.options.form, session.parsed.words.get(1).cloned());
    match command_name(&first) {
        Some("list") => session.list(form.unwrap_or(Form::Plain), one),
        Some("save") => session.list(form.unwrap_or(Form::Save), one),
        Some("restore") => session.restore(),
        Some(_) => session.change(),
        None => usage(voice, json, &format!("`{first}' is no command")),
    }
}

fn usage(voice: Voice, json: bool, error: &str) -> Exit {
    let speaker = Speaker { voice, output: Output::new(json) };
    speaker.error(error);
    if voice == Voice::Tool {
        speaker.output.complaint("Try `ipset help' for more information.");
    }
    Exit::Usage
}

/// Says things in the tool's name or in ours.
#[derive(Clone, Copy, Debug)]
struct Speaker {
    voice: Voice,
    output: Output,
}

impl Speaker {
    fn error(&self, error: impl std::fmt::Display) {
        match self.voice {
            Voice::Portcullis => self.output.error(error),
            Voice::Tool => self.output.complaint(format_args!("{TOOL}: {error}")),
        }
    }

    /// What the daemon answers, or why it does not.
    fn failed(&self, error: &ClientError, sources: &[Source]) -> Exit {
        if let (Voice::Tool, ClientError::Failed(failure)) = (self.voice, error) {
            for it in failure.findings.iter().filter(|it| it.severity == "error") {
                let place = if it.file == "command" {
                    String::new()
                } else {
                    format!("Error in line {}: ", it.line)
                };
                let remedy = it.remedy.as_ref().map_or_else(String::new, |it| format!(" ({it})"));
                self.error(format_args!("{place}{}{remedy}", it.message));
            }
            if failure.findings.is_empty() {
                self.error(&failure.message);
            }
            return Exit::Refused;
        }
        match report(error, sources, &self.output) {
            // As of the tool: 1 for everything that is refused.
            Exit::Internal if matches!(error, ClientError::Failed(it) if it.code == Code::Refused) => {
                Exit::Refused
            }
            exit => exit,
        }
    }
}

/// A command on its way.
struct Session {
    parsed: Parsed,
    speaker: Speaker,
}

impl Session {
    fn connect(&self) -> Result<Client, Exit> {
        Client::connect(self.parsed.socket.as_ref())
            .map_err(|error| self.speaker.failed(&error, &[]))
    }

    fn ask(&self, request: Request, sources: &[Source]) -> Result<Response, Exit> {
        self.connect()?.call(request).map_err(|error| self.speaker.failed(&error, sources))
    }

    fn change(self) -> Exit {
        let output = self.speaker.output;
        let line = match line(&self.parsed.words) {
            Ok(line) => line,
            Err(error) => {
                self.speaker.error(error);
                return Exit::Usage;
            }
        };
        let request = Request::ChangeSet { line: line.clone(), exist: self.parsed.options.exist };
        let sources = [Source { name: "command".to_owned(), text: line }];
        let changed = match self.ask(request, &sources) {
            Ok(Response::SetChanged(changed)) => changed,
            Ok(_) => return unexpected(&output),
            Err(exit) => return exit,
        };
        if output.json() {
            output.object(&changed);
        } else {
            super::client::findings(&changed.findings, &sources, &output);
        }
        let Some(found) = changed.found else { return Exit::Ok };
        if !output.json() && !self.parsed.options.quiet {
            let (set, element) = (&self.parsed.words[1], self.parsed.words[2..].join(" "));
            let said = if found { "is" } else { "is NOT" };
            output.complaint(format_args!("{element} {said} in set {set}."));
        }
        if found { Exit::Ok } else { Exit::Refused }
    }

    fn restore(self) -> Exit {
        let output = self.speaker.output;
        let mut bytes = Vec::new();
        let name = self.parsed.options.file.clone().unwrap_or_else(|| "standard input".to_owned());
        let read = match &self.parsed.options.file {
            Some(file) => std::fs::File::open(file)
                .and_then(|file| file.take(MAX_RESTORE + 1).read_to_end(&mut bytes)),
            None => std::io::stdin().lock().take(MAX_RESTORE + 1).read_to_end(&mut bytes),
        };
        let text = match read {
            Ok(_) => String::from_utf8(bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let text = match text {
            Ok(text) if text.len() as u64 > MAX_RESTORE => {
                Err("it is too long for one message: name it with --sets, and reload".to_owned())
            }
            other => other,
        };
        let text = match text {
            Ok(text) => text,
            Err(error) => {
                self.speaker.error(format_args!("{name}: {error}"));
                return Exit::Refused;
            }
        };
        let file = Source { name, text };
        let sources = [file.clone()];
        let request = Request::RestoreSets { file, exist: self.parsed.options.exist };
        match self.ask(request, &sources) {
            Ok(Response::SetChanged(changed)) => {
                if output.json() {
                    output.object(&changed);
                } else if !self.parsed.options.quiet {
                    super::client::findings(&changed.findings, &sources, &output);
                }
                Exit::Ok
            }
            Ok(_) => unexpected(&output),
            Err(exit) => exit,
        }
    }

    fn where_used(self) -> Exit {
        let output = self.speaker.output;
        let Some(name) = self.parsed.words.get(1).cloned() else {
            return usage(self.speaker.voice, output.json(), "where-used needs the name of a set");
        };
        let uses = match self.ask(Request::ShowSetUses { name: name.clone() }, &[]) {
            Ok(Response::SetUses { uses }) => uses,
            Ok(_) => return unexpected(&output),
            Err(exit) => return exit,
        };
        for one in &uses {
            if output.json() {
                output.object(one);
                continue;
            }
            match one {
                SetUse::Rule { family, table, number, line, text, .. } => {
                    let family = match family {
                        crate::api::protocol::FamilyName::V4 => "IPv4",
                        crate::api::protocol::FamilyName::V6 => "IPv6",
                    };
                    output
                        .line(format_args!("{family} {table} rule {number} (line {line}): {text}"));
                }
                SetUse::List { name } => output.line(format_args!("list:set {name}")),
            }
        }
        if uses.is_empty() && !output.json() {
            output.line(format_args!("nothing refers to {name}"));
        }
        Exit::Ok
    }
}
