//! TFTP and IRC without translation.

use super::*;

const REQUEST: &[u8] = b"\x00\x01file\x00octet\x00";

#[test]
fn tftp_answers_come_from_any_port_once() {
    let rig = Rig::new(HelperKind::Tftp);
    let request = Packet::udp(CLIENT, 3000, SERVER, 69).payload(REQUEST);
    assert_eq!(rig.state(&request), CtState::New);
    assert_eq!(rig.expected(), [format!("src={SERVER} dst={CLIENT} sport=0 dport=3000")]);
    assert_eq!(rig.state(&request), CtState::New, "again");
    assert_eq!(rig.expected().len(), 1);
    let data = |port| Packet::udp(SERVER, port, CLIENT, 3000).payload(b"\x00\x03\x00\x01data");
    assert_eq!(rig.state(&data(40000)), CtState::Related);
    assert_eq!(rig.state(&data(40001)), CtState::New);
    assert_eq!(rig.state(&Packet::udp(CLIENT, 3000, SERVER, 40000)), CtState::Established);
}

#[test]
fn tftp_reads_only_requests() {
    for payload in [&b""[..], b"\x00", b"\x00\x03\x00\x01", b"\x00\x04\x00\x01", b"\x01\x01"] {
        let rig = Rig::new(HelperKind::Tftp);
        rig.send(&Packet::udp(CLIENT, 3000, SERVER, 69).payload(payload)).unwrap();
        assert!(rig.expected().is_empty(), "{payload:?}");
    }
    let rig = Rig::new(HelperKind::Tftp);
    rig.send(&Packet::udp(CLIENT, 3000, SERVER, 69).payload(b"\x00\x02")).unwrap();
    assert_eq!(rig.expected().len(), 1, "a write request");
}

/// What an IRC client's message makes us expect.
fn offered(message: &str) -> Vec<String> {
    let rig = Rig::new(HelperKind::Irc);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 6667));
    talk.say(&rig, 0, message.as_bytes()).unwrap();
    rig.expected()
}

#[test]
fn irc_offers_are_expected_from_anywhere() {
    // 198.18.1.5
    let here = u32::from_be_bytes([198, 18, 1, 5]);
    let expected = [format!("src=0.0.0.0 dst={CLIENT} sport=0 dport=5000")];
    for offer in ["SEND file", "CHAT chat", "MOVE x", "TSEND x", "SCHAT x"] {
        let message = format!("PRIVMSG bob :\x01DCC {offer} {here} 5000 77\x01\r\n");
        assert_eq!(offered(&message), expected, "{message}");
        let message = format!("\r\n privmsg bob :\x01DCC {offer} {here}   5000\x01\n");
        assert_eq!(offered(&message), expected, "{message}");
    }
    for message in [
        format!("NOTICE bob :\x01DCC SEND file {here} 5000\x01\r\n"),
        format!("PRIVMSG bob :\x01DCC SEND file {} 5000\x01\r\n", here + 1),
        format!("PRIVMSG bob :\x01DCC SEND file {here} 0\x01\r\n"),
        format!("PRIVMSG bob :\x01DCC SEND file {here} 5000\x01"),
        format!("PRIVMSG bob :\x01DCC send file {here} 5000\x01\r\n"),
        format!("PRIVMSG bob :\x01DCC RESUME file {here} 5000\x01\r\n"),
        "PRIVMSG bob :\x01DCC SEND filefilefilefilefile\n".to_owned(),
        "PRIVMSG bob".to_owned(),
    ] {
        assert!(offered(&message).is_empty(), "{message}");
    }
    let first = here + 1;
    let second =
        format!("PRIVMSG bob :\x01DCC SEND f {first} 5000 :\x01DCC SEND f {here} 5000\x01\r\n");
    assert!(offered(&second).is_empty(), "only the first counts");
    let later = format!("PRIVMSG bob :see \x01DCC SEND f {here} 5000\x01\r\n");
    assert!(offered(&later).is_empty(), "only at the beginning of the text");
}

#[test]
fn irc_has_eight_channels_and_the_oldest_goes() {
    let rig = Rig::new(HelperKind::Irc);
    let mut talk = Talk::open(&rig, (CLIENT, 4000), (SERVER, 6667));
    let here = u32::from_be_bytes([198, 18, 1, 5]);
    for port in 5000..5010 {
        let message = format!("PRIVMSG bob :\x01DCC SEND file {here} {port}\x01\r\n");
        talk.say(&rig, 0, message.as_bytes()).unwrap();
    }
    let mut ports: Vec<String> = rig.expected();
    ports.sort();
    let expected: Vec<String> =
        (5002..5010).map(|port| format!("src=0.0.0.0 dst={CLIENT} sport=0 dport={port}")).collect();
    assert_eq!(ports, expected);
    let back = format!("PRIVMSG bob :\x01DCC SEND file {here} 5011\x01\r\n");
    talk.say(&rig, 1, back.as_bytes()).unwrap();
    assert_eq!(rig.expected().len(), 8, "the server's words do not count");
}
