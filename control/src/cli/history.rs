//! `portcullis history`: what was in force, when, by whom and why.

use std::path::{Path, PathBuf};

use super::client::{ask, unexpected};
use super::{Exit, Output};
use crate::api::protocol::{HistoryInfo, StoredPolicy};
use crate::api::{Request, Response};
use crate::history::{History, HistoryError, Name, Record};

const EXAMPLES: &str = "Examples:
  portcullis history
  portcullis history 5
  portcullis history --verify
  portcullis history show @1
  portcullis history show r17 --rules > rules.v4
  portcullis history --dir /var/lib/portcullis/history

@0 is in force, @1 was before it; @r17 is record 17; @3fa9c1 is the policy whose id begins so.
`check` and `explain` take these names in place of files: check --rules @1. With --dir the
files are read, without a daemon.

Exits 0, or 1 when --verify has found damage.";

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// So many records, the newest [default: 20].
    #[arg(value_name = "N")]
    pub last: Option<u64>,
    /// Look at every record and text, and tell what is not as it was written.
    #[arg(long)]
    pub verify: bool,
    /// Read this directory instead of asking the daemon.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// One policy of it.
    #[command(subcommand)]
    pub what: Option<What>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// One policy.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Show one record and its policy.
    #[command(
        after_help = "Examples:\n  portcullis history show @1\n  portcullis history show r17 --rules"
    )]
    Show(Show),
}

/// Which, and what of it.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// What it is called: @1, r17, or the beginning of its id.
    pub name: String,
    /// Only the IPv4 policy, as it was applied.
    #[arg(long, conflicts_with = "rules6")]
    pub rules: bool,
    /// Only the IPv6 policy.
    #[arg(long)]
    pub rules6: bool,
    /// Read this directory instead of asking the daemon.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    if let Some(What::Show(args)) = args.what {
        return show(&args, output);
    }
    let last = Some(args.last.unwrap_or(20));
    let answer = match &args.dir {
        Some(dir) => offline(dir, last, args.verify)
            .map(Response::History)
            .map_err(|error| complain(&error, output)),
        None => ask(&args.socket, Request::ShowHistory { last, verify: args.verify }, output),
    };
    match answer {
        Ok(Response::History(history)) => {
            let damaged = !history.damage.is_empty();
            print(&history, args.verify, output);
            if damaged && args.verify { Exit::Refused } else { Exit::Ok }
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

fn complain(error: &HistoryError, output: &Output) -> Exit {
    output.error(error);
    if error.is_io() { Exit::Environment } else { Exit::Refused }
}

fn offline(dir: &Path, last: Option<u64>, verify: bool) -> Result<HistoryInfo, HistoryError> {
    let history = History::read(dir)?;
    let damage = if verify { history.verify()? } else { history.damage().to_vec() };
    let last = last.map_or(usize::MAX, |last| last as usize);
    Ok(HistoryInfo {
        directory: dir.display().to_string(),
        records: history.records().iter().rev().take(last).cloned().collect(),
        damage: damage.iter().map(ToString::to_string).collect(),
        open: history.open_emergencies().map(|record| record.number).collect(),
        pending: None,
    })
}

fn print(history: &HistoryInfo, verify: bool, output: &Output) {
    if output.json() {
        return output.object(history);
    }
    for record in &history.records {
        output.line(line(record));
    }
    if history.records.is_empty() {
        output.line("nothing was recorded yet");
    }
    if let Some(pending) = &history.pending {
        let (until, seconds) = (&pending.until, pending.left_ms / 1000);
        output.warning(format_args!(
            "the last change is undone at {until} (in {seconds} s) unless `portcullis confirm`"
        ));
    }
    for number in &history.open {
        output.warning(format_args!(
            "emergency change {number} is not reconciled: `portcullis reconcile {number} --reason \
             TEXT`"
        ));
    }
    history.damage.iter().for_each(|damage| output.warning(damage));
    if verify && history.damage.is_empty() {
        output.line("everything is as it was written");
    }
}

/// One record on a line.
fn line(record: &Record) -> String {
    let Record { number, time, action, who, policy, generation, .. } = record;
    let (action, short) = (action.name(), policy.short());
    let mut text = format!("{number:>4}  {time}  {action:<9} {short}  {who}");
    if *generation > 0 {
        text += &format!(", generation {generation}");
    }
    let said = [("", &record.reason), ("approved by ", &record.approver), ("", &record.ticket)];
    for (before, said) in said {
        text.extend(said.as_ref().map(|said| format!(", {before}{said}")));
    }
    if record.emergency {
        text += ", EMERGENCY";
    }
    if record.result != "in force" {
        text += &format!(" ({})", record.result);
    }
    text
}

fn show(args: &Show, output: &Output) -> Exit {
    let answer = match &args.dir {
        Some(dir) => one(dir, &args.name)
            .map(|stored| Response::Stored(Box::new(stored)))
            .map_err(|error| complain(&error, output)),
        None => ask(&args.socket, Request::ShowStored { name: args.name.clone() }, output),
    };
    let stored = match answer {
        Ok(Response::Stored(stored)) => stored,
        Ok(_) => return unexpected(output),
        Err(exit) => return exit,
    };
    if args.rules || args.rules6 {
        let text = if args.rules { &stored.rules } else { &stored.rules6 };
        let Some(source) = text else {
            output.error(format_args!("{} has no policy of that family", args.name));
            return Exit::Refused;
        };
        output.raw(&source.text);
        return Exit::Ok;
    }
    if output.json() {
        output.object(&stored);
        return Exit::Ok;
    }
    output.line(line(&stored.record));
    output.line(format_args!("policy {}", stored.record.policy.id));
    for source in stored.rules.iter().chain(&stored.rules6).chain(&stored.sets) {
        output.line(format_args!("\n# {}", source.name));
        output.raw(&source.text);
    }
    Exit::Ok
}

fn one(dir: &Path, name: &str) -> Result<StoredPolicy, HistoryError> {
    let history = History::read(dir)?;
    let record = history.find(&name.parse::<Name>()?)?.clone();
    let texts = history.texts(record.number, &record.policy)?;
    Ok(StoredPolicy { record, rules: texts.v4, rules6: texts.v6, sets: texts.sets })
}
