//! Captures: reading pcap and pcapng, writing nanosecond pcap, and a port that
//! receives from the one and transmits to the other.
//!
//! Timestamps become [`Nanos`] since the capture's epoch. Only Ethernet captures
//! are taken. Merging several captures by time is the caller's job.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

use super::{
    Burst, Description, Frame, LinkState, MAX_FRAME, Pool, Port, PortError, PortStatistics,
};
use crate::clock::Nanos;

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file could not be opened, made or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file's head is neither pcap nor pcapng.
    #[error("{}: neither pcap nor pcapng", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The capture is not of Ethernet frames.
    #[error("{}: link type {link_type}, only Ethernet (1) is read", path.display())]
    LinkType {
        /// The file.
        path: PathBuf,
        /// The link type number in the file.
        link_type: u32,
    },
    /// A record is damaged or cut short.
    #[error("{}: packet {number}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Number of the record, counting packets from 1.
        number: u64,
        /// What is wrong with it.
        source: PcapError,
    },
    /// A timestamp that cannot be represented.
    #[error("{}: packet {number}: the timestamp is out of range", path.display())]
    Timestamp {
        /// The file.
        path: PathBuf,
        /// Number of the record, counting packets from 1.
        number: u64,
    },
}

/// One captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was captured.
    pub at: Nanos,
    /// The bytes in the file, from the Ethernet header on.
    pub bytes: &'a [u8],
    /// Its length on the wire; above `bytes.len()` when the capture cut it.
    pub wire_len: u32,
}

/// Reads a capture, frame by frame.
pub struct Reader {
    path: PathBuf,
    format: Format,
    number: u64,
    current: Vec<u8>,
}

enum Format {
    Pcap(PcapReader<Box<dyn Read + Send>>),
    PcapNg(PcapNgReader<Box<dyn Read + Send>>),
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Reader").field("path", &self.path).field("number", &self.number).finish()
    }
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`CaptureError`] when it cannot be opened or is no Ethernet capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path)
            .map_err(|source| CaptureError::File { path: path.to_owned(), source })?;
        Self::new(BufReader::new(file), path)
    }

    /// Reads from any source; `name` is used in errors.
    ///
    /// # Errors
    /// [`CaptureError`] when it is no Ethernet capture.
    pub fn new(mut source: impl Read + Send + 'static, name: &Path) -> Result<Self, CaptureError> {
        const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
        let path = name.to_owned();
        let format_error = |_| CaptureError::Format { path: name.to_owned() };
        let mut magic = [0; 4];
        source.read_exact(&mut magic).map_err(|_| CaptureError::Format { path: path.clone() })?;
        let source: Box<dyn Read + Send> = Box::new(io::Cursor::new(magic).chain(source));
        let format = if magic == PCAPNG {
            Format::PcapNg(PcapNgReader::new(source).map_err(format_error)?)
        } else {
            Format::Pcap(PcapReader::new(source).map_err(format_error)?)
        };
        if let Format::Pcap(reader) = &format {
            check_link(&path, reader.header().datalink)?;
        }
        Ok(Self { path, format, number: 0, current: Vec::new() })
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// [`CaptureError`] naming the record. Nothing more can be read after that.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, CaptureError> {
        let found = match &mut self.format {
            Format::Pcap(reader) => {
                next_pcap(reader, &self.path, self.number + 1, &mut self.current)?
            }
            Format::PcapNg(reader) => {
                next_pcapng(reader, &self.path, self.number + 1, &mut self.current)?
            }
        };
        let Some((at, wire_len)) = found else { return Ok(None) };
        self.number += 1;
        Ok(Some(Record { at, bytes: &self.current, wire_len }))
    }
}

fn check_link(path: &Path, link: DataLink) -> Result<(), CaptureError> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(CaptureError::LinkType { path: path.to_owned(), link_type: other.into() }),
    }
}

