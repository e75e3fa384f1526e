//! FTP and IRC before both, in all the forms that a line can have; and lines and
//! messages that were damaged at random.

use super::conn::Conn;
use super::helpers_sip;
use super::packet::{alice, mail, tcp, udp, web};
use super::script::{Script, both};

const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
/// A longer address for the server than its own.
const DNAT: &str =
    "-t nat -A PREROUTING -i eth0 -d 198.18.3.177/32 -j DNAT --to-destination 198.18.3.10";
const FTP: &str = "-t raw -A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp";
const IRC: &str = "-t raw -A PREROUTING -p tcp -m tcp --dport 6667 -j CT --helper irc";
/// What comes in must be expected: the router would ask for itself otherwise.
const EXPECTED: &str = "-A FORWARD -i eth2 -m conntrack --ctstate NEW -j DROP";

/// A control connection on which both sides have said a line.
#[track_caller]
fn control(t: &mut Script<'_>, service: &str) -> Conn {
    let mut c = Conn::new(alice(), 4001, web(), 21);
    c.service.0 = service.parse().unwrap();
    c.open(t);
    t.send(c.server_sends("PA", b"220 here\r\n")).passes("ESTABLISHED");
    t.send(c.client_sends("PA", b"USER alice\r\n")).passes("ESTABLISHED");
    t.send(c.down("A")).passes("ESTABLISHED");
    c
}

const COMMANDS: [&str; 40] = [
    "PORT 198,18,1,10,200,10\r\n",
    "port 198,18,1,10,200,10\r\n",
    "PORT  198,18,1,10,200,10\r\n",
    "PORTX 198,18,1,10,200,10\r\n",
    "PORT 198,18,1,10,200,10\n",
    "PORT 198,18,1,10,200,10 \r\n",
    "PORT 198,18,1,10,200,10\rX\n",
    "PORT 198,18,1,10,200\r\n",
    "PORT 198,18,1,10,200,10,5\r\n",
    "PORT 198,18,1,10,,10\r\n",
    "PORT ,,,,,\r\n",
    "PORT 198,18,1,10,0,0\r\n",
    "PORT 198,18,1,10,255,255\r\n",
    "PORT 198,18,1,10,256,266\r\n",
    "PORT 198,18,0,266,200,10\r\n",
    "PORT 454,18,1,10,200,10\r\n",
    "PORT 4294967494,18,1,10,200,10\r\n",
    "PORT 198.18.1.10.200.10\r\n",
    "PORT 198,18,1,11,200,10\r\n",
    "PORT 198,18,3,100,200,10\r\n",
    "PORT\r\n",
    "PORT \r\n",
    "EPRT |1|198.18.1.10|51210|\r\n",
    "eprt !1!198.18.1.10!51210!\r\n",
    "EPRT x1x198.18.1.10x51210x\r\n",
    "EPRT 111198.18.1.10151210|\r\n",
    "EPRT |2|198.18.1.10|51210|\r\n",
    "EPRT |1|198.18.1.10|51210\r\n",
    "EPRT |1|198.18.1.10|0|\r\n",
    "EPRT |1|198.18.1.10|65536|\r\n",
    "EPRT |1|198.18.1.10|65537|\r\n",
    "EPRT |1|198.18.1.10||\r\n",
    "EPRT |1|198.18.1|51210|\r\n",
    "EPRT |1|198.18.1.10.7|51210|\r\n",
    "EPRT |1|2001:db8::1|51210|\r\n",
    "EPRT |1|\r\n",
    "EPRT |1\r\n",
    "NOOP\r\n",
    "227 Entering (198,18,1,10,200,10)\r\n",
    "P\r\n",
];

const ANSWERS: [&str; 24] = [
    "227 Entering Passive Mode (198,18,3,10,200,10).\r\n",
    "227 198,18,3,10,200,10\r\n",
    "227 =198,18,3,10,200,10",
    "227 =198,18,3,10,200,10 ",
    "227 at 7 198,18,3,10,200,10\r\n",
    "227 Entering Passive Mode (198,18,3,11,200,10).\r\n",
    "227 Entering Passive Mode (198,18,3,177,200,10).\r\n",
    "227 Entering Passive Mode (198,18,3,10,200).\r\n",
    "227 Entering Passive Mode.\r\n",
    "227-Entering Passive Mode (198,18,3,10,200,10).\r\n",
    "227",
    "229 Entering Extended Passive Mode (|||51210|)\r\n",
    "229 Entering Extended Passive Mode (!!!51210!)\r\n",
    "229 (|||51210|",
    "229 (|||51210\r\n",
    "229 (||51210|)\r\n",
    "229 (|||0|)\r\n",
    "229 (|||65546|)\r\n",
    "229 (111512101)\r\n",
    "229 |||51210|\r\n",
    "229 (",
    "22",
    "PORT 198,18,3,10,200,10\r\n",
    "200 fine\r\n",
];

