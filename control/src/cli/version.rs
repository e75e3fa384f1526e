//! `portcullis version`: what this binary is and what it runs on.

use serde::Serialize;

use super::{Exit, Output};
use crate::api::PROTOCOL_VERSION;

/// Prints version, target, kernel and protocol version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  portcullis version --json")]
pub struct Args {}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    profile: &'static str,
    arch: &'static str,
    kernel: String,
    protocol: u32,
}

/// Runs the command.
pub fn run(_args: Args, output: &Output) -> Exit {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        arch: std::env::consts::ARCH,
        kernel: kernel_release(),
        protocol: PROTOCOL_VERSION,
    };
    if output.json() {
        output.object(&version);
    } else {
        output.line(format_args!("portcullis {}", version.version));
        output.line(format_args!("build     {} {}", version.profile, version.arch));
        output.line(format_args!("kernel    {}", version.kernel));
        output.line(format_args!("protocol  {}", version.protocol));
    }
    Exit::Ok
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
