//! PPTP and its GRE connections before both: calls of both kinds, translated or
//! not, out of turn, damaged, and how they end.

use std::net::IpAddr;

use super::conn::Conn;
use super::helpers_forms::Dice;
use super::packet::{Host, Packet, alice, bob, error, hop, web};
use super::script::{Script, both};
use crate::lab::frames::Ip;

const PPTP: &str = "-t raw -A PREROUTING -p tcp -m tcp --dport 1723 -j CT --helper pptp";
const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
const DNAT: &str =
    "-t nat -A PREROUTING -i eth0 -d 198.18.3.177/32 -j DNAT --to-destination 198.18.3.10";
const TOLD: &str = "-A FORWARD -m helper --helper pptp";
/// What comes in must be expected: the router would ask for itself otherwise.
const EXPECTED: &str = "-A FORWARD -i eth2 -m conntrack --ctstate NEW -j DROP";

const PLAIN: &[&str] = &[PPTP, TOLD];
const SOURCE: &[&str] = &[PPTP, TOLD, SNAT, EXPECTED];
const BOTH: &[&str] = &[PPTP, TOLD, SNAT, DNAT, EXPECTED];
const DESTINATION: &[&str] = &[PPTP, TOLD, DNAT, EXPECTED];

/// How much each kind of message has behind its header.
const LEN: [usize; 16] = [0, 144, 144, 4, 4, 4, 8, 156, 20, 208, 12, 16, 4, 136, 28, 12];

/// A control message that begins with these bytes.
fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut text = vec![0, 0, 0, 1, 0x1a, 0x2b, 0x3c, 0x4d];
    text.extend(kind.to_be_bytes());
    text.extend([0, 0]);
    text.extend(body);
    text.resize(12 + LEN[usize::from(kind) % 16].max(body.len()), 0);
    let len = text.len() as u16;
    text[..2].copy_from_slice(&len.to_be_bytes());
    text
}

fn ids(first: u16, second: u16, more: &[u8]) -> Vec<u8> {
    [&first.to_be_bytes()[..], &second.to_be_bytes(), more].concat()
}

/// A packet of enhanced GRE to a call.
fn data(from: Host, to: IpAddr, call: u16) -> Packet {
    gre(
        from,
        to,
        &[&[0x30, 0x01, 0x88, 0x0b, 0, 4][..], &call.to_be_bytes(), b"\0\0\0\x01data"].concat(),
    )
}
fn gre(from: Host, to: IpAddr, l4: &[u8]) -> Packet {
    let mut ip = Ip::new(from.ip, to, 47);
    ip.frag = 0;
    Packet { from, ip: ip.packet(l4) }
}

/// A control connection.
struct Session {
    c: Conn,
}

impl Session {
    #[track_caller]
    fn open(t: &mut Script<'_>, client: Host, port: u16, service: &str) -> Self {
        let mut c = Conn::new(client, port, web(), 1723);
        c.service.0 = service.parse().unwrap();
        c.open(t);
        Self { c }
    }
    fn up(&mut self, t: &mut Script<'_>, kind: u16, body: &[u8]) -> Vec<u8> {
        self.says(t, true, &control(kind, body))
    }
    fn down(&mut self, t: &mut Script<'_>, kind: u16, body: &[u8]) -> Vec<u8> {
        self.says(t, false, &control(kind, body))
    }
    /// One side says something; what arrives.
    fn says(&mut self, t: &mut Script<'_>, client: bool, text: &[u8]) -> Vec<u8> {
        let segment =
            if client { self.c.client_sends("PA", text) } else { self.c.server_sends("PA", text) };
        let seen = t.send(segment);
        t.expectations();
        seen.out.first().map(|frame| frame.ip().payload().to_vec()).unwrap_or_default()
    }
    fn start(&mut self, t: &mut Script<'_>) {
        self.up(t, 1, &[1, 0]);
        self.down(t, 2, &[1, 0, 1, 0]);
    }
    /// The client calls with its number, and the server answers with its own. The
    /// client's number as the server knows it.
    fn calls(&mut self, t: &mut Script<'_>, client: u16, server: u16) -> u16 {
        let arrived = self.up(t, 7, &ids(client, 1, &[]));
        let known = u16::from_be_bytes([arrived[12], arrived[13]]);
        self.down(t, 8, &ids(server, known, &[1, 0]));
        known
    }
    fn up_data(&self, call: u16) -> Packet {
        data(self.c.client.0, self.c.service.0, call)
    }
    fn down_data(&self, call: u16) -> Packet {
        data(web(), self.c.peer.0, call)
    }
}

