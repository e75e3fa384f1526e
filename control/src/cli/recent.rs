//! `portcullis recent`: changes a list of `-m recent` by hand, as writing to its file in
//! `/proc/net/xt_recent` does.

use std::net::IpAddr;

use super::client::{ask, unexpected};
use super::{Exit, Output, Socket};
use crate::api::protocol::RecentChange;
use crate::api::{Request, Response};

const EXAMPLES: &str = "Examples:
  portcullis recent badguys +198.51.100.7
  portcullis recent badguys -198.51.100.7
  portcullis recent badguys /
  portcullis show recent badguys

+ADDRESS enters or refreshes an address, -ADDRESS takes it off, / forgets all. As in the
kernel the address is taken as it is, without any rule's --mask.";

/// Which list, and what to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The list's name.
    #[arg(value_name = "LIST")]
    pub list: String,
    /// +ADDRESS, -ADDRESS or /.
    #[arg(value_name = "CHANGE", allow_hyphen_values = true, value_parser = change)]
    pub change: RecentChange,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

fn change(text: &str) -> Result<RecentChange, String> {
    let address =
        |text: &str| text.parse::<IpAddr>().map_err(|_| format!("`{text}' is no address"));
    match text.split_at_checked(1) {
        Some(("/", "")) => Ok(RecentChange::Flush),
        Some(("+", rest)) => address(rest).map(RecentChange::Add),
        Some(("-", rest)) => address(rest).map(RecentChange::Remove),
        _ => Err("write +ADDRESS, -ADDRESS or /".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let request = Request::ChangeRecent { list: args.list, change: args.change };
    match ask(&args.socket, request, output) {
        Ok(response @ Response::RecentChanged { changed }) => {
            if output.json() {
                output.object(&response);
            } else {
                output.raw(&format!("{changed} changed\n"));
            }
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}
