//! `show metrics`.

use super::{Exit, Output, ask, unexpected};
use crate::api::{Request, Response};
use crate::cli::Socket;

/// Asks and prints.
pub(super) fn show(socket: &Socket, output: &Output) -> Result<(), Exit> {
    let response = ask(socket, Request::ShowMetrics {}, output)?;
    let Response::Metrics { text } = &response else { return Err(unexpected(output)) };
    if output.json() {
        output.object(&response);
    } else {
        output.raw(text);
    }
    Ok(())
}