/// One call and its data, the client's first or the server's.
fn one_call(t: &mut Script<'_>, service: &str, client_first: bool) -> (Session, u16) {
    let mut s = Session::open(t, alice(), 4001, service);
    s.start(t);
    let known = s.calls(t, 7, 9);
    if client_first {
        t.send(s.up_data(9)).passes("RELATED");
        t.expectations();
        t.send(s.down_data(known)).passes("ESTABLISHED");
    } else {
        t.send(s.down_data(known)).passes("RELATED");
        t.expectations();
        t.send(s.up_data(9)).passes("ESTABLISHED");
    }
    t.send(s.up_data(9)).passes("ESTABLISHED");
    t.send(s.down_data(known)).passes("ESTABLISHED");
    t.flows();
    (s, known)
}

#[test]
fn pptp_calls_of_a_client() {
    for (rules, service) in [
        (PLAIN, "198.18.3.10"),
        (SOURCE, "198.18.3.10"),
        (BOTH, "198.18.3.177"),
        (DESTINATION, "198.18.3.177"),
    ] {
        for client_first in [true, false] {
            both(|t| {
                t.rules(rules);
                let (mut s, known) = one_call(t, service, client_first);
                // What else is said.
                s.up(t, 5, &[0, 0, 0, 1]);
                s.down(t, 6, &[0, 0, 0, 1, 1, 0]);
                s.up(t, 15, &ids(9, 0, &[]));
                s.down(t, 15, &ids(known, 0, &[]));
                s.down(t, 14, &ids(known, 0, &[]));
                t.send(s.up_data(9));
                // The end.
                s.up(t, 12, &ids(7, 0, &[]));
                s.down(t, 13, &ids(9, 0, &[1]));
                t.flows();
                t.send(s.up_data(9));
                t.flows();
            });
        }
    }
}

#[test]
fn pptp_calls_of_a_server() {
    for (rules, service) in [(PLAIN, "198.18.3.10"), (SOURCE, "198.18.3.10")] {
        both(|t| {
            t.rules(rules);
            let mut s = Session::open(t, alice(), 4001, service);
            s.start(t);
            s.down(t, 9, &ids(9, 1, &[]));
            s.up(t, 10, &ids(7, 8, &[1, 0]));
            s.up(t, 10, &ids(7, 9, &[2, 0]));
            s.down(t, 9, &ids(9, 1, &[]));
            s.up(t, 10, &ids(7, 9, &[1, 0]));
            s.down(t, 11, &ids(6, 0, &[]));
            s.down(t, 11, &ids(7, 0, &[]));
            t.send(s.up_data(9));
            t.send(s.down_data(7));
            t.flows();
        });
    }
}

/// Every message of either side at every stage.
#[test]
fn pptp_out_of_turn() {
    for (rules, service) in [(PLAIN, "198.18.3.10"), (SOURCE, "198.18.3.10")] {
        both(|t| {
            t.rules(rules);
            let mut dice = Dice(5);
            for port in 4001..4011 {
                let mut s = Session::open(t, alice(), port, service);
                for _ in 0..40 {
                    let known = if rules == SOURCE { port } else { 7 };
                    // In turn half of the time.
                    let said = match dice.below(24) {
                        0..3 => (true, control(1, &[1, 0])),
                        3..6 => (false, control(2, &[1, 0, (dice.below(8) != 0).into(), 0])),
                        6..10 => (true, control(7, &ids(7, 0, &[]))),
                        10..14 => {
                            (false, control(8, &ids(9, known, &[(dice.below(4) != 0).into(), 0])))
                        }
                        14 => (false, control(9, &ids(9, 0, &[]))),
                        15 => (true, control(10, &ids(7, 9, &[1, 0]))),
                        16 => (false, control(11, &ids(7, 9, &[]))),
                        _ => {
                            let kind = dice.below(18) as u16;
                            let body = ids(dice.below(12) as u16, dice.below(12) as u16, &[1, 0]);
                            (dice.below(2) == 0, control(kind, &body))
                        }
                    };
                    s.says(t, said.0, &said.1);
                    if dice.below(4) == 0 {
                        t.send(s.up_data(9));
                    }
                    if dice.below(4) == 0 {
                        t.send(s.down_data(known));
                    }
                    t.expectations();
                }
                t.flows();
            }
        });
    }
}

