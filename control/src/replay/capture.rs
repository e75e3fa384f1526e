//! Captures in and out: pcap and pcapng, microseconds or nanoseconds, Ethernet.

use std::io::Write;
use std::path::{Path, PathBuf};

use dataplane::clock::Nanos;
use pcap_file::pcap::{PcapHeader, PcapParser, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

#[cfg(test)]
mod tests;

/// No frame is longer (the limit that libpcap sets too).
const MAX_FRAME: usize = 262_144;

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Neither pcap nor pcapng, or a record that makes no sense.
    #[error("{}: damaged at byte {offset}: {source}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the damaged record starts.
        offset: usize,
        /// Why.
        source: PcapError,
    },
    /// A link type other than Ethernet.
    #[error("{}: link type {link:?} at byte {offset}, only Ethernet is supported", file.display())]
    LinkType {
        /// The file.
        file: PathBuf,
        /// Where the file says so.
        offset: usize,
        /// What it is.
        link: DataLink,
    },
    /// A packet record without a timestamp.
    #[error("{}: the record at byte {offset} has no timestamp", file.display())]
    NoTimestamp {
        /// The file.
        file: PathBuf,
        /// Where the record starts.
        offset: usize,
    },
}

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// When, since the Unix epoch.
    pub at: Nanos,
    /// The bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// Reads a whole capture.
pub fn read(file: &Path) -> Result<Vec<Frame>, CaptureError> {
    let io = |source| CaptureError::Io { file: file.to_owned(), source };
    let bytes = std::fs::read(file).map_err(io)?;
    parse(file, &bytes)
}

/// Reads a capture from memory; `file` is for the errors.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    match bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        true => parse_ng(file, bytes),
        false => parse_classic(file, bytes),
    }
}

fn damaged(file: &Path, offset: usize) -> impl FnOnce(PcapError) -> CaptureError {
    move |source| CaptureError::Damaged { file: file.to_owned(), offset, source }
}

fn check_link(file: &Path, offset: usize, link: DataLink) -> Result<(), CaptureError> {
    match link {
        DataLink::ETHERNET => Ok(()),
        link => Err(CaptureError::LinkType { file: file.to_owned(), offset, link }),
    }
}

fn parse_classic(file: &Path, bytes: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    let (mut rest, parser) = PcapParser::new(bytes).map_err(damaged(file, 0))?;
    let header = parser.header();
    check_link(file, 20, header.datalink)?;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let (after, packet) = parser.next_raw_packet(rest).map_err(damaged(file, offset))?;
        let (per_second, ns) = match header.ts_resolution {
            TsResolution::MicroSecond => (1_000_000, 1000),
            TsResolution::NanoSecond => (1_000_000_000, 1),
        };
        if packet.data.len() > MAX_FRAME || packet.ts_frac >= per_second {
            let source = PcapError::InvalidField("record length or timestamp");
            return Err(damaged(file, offset)(source));
        }
        let at = Nanos::from_secs(packet.ts_sec.into()) + Nanos(u64::from(packet.ts_frac) * ns);
        frames.push(Frame { at, bytes: packet.data.into_owned() });
        rest = after;
    }
    Ok(frames)
}

fn parse_ng(file: &Path, bytes: &[u8]) -> Result<Vec<Frame>, CaptureError> {
    let (mut rest, mut parser) = PcapNgParser::new(bytes).map_err(damaged(file, 0))?;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let (after, block) = parser.next_block(rest).map_err(damaged(file, offset))?;
        match block {
            Block::InterfaceDescription(interface) => {
                check_link(file, offset, interface.linktype)?;
            }
            Block::EnhancedPacket(packet) => {
                let interface = parser.packet_interface(&packet).ok_or_else(|| {
                    damaged(file, offset)(PcapError::InvalidInterfaceId(packet.interface_id))
                })?;
                // The library takes the raw count of units for nanoseconds.
                let units = packet.timestamp.as_nanos() as u64;
                let at = timestamp(interface, units).ok_or_else(|| {
                    damaged(file, offset)(PcapError::InvalidField("timestamp out of range"))
                })?;
                frames.push(Frame { at, bytes: packet.data.into_owned() });
            }
            Block::SimplePacket(_) | Block::Packet(_) => {
                return Err(CaptureError::NoTimestamp { file: file.to_owned(), offset });
            }
            _ => {}
        }
        rest = after;
    }
    Ok(frames)
}

/// Units since the epoch to nanoseconds, by the interface's `if_tsresol` (a
/// power of ten, or of two with the top bit set; 10^-6 when absent) and offset.
fn timestamp(interface: &InterfaceDescriptionBlock<'_>, units: u64) -> Option<Nanos> {
    let (mut resolution, mut offset_s) = (6, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset_s = *seconds,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let per_second = match resolution & 0x80 {
        0 => 10_u128.checked_pow(exponent)?,
        _ => 2_u128.checked_pow(exponent)?,
    };
    let nanos = u128::from(units) * 1_000_000_000 / per_second;
    let nanos = nanos + u128::from(offset_s) * 1_000_000_000;
    u64::try_from(nanos).ok().map(Nanos)
}

/// Writes nanosecond pcap with Ethernet frames.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: pcap_file::pcap::PcapWriter<W>,
}

impl<W: Write> Writer<W> {
    /// Starts a capture.
    pub fn new(out: W) -> std::io::Result<Self> {
        let header = PcapHeader {
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            snaplen: MAX_FRAME as u32,
            ..PcapHeader::default()
        };
        let out = pcap_file::pcap::PcapWriter::with_header(out, header).map_err(io_error)?;
        Ok(Self { out })
    }

    /// Appends one frame.
    pub fn write(&mut self, at: Nanos, bytes: &[u8]) -> std::io::Result<()> {
        let length = bytes.len() as u32;
        let packet = RawPcapPacket {
            ts_sec: at.as_secs() as u32,
            ts_frac: (at.0 % 1_000_000_000) as u32,
            incl_len: length,
            orig_len: length,
            data: bytes.into(),
        };
        self.out.write_raw_packet(&packet).map(drop).map_err(io_error)
    }

    /// Flushes and gives the writer back.
    pub fn finish(self) -> std::io::Result<W> {
        let mut out = self.out.into_writer();
        out.flush()?;
        Ok(out)
    }
}

fn io_error(error: PcapError) -> std::io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => std::io::Error::other(other),
    }
}
