//! SIP before both, over UDP and TCP, with and without translation.

use super::conn::Conn;
use super::packet::{Host, Packet, alice, bob, udp, web};
use super::script::{Script, both};

const SNAT: &str = "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100";
const UDP: &str = "-t raw -A PREROUTING -p udp -m udp --dport 5060 -j CT --helper sip";
const TCP: &str = "-t raw -A PREROUTING -p tcp -m tcp --dport 5060 -j CT --helper sip";

/// A session description of this host.
fn session(host: &str, ports: &[(&str, u16)]) -> String {
    let lines: String = ports
        .iter()
        .map(|(kind, port)| format!("m={kind} {port} RTP/AVP 0 8\r\na=sendrecv\r\n"))
        .collect();
    format!("v=0\r\no=- 1 1 IN IP4 {host}\r\ns=call\r\nc=IN IP4 {host}\r\nt=0 0\r\n{lines}")
}

/// A message with a body.
fn message(start: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{start}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Headers of a request from alice to web, and of its answers.
fn headers(method: &str, cseq: u32, via: &str) -> Vec<String> {
    vec![
        format!("Via: SIP/2.0/{via} 198.18.1.10:5060;branch=z9hG4bK{cseq};rport"),
        "From: <sip:alice@198.18.1.10:5060>;tag=1".to_owned(),
        "To: <sip:web@198.18.3.10:5060>".to_owned(),
        "Call-ID: 17@198.18.1.10".to_owned(),
        format!("CSeq: {cseq} {method}"),
    ]
}

fn request(method: &str, cseq: u32, more: &[&str], body: &str) -> Vec<u8> {
    let headers = headers(method, cseq, "UDP");
    let all: Vec<&str> = headers.iter().map(String::as_str).chain(more.iter().copied()).collect();
    message(&format!("{method} sip:web@198.18.3.10:5060 SIP/2.0"), &all, body)
}

/// An answer of web's to a request that it saw come from `seen`.
fn answer(code: u16, method: &str, cseq: u32, seen: &str, more: &[&str], body: &str) -> Vec<u8> {
    let headers = headers(method, cseq, "UDP");
    let all: Vec<String> =
        headers.iter().map(|header| header.replace("198.18.1.10", seen)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).chain(more.iter().copied()).collect();
    message(&format!("SIP/2.0 {code} Whatever"), &all, body)
}

fn up(payload: &[u8]) -> Packet {
    udp(alice(), 5060, web().ip, 5060, payload)
}

fn down(to: &str, payload: &[u8]) -> Packet {
    udp(web(), 5060, to.parse().unwrap(), 5060, payload)
}

fn rtp(from: Host, sport: u16, to: &str, dport: u16) -> Packet {
    udp(from, sport, to.parse().unwrap(), dport, b"\x80\0\0\0media")
}

/// A call from alice to web: media both ways, and an end. `seen`: who web thinks that she is.
fn call(t: &mut Script<'_>, seen: &str) {
    let offer = session("198.18.1.10", &[("audio", 4000), ("video", 4010)]);
    let contact = "Contact: <sip:alice@198.18.1.10:5060>";
    t.send(up(&request("INVITE", 1, &[contact], &offer))).passes("NEW");
    assert_eq!(t.expectations().len(), 4);
    t.send(down(seen, &answer(100, "INVITE", 1, seen, &[], ""))).passes("ESTABLISHED");
    let accepted = session("198.18.3.10", &[("audio", 6000), ("video", 0)]);
    let contact = "Contact: <sip:web@198.18.3.10:5060>";
    let ok = answer(200, "INVITE", 1, seen, &[contact], &accepted);
    t.send(down(seen, &ok)).passes("ESTABLISHED");
    t.expectations();
    t.send(up(&request("ACK", 1, &[], ""))).passes("ESTABLISHED");
    t.send(rtp(web(), 6000, seen, 4000)).passes("RELATED");
    t.send(rtp(alice(), 4000, "198.18.3.10", 6000)).passes("ESTABLISHED");
    t.send(rtp(web(), 6001, seen, 4001)).passes("RELATED");
    t.send(rtp(alice(), 4011, "198.18.3.10", 7001));
    t.expectations();
    t.send(up(&request("BYE", 2, &[], ""))).passes("ESTABLISHED");
    assert!(t.expectations().is_empty());
    t.send(down(seen, &answer(200, "BYE", 2, seen, &[], ""))).passes("ESTABLISHED");
    t.flows();
}

#[test]
fn a_call_without_translation() {
    both(|t| {
        t.rules(&[UDP]);
        call(t, "198.18.1.10");
    });
}

#[test]
fn a_call_through_source_translation() {
    both(|t| {
        t.rules(&[UDP, SNAT]);
        call(t, "198.18.3.100");
    });
}

#[test]
fn a_call_to_a_translated_destination() {
    both(|t| {
        t.rules(&[
            UDP,
            "-t nat -A PREROUTING -i eth0 -d 198.18.3.77/32 -j DNAT --to-destination 198.18.3.10",
        ]);
        let offer = session("198.18.1.10", &[("audio", 4000)]);
        let invite = request("INVITE", 1, &["Contact: <sip:alice@198.18.1.10>"], &offer);
        let text = String::from_utf8(invite).unwrap().replace("198.18.3.10", "198.18.3.77");
        t.send(udp(alice(), 5060, "198.18.3.77".parse().unwrap(), 5060, text.as_bytes()))
            .passes("NEW");
        t.expectations();
        let accepted = session("198.18.3.10", &[("audio", 6000)]);
        let ok =
            answer(200, "INVITE", 1, "198.18.1.10", &["Contact: <sip:web@198.18.3.10>"], &accepted);
        t.send(down("198.18.1.10", &ok)).passes("ESTABLISHED");
        t.expectations();
        t.send(rtp(web(), 6000, "198.18.1.10", 4000)).passes("RELATED");
        t.send(rtp(alice(), 4000, "198.18.3.77", 6000));
        t.flows();
    });
}

/// alice registers with web, and is called.
fn registration(t: &mut Script<'_>, seen: &str) {
    let contact = |host: &str, rest: &str| format!("Contact: <sip:alice@{host}:5060>{rest}");
    let own = contact("198.18.1.10", ";expires=120");
    t.send(up(&request("REGISTER", 1, &[&own], ""))).passes("NEW");
    assert_eq!(t.expectations().len(), 1);
    t.send(rtp(web(), 7000, seen, 5060));
    let told = contact(seen, ";expires=90");
    t.send(down(seen, &answer(200, "REGISTER", 1, seen, &[&told], ""))).passes("ESTABLISHED");
    t.expectations();
    let invite = request("INVITE", 9, &[], &session("198.18.3.10", &[("audio", 6000)]));
    t.send(udp(web(), 7001, seen.parse().unwrap(), 5060, &invite)).passes("RELATED");
    t.expectations();
    t.flows();
    // No longer.
    let own = contact("198.18.1.10", ";expires=0");
    t.send(up(&request("REGISTER", 2, &[&own], ""))).passes("ESTABLISHED");
    t.expectations();
    t.send(down(seen, &answer(200, "REGISTER", 2, seen, &[], ""))).passes("ESTABLISHED");
    t.expectations();
    let expires = request("REGISTER", 3, &["Expires: 60", &contact("198.18.1.10", "")], "");
    t.send(up(&expires)).passes("ESTABLISHED");
    t.expectations();
    t.send(down(seen, &answer(403, "REGISTER", 3, seen, &[], ""))).passes("ESTABLISHED");
    t.expectations();
    let third = request("REGISTER", 4, &[&contact("198.18.1.11", "")], "");
    t.send(up(&third)).passes("ESTABLISHED");
    t.expectations();
}

#[test]
fn a_registration_without_translation() {
    both(|t| {
        t.rules(&[UDP]);
        registration(t, "198.18.1.10");
    });
}

#[test]
fn a_registration_through_source_translation() {
    both(|t| {
        t.rules(&[UDP, SNAT, "-A FORWARD -i eth2 -m conntrack --ctstate NEW -j DROP"]);
        registration(t, "198.18.3.100");
    });
}

#[allow(clippy::too_many_lines, reason = "a list of messages")]
#[test]
fn messages_in_odd_forms() {
    both(|t| {
        t.rules(&[UDP, SNAT]);
        t.send(up(&request("OPTIONS", 1, &[], ""))).passes("NEW");
        let body = session("198.18.1.10", &[("audio", 4000)]);
        let invite = String::from_utf8(request(
            "INVITE",
            2,
            &["Contact: <sip:alice@198.18.1.10:5060>"],
            &body,
        ))
        .unwrap();
        let replaced = |old: &str, new: &str| invite.replace(old, new).into_bytes();
        let odd = [
            replaced("Content-Length", "l"),
            replaced("Content-Length", "L "),
            replaced("Via:", "v:"),
            replaced("Via:", "Via :"),
            replaced("From:", "f:"),
            replaced("To:", "T\t:\r\n\t"),
            replaced("Contact:", "m:"),
            replaced("Contact: ", "Contact: \"a, b\" <sip:x@198.18.1.10:5060>,\r\n "),
            replaced("CSeq: 2", "CSeq: x"),
            replaced("CSeq: 2", "CSeq: 0"),
            replaced("CSeq", "Seq"),
            replaced("\r\n", "\n"),
            replaced("rport", "received=198.18.1.10;maddr=198.18.1.10;rport=5060"),
            replaced("m=audio 4000", "m=audio 4001"),
            replaced("m=audio 4000", "m=audio 80"),
            replaced("m=audio 4000", "m=audio 70000"),
            replaced("m=audio 4000", "m=text 4000"),
            replaced("m=audio 4000", "m=image 4000"),
            replaced("c=IN IP4 198.18.1.10", "c=IN IP4 198.18.3.10"),
            String::from_utf8(replaced("IP4 198.18.1.10", "IP4 198.18.1.11"))
                .unwrap()
                .replace("m=audio", "m=text")
                .into_bytes(),
            invite
                .replace("c=IN IP4 198.18.1.10\r\n", "")
                .replace("m=audio", "m=text")
                .into_bytes(),
            replaced("m=audio 4000", "m=audio 0"),
            invite
                .replace("c=IN IP4 198.18.1.10", "c=IN IP4 198.18.1.11")
                .replace("m=audio", "m=text")
                .into_bytes(),
            replaced("m=audio", "c=IN IP4 198.18.1.10\r\nm=audio"),
            replaced("t=0 0\r\n", "t=0 0\r\nm=text 1 x\r\n"),
            replaced("a=sendrecv", "c=IN IP4 198.18.1.10"),
            replaced("c=IN IP4 198.18.1.10\r\n", ""),
            replaced("o=-", "x=-"),
            replaced("c=IN IP4 198.18.1.10", "c=IN IP4 198.18.1.11"),
            replaced("c=IN IP4 198.18.1.10", "c=IN IP4 198.18.1.10/127"),
            replaced("c=IN IP4 198.18.1.10", "c=IN IP6 ::1"),
            replaced("v=0", "v=x"),
            replaced("198.18.1.10:5060", "198.18.1.10"),
            replaced("198.18.1.10:5060", "198.18.1.10:1023"),
            replaced("198.18.1.10:5060", "198.18.1.10:5061"),
            replaced("198.18.1.10:5060", "host.example:5060"),
            replaced("sip:alice@", "sip:"),
            replaced("INVITE sip:web@", "INVITE sips:web@"),
            replaced("INVITE sip", "INVITE  sip"),
            replaced("INVITE", "invite"),
            replaced("INVITE", "INVITEX"),
            replaced("UDP", "TCP"),
        ];
        for message in odd {
            t.send(up(&message));
            t.expectations();
        }
        for end in [":5(60", ":5", ":1023", ":0", ":", ":70000", ":x", "x", ".5", ""] {
            let contact = format!("Contact: <sip:alice@198.18.1.10{end}>;expires=60");
            t.send(up(&request("REGISTER", 7, &[&contact], "")));
            t.expectations();
        }
        for end in [":5(60", ":5", ":1023", ":0", ":", ":70000", ":x", "x", ".5", ""] {
            let own = "Contact: <sip:alice@198.18.1.10:5060>;expires=60";
            t.send(up(&request("REGISTER", 8, &[own], "")));
            let contact = format!("Contact: <sip:alice@198.18.3.100{end}>;expires=60");
            let ok = answer(200, "REGISTER", 8, "198.18.3.100", &[&contact, own], "");
            t.send(down("198.18.3.100", &ok));
            t.expectations();
        }
        for cut in [5, 12, 40, 100, 200, 300] {
            t.send(up(&invite.as_bytes()[..cut]));
            t.expectations();
        }
        for code in ["2", "200", "x00", "99", "1000", "487"] {
            let ok = answer(
                200,
                "INVITE",
                2,
                "198.18.3.100",
                &[],
                &session("198.18.3.10", &[("audio", 6000)]),
            );
            let text = String::from_utf8(ok).unwrap().replacen("200", code, 1);
            t.send(down("198.18.3.100", text.as_bytes()));
            t.expectations();
        }
    });
}

#[test]
fn a_telephone_that_listens_elsewhere() {
    both(|t| {
        t.rules(&[UDP, SNAT]);
        let register =
            request("REGISTER", 1, &["Contact: <sip:alice@198.18.1.10:5060>", "Expires: 60"], "");
        let out = t.send(udp(alice(), 50_123, web().ip, 5060, &register)).passes("NEW");
        let port = out.ip().sport();
        t.expectations();
        let ok = answer(
            200,
            "REGISTER",
            1,
            "198.18.3.100",
            &["Contact: <sip:alice@198.18.3.100:5060>;expires=60"],
            "",
        );
        t.send(udp(web(), 5060, "198.18.3.100".parse().unwrap(), port, &ok)).passes("ESTABLISHED");
        t.expectations();
    });
}

#[test]
fn two_callers_with_the_same_ports() {
    both(|t| {
        t.rules(&[UDP, SNAT]);
        let offer = session("198.18.1.10", &[("audio", 4000)]);
        t.send(up(&request("INVITE", 1, &[], &offer))).passes("NEW");
        let other = String::from_utf8(request(
            "INVITE",
            1,
            &["Contact: <sip:bob@198.18.1.11:5060>"],
            &offer,
        ))
        .unwrap();
        let other = other.replace("198.18.1.10", &bob().ip.to_string());
        // What is expected for alice is not moved out of the way: bob's call fails.
        t.send(udp(bob(), 5061, web().ip, 5060, other.as_bytes())).dropped("NEW");
        t.expectations();
        t.send(rtp(web(), 6000, "198.18.3.100", 4000)).passes("RELATED");
        t.flows();
    });
}

#[test]
fn over_tcp_several_messages_share_a_segment() {
    both(|t| {
        t.rules(&[TCP, SNAT]);
        let mut c = Conn::new(alice(), 5060, web(), 5060);
        c.open(t);
        let tcp = |message: Vec<u8>| String::from_utf8(message).unwrap().replace("UDP", "TCP");
        let offer = session("198.18.1.10", &[("audio", 4000)]);
        let invite = tcp(request(
            "INVITE",
            1,
            &["Contact: <sip:alice@198.18.1.10:5060;transport=TCP>"],
            &offer,
        ));
        let options = tcp(request("OPTIONS", 2, &[], ""));
        let start = c.cseq;
        t.send(c.client_sends("PA", (invite.clone() + &options).as_bytes())).passes("ESTABLISHED");
        t.expectations();
        let next = t.send(c.client_sends("PA", options.as_bytes())).passes("ESTABLISHED");
        assert!(next.ip().seq() > start + invite.len() as u32 + options.len() as u32);
        let ok = tcp(answer(
            200,
            "INVITE",
            1,
            "198.18.3.100",
            &["Contact: <sip:web@198.18.3.10:5060>"],
            &session("198.18.3.10", &[("audio", 6000)]),
        ));
        t.send(c.down("PA").data(ok.as_bytes())).passes("ESTABLISHED");
        t.expectations();
        // A message in two parts is not read.
        let (head, tail) = invite.split_at(200);
        t.send(c.client_sends("PA", head.as_bytes())).passes("ESTABLISHED");
        t.send(c.client_sends("PA", tail.as_bytes())).passes("ESTABLISHED");
        t.flows();
    });
}

/// Messages of alice's, each followed by one of web's.
pub fn samples() -> Vec<Vec<u8>> {
    let seen = "198.18.3.100";
    let offer = session("198.18.1.10", &[("audio", 4000), ("video", 4010)]);
    let accepted = session("198.18.3.10", &[("audio", 6000)]);
    let own = "Contact: <sip:alice@198.18.1.10:5060>;expires=60";
    let told = "Contact: <sip:alice@198.18.3.100:5060>;expires=60";
    vec![
        request("INVITE", 1, &[own], &offer),
        answer(200, "INVITE", 1, seen, &["Contact: <sip:web@198.18.3.10:5060>"], &accepted),
        request("REGISTER", 2, &[own], ""),
        answer(200, "REGISTER", 2, seen, &[told], ""),
        request("UPDATE", 3, &[own], &offer),
        answer(486, "INVITE", 1, seen, &[], ""),
    ]
}
