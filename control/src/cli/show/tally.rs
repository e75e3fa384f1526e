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
        ("left", Align::Right),
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
            limit.left_s.map_or_else(String::new, |left| format!("{left} s")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_timers_tell_the_time_that_is_left() {
        let timer = |left_s, used| LimitInfo {
            kind: "idletimer".to_owned(),
            family: None,
            name: Some("lan".to_owned()),
            rule: "mangle FORWARD 1".to_owned(),
            rules: 2,
            used,
            most: 600,
            left_s: Some(left_s),
        };
        let quota = LimitInfo { kind: "quota".to_owned(), left_s: None, ..timer(0, 90) };
        let text = render(&[timer(587, 12), timer(0, 600), quota]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..6], ["kind", "family", "name", "used", "of", "left"]);
        assert_eq!(rows[1][..7], ["idletimer", "both", "lan", "12", "600", "587", "s"]);
        assert_eq!(rows[2][3..7], ["600", "600", "0", "s"]);
        assert_eq!(rows[3][3..6], ["90", "600", "2"], "nothing in the column");
    }
}
