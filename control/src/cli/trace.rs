//! `portcullis trace`: live packets on their way, and without a filter what TRACE rules report.

use std::io::{self, Write};
use std::time::Duration;

use super::client::{ask, unexpected};
use super::follow::{Bounds, Sink, WORDS, follow};
use super::{Exit, Output, Socket};
use crate::api::protocol::TracedPacket;
use crate::api::{Request, Response};
use crate::trace::text;

const EXAMPLES: &str = "Examples:
  portcullis trace host 198.18.1.2 and tcp port 443
  portcullis trace --count 5 --for 1m in eth0 and net 203.0.113.0/24
  portcullis --json trace --for 2s any | jq -r .reason
  portcullis trace --count 20

With a FILTER each packet that matches is told with every rule and policy that it met, what
tracking and NAT made of it, where it went, and why not. Nothing else changes for it, and
nothing is needed in the rules. ";

const RULES: &str = "
Without a FILTER the lines of TRACE rules are printed. A rule says what, in the raw table, as
  -A PREROUTING -s 198.51.100.7 -p tcp --dport 443 -j TRACE
Lines are also in the log. `log.trace-rate' bounds how many there are.";

/// How often the daemon is asked for more.
const AGAIN: Duration = Duration::from_millis(200);

/// What to print.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// Which packets; none: those that TRACE rules mark.
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Where it ends.
    #[command(flatten)]
    pub bounds: Bounds,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

fn help() -> String {
    format!("{EXAMPLES}{WORDS}\n{RULES}")
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    if !args.filter.is_empty() {
        let request = args.bounds.request(&args.filter, None);
        return follow(&args.socket, request, Printer(*output), *output);
    }
    if args.bounds.time.is_some() || args.bounds.rate.is_some() {
        output.error("--for and --rate go with a FILTER; `any' takes every packet");
        return Exit::Usage;
    }
    match watch(args, output) {
        Ok(()) => Exit::Ok,
        Err(exit) => exit,
    }
}

/// Prints packets as they come.
struct Printer(Output);

impl Sink for Printer {
    fn take(&mut self, packets: &[TracedPacket]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for packet in packets {
            match self.0.json() {
                true => writeln!(out, "{}", serde_json::to_string(packet)?),
                false => write!(out, "{}", text::render(packet)),
            }?;
        }
        out.flush()
    }
}

/// Prints lines until there are enough, or the daemon or the reader goes away.
fn watch(args: &Args, output: &Output) -> Result<(), Exit> {
    let (mut from, mut left) = (None, args.bounds.count.unwrap_or(u64::MAX));
    while left > 0 {
        let request = Request::ShowTrace { from, limit: Some(left) };
        let Response::Traces { lines, next, missed } = ask(&args.socket, request, output)? else {
            return Err(unexpected(output));
        };
        if missed > 0 {
            output.warning(format_args!("{missed} lines were lost: there were too many at once"));
        }
        left -= lines.len() as u64;
        from = Some(next);
        let pause = lines.is_empty();
        for line in lines {
            if print(&line, output).is_err() {
                return Ok(());
            }
        }
        if pause {
            std::thread::sleep(AGAIN);
        }
    }
    Ok(())
}

fn print(line: &str, output: &Output) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match output.json() {
        true => writeln!(out, "{}", serde_json::json!({ "trace": line })),
        false => writeln!(out, "{line}"),
    }?;
    out.flush()
}
