//! `portcullis release`: opens ports that a daemon which runs no more keeps closed.

use std::path::PathBuf;

use dataplane::port::afxdp::{LinkInfo, PinKind, Pinned, Pins};
use serde::Serialize;

use super::{Exit, Output};
use crate::config::DEFAULT_PIN_DIR;
use crate::daemon::preflight;

const EXAMPLES: &str = "Examples:
  portcullis release --all
  portcullis release eth0 eth1
  portcullis release eth0 --force

To be run in the network namespace of the ports. Without devices and without --all it only
lists what is kept.";

/// What to open.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The devices.
    #[arg(value_name = "DEV", conflicts_with = "all")]
    pub devices: Vec<String>,
    /// All that are kept.
    #[arg(long)]
    pub all: bool,
    /// Also those of a running daemon: they stay with it until it ends, and open then.
    #[arg(long)]
    pub force: bool,
    /// Where links are kept.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// What became of one device.
#[derive(Debug, Serialize)]
struct Released {
    port: String,
    ifindex: u32,
    /// `kept`, `released`, or `forgotten` (a running daemon has it still).
    state: &'static str,
    note: String,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let mut pins = match Pins::survey(&args.pin_dir) {
        Ok(pins) => pins,
        Err(error) => {
            output.error(error);
            return Exit::Environment;
        }
    };
    for note in pins.stale() {
        output.warning(note);
    }
    match chosen(&args, &pins) {
        Ok(devices) => release(&args, devices, &mut pins, output),
        Err(message) => {
            output.error(message);
            Exit::Refused
        }
    }
}

/// Indices and names of the devices that are meant.
fn chosen(args: &Args, pins: &Pins) -> Result<Vec<(u32, String)>, String> {
    let mut kept: Vec<u32> = pins.found().iter().map(Pinned::ifindex).collect();
    kept.dedup();
    if args.devices.is_empty() {
        return Ok(kept.into_iter().map(|ifindex| (ifindex, LinkInfo::name_of(ifindex))).collect());
    }
    let found = |device: &String| {
        let link = LinkInfo::of(device).map_err(|error| format!("{device}: {error}"))?;
        match kept.contains(&link.ifindex) {
            true => Ok((link.ifindex, device.clone())),
            false => Err(format!("nothing of portcullis is kept on {device}")),
        }
    };
    args.devices.iter().map(found).collect()
}

fn release(args: &Args, devices: Vec<(u32, String)>, pins: &mut Pins, output: &Output) -> Exit {
    let only_list = args.devices.is_empty() && !args.all;
    if devices.is_empty() && !output.json() {
        output.line("nothing is kept");
    }
    let mut worst = Exit::Ok;
    for (ifindex, port) in devices {
        let held = preflight::is_held(ifindex);
        let outcome = match (only_list, held, args.force) {
            (true, true, _) => Ok(("kept", "by a running daemon".to_owned())),
            (true, false, _) => Ok(("kept", "closed: no daemon has it".to_owned())),
            (_, true, false) => {
                let held = "a running daemon has it: stop that first, or --force";
                output.error(format_args!("{port}: {held}"));
                worst = Exit::Refused;
                continue;
            }
            (_, held, _) => open(ifindex, held, pins),
        };
        match outcome {
            Ok((state, note)) => say(&Released { port, ifindex, state, note }, output),
            Err(error) => {
                output.error(format_args!("{port}: {error}"));
                worst = Exit::Environment;
            }
        }
    }
    worst
}

/// Takes the links of one device away.
fn open(
    ifindex: u32,
    held: bool,
    pins: &mut Pins,
) -> Result<(&'static str, String), dataplane::port::afxdp::PinError> {
    let taken = pins.take_all(ifindex);
    let host = taken.iter().any(|pinned| pinned.kind() == PinKind::Egress);
    if held {
        taken.into_iter().try_for_each(Pinned::forget)?;
        return Ok(("forgotten", "it opens when the running daemon ends".to_owned()));
    }
    taken.into_iter().try_for_each(Pinned::release)?;
    let own = if host { ", this machine's own packets included" } else { "" };
    Ok(("released", format!("its traffic is the kernel's now{own}; {}", forwarding())))
}

/// What the kernel does with transit.
fn forwarding() -> String {
    let on = |path: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let v4 = on("/proc/sys/net/ipv4/ip_forward");
    let v6 = on("/proc/sys/net/ipv6/conf/all/forwarding");
    match (v4, v6) {
        (true, true) => "it forwards, past the policy".to_owned(),
        (true, false) => "it forwards IPv4 past the policy, and no IPv6".to_owned(),
        (false, true) => "it forwards IPv6 past the policy, and no IPv4".to_owned(),
        (false, false) => "it forwards nothing (net.ipv4.ip_forward is 0)".to_owned(),
    }
}

fn say(released: &Released, output: &Output) {
    if output.json() {
        output.object(released);
    } else {
        let Released { port, state, note, .. } = released;
        output.line(format_args!("{port}: {state}: {note}"));
    }
}
