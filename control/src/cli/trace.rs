//! `portcullis trace`: what TRACE rules report, as it happens.

use std::io::Write;
use std::time::Duration;

use super::client::{ask, unexpected};
use super::{Exit, Output, Socket};
use crate::api::{Request, Response};

const EXAMPLES: &str = "Examples:
  portcullis trace
  portcullis trace --count 20
  portcullis --json trace

A rule says what is traced, in the raw table, as
  -A PREROUTING -s 198.51.100.7 -p tcp --dport 443 -j TRACE
Lines are also in the log. `log.trace-rate' bounds how many there are.";

/// How often the daemon is asked for more.
const AGAIN: Duration = Duration::from_millis(200);

/// What to print.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
    /// End after so many lines.
    #[arg(long, value_name = "LINES")]
    pub count: Option<u64>,
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    match watch(args, output) {
        Ok(()) => Exit::Ok,
        Err(exit) => exit,
    }
}

/// Prints lines until there are enough, or the daemon or the reader goes away.
fn watch(args: &Args, output: &Output) -> Result<(), Exit> {
    let (mut from, mut left) = (None, args.count.unwrap_or(u64::MAX));
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

fn print(line: &str, output: &Output) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match output.json() {
        true => writeln!(out, "{}", serde_json::json!({ "trace": line })),
        false => writeln!(out, "{line}"),
    }?;
    out.flush()
}
