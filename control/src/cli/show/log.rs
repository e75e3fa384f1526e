//! `show log`: what became of records, and who causes the most.

use super::{Align, Exit, Output, Table, ask, unexpected};
use crate::api::protocol::{HeavyInfo, LogReport, OutletInfo};
use crate::api::{Request, Response};
use crate::cli::Socket;

/// Asks and prints.
pub(super) fn show(socket: &Socket, output: &Output) -> Result<(), Exit> {
    let Response::Log(report) = ask(socket, Request::ShowLog {}, output)? else {
        return Err(unexpected(output));
    };
    if output.json() {
        output.object(&report);
    } else {
        output.raw(&render(&report));
    }
    Ok(())
}

fn render(report: &LogReport) -> String {
    let LogReport { emitted, written, suppressed, dropped, waiting, .. } = report;
    let LogReport { over_budget, queue_full, .. } = report;
    let mut text = format!(
        "{emitted} records emitted = {written} written + {suppressed} suppressed + \
         {dropped} dropped ({over_budget} over the budget, {queue_full} for want of room) + \
         {waiting} waiting\n"
    );
    text += &match report.rate {
        0 => "no limit for a rule".to_owned(),
        rate => format!("{rate} a second for each rule after a burst of {}", report.burst),
    };
    text += &match report.budget {
        0 => String::new(),
        budget => format!(", {budget} a second for all of them"),
    };
    text += &format!(", files by {}\n\n", report.writer);
    let mut table = Table::new(&[
        ("outlet", Align::Left),
        ("place", Align::Left),
        ("written", Align::Right),
        ("lost", Align::Right),
        ("trouble", Align::Left),
    ]);
    let mut row = |name: &str, outlet: &OutletInfo| {
        table.row([
            name.to_owned(),
            outlet.place.clone().unwrap_or_else(|| "standard error".to_owned()),
            outlet.written.to_string(),
            outlet.lost.to_string(),
            outlet.error.clone().unwrap_or_default(),
        ]);
    };
    row("lines", &report.lines);
    report.json.iter().for_each(|outlet| row("json", outlet));
    report.captures.iter().for_each(|outlet| row("captures", outlet));
    text += &table.render();
    for (title, heavy) in [("source", &report.sources), ("rule", &report.rules)] {
        text += &heaviest(title, heavy);
    }
    text
}

fn heaviest(title: &'static str, heavy: &[HeavyInfo]) -> String {
    if heavy.is_empty() {
        return String::new();
    }
    let columns = [(title, Align::Left), ("records", Align::Right), ("too high by", Align::Right)];
    let mut table = Table::new(&columns);
    for one in heavy {
        table.row([one.name.clone(), one.records.to_string(), one.error.to_string()]);
    }
    format!("\n{}", table.render())
}