#[test]
fn damaged_pptp_messages() {
    for rules in [PLAIN, SOURCE] {
        both(|t| {
            t.rules(rules);
            let mut dice = Dice(77);
            let mut s = Session::open(t, alice(), 4001, "198.18.3.10");
            s.start(t);
            let texts = [
                (true, control(7, &ids(7, 0, &[]))),
                (false, control(8, &ids(9, if rules == SOURCE { 4001 } else { 7 }, &[1, 0]))),
            ];
            for n in 0..120 {
                let (client, text) = &texts[n % 2];
                let text = if dice.below(3) == 0 { text.clone() } else { dice.damaged(text) };
                s.says(t, *client, &text);
            }
            for len in 0..=texts[1].1.len() {
                s.says(t, false, &texts[1].1[..len]);
            }
            t.flows();
        });
    }
}

/// The same client number of two clients behind one address; a repeated message; a
/// second call on one connection; the same call again.
#[test]
fn pptp_several_calls() {
    for rules in [PLAIN, SOURCE] {
        both(|t| {
            t.rules(rules);
            let mut one = Session::open(t, alice(), 4001, "198.18.3.10");
            let mut two = Session::open(t, bob(), 4002, "198.18.3.10");
            one.start(t);
            two.start(t);
            let first = one.calls(t, 7, 9);
            let second = two.calls(t, 7, 9);
            t.send(one.up_data(9)).passes("RELATED");
            t.send(two.up_data(9)).passes("RELATED");
            t.send(one.down_data(first)).passes("ESTABLISHED");
            t.send(two.down_data(second)).passes("ESTABLISHED");
            one.calls(t, 7, 9);
            one.calls(t, 8, 10);
            t.send(one.up_data(10));
            t.send(one.up_data(9));
            one.down(t, 13, &ids(10, 0, &[1]));
            t.flows();
            let again = one.calls(t, 17, 19);
            t.send(one.up_data(19));
            t.send(one.down_data(again));
            t.flows();
        });
    }
}

/// Data ends with the control connection, and what is left of it is nobody's.
#[test]
fn pptp_ends_with_its_control_connection() {
    for rules in [PLAIN, SOURCE] {
        both(|t| {
            t.rules(rules);
            t.sysctl("tcp_timeout_close", 1);
            let (s, known) = one_call(t, "198.18.3.10", true);
            t.send(s.c.up("R"));
            t.wait_ms(2_500);
            // Asked for, it is seen to be over.
            t.send(s.c.up("A"));
            t.send(s.up_data(9));
            t.send(s.down_data(known));
            t.flows();
        });
    }
}

/// GRE connections of their own, errors about the data, and packets cut short.
#[test]
fn pptp_and_other_gre() {
    const INVALID: &str = "-A FORWARD -m conntrack --ctstate INVALID -j DROP";
    for rules in [PLAIN, SOURCE] {
        both(|t| {
            t.rules(&[rules, &[INVALID]].concat());
            let (s, known) = one_call(t, "198.18.3.10", true);
            let out = t.send(s.up_data(9)).frame();
            t.send(error(hop(), out.ip().src(), 3, 1, out.ip().0));
            let back = t.send(s.down_data(known)).frame();
            t.send(error(alice(), back.ip().src(), 3, 1, back.ip().0));
            t.send(s.up_data(11));
            t.send(gre(alice(), web().ip, &[0, 0, 8, 0, 1, 2, 3, 4]));
            t.send(gre(alice(), web().ip, &[0x20, 0, 8, 0, 0, 0, 0, 9, 1, 2]));
            t.send(gre(alice(), web().ip, &[0x30, 1, 8, 0, 0, 0, 0, 9, 1, 2]));
            t.send(gre(alice(), web().ip, &[0x30, 1, 0x88, 0xb, 0, 0]));
            t.send(gre(alice(), web().ip, &[0x30, 1, 0x88, 0xb, 0, 0, 0, 9]));
            t.send(gre(alice(), web().ip, &[0x30, 2, 0x88, 0xb, 0, 0, 0, 9]));
            t.send(gre(alice(), web().ip, &[0x30]));
            t.flows();
        });
    }
}
