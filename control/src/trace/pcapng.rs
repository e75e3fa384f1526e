//! Followed packets as a capture file: pcapng, an interface for each port and one for this
//! machine's own, and with every packet a comment that says what became of it.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use super::text::comment;
use crate::api::protocol::TracedPacket;

/// Nanoseconds, as a negative power of ten.
const RESOLUTION: u8 = 9;
/// The direction in a packet's flags: in, or out.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// What this machine's own packets come in by.
const HOST: &str = "host";
/// A comment may be so long.
const COMMENT_MAX: usize = 4096;

/// A capture file that is being written.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    interfaces: Vec<String>,
}

impl<W: Write> std::fmt::Debug for Capture<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

impl<W: Write> Capture<W> {
    /// Begins a file of these ports' packets, of each of which so many bytes are kept.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(out: W, ports: &[String], snaplen: u32) -> Result<Self, PcapError> {
        let mut writer = PcapNgWriter::new(out)?;
        let interfaces: Vec<String> = ports.iter().cloned().chain([HOST.to_owned()]).collect();
        for name in &interfaces {
            writer.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                    InterfaceDescriptionOption::IfTsResol(RESOLUTION),
                ],
            })?;
        }
        Ok(Self { writer, interfaces })
    }

    /// Writes a packet. One without its bytes is left out.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, packet: &TracedPacket) -> Result<(), PcapError> {
        let Some(data) = packet.frame.as_deref().and_then(bytes) else { return Ok(()) };
        let name = packet.input.as_deref().unwrap_or(HOST);
        let last = self.interfaces.len() - 1;
        let interface = self.interfaces.iter().position(|known| known == name).unwrap_or(last);
        let flags = if packet.input.is_some() { INBOUND } else { OUTBOUND };
        let mut comment = comment(packet);
        let end = (0..=comment.len().min(COMMENT_MAX)).rfind(|at| comment.is_char_boundary(*at));
        comment.truncate(end.unwrap_or(0));
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: interface as u32,
            timestamp: Duration::from_nanos(packet.at_ns),
            original_len: packet.length as u32,
            data: Cow::Owned(data),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Owned(comment)),
                EnhancedPacketOption::Flags(flags),
            ],
        })?;
        Ok(())
    }

    /// Has all of it written.
    ///
    /// # Errors
    /// It cannot be.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.writer.get_mut().flush()
    }
}

/// Bytes from hexadecimal.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;
    use crate::api::protocol::TracedStep;

    #[test]
    fn a_packet_comes_back_with_its_interface_time_and_comment() {
        let step = TracedStep {
            table: "filter".to_owned(),
            hook: "FORWARD".to_owned(),
            chain: "FORWARD".to_owned(),
            rule: Some(2),
            line: Some(5),
            text: "-p tcp -j DROP".to_owned(),
        };
        let packet = TracedPacket {
            at_ns: 1_795_315_085_265_813_123,
            input: Some("eth1".to_owned()),
            length: 1500,
            frame: Some("00ff10".to_owned()),
            verdict: "drop".to_owned(),
            reason: Some("rule".to_owned()),
            state: Some("NEW".to_owned()),
            path: vec![step],
            decided: Some(0),
            ..TracedPacket::default()
        };
        let ports = ["eth0".to_owned(), "eth1".to_owned()];
        let mut file = Vec::new();
        let mut capture = Capture::begin(&mut file, &ports, 96).unwrap();
        capture.write(&packet).unwrap();
        capture.write(&TracedPacket { input: None, ..packet.clone() }).unwrap();
        capture.write(&TracedPacket { frame: None, ..packet }).unwrap();
        capture.flush().unwrap();
        drop(capture);
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let mut packets = Vec::new();
        while let Some(block) = reader.next_block() {
            if let Block::EnhancedPacket(packet) = block.unwrap() {
                packets.push(packet.into_owned());
            }
        }
        let [first, second] = &packets[..] else { panic!("{packets:?}") };
        assert_eq!(
            (first.interface_id, &first.data[..], first.original_len),
            (1, &[0, 0xff, 0x10][..], 1500)
        );
        assert_eq!(first.timestamp.as_nanos(), 1_795_315_085_265_813_123);
        assert_eq!(
            first.options,
            [
                EnhancedPacketOption::Comment(
                    "DROP reason=rule; by filter FORWARD rule 2 (line 5): -p tcp -j DROP; ct=NEW; in=eth1".into()
                ),
                EnhancedPacketOption::Flags(INBOUND)
            ]
        );
        assert_eq!(
            (second.interface_id, &second.options[1]),
            (2, &EnhancedPacketOption::Flags(OUTBOUND))
        );
    }
}