/// Copies the next packet of a pcap to `bytes`; returns its time and wire length.
fn next_pcap(
    reader: &mut PcapReader<Box<dyn Read + Send>>,
    path: &Path,
    number: u64,
    bytes: &mut Vec<u8>,
) -> Result<Option<(Nanos, u32)>, CaptureError> {
    let unit = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    // Raw packets: the checked form refuses captures with a snap length of
    // zero, and timestamps that some writers round up to a whole second.
    let Some(packet) = reader.next_raw_packet() else { return Ok(None) };
    let packet = packet.map_err(|source| record_error(path, number, source))?;
    bytes.clear();
    bytes.extend_from_slice(&packet.data);
    let at = u64::from(packet.ts_sec) * 1_000_000_000 + u64::from(packet.ts_frac) * unit;
    Ok(Some((Nanos(at), packet.orig_len)))
}

/// Copies the next packet of a pcapng to `bytes`, skipping other blocks.
fn next_pcapng(
    reader: &mut PcapNgReader<Box<dyn Read + Send>>,
    path: &Path,
    number: u64,
    bytes: &mut Vec<u8>,
) -> Result<Option<(Nanos, u32)>, CaptureError> {
    loop {
        let Some(block) = reader.next_block() else { return Ok(None) };
        let block = block.map_err(|source| record_error(path, number, source))?;
        bytes.clear();
        // The library takes every timestamp for nanoseconds: this is the raw count.
        let (interface, ticks, wire_len) = match &block {
            Block::EnhancedPacket(packet) => {
                bytes.extend_from_slice(&packet.data);
                (packet.interface_id, packet.timestamp.as_nanos() as u64, packet.original_len)
            }
            Block::Packet(packet) => {
                bytes.extend_from_slice(&packet.data);
                (u32::from(packet.interface_id), packet.timestamp, packet.original_len)
            }
            // No timestamp: as if captured at the epoch. Its data has padding.
            Block::SimplePacket(packet) => {
                bytes.extend_from_slice(&packet.data);
                (0, 0, packet.original_len)
            }
            _ => continue,
        };
        let simple = matches!(block, Block::SimplePacket(_));
        let Some(description) = reader.interfaces().get(interface as usize) else {
            return Err(record_error(path, number, PcapError::InvalidInterfaceId(interface)));
        };
        check_link(path, description.linktype)?;
        if simple {
            let limit = if description.snaplen == 0 { u32::MAX } else { description.snaplen };
            bytes.truncate(wire_len.min(limit) as usize);
        }
        let at = resolve(description, ticks)
            .ok_or_else(|| CaptureError::Timestamp { path: path.to_owned(), number })?;
        return Ok(Some((at, wire_len)));
    }
}

/// Turns a pcapng tick count into nanoseconds by the interface's resolution
/// and offset; `None` when it does not fit.
fn resolve(interface: &InterfaceDescriptionBlock<'_>, ticks: u64) -> Option<Nanos> {
    let (mut resolution, mut offset) = (6, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = *seconds,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let per_second = if resolution & 0x80 == 0 {
        10u128.checked_pow(exponent)?
    } else {
        1u128.checked_shl(exponent).filter(|_| exponent < 64)?
    };
    let nanos = u128::from(ticks) * 1_000_000_000 / per_second;
    let nanos = nanos + u128::from(offset) * 1_000_000_000;
    u64::try_from(nanos).ok().map(Nanos)
}

fn record_error(path: &Path, number: u64, source: PcapError) -> CaptureError {
    CaptureError::Record { path: path.to_owned(), number, source }
}

/// Writes an Ethernet pcap with nanosecond timestamps.
pub struct Writer {
    path: PathBuf,
    inner: PcapWriter<Box<dyn Write + Send>>,
    number: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Writer").field("path", &self.path).field("number", &self.number).finish()
    }
}