/// A control connection with what the translation has added to each side's stream.
struct Talk {
    c: Conn,
    grown: [u32; 2],
}

impl Talk {
    /// The client (0) or the server (1) says something. What does not pass is not
    /// repeated as it was: what follows takes its place.
    fn say(&mut self, t: &mut Script<'_>, side: usize, line: &[u8]) {
        let c = &mut self.c;
        let segment = match side {
            0 => c.up("PA").ack(c.sseq.wrapping_add(self.grown[1])),
            _ => c.down("PA").ack(c.cseq.wrapping_add(self.grown[0])),
        };
        let seen = t.send(segment.data(line));
        assert_eq!(seen.state, "ESTABLISHED", "{}", line.escape_ascii());
        let Some(out) = seen.out.first() else { return };
        let (len, sent) = (line.len() as u32, out.ip().payload().len() as u32);
        self.grown[side] = self.grown[side].wrapping_add(sent).wrapping_sub(len);
        match side {
            0 => c.cseq += len,
            _ => c.sseq += len,
        }
    }
}

/// Every line of either side, with a harmless one before it so that it counts.
fn lines(t: &mut Script<'_>, service: &str) {
    let mut talk = Talk { c: control(t, service), grown: [0; 2] };
    for (side, harmless, lines) in [(0, "NOOP\r\n", &COMMANDS[..]), (1, "200 fine\r\n", &ANSWERS)] {
        for line in lines {
            talk.say(t, side, harmless.as_bytes());
            talk.say(t, side, line.as_bytes());
            t.expectations();
        }
    }
}

#[test]
fn ftp_lines() {
    both(|t| {
        t.rules(&[FTP]);
        lines(t, "198.18.3.10");
    });
}

#[test]
fn ftp_lines_under_source_translation() {
    both(|t| {
        t.rules(&[FTP, SNAT, EXPECTED]);
        lines(t, "198.18.3.10");
    });
}

#[test]
fn ftp_lines_to_a_translated_server() {
    both(|t| {
        t.rules(&[FTP, DNAT, EXPECTED]);
        lines(t, "198.18.3.177");
    });
}

#[test]
fn ftp_under_both_translations_with_data() {
    both(|t| {
        t.rules(&[
            FTP,
            SNAT,
            DNAT,
            EXPECTED,
            "-t mangle -A PREROUTING -i eth0 -j CONNMARK --set-mark 5",
        ]);
        let mut c = control(t, "198.18.3.177");
        t.send(c.client_sends("PA", COMMANDS[0].as_bytes())).passes("ESTABLISHED");
        let outside = "198.18.3.100".parse().unwrap();
        let mut data = Conn::new(web(), 20, alice(), 51_210);
        data.service.0 = outside;
        let out = t.send(data.client_sends("S", b"")).passes("RELATED");
        assert_eq!(out.ip().dst(), alice().ip);
        data.peer = (out.ip().src(), out.ip().sport());
        assert_eq!(data.peer.0.to_string(), "198.18.3.177", "she knows him by that");
        data.syn_ack(t);
        data.talk(t);
        t.send(c.server_sends("PA", ANSWERS[0].as_bytes())).passes("ESTABLISHED");
        t.expectations();
        let mut data = Conn::new(alice(), 4100, web(), 51_210);
        data.service.0 = "198.18.3.177".parse().unwrap();
        let out = t.send(data.client_sends("S", b"")).passes("RELATED");
        assert_eq!(out.ip().dst(), web().ip);
        data.peer = (out.ip().src(), out.ip().sport());
        data.syn_ack(t);
        data.talk(t);
        t.flows();
    });
}

#[test]
fn the_port_of_another_expectation_is_not_taken() {
    both(|t| {
        t.rules(&[FTP, SNAT, EXPECTED]);
        let mut first = control(t, "198.18.3.10");
        t.send(first.client_sends("PA", b"PORT 198,18,1,10,255,255\r\n")).passes("ESTABLISHED");
        let mut second = Conn::new(alice(), 4002, web(), 21);
        second.open(t);
        t.send(second.client_sends("PA", b"USER bob\r\n")).passes("ESTABLISHED");
        // There is no higher port to search.
        t.send(second.client_sends("PA", b"PORT 198,18,1,10,255,255\r\n")).dropped("ESTABLISHED");
        t.expectations();
    });
}

