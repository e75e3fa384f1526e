//! Lines 42-46: FTP and TFTP.

use super::conn::Conn;
use super::packet::{Host, Segment, View, alice, tcp, udp, web};
use super::script::{Frame, Script, both};

/// The helper, and an address for all that leaves by eth2 that is longer in
/// print than alice's. What comes in must be expected.
const RULES: [&str; 3] = [
    "-A FORWARD -i eth2 -m conntrack --ctstate NEW -j DROP",
    "-t raw -A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp",
    "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100",
];

/// Asks the server to connect to port 51210; a byte shorter than what it becomes.
const PORT: &[u8] = b"PORT 198,18,1,10,200,10\r\n";
const TRANSLATED: &[u8] = b"PORT 198,18,3,100,200,10\r\n";

/// A control connection whose ends allow SACK, in which somebody has logged in:
/// the helper reads commands only after a line that it saw the end of.
#[track_caller]
fn control(t: &mut Script<'_>) -> Conn {
    let mut c = Conn::new(alice(), 4001, web(), 21);
    c.coptions = vec![4, 2];
    c.soptions = vec![4, 2];
    c.open(t);
    assert_eq!(c.peer.0.to_string(), "198.18.3.100");
    t.send(c.server_sends("PA", b"220 here\r\n")).passes("ESTABLISHED");
    t.send(c.client_sends("PA", b"USER alice\r\n")).passes("ESTABLISHED");
    t.send(c.down("A")).passes("ESTABLISHED");
    c
}

/// The server's data connection to port 51210 of the outside address.
fn data_connection(from: Host, sport: u16) -> Segment {
    tcp(from, sport, "198.18.3.100".parse().unwrap(), 51_210).flags("S").seq(77)
}

/// The blocks of a SACK option that comes first.
fn sack(view: View<'_>) -> Vec<u32> {
    let options = view.options();
    assert_eq!(options[..3], [1, 1, 5]);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    options[4..usize::from(options[3]) + 2].chunks(4).map(number).collect()
}

#[test]
fn b42_a_longer_command_shifts_what_follows() {
    both(|t| {
        t.rules(&RULES);
        let mut c = control(t);
        let start = c.cseq;
        let out = t.send(c.client_sends("PA", PORT)).passes("ESTABLISHED");
        assert_eq!((out.ip().payload(), out.ip().seq()), (TRANSLATED, start));
        assert!(out.ip().checksums_hold());
        // What follows is one further for the server.
        let out = t.send(c.client_sends("PA", b"LIST\r\n")).passes("ESTABLISHED");
        assert_eq!(out.ip().seq(), start + 26);
        assert!(out.ip().checksums_hold());
        let out = t.send(c.client_sends("PA", b"NOOP\r\n")).passes("ESTABLISHED");
        assert_eq!(out.ip().seq(), start + 32);
        // The server has the first command and the last, and then all.
        let block = |left: u32, right: u32| {
            [&[1, 1, 5, 10][..], &left.to_be_bytes(), &right.to_be_bytes()].concat()
        };
        let some = c.down("A").ack(start + 26).option(&block(start + 32, start + 38));
        let back = t.send(some).passes("ESTABLISHED");
        assert_eq!((back.ip().ack(), sack(back.ip())), (start + 25, vec![start + 31, start + 37]));
        assert!(back.ip().checksums_hold());
        let back = t.send(c.down("A").ack(start + 38)).passes("ESTABLISHED");
        assert_eq!(back.ip().ack(), c.cseq);
        assert!(back.ip().checksums_hold());
    });
}

#[test]
fn b43_an_expectation_serves_once() {
    both(|t| {
        t.rules(&RULES);
        let mut c = control(t);
        t.send(c.client_sends("PA", PORT)).passes("ESTABLISHED");
        let expected = t.expectations();
        assert_eq!(expected.len(), 1);
        assert!(expected[0].contains("dst=198.18.3.100 sport=0 dport=51210"), "{expected:?}");
        let data = t.send(data_connection(web(), 20)).passes("RELATED");
        assert_eq!((data.port, data.ip().dst(), data.ip().dport()), (0, alice().ip, 51_210));
        assert!(t.expectations().is_empty());
        t.send(data_connection(web(), 2_020)).dropped("NEW");
        // Somebody else's address.
        t.send(c.client_sends("PA", b"PORT 198,18,1,11,200,11\r\n")).passes("ESTABLISHED");
        assert!(t.expectations().is_empty());
    });
}

