//! `show limits` and `show recent`.

use super::{Align, Exit, Output, Table, ask, unexpected};
use crate::api::protocol::{FamilyName, HashRow, LimitInfo};
use crate::api::{Request, Response};
use crate::cli::Socket;

/// Prints every limit, or one table of hashlimit as `/proc/net/ipt_hashlimit` does.
pub(super) fn limits(table: Option<&str>, socket: &Socket, output: &Output) -> Result<(), Exit> {
    let request = Request::ShowLimits { table: table.map(str::to_owned) };
    let response = ask(socket, request, output)?;
    let Response::Limits { limits, tables } = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(&response);
    } else if table.is_some() {
        let rows = tables.iter().flat_map(|table| &table.rows);
        output.raw(&rows.map(row_line).collect::<String>());
    } else {
        output.raw(&render(limits));
    }
    Ok(())
}

fn row_line(row: &HashRow) -> String {
    let HashRow { expires_s, src, sport, dst, dport, credit, cap, cost } = row;
    format!("{expires_s} {src}:{sport}->{dst}:{dport} {credit} {cap} {cost}\n")
}

fn render(limits: &[LimitInfo]) -> String {
    if limits.is_empty() {
        return "no rule limits anything\n".to_owned();
    }
    let mut table = Table::new(&[
        ("kind", Align::Left),
        ("family", Align::Left),
        ("name", Align::Left),
        ("used", Align::Right),
        ("of", Align::Right),
        ("rules", Align::Right),
        ("first rule", Align::Left),
    ]);
    for limit in limits {
        let family = match limit.family {
            Some(FamilyName::V4) => "IPv4",
            Some(FamilyName::V6) => "IPv6",
            None => "both",
        };
        table.row([
            limit.kind.clone(),
            family.to_owned(),
            limit.name.clone().unwrap_or_default(),
            limit.used.to_string(),
            limit.most.to_string(),
            limit.rules.to_string(),
            limit.rule.clone(),
        ]);
    }
    table.render()
}

/// Prints one list as `/proc/net/xt_recent` does, or which there are.
pub(super) fn recent(list: Option<&str>, socket: &Socket, output: &Output) -> Result<(), Exit> {
    let request = Request::ShowRecent { list: list.map(str::to_owned) };
    let response = ask(socket, request, output)?;
    let Response::Recent { lists } = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(&response);
        return Ok(());
    }
    let mut text = String::new();
    for shown in lists {
        if list.is_none() {
            let (name, count, most) = (&shown.name, shown.addresses.len(), shown.most);
            text += &format!("{name}: {count} of {most} addresses\n");
        }
        shown.addresses.iter().for_each(|seen| text += &format!("{}\n", seen.line));
    }
    output.raw(&text);
    Ok(())
}
