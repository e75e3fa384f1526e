//! `portcullis explain`: every chain step that a described packet takes, and why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::clock::wall_us;
use dataplane::conntrack::Config;
use dataplane::fib::Network;
use dataplane::packet::Family;

use super::client::{ask, unexpected};
use super::stored::Place;
use super::timeouts::CtTimeouts;
use super::{Exit, Output, replay};
use crate::api::{Request, Response};
use crate::explain::{self, Description, ExplainError};
use crate::iptables::TableNames;
use crate::model::expiry;
use crate::replay::ReplayError;
use crate::replay::capture::{self, CaptureError};
use crate::replay::files::{self, JobError};
use crate::replay::topology::TopologyFile;

const EXAMPLES: &str = "Examples:
  portcullis explain --in eth0 --src 198.18.1.2 --dst 198.18.2.2 --proto tcp --dport 443
  portcullis explain --rules rules.v4 --in eth0 --out eth1 --src 198.18.1.2 --dst 198.18.2.2 \\
      --proto tcp --dport 22 --flags ACK --state ESTABLISHED
  portcullis explain --policy @1 --in eth0 --out eth1 --src 198.18.1.2 --dst 198.18.2.2
  portcullis explain --rules rules.v4 --topology topo.toml --in eth0 --pcap a.pcap --frame 3

Without --policy, --rules or --rules6 the running daemon is asked. The packet may also be
given as KEY=VALUE words with the options' names. Without --topology, --in and
--out say which hooks are met: both FORWARD, --in alone INPUT, --out alone OUTPUT.";

/// The packet, and the policy to follow it through.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The packet as key=value words, besides or instead of the options.
    #[arg(value_name = "KEY=VALUE")]
    pub packet: Vec<String>,
    /// The packet.
    #[command(flatten)]
    pub options: PacketOptions,
    /// The packet is one of a capture.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Which frame of the capture, from 1.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pcap")]
    pub frame: usize,
    /// Explain against this policy of the history, both families, as @1 or @r17.
    #[arg(long, value_name = "@N", conflicts_with_all = ["rules", "rules6"])]
    pub policy: Option<String>,
    /// Explain against this iptables-save file instead of the running policy.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Explain against this ip6tables-save file instead of the running policy.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,
    /// Sets that they name: an `ipset save` file, or a directory of them; may be given more
    /// than once.
    #[arg(long, value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// With --rules: at this time, as 2027-01-31 or 2027-01-31T08:00Z; rules that expire (a
    /// comment with expires=) are then out of force [default: now].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<u64>,
    /// Ports, addresses, routes and neighbours, as for replay.
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Named timeouts.
    #[command(flatten)]
    pub timeouts: CtTimeouts,
    /// Where the history is.
    #[command(flatten)]
    pub place: Place,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: super::Socket,
}