/// Whether two segments say different things about the same place in the stream.
fn contradict(frames: &[Frame]) -> bool {
    let mut stream = std::collections::BTreeMap::new();
    let mut bytes = frames.iter().flat_map(|frame| {
        let (seq, payload) = (frame.ip().seq(), frame.ip().payload());
        payload.iter().enumerate().map(move |(at, byte)| (seq + at as u32, *byte))
    });
    bytes.any(|(at, byte)| stream.insert(at, byte).is_some_and(|before| before != byte))
}

/// Both drop the head of a split command. The kernel lets the tail pass as it is,
/// and when the command is repeated in one piece, rewrites it: the server, which
/// has the tail, may read a mixture. We hold back what follows until then.
#[test]
fn b44_a_split_command() {
    both(|t| {
        t.rules(&RULES);
        let mut c = control(t);
        let start = c.cseq;
        let (head, tail) = PORT.split_at(15);
        t.send(c.client_sends("PA", head)).dropped("ESTABLISHED");
        let mut out = t.send_apart(c.client_sends("PA", tail)).out;
        assert_eq!(out.len(), usize::from(t.is_kernel()));
        // Cut again, it is no better.
        t.send(c.up("PA").seq(start).data(head)).dropped("ESTABLISHED");
        out.extend(t.send_apart(c.up("PA").seq(start + 15).data(tail)).out);
        assert!(t.expectations().is_empty());
        let whole = t.send(c.up("PA").seq(start).data(PORT)).passes("ESTABLISHED");
        assert_eq!(whole.ip().payload(), TRANSLATED);
        assert_eq!(t.expectations().len(), 1);
        out.push(whole);
        assert_eq!(contradict(&out), t.is_kernel(), "{out:?}");
        // A part of what has arrived whole holds nothing back.
        t.send(c.up("PA").seq(start).data(head)).dropped("ESTABLISHED");
        let next = t.send(c.client_sends("PA", b"LIST\r\n")).passes("ESTABLISHED");
        assert_eq!(next.ip().seq(), start + 26);
        let data = t.send(data_connection(web(), 20)).passes("RELATED");
        assert_eq!(data.ip().dst(), alice().ip);
    });
}

#[test]
fn b45_a_repeated_command_is_rewritten_alike() {
    both(|t| {
        t.rules(&RULES);
        let mut c = control(t);
        let command = c.client_sends("PA", PORT);
        let first = t.send(command.clone()).passes("ESTABLISHED");
        for _ in 0..2 {
            assert_eq!(t.send(command.clone()).passes("ESTABLISHED"), first);
        }
        assert_eq!(t.expectations().len(), 1);
        let out = t.send(c.client_sends("PA", b"LIST\r\n")).passes("ESTABLISHED");
        assert_eq!(out.ip().seq(), first.ip().seq() + TRANSLATED.len() as u32);
        // Two ends of lines are remembered: where this command began is forgotten.
        let late = t.send(command).passes("ESTABLISHED");
        assert_eq!((late.ip().payload(), late.ip().seq()), (PORT, first.ip().seq()));
    });
}

#[test]
fn b46_tftp_answers_from_another_port() {
    both(|t| {
        t.rules(&[
            "-t raw -A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp",
            RULES[0],
            RULES[2],
        ]);
        let request = udp(alice(), 4001, web().ip, 69, b"\0\x01file\0octet\0");
        let out = t.send(request).passes("NEW");
        let outside = (out.ip().src(), out.ip().sport());
        let data = |sport| udp(web(), sport, outside.0, outside.1, b"\0\x03\0\x01data");
        let first = t.send(data(30_001)).passes("RELATED");
        assert_eq!((first.port, first.ip().dst(), first.ip().dport()), (0, alice().ip, 4001));
        t.send(data(30_002)).dropped("NEW");
        let ack = udp(alice(), 4001, web().ip, 30_001, b"\0\x04\0\x01");
        assert_eq!(t.send(ack).passes("ESTABLISHED").ip().sport(), outside.1);
        t.send(data(30_001)).passes("ESTABLISHED");
    });
}
