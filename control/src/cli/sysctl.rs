//! `portcullis sysctl`: connection tracking and reassembly settings at run time.

use std::collections::BTreeMap;

use dataplane::conntrack::setting_name;

use super::client::{ask, unexpected};
use super::{Exit, Output, Socket};
use crate::api::{Request, Response};

const EXAMPLES: &str = "Examples:
  portcullis sysctl
  portcullis sysctl tcp_loose udp_timeout
  portcullis sysctl net.netfilter.nf_conntrack_tcp_timeout_established=86400 acct=1

Names are the kernel's, whole or without net.netfilter.nf_conntrack_ (net.ipv4. for ipfrag_*).
What the kernel has and Portcullis has no use for (buckets, log_invalid, ...) is refused with the reason.
Timeouts hold from each connection's next packet on. Changes end with the daemon: for lasting
ones start it with --sysctl.";

/// What to show or change.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// NAME shows a setting, NAME=VALUE changes it; nothing at all shows every one.
    #[arg(value_name = "NAME[=VALUE]")]
    pub settings: Vec<String>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let mut changes = BTreeMap::new();
    for word in &args.settings {
        let Some((name, value)) = word.split_once('=') else { continue };
        let Ok(value) = value.trim().parse() else {
            output.error(format_args!("{name}: `{value}` is not a number"));
            return Exit::Usage;
        };
        changes.insert(name.trim().to_owned(), value);
    }
    let request = match changes.is_empty() {
        true => Request::ShowSettings {},
        false => Request::SetSettings { values: changes },
    };
    match ask(&args.socket, request, output) {
        Ok(Response::Settings { values }) => show(&args.settings, values, output),
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

/// Prints the settings that were spoken of, or all.
fn show(words: &[String], mut values: BTreeMap<String, u64>, output: &Output) -> Exit {
    let mut exit = Exit::Ok;
    if !words.is_empty() {
        let mut wanted = BTreeMap::new();
        for word in words {
            let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name).trim();
            match setting_name(name) {
                Ok(short) => {
                    let value = values.get(short);
                    wanted.extend(value.map(|&value| (short.to_owned(), value)));
                }
                Err(error) => {
                    output.error(error);
                    exit = Exit::Refused;
                }
            }
        }
        values = wanted;
    }
    if output.json() {
        output.object(&values);
    } else {
        values.iter().for_each(|(name, value)| output.line(format_args!("{name} = {value}")));
    }
    exit
}