#[test]
fn irc_offers() {
    let here = u32::from_be_bytes([198, 18, 1, 10]);
    let offers = [
        format!("PRIVMSG bob :\u{1}DCC SEND file {here} 5000 77\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC CHAT chat {here} 5001\u{1}\r\n"),
        format!("privmsg bob :\u{1}DCC MOVE f {here} 5002\u{1}\n"),
        format!("\r\n PRIVMSG bob :\u{1}DCC TSEND f {here} 5003\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SCHAT f {here}    5004\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND f {here} 70000\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND f {here} 0\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND f {} 5005\u{1}\r\n", here + 1),
        format!(
            "PRIVMSG bob :\u{1}DCC SEND f {} 5005\u{1} \u{1}DCC SEND f {here} 5006\u{1}\r\n",
            here + 1
        ),
        format!(
            "PRIVMSG bob :\u{1}DCC SEND f {} 5005 :\u{1}DCC SEND f {here} 5016\u{1}\r\n",
            here + 1
        ),
        format!("PRIVMSG bob :hey \u{1}DCC SEND f {here} 5017\u{1}\r\n"),
        format!("PRIVMSG bob \u{1}DCC SEND f {here} 5018\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND f {here} 5\u{1}\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND f {} 5007\u{1}\r\n", u64::from(here) + (1 << 32)),
        format!(
            "PRIVMSG bob :\u{1}DCC SEND f {} 5008\u{1}\r\n",
            u32::from_be_bytes([198, 18, 3, 100])
        ),
        format!("NOTICE bob :\u{1}DCC SEND f {here} 5009\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC RESUME f {here} 5010\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND f {here} 5011\u{1}"),
        format!("PRIVMSG bob :\u{1}DCC SEND filefilefile{here}5012\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND f{here} 5013\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND  {here} 5014\u{1}\r\n"),
        format!("PRIVMSG bob :\u{1}DCC SEND \"a b\" {here} 5015\u{1}\r\n"),
        "PRIVMSG bob :hello\r\n".to_owned(),
        "PRIVMSG\r\n".to_owned(),
    ];
    let many: Vec<String> = (0..10)
        .map(|n| format!("PRIVMSG b :\u{1}DCC SEND f {here} {}\u{1}\r\n", 6000 + n))
        .collect();
    for rules in [&[IRC, EXPECTED][..], &[IRC, SNAT, EXPECTED]] {
        both(|t| {
            t.rules(rules);
            let mut c = Conn::new(alice(), 4001, web(), 6667);
            c.open(t);
            let mut talk = Talk { c, grown: [0; 2] };
            for offer in offers.iter().chain(&many) {
                talk.say(t, 0, offer.as_bytes());
                t.expectations();
            }
            talk.say(t, 1, offers[0].as_bytes());
            let c = talk.c;
            let friend = tcp(mail(), 999, c.peer.0, 6009).flags("S").seq(5);
            t.send(friend).passes("RELATED");
            t.flows();
        });
    }
}

/// A generator for damage; the same every time.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }
    /// The text with a few bytes changed, added, repeated or missing.
    pub(super) fn damaged(&mut self, text: &[u8]) -> Vec<u8> {
        const BYTES: &[u8] = b"0159,.:;|()<>@ \t\r\n=\"aPv[]\0\xff";
        let mut text = text.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(text.len());
            let byte = BYTES[self.below(BYTES.len())];
            match self.below(6) {
                0 => drop(text.remove(at)),
                1 => text[at] = byte,
                2 => text.insert(at, byte),
                3 => {
                    let end = text.len().min(at + 1 + self.below(12));
                    let part = text[at..end].to_vec();
                    text.splice(at..at, part);
                }
                4 => {
                    let end = text.len().min(at + 1 + self.below(6));
                    text.drain(at..end);
                }
                _ if self.below(4) == 0 => text.truncate(at.max(1)),
                _ => text[at] = text[at].wrapping_add(1),
            }
            if text.is_empty() {
                text.push(byte);
            }
        }
        text
    }
}

#[test]
fn damaged_lines() {
    both(|t| {
        let mut dice = Dice(42);
        t.rules(&[FTP, SNAT, EXPECTED]);
        let mut talk = Talk { c: control(t, "198.18.3.10"), grown: [0; 2] };
        for _ in 0..150 {
            let from_server = dice.below(3) == 0;
            let line = match from_server {
                true => ANSWERS[[0, 11][dice.below(2)]],
                false => COMMANDS[[0, 22][dice.below(2)]],
            };
            let line = dice.damaged(line.as_bytes());
            let (side, harmless) = if from_server { (1, "200 ok\r\n") } else { (0, "NOOP\r\n") };
            talk.say(t, side, harmless.as_bytes());
            talk.say(t, side, &line);
            t.expectations();
        }
    });
}

#[test]
fn damaged_messages() {
    both(|t| {
        let mut dice = Dice(7);
        t.rules(&[
            "-t raw -A PREROUTING -p udp -m udp --dport 5060 -j CT --helper sip",
            SNAT,
            EXPECTED,
        ]);
        let messages = helpers_sip::samples();
        t.send(udp(alice(), 5060, web().ip, 5060, &messages[0])).passes("NEW");
        for _ in 0..200 {
            let which = dice.below(messages.len());
            let message = dice.damaged(&messages[which]);
            if which.is_multiple_of(2) {
                t.send(udp(alice(), 5060, web().ip, 5060, &message));
            } else {
                t.send(udp(web(), 5060, "198.18.3.100".parse().unwrap(), 5060, &message));
            }
            t.expectations();
        }
    });
}