impl Writer {
    /// Makes a file, replacing an older one.
    ///
    /// # Errors
    /// [`CaptureError`] when it cannot be made or written.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = File::create(path)
            .map_err(|source| CaptureError::File { path: path.to_owned(), source })?;
        Self::new(BufWriter::new(file), path)
    }

    /// Writes to any sink; `name` is used in errors.
    ///
    /// # Errors
    /// [`CaptureError`] when the header cannot be written.
    pub fn new(sink: impl Write + Send + 'static, name: &Path) -> Result<Self, CaptureError> {
        let path = name.to_owned();
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            // tcpdump's own limit for Ethernet: larger makes some readers refuse.
            snaplen: 262_144,
            ..PcapHeader::default()
        };
        let sink: Box<dyn Write + Send> = Box::new(sink);
        let inner = PcapWriter::with_header(sink, header)
            .map_err(|source| record_error(&path, 0, source))?;
        Ok(Self { path, inner, number: 0 })
    }

    /// Appends one frame.
    ///
    /// # Errors
    /// [`CaptureError`] when it cannot be written, or its time is beyond 2106.
    pub fn write(&mut self, at: Nanos, frame: &[u8]) -> Result<(), CaptureError> {
        self.number += 1;
        let packet = PcapPacket::new(Duration::from_nanos(at.0), frame.len() as u32, frame);
        self.inner
            .write_packet(&packet)
            .map_err(|source| record_error(&self.path, self.number, source))?;
        Ok(())
    }

    /// Writes everything out.
    ///
    /// # Errors
    /// [`CaptureError`] when the sink fails; without this call such a failure
    /// would go unnoticed.
    pub fn finish(self) -> Result<(), CaptureError> {
        let mut sink = self.inner.into_writer();
        sink.flush().map_err(|source| CaptureError::File { path: self.path, source })
    }
}

/// A port that receives from a capture, as its clock passes the timestamps,
/// and transmits to another.
#[derive(Debug)]
pub struct CapturePort {
    reader: Option<Reader>,
    writer: Option<Writer>,
    ahead: Vec<u8>,
    ahead_at: Option<Nanos>,
    sent: Vec<Frame>,
    statistics: PortStatistics,
}

impl CapturePort {
    /// A port between two captures, either of which may be absent.
    pub fn new(reader: Option<Reader>, writer: Option<Writer>) -> Self {
        Self {
            reader,
            writer,
            ahead: Vec::new(),
            ahead_at: None,
            sent: Vec::new(),
            statistics: PortStatistics::default(),
        }
    }
    /// When the next frame arrives; `None` when there are no more.
    ///
    /// # Errors
    /// [`PortError::Capture`] when the capture is damaged.
    pub fn next_arrival(&mut self) -> Result<Option<Nanos>, PortError> {
        if self.ahead_at.is_none() {
            let Some(reader) = &mut self.reader else { return Ok(None) };
            let Some(record) = reader.next_record()? else { return Ok(None) };
            self.ahead.clear();
            self.ahead.extend_from_slice(record.bytes);
            self.ahead_at = Some(record.at);
        }
        Ok(self.ahead_at)
    }
    /// Closes the capture that is written.
    ///
    /// # Errors
    /// [`PortError::Capture`] when the rest cannot be written.
    pub fn finish(self) -> Result<(), PortError> {
        Ok(self.writer.map_or(Ok(()), Writer::finish)?)
    }
}

impl Port for CapturePort {
    fn receive(
        &mut self,
        pool: &mut Pool,
        now: Nanos,
        burst: &mut Burst,
    ) -> Result<usize, PortError> {
        let before = burst.len();
        while !burst.is_full() && self.next_arrival()?.is_some_and(|at| at <= now) {
            if self.ahead.len() > MAX_FRAME {
                self.statistics.rx_dropped += 1;
            } else {
                // An empty pool leaves the frame for the next turn.
                let Some(frame) = pool.copy_in(&self.ahead) else { break };
                burst.push(frame);
            }
            self.ahead_at = None;
        }
        Ok(burst.len() - before)
    }
    fn transmit(&mut self, _pool: &mut Pool, frame: Frame) -> Result<(), Frame> {
        self.sent.push(frame);
        Ok(())
    }
    fn flush(&mut self, pool: &mut Pool, now: Nanos) -> Result<usize, PortError> {
        let mut result = Ok(());
        for frame in self.sent.drain(..) {
            if let (Some(writer), Ok(())) = (&mut self.writer, &result) {
                result = writer.write(now, pool.memory().bytes(&frame));
            }
            // What was sent to a capture that is not kept is not lost.
            self.statistics.tx_lost += u64::from(result.is_err());
            pool.put(frame);
        }
        result?;
        Ok(0)
    }
    fn reap(&mut self, _pool: &mut Pool) -> usize {
        0
    }
    fn fill(&mut self, _pool: &mut Pool) -> usize {
        0
    }
    fn check(&mut self) -> Result<LinkState, PortError> {
        Ok(LinkState::Up)
    }
    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
    fn description(&self) -> Description {
        Description::Capture
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
