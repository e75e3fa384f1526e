//! `portcullis show rates` and `show talkers`: what `top` shows, for scripts.

use crate::api::protocol::{TalkerInfo, Talkers, TalkersAsked};
use crate::api::{Request, Response};
use crate::cli::client::{ask, unexpected};
use crate::cli::table::{Align, Table};
use crate::cli::{Exit, Output, Socket};

/// How many sources to tell.
#[derive(Debug, clap::Args)]
pub struct TalkersArgs {
    /// So many at most.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
}

/// The sources with the most connections.
pub(super) fn talkers(args: &TalkersArgs, socket: &Socket, output: &Output) -> Result<(), Exit> {
    let request = Request::ShowTalkers(TalkersAsked { limit: args.limit });
    let response = ask(socket, request, output)?;
    let Response::Talkers(Talkers { sources, looked_at, places }) = &response else {
        return Err(unexpected(output));
    };
    if output.json() {
        output.object(&response);
        return Ok(());
    }
    let mut table = Table::new(&[
        ("source", Align::Left),
        ("connections", Align::Right),
        ("unanswered", Align::Right),
        ("bytes", Align::Right),
    ]);
    for TalkerInfo { source, connections, unanswered, bytes } in sources {
        table.row([
            source.to_string(),
            connections.to_string(),
            unanswered.to_string(),
            bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
        ]);
    }
    output.raw(&table.render());
    if looked_at < places {
        output.line(format_args!("of {looked_at} of the table's {places} places"));
    }
    Ok(())
}
