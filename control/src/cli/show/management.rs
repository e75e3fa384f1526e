//! `show management`.

use super::{Align, Exit, Output, Table, ask, unexpected};
use crate::api::protocol::ManagementEntry;
use crate::api::{Request, Response};
use crate::cli::Socket;

/// Asks and prints.
pub(super) fn show(socket: &Socket, output: &Output) -> Result<(), Exit> {
    let response = ask(socket, Request::ShowManagement {}, output)?;
    let Response::Management { entries } = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(&response);
    } else {
        output.raw(&render(entries));
    }
    Ok(())
}

fn render(entries: &[ManagementEntry]) -> String {
    if entries.is_empty() {
        return "nobody: the management list is empty, and a policy can lock everybody out\n"
            .to_owned();
    }
    let mut table =
        Table::new(&[("entry", Align::Left), ("packets in", Align::Right), ("out", Align::Right)]);
    for entry in entries {
        table.row([entry.entry.clone(), entry.inbound.to_string(), entry.outbound.to_string()]);
    }
    table.render()
}
