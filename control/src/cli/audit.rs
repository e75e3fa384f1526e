//! `portcullis audit`: evidence for auditors, as text, JSON and one HTML page.

use std::io::Write;
use std::path::{Path, PathBuf};

use dataplane::clock::{Nanos, monotonic, wall_us};

use super::client::{ask, try_ask};
use super::policies;
use super::stored::Place;
use super::{Exit, Output, Socket};
use crate::api::protocol::{HistoryInfo, MatrixInfo};
use crate::api::{Request, Response};
use crate::audit::{Audit, Checks, Gathered, Span, examine, page, text};
use crate::diff::PolicyFiles;
use crate::history::{History, Record};
use crate::iptables::TableNames;

const EXAMPLES: &str = "Examples:
  portcullis audit
  portcullis audit --html audit.html --since 90d
  portcullis audit --json | jq .attention
  portcullis audit --history /var/lib/portcullis/history --offline --html audit.html

Asks the running daemon; with --offline only the history's directory is read (then hits and denials over time
are not known). What was reachable is compared with the policy that was in force when the span began.
Exits 0; 6 while something needs attention (an emergency that nobody has reconciled, an exception that is due, ...);
1 when the history was tampered with, or a packet did not go where the policy says.";

/// Slow work says how far it is after this long, and so often.
const PATIENCE: Nanos = Nanos::from_secs(1);

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write the page for people to this file, too.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// How far to look back, as 30d or 12w.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = days)]
    pub since: u64,
    /// Rules that were not hit for so long are stale.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = days)]
    pub stale: u64,
    /// Ask no daemon: read the history's directory.
    #[arg(long)]
    pub offline: bool,
    /// Where policies of the history are.
    #[command(flatten)]
    pub place: Place,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

fn days(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time of at least a day: write 30d or 12w");
    super::apply::time(text).map(|ms| ms / 86_400_000).filter(|days| *days > 0).ok_or_else(bad)
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    match made(args, output) {
        Ok(exit) | Err(exit) => exit,
    }
}

fn made(args: &Args, output: &Output) -> Result<Exit, Exit> {
    let now_us = wall_us();
    let names = TableNames::of_host();
    let since_us = now_us.saturating_sub(args.since * 86_400_000_000);
    let gathered = match args.offline {
        true => offline(args, since_us, &names, output)?,
        false => online(args, since_us, &names, output)?,
    };
    let span = Span { now_us, days: args.since, stale_days: args.stale };
    let mut next = monotonic().0 + PATIENCE.0;
    let mut told = |what: &str, percent: u64| {
        if monotonic().0 >= next {
            next = monotonic().0 + PATIENCE.0;
            output.complaint(format_args!("{what}: {percent}% of the effort is spent"));
        }
    };
    let audit = examine(gathered, span, &mut told);
    if let Some(file) = &args.html {
        write_page(&audit, file, output)?;
    }
    match (output.json(), &args.html) {
        (true, _) => output.object(&audit),
        (false, None) => output.raw(&text(&audit)),
        (false, Some(file)) => {
            for it in &audit.attention {
                output.warning(&it.text);
            }
            output.line(format_args!("{}: written", file.display()));
        }
    }
    Ok(match (audit.is_bad(), audit.attention.is_empty()) {
        (true, _) => Exit::Refused,
        (_, false) => Exit::Warnings,
        _ => Exit::Ok,
    })
}

fn write_page(audit: &Audit, file: &Path, output: &Output) -> Result<(), Exit> {
    let page = page(audit).map_err(|error| {
        output.error(format_args!("the page's template: {error}"));
        Exit::Internal
    })?;
    // Beside its place first: nobody reads half a page.
    let draft = file.with_extension("html.new");
    let written = std::fs::File::create(&draft)
        .and_then(|mut it| it.write_all(page.as_bytes()))
        .and_then(|()| std::fs::rename(&draft, file));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&draft);
        output.error(format_args!("{}: cannot be written: {error}", file.display()));
        Exit::Environment
    })
}

