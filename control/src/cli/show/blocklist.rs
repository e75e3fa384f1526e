//! `show blocklist`.

use super::{Align, Exit, Output, Table, ask, unexpected};
use crate::api::protocol::{BlocklistInfo, FamilyName};
use crate::api::{Request, Response};
use crate::cli::Socket;

/// Asks and prints.
pub(super) fn show(socket: &Socket, output: &Output) -> Result<(), Exit> {
    let response = ask(socket, Request::ShowBlocklist {}, output)?;
    let Response::Blocklist(info) = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(info);
    } else {
        output.raw(&render(info));
    }
    Ok(())
}

fn render(info: &BlocklistInfo) -> String {
    let mut text = match (&info.off, &info.room[..]) {
        (Some(why), _) => format!("off: {why}\n"),
        (None, [v4, v6]) => {
            let kib = info.memory_bytes.div_ceil(1024);
            format!("room for {v4} IPv4 and {v6} IPv6 addresses; about {kib} KiB\n")
        }
        (None, _) => String::new(),
    };
    if info.rules.is_empty() {
        return text + "no rule drops what is in a set\n";
    }
    let mut table = Table::new(&[
        ("rule", Align::Left),
        ("set", Align::Left),
        ("elements", Align::Right),
        ("in XDP", Align::Right),
        ("packets", Align::Right),
        ("bytes", Align::Right),
        ("", Align::Left),
    ]);
    for rule in &info.rules {
        let family = match rule.family {
            FamilyName::V4 => "IPv4",
            FamilyName::V6 => "IPv6",
        };
        let told = match (rule.pushed, &rule.why) {
            (true, None) => "pushed".to_owned(),
            (true, Some(why)) => format!("pushed, in part: {why}"),
            (false, why) => {
                format!("by the engine: {}", why.as_deref().unwrap_or("not yet pushed"))
            }
        };
        table.row([
            format!("{family} {} {} {}", rule.table, rule.chain, rule.number),
            rule.set.clone(),
            rule.elements.to_string(),
            rule.held.to_string(),
            rule.packets.to_string(),
            rule.bytes.to_string(),
            told,
        ]);
    }
    text.push_str(&table.render());
    text
}
