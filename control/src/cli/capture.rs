//! `portcullis capture`: live packets to a pcapng file, each with what became of it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dataplane::tap::FRAME_BYTES;
use pcap_file::PcapError;

use super::client::{ask, unexpected};
use super::follow::{Bounds, Sink, WORDS, follow};
use super::{Exit, Output, Socket};
use crate::api::protocol::TracedPacket;
use crate::api::{Request, Response};
use crate::trace::pcapng::Capture;

const EXAMPLES: &str = "Examples:
  portcullis capture --out web.pcapng --for 30s tcp port 443
  portcullis capture --out - --count 100 host 198.18.1.2 | tcpdump -nr -
  tshark -r web.pcapng -T fields -e frame.number -e frame.comment

Frames are kept as they arrived. The comment says verdict, reason, deciding rule, state,
translation and ports; the interface is the port that it came in by, `host' for what this
machine sends. ";

/// What to capture.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// Which packets; `any' takes all.
    #[arg(value_name = "FILTER", required = true)]
    pub filter: Vec<String>,
    /// The file; `-' is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write over a file that is there.
    #[arg(long)]
    pub force: bool,
    /// Bytes of each frame that are kept.
    #[arg(long, value_name = "BYTES", default_value_t = FRAME_BYTES as u32,
        value_parser = clap::value_parser!(u32).range(1..=FRAME_BYTES as i64))]
    pub snaplen: u32,
    /// Where it ends.
    #[command(flatten)]
    pub bounds: Bounds,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: Socket,
}

fn help() -> String {
    format!("{EXAMPLES}{WORDS}")
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    let ports = match ask(&args.socket, Request::ShowPorts {}, output) {
        Ok(Response::Ports(ports)) => ports.ports,
        Ok(_) => return unexpected(output),
        Err(exit) => return exit,
    };
    let ports: Vec<String> = ports.into_iter().map(|port| port.name).collect();
    let begun = open(&args.out, args.force)
        .and_then(|file| Capture::begin(BufWriter::new(file), &ports, args.snaplen).map_err(plain));
    let file = match begun {
        Ok(capture) => FileSink(capture),
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::AlreadyExists => " (--force writes over it)",
                _ => "",
            };
            output.error(format_args!("{}: {error}{hint}", args.out.display()));
            return Exit::Environment;
        }
    };
    let request = args.bounds.request(&args.filter, Some(args.snaplen));
    let summary = match args.out == Path::new("-") {
        // Standard output is the file's.
        true => Output::new(false),
        false => *output,
    };
    follow(&args.socket, request, file, summary)
}

/// Only its owner may read it: there are other people's packets in it.
fn open(path: &Path, force: bool) -> io::Result<Box<dyn Write + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout()));
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let file: File = options.open(path)?;
    Ok(Box::new(file))
}

fn plain(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

struct FileSink(Capture<BufWriter<Box<dyn Write + Send>>>);

impl Sink for FileSink {
    fn take(&mut self, packets: &[TracedPacket]) -> io::Result<()> {
        packets.iter().try_for_each(|packet| self.0.write(packet).map_err(plain))?;
        self.0.flush()
    }
}