macro_rules! packet_options {
    ($($(#[$doc:meta])* $field:ident $key:literal $value:literal,)*) => {
        /// What describes a packet: the same keys as the words.
        #[derive(Debug, Default, clap::Args)]
        pub struct PacketOptions {
            $($(#[$doc])* #[arg(long = $key, value_name = $value)] pub $field: Option<String>,)*
        }

        impl PacketOptions {
            fn words(&self) -> Vec<String> {
                let given = [$(($key, &self.$field),)*];
                let word = |(key, value): (&str, &Option<String>)| {
                    value.as_ref().map(|value| format!("{key}={value}"))
                };
                given.into_iter().filter_map(word).collect()
            }
        }
    };
}

packet_options! {
    /// Input interface; none for packets that the machine itself sends.
    input "in" "PORT",
    /// Output interface, where no routes are given.
    output "out" "PORT",
    /// Source address.
    src "src" "ADDRESS",
    /// Destination address.
    dst "dst" "ADDRESS",
    /// Protocol: tcp (default), udp, icmp, ... or a number.
    proto "proto" "NAME",
    /// Source port.
    sport "sport" "PORT",
    /// Destination port.
    dport "dport" "PORT",
    /// TCP flags, such as SYN,ACK.
    flags "flags" "LIST",
    /// ICMP type.
    kind "type" "N",
    /// ICMP code.
    code "code" "N",
    /// ICMP identifier.
    id "id" "N",
    /// TTL or hop limit.
    ttl "ttl" "N",
    /// TOS byte or traffic class.
    tos "tos" "N",
    /// Payload length.
    length "length" "BYTES",
    /// Source MAC address.
    mac "mac" "ADDRESS",
    /// Connection state to bring about: NEW, ESTABLISHED, RELATED or INVALID.
    state "state" "STATE",
    /// Direction in its connection: original (default) or reply.
    dir "dir" "WAY",
    /// The whole Ethernet frame.
    hex "hex" "BYTES",
}

fn time(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no time: write 2027-01-31 or 2027-01-31T08:00Z");
    expiry::parse(text).ok_or_else(bad)
}

/// Runs the command.
pub fn run(mut args: Args, output: &Output) -> Exit {
    if let Some(name) = args.policy.take() {
        let found = [Family::V4, Family::V6].map(|family| args.place.policy(&name, family));
        match found {
            [Ok(v4), Ok(v6)] => (args.rules, args.rules6) = (v4, v6),
            [Err(error), _] | [_, Err(error)] => {
                output.error(error);
                return Exit::Refused;
            }
        }
        if args.rules.is_none() && args.rules6.is_none() {
            output.error(format_args!("{name} has no policy of any family"));
            return Exit::Refused;
        }
    }
    for (path, family) in [(&mut args.rules, Family::V4), (&mut args.rules6, Family::V6)] {
        let file = path.take().map(|path| args.place.file(path, family)).transpose();
        match file {
            Ok(file) => *path = file,
            Err(error) => {
                output.error(error);
                return Exit::Refused;
            }
        }
    }
    let mut words = args.options.words();
    words.extend(args.packet.iter().cloned());
    if let Some(file) = &args.pcap {
        match frame_of(file, args.frame) {
            Ok(Some(hex)) => words.push(format!("hex={hex}")),
            Ok(None) => {
                output.error(format_args!("{}: no frame {}", file.display(), args.frame));
                return Exit::Refused;
            }
            Err(error) => {
                output.error(error);
                return Exit::Refused;
            }
        }
    }
    match args.rules.is_some() || args.rules6.is_some() {
        true => offline(&args, &words, output),
        false => online(&args, words, output),
    }
}

fn frame_of(file: &Path, number: usize) -> Result<Option<String>, CaptureError> {
    let frames = capture::read(file)?;
    let frame = number.checked_sub(1).and_then(|index| frames.get(index));
    Ok(frame.map(|frame| frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn online(args: &Args, packet: Vec<String>, output: &Output) -> Exit {
    let given = [
        ("--topology", args.topology.is_some()),
        ("--at", args.at.is_some()),
        ("--ct-timeout", !args.timeouts.ct_timeout.is_empty()),
    ];
    if let Some((option, _)) = given.iter().find(|one| one.1) {
        output
            .error(format_args!("{option} goes with --rules or --rules6: the daemon has its own"));
        return Exit::Usage;
    }
    match ask(&args.socket, Request::Explain { packet }, output) {
        Ok(Response::Explained(explained)) if output.json() => {
            output.object(&explained.explanation);
            Exit::Ok
        }
        Ok(Response::Explained(explained)) => {
            output.raw(&explained.text);
            Exit::Ok
        }
        Ok(_) => unexpected(output),
        Err(exit) => exit,
    }
}

fn offline(args: &Args, words: &[String], output: &Output) -> Exit {
    let mut conntrack = Config::new([0; 16]);
    let mut configured = || -> Result<_, JobError> {
        let topology = args.topology.as_deref().map(TopologyFile::read).transpose()?;
        if let (Some(file), Some(path)) = (&topology, &args.topology) {
            file.configure(path, &mut conntrack)?;
        }
        Ok(topology)
    };
    let topology = match configured() {
        Ok(topology) => topology,
        Err(error) => return replay::refuse(&error, output),
    };
    if let Err(error) = args.timeouts.add_to(&mut conntrack) {
        output.error(format_args!("--ct-timeout: {error}"));
        return Exit::Usage;
    }
    let names = TableNames::of_host().with_timeout_policies(conntrack.timeout_policies());
    let policies = || -> Result<_, JobError> {
        let v4 = files::read_rules(args.rules.as_deref(), Family::V4, &names)?;
        let v6 = files::read_rules(args.rules6.as_deref(), Family::V6, &names)?;
        Ok((v4, v6, files::read_sets(&args.sets, 0, explain::NOW, &names)?))
    };
    let (v4, v6, sets) = match policies() {
        Ok(read) => read,
        Err(error) => return replay::refuse(&error, output),
    };
    let at_s = args.at.unwrap_or_else(|| wall_us() / 1_000_000);
    let v4 = expiry::in_force(&v4, at_s).unwrap_or(v4);
    let v6 = expiry::in_force(&v6, at_s).unwrap_or(v6);
    let explained = Description::parse(words).map_err(ExplainError::from).and_then(|packet| {
        let network = topology.map(|file| Network::build(&file.topology)).transpose();
        let network = network.map_err(ReplayError::from)?.map(Arc::new);
        explain::explain(&v4, &v6, &sets, network, conntrack, &packet, &names)
    });
    match explained {
        Ok(explanation) if output.json() => output.object(&explanation),
        Ok(explanation) => output.raw(&explain::render(&explanation)),
        Err(error) => {
            output.error(&error);
            return match error {
                ExplainError::Disagree { .. } => Exit::Internal,
                _ => Exit::Refused,
            };
        }
    }
    Exit::Ok
}