/// The newest policy that was put in force before a time, or else the first.
fn earlier(records: &[Record], since_us: u64) -> Option<&Record> {
    let installs = || records.iter().filter(|it| it.action.installs());
    installs().find(|it| it.at_us < since_us).or_else(|| installs().next_back())
}

fn offline(
    args: &Args,
    since_us: u64,
    names: &TableNames,
    output: &Output,
) -> Result<Gathered, Exit> {
    let refused = |error: crate::history::HistoryError| {
        output.error(&error);
        if error.is_io() { Exit::Environment } else { Exit::Refused }
    };
    let history = History::read(&args.place.history).map_err(refused)?;
    let damage = history.verify().map_err(refused)?;
    let records: Vec<Record> = history.records().iter().rev().cloned().collect();
    let mut gathered = Gathered {
        source: format!("the history in {}", args.place.history.display()),
        damage: damage.iter().map(ToString::to_string).collect(),
        open: history.open_emergencies().map(|record| record.number).collect(),
        ..Gathered::default()
    };
    let mut read = |record: Option<&Record>| -> Option<PolicyFiles> {
        let name = format!("@r{}", record?.number);
        match policies::read(Path::new(&name), &[], &args.place, names) {
            Ok(files) => Some(files),
            Err(error) => {
                gathered.missing.push(format!("the policy of record {name}: {}", error.words()));
                None
            }
        }
    };
    let newest = records.iter().find(|it| it.action.installs());
    let (policy, before) = (read(newest), read(earlier(&records, since_us)));
    (gathered.policy, gathered.before) = (policy, before);
    gathered.missing.push("hits of rules and denials over time: no daemon was asked".to_owned());
    gathered.records = records;
    Ok(gathered)
}

fn online(
    args: &Args,
    since_us: u64,
    names: &TableNames,
    output: &Output,
) -> Result<Gathered, Exit> {
    let socket = &args.socket;
    let mut gathered = Gathered { source: "the running daemon".to_owned(), ..Gathered::default() };
    gathered.policy = Some(policies::live(socket, names, output)?);
    let history = try_ask(socket, Request::ShowHistory { last: None, verify: true });
    match history {
        Ok(Response::History(HistoryInfo { directory, records, damage, open, pending })) => {
            gathered.source = format!("the running daemon and its history in {directory}");
            if let Some(before) = earlier(&records, since_us) {
                let name = format!("@r{}", before.number);
                gathered.before = policies::stored_by_daemon(socket, &name, names);
            }
            (gathered.records, gathered.damage) = (records, damage);
            (gathered.open, gathered.pending) = (open, pending);
        }
        Ok(_) => return Err(super::client::unexpected(output)),
        Err(error) => gathered.missing.push(format!("changes: {error}")),
    }
    let all = Request::ShowRules { family: None, table: None, chain: None };
    if let Response::Rules(mut rules) = ask(socket, all, output)? {
        super::show::unhit::tell(&mut rules, socket);
        gathered.rules = Some(rules);
    }
    match try_ask(socket, Request::ShowDenied {}) {
        Ok(Response::Denied(trend)) => gathered.trend = Some(trend),
        _ => gathered.missing.push("denials over time: this daemon does not count them".to_owned()),
    }
    match try_ask(socket, Request::ShowMatrix {}) {
        Ok(Response::Matrix(info)) => gathered.checks.extend(matrix(*info)),
        _ => gathered.missing.push("the matrix of flows: this daemon has none".to_owned()),
    }
    Ok(gathered)
}

/// How the matrix of flows was when it was last run against the policy in force.
fn matrix(info: MatrixInfo) -> Option<Checks> {
    let title = format!("Flows that must pass, and that must not ({})", info.file?);
    let Some(run) = info.last else {
        let failed = vec!["it has not been run against the policy in force".to_owned()];
        return Some(Checks { title, time: "never".to_owned(), passed: 0, failed });
    };
    let failed = run.error.into_iter().chain(run.failures).collect();
    Some(Checks { title, time: run.at, passed: run.passed, failed })
}
