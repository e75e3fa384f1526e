//! A TCP connection's two ends, as far as a script must keep count.

use std::net::IpAddr;

use super::packet::{Host, Segment, flag_bits, tcp};
use super::script::Script;

/// Both ends: what each sends next, and to whom. Behind NAT an end addresses
/// something else than the other's own address.
#[derive(Clone, Debug)]
pub struct Conn {
    /// The client and its port.
    pub client: (Host, u16),
    /// The server and its port.
    pub server: (Host, u16),
    /// Where the client sends.
    pub service: (IpAddr, u16),
    /// Where the server sends.
    pub peer: (IpAddr, u16),
    /// The client's next sequence number.
    pub cseq: u32,
    /// The server's next sequence number.
    pub sseq: u32,
    /// What the client's window says.
    pub cwin: u16,
    /// What the server's window says.
    pub swin: u16,
    /// Options of the client's SYN.
    pub coptions: Vec<u8>,
    /// Options of the server's SYN-ACK.
    pub soptions: Vec<u8>,
}

impl Conn {
    /// A connection without NAT.
    pub fn new(client: Host, cport: u16, server: Host, sport: u16) -> Self {
        Self {
            client: (client, cport),
            server: (server, sport),
            service: (server.ip, sport),
            peer: (client.ip, cport),
            cseq: 1_000,
            sseq: 50_000,
            cwin: 29_200,
            swin: 29_200,
            coptions: Vec::new(),
            soptions: Vec::new(),
        }
    }
    /// What the client would send now, without counting it as sent.
    pub fn up(&self, letters: &str) -> Segment {
        let ack = if letters.contains('A') { self.sseq } else { 0 };
        let (host, port) = self.client;
        let segment = tcp(host, port, self.service.0, self.service.1);
        segment.flags(letters).seq(self.cseq).ack(ack).window(self.cwin)
    }
    /// What the server would send now, without counting it as sent.
    pub fn down(&self, letters: &str) -> Segment {
        let ack = if letters.contains('A') { self.cseq } else { 0 };
        let (host, port) = self.server;
        let segment = tcp(host, port, self.peer.0, self.peer.1);
        segment.flags(letters).seq(self.sseq).ack(ack).window(self.swin)
    }
    /// The client sends that much, and it counts.
    pub fn client_sends(&mut self, letters: &str, data: &[u8]) -> Segment {
        let segment = self.up(letters).data(data);
        self.cseq = self.cseq.wrapping_add(room(letters, data.len()));
        segment
    }
    /// The server sends that much, and it counts.
    pub fn server_sends(&mut self, letters: &str, data: &[u8]) -> Segment {
        let segment = self.down(letters).data(data);
        self.sseq = self.sseq.wrapping_add(room(letters, data.len()));
        segment
    }
    /// The client's SYN; learns how the server sees the client.
    #[track_caller]
    pub fn syn(&mut self, t: &mut Script) {
        let options = self.coptions.clone();
        let seen = t.send(self.client_sends("S", &[]).option(&options));
        let frame = seen.passes("NEW");
        self.peer = (frame.ip().src(), frame.ip().sport());
    }
    /// The server's SYN-ACK.
    #[track_caller]
    pub fn syn_ack(&mut self, t: &mut Script) {
        let options = self.soptions.clone();
        t.send(self.server_sends("SA", &[]).option(&options)).passes("ESTABLISHED");
    }
    /// The whole handshake.
    #[track_caller]
    pub fn open(&mut self, t: &mut Script) {
        self.syn(t);
        self.syn_ack(t);
        t.send(self.up("A")).passes("ESTABLISHED");
    }
    /// Ten bytes each way, acknowledged.
    #[track_caller]
    pub fn talk(&mut self, t: &mut Script) {
        t.send(self.client_sends("PA", &[7; 10])).passes("ESTABLISHED");
        t.send(self.server_sends("PA", &[8; 10])).passes("ESTABLISHED");
        t.send(self.up("A")).passes("ESTABLISHED");
    }
}

/// Sequence space that it takes.
fn room(letters: &str, len: usize) -> u32 {
    let flags = flag_bits(letters);
    len as u32 + u32::from(flags & 1) + u32::from(flags >> 1 & 1)
}
