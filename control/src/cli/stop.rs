//! `portcullis stop`: ends the running daemon; the kernel carries on by itself, or ports
//! stay closed, as configured.

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
    // Asked before: afterwards nobody answers.
    let closed = match ask(&args.socket, Request::ShowStatus {}, output) {
        Ok(Response::Status(status)) => status.failure.kept_ports(),
        Ok(_) => return unexpected(output),
        Err(exit) => return exit,
    };
    match ask(&args.socket, Request::Stop {}, output) {
        Ok(response @ Response::Stopping {}) => {
            if output.json() {
                output.object(&response);
            } else if !closed.is_empty() {
                let ports = closed.join(" ");
                output.line(format_args!(
                    "{ports}: closed until a daemon runs again; `portcullis release {ports}` \
                     opens"
                ));
            }
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}
