//! `portcullis pressure`: profiles for bad times, shown and put in force by hand.

use super::client::{ask, unexpected};
use super::{Exit, Output, Socket};
use crate::api::protocol::{PressureChange, PressureInfo};
use crate::api::{Request, Response};

const EXAMPLES: &str = "Examples:
  portcullis pressure show
  portcullis pressure on siege       # put it in force, and keep it there
  portcullis pressure off siege      # take it out of force, and keep it out
  portcullis pressure auto siege     # its conditions decide again
  portcullis pressure pause          # conditions change nothing until `pressure resume`

Profiles are [[pressure]] in the configuration.";

/// What to do.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What.
    #[command(subcommand)]
    pub what: What,
    /// Where the daemon listens.
    #[arg(long, global = true, value_name = "PATH", default_value = super::DEFAULT_SOCKET)]
    pub socket: std::path::PathBuf,
}

/// See [`EXAMPLES`].
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// What is measured, which profiles are in force, and what happened.
    #[command(after_help = "Example:\n  portcullis --json pressure show")]
    Show,
    /// Put a profile in force.
    #[command(after_help = "Example:\n  portcullis pressure on siege")]
    On {
        /// Which.
        name: String,
    },
    /// Take a profile out of force.
    #[command(after_help = "Example:\n  portcullis pressure off siege")]
    Off {
        /// Which.
        name: String,
    },
    /// Let a profile's conditions decide.
    #[command(after_help = "Example:\n  portcullis pressure auto siege")]
    Auto {
        /// Which.
        name: String,
    },
    /// Let conditions change nothing.
    #[command(after_help = "Example:\n  portcullis pressure pause")]
    Pause,
    /// Let conditions decide again.
    #[command(after_help = "Example:\n  portcullis pressure resume")]
    Resume,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let socket = Socket { socket: args.socket };
    let request = match args.what {
        What::Show => Request::ShowPressure {},
        What::On { name } => Request::ChangePressure { change: PressureChange::On(name) },
        What::Off { name } => Request::ChangePressure { change: PressureChange::Off(name) },
        What::Auto { name } => Request::ChangePressure { change: PressureChange::Auto(name) },
        What::Pause => Request::ChangePressure { change: PressureChange::Pause },
        What::Resume => Request::ChangePressure { change: PressureChange::Resume },
    };
    match ask(&socket, request, output) {
        Ok(Response::Pressure(info)) => {
            if output.json() {
                output.object(&info);
            } else {
                output.raw(&render(&info));
            }
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

fn render(info: &PressureInfo) -> String {
    if info.profiles.is_empty() {
        return "there are no [[pressure]] profiles\n".to_owned();
    }
    let mut text = String::new();
    for (name, value) in &info.load {
        text += &format!("{name:<10} {value:.0}\n");
    }
    if info.paused {
        text += "paused: conditions change nothing (`portcullis pressure resume`)\n";
    }
    for it in &info.profiles {
        let state = if it.active { "in force" } else { "at rest" };
        let why = it.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let hand = if it.by == "hand" { " (held by hand)" } else { "" };
        text += &format!("{}: {state}{hand}{why}\n", it.name);
        text += &it.trouble.as_ref().map_or_else(String::new, |it| format!("  not usable: {it}\n"));
    }
    for it in &info.events {
        let done = it.done.join("; ");
        text += &format!("{} {} {}: {}; {done}\n", it.at, it.profile, it.event, it.why);
    }
    text
}
