//! `portcullis stop`: ends the running daemon; the kernel carries on by itself.

use super::client::{ask, unexpected};
use super::{Exit, Output, Socket};
use crate::api::{Request, Response};

/// Which daemon to stop.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  portcullis stop")]
pub struct Args {
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    match ask(&args.socket, Request::Stop {}, output) {
        Ok(response @ Response::Stopping {}) => {
            if output.json() {
                output.object(&response);
            }
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}
