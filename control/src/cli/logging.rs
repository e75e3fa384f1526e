//! The flags of `run` about records: how they are limited, and where they go.

use std::path::PathBuf;

use clap::value_parser;

use crate::config::{CaptureFilesName, CaptureLinkName, Given, Layer, Whole};

/// See the keys of the same meaning (`portcullis config reference`).
#[derive(Debug, Default, clap::Args)]
pub struct Logging {
    /// Append records as JSON lines to this file, too.
    #[arg(long, value_name = "FILE")]
    pub log_json: Option<PathBuf>,
    /// Lines a second that a LOG or AUDIT rule may cause after its burst; 0: no limit
    /// [default: 100].
    #[arg(long, value_name = "LINES", value_parser = value_parser!(u64).range(..=1_000_000))]
    pub log_rate: Option<u64>,
    /// Lines that a rule may cause at once [default: 1000].
    #[arg(long, value_name = "LINES", value_parser = value_parser!(u64).range(1..=1_000_000))]
    pub log_burst: Option<u64>,
    /// Records a second that all rules together may cause; 0: no bound [default: 20000].
    #[arg(long, value_name = "RECORDS", value_parser = value_parser!(u64).range(..=10_000_000))]
    pub log_budget: Option<u64>,
    /// Turn log files over before they are longer; 0: never [default: 0].
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u64).range(..=1_048_576))]
    pub log_rotate_mib: Option<u64>,
    /// Turn log files over when they are so old; 0: never [default: 0].
    #[arg(long, value_name = "HOURS", value_parser = value_parser!(u64).range(..=87_600))]
    pub log_rotate_hours: Option<u64>,
    /// Keep so many log files that were turned over [default: 8].
    #[arg(long, value_name = "FILES", value_parser = value_parser!(u64).range(1..=1000))]
    pub log_keep: Option<u64>,
    /// A JSON line about the heaviest sources and rules this often; 0: never [default: 60].
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u64).range(..=86_400))]
    pub log_top: Option<u64>,
    /// Lines a second about traced packets (TRACE), all together; 0: no limit
    /// [default: 1000].
    #[arg(long, value_name = "LINES", value_parser = value_parser!(u64).range(..=1_000_000))]
    pub trace_rate: Option<u64>,
    /// Write what NFLOG rules capture to pcap files here, instead of lines to the log.
    #[arg(long, value_name = "DIR")]
    pub nflog_dir: Option<PathBuf>,
    /// One capture file for each group, or one for all [default: group].
    #[arg(long, value_enum)]
    pub nflog_files: Option<CaptureFilesName>,
    /// What a captured packet begins with [default: nflog].
    #[arg(long, value_enum)]
    pub nflog_link: Option<CaptureLinkName>,
    /// Packets a second that an NFLOG rule may capture, and at once; 0: no limit
    /// [default: 10000].
    #[arg(long, value_name = "PACKETS", value_parser = value_parser!(u64).range(..=10_000_000))]
    pub nflog_rate: Option<u64>,
    /// Turn capture files over before they are longer; 0: never [default: 64].
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u64).range(..=1_048_576))]
    pub nflog_rotate_mib: Option<u64>,
    /// Keep so many files of each that were turned over [default: 8].
    #[arg(long, value_name = "FILES", value_parser = value_parser!(u64).range(1..=1000))]
    pub nflog_keep: Option<u64>,
}

impl Logging {
    /// What these flags say of the keys.
    pub(super) fn layer(&self) -> Layer {
        Layer {
            log_json: Given::flag(self.log_json.clone().map(Some)),
            log_rate: Given::flag(self.log_rate.map(Whole)),
            log_burst: Given::flag(self.log_burst.map(Whole)),
            log_budget: Given::flag(self.log_budget.map(Whole)),
            log_rotate_mib: Given::flag(self.log_rotate_mib.map(Whole)),
            log_rotate_hours: Given::flag(self.log_rotate_hours.map(Whole)),
            log_keep: Given::flag(self.log_keep.map(Whole)),
            log_top: Given::flag(self.log_top.map(Whole)),
            trace_rate: Given::flag(self.trace_rate.map(Whole)),
            nflog_dir: Given::flag(self.nflog_dir.clone().map(Some)),
            nflog_files: Given::flag(self.nflog_files),
            nflog_link: Given::flag(self.nflog_link),
            nflog_rate: Given::flag(self.nflog_rate.map(Whole)),
            nflog_rotate_mib: Given::flag(self.nflog_rotate_mib.map(Whole)),
            nflog_keep: Given::flag(self.nflog_keep.map(Whole)),
            ..Layer::default()
        }
    }
}
